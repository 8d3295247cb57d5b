"""Names of ready models: `ready:photo` wherever the folder of a bundle is expected."""

from __future__ import annotations

import difflib
from pathlib import Path

from genray.errors import BundleMissing

PREFIX = "ready:"
FOLDER = Path(__file__).parent / "ready"


def is_ready(location: str | Path) -> bool:
    """Return whether `location` names a ready model."""
    return str(location).startswith(PREFIX)


def ready_names() -> list[str]:
    """Return the names of the ready models of this installation, without the prefix."""
    return sorted(path.parent.name for path in FOLDER.glob("*/bundle.json"))


def ready_folder(location: str | Path) -> Path:
    """Return the folder of the ready model that `location` names.

    Raises:
        BundleMissing: there is no ready model of that name.
    """
    name = str(location).removeprefix(PREFIX)
    names = ready_names()
    if name in names:
        return FOLDER / name
    near = difflib.get_close_matches(name, names, n=1)
    known = ", ".join(PREFIX + each for each in names) or "none in this installation"
    raise BundleMissing(
        f"no ready model is called {name!r}",
        where=str(location),
        hint=f"did you mean {PREFIX}{near[0]}?" if near else f"ready models: {known}",
    )
