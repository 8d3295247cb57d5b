"""Networks that a bundle can contain, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError
from torch import nn

from genray.errors import BundleUnknown
from genray.models.autoencoder import ConvAutoencoder, ConvSettings, DenseAutoencoder, DenseSettings
from genray.models.beats import ConvBeatAutoencoder, ConvBeatSettings, DenseBeatAutoencoder, DenseBeatSettings
from genray.models.gan.dcgan import DcganSettings
from genray.models.gan.mlp import MlpSettings
from genray.models.gan.pair import Gan
from genray.models.gan.residual import ResidualSettings
from genray.models.improved import ImprovedAutoencoder, ImprovedSettings
from genray.models.nafnet import NAFNet, NAFNetSettings
from genray.models.numpy_dense import NumpyAutoencoder, NumpySettings
from genray.models.pix2pix import UNet, UNetSettings
from genray.models.residual_unet import ResidualUNet, ResidualUNetSettings
from genray.models.restorer import ConvRestorer, ConvRestorerSettings
from genray.models.rhythm import RhythmNetwork, RhythmSettings
from genray.models.vae import VAESettings, VariationalAutoencoder
from genray.settings.base import Settings
from genray.settings.problems import stored_problems

Count = Annotated[int, Strict(), Field(ge=1, le=65536)]


class _Arguments(BaseModel):
    """What a network is built from, beside its settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Translating(_Arguments):
    in_channels: Count
    out_channels: Count
    size: Count


class _OfShape(_Arguments):
    shape: tuple[Count, Count, Count]


class _OfBeats(_Arguments):
    samples: Count


class _OfRhythm(_Arguments):
    windows: Count
    beats: Count


class _Drawing(_OfShape):
    classes: Annotated[int, Strict(), Field(ge=0, le=65536)]


class _Restoring(_Arguments):
    channels: Count


class _Network(NamedTuple):
    """A network, and the types of what it is built from."""

    build: Callable[..., nn.Module]
    arguments: type[_Arguments]
    settings: type[Settings]


@dataclass(frozen=True)
class NetworkSpec:
    """Structure of a network as a bundle stores it: its name, and the arguments that it is built from, plain
    JSON values."""

    name: str
    arguments: Mapping[str, Any]

    def build(self) -> nn.Module:
        """Build the network.

        Raises:
            BundleUnknown: there is no network of that name, or it does not take the arguments.
        """
        if self.name not in _NETWORKS:
            raise BundleUnknown(f"no network is called {self.name!r}; known: {', '.join(_NETWORKS)}")
        network = _NETWORKS[self.name]
        rest = {key: value for key, value in self.arguments.items() if key != "settings"}
        try:
            arguments = network.arguments.model_validate(rest)
        except ValidationError as error:
            raise self._wrong(stored_problems(error, prefix="arguments.")) from None
        if "settings" not in self.arguments:
            raise self._wrong("arguments.settings: is missing")
        try:
            settings = network.settings.model_validate(self.arguments["settings"])
        except ValidationError as error:
            raise self._wrong(stored_problems(error, prefix="arguments.settings.")) from None
        try:
            return network.build(**dict(arguments), settings=settings)
        except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
            raise self._wrong(f"arguments: {error}") from error

    def _wrong(self, problem: str) -> BundleUnknown:
        return BundleUnknown(f"the network {self.name!r} cannot be built: {problem}")


_NETWORKS: Mapping[str, _Network] = {
    "unet": _Network(UNet, _Translating, UNetSettings),
    "autoencoder-dense": _Network(DenseAutoencoder, _OfShape, DenseSettings),
    "autoencoder-conv": _Network(ConvAutoencoder, _OfShape, ConvSettings),
    "autoencoder-improved": _Network(ImprovedAutoencoder, _OfShape, ImprovedSettings),
    "autoencoder-vae": _Network(VariationalAutoencoder, _OfShape, VAESettings),
    "autoencoder-numpy": _Network(NumpyAutoencoder, _OfShape, NumpySettings),
    "beats-dense": _Network(DenseBeatAutoencoder, _OfBeats, DenseBeatSettings),
    "beats-conv": _Network(ConvBeatAutoencoder, _OfBeats, ConvBeatSettings),
    "rhythm": _Network(RhythmNetwork, _OfRhythm, RhythmSettings),
    "gan-mlp": _Network(Gan.build, _Drawing, MlpSettings),
    "gan-dcgan": _Network(Gan.build, _Drawing, DcganSettings),
    "gan-residual": _Network(Gan.build, _Drawing, ResidualSettings),
    "restorer-conv": _Network(ConvRestorer, _Restoring, ConvRestorerSettings),
    "restorer-unet": _Network(ResidualUNet, _Restoring, ResidualUNetSettings),
    "restorer-nafnet": _Network(NAFNet, _Restoring, NAFNetSettings),
}
