"""Measures of generated images against a data set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from genray.measures.distances import density_and_coverage, frechet_distance
from genray.measures.quality import SampleQuality
from genray.measures.reference import (
    DataReference,
    MeasureSettings,
    check_data,
    fit_reference,
    hash_of,
    read_reference,
)

_HIT = 0.05  # of the samples that a mode would have in real data: fewer are misread ones
_LEAST_SHARE = 1e-6  # of a mode that the data lacks: keeps misread samples from an infinite divergence


@dataclass(frozen=True, eq=False)
class ImageMeasures:
    """Measures generated images against a data set, without pretrained weights.

    It is responsible for the values. It leaves to its user when to measure, and to
    `genray.measures.collapse` what the values say.

    Attributes:
        reference: what of the data samples are compared with.
        neighbours: number of neighbours whose distance is the radius in density and coverage.
    """

    reference: DataReference
    neighbours: int

    @classmethod
    def fit(
        cls,
        images: torch.Tensor,
        labels: torch.Tensor | None,
        seed: int,
        cache: Path | None,
        settings: MeasureSettings | None = None,
        held_out: torch.Tensor | None = None,
    ) -> ImageMeasures:
        """Fit the measures to a data set: a small classifier is trained on a part of the images, and another
        part is the reference. The distance of held-out images from it is the floor of the Fréchet distance.

        Args:
            images: (N, C, H, W) uint8, at least 16.
            labels: (N,) integers from 0 on; (N, C) for a class in each channel, each read by itself; None:
                clusters of k-means on principal components stand for the classes.
            seed: seed of the choice of images and of the training.
            cache: folder that keeps the result under a hash of data, seed and settings (None: nowhere). A
                damaged file there is replaced.
            settings: settings of the measures (None: the defaults).
            held_out: (N, C, H, W) uint8, the test images of the data (None: a further part of `images`).

        Raises:
            DataError: too few images, or too many classes.
            StorageFull: no space in `cache`.
        """
        settings = settings or MeasureSettings()
        labels = None if labels is None else labels.cpu().long()
        check_data(images, labels, held_out)
        path = None
        if cache is not None:
            key = hash_of(settings, seed, images, labels, held_out)
            path = cache / f"measures-{key[:16]}.safetensors"
            if kept := read_reference(path):
                return cls(kept, settings.neighbours)
        reference = fit_reference(images, labels, held_out, seed, settings)
        if path is not None:
            reference.write(path)
        return cls(reference, settings.neighbours)

    def classes_of(self, samples: torch.Tensor) -> torch.Tensor:
        """Return the class (N,) that each of (N, C, H, W) in [0, 1] is read as; if each channel has one, the
        number whose digits they are."""
        return self.reference.read(samples)[1]

    def measure(self, samples: torch.Tensor) -> SampleQuality:
        """Measure samples. Density, coverage, duplicates and the Fréchet distance compare the first 4,000 of
        them. 1,000 classes (Stacked MNIST) need 26,000 samples, as in the papers, for each to have some.

        Args:
            samples: (N, C, H, W), of the shape of the data's images; values outside [0, 1] are clipped.

        Raises:
            ValueError: samples of another shape.
        """
        data = self.reference
        if samples.ndim != 4 or tuple(samples.shape[1:]) != data.shape:
            raise ValueError(f"samples are {tuple(samples.shape)}, images of the data {data.shape}")
        usable = samples[samples.flatten(1).isfinite().all(dim=1)].detach().clamp(0, 1)
        if not len(usable):
            return _nothing(data, len(samples))
        features, modes = data.read(usable)
        counts = torch.bincount(modes, minlength=len(data.shares)).double()
        expected = (_HIT * len(usable) * data.shares).floor().clamp(min=1)
        exists = data.shares > 0
        compared = min(len(usable), len(data.features))
        density, coverage = density_and_coverage(
            data.features[:compared], features[:compared], self.neighbours
        )
        return SampleQuality(
            modes=int((exists & (counts >= expected)).sum()),
            modes_total=int(exists.sum()),
            shares=tuple((counts / len(usable)).tolist()),
            kl=_divergence(counts / len(usable), data.shares),
            density=density,
            coverage=coverage,
            duplicates=data.near_share(usable[:compared]),
            frechet=frechet_distance(features[:compared], data.features),
            frechet_floor=frechet_distance(data.held_out[:compared], data.features),
            broken=1 - len(usable) / len(samples),
            samples=len(samples),
        )


def _nothing(data: DataReference, samples: int) -> SampleQuality:
    """Return the measures of samples none of which is usable."""
    return SampleQuality(
        modes=0,
        modes_total=int((data.shares > 0).sum()),
        shares=(0.0,) * len(data.shares),
        kl=math.nan,
        density=0.0,
        coverage=0.0,
        duplicates=0.0,
        frechet=math.nan,
        frechet_floor=math.nan,
        broken=1.0 if samples else 0.0,
        samples=samples,
    )


def _divergence(samples: torch.Tensor, data: torch.Tensor) -> float:
    """Return KL(samples || data) of shares, in nats."""
    hit = samples > 0
    return float((samples[hit] * (samples[hit] / data[hit].clamp(min=_LEAST_SHARE)).log()).sum())
