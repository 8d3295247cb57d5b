"""Weights that a training starts from: those of an earlier bundle, where names and shapes fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from genray.bundle import load_bundle, read_manifest
from genray.errors import SettingsError
from jobs.training.recipe import Recipe
from jobs.training.settings import InitSettings

_MOST_NAMES = 8


@dataclass(frozen=True)
class WeightsFit:
    """Comparison of a bundle's tensors with those of a network.

    Attributes:
        taken: names of the tensors that fit.
        left: tensors of the network that the bundle lacks or has in another shape, with the reason.
        unused: tensors of the bundle that the network lacks.
    """

    taken: Sequence[str]
    left: Sequence[str]
    unused: Sequence[str]

    @classmethod
    def of(cls, network: nn.Module, weights: Mapping[str, torch.Tensor]) -> WeightsFit:
        """Compare by name and shape."""
        taken = []
        left = []
        state = network.state_dict()
        for name, tensor in state.items():
            if name not in weights:
                left.append(f"{name} (not in the bundle)")
            elif weights[name].shape != tensor.shape:
                shapes = [list(tensor.shape), list(weights[name].shape)]
                left.append(f"{name} ({shapes[0]}, in the bundle {shapes[1]})")
            else:
                taken.append(name)
        return cls(taken, left, [name for name in weights if name not in state])

    @property
    def text(self) -> str:
        """The comparison in one line, for a person."""
        total = len(self.taken) + len(self.left)
        parts = [f"{len(self.taken)} of {total} tensors taken"]
        if self.left:
            parts.append(f"random: {_listed(self.left)}")
        if self.unused:
            parts.append(f"not used: {_listed(self.unused)}")
        return "; ".join(parts)


@dataclass(frozen=True)
class StartingWeights:
    """Weights of `init.bundle` for the network that the recipe bundles; the recipe's other networks start
    from random weights.

    Attributes:
        settings: the bundle, and which modules to freeze.
        network: the network.
    """

    settings: InitSettings
    network: nn.Module

    @classmethod
    def of(cls, recipe: Recipe[Any], networks: Mapping[str, nn.Module]) -> StartingWeights | None:
        """Return the starting weights of the recipe's networks; None without `init.bundle`."""
        if recipe.settings.init.bundle is None:
            return None
        return cls(recipe.settings.init, recipe.bundled(networks))

    def load(self) -> dict[str, Any]:
        """Copy the weights that fit into the network.

        Returns:
            The bundle's kind, checksum and how many tensors were taken, for the new bundle.

        Raises:
            BundleError: the bundle cannot be read.
            SettingsError: no weight fits.
        """
        assert self.settings.bundle is not None
        bundle = load_bundle(self.settings.bundle)
        weights = bundle.network.state_dict()
        fit = WeightsFit.of(self.network, weights)
        self._check(fit)
        self.network.load_state_dict({name: weights[name] for name in fit.taken}, strict=False)
        return {
            "kind": bundle.manifest.kind,
            "weights_sha256": bundle.manifest.weights_sha256,
            "tensors_taken": len(fit.taken),
            "tensors": len(fit.taken) + len(fit.left),
            "frozen": list(self.settings.freeze),
        }

    def check(self) -> str:
        """Check the bundle and the modules to freeze, before anything starts; the network may be on the meta
        device.

        Returns:
            A line that says what is taken from where.

        Raises:
            BundleError: the bundle cannot be read.
            SettingsError: no weight fits, or there is no module to freeze of that name.
        """
        assert self.settings.bundle is not None
        manifest = read_manifest(self.settings.bundle)
        with torch.device("meta"):
            weights = manifest.spec.build().state_dict()
        fit = WeightsFit.of(self.network, weights)
        self._check(fit)
        self.freeze()
        frozen = f"; frozen: {', '.join(self.settings.freeze)}" if self.settings.freeze else ""
        return (
            f"starting from the {manifest.kind} of {self.settings.bundle}, made {manifest.created}: "
            f"{fit.text}{frozen}"
        )

    def freeze(self) -> Sequence[nn.Module]:
        """Exclude modules of `init.freeze` from training; returns them.

        Raises:
            SettingsError: there is no such module.
        """
        modules = dict(self.network.named_modules())
        frozen = []
        for name in self.settings.freeze:
            if not name or name not in modules:
                raise SettingsError(
                    f"the network has no module {name!r}",
                    where="init.freeze",
                    hint=f"its modules: {', '.join(dict(self.network.named_children()))}",
                )
            frozen.append(modules[name].requires_grad_(False))
        if not any(parameter.requires_grad for parameter in self.network.parameters()):
            raise SettingsError(
                "every parameter of the network is frozen, so that nothing would be trained",
                where="init.freeze",
                hint="leave out some of its modules",
            )
        return frozen

    def _check(self, fit: WeightsFit) -> None:
        if not fit.taken:
            raise SettingsError(
                f"no weight of the bundle {self.settings.bundle} fits the network: {fit.text}",
                where="init.bundle",
                hint="give a bundle of the same architecture, or the same model settings as the bundle's "
                "(`genray bundle show` lists them)",
            )


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(names[:_MOST_NAMES])
    return text if len(names) <= _MOST_NAMES else f"{text} and {len(names) - _MOST_NAMES} more"
