"""Reader of YAML, the only one in genray: fewer implicit types, and limits on expanded size and nesting.

An alias repeats all values of its anchor, so some hundred bytes of aliases to aliases can expand to millions
of values ("billion laughs"). The expanded size is counted while the text is read, before values are built.
PyYAML's safe loader makes plain values only, but has no such limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import Field

from genray.errors import SettingsError, YamlTooMuch
from genray.settings.base import Settings

_MERGE = "tag:yaml.org,2002:merge"
_PYTHON_ERRORS = (ValueError, AttributeError, TypeError, RecursionError)  # PyYAML's constructors raise these


class YamlLimits(Settings):
    """Limits on YAML. Settings files usually have some hundred values."""

    bytes: int = Field(1_000_000, ge=1, description="Largest size of a file, in bytes")
    nodes: int = Field(
        100_000,
        ge=1,
        description="Largest number of keys and values, with repetitions by aliases and merge keys",
    )
    depth: int = Field(50, ge=1, le=100, description="Deepest nesting of lists and mappings")


DEFAULT_LIMITS = YamlLimits()


def compose_yaml(text: str, file: str, limits: YamlLimits = DEFAULT_LIMITS) -> yaml.Node | None:
    """Return the nodes of a text with their lines (None: an empty text).

    An alias is the node of its anchor, and a walk over the nodes visits at most `limits.nodes`.

    Args:
        text: one YAML document.
        file: name of the text in errors.

    Raises:
        YamlTooMuch: beyond `limits`; names the line.
        SettingsError: no YAML; names the line.
    """
    try:
        if len(text.encode("utf-8", "replace")) > limits.bytes:
            raise YamlTooMuch(f"the text is larger than {limits.bytes} bytes", where=file)
        loader = _Loader(text)
        loader.limits = limits
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _no_yaml(error, file) from None
    except _PYTHON_ERRORS as error:
        raise SettingsError(f"this is not YAML for settings: {error}", where=file) from None


def construct_yaml(node: yaml.Node, file: str) -> Any:
    """Return the value of a node from `compose_yaml`.

    Raises:
        SettingsError: a node without a value, such as !!int of a word; names the line.
    """
    loader = _Loader("")
    try:
        return loader.construct_object(node, deep=True)
    except yaml.YAMLError as error:
        raise _no_yaml(error, file) from None
    except _PYTHON_ERRORS as error:
        where = f"{file} line {node.start_mark.line + 1}"
        raise SettingsError(f"this is not YAML for settings: {error}", where=where) from None
    finally:
        loader.dispose()


def parse_yaml(text: str, file: str, limits: YamlLimits = DEFAULT_LIMITS) -> Any:
    """Return the value of a text (None: an empty text).

    Raises:
        SettingsError: see `compose_yaml` and `construct_yaml`.
    """
    node = compose_yaml(text, file, limits)
    return None if node is None else construct_yaml(node, file)


def yaml_entries(node: yaml.MappingNode, file: str) -> list[tuple[yaml.Node, yaml.Node]]:
    """Return the keys and values of a mapping, those of merge keys (`<<: *name`, or a list of aliases) first.

    The mapping's own keys override merged ones; of several merged mappings the first with a key wins.

    Raises:
        SettingsError: a merge key without mappings, or an impossible key; names the line.
    """
    try:
        return list(_entries(node))
    except yaml.YAMLError as error:
        raise _no_yaml(error, file) from None


def _entries(node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(
                problem="a list or mapping cannot be a key", problem_mark=key.start_mark
            )
    own = [entry for entry in node.value if entry[0].tag != _MERGE]
    taken = {key.value for key, _ in own}
    for merge, value in node.value:
        if merge.tag != _MERGE:
            continue
        for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if not isinstance(part, yaml.MappingNode):
                what = "a merge key `<<` takes a mapping, or a list of mappings"
                raise yaml.MarkedYAMLError(problem=what, problem_mark=merge.start_mark)
            entries = [entry for entry in _entries(part) if entry[0].value not in taken]
            taken |= {key.value for key, _ in entries}
            yield from entries
    yield from own


def _no_yaml(error: yaml.YAMLError, file: str) -> SettingsError:
    mark = getattr(error, "problem_mark", None)
    where = f"{file} line {mark.line + 1}" if mark else file
    problem = getattr(error, "problem", None) or str(error)
    if isinstance(error, _BeyondLimit):
        return YamlTooMuch(problem, where=where, hint=error.note)
    return SettingsError(f"this is not YAML: {problem}", where=where)


class _BeyondLimit(yaml.MarkedYAMLError):
    """Input beyond the limits: `problem` describes it, `note` is the next step."""


class _Loader(yaml.SafeLoader):
    """Loader of YAML with fewer implicit types (010 is ten, 1:30 and 2024-01-01 are text); counts its
    nodes."""

    limits = DEFAULT_LIMITS

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._depth = 0
        self._sizes: dict[str, int] = {}  # expanded size of each anchor

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        before = self._nodes
        is_alias = isinstance(event, yaml.AliasEvent)
        if is_alias and event.anchor in self.anchors and event.anchor not in self._sizes:
            raise _BeyondLimit(
                problem=f"*{event.anchor} is inside of &{event.anchor}, which would contain itself",
                problem_mark=event.start_mark,
                note="write the values instead of the alias",
            )
        self._nodes += self._sizes.get(event.anchor, 1) if is_alias else 1
        if self._nodes > self.limits.nodes:
            repeated = ", with repetitions by aliases" if self._sizes else ""
            raise _BeyondLimit(
                problem=f"more than {self.limits.nodes} keys and values{repeated}: no settings",
                problem_mark=event.start_mark,
                note="use fewer aliases (*name) of anchors that hold aliases" if repeated else "shorten it",
            )
        self._depth += 1
        if self._depth > self.limits.depth:
            raise _BeyondLimit(
                problem=f"lists and mappings are nested deeper than {self.limits.depth}",
                problem_mark=event.start_mark,
                note="settings are nested a few levels deep: look for a bracket that is not closed",
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if not is_alias and event.anchor is not None:
            self._sizes[event.anchor] = self._nodes - before
        return node


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, re.compile(r"[-+]?[0-9]+$") if tag.endswith(":int") else pattern)
        for tag, pattern in resolvers
        if not tag.endswith(":timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(str(node.value)))
