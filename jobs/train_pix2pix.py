"""The target train-pix2pix: image-to-image translation from pairs (Isola et al. 2017, arXiv:1611.07004)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from genray.bundle import ImageSpec, Preprocessing
from genray.datasets.loader import (
    Loader,
    MemoryLoader,
    Sample,
    WorkerShare,
    check_bad_share,
    held_out_batches,
    load_all,
)
from genray.datasets.pairs.fitting import fit_pairs
from genray.datasets.pairs.pair_set import Pairs, find_pairs
from genray.datasets.pairs.samples import PairSource, measured
from genray.datasets.pairs.settings import PairedSettings
from genray.datasets.ray_stream import StreamLoader
from genray.errors import DataError
from genray.images.labels import Classes, colours_of
from genray.images.metrics import image_metrics
from genray.images.pixels import Pixels, crop_middle, grid
from genray.images.tensors import to_pixels, to_unit
from genray.io.bad_input import BadInput
from genray.io.listing import find_place
from genray.models.parts.layers import parameter_count
from genray.models.parts.losses import Adversarial, adversarial_loss
from genray.models.pix2pix import PatchGAN, PatchGANSettings, UNet, UNetSettings
from genray.models.registry import NetworkSpec
from genray.settings.base import Settings
from jobs.training.optimisation.optimizer import OptimizerSettings
from jobs.training.recipe import (
    BundleSpec,
    DataSummary,
    EvaluationContext,
    Losses,
    Networks,
    Recipe,
    SampleScores,
    TensorBatch,
    Updater,
)
from jobs.training.settings import TrainSettings
from jobs.training.target import Training

_MEAN_PAIRS = 500  # streamed training pairs that the mean target is made of
_VALIDATION_PIXELS = 8 * 256 * 256  # pixels in a batch: enough to fill a GPU, few enough for a laptop


class LossSettings(Settings):
    """Settings of the pix2pix loss: adversarial + l1 * L1."""

    adversarial: Adversarial = Field(
        "least-squares",
        description=(
            "adversarial loss (least-squares: LSGAN, closer to the target; bce: as in the paper, sharper)"
        ),
    )
    l1: float = Field(100.0, ge=0, description="weight of the L1 distance to the target (the paper's lambda)")


class TrainPix2PixSettings(TrainSettings):
    """Settings of train-pix2pix."""

    data: PairedSettings = Field(PairedSettings(), description="image pairs to train on")
    generator: UNetSettings = Field(UNetSettings(), description="generator network, a U-Net")
    discriminator: PatchGANSettings = Field(
        PatchGANSettings(), description="discriminator network, a PatchGAN"
    )
    loss: LossSettings = Field(LossSettings(), description="loss of the generator")
    optimizer: OptimizerSettings = Field(OptimizerSettings(), description="optimizer of both networks")

    @model_validator(mode="after")
    def _patches_fit(self) -> Self:
        layers = self.discriminator.layers
        size = self.data.size
        if size // 2**layers < 4:
            raise ValueError(
                f"discriminator.layers={layers} is too many for images of {size} pixels: at most "
                f"{size.bit_length() - 3} for data.size={size}"
            )
        return self


class Pix2Pix(Recipe[TrainPix2PixSettings]):
    """Trains the U-Net generator against the PatchGAN discriminator, with an L1 loss."""

    settings_class = TrainPix2PixSettings
    metric = "l1"
    averaged = ("generator",)
    compared_by = ("l1",)
    trivial: ClassVar[Mapping[str, str]] = {
        "input": "copying the input",
        "constant": "one constant colour",
        "mean_image": "the mean training target",
    }
    progress_losses = ("gen_gan_loss", "gen_l1_loss", "disc_loss")

    _data: PairedSettings
    """Settings of the data with the layout and windows that were found. This attribute and the following ones
    are set by `open`."""
    _source: PairSource
    """Source of the training pairs."""
    _classes: Classes | None
    """Classes of the inputs, if they are label maps; the samples have their indices."""
    _training: list[Sample] | None
    """Decoded training pairs, unless they are streamed."""
    _held_out: list[Sample]

    def open_data(self, note: Callable[[str], None]) -> DataSummary:
        try:
            place = find_place(self.settings.data.path)
        except DataError as error:
            hint = "give the folder of your pairs, or draw some to try: genray fronts data/fronts"
            raise DataError(error.what, where="data.path", hint=hint) from None
        store = place.store
        pairs = find_pairs(place, self.settings.data, self.settings.seed)
        pairs = pairs.without_shared(store, allowed=self.settings.data.allow_shared)
        fitted = fit_pairs(pairs, store, self.settings.data)
        pairs, data, self._classes = fitted.pairs, fitted.settings, fitted.classes
        self._data = data
        bad: list[BadInput] = list(pairs.bad)
        held_out = PairSource.of_pairs(store, pairs.val[: data.val_max], data.for_validation(), self._classes)
        self._held_out = [
            (crop_middle(a, data.size), crop_middle(b, data.size))
            for a, b in load_all(held_out, bad.append)[1]
        ]
        self._source = PairSource.of_pairs(store, pairs.train, data, self._classes)
        gigabytes = (len(pairs.train) + len(self._held_out)) * self._sample_bytes(pairs.pixels) / 1e9
        stream = data.loader == "stream" or (data.loader == "auto" and gigabytes > data.memory_gb)
        self._training = None
        if not stream:
            if gigabytes > 0.2:
                note(f"decoding {len(pairs.train)} pairs ({gigabytes:.1f} GB)")
            self._training = load_all(self._source, bad.append)[1]
        check_bad_share(bad, len(pairs.train) + len(pairs.val), data.max_bad_share, data.path)
        return self._summarise(pairs, bad)

    def _sample_bytes(self, pixels: float) -> float:
        """Return the bytes of a decoded pair; `pixels` is the mean size in the files' headers."""
        data = self.settings.data
        pixels = data.load_size**2 if data.load_size else pixels
        return pixels * (self._stored_channels + data.target_channels)

    @property
    def _stored_channels(self) -> int:
        """Channels of an input in memory: maps of class indices have one."""
        return self.settings.data.input_channels if self._classes is None else 1

    @property
    def _input_channels(self) -> int:
        """Channels of an input in the networks."""
        return self.settings.data.input_channels if self._classes is None else len(self._classes)

    def _in_classes(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return placed inputs as the networks take them: maps of class indices with a channel for each
        class, 1 where it is and -1 elsewhere."""
        if self._classes is None:
            return inputs
        indices = ((inputs[:, 0] + 1) * 127.5).round().long()
        channels = F.one_hot(indices, len(self._classes)).permute(0, 3, 1, 2)
        return channels.to(inputs.dtype).mul_(2).sub_(1)

    def _summarise(self, pairs: Pairs, bad: list[BadInput]) -> DataSummary:
        data = self.settings.data
        stream = self._training is None
        train = len(self._source if self._training is None else self._training)
        val = len(self._held_out)
        if not train or not val:
            kind = "held-out" if train else "training"
            raise DataError(
                f"every {kind} pair is broken, such as {bad[-1].path}: {bad[-1].detail}",
                where=data.path,
                hint="repair the files, or give others",
            )
        unread = f"; {pairs.counts.unread_text}" if pairs.counts.unread_text else ""
        with torch.device("meta"):  # the meta device counts parameters without drawing weights
            generator, discriminator = self.networks().values()
        return DataSummary(
            train=train,
            val=val,
            bad=bad,
            data={**pairs.record, "train": train, "val": val, "set_aside": len(bad)},
            counts=pairs.counts,
            lines=[
                *pairs.lines,
                f"{train} training pairs, {val} held out, {len(bad)} set aside "
                f"({data.size} pixels, {'streamed by Ray Data' if stream else 'in memory'}){unread}",
                f"generator {parameter_count(generator):,} parameters, "
                f"discriminator {parameter_count(discriminator):,}",
            ],
            needs_ray=stream,
        )

    def loader(self, report: Callable[[BadInput], None]) -> Loader:
        data = self.settings.data
        seed = self.settings.seed
        if self._training is not None:
            return MemoryLoader(self._training, self._source.vary, seed)
        shapes = [(data.size, data.size, c) for c in (self._stored_channels, data.target_channels)]
        limit = data.max_bad_share
        return StreamLoader(self._source, shapes, seed, report, limit=limit, path=data.path)

    def networks(self) -> dict[str, nn.Module]:
        channels = self._input_channels, self.settings.data.target_channels
        return {
            "generator": UNet(*channels, size=self.settings.data.size, settings=self.settings.generator),
            "discriminator": PatchGAN(*channels, settings=self.settings.discriminator),
        }

    def example_inputs(self, samples: int) -> Mapping[str, Sequence[torch.Tensor]]:
        data = self.settings.data
        channels = data.input_channels, data.target_channels
        image, target = (torch.empty(samples, count, data.size, data.size) for count in channels)
        return {"generator": [image], "discriminator": [image, target]}

    def optimizer(self, network: str) -> OptimizerSettings:
        """Return the optimizer settings, which both networks share."""
        return self.settings.optimizer

    def step(self, networks: Networks, batch: TensorBatch, updater: Updater) -> Losses:
        """Update the discriminator, then the generator against it.

        The discriminator's loss is halved, which slows it down relative to the generator (section 3.3).
        Returns gen_total_loss, gen_gan_loss, gen_l1_loss and disc_loss.
        """
        inputs, targets = self._in_classes(batch[0]), batch[1]
        kind = self.settings.loss.adversarial
        discriminator = networks["discriminator"]
        fakes = networks["generator"](inputs)

        real_loss = adversarial_loss(discriminator(inputs, targets), kind, real=True)
        fake_loss = adversarial_loss(discriminator(inputs, fakes.detach()), kind, real=False)
        disc_loss = 0.5 * (real_loss + fake_loss)
        updater.update("discriminator", disc_loss)

        with updater.frozen("discriminator") as frozen:
            gan_loss = adversarial_loss(frozen(inputs, fakes), kind, real=True)
        l1_loss = F.l1_loss(fakes.float(), targets)
        total = gan_loss + self.settings.loss.l1 * l1_loss
        updater.update("generator", total)
        return {
            "gen_total_loss": total.detach(),
            "gen_gan_loss": gan_loss.detach(),
            "gen_l1_loss": l1_loss.detach(),
            "disc_loss": disc_loss.detach(),
        }

    def validate(self, context: EvaluationContext, share: WorkerShare) -> list[SampleScores]:
        """Return L1, PSNR and SSIM of the generated images, with values from 0 to 1."""
        scores: list[SampleScores] = []
        pairs_at_once = max(1, _VALIDATION_PIXELS // self.settings.data.size**2)
        for indices, (inputs, targets) in held_out_batches(self._held_out, pairs_at_once, share):
            outputs = context.networks["generator"](self._in_classes(context.place(inputs)))
            metrics = image_metrics(to_unit(outputs), to_unit(context.place(targets)))
            for i, index in enumerate(indices):
                scores.append(
                    SampleScores(int(index), {name: float(values[i]) for name, values in metrics.items()})
                )
        return scores

    def picture(self, context: EvaluationContext, indices: Sequence[int], title: str) -> NDArray[np.uint8]:
        """Draw rows of input | generated | target."""
        generator = context.networks["generator"]
        rows = []
        for index in indices:
            inputs, target = self._held_out[index]
            outputs = generator(self._in_classes(context.place(inputs[None])))
            shown = inputs if self._classes is None else colours_of(inputs, self._classes)
            rows.append([shown, to_pixels(outputs)[0], target])
        return grid(rows, [f"{title}input", "generated", "target"])

    def baselines(self) -> dict[str, dict[str, float]]:
        """Return L1 of the best constant colour (the median of the held-out targets), of the mean training
        target, and of the input where it has the target's channels, on the held-out pairs, with values from 0
        to 1."""
        targets = [target for _, target in self._held_out]
        training = self._sample_training_targets()
        mean = np.zeros(targets[0].shape)
        for target in training:
            mean += crop_middle(target, self.settings.data.size) / len(training)
        results = {
            "constant": {"l1": _l1(targets, [_median_colour(targets)] * len(targets))},
            "mean_image": {"l1": _l1(targets, [mean] * len(targets))},
        }
        if self._classes is None and self.settings.data.input_channels == self.settings.data.target_channels:
            results["input"] = {"l1": _l1(targets, [pair[0].astype(np.int64) for pair in self._held_out])}
        return results

    def _sample_training_targets(self) -> Sequence[Pixels]:
        """Return the training targets; of streamed pairs some of a fixed random order."""
        if self._training is not None:
            return [target for _, target in self._training]
        order = np.random.default_rng(self.settings.seed).permutation(len(self._source))[:_MEAN_PAIRS]
        some = replace(
            self._source, inputs=self._source.inputs.take(order), targets=self._source.targets.take(order)
        )
        return [target for _, target in load_all(some, lambda bad: None)[1]]

    def bundle_spec(self) -> BundleSpec:
        data = self._data
        spec = NetworkSpec(
            "unet",
            {
                "in_channels": self._input_channels,
                "out_channels": data.target_channels,
                "size": data.size,
                "settings": self.settings.generator.model_dump(mode="json"),
            },
        )
        preprocessing = Preprocessing(
            input=ImageSpec(
                channels=self._input_channels,
                window=measured(data.input_window),
                classes=self._classes,
            ),
            output=ImageSpec(channels=data.target_channels, window=measured(data.target_window)),
            size=(data.size, data.size),
            direction=data.direction,
        )
        return BundleSpec("pix2pix", "generator", spec, preprocessing)


def _median_colour(images: Sequence[Pixels]) -> NDArray[np.int64]:
    """Return the median of each channel over all pixels, from counts of the 256 values."""
    channels = range(images[0].shape[-1])
    counts = np.array([sum(np.bincount(i[..., c].ravel(), minlength=256) for i in images) for c in channels])
    below = counts.cumsum(axis=1)
    median: NDArray[np.int64] = (below < below[:, -1:] / 2).sum(axis=1)
    return median


def _l1(targets: Sequence[Pixels], guesses: Sequence[NDArray[Any]]) -> float:
    pairs = zip(targets, guesses, strict=True)
    return float(np.mean([np.abs(target - guess).mean() for target, guess in pairs]) / 255.0)


TARGET = Training(Pix2Pix)
