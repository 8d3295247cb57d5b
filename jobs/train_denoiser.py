"""The target train-denoiser: networks that remove noise of one strength or of any (Zhang et al. 2017,
DnCNN)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from genray.datasets.image_set import Patch
from genray.images.damage.block_filters import refine
from genray.images.damage.corruptions import NoiseSettings, corrupt, corrupt_held_out
from genray.images.tensors import to_pixels
from jobs.recipes.images import UNIT, Variant
from jobs.recipes.restoring import DamagedImages, Restoring, RestoringSettings
from jobs.training.recipe import Conclusion, EvaluationContext, Part, SampleScores, TensorBatch
from jobs.training.settings import EvalSettings
from jobs.training.target import Training

_SHARES = (0.0, 0.5, 1.0)  # of a refined result, of which the best is kept; the first of equal ones
_REFINED = 8  # validation images that they are compared on, at most


class DenoiserEvalSettings(EvalSettings):
    """Settings of the evaluation."""

    noise: NoiseSettings | None = Field(
        None,
        description=(
            "noise that the final weights are judged on (null: the noise that they were trained on)"
        ),
    )
    baselines: tuple[Literal["bm3d"], ...] = Field(
        (),
        description=(
            "denoisers to compare with (bm3d: Dabov et al. 2007; takes seconds per image, needs "
            "one sigma and pip install bm3d)"
        ),
    )


class TrainDenoiserSettings(RestoringSettings):
    """Settings of train-denoiser."""

    noise: NoiseSettings = Field(NoiseSettings(sigma=(0, 50)), description="noise added to the clean images")
    balance: float | None = Field(
        None,
        gt=0,
        le=255,
        description=(
            "mean change by the noise, in levels of 255, at which an image's loss counts half as much as "
            "a clean image's (null: all count the same, so that strong noise rules the training; with less "
            "than about 10 a new network may learn to change nothing)"
        ),
    )
    eval: DenoiserEvalSettings = Field(DenoiserEvalSettings(), description="evaluation of the final weights")

    @property
    def judged_on(self) -> NoiseSettings:
        """The noise of the final metrics."""
        return self.eval.noise or self.noise

    @model_validator(mode="after")
    def _bm3d_can_be_asked(self) -> Self:
        noise = self.judged_on
        if "bm3d" in self.eval.baselines:
            plain = noise.kind == "gaussian" and not noise.correlation and not noise.clip
            if not plain or isinstance(noise.sigma, tuple) or not noise.sigma:
                raise ValueError(
                    "eval.baselines: bm3d needs the strength of the noise: set eval.noise.kind=gaussian, "
                    "white and not clipped, with one eval.noise.sigma above 0"
                )
            if find_spec("bm3d") is None:
                raise ValueError(
                    "eval.baselines: bm3d is not installed; install it with pip install bm3d, or set "
                    "eval.baselines=[]"
                )
        return self


class TrainDenoiser(Restoring[TrainDenoiserSettings]):
    """Trains a network that removes noise; the noise is made on the training device in every step."""

    settings_class = TrainDenoiserSettings
    metric = "mse"
    headline = ("psnr", "psnr_before", "ssim", "seconds_per_megapixel")
    kind = "denoiser"
    damage = "noisy"
    trivial: ClassVar[Mapping[str, str]] = {damage: "leaving the images unchanged"}

    def variant(self) -> Variant:
        return Variant(Patch(self.settings.data.patch, self.settings.data.flips))

    def training_images(self, batch: TensorBatch) -> DamagedImages:
        (clean,) = batch
        return DamagedImages(corrupt(clean, self.settings.noise), clean)

    def losses(self, images: DamagedImages, restored: torch.Tensor) -> torch.Tensor:
        losses = super().losses(images, restored)
        balance = self.settings.balance
        if balance is None:
            return losses
        change = (images.damaged - images.clean).abs().mean(dim=(1, 2, 3)) * 255
        return losses * (balance / (balance + change))

    def judged_images(self, part: Part, indices: Sequence[int], batch: TensorBatch) -> DamagedImages:
        (clean,) = batch
        noise = self.settings.judged_on if part == self.judging_part else self.settings.noise
        return DamagedImages(corrupt_held_out(clean, noise, self.settings.seed, indices), clean)

    def conclude(self, context: EvaluationContext, scores: Sequence[SampleScores]) -> Conclusion:
        """Add the range of the noise, and how the results are best refined, to the calibration."""
        conclusion = super().conclude(context, scores)
        trained_on = self.settings.noise.range
        if trained_on is None:
            return conclusion
        lowest, highest = trained_on
        noise = {"lowest": lowest, "highest": highest, "refine": self._best_refinement(context, highest)}
        return replace(conclusion, calibration={"noise": noise})

    def _best_refinement(self, context: EvaluationContext, highest: float) -> float:
        """Return the share of a refined result (see `refine`) that is best for white noise, 0, 0.5 or 1.

        It is found on validation images, at a quarter and a half of the strongest noise.
        """
        samples = self.held_out["val"].samples
        errors = np.zeros(len(_SHARES))
        for index in np.unique(np.linspace(0, len(samples) - 1, _REFINED).round().astype(int)):
            clean = context.place(samples[index][0][None])
            for strength in (highest / 4, highest / 2):
                noise = NoiseSettings(kind="gaussian", sigma=strength)
                noisy = corrupt_held_out(clean, noise, self.settings.seed, [int(index)])
                restored = context.networks[self.name](noisy)
                before, after, true = (to_pixels(images, UNIT)[0] for images in (noisy, restored, clean))
                refined = refine(before, after).astype(np.float64)
                mixed = [after + share * (refined - after) - true for share in _SHARES]
                errors += [np.log(np.square(difference).mean() + 1e-6) for difference in mixed]
        return _SHARES[int(errors.argmin())]

    def baselines(self) -> dict[str, dict[str, float]]:
        """Return PSNR and SSIM of the noisy images, and of BM3D's results, on the judging images."""
        results = super().baselines()
        if "bm3d" in self.settings.eval.baselines:
            results["bm3d"] = self.mean_scores(lambda images: self._bm3d(images.damaged))
        return results

    def _bm3d(self, noisy: torch.Tensor) -> torch.Tensor:
        from bm3d import bm3d, bm3d_rgb

        sigma = self.settings.judged_on.sigma
        assert isinstance(sigma, float | int)
        array = noisy[0].permute(1, 2, 0).double().numpy()
        if array.shape[-1] == 1:
            restored = bm3d(array[..., 0], sigma / 255)[..., None]
        else:
            restored = bm3d_rgb(array, sigma / 255)
        return torch.from_numpy(np.asarray(restored)).permute(2, 0, 1)[None].float().clamp(0, 1)


TARGET = Training(TrainDenoiser)
