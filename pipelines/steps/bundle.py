"""Steps that run the network of a bundle."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from genray.bundle import ImageSpec, Manifest, Preprocessing, load_bundle, read_manifest
from genray.bundle_places import bundle_folder
from genray.errors import BundleMissing, SettingsError
from genray.images.photo import Photo
from genray.images.pixels import crop_middle
from genray.inference.accuracy import measure_loss
from genray.inference.openvino import quantize, save_model
from genray.inference.runner import InferenceSettings, Runner
from genray.settings.base import Location
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step, StepPlace
from pipelines.steps.pixels import as_channels, in_window

_INT8_FOLDER = "int8"
_INT8_SAMPLE = 24  # images that an int8 network is calibrated on
_INT8_CROP = 256  # side of the crops that its loss is measured on, in pixels


class _Use(NamedTuple):
    """Use of a kind of bundle: the target that makes it, and the targets that use it."""

    trainer: str
    targets: str


_USES = {
    "denoiser": _Use("train-denoiser", "denoise"),
    "destamper": _Use("train-destamper", "destamp"),
    "gan": _Use("train-gan", "generate and embed"),
    "pix2pix": _Use("train-pix2pix", "translate"),
    "autoencoder": _Use("train-autoencoder", "reconstruct, embed, compress and, of a VAE, generate"),
    "anomaly": _Use("train-anomaly", "detect, reconstruct, embed and compress"),
}


class BundleSettings(BulkSettings):
    """Settings of every target that uses a bundle."""

    bundle: Location = Field(
        "runs/first/bundle",
        description="folder of the trained model's bundle, or a ready model (genray models lists them)",
    )
    allow_worse: bool = Field(
        False, description="use a bundle that was no better than a predictor that does nothing"
    )
    inference: InferenceSettings = Field(InferenceSettings(), description="engine and precision of the model")


B = TypeVar("B", bound=BundleSettings)


class BundleStep(Step[B]):
    """A step with the network of a bundle.

    Args:
        settings: settings of the target.
        manifest: manifest of the bundle.
    """

    bundle_kinds: ClassVar[tuple[str, ...]]
    """Kinds of bundles that the step takes."""
    noise_sigma: ClassVar[float | None] = None
    """Noise that the loss of int8 is measured at, in levels of 255, for denoisers."""

    def __init__(self, settings: B, manifest: Manifest) -> None:
        super().__init__(settings)
        self.manifest = manifest

    @classmethod
    def load(cls, settings: B) -> Self:
        """Make the step and read the bundle's manifest; see `Step`."""
        folder = bundle_folder(settings.bundle)
        try:
            return cls(settings, read_manifest(folder))
        except BundleMissing as error:
            if folder.exists():
                raise
            trainers = " or ".join(_USES[kind].trainer for kind in cls.bundle_kinds)
            hint = f"train one with {trainers}, then set bundle to the folder bundle/ of its run"
            raise BundleMissing(error.what, where="bundle", hint=hint) from None

    def check(self) -> Sequence[str]:
        """See `Step`."""
        kind = self.manifest.kind
        if kind not in self.bundle_kinds:
            use = _USES[kind].targets if kind in _USES else "another target"
            trainers = " or ".join(_USES[each].trainer for each in self.bundle_kinds)
            raise SettingsError(
                f"the bundle is of kind {kind}, which is for {use}",
                where=f"bundle: {self.settings.bundle}",
                hint=f"give a bundle made by {trainers}",
            )
        if self.manifest.quality == "worse-than-trivial" and not self.settings.allow_worse:
            raise SettingsError(
                f"the model of the bundle is {self.manifest.verdict}",
                where=f"bundle: {self.settings.bundle}",
                hint="give a better bundle, or set allow_worse=true to use this one",
            )
        origin = f"{self.manifest.network}, made {self.manifest.created}"
        lines = [f"bundle: {kind}, {origin} ({self.settings.bundle})"]
        if isinstance(self.manifest.stored, Preprocessing):
            lines += _describe(self.manifest.stored.input)
        return lines + ([f"bundle: {self.manifest.verdict}"] if self.manifest.verdict else [])

    def identity(self) -> Mapping[str, Any]:
        """See `Step`."""
        return {"bundle": self.manifest.weights_sha256}

    def prepare(self, sample: Sequence[Photo], model_folder: Path) -> Mapping[str, Any]:
        """Quantise the network for int8 on the user's images, and measure the loss; see `Step`."""
        if self.settings.inference.precision != "int8":
            return {}
        images = [self.network_pixels(photo) for photo in islice(sample, _INT8_SAMPLE)]
        network = self._load_network()
        folder = model_folder / _INT8_FOLDER
        save_model(folder, quantize(network, self.manifest.preprocessing.input, images), network)
        exact = self._whole_runner("fp32", folder)
        fast = self._whole_runner("int8", folder)
        crops = [crop_middle(image, _INT8_CROP) for image in images]
        loss = measure_loss(exact, fast, crops, sigma=self.noise_sigma)
        note = f"int8: {loss.psnr_between:.1f} dB from fp32 on {len(crops)} of your images"
        if loss.psnr_drop is not None:
            note += f"; {loss.psnr_drop:.3f} dB worse at removing noise of sigma {self.noise_sigma:g}"
        return {"int8": loss.as_json(), "notes": [note]}

    def network_pixels(self, photo: Photo) -> NDArray[np.uint8]:
        """Return the pixels of `photo` as the network takes them, at the photo's size."""
        takes = self.manifest.preprocessing.input
        return as_channels(in_window(photo.pixels, takes.window), takes.channels)

    def open(self, place: StepPlace, prepared: Mapping[str, Any]) -> Sequence[str]:
        """See `Step`."""
        return self.open_network(self._load_network(), place, prepared)

    @abstractmethod
    def open_network(
        self, network: nn.Module, place: StepPlace, prepared: Mapping[str, Any]
    ) -> Sequence[str]:
        """Make the runners; see `Step.open`."""

    def make_runner(
        self, network: nn.Module, takes: ImageSpec | None, gives: ImageSpec | None, place: StepPlace
    ) -> Runner:
        """Make the runner of a network, or of a part of it."""
        folder = place.model_folder / _INT8_FOLDER
        return Runner.open(
            network,
            takes,
            gives,
            self.settings.inference,
            gpu=place.gpu,
            threads=place.threads,
            quantized=folder if folder.exists() else None,
        )

    def _load_network(self) -> nn.Module:
        return load_bundle(self.settings.bundle).network

    def _whole_runner(self, precision: str, quantized_folder: Path) -> Runner:
        """Make the runner of the whole network at a precision, on the device of the settings."""
        preprocessing = self.manifest.preprocessing
        settings = self.settings.inference.model_copy(update={"precision": precision})
        network = self._load_network()
        return Runner.open(
            network, preprocessing.input, preprocessing.output, settings, quantized=quantized_folder
        )


def _describe(takes: ImageSpec) -> list[str]:
    """Return lines on the values of the images that the network takes, if they are not the usual ones."""
    if takes.classes is not None:
        return [f"inputs are label maps of {len(takes.classes)} classes; maps with other classes fail"]
    if takes.window is not None:
        low, high = takes.window
        return [f"levels {low:g} to {high:g} are black to white, as in the training"]
    return []
