"""Networks that a bundle can contain, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from genray.errors import BundleUnknown
from genray.models.autoencoder import ConvAutoencoder, ConvSettings, DenseAutoencoder, DenseSettings
from genray.models.beats import ConvBeatAutoencoder, ConvBeatSettings, DenseBeatAutoencoder, DenseBeatSettings
from genray.models.improved import ImprovedAutoencoder, ImprovedSettings
from genray.models.nafnet import NAFNet, NAFNetSettings
from genray.models.numpy_dense import NumpyAutoencoder, NumpySettings
from genray.models.pix2pix import UNet, UNetSettings
from genray.models.residual_unet import ResidualUNet, ResidualUNetSettings
from genray.models.restorer import ConvRestorer, ConvRestorerSettings
from genray.models.vae import VAESettings, VariationalAutoencoder
from genray.settings.base import Settings


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
        network, settings_class = _NETWORKS[self.name]
        try:
            rest = dict(self.arguments)
            settings = settings_class.model_validate(rest.pop("settings"))
            return network(**rest, settings=settings)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise BundleUnknown(
                f"the network {self.name!r} cannot be built from its stored arguments ({error})"
            ) from error


_NETWORKS: Mapping[str, tuple[Callable[..., nn.Module], type[Settings]]] = {
    "unet": (UNet, UNetSettings),
    "autoencoder-dense": (DenseAutoencoder, DenseSettings),
    "autoencoder-conv": (ConvAutoencoder, ConvSettings),
    "autoencoder-improved": (ImprovedAutoencoder, ImprovedSettings),
    "autoencoder-vae": (VariationalAutoencoder, VAESettings),
    "autoencoder-numpy": (NumpyAutoencoder, NumpySettings),
    "beats-dense": (DenseBeatAutoencoder, DenseBeatSettings),
    "beats-conv": (ConvBeatAutoencoder, ConvBeatSettings),
    "restorer-conv": (ConvRestorer, ConvRestorerSettings),
    "restorer-unet": (ResidualUNet, ResidualUNetSettings),
    "restorer-nafnet": (NAFNet, NAFNetSettings),
}
