"""Space of a sweep: lists of values, whose every combination is tried, and ranges to draw from."""

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
"""A point of the space: dotted settings and their values."""

_MOST_POINTS = 1000
_MOST_LETTERS = 80
_EXPONENT = re.compile(r"[-+]?[0-9]+([.][0-9]*)?[eE][-+]?[0-9]+")


def find_points(space: Mapping[str, Any], samples: int, seed: int) -> list[Point]:
    """Return every combination of the lists' values; with ranges, each combination `samples` times with
    values drawn from them. A draw depends only on its setting, its number and the seed: more samples or
    another list do not change the earlier draws.

    Args:
        space: settings nested by groups; a leaf is a list, or {min, max} and optionally log.
        samples: number of draws.
        seed: seed of the draws.

    Raises:
        SettingsError: the space is empty, a leaf is neither list nor range, or there are too many points.
    """
    leaves = _leaves(space, "")
    if not leaves:
        raise SettingsError(
            "sweep.space is empty: there is nothing to sweep over",
            where="sweep.space",
            hint="give lists of values, such as --set 'sweep.space.model.latent=[64, 128, 256]'",
        )
    grids = {key: leaf for key, leaf in leaves.items() if isinstance(leaf, list)}
    ranges = {key: leaf for key, leaf in leaves.items() if isinstance(leaf, dict)}
    draws = samples if ranges else 1
    count = math.prod(len(values) for values in grids.values()) * draws
    if count > _MOST_POINTS:
        raise SettingsError(
            f"the space has {count} trials, but at most {_MOST_POINTS} are allowed",
            where="sweep.space",
            hint="shorten the lists, lower sweep.samples, or draw from a range {min: ..., max: ...}",
        )
    points = []
    for values in itertools.product(*grids.values()):
        for draw in range(draws):
            chosen = dict(zip(grids, values, strict=True))
            chosen |= {key: _draw(key, leaf, draw, seed) for key, leaf in ranges.items()}
            points.append({key: chosen[key] for key in leaves})
    return list({json.dumps(point): point for point in points}.values())  # whole numbers can be drawn twice


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last part of each dotted setting, or the whole if several settings share that part."""
    lasts = [key.rpartition(".")[2] for key in keys]
    return {key: last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)}


def point_names(points: Sequence[Point]) -> list[str]:
    """Return a unique, readable folder name for each point: latent-64_learning_rate-0.001."""
    shorts = short_names(list(points[0]))
    names = ["_".join(f"{shorts[k]}-{_folder_text(v)}" for k, v in point.items()) for point in points]
    unique = []
    for name, point in zip(names, points, strict=True):
        is_ambiguous = names.count(name) > 1 or any(_is_cut(value) for value in point.values())
        if is_ambiguous or len(name) > _MOST_LETTERS:
            # The number at the end tells apart names whose values were shortened, such as paths.
            name = f"{name[:_MOST_LETTERS]}_{zlib.crc32(json.dumps(point).encode()):08x}"
        unique.append(name)
    return unique


def _folder_text(value: Any) -> str:
    """Return a value as a part of a folder's name."""
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
                raise SettingsError(f"{value} contains a value twice", where=where)
            leaves[key] = [_as_number(item) for item in value]
        else:
            raise SettingsError(
                f"should be a list of values or {{min: ..., max: ..., log: true}}, not {value!r}",
                where=where,
                hint=f"put a setting that all trials share into sweep.settings.{key}",
            )
    return leaves


def _range(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    low = _as_number(value.get("min"))
    high = _as_number(value.get("max"))
    log = value.get("log", False)
    are_known = value.keys() <= {"min", "max", "log"}
    if not (are_known and is_number(low) and is_number(high) and isinstance(log, bool)):
        what = f"a range must be {{min: ..., max: ...}}, optionally with log: true, not {dict(value)}"
        raise SettingsError(what, where=where)
    if not low < high or (log and low <= 0):
        raise SettingsError(
            f"min of a range must be below max{', and above 0 with log' if log else ''}, not {low} with "
            f"max {high}",
            where=where,
        )
    return {"min": low, "max": high, "log": log}


def _as_number(value: Any) -> Any:
    """Return `value`, as a number if it is one that YAML reads as text, such as 1e-4."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def is_number(value: Any) -> bool:
    """Return whether a setting's value is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _draw(key: str, leaf: Mapping[str, Any], draw: int, seed: int) -> Any:
    """Draw a number between the ends; a whole one if both ends are."""
    share = np.random.default_rng([seed, draw, zlib.crc32(key.encode())]).random()
    low = leaf["min"]
    high = leaf["max"]
    whole = isinstance(low, int) and isinstance(high, int)
    end = high + 1 if whole else high
    value: float = low * (end / low) ** share if leaf["log"] else low + (end - low) * share
    # Four digits are enough for a trial, and readable.
    drawn = math.floor(value) if whole else float(f"{value:.4g}")
    return max(low, min(high, drawn))
