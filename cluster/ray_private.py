"""Modules of Ray that have no public or typed name."""

from importlib import import_module
from typing import Any


def ray_private(name: str) -> Any:
    """Import a module of Ray that has no public or typed name.

    Tests cover each use, and pyproject.toml pins Ray to one minor version.
    """
    return import_module(f"ray.{name}")
