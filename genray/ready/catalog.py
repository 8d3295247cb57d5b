"""The ready models of this installation, with what their bundles tell about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from genray.bundle import read_manifest
from genray.errors import BundleMismatch
from genray.named_bundles import FOLDER, PREFIX, ready_names
from genray.ready.export import About, about_of


@dataclass(frozen=True)
class ReadyModel:
    """A model that comes with genray.

    Attributes:
        name: its name, without the prefix.
        kind: kind of its bundle, such as denoiser.
        bytes: size of its weights.
        created: time at which the bundle was written.
        about: purpose, origin, licence and figures.
    """

    name: str
    kind: str
    bytes: int
    created: str
    about: About

    @property
    def location(self) -> str:
        """Return what `bundle` is set to, to use it."""
        return PREFIX + self.name

    def as_json(self) -> dict[str, Any]:
        """Return the model as plain values."""
        return {
            "bundle": self.location,
            "kind": self.kind,
            "bytes": self.bytes,
            "created": self.created,
            **self.about.model_dump(),
        }


def ready_models() -> list[ReadyModel]:
    """Return the ready models, by name.

    Raises:
        BundleError: one of them is damaged, or tells nothing about its model.
    """
    return [_read(name) for name in ready_names()]


def _read(name: str) -> ReadyModel:
    folder = FOLDER / name
    manifest = read_manifest(folder)
    about = about_of(manifest.data)
    if about is None:
        raise BundleMismatch(
            "the bundle of a ready model tells nothing about it",
            where=str(folder),
            hint="write it with genray bundle shrink --about FILE",
        )
    return ReadyModel(
        name, manifest.kind, (folder / manifest.weights).stat().st_size, manifest.created, about
    )
