"""Steps that run the network of a bundle."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from genray.bundle import ImageSpec, Manifest, load_bundle, read_manifest
from genray.errors import SettingsError
from genray.images.photo import Photo, to_eight_bits
from genray.images.pixels import crop_middle
from genray.inference.accuracy import measure_loss
from genray.inference.openvino import quantize, save_quantized
from genray.inference.runner import InferenceSettings, Runner
from genray.settings.base import Location
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step, StepPlace

PixelArray = NDArray[Any]
"""uint8 or uint16."""

_INT8 = "int8"
_SAMPLE = 24  # images that an int8 network is made by
_CROP = 256  # pixels a side of what its cost is measured on

_MAKERS = {
    "denoiser": ("train-denoiser", "denoise"),
    "destamper": ("train-destamper", "destamp"),
    "pix2pix": ("train-pix2pix", "translate"),
    "autoencoder": ("train-autoencoder", "reconstruct, embed and compress"),
    "anomaly": ("train-anomaly", "detect, reconstruct, embed and compress"),
}


class BundleSettings(BulkSettings):
    """Settings of every target that uses a bundle."""

    bundle: Location = Field("runs/first/bundle", description="folder of the trained model")
    inference: InferenceSettings = Field(InferenceSettings(), description="how the model is run")


B = TypeVar("B", bound=BundleSettings)


class BundleStep(Step[B]):
    """A step with a network."""

    kinds: ClassVar[tuple[str, ...]]
    """The kinds of bundles that it takes."""
    noise: ClassVar[float | None] = None
    """Of a denoiser: the noise that the cost of int8 is measured at, of 255."""

    def __init__(self, settings: B) -> None:
        super().__init__(settings)
        self.manifest: Manifest = read_manifest(Path(settings.bundle))

    def check(self) -> Sequence[str]:
        """See `Step`."""
        kind, manifest = self.manifest.kind, self.manifest
        if kind not in self.kinds:
            _, use = _MAKERS.get(kind, ("", "another target"))
            trainers = " or ".join(_MAKERS[each][0] for each in self.kinds)
            raise SettingsError(
                f"the bundle is a {kind}: it is for {use}",
                where=f"bundle: {self.settings.bundle}",
                hint=f"give a bundle that {trainers} made",
            )
        return [f"bundle: {kind}, {manifest.network}, made {manifest.created} ({self.settings.bundle})"]

    def identity(self) -> Mapping[str, Any]:
        """See `Step`."""
        return {"bundle": self.manifest.weights_sha256}

    def prepare(self, sample: Sequence[Photo], model: Path) -> Mapping[str, Any]:
        """See `Step`: for int8 quantise the network by the user's own images, and say what that costs."""
        if self.settings.inference.precision != "int8":
            return {}
        takes = self.manifest.preprocessing.input
        images = [self.seen(photo) for photo in islice(sample, _SAMPLE)]
        network = load_bundle(Path(self.settings.bundle)).network
        save_quantized(model / _INT8, quantize(network, takes, images), network)
        exact, fast = (
            Runner.open(
                load_bundle(Path(self.settings.bundle)).network,
                takes,
                self.manifest.preprocessing.output,
                self.settings.inference.model_copy(update={"precision": precision}),
                quantized=model / _INT8,
            )
            for precision in ("fp32", "int8")
        )
        crops = [crop_middle(image, _CROP) for image in images]
        loss = measure_loss(exact, fast, crops, sigma=self.noise)
        note = f"int8: {loss.psnr_between:.1f} dB from fp32 on {len(crops)} of your images"
        if loss.psnr_drop is not None:
            note += f"; {loss.psnr_drop:.3f} dB worse at taking away noise of sigma {self.noise:g}"
        return {"int8": loss.as_json(), "notes": [note]}

    def seen(self, photo: Photo) -> NDArray[np.uint8]:
        """`photo` as the network takes it, at its own size."""
        return as_channels(to_eight_bits(photo.pixels), self.manifest.preprocessing.input.channels)

    def open(self, place: StepPlace, header: Mapping[str, Any]) -> Sequence[str]:
        """See `Step`."""
        return self.open_network(load_bundle(Path(self.settings.bundle)).network, place, header)

    @abstractmethod
    def open_network(self, network: nn.Module, place: StepPlace, header: Mapping[str, Any]) -> Sequence[str]:
        """Make the runners; see `Step.open`."""

    def runner(
        self, network: nn.Module, takes: ImageSpec | None, gives: ImageSpec | None, place: StepPlace
    ) -> Runner:
        """The runner of a network, or of a part of it."""
        folder = place.model / _INT8
        return Runner.open(
            network,
            takes,
            gives,
            self.settings.inference,
            gpu=place.gpu,
            threads=place.threads,
            quantized=folder if folder.exists() else None,
        )


def with_pixels(photo: Photo, pixels: PixelArray) -> Photo:
    """`photo` with other pixels; its transparency stays where height and width do."""
    same = pixels.shape[:2] == photo.pixels.shape[:2]
    return replace(photo, pixels=pixels, alpha=photo.alpha if same else None)


def as_channels(pixels: PixelArray, channels: int) -> PixelArray:
    """(..., 1 or 3) as (..., channels): gray is repeated; colour becomes its luma (ITU-R BT.601)."""
    have = pixels.shape[-1]
    if have == channels:
        return pixels
    if have == 1:
        return np.repeat(pixels, channels, axis=-1)
    luma = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return luma.round().astype(pixels.dtype)[..., None]


def change(before: PixelArray, after: PixelArray) -> float:
    """Mean absolute difference of two images of one shape and type, in levels of 255."""
    # Bytes: the smaller from the larger never overflows, and needs no wider type.
    difference = np.maximum(before, after) - np.minimum(before, after)
    return float(difference.mean()) / (257.0 if before.dtype == np.uint16 else 1.0)
