"""The networks that a bundle can hold, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from genray.errors import BundleUnknown
from genray.models.unet import UNet, UNetSettings


def build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build the network `name` from the arguments that a bundle stores (plain JSON values).

    Raises:
        BundleUnknown: no network of that name, or arguments that it does not take.
    """
    if name not in _BUILDERS:
        raise BundleUnknown(f"no network is called {name!r}; there are: {', '.join(_BUILDERS)}")
    try:
        return _BUILDERS[name](dict(arguments))
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise BundleUnknown(
            f"the network {name!r} cannot be built from its stored arguments: {error}"
        ) from error


def _unet(arguments: dict[str, Any]) -> nn.Module:
    settings = UNetSettings.model_validate(arguments.pop("settings"))
    return UNet(**arguments, settings=settings)


_BUILDERS = {"unet": _unet}
