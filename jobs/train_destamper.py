"""The target train-destamper: networks that restore images under a stamped date, word or number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch.nn import functional as F

from genray.datasets.image_set import Flips, Key
from genray.datasets.loader import Sample
from genray.images.damage.stamps import StampSettings, stamp
from genray.images.pixels import Pixels
from genray.images.tensors import to_pixels
from genray.models.parts.losses import ReconstructionSettings, reconstruction_loss
from genray.models.residual_unet import UShapeSettings
from jobs.recipes.images import UNIT, Variant
from jobs.recipes.restoring import DamagedImages, Restoring, RestoringSettings
from jobs.training.recipe import (
    Conclusion,
    EvaluationContext,
    Losses,
    Networks,
    Part,
    SampleScores,
    TensorBatch,
    Updater,
)
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
        "fast",
        description=(
            "defaults of the other settings (fast: minutes on a CPU; quality: a larger network, "
            "hours on a CPU, or a GPU)"
        ),
    )
    stamps: StampSettings = Field(StampSettings(), description="stamps put on the clean images")
    loss: ReconstructionSettings = Field(
        ReconstructionSettings(kind="mse"),
        description=(
            "loss that training minimises (without a gate, mae teaches the network to change "
            "nothing, as most pixels have no stamp)"
        ),
    )
    mask_share: float = Field(
        0.02,
        ge=0,
        description="weight of the mask's loss beside the loss of restoring, for networks with a gate",
    )
    clean_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description=(
            "share of the training patches without a stamp, on which the network learns to change nothing"
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        """Fill in the preset's values for the settings that are not given."""
        if not isinstance(values, Mapping):
            return values
        return _with_defaults(values, _PRESETS.get(str(values.get("preset", "fast")), {}))


def _with_defaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values`, completed from `defaults`, also inside of groups."""
    if "kind" in values and values["kind"] != defaults.get("kind"):
        defaults = {}  # the defaults are for another architecture
    merged = {**defaults, **values}
    for key, value in values.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            merged[key] = _with_defaults(value, default)
    return merged


@dataclass(frozen=True)
class StampedPatch:
    """A patch of a stamped image and the same of the clean one: (stamped, clean).

    The whole image is stamped, so that the stamp has its usual size, and the patch is taken where it contains
    some of the stamp; a share `clean_share` of the patches has no stamp.
    """

    size: int
    flips: Flips
    stamps: StampSettings
    clean_share: float

    def __call__(self, image: Pixels, key: Key) -> Sample:
        rng = np.random.default_rng([*key, 1])
        turns = int(rng.integers(4))
        mirrored = rng.random() < 0.5
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
    """Trains a network that removes a stamp and leaves the rest unchanged."""

    settings_class = TrainDestamperSettings
    metric = "l1"
    headline = ("psnr_inside", "psnr_inside_before", "psnr_outside", "psnr_outside_worst")
    kind = "destamper"
    damage = "stamped"
    trivial: ClassVar[Mapping[str, str]] = {damage: "leaving the images unchanged"}

    def variant(self) -> Variant:
        settings = self.settings
        patch = StampedPatch(self.patch, settings.data.flips, settings.stamps, settings.clean_share)
        return Variant(patch, parts=2)

    def prepare_held_out(self, image: Pixels, part: Part, index: int) -> Sample:
        """Return (clean, stamped, mask of the stamp), with the same stamp in every epoch."""
        # A fourth word of the seed, so that no training sample has this stamp.
        key = (self.settings.seed, 0, index, 1 if part == "val" else 2)
        stamped, mask = stamp(image, self.settings.stamps, key)
        return image, stamped, mask[..., None].astype(np.uint8)

    @property
    def gated(self) -> bool:
        """Whether the network predicts a mask of the stamp."""
        return isinstance(self.settings.model, UShapeSettings) and self.settings.model.gate

    def step(self, networks: Networks, batch: TensorBatch, updater: Updater) -> Losses:
        """Take one step. Returns `loss`; for a network with a gate also `mask`, the cross-entropy of its
        mask of the stamp, which is part of the loss."""
        if not self.gated:
            return super().step(networks, batch, updater)
        images = self.training_images(batch)
        restored, logits = networks[self.name](images.damaged, parts=True)
        is_stamp = (images.damaged != images.clean).any(dim=1, keepdim=True).float()
        mask_loss = F.binary_cross_entropy_with_logits(logits.float(), is_stamp)
        restoring_loss = reconstruction_loss(restored, images.clean, self.settings.loss).mean()
        loss = restoring_loss + self.settings.mask_share * mask_loss
        updater.update(self.name, loss)
        return {"loss": loss.detach(), "mask": mask_loss.detach()}

    def training_images(self, batch: TensorBatch) -> DamagedImages:
        stamped, clean = batch
        return DamagedImages(stamped, clean)

    def judged_images(self, part: Part, indices: Sequence[int], batch: TensorBatch) -> DamagedImages:
        clean, stamped, _ = batch
        return DamagedImages(stamped, clean)

    def conclude(self, context: EvaluationContext, scores: Sequence[SampleScores]) -> Conclusion:
        """Return the conclusion of `Restoring`, and the largest change of an image outside its stamp."""
        conclusion = super().conclude(context, scores)
        worst = min(sample.metrics["psnr_outside"] for sample in scores)
        return replace(conclusion, metrics={**conclusion.metrics, "psnr_outside_worst": worst})

    def score(
        self, images: DamagedImages, restored: torch.Tensor, batch: Sequence[Pixels]
    ) -> dict[str, float]:
        """Return the metrics of `Restoring`, and PSNR inside the stamp, before and after, and outside of it,
        where nothing should change (100 dB: no change)."""
        mask = batch[2][0, :, :, 0].astype(bool)
        before, after, clean = (
            to_pixels(tensor, UNIT)[0] for tensor in (images.damaged, restored, images.clean)
        )
        return super().score(images, restored, batch) | {
            "psnr_inside_before": _psnr(before[mask], clean[mask]),
            "psnr_inside": _psnr(after[mask], clean[mask]),
            "psnr_outside": _psnr(after[~mask], clean[~mask]),
        }


def _psnr(image: Pixels, target: Pixels) -> float:
    """Return the PSNR of pixels, in dB; 100 if nothing differs."""
    error = np.square(image.astype(np.float64) - target).mean() if image.size else 0.0
    return float(min(100.0, 10 * np.log10(255.0**2 / error))) if error else 100.0


TARGET = Training(TrainDestamper)
