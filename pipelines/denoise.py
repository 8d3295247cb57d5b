"""The target denoise: removes noise with a denoiser bundle, from images that have some."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from genray.images.damage.block_filters import refine, undo_rounding
from genray.images.damage.change_limit import limit_change
from genray.images.damage.halving import halve, with_change_at_half
from genray.images.damage.noise_level import NoiseEstimate, estimate_noise
from genray.images.damage.structure import structure
from genray.images.encoders.jpeg import natural_order
from genray.images.photo import Photo
from genray.settings.base import Location, Settings
from pipelines.engine.target import Bulk
from pipelines.steps.base import ImageScores, StepInput, StepResult
from pipelines.steps.pixels import PixelArray, mean_change, with_pixels
from pipelines.steps.restoration import RestorationSettings, RestorationStep, blend, with_change

_CLEAN_BELOW = 1.0  # levels of 255: three times what rounding adds, and not seen
_OF_LOWEST = 0.5  # of the least noise that the network was trained on, below which it is not used
_MARGIN_OF_PHOTOS, _MARGIN_OF_PAGES = 2.0, 1.3
_FINE = 95  # quality of a JPEG output, at least, unless write.quality is set; its rounding is not seen
_COARSE = 1.0  # ratio of coarse to fine noise above which noise is coarse; white noise has 0.58
_MOST_HALVINGS = 3
_LEAST_SIDE = 64  # pixels of a side of images that are halved
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
    structure_limit: float = Field(
        0.14,
        ge=0,
        le=100,
        description=(
            "dependence of the change on direction from which an image is copied unchanged: noise has up to "
            "0.1, grass 0.2, a weave 5 (0: no limit, for noise that has a direction, as banding has)"
        ),
    )
    refine: float | None = Field(
        None,
        ge=0,
        le=1,
        description=(
            "share of a filter of overlapping blocks in the result, which is guided by the network's "
            "(null: as was best for the bundle when it was trained; 0: the network's result as it is)"
        ),
    )
    unround_below: int = Field(
        70,
        ge=0,
        le=100,
        description=(
            "JPEG quality below which the blocks and ringing of a file are removed first, also where it has "
            "no noise; in noisy files up to a quality of 95 they are removed after the noise (0: never)"
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
    clean, that the bundle is not for, or that the network would harm; refining the network's results and
    limiting the change; undoing the rounding of JPEG files. The base class runs the network.
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
        noise = self.manifest.calibration.get("noise")
        return max(_CLEAN_BELOW, _OF_LOWEST * noise["lowest"]) if noise else _CLEAN_BELOW

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        examined = [self._examine(image) for image in inputs]
        noisy = [each for each in examined if not each.reason]
        restored = iter(self._restored([each.pixels for each in noisy], [each.estimate for each in noisy]))
        return [self._result(each, None if each.reason else next(restored)) for each in examined]

    def _restored(
        self, images: Sequence[PixelArray], estimates: Sequence[NoiseEstimate], halvings: int = _MOST_HALVINGS
    ) -> list[PixelArray]:
        """Return the network's results. Coarse noise, which looks like detail, is taken away at half the size
        first, where it is fine; and where it is still coarse there, at a quarter.

        Args:
            images: images of one shape and type.
            estimates: their noise.
            halvings: how often they may be halved.
        """
        images = list(images)
        coarse = [index for index, each in enumerate(estimates) if each.coarse > _COARSE * each.fine]
        if coarse and halvings and min(images[0].shape[:2]) >= _LEAST_SIDE:
            halves = {index: halve(images[index]) for index in coarse}
            found = {index: estimate_noise(self.seen(half)) for index, half in halves.items()}
            noisy = [index for index in coarse if found[index].level >= _CLEAN_BELOW]
            after = self._restored(
                [halves[index] for index in noisy], [found[index] for index in noisy], halvings - 1
            )
            for index, half in zip(noisy, after, strict=True):
                images[index] = with_change_at_half(images[index], halves[index], half)
        return self.restore(images) if images else []

    def _examine(self, image: StepInput) -> _Examined:
        photo = image.photo
        is_unrounded = _is_rounded(photo, self.settings.denoise.unround_below)
        pixels = _unrounded(photo.pixels, photo) if is_unrounded else photo.pixels
        estimate = estimate_noise(self.seen(pixels))
        return _Examined(image, pixels, estimate, self._why_copied(estimate), is_unrounded)

    def _why_copied(self, estimate: NoiseEstimate) -> str:
        """Return the reason why the network does not change an image; empty: it does."""
        # A level of NaN means too few pixels for an estimate: the image does not count as clean.
        if estimate.level < self.clean_below:
            return "clean"
        return self._why_not_for(estimate)

    def _why_not_for(self, estimate: NoiseEstimate) -> str:
        """Return the reason why the bundle is not for an image; empty: it is."""
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

    def _result(self, examined: _Examined, restored: PixelArray | None) -> StepResult:
        image, estimate, reason = examined.image, examined.estimate, examined.reason
        made = None if restored is None else self._denoised(examined, restored)
        if restored is not None and made is None:
            reason = "would harm"
        if made is None:
            if not examined.is_unrounded or self._why_not_for(estimate):
                return StepResult(copy=image.data, scores=_scores(estimate, 0.0), skipped=reason)
            made, estimate = examined.pixels, replace(estimate, kind="blocks")
        before = image.photo.pixels
        after = blend(before, made, self.settings.denoise.strength)
        scores = _scores(estimate, mean_change(before, after))
        return StepResult(photo=_stored_finely(with_pixels(image.photo, after)), scores=scores)

    def _denoised(self, examined: _Examined, restored: PixelArray) -> PixelArray | None:
        """Return the pixels without noise; None: the network would harm the image."""
        settings, photo = self.settings.denoise, examined.image.photo
        seen, after = self.seen(examined.pixels), self.seen(restored)
        is_rounded = settings.unround_below > 0 and _is_rounded(photo, _FINE + 1)
        if self._refined and not is_rounded:
            after = blend(after, refine(seen, after), self._refined)
        if settings.change_limit:
            level = examined.estimate.level
            most = None if math.isnan(level) else _margin(examined.estimate) * level
            limited = limit_change(seen, after, factor=settings.change_limit, most_noise=most)
            if limited.refused > settings.refused_above:
                return None
            after = limited.pixels
        if settings.structure_limit and structure(seen, after) > settings.structure_limit:
            return None
        if self.window is not None:
            after = with_change(examined.pixels, seen, after, self.window)
        return _unrounded(after, photo) if is_rounded and not examined.is_unrounded else after

    @property
    def _refined(self) -> float:
        """Share of the refined result."""
        if self.settings.denoise.refine is not None:
            return self.settings.denoise.refine
        noise = self.manifest.calibration.get("noise")
        return noise.get("refine", 0.0) if noise else 0.0


@dataclass(frozen=True)
class _Examined:
    """An input as it was examined.

    Args:
        image: the input.
        pixels: its pixels, without what its file rounded away if `is_unrounded`.
        estimate: noise of `pixels`.
        reason: why the network does not change them (empty: it does).
        is_unrounded: whether the rounding was undone first.
    """

    image: StepInput
    pixels: PixelArray
    estimate: NoiseEstimate
    reason: str
    is_unrounded: bool


def _unrounded(pixels: PixelArray, photo: Photo) -> PixelArray:
    """Return pixels without the errors that the rounding of the file of `photo` made."""
    tables = [np.array(natural_order(table), np.uint8).reshape(8, 8) for table in photo.carried.tables]
    return undo_rounding(pixels, tables, photo.subsampling)


def _is_rounded(photo: Photo, below: int) -> bool:
    """Return whether a photo is of a JPEG file of a quality below `below` whose steps are known."""
    return photo.quality is not None and photo.quality < below and bool(photo.carried.tables)


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
