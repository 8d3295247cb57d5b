"""Destampers: networks that restore what lies under a date, a word or a number stamped on an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from genray.datasets.image_set import Flips, Key
from genray.datasets.loader import Sample
from genray.images.pixels import Pixels
from genray.images.stamps import StampSettings, stamp
from genray.images.tensors import to_pixels
from genray.models.losses import ReconstructionSettings, reconstruction_loss
from genray.models.residual_unet import UShapeSettings
from jobs.recipes.images import UNIT
from jobs.recipes.restoring import Case, Restoring, RestoringSettings
from jobs.training.recipe import Conclusion, Learn, Part, Scored, ToDevice
from jobs.training.target import Training

_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "fast": {
        "data": {"patch": 96, "patches": 8},
        "model": {
            "kind": "unet",
            "widths": [24, 48, 96],
            "blocks": 1,
            "middle": 2,
            "bias": True,
            "gate": True,
        },
        "loop": {"epochs": 40, "batch_size": 8, "patience": 12},
    },
    "quality": {
        "data": {"patch": 128, "patches": 16},
        "model": {
            "kind": "unet",
            "widths": [32, 64, 128, 256],
            "blocks": 2,
            "middle": 4,
            "bias": True,
            "gate": True,
        },
        "loop": {"epochs": 100, "batch_size": 8, "patience": 25},
    },
}


class TrainDestamperSettings(RestoringSettings):
    """Settings of train-destamper."""

    preset: Literal["fast", "quality"] = Field(
        "fast", description="fast: minutes on a CPU; quality: a larger network for hours, or a GPU"
    )
    stamps: StampSettings = Field(StampSettings(), description="what is stamped on clean images")
    loss: ReconstructionSettings = Field(
        ReconstructionSettings(kind="mse"),
        description="what is minimised; without a gate mae leaves all as it is, for most pixels are right",
    )
    mask_share: float = Field(
        0.02, ge=0, description="weight of finding the stamp beside restoring, for networks with a gate"
    )
    clean_share: float = Field(
        0.1, ge=0, le=1, description="share of patches that are left without a stamp, to be left alone"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        """What the preset says, under what was given."""
        if not isinstance(given, Mapping):
            return given
        return _merged(_PRESETS.get(str(given.get("preset", "fast")), {}), given)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    if "kind" in above and above["kind"] != below.get("kind"):
        below = {}  # settings of another architecture
    both = {**below, **above}
    return {
        key: _merged(below[key], value)
        if isinstance(value, Mapping) and isinstance(below.get(key), Mapping)
        else value
        for key, value in both.items()
    }


@dataclass(frozen=True)
class StampedPatch:
    """A patch of a stamped image and the same of the clean one: (stamped, clean).

    The stamp is put on the whole image, so that it has the size that stamps have, and the patch is taken
    where some of it is; in `clean_share` of the cases there is none.
    """

    size: int
    flips: Flips
    stamps: StampSettings
    clean_share: float

    def __call__(self, image: Pixels, key: Key) -> Sample:
        rng = np.random.default_rng([*key, 1])
        turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
        if self.flips == "all":
            image = np.rot90(image, turns)
        if mirrored and self.flips != "none":
            image = image[:, ::-1]
        corner = [int(rng.integers(side - self.size + 1)) for side in image.shape[:2]]
        if rng.random() < self.clean_share:
            clean = self._cut(image, corner)
            return clean, clean
        stamped, mask = stamp(image, self.stamps, key)
        rows, columns = np.nonzero(mask)
        chosen = int(rng.integers(len(rows)))
        for axis, place in enumerate((rows[chosen], columns[chosen])):
            lowest = max(0, int(place) - self.size + 1)
            highest = min(int(place), image.shape[axis] - self.size)
            corner[axis] = int(rng.integers(lowest, highest + 1))
        return self._cut(stamped, corner), self._cut(image, corner)

    def _cut(self, image: Pixels, corner: Sequence[int]) -> Pixels:
        top, left = corner
        return image[top : top + self.size, left : left + self.size]


class TrainDestamper(Restoring[TrainDestamperSettings]):
    """A network that takes a stamp away and leaves the rest as it is."""

    settings_class = TrainDestamperSettings
    metric = "l1"
    headline = ("psnr_inside", "psnr_inside_before", "psnr_outside", "psnr_outside_worst")
    kind = "destamper"

    def variant(self) -> tuple[Callable[[Pixels, Key], Sample], int]:
        settings = self.settings
        return StampedPatch(self.patch, settings.data.flips, settings.stamps, settings.clean_share), 2

    def prepared(self, image: Pixels, part: Part, index: int) -> Sample:
        """(clean, stamped, mask of the stamp): the same stamp in every epoch."""
        (clean,) = super().prepared(image, part, index)
        # A fourth word, so that it is the stamp of no training sample.
        key = (self.settings.seed, 0, index, 1 if part == "val" else 2)
        stamped, mask = stamp(clean, self.settings.stamps, key)
        return clean, stamped, mask[..., None].astype(np.uint8)

    @property
    def gated(self) -> bool:
        """Whether the network says where the stamp is."""
        return isinstance(self.settings.model, UShapeSettings) and self.settings.model.gate

    def step(
        self, networks: Mapping[str, nn.Module], batch: Sequence[torch.Tensor], learn: Learn
    ) -> dict[str, torch.Tensor]:
        """One update. Returns `loss`; of a network with a gate also `mask`, the cross-entropy of where it
        thinks that the stamp is, which is part of the loss."""
        if not self.gated:
            return super().step(networks, batch, learn)
        stamped, clean = self.damaged(batch)
        restored, logits = networks[self.name](stamped, parts=True)
        where = (stamped != clean).any(dim=1, keepdim=True).float()
        mask = F.binary_cross_entropy_with_logits(logits.float(), where)
        restoring = reconstruction_loss(restored, clean, self.settings.loss).mean()
        loss = restoring + self.settings.mask_share * mask
        learn(self.name, loss)
        return {"loss": loss.detach(), "mask": mask.detach()}

    def damaged(self, batch: Sequence[torch.Tensor]) -> Case:
        return batch[0], batch[1]

    def case(self, part: Part, indices: Sequence[int], batch: Sequence[torch.Tensor]) -> Case:
        return batch[1], batch[0]

    def conclude(
        self, networks: Mapping[str, nn.Module], part: Part, scored: Sequence[Scored], place: ToDevice
    ) -> Conclusion:
        """See `Restoring`; and how much the most changed image changed outside its stamp."""
        said = super().conclude(networks, part, scored, place)
        worst = min(scores["psnr_outside"] for _, scores in scored)
        return replace(said, metrics={**said.metrics, "psnr_outside_worst": worst})

    def scores(
        self, damaged: torch.Tensor, restored: torch.Tensor, clean: torch.Tensor, batch: Sequence[Pixels]
    ) -> dict[str, float]:
        """See `Restoring`; and PSNR inside the stamp, before and after, and outside it, where nothing should
        change (100 dB: nothing did)."""
        mask = batch[2][0, :, :, 0].astype(bool)
        before, after, target = (to_pixels(images, UNIT)[0] for images in (damaged, restored, clean))
        return super().scores(damaged, restored, clean, batch) | {
            "psnr_inside_before": _psnr(before[mask], target[mask]),
            "psnr_inside": _psnr(after[mask], target[mask]),
            "psnr_outside": _psnr(after[~mask], target[~mask]),
        }


def _psnr(image: Pixels, target: Pixels) -> float:
    """Of pixels, in dB; 100 where nothing differs."""
    error = np.square(image.astype(np.float64) - target).mean() if image.size else 0.0
    return float(min(100.0, 10 * np.log10(255.0**2 / error))) if error else 100.0


TARGET = Training(TrainDestamper)
