"""What training a restoration network is, whatever it takes away: patches in, whole images judged."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn

from genray.datasets.image_set import Flips, ImageSetSettings
from genray.datasets.loader import WorkerShare, held_out_batches
from genray.images.pixels import Pixels, crop_middle, grid
from genray.images.tensors import to_pixels
from genray.models.losses import ReconstructionSettings, reconstruction_loss
from genray.models.nafnet import NAFNetSettings
from genray.models.registry import NetworkSpec
from genray.models.residual_unet import ResidualUNetSettings
from genray.models.restorer import ConvRestorerSettings, macs_per_pixel
from genray.report.pictures import RestorationExample, draw_restorations
from jobs.recipes.images import UNIT, ImageRecipe, ImageTrainSettings
from jobs.runs.samples import RunPicture, RunTable
from jobs.training.recipe import Conclusion, Learn, Part, Scored, ToDevice

Model = Annotated[ConvRestorerSettings | ResidualUNetSettings | NAFNetSettings, Field(discriminator="kind")]


class PatchSetSettings(ImageSetSettings):
    """Settings of a set of images that are trained on in patches and judged whole."""

    patch: int = Field(64, ge=16, le=1024, description="height and width of the patches that are trained on")
    patches: int = Field(16, ge=1, le=4096, description="patches of each image in an epoch")
    val_max: int = Field(100, ge=1, description="score at most so many held-out images each epoch")
    test_max: int = Field(1000, ge=1, description="judge the final weights on at most so many images")
    flips: Flips = Field("all", description="none; mirror: left to right; all: and quarter turns")
    judged: int = Field(
        512, ge=16, le=8192, description="held-out images that are larger are judged by their middle"
    )


class RestoringSettings(ImageTrainSettings):
    """What every training of a restoration network takes."""

    data: PatchSetSettings = Field(PatchSetSettings(), description="clean images")
    model: Model = Field(
        ResidualUNetSettings(), description="the architecture; each kind has settings of its own"
    )
    loss: ReconstructionSettings = Field(ReconstructionSettings(kind="mae"), description="what is minimised")

    @model_validator(mode="after")
    def _loss_fits(self) -> Self:
        if self.loss.kind == "bce" and self.model.kind != "conv":
            raise ValueError(
                f"loss.kind: bce needs values between 0 and 1, which model.kind={self.model.kind} may leave"
            )
        return self


R = TypeVar("R", bound=RestoringSettings)
Case = tuple[torch.Tensor, torch.Tensor]  # damaged and clean, (N, C, H, W) in [0, 1]


class Restoring(ImageRecipe[R]):
    """A restoration network: damaged images in, clean ones out, of any size."""

    name = "restorer"
    averaged = (name,)
    any_size = True

    @abstractmethod
    def damaged(self, batch: Sequence[torch.Tensor]) -> Case:
        """What is trained on, of a batch of the loader."""

    @abstractmethod
    def case(self, part: Part, indices: Sequence[int], batch: Sequence[torch.Tensor]) -> Case:
        """Held-out samples `indices` as they are judged: the same in every epoch."""

    @property
    def patch(self) -> int:
        return self.settings.data.patch

    @property
    def repeats(self) -> int:
        return self.settings.data.patches

    @property
    def title(self) -> str:
        return f"{self.kind}, {self.settings.model.kind}"

    def network_spec(self) -> NetworkSpec:
        model = self.settings.model
        arguments = {"channels": self.shape[0], "settings": model.model_dump(mode="json")}
        return NetworkSpec(f"restorer-{model.kind}", arguments)

    @property
    def most(self) -> int:
        return self.settings.data.judged

    def step(
        self, networks: Mapping[str, nn.Module], batch: Sequence[torch.Tensor], learn: Learn
    ) -> dict[str, torch.Tensor]:
        """One update. Returns `loss`."""
        damaged, clean = self.damaged(batch)
        loss = reconstruction_loss(networks[self.name](damaged), clean, self.settings.loss).mean()
        learn(self.name, loss)
        return {"loss": loss.detach()}

    def validate(
        self, networks: Mapping[str, nn.Module], part: Part, share: WorkerShare, place: ToDevice
    ) -> list[Scored]:
        """Metrics of each image (see `scores`), with values from 0 to 1."""
        scored: list[Scored] = []
        for indices, batch in held_out_batches(self.held_out[part], 1, share):
            damaged, clean = self.case(part, indices.tolist(), [place(images) for images in batch])
            restored = networks[self.name](damaged).float().clamp(0.0, 1.0)
            scored.append((int(indices[0]), self.scores(damaged, restored, clean, batch)))
        return scored

    def scores(
        self, damaged: torch.Tensor, restored: torch.Tensor, clean: torch.Tensor, batch: Sequence[Pixels]
    ) -> dict[str, float]:
        """Metrics of one image: L1, MSE, PSNR in dB and SSIM, the last two also of the damaged image."""
        from genray.images.metrics import (
            image_metrics,  # imports slowly, and not before the first epoch's end
        )

        after, before = image_metrics(restored, clean), image_metrics(damaged.clamp(0.0, 1.0), clean)
        scores = {name: float(values[0]) for name, values in after.items()}
        return scores | {f"{name}_before": float(before[name][0]) for name in ("psnr", "ssim")}

    def picture(
        self,
        networks: Mapping[str, nn.Module],
        part: Part,
        indices: Sequence[int],
        place: ToDevice,
        title: str,
    ) -> NDArray[np.uint8]:
        """Rows of damaged | restored | clean, the middle of each."""
        rows = []
        side = min(256, *(min(self.held_out[part][i][0].shape[:2]) for i in indices))
        for index in indices:
            trio = self._trio(networks, part, index, place)
            rows.append([crop_middle(image, side) for image in trio])
        return grid(rows, [f"{title}before", "after", "clean"])

    def _trio(
        self, networks: Mapping[str, nn.Module], part: Part, index: int, place: ToDevice
    ) -> tuple[Pixels, Pixels, Pixels]:
        batch = [place(image[None]) for image in self.held_out[part][index]]
        damaged, clean = self.case(part, [index], batch)
        before, after, target = (
            to_pixels(images, UNIT)[0] for images in (damaged, networks[self.name](damaged), clean)
        )
        return before, after, target

    def conclude(
        self, networks: Mapping[str, nn.Module], part: Part, scored: Sequence[Scored], place: ToDevice
    ) -> Conclusion:
        """Before and after of some images, a table of all, and what the network costs."""
        count = min(self.settings.loop.samples, len(scored))
        chosen = [scored[int(i)] for i in np.linspace(0, len(scored) - 1, count).round()]
        examples = [
            RestorationExample(
                *self._trio(networks, part, index, place), _said(scores, "_before"), _said(scores, "")
            )
            for index, scores in chosen
        ]
        pictures = [RunPicture("restorations", "Before and after", draw_restorations(examples))]
        names = list(scored[0][1])
        table = RunTable(
            "Every judged image",
            ["image", *names],
            [[self.names[part][i], *(round(scores[name], 4) for name in names)] for i, scores in scored],
        )
        return Conclusion(metrics=self._costs(networks[self.name], place), pictures=pictures, tables=[table])

    def _costs(self, network: nn.Module, place: ToDevice) -> dict[str, float]:
        """Multiply-accumulates for a pixel, and seconds for a million, here: the fastest of three times."""
        image = place(np.zeros((1, 512, 512, self.shape[0]), np.uint8))
        seconds = []
        for _ in range(4):  # the first one warms up
            began = time.perf_counter()
            float(network(image).sum())  # waits for a GPU
            seconds.append(time.perf_counter() - began)
        return {
            "parameters": float(sum(p.numel() for p in network.parameters())),
            "macs_per_pixel": macs_per_pixel(network, self.shape[0]),
            "seconds_per_megapixel": min(seconds[1:]) / 0.512**2,
        }

    def baselines(self) -> dict[str, dict[str, float]]:
        """None: what is damaged is scored beside what is restored."""
        return {}


def _said(scores: Mapping[str, float], when: str) -> str:
    return f"PSNR {scores[f'psnr{when}']:.2f} dB, SSIM {scores[f'ssim{when}']:.3f}"
