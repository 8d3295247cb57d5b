"""Shipped YAML in `configs/`: a file for each target, whose first line describes it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from genray.settings.yaml_reader import parse_yaml

_CONFIGS = files("configs")


def shipped_targets() -> list[str]:
    """Return the names of all targets, sorted."""
    names = (entry.name for entry in _CONFIGS.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def shipped_place(target: str = "") -> str:
    """Return the path of the YAML of `target` for messages (without a target: of the folder)."""
    return str(_CONFIGS / f"{target}.yaml" if target else _CONFIGS)


def shipped_text(target: str) -> str:
    """Return the YAML of `target`, one of `shipped_targets`."""
    return (_CONFIGS / f"{target}.yaml").read_text(encoding="utf-8")


def shipped_values(target: str) -> dict[str, Any]:
    """Return the nested values in the YAML of `target`."""
    return parse_yaml(shipped_text(target), shipped_place(target)) or {}
