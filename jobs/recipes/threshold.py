"""Thresholds of anomalies, from the errors of normal samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from genray.errors import DataError
from genray.settings.base import Settings

_FEW_SAMPLES = 20
_FEWEST_PEAKS = 10  # fewest errors that a tail is fitted to


class ThresholdSettings(Settings):
    """Settings of the threshold."""

    kind: Literal["quantile", "deviations", "peaks"] = Field(
        "quantile",
        description=(
            "method (quantile: a quantile of the normal errors; deviations: their mean + k "
            "standard deviations; peaks: a quantile of the tail fitted to the errors above a "
            "lower quantile, for quantiles beyond what the data reach)"
        ),
    )
    quantile: float = Field(
        0.95,
        gt=0,
        lt=1,
        description="share of the normal errors below the threshold (kinds quantile and peaks)",
    )
    deviations: float = Field(3.0, description="k of the threshold mean + k standard deviations")
    tail: float = Field(
        0.8, gt=0, lt=1, description="quantile of the errors above which the tail is fitted (kind peaks)"
    )
    folds: int = Field(
        5,
        ge=0,
        le=50,
        description=(
            "parts of the normal beats for cross-fitting: each part is scored by a network "
            "trained on the others (0 or 1: the network itself scores the held-out beats)"
        ),
    )
    cross_fit_most: int = Field(
        50_000,
        ge=1,
        description=(
            "largest number of normal beats for cross-fitting; with more, the threshold is set "
            "from the held-out beats"
        ),
    )

    @model_validator(mode="after")
    def _tail_below(self) -> Self:
        if self.kind == "peaks" and self.tail >= self.quantile:
            raise ValueError("tail must be below quantile")
        return self


def threshold_of(errors: NDArray[np.float64], settings: ThresholdSettings) -> float:
    """Return the threshold by `settings`, from the errors of normal samples, (N,).

    A quantile is the smallest error that at least that share of errors does not exceed. Peaks over a
    threshold are those of Siffer et al. 2017, "Anomaly Detection in Streams with Extreme Value Theory",
    equation 1: a generalised Pareto distribution by maximum likelihood. With fewer than ten peaks, or where
    many errors are the same and the quantile lies below all peaks, it is the plain quantile.
    """
    if settings.kind == "deviations":
        return float(errors.mean() + settings.deviations * errors.std())
    if settings.kind == "peaks":
        start = float(np.quantile(errors, settings.tail))
        peaks = errors[errors > start] - start
        share = (
            (1 - settings.quantile) * len(errors) / max(len(peaks), 1)
        )  # share of the peaks above the quantile
        if len(peaks) >= _FEWEST_PEAKS and share < 1 and peaks.min() < peaks.max():
            from scipy.stats import genpareto

            shape, _, scale = genpareto.fit(peaks, floc=0)
            return start + float(genpareto.isf(share, shape, scale=scale))
    return float(np.quantile(errors, settings.quantile, method="higher"))


def threshold_interval(errors: NDArray[np.float64], settings: ThresholdSettings) -> Interval:
    """Return the 95 % confidence interval of `threshold_of`; a quantile by a fitted tail gets that of the
    plain quantile."""
    if settings.kind == "deviations":
        return deviations_interval(errors, settings.deviations)
    return quantile_interval(errors, settings.quantile)


def quantile_interval(errors: NDArray[np.float64], quantile: float) -> Interval:
    """Return the 95 % confidence interval of a quantile, from order statistics: free of assumptions on the
    distribution (Hahn & Meeker 1991, "Statistical Intervals", section 5.2).

    Args:
        errors: errors of normal samples, (N,).
        quantile: between 0 and 1.
    """
    from scipy.stats import binom

    ordered = np.sort(errors)
    low = int(binom.ppf(0.025, len(errors), quantile)) - 1
    high = int(binom.ppf(0.975, len(errors), quantile))
    return Interval(
        float(ordered[low]) if low >= 0 else None, float(ordered[high]) if high < len(errors) else None
    )


def deviations_interval(errors: NDArray[np.float64], deviations: float) -> Interval:
    """Return the 95 % confidence interval of mean + k standard deviations of normally distributed errors,
    (N,), by the large-sample variance of that sum; unbounded for fewer than two errors."""
    count = len(errors)
    if count < 2:
        return Interval(None, None)
    threshold = float(errors.mean() + deviations * errors.std())
    half = 1.96 * float(errors.std(ddof=1)) * (1 / count + deviations**2 / (2 * (count - 1))) ** 0.5
    return Interval(threshold - half, threshold + half)


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval; None: unbounded on that side."""

    low: float | None
    high: float | None

    def __str__(self) -> str:
        low, high = ("unbounded" if end is None else f"{end:.4g}" for end in (self.low, self.high))
        return f"{low} to {high}"

    def as_json(self) -> list[float | None]:
        """Return plain JSON values."""
        return [self.low, self.high]


def few_samples_warning(count: int, samples: str, interval: Interval) -> list[str]:
    """Return a warning if a threshold is from too few normal samples, of the name `samples`, to be
    trusted."""
    if count >= _FEW_SAMPLES:
        return []
    return [
        f"the threshold is from {count} normal {samples}, too few to trust (95 % confidence interval "
        f"{interval}); give at least {_FEW_SAMPLES}"
    ]


def calibration_of(errors: NDArray[np.float64], settings: ThresholdSettings, folds: int) -> dict[str, Any]:
    """Return the calibration of a bundle: the threshold, its method, and the distribution of normal errors.

    Args:
        errors: errors of normal samples, (N,).
        folds: number of folds of their cross-fitting; 0: the network itself scored them.

    Returns:
        the calibration, whose `errors` are the quantiles 0, 0.01 to 0.99, and 1 of the normal errors, to
        convert an error to a percentile.

    Raises:
        DataError: the threshold is not above 0.
    """
    threshold = threshold_of(errors, settings)
    if not (np.isfinite(threshold) and threshold > 0):
        raise DataError(
            f"the threshold is {threshold:g}, from errors of {errors.min():g} to {errors.max():g}",
            where="threshold",
            hint=(
                "the threshold must be above 0: check that the normal samples are not all flat lines "
                "or all equal; with threshold.kind=deviations raise threshold.deviations"
            ),
        )
    return {
        "threshold": threshold,
        "threshold_interval": threshold_interval(errors, settings).as_json(),
        **settings.model_dump(mode="json", exclude={"cross_fit_most", "folds"}),
        "folds": folds,
        "beats": len(errors),
        "mean": float(errors.mean()),
        "std": float(errors.std()),
        "errors": [float(e) for e in np.quantile(errors, np.linspace(0, 1, 101))],
    }
