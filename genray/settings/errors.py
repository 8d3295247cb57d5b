"""Errors of settings for people: each mistake by its key, with the file and line or the `--set` that it
came from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from genray.errors import SettingsError
from genray.settings.base import Settings
from genray.settings.schema import annotation_of, describe_type, group_classes, is_mapping, setting_keys
from genray.settings.shipped import shipped_place

Problem = Mapping[str, Any]
"""One error of pydantic's list: type, loc, msg, input, ctx."""

_MISFITS = ("_type", "_parsing", "_from_float", "missing")
"""Endings of pydantic's error types for a value of another type; others are for values that break a limit."""


_MOST_MISTAKES = 50
"""Largest number of mistakes in a message: finding the nearest name of each takes time."""


_USUAL_NAMES = {
    "lr": "learning_rate",
    "bs": "batch_size",
    "batch": "batch_size",
    "wd": "weight_decay",
    "max_epochs": "epochs",
    "num_epochs": "epochs",
    "n_epochs": "epochs",
    "num_workers": "workers",
    "gpus": "gpu",
    "cuda": "gpu",
    "img_size": "size",
    "image_size": "size",
    "dataroot": "path",
}
"""Names of settings in other programs, and what they are called here."""

_LONGEST_VALUE = 200  # characters of a value in a message


@dataclass(frozen=True)
class _Mistake:
    """Mistake in one setting, and where it was set."""

    line: str
    origin: str


def explain(
    cls: type[Settings], error: ValidationError, origins: Mapping[str, str], target: str
) -> SettingsError:
    """Return pydantic's errors on the settings of `target` as one error of up to 50 mistakes.

    Args:
        origins: source of each key that was given: the file and line, or the `--set`.
    """
    mistakes: dict[str, _Mistake] = {}
    problems: dict[str, list[tuple[str, Problem]]] = {}  # by key: place inside the value, problem
    keys = list(setting_keys(cls))
    left_out = 0
    for problem in error.errors(include_url=False):
        if len(mistakes) >= _MOST_MISTAKES:
            left_out += 1
            continue
        location, kind = _without_kind(cls, [str(part) for part in problem["loc"]])
        if problem["type"] == "extra_forbidden":
            key = ".".join(location)
            mistakes.setdefault(key, _unknown_key(cls, location, kind, problem, keys, origins))
        elif problem["type"] == "union_tag_invalid":
            key = ".".join([*location, "kind"])
            mistakes[key] = _Mistake(_unknown_kind(key, problem["ctx"]), _origin(key, origins))
        else:
            depth = _depth_of_key(cls, location, keys)
            key = ".".join(location[:depth])
            inside = location[depth:]
            problems.setdefault(key, []).append((inside[0] if inside else "", problem))
            mistakes.setdefault(key, _Mistake("", _origin(key, origins)))  # reserves its place in the order
    for key, found in problems.items():
        mistakes[key] = _Mistake(_wrong_value(cls, key, found, origins), mistakes[key].origin)
    hint = f"genray config {target} lists every setting"
    if len(mistakes) == 1:
        (mistake,) = mistakes.values()
        return SettingsError(mistake.line, where=mistake.origin, hint=hint)
    lines = "\n".join(f"  {mistake.line}  ({mistake.origin})" for mistake in mistakes.values())
    if left_out:
        lines += f"\n  and {left_out} more mistakes"
    return SettingsError(f"{len(mistakes) + left_out} settings are wrong:\n{lines}", hint=hint)


def _unknown_key(
    cls: type[BaseModel],
    location: list[str],
    kind: str | None,
    problem: Problem,
    keys: Sequence[str],
    origins: Mapping[str, str],
) -> _Mistake:
    """Describe an unknown key, or one that belongs to another kind of its group."""
    key = ".".join(location)
    if kind and (kinds := _kinds_with(cls, location)):
        group = ".".join(location[:-1])
        line = f"{key}: belongs to {group}.kind={' or '.join(kinds)}, not to {kind}"
        return _Mistake(line, _origin(key, origins))
    given = next((k for k in origins if k.startswith(f"{key}.")), key)
    near = _nearest(given, [*keys, *problem.get("ctx", {}).get("takes", ())])
    line = f"unknown setting {given}" + (f"; did you mean {near}?" if near else "")
    return _Mistake(line, _origin(given, origins))


def _unknown_kind(key: str, context: Mapping[str, Any]) -> str:
    """Describe an unknown kind of a group."""
    kinds = context["expected_tags"].replace("'", "")
    near = difflib.get_close_matches(context["tag"], kinds.split(", "), n=1)
    return f"{key}: should be {kinds}, not {_shown(context['tag'])}" + (
        f"; did you mean {near[0]}?" if near else ""
    )


