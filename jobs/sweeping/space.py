"""The space of a sweep: lists of values, of which every combination is tried, and ranges to draw from."""

from __future__ import annotations

import itertools
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genray.errors import SettingsError

Point = dict[str, Any]
"""Of the space: dotted settings and their values."""

_MOST_POINTS = 1000
_MOST_LETTERS = 80
_EXPONENT = re.compile(r"[-+]?[0-9]+([.][0-9]*)?[eE][-+]?[0-9]+")


def find_points(space: Mapping[str, Any], samples: int, seed: int) -> list[Point]:
    """Every combination of the lists' values; where there are ranges, each `samples` times with values
    drawn from them. A draw depends on its setting, its number and the seed alone: more samples or another
    list leave the earlier draws as they are.

    Args:
        space: nested by groups; a leaf is a list, or {min, max} and optionally log.
        samples: how often to draw.
        seed: of the draws.

    Raises:
        SettingsError: an empty space, or a leaf that is neither; or more points than are sensible.
    """
    leaves = _leaves(space, "")
    if not leaves:
        raise SettingsError(
            "there is nothing to sweep over",
            where="sweep.space",
            hint="give lists of values, such as --set 'sweep.space.model.latent=[64, 128, 256]'",
        )
    grids = {key: leaf for key, leaf in leaves.items() if isinstance(leaf, list)}
    ranges = {key: leaf for key, leaf in leaves.items() if isinstance(leaf, dict)}
    draws = samples if ranges else 1
    count = math.prod(len(values) for values in grids.values()) * draws
    if count > _MOST_POINTS:
        raise SettingsError(
            f"{count} trials are too many: at most {_MOST_POINTS}",
            where="sweep.space",
            hint="shorten the lists, lower sweep.samples, or draw from a range {min: ..., max: ...}",
        )
    points = []
    for values in itertools.product(*grids.values()):
        for draw in range(draws):
            chosen = dict(zip(grids, values, strict=True))
            chosen |= {key: _draw(key, leaf, draw, seed) for key, leaf in ranges.items()}
            points.append({key: chosen[key] for key in leaves})
    return list({json.dumps(point): point for point in points}.values())  # whole numbers are drawn twice


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted setting's last part; of those that share it, the whole."""
    lasts = [key.rpartition(".")[2] for key in keys]
    return {key: last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)}


def point_names(points: Sequence[Point]) -> list[str]:
    """A folder's name for each, readable and unlike the others': latent-64_learning_rate-0.001."""
    shorts = short_names(list(points[0]))
    names = ["_".join(f"{shorts[k]}-{_folder_text(v)}" for k, v in point.items()) for point in points]
    unique = []
    for name, point in zip(names, points, strict=True):
        is_ambiguous = names.count(name) > 1 or any(_is_cut(value) for value in point.values())
        if is_ambiguous or len(name) > _MOST_LETTERS:
            # Whatever the name does not hold, such as the folders of a path, is in the number at its end.
            name = f"{name[:_MOST_LETTERS]}_{zlib.crc32(json.dumps(point).encode()):08x}"
        unique.append(name)
    return unique


def _folder_text(value: Any) -> str:
    """A value as a part of a folder's name."""
    text = value.rpartition("/")[2] if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text.strip("[]{}"))


def _is_cut(value: Any) -> bool:
    return isinstance(value, str) and _folder_text(value) != value


def _leaves(space: Mapping[str, Any], prefix: str) -> dict[str, list[Any] | dict[str, Any]]:
    leaves: dict[str, list[Any] | dict[str, Any]] = {}
    for name, value in space.items():
        key = f"{prefix}{name}"
        where = f"sweep.space.{key}"
        if isinstance(value, Mapping) and value and {"min", "max"} & value.keys():
            leaves[key] = _range(value, where)
        elif isinstance(value, Mapping):
            leaves |= _leaves(value, f"{key}.")
        elif isinstance(value, list) and value:
            if len({json.dumps(item) for item in value}) < len(value):
                raise SettingsError(f"{value} has a value twice", where=where)
            leaves[key] = [_as_number(item) for item in value]
        else:
            raise SettingsError(
                f"should be a list of values or {{min: ..., max: ..., log: true}}, not {value!r}",
                where=where,
                hint=f"a setting that all trials share belongs into sweep.settings.{key}",
            )
    return leaves


def _range(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    low = _as_number(value.get("min"))
    high = _as_number(value.get("max"))
    log = value.get("log", False)
    are_known = value.keys() <= {"min", "max", "log"}
    if not (are_known and is_number(low) and is_number(high) and isinstance(log, bool)):
        what = f"a range is {{min: ..., max: ...}} and optionally log: true, not {dict(value)}"
        raise SettingsError(what, where=where)
    if not low < high or (log and low <= 0):
        raise SettingsError(
            f"a range must go up{', and with log begin above 0' if log else ''}, not from {low} to {high}",
            where=where,
        )
    return {"min": low, "max": high, "log": log}


def _as_number(value: Any) -> Any:
    """`value`, as a number if it is one that YAML takes for a text: 1e-4."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def is_number(value: Any) -> bool:
    """Whether a setting's value is a number: true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _draw(key: str, leaf: Mapping[str, Any], draw: int, seed: int) -> Any:
    """A number between the ends; a whole one if both are."""
    share = np.random.default_rng([seed, draw, zlib.crc32(key.encode())]).random()
    low = leaf["min"]
    high = leaf["max"]
    whole = isinstance(low, int) and isinstance(high, int)
    end = high + 1 if whole else high
    value: float = low * (end / low) ** share if leaf["log"] else low + (end - low) * share
    # Four digits are enough to try, and can be read.
    drawn = math.floor(value) if whole else float(f"{value:.4g}")
    return max(low, min(high, drawn))
