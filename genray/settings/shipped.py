"""What genray ships in `configs/`: a YAML file for each target, whose first line says what it does."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from genray.settings.yaml_reader import parse_yaml

_CONFIGS = files("configs")


def shipped_targets() -> list[str]:
    """The names of all targets, sorted."""
    names = (entry.name for entry in _CONFIGS.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def shipped_place(target: str = "") -> str:
    """Where the YAML of `target` is, for messages; without one, where all are."""
    return str(_CONFIGS / f"{target}.yaml" if target else _CONFIGS)


def shipped_text(target: str) -> str:
    """The YAML of `target`, one of `shipped_targets`."""
    return (_CONFIGS / f"{target}.yaml").read_text(encoding="utf-8")


def shipped_values(target: str) -> dict[str, Any]:
    """What the YAML of `target` sets, nested."""
    return parse_yaml(shipped_text(target), shipped_place(target)) or {}
