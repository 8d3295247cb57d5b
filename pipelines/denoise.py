"""The target denoise: removes noise with a denoiser bundle, from images that have some."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genray.images.damage.change_limit import limit_change
from genray.images.damage.noise_level import NoiseEstimate, estimate_noise
from genray.images.photo import Photo
from genray.settings.base import Location, Settings
from pipelines.engine.target import Bulk
from pipelines.steps.base import ImageScores, StepInput, StepResult
from pipelines.steps.pixels import PixelArray, mean_change, with_pixels
from pipelines.steps.restoration import RestorationSettings, RestorationStep, blend, with_change

_CLEAN_BELOW = 1.0  # levels of 255: three times what rounding adds, and not seen
_OF_LOWEST = 0.5  # of the least noise that the network was trained on, below which it is not used
_MARGIN_OF_PHOTOS, _MARGIN_OF_PAGES = 2.0, 1.3
_FINE = 95  # quality of a JPEG output, at least, unless write.quality is set
_SURE = 0.9  # certainty from which an image counts as a page or graphic, or as none


class DenoisingSettings(Settings):
    """Settings of the denoising of an image."""

    clean_below: float | None = Field(
        None,
        ge=0,
        le=255,
        description=(
            "estimated noise, in levels of 255, below which an image is copied unchanged (null: 1, or half "
            "of the least noise that the bundle was trained on)"
        ),
    )
    strength: float = Field(
        1.0, ge=0, le=1, description="strength of the change (below 1 some noise is left, like film grain)"
    )
    change_limit: float = Field(
        1.5,
        ge=0,
        le=100,
        description=(
            "largest change of a place in multiples of the noise of flat places: letters and textures are "
            "not taken for noise (0: no limit)"
        ),
    )
    refused_above: float = Field(
        0.5,
        ge=0,
        le=1,
        description=(
            "share of the network's change that is above the limit, from which an image is copied unchanged "
            "(1: never)"
        ),
    )
    content: Literal["auto", "all"] = Field(
        "auto",
        description=(
            "images that are processed (auto: those that the bundle is for, photographs or pages, if it says "
            "so; all: all of them)"
        ),
    )


class DenoiseSettings(RestorationSettings):
    """Settings of denoise."""

    bundle: Location = Field(
        "ready:photo",
        description="folder of a denoiser's bundle, or a ready model (ready:photo, ready:document)",
    )
    denoise: DenoisingSettings = Field(
        DenoisingSettings(), description="strength of the denoising, and images that are left unchanged"
    )


class Denoise(RestorationStep[DenoiseSettings]):
    """Removes noise, and nothing that does not look like it.

    Responsible for: the estimate of each image's noise; copying images unchanged, byte for byte, that are
    clean, that the bundle is not for, or that the network would harm; limiting the change of the others. The
    base class runs the network.
    """

    settings_class = DenoiseSettings
    bundle_kinds = ("denoiser",)
    noise_sigma = 25.0

    def check(self) -> Sequence[str]:
        """See `Step`."""
        lines = [*super().check(), f"noise: images below {self.clean_below:g} of 255 are copied unchanged"]
        if self._made_for is not None and self.settings.denoise.content == "auto":
            lines.append(f"content: the bundle is for {self._made_for}; other images are copied unchanged")
        return lines

    def prepare(self, sample: Sequence[Photo], model_folder: Path) -> Mapping[str, Any]:
        """See `Step`."""
        return {**super().prepare(sample, model_folder), "noise_limit": self.clean_below}

    @property
    def clean_below(self) -> float:
        """Estimated noise below which an image is copied, in levels of 255."""
        if self.settings.denoise.clean_below is not None:
            return self.settings.denoise.clean_below
        lowest = self.manifest.calibration.get("noise", {}).get("lowest", 0.0)
        return max(_CLEAN_BELOW, _OF_LOWEST * lowest)

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        estimates = [estimate_noise(self.seen(image.photo.pixels)) for image in inputs]
        reasons = [self._why_copied(estimate) for estimate in estimates]
        noisy = [image.photo for image, reason in zip(inputs, reasons, strict=True) if not reason]
        restored = iter(self.restore([photo.pixels for photo in noisy]) if noisy else [])
        results = []
        for image, estimate, reason in zip(inputs, estimates, reasons, strict=True):
            if reason:
                results.append(_copied(image, estimate, reason))
            else:
                results.append(self._denoised(image, estimate, next(restored)))
        return results

    def _why_copied(self, estimate: NoiseEstimate) -> str:
        """Return the reason why an image is copied; empty: it is processed."""
        # A level of NaN means too few pixels for an estimate: the image does not count as clean.
        if estimate.level < self.clean_below:
            return "clean"
        if self.settings.denoise.content == "auto":
            if self._made_for == "photographs" and estimate.graphic > _SURE:
                return "page"
            if self._made_for == "pages" and estimate.graphic < 1 - _SURE:
                return "photograph"
        return ""

    @property
    def _made_for(self) -> str | None:
        """What the bundle was made for, photographs or pages; None if it does not say."""
        made_for = (self.manifest.data.get("about") or {}).get("made_for")
        return str(made_for) if made_for else None

    def _denoised(self, image: StepInput, estimate: NoiseEstimate, restored: PixelArray) -> StepResult:
        settings = self.settings.denoise
        before = image.photo.pixels
        after = restored
        if settings.change_limit:
            most = None if math.isnan(estimate.level) else _margin(estimate) * estimate.level
            seen = self.seen(before)
            limited = limit_change(seen, self.seen(restored), factor=settings.change_limit, most_noise=most)
            if limited.refused > settings.refused_above:
                return _copied(image, estimate, "would harm")
            after = limited.pixels
            if self.window is not None:
                after = with_change(before, seen, after, self.window)
        after = blend(before, after, settings.strength)
        photo = _stored_finely(with_pixels(image.photo, after))
        return StepResult(photo=photo, scores=_scores(estimate, mean_change(before, after)))


def _stored_finely(photo: Photo) -> Photo:
    """Return a photo that a JPEG file keeps: the coarse tables of a noisy file would take away more than the
    noise did."""
    if photo.quality is None or photo.quality >= _FINE:
        return photo
    return replace(photo, quality=_FINE, carried=replace(photo.carried, tables=()))


def _margin(estimate: NoiseEstimate) -> float:
    """Return how many times the estimate the noise may be: of blurred noise often half is found, but on a
    page a wide margin would cost letters."""
    return _MARGIN_OF_PAGES + (_MARGIN_OF_PHOTOS - _MARGIN_OF_PAGES) * (1 - estimate.graphic)


def _copied(image: StepInput, estimate: NoiseEstimate, reason: str) -> StepResult:
    return StepResult(copy=image.data, scores=_scores(estimate, 0.0), skipped=reason)


def _scores(estimate: NoiseEstimate, change: float) -> ImageScores:
    if math.isnan(estimate.level):
        return ImageScores(change=change)
    return ImageScores(
        noise=estimate.level,
        noise_fine=estimate.fine,
        noise_coarse=estimate.coarse,
        noise_chroma=estimate.chroma,
        noise_kind=estimate.kind,
        change=change,
    )


TARGET = Bulk(Denoise)
