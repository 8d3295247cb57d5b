"""Denoisers: networks that take noise away, of one strength or of any (Zhang et al. 2017, DnCNN)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from genray.datasets.image_set import Key, Patch
from genray.datasets.loader import Sample
from genray.images.corruptions import NoiseSettings, corrupt, corrupt_held_out
from genray.images.pixels import Pixels
from genray.settings.base import Settings
from jobs.recipes.restoring import Case, Restoring, RestoringSettings
from jobs.training.recipe import Part
from jobs.training.target import Training


class DenoiserEvalSettings(Settings):
    """Settings of the evaluation."""

    noise: NoiseSettings | None = Field(
        None, description="what the final weights are judged on; null: the noise that they were trained on"
    )
    baselines: tuple[Literal["bm3d"], ...] = Field(
        (),
        description="bm3d: Dabov et al. 2007; takes seconds an image, and one sigma (pip install bm3d)",
    )


class TrainDenoiserSettings(RestoringSettings):
    """Settings of train-denoiser."""

    noise: NoiseSettings = Field(NoiseSettings(sigma=(0, 50)), description="what is put on clean images")
    eval: DenoiserEvalSettings = Field(DenoiserEvalSettings(), description="how it is judged")

    @property
    def judged_on(self) -> NoiseSettings:
        """The noise of the final figures."""
        return self.eval.noise or self.noise

    @model_validator(mode="after")
    def _bm3d_can_be_asked(self) -> Self:
        noise = self.judged_on
        if "bm3d" in self.eval.baselines:
            plain = noise.kind == "gaussian" and not noise.correlation and not noise.clip
            if not plain or isinstance(noise.sigma, tuple) or not noise.sigma:
                raise ValueError(
                    "eval.baselines: bm3d is told the noise's strength: set eval.noise.kind=gaussian, "
                    "white and not clipped, with one eval.noise.sigma above 0"
                )
            if find_spec("bm3d") is None:
                raise ValueError("eval.baselines: bm3d is not installed: pip install bm3d")
        return self


class TrainDenoiser(Restoring[TrainDenoiserSettings]):
    """A network that takes away noise, which is made on the training device for every step."""

    settings_class = TrainDenoiserSettings
    metric = "mse"
    headline = ("psnr", "psnr_before", "ssim", "seconds_per_megapixel")
    kind = "denoiser"

    def variant(self) -> tuple[Callable[[Pixels, Key], Sample], int]:
        return Patch(self.settings.data.patch, self.settings.data.flips), 1

    def damaged(self, batch: Sequence[torch.Tensor]) -> Case:
        return corrupt(batch[0], self.settings.noise), batch[0]

    def case(self, part: Part, indices: Sequence[int], batch: Sequence[torch.Tensor]) -> Case:
        noise = self.settings.judged_on if part == self.judging else self.settings.noise
        return corrupt_held_out(batch[0], noise, self.settings.seed, indices), batch[0]

    def baselines(self) -> dict[str, dict[str, float]]:
        """PSNR and SSIM of the noisy images, and of BM3D's, on the images that judge."""
        from genray.images.metrics import image_metrics

        results: dict[str, list[dict[str, torch.Tensor]]] = {"noisy": []}
        for index, (image,) in enumerate(self.held_out[self.judging]):
            noisy, clean = self.case(self.judging, [index], [self.place(image[None], torch.device("cpu"))])
            results["noisy"].append(image_metrics(noisy.clamp(0, 1), clean))
            if "bm3d" in self.settings.eval.baselines:
                results.setdefault("bm3d", []).append(image_metrics(self._bm3d(noisy), clean))
        return {
            name: {key: float(np.mean([float(r[key][0]) for r in rows])) for key in ("psnr", "ssim")}
            for name, rows in results.items()
        }

    def _bm3d(self, noisy: torch.Tensor) -> torch.Tensor:
        from bm3d import bm3d, bm3d_rgb

        sigma = self.settings.judged_on.sigma
        assert isinstance(sigma, float | int)
        array = noisy[0].permute(1, 2, 0).double().numpy()
        made = (
            bm3d(array[..., 0], sigma / 255)[..., None]
            if array.shape[-1] == 1
            else bm3d_rgb(array, sigma / 255)
        )
        return torch.from_numpy(np.asarray(made)).permute(2, 0, 1)[None].float().clamp(0, 1)


TARGET = Training(TrainDenoiser)
