"""The target train-gan: images from nothing, by a generator against a discriminator (Goodfellow et al.
2014)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from genray.datasets.image_set import LABEL_SHAPE, ImageSet, labels_of, look_at_headers
from genray.datasets.loader import WorkerShare
from genray.datasets.stacked import stack_images
from genray.errors import DataError, SettingsError
from genray.images.tensors import to_network, to_pixels
from genray.io.bad_input import BadImage
from genray.measures.collapse import signs
from genray.measures.images import ImageMeasures
from genray.measures.quality import SampleQuality, quality_from_json
from genray.measures.reference import LEAST_IMAGES, MOST_COMPARED
from genray.models.gan.augment import vary
from genray.models.gan.base import LARGEST_SIDE, LEAST_SIDE, ImageGenerator
from genray.models.gan.losses import (
    WganGpSettings,
    discriminator_loss,
    generator_loss,
    mixed,
    squared_gradients,
)
from genray.models.gan.pair import Gan
from genray.models.registry import NetworkSpec
from genray.report.pictures import draw_tiles
from jobs.recipes.gan_settings import TrainGanSettings
from jobs.recipes.images import UNIT, ImageRecipe
from jobs.runs.samples import RunPicture, RunTable
from jobs.training.recipe import (
    BundleSpec,
    Concern,
    Conclusion,
    DataSummary,
    EvaluationContext,
    Losses,
    Networks,
    SampleScores,
    TensorBatch,
    Updater,
)
from jobs.training.target import Training

_SPAN = (-1.0, 1.0)  # of the networks
_DRAWN_AT_ONCE = 2_000_000  # values of images that are drawn at once
_STEPS = 10  # images of an interpolation
_ARCS = 6  # interpolations
_MOST_SHARES = 100  # classes whose shares are listed
_CONSTANT = {"modes_total", "samples"}
_WORST = 1e6  # distance in units of its floor
_LEAST_FLOOR = 1e-9
_LEAST_COVERAGE = 0.01
_COMPONENTS = 64  # of the Gaussian that a generator must beat
_KNOWN = 5000  # images that they are computed from
_FEW_IMAGES = 5000  # training images below which a discriminator learns them by heart


class TrainGan(ImageRecipe[TrainGanSettings]):
    """Trains a generator against a discriminator, and measures what the generator draws."""

    settings_class = TrainGanSettings
    name = "gan"
    kind = "gan"
    averaged = ("generator", "discriminator")
    metric = "objective"
    ranked = False
    filmed = True
    bf16_on_cpu = True
    headline = ("modes", "coverage", "frechet", "frechet_floor")
    progress_losses = ("gen_loss", "disc_loss", "penalty")
    compared_by = ("frechet",)
    trivial: ClassVar[Mapping[str, str]] = {
        "gaussian": "a Gaussian with the principal components of the training images"
    }
    advice = "more epochs (loop.epochs), loss.kind=relativistic, or model.kind=dcgan"

    _measures: ImageMeasures | None = None
    _quality: SampleQuality | None = None
    """Of the last validation."""

    @property
    def labelled(self) -> bool:
        return self.settings.model.conditional

    @property
    def class_count(self) -> int:
        """Number of classes of the networks; 0: unconditional."""
        return len(self.classes) if self.labelled else 0

    @property
    def title(self) -> str:
        model, loss = self.settings.model, self.settings.loss
        of_class = f", {self.class_count} classes" if self.labelled else ""
        return f"{model.kind} networks, loss {loss.kind}, code of {model.latent}{of_class}"

    def open_data(self, note: Callable[[str], None]) -> DataSummary:
        summary = super().open_data(note)
        channels, height, width = self.shape
        if min(height, width) < LEAST_SIDE or max(height, width) > LARGEST_SIDE:
            raise SettingsError(
                f"images of {width}x{height} pixels: the networks draw {LEAST_SIDE} to {LARGEST_SIDE} a side",
                where="data.size",
                hint="set data.size=64, or another side in that range",
            )
        if summary.train < LEAST_IMAGES:
            raise DataError(
                f"{summary.train} training images are too few to measure by: {LEAST_IMAGES} are needed",
                where="data.path",
                hint="give more images",
            )
        if channels not in (1, 3):
            raise SettingsError(
                f"images of {channels} channels: the networks draw gray and RGB ones",
                where="data.channels",
                hint="set data.channels=3, or 1",
            )
        lines = list(summary.lines)
        if summary.train < _FEW_IMAGES and not self.settings.augment.policy:
            lines.append(
                f"{summary.train} images are few: augment.policy=[colour,translation,cutout] keeps the "
                "discriminator from learning them by heart"
            )
        return replace(summary, lines=lines)

    def arrange(self, image_set: ImageSet) -> ImageSet:
        if self.labelled and image_set.train.labels is None:
            raise SettingsError(
                "model.conditional=true draws images of a class, and the data has no classes",
                where="model.conditional",
                hint="give a folder for each class or idx files of labels, or set model.conditional=false",
            )
        if self.labelled and self.settings.data.drawn:
            raise SettingsError(
                "drawn images have no class, which model.conditional=true needs",
                where="data.drawn",
                hint="set data.drawn=0, or model.conditional=false",
            )
        count = self.settings.data.stack
        if count == 1:
            return image_set
        _, channels = look_at_headers(image_set.train)
        if channels != 1:
            raise DataError(
                f"stacked images must be gray, and these have {channels} channels",
                where="data.stack",
                hint="set data.stack=1",
            )
        return stack_images(image_set, count, self.settings.seed)

    def network_spec(self) -> NetworkSpec:
        model = self.settings.model
        arguments = {
            "shape": list(self.shape),
            "classes": self.class_count,
            "settings": model.model_dump(mode="json"),
        }
        return NetworkSpec(f"gan-{model.kind}", arguments)

    def networks(self) -> dict[str, nn.Module]:
        network = self.network()
        assert isinstance(network, Gan)
        return {"generator": network.generator, "discriminator": network.discriminator}

    def bundled(self, networks: Networks) -> nn.Module:
        return Gan(networks["generator"], networks["discriminator"])  # type: ignore[arg-type]

    def bundle_spec(self) -> BundleSpec:
        spec = super().bundle_spec()
        preprocessing = spec.preprocessing
        judged = preprocessing.input.model_copy(update={"range": _SPAN})  # type: ignore[union-attr]
        return replace(spec, preprocessing=preprocessing.model_copy(update={"input": judged}))

    def example_inputs(self, samples: int) -> Mapping[str, Sequence[torch.Tensor]]:
        codes = torch.empty(samples, self.settings.model.latent)
        classes = [torch.zeros(samples, dtype=torch.int64)] if self.labelled else []
        # The discriminator judges real and generated images together.
        judged = [torch.zeros(2 * samples, dtype=torch.int64)] if self.labelled else []
        return {
            "generator": [codes, *classes],
            "discriminator": [torch.empty(2 * samples, *self.shape), *judged],
        }

    def place(self, batch: NDArray[Any], where: torch.device) -> torch.Tensor:
        """Convert images to (N, C, H, W) float32 in [-1, 1], and classes to (N,) int64."""
        if batch.shape[1:] == LABEL_SHAPE:
            return torch.from_numpy(labels_of(batch)).to(where)
        return to_network(batch, where, _SPAN)

    def step(self, networks: Networks, batch: TensorBatch, updater: Updater) -> Losses:
        """Update the discriminator, once for each part of the batch, then the generator by the last part.

        Returns gen_loss, disc_loss (without penalties) and penalty.
        """
        images = batch[0]
        parts = min(self.settings.loss.critic_steps, max(1, len(images) // 2))
        reals = images.tensor_split(parts)
        classes = batch[1].tensor_split(parts) if self.labelled else [None] * parts
        for index, (real, of_class) in enumerate(zip(reals, classes, strict=True)):
            codes = torch.randn(len(real), self.settings.model.latent, device=real.device)
            # The generator learns from the last images, which need not be drawn a second time for that.
            with torch.set_grad_enabled(index == parts - 1):
                fake = networks["generator"](codes, of_class).float()
            disc_loss, penalty, compared = self._judge(
                networks["discriminator"], real, fake.detach(), of_class, updater
            )
            updater.update("discriminator", disc_loss + penalty)
        with updater.frozen("discriminator") as frozen:
            seen = vary(fake, self.settings.augment, updater.progress)
            # The scores of the real images are those from before the update, which changes them little: to
            # judge these a second time would take an eighth of the step.
            gen_loss = generator_loss(frozen(seen, of_class), compared, self.settings.loss)
        updater.update("generator", gen_loss)
        return {"gen_loss": gen_loss.detach(), "disc_loss": disc_loss.detach(), "penalty": penalty.detach()}

    def _judge(
        self,
        discriminator: nn.Module,
        real: torch.Tensor,
        fake: torch.Tensor,
        classes: torch.Tensor | None,
        updater: Updater,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the discriminator's loss, its penalty, and the scores (N,) of the real images, without
        gradients, for real and generated images (N, C, H, W)."""
        loss = self.settings.loss
        count = len(real)
        penalised = self.settings.has_penalty and updater.step % loss.penalty_every == 0
        # One pass for all: their scores do not depend on each other.
        images = [real, fake]
        if penalised and isinstance(loss, WganGpSettings):
            images.append(mixed(real, fake))
        judged = torch.cat(images).requires_grad_(penalised)
        of_class = None if classes is None else classes.repeat(len(images))
        scores = discriminator(vary(judged, self.settings.augment, updater.progress), of_class).float()
        disc_loss = discriminator_loss(scores[:count], scores[count : 2 * count], loss)
        penalty = torch.zeros((), device=real.device)
        if penalised:
            squared = squared_gradients(scores, judged)
            penalty = 0.5 * (loss.r1 * squared[:count].mean() + loss.r2 * squared[count : 2 * count].mean())
            if isinstance(loss, WganGpSettings):
                norms = (squared[2 * count :] + 1e-12).sqrt()
                penalty = penalty + loss.gradient * (norms - 1).square().mean()
            penalty = penalty * loss.penalty_every
        return disc_loss, penalty, scores[:count].detach()

    def validate(self, context: EvaluationContext, share: WorkerShare) -> list[SampleScores]:
        """Return the measures of drawn images as those of one sample, on rank 0. `objective` is the distance
        in units of its floor, divided by the coverage: 1 at best; `as_asked` the share of the images that
        are read as the class that was asked for."""
        if share.rank:
            return []
        drawn = self.draw(context, self.settings.measure.samples)
        self._quality = self.measures().measure(drawn)
        metrics = _metrics(self._quality)
        if self.class_count and not self.settings.data.drawn:
            asked = torch.arange(len(drawn)) % self.class_count
            metrics["as_asked"] = float((self.measures().classes_of(drawn) == asked).double().mean())
        return [SampleScores(0, metrics, {"quality": self._quality.as_json()})]

    def measures(self) -> ImageMeasures:
        """Return what drawn images are measured with, made from training images at the first call."""
        if self._measures is None:
            images, labels = self._compared_images()
            held_out = self.held_out[self.judging_part].samples
            # Fewer would have a larger distance: that of a further part of the images is the floor then.
            apart = None
            if len(held_out) >= min(MOST_COMPARED, len(images) // 4):
                apart = torch.from_numpy(np.stack([sample[0] for sample in held_out])).permute(0, 3, 1, 2)
            cache = Path(self.settings.runs) / ".measures"
            self._measures = ImageMeasures.fit(images, labels, self.settings.seed, cache, held_out=apart)
        return self._measures

    def _compared_images(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return training images as a training sees them, (N, C, H, W) uint8, and their classes, (N,); of
        stacked images (N, channels)."""
        count = len(self._source)
        order = np.random.default_rng(self.settings.seed).permutation(count)[: self.settings.measure.compared]
        labelled = self._source.images.labels is not None and not self.settings.data.drawn
        source = replace(self._source, labelled=labelled)
        samples = []
        for index in order.tolist():
            try:
                samples.append(source.vary(source.load(index), (self.settings.seed, 0, index)))
            except BadImage:
                continue
        images = torch.from_numpy(np.stack([sample[0] for sample in samples])).permute(0, 3, 1, 2)
        if not labelled:
            return images.contiguous(), None
        labels = torch.from_numpy(labels_of(np.stack([sample[1] for sample in samples])))
        if (stack := self.settings.data.stack) == 1:
            return images.contiguous(), labels
        # A class in each channel, as `stack_images` counts them.
        classes = round(len(self.classes) ** (1 / stack))
        digits = [labels // classes**place % classes for place in reversed(range(stack))]
        return images.contiguous(), torch.stack(digits, dim=1)

    def draw(self, context: EvaluationContext, count: int) -> torch.Tensor:
        """Return that many images of fixed codes, (N, C, H, W) with values from 0 to 1, on the CPU; one of
        each class in turn."""
        generator = context.networks["generator"]
        assert isinstance(generator, ImageGenerator)
        where = next(generator.parameters()).device
        codes = torch.randn(
            count, generator.latent, generator=torch.Generator().manual_seed(self.settings.seed)
        )
        classes = torch.arange(count) % generator.classes if generator.classes else None
        at_once = max(1, _DRAWN_AT_ONCE // int(np.prod(self.shape)))
        drawn = []
        with torch.autocast(where.type, enabled=False):  # as the bundle draws
            for first in range(0, count, at_once):
                places = slice(first, first + at_once)
                of_class = None if classes is None else classes[places].to(where)
                drawn.append(generator.draw(codes[places].to(where), of_class).cpu())
        return torch.cat(drawn)

    def picture(self, context: EvaluationContext, indices: Sequence[int], title: str) -> NDArray[np.uint8]:
        """Draw a grid of images of fixed codes; with up to ten classes each has a column."""
        classes = self.class_count
        columns = classes if 1 < classes <= 10 else 8
        images = to_pixels(self.draw(context, self.settings.loop.samples), UNIT)
        return draw_tiles(list(images), columns=columns)

    def concern(self, validations: Sequence[Mapping[str, Any]]) -> Concern | None:
        text = signs([quality_from_json(row["quality"]) for row in validations]) if validations else None
        return Concern(text, stops=self.settings.loop.stop_on_collapse) if text else None

    def conclude(self, context: EvaluationContext, scores: Sequence[SampleScores]) -> Conclusion:
        """Return interpolations between codes, and the shares of the classes."""
        ways = RunPicture(
            "interpolations",
            "Interpolations",
            draw_tiles(list(to_pixels(self._between(context), UNIT)), columns=_STEPS),
            "From one code to the next on an arc, in equal steps.",
        )
        quality = self._quality
        tables = []
        if quality is not None and len(quality.shares) <= _MOST_SHARES:
            names = self.classes if len(self.classes) == len(quality.shares) else range(len(quality.shares))
            rows: list[list[str | float]] = [
                [str(name), share] for name, share in zip(names, quality.shares, strict=True)
            ]
            tables.append(RunTable("Shares of the classes in the drawn images", ["class", "share"], rows))
        return Conclusion(pictures=[ways], tables=tables)

    def _between(self, context: EvaluationContext) -> torch.Tensor:
        """Return images of codes on arcs between fixed ones, `_STEPS` for each, with values from 0 to 1."""
        generator = context.networks["generator"]
        assert isinstance(generator, ImageGenerator)
        where = next(generator.parameters()).device
        random = torch.Generator().manual_seed(self.settings.seed)
        ends = torch.randn(_ARCS + 1, generator.latent, generator=random)
        # Weights whose squares sum to 1 keep the codes normally distributed (White 2016).
        angles = torch.linspace(0, torch.pi / 2, _STEPS)[:, None]
        arcs = [angles.cos() * first + angles.sin() * second for first, second in pairwise(ends)]
        classes = None
        if generator.classes:
            classes = (torch.arange(_ARCS) % generator.classes).repeat_interleave(_STEPS).to(where)
        return generator.draw(torch.cat(arcs).to(where), classes).cpu()

    def baselines(self) -> dict[str, dict[str, float]]:
        """Return the measures of images that a Gaussian of principal components draws."""
        images, _ = self._compared_images()
        drawn = _gaussian_images(images, self.settings.measure.samples, self.settings.seed)
        return {"gaussian": _metrics(self.measures().measure(drawn))}


def _metrics(quality: SampleQuality) -> dict[str, float]:
    """Return the measures by name, and `objective`, which chooses the best weights."""
    numbers = {name: value for name, value in quality.numbers().items() if name not in _CONSTANT}
    # NaN where no sample is usable; a NaN would never be replaced by better weights.
    distance = numbers.get("frechet", _WORST) / max(numbers.get("frechet_floor", 0.0), _LEAST_FLOOR)
    return {
        **numbers,
        "objective": min(_WORST, distance) / max(quality.coverage, _LEAST_COVERAGE),
    }


def _gaussian_images(images: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Return images, with values from 0 to 1, drawn from a Gaussian with the mean and the largest principal
    components of `images`, (N, C, H, W) uint8."""
    values = images[:_KNOWN].flatten(1).float() / 255
    mean = values.mean(dim=0)
    components = min(_COMPONENTS, *values.shape)
    torch.manual_seed(seed)  # of the random projections
    _, singular, directions = torch.pca_lowrank(values, components)
    deviations = singular / max(1, len(values) - 1) ** 0.5
    drawn = torch.randn(count, components, generator=torch.Generator().manual_seed(seed))
    pixels: torch.Tensor = mean + drawn * deviations @ directions.T
    return pixels.clamp(0, 1).reshape(count, *images.shape[1:])


TARGET = Training(TrainGan)
