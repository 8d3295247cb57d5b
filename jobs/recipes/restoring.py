"""Training of restoration networks for any damage: on patches, judged on whole images."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from genray.datasets.image_set import Flips, ImageSetSettings
from genray.datasets.loader import WorkerShare, held_out_batches
from genray.images.metrics import image_metrics
from genray.images.pixels import Pixels, crop_middle, grid
from genray.images.tensors import to_pixels
from genray.models.nafnet import NAFNetSettings
from genray.models.parts.losses import ReconstructionSettings, reconstruction_loss
from genray.models.registry import NetworkSpec
from genray.models.residual_unet import ResidualUNetSettings
from genray.models.restorer import ConvRestorerSettings, macs_per_pixel
from genray.report.pictures import RestorationExample, draw_restorations
from jobs.recipes.images import UNIT, ImageRecipe, ImageTrainSettings
from jobs.runs.samples import RunPicture, RunTable
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

Model = Annotated[ConvRestorerSettings | ResidualUNetSettings | NAFNetSettings, Field(discriminator="kind")]


class PatchSetSettings(ImageSetSettings):
    """Settings of a set of images for training on patches and judging on whole images."""

    patch: int = Field(64, ge=16, le=1024, description="height and width of the training patches, in pixels")
    patches: int = Field(16, ge=1, le=4096, description="patches taken from each image in an epoch")
    val_max: int = Field(100, ge=1, description="largest number of held-out images scored in each epoch")
    test_max: int = Field(1000, ge=1, description="largest number of images that judge the final weights")
    flips: Flips = Field(
        "all",
        description=("random flips of the training patches (mirror: left to right; all: also quarter turns)"),
    )
    judged: int = Field(
        512,
        ge=16,
        le=8192,
        description=(
            "largest height and width of a judged image, in pixels; larger ones are judged by their middle"
        ),
    )


class RestoringSettings(ImageTrainSettings):
    """Settings of every training of a restoration network."""

    data: PatchSetSettings = Field(PatchSetSettings(), description="clean images to train on")
    model: Model = Field(
        ResidualUNetSettings(), description="network architecture; each kind has its own settings"
    )
    loss: ReconstructionSettings = Field(
        ReconstructionSettings(kind="mae"), description="loss that training minimises"
    )

    @model_validator(mode="after")
    def _loss_fits(self) -> Self:
        if self.loss.kind == "bce" and self.model.kind != "conv":
            raise ValueError(
                f"loss.kind: bce needs values between 0 and 1, but the output of "
                f"model.kind={self.model.kind} may exceed them"
            )
        return self


R = TypeVar("R", bound=RestoringSettings)


@dataclass(frozen=True)
class DamagedImages:
    """Images before and after damage, both (N, C, H, W) in [0, 1]."""

    damaged: torch.Tensor
    clean: torch.Tensor


@dataclass(frozen=True)
class Restoration:
    """A judged image: the damaged one, the restored one, and the clean one."""

    before: Pixels
    after: Pixels
    clean: Pixels


class Restoring(ImageRecipe[R]):
    """Trains a restoration network: damaged images in, clean ones out, of any size."""

    name = "restorer"
    averaged = (name,)
    any_size = True
    compared_by = ("psnr",)
    damage: ClassVar[str]
    """Adjective of the damaged images, such as noisy, the name of their baseline."""

    @abstractmethod
    def training_images(self, batch: TensorBatch) -> DamagedImages:
        """Return the training images of a batch of the loader, damaged and clean."""

    @abstractmethod
    def judged_images(self, part: Part, indices: Sequence[int], batch: TensorBatch) -> DamagedImages:
        """Return held-out samples `indices` as they are judged, the same in every epoch."""

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
    def judged_side(self) -> int:
        return self.settings.data.judged

    def step(self, networks: Networks, batch: TensorBatch, updater: Updater) -> Losses:
        """Take one step; returns `loss`."""
        images = self.training_images(batch)
        restored = networks[self.name](images.damaged)
        loss = self.losses(images, restored).mean()
        updater.update(self.name, loss)
        return {"loss": loss.detach()}

    def losses(self, images: DamagedImages, restored: torch.Tensor) -> torch.Tensor:
        """Return the loss of each image, (N,)."""
        return reconstruction_loss(restored, images.clean, self.settings.loss)

    def validate(self, context: EvaluationContext, share: WorkerShare) -> list[SampleScores]:
        """Return the metrics of each image (see `score`), with values from 0 to 1."""
        scores: list[SampleScores] = []
        for indices, batch in held_out_batches(self.held_out[context.part].samples, 1, share):
            placed = [context.place(images) for images in batch]
            images = self.judged_images(context.part, indices.tolist(), placed)
            restored = context.networks[self.name](images.damaged).float().clamp(0.0, 1.0)
            scores.append(SampleScores(int(indices[0]), self.score(images, restored, batch)))
        return scores

    def score(
        self, images: DamagedImages, restored: torch.Tensor, batch: Sequence[Pixels]
    ) -> dict[str, float]:
        """Return the metrics of one image: L1, MSE, PSNR in dB and SSIM, the last two also of the damaged
        image.

        Args:
            images: the image, as a batch of one.
            restored: the restored image.
            batch: the sample of the image.
        """
        after = image_metrics(restored, images.clean)
        before = image_metrics(images.damaged.clamp(0.0, 1.0), images.clean)
        scores = {name: float(values[0]) for name, values in after.items()}
        return scores | {f"{name}_before": float(before[name][0]) for name in ("psnr", "ssim")}

    def picture(self, context: EvaluationContext, indices: Sequence[int], title: str) -> NDArray[np.uint8]:
        """Draw rows of damaged | restored | clean, the middle of each image."""
        samples = self.held_out[context.part].samples
        side = min(256, *(min(samples[i][0].shape[:2]) for i in indices))
        rows = []
        for index in indices:
            example = self._restore(context, index)
            rows.append(
                [crop_middle(image, side) for image in (example.before, example.after, example.clean)]
            )
        return grid(rows, [f"{title}before", "after", "clean"])

    def _restore(self, context: EvaluationContext, index: int) -> Restoration:
        sample = self.held_out[context.part].samples[index]
        batch = [context.place(image[None]) for image in sample]
        images = self.judged_images(context.part, [index], batch)
        restored = context.networks[self.name](images.damaged)
        before, after, clean = (
            to_pixels(tensor, UNIT)[0] for tensor in (images.damaged, restored, images.clean)
        )
        return Restoration(before, after, clean)

    def conclude(self, context: EvaluationContext, scores: Sequence[SampleScores]) -> Conclusion:
        """Return pictures of some images before and after, a table of all images, and the network's costs."""
        count = min(self.settings.loop.samples, len(scores))
        chosen = [scores[int(i)] for i in np.linspace(0, len(scores) - 1, count).round()]
        examples: list[RestorationExample] = []
        for sample in chosen:
            example = self._restore(context, sample.index)
            before, after = (_caption(sample.metrics, suffix) for suffix in ("_before", ""))
            examples.append(RestorationExample(example.before, example.after, example.clean, before, after))
        names = list(scores[0].metrics)
        files = self.held_out[context.part].names
        table = RunTable(
            "Every judged image",
            ["image", *names],
            [[files[s.index], *(round(s.metrics[name], 4) for name in names)] for s in scores],
        )
        return Conclusion(
            metrics=self._measure_costs(context),
            pictures=[RunPicture("restorations", "Before and after", draw_restorations(examples))],
            tables=[table],
        )

    def _measure_costs(self, context: EvaluationContext) -> dict[str, float]:
        """Measure multiply-accumulates per pixel, and seconds per megapixel here, the fastest of three
        runs."""
        network = context.networks[self.name]
        image = context.place(np.zeros((1, 512, 512, self.shape[0]), np.uint8))
        seconds = []
        for _ in range(4):  # the first run is a warm-up
            began = time.perf_counter()
            float(network(image).sum())  # waits for a GPU
            seconds.append(time.perf_counter() - began)
        return {
            "parameters": float(sum(p.numel() for p in network.parameters())),
            "macs_per_pixel": macs_per_pixel(network, self.shape[0]),
            "seconds_per_megapixel": min(seconds[1:]) / 0.512**2,
        }

    def baselines(self) -> dict[str, dict[str, float]]:
        """Return PSNR in dB and SSIM of the damaged images, on the judging images."""
        return {self.damage: self.mean_scores(lambda images: images.damaged.clamp(0, 1))}

    def mean_scores(self, restore: Callable[[DamagedImages], torch.Tensor]) -> dict[str, float]:
        """Return the mean PSNR in dB and SSIM of a method on the judging images, one image at a time."""
        part = self.judging_part
        rows = []
        for index, sample in enumerate(self.held_out[part].samples):
            batch = [self.place(image[None], torch.device("cpu")) for image in sample]
            images = self.judged_images(part, [index], batch)
            rows.append(image_metrics(restore(images), images.clean))
        return {key: float(np.mean([float(row[key][0]) for row in rows])) for key in ("psnr", "ssim")}


def _caption(metrics: Mapping[str, float], suffix: str) -> str:
    return f"PSNR {metrics[f'psnr{suffix}']:.2f} dB, SSIM {metrics[f'ssim{suffix}']:.3f}"
