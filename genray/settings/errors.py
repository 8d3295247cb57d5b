"""What is wrong with settings, for a person: each mistake by its key, with the place that it came from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from genray.errors import SettingsError
from genray.settings.base import Settings, annotation_of, groups_of, is_mapping, known_keys, words
from genray.settings.shipped import shipped_place

Problem = Mapping[str, Any]
"""One of the errors that pydantic lists: type, loc, msg, input, ctx."""

_MISFITS = ("_type", "_parsing", "_from_float", "missing")
"""Endings of the errors that say that a value is of another type; the others say that it breaks a limit."""


def explain(
    cls: type[Settings], error: ValidationError, origins: Mapping[str, str], target: str
) -> SettingsError:
    """All that pydantic found wrong with the settings of `target`, as one error.

    Args:
        origins: for each key that was given, the file and line or the `--set` that it came from.
    """
    found: dict[str, tuple[str, str]] = {}  # by key: what is wrong, and where it came from
    wrong: dict[str, list[tuple[str, Problem]]] = {}  # by key: where in the value, and what
    keys = list(known_keys(cls))
    for problem in error.errors(include_url=False):
        location, kind = _without_kind(cls, [str(part) for part in problem["loc"]])
        if problem["type"] == "extra_forbidden" and kind and (having := _having(cls, location)):
            key, group = ".".join(location), ".".join(location[:-1])
            line = f"{key}: belongs to {group}.kind={' or '.join(having)}, not to {kind}"
            found.setdefault(key, (line, _origin(key, origins)))
        elif problem["type"] == "union_tag_invalid":
            key, context = ".".join([*location, "kind"]), problem["ctx"]
            tags = context["expected_tags"].replace("'", "")
            line = f"{key}: should be {tags}, not {context['tag']!r}"
            alike = difflib.get_close_matches(context["tag"], tags.split(", "), n=1)
            line += f"; did you mean {alike[0]}?" if alike else ""
            found[key] = (line, _origin(key, origins))
        elif problem["type"] == "extra_forbidden":
            key = ".".join(location)
            given = next((k for k in origins if k.startswith(f"{key}.")), key)
            near = _nearest(given, [*keys, *problem.get("ctx", {}).get("takes", ())])
            line = f"unknown setting {given}" + (f"; did you mean {near}?" if near else "")
            found.setdefault(key, (line, _origin(given, origins)))
        else:
            # What follows the longest known prefix leads into the value: to an item of a list, or to one
            # of the types of a union.
            depth = next((n for n in range(len(location), 0, -1) if ".".join(location[:n]) in keys), 0)
            if depth and is_mapping(annotation_of(cls, ".".join(location[:depth]))):
                depth = len(location)  # what is in it has names of the user's, by which it is known
            key, inside = ".".join(location[:depth]), location[depth:]
            wrong.setdefault(key, []).append((inside[0] if inside else "", problem))
            found.setdefault(key, ("", _origin(key, origins)))  # keeps its place in the order
    for key, problems in wrong.items():
        found[key] = (_line(cls, key, problems, origins), found[key][1])
    lines = list(found.values())
    if len(lines) == 1:
        what, where = lines[0]
        return SettingsError(what, where=where, hint=f"genray config {target} lists every setting")
    what = f"{len(lines)} settings are wrong:\n" + "\n".join(f"  {line}  ({where})" for line, where in lines)
    return SettingsError(what, hint=f"genray config {target} lists every setting")


def _line(
    cls: type[BaseModel], key: str, problems: Sequence[tuple[str, Problem]], origins: Mapping[str, str]
) -> str:
    """What is wrong with the value of `key`: the limit that it breaks, or else what it should have been."""
    # A union says for each of its types why the value is none of it: the one that fits says most.
    ways: dict[str, list[Problem]] = {}
    for into, problem in problems:
        ways.setdefault("" if into.isdigit() else into, []).append(problem)
    fitting = [way for into, way in ways.items() if not any(_misfit(problem, into) for problem in way)]
    into, problem = problems[0]
    if not fitting and (into or problem["type"] == "tuple_type"):
        value = _given(key, origins, problem["input"]) if into else problem["input"]
        return f"{key}: should be {words(annotation_of(cls, key))}, not {value!r}"
    problem = fitting[0][0] if fitting else problem
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] in ("too_long", "too_short"):
        message = message.replace("Tuple", "List").partition(" after validation")[0]  # YAML has lists only
    line = f"{key}: {message[0].lower()}{message[1:]}" if key else message
    return line if problem["type"] in ("value_error", "missing") else f"{line}, not {problem['input']!r}"


def _misfit(problem: Problem, into: str) -> bool:
    """Whether the value is of another type than the one that `into` names ("" if there is only one)."""
    kind = problem["type"]
    # One of several types: a pair has a length, and a choice its words, by which one knows it.
    return kind.endswith(_MISFITS) or (into != "" and kind in ("too_long", "too_short", "literal_error"))


def _without_kind(cls: type[BaseModel], location: list[str]) -> tuple[list[str], str | None]:
    """The location of a setting, and the kind of group that pydantic adds to it where a group has several."""
    annotation: Any = cls
    for i, part in enumerate(location):
        inside = next((g for g in groups_of(annotation) if part in g.model_fields), None)
        if inside is None:
            several = len(list(groups_of(annotation))) > 1 and i < len(location) - 1
            return (location[:i] + location[i + 1 :], part) if several else (location, None)
        annotation = inside.model_fields[part].annotation
    return location, None


def _having(cls: type[BaseModel], location: list[str]) -> list[str]:
    """The kinds of a group that have the setting at `location`."""
    *above, last = location
    groups = groups_of(annotation_of(cls, ".".join(above)))
    return [str(g.model_fields["kind"].default) for g in groups if last in g.model_fields]


def _given(key: str, origins: Mapping[str, str], value: Any) -> Any:
    """All of the value of `key`, if it can be had, where `value` is a part."""
    origin = origins.get(key, "")
    return origin.partition("=")[2] if origin.startswith("--set") else value


def _origin(key: str, origins: Mapping[str, str]) -> str:
    """Where `key` was set; for a group, where what was set in it was set, first of all by the user."""
    if key in origins and not any(k.startswith(f"{key}.") for k in origins):
        return origins[key]
    inside = [place for k, place in origins.items() if not key or k == key or k.startswith(f"{key}.")]
    own = [place for place in inside if not place.startswith(shipped_place())]
    parents = [".".join(key.split(".")[:n]) for n in range(key.count(".") + 1, 0, -1)]
    above = [origins[k] for k in parents if k in origins]
    return ", ".join(dict.fromkeys(own)) or next(iter(above + inside), "the defaults")


def _nearest(key: str, keys: Sequence[str]) -> str | None:
    """The valid key that `key` most resembles: by its whole, or, in a wrong group, by its last part."""
    whole = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    if whole:
        return whole[0]
    last = {k.rsplit(".", 1)[-1]: k for k in reversed(keys)}
    part = difflib.get_close_matches(key.rsplit(".", 1)[-1], list(last), n=1, cutoff=0.6)
    return last[part[0]] if part else None