def _depth_of_key(cls: type[BaseModel], location: list[str], keys: Sequence[str]) -> int:
    """Return the number of parts of `location` that form the key; the others lead into the value, to an
    item of a list or a type of a union."""
    depth = next((n for n in range(len(location), 0, -1) if ".".join(location[:n]) in keys), 0)
    if depth and is_mapping(annotation_of(cls, ".".join(location[:depth]))):
        return len(location)  # keys in a free mapping are the user's: show them whole
    return depth


def _wrong_value(
    cls: type[BaseModel], key: str, problems: Sequence[tuple[str, Problem]], origins: Mapping[str, str]
) -> str:
    """Describe a wrong value of `key`: the limit that it breaks, or else the type that it should have."""
    # A union reports one error for each of its types: that of a type that fits is the helpful one.
    by_type: dict[str, list[Problem]] = {}
    for part, problem in problems:
        by_type.setdefault("" if part.isdigit() else part, []).append(problem)
    fitting = [found for part, found in by_type.items() if not any(_misfit(p, part) for p in found)]
    part, problem = problems[0]
    if not fitting and (part or problem["type"] == "tuple_type"):
        value = _whole_value(key, origins, problem["input"]) if part else problem["input"]
        return f"{key}: should be {describe_type(annotation_of(cls, key))}, not {_shown(value)}"
    if fitting:
        problem = fitting[0][0]
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] in ("too_long", "too_short"):
        message = message.replace("Tuple", "List").partition(" after validation")[0]  # YAML has no tuples
    line = f"{key}: {message[0].lower()}{message[1:]}" if key else message
    return (
        line if problem["type"] in ("value_error", "missing") else f"{line}, not {_shown(problem['input'])}"
    )


def _shown(value: Any) -> str:
    """Return a value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _misfit(problem: Problem, part: str) -> bool:
    """Return whether the value is of another type than `part` of a union ("": there is one type)."""
    kind = problem["type"]
    # In a union a wrong length or a wrong word means that another type was meant.
    return kind.endswith(_MISFITS) or (part != "" and kind in ("too_long", "too_short", "literal_error"))


def _without_kind(cls: type[BaseModel], location: list[str]) -> tuple[list[str], str | None]:
    """Return the location of a setting without the kind of group that pydantic adds to it, and that kind."""
    annotation: Any = cls
    for i, part in enumerate(location):
        inside = next((g for g in group_classes(annotation) if part in g.model_fields), None)
        if inside is None:
            several = len(list(group_classes(annotation))) > 1 and i < len(location) - 1
            return (location[:i] + location[i + 1 :], part) if several else (location, None)
        annotation = inside.model_fields[part].annotation
    return location, None


def _kinds_with(cls: type[BaseModel], location: list[str]) -> list[str]:
    """Return the kinds of a group that have the setting at `location`."""
    *above, last = location
    groups = group_classes(annotation_of(cls, ".".join(above)))
    return [str(g.model_fields["kind"].default) for g in groups if last in g.model_fields]


def _whole_value(key: str, origins: Mapping[str, str], value: Any) -> Any:
    """Return the whole value of `key` if `--set` gave it, else the part `value`."""
    origin = origins.get(key, "")
    return origin.partition("=")[2] if origin.startswith("--set") else value


def _origin(key: str, origins: Mapping[str, str]) -> str:
    """Return where `key` was set; for a group, where the user set something in it, else where the defaults
    did."""
    if key in origins and not any(k.startswith(f"{key}.") for k in origins):
        return origins[key]
    inside = [place for k, place in origins.items() if not key or k == key or k.startswith(f"{key}.")]
    own = [place for place in inside if not place.startswith(shipped_place())]
    parents = [".".join(key.split(".")[:n]) for n in range(key.count(".") + 1, 0, -1)]
    above = [origins[k] for k in parents if k in origins]
    return ", ".join(dict.fromkeys(own)) or next(iter(above + inside), "the defaults")


def _nearest(key: str, keys: Sequence[str]) -> str | None:
    """Return the valid key most similar to `key` as a whole, or by its last part if the group is wrong or the
    name is that of another program, such as lr."""
    whole = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    if whole:
        return whole[0]
    last = {k.rsplit(".", 1)[-1]: k for k in reversed(keys)}
    name = key.rsplit(".", 1)[-1].replace("-", "_").lower()
    if (usual := _USUAL_NAMES.get(name)) in last:
        return last[usual]
    part = difflib.get_close_matches(name, list(last), n=1, cutoff=0.6)
    return last[part[0]] if part else None
