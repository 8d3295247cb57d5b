"""From the errors of normal samples to the threshold above which a sample is an anomaly."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from genray.errors import DataError
from genray.settings.base import Settings

_FEWEST_PEAKS = 10  # that a tail is fitted to


class ThresholdSettings(Settings):
    """Settings of the threshold."""

    kind: Literal["quantile", "deviations", "peaks"] = Field(
        "quantile",
        description="a quantile of normal errors; mean + k std of them; or a quantile by the tail that is "
        "fitted to the peaks over a lower one, for quantiles beyond what the data reach",
    )
    quantile: float = Field(
        0.95, gt=0, lt=1, description="of normal errors that are to be below (quantile and peaks)"
    )
    deviations: float = Field(3.0, description="k of mean + k std")
    tail: float = Field(0.8, gt=0, lt=1, description="peaks: the quantile above which the tail is fitted")
    folds: int = Field(
        5,
        ge=0,
        le=50,
        description="normal beats are scored by networks that did not learn them, one for each of so many "
        "parts; 0 or 1: the held-out beats are scored by the network itself",
    )
    cross_fit_most: int = Field(
        50_000, ge=1, description="with more normal beats than this the held-out ones are enough"
    )

    @model_validator(mode="after")
    def _tail_below(self) -> Self:
        if self.kind == "peaks" and self.tail >= self.quantile:
            raise ValueError("tail must be below quantile")
        return self


def threshold_of(errors: NDArray[np.float64], settings: ThresholdSettings) -> float:
    """The threshold that `settings` ask for, of the errors of normal samples, (N,).

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
        share = (1 - settings.quantile) * len(errors) / max(len(peaks), 1)  # of peaks to be above
        if len(peaks) >= _FEWEST_PEAKS and share < 1 and peaks.min() < peaks.max():
            from scipy.stats import genpareto

            shape, _, scale = genpareto.fit(peaks, floc=0)
            return start + float(genpareto.isf(share, shape, scale=scale))
    return float(np.quantile(errors, settings.quantile, method="higher"))


def calibration_of(errors: NDArray[np.float64], settings: ThresholdSettings, folds: int) -> dict[str, Any]:
    """What a bundle keeps: the threshold and how it came about, and the distribution of normal errors.

    Args:
        errors: of normal samples, (N,).
        folds: that they were scored in; 0: by the network itself.

    Returns:
        `errors` are the quantiles 0, 0.01 to 0.99, and 1, by which an error becomes a percentile of
        normal ones.

    Raises:
        DataError: there is no threshold above 0.
    """
    threshold = threshold_of(errors, settings)
    if not (np.isfinite(threshold) and threshold > 0):
        raise DataError(
            f"the threshold is {threshold:g}, from errors of {errors.min():g} to {errors.max():g}",
            where="threshold",
            hint="it has to be above 0: look whether the normal samples are all flat lines, or all the same; "
            "with threshold.kind=deviations raise threshold.deviations",
        )
    return {
        "threshold": threshold,
        **settings.model_dump(mode="json", exclude={"cross_fit_most", "folds"}),
        "folds": folds,
        "beats": len(errors),
        "mean": float(errors.mean()),
        "std": float(errors.std()),
        "errors": [float(e) for e in np.quantile(errors, np.linspace(0, 1, 101))],
    }
