"""What was measured of generated images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SampleQuality:
    """Measures of generated images.

    Attributes:
        modes: number of the data's classes that samples have: at least one sample, and at least 5 % of those
            that as many real images would have.
        modes_total: number of the data's classes.
        shares: share of each class in the samples.
        kl: Kullback-Leibler divergence of the samples' classes from the data's, in nats (0: equal shares). As
            many real images have about (classes - 1) / (2 * images).
        density: number of neighbourhoods of real images that a sample lies in, relative to real images (1).
        coverage: share of real images with a sample in their neighbourhood (real images: 0.97).
        duplicates: share of samples whose nearest other sample is nearer, in pixels averaged to 16 a side,
            than 99 % of the real images are to theirs.
        frechet: squared Fréchet distance of the features from those of the data.
        frechet_floor: that of as many held-out images of the data.
        broken: share of samples with NaN or infinite values, which the other measures leave out.
        samples: number of samples.
    """

    modes: int
    modes_total: int
    shares: tuple[float, ...]
    kl: float
    density: float
    coverage: float
    duplicates: float
    frechet: float
    frechet_floor: float
    broken: float
    samples: int

    def numbers(self) -> dict[str, float]:
        """Return the measures by name, for a log, without shares and without those that too few
        usable samples leave unknown (NaN)."""
        values = {name: float(value) for name, value in asdict(self).items() if name != "shares"}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def as_json(self) -> dict[str, Any]:
        """Return plain values; `quality_from_json` restores the measures."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def quality_from_json(values: Mapping[str, Any]) -> SampleQuality:
    """Return the measures that `SampleQuality.as_json` wrote."""
    unknown = {name: math.nan for name, value in values.items() if value is None}
    return SampleQuality(**{**values, **unknown, "shares": tuple(values["shares"])})
