"""Loader of settings from a target's YAML, the user's YAML and `--set`, with the source of each value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from genray.errors import SettingsError, YamlTooMuch
from genray.settings.base import Settings
from genray.settings.errors import explain
from genray.settings.schema import annotation_of, describe_type, group_classes, is_mapping, setting_keys
from genray.settings.shipped import shipped_place, shipped_text
from genray.settings.yaml_reader import (
    DEFAULT_LIMITS,
    YamlLimits,
    compose_yaml,
    construct_yaml,
    parse_yaml,
    yaml_entries,
)
from genray.uris import is_secret_name, may_hold_secret

S = TypeVar("S", bound=Settings)

_Names = tuple[str, ...]  # the parts of a key: names of groups, and keys of a free mapping


def load(
    cls: type[S],
    *,
    target: str,
    config: Path | None = None,
    sets: Sequence[str] = (),
    limits: YamlLimits = DEFAULT_LIMITS,
) -> S:
    """Merge `configs/<target>.yaml`, then `config`, then `sets` ("a.b=value"), and validate.

    Args:
        limits: of the YAML in `config` and in `sets`.

    Raises:
        SettingsError: every unknown key, wrong type and contradiction at once, each with the file and
            line or the `--set` that it came from, and the nearest valid name.
    """
    merged = _MergedSettings.of(cls, limits)
    merged.add_yaml(shipped_text(target), shipped_place(target))
    if config is not None:
        merged.add_file(config)
    for text in sets:
        merged.add_set(text)
    try:
        return cls.model_validate(merged.tree)
    except ValidationError as error:
        raise explain(cls, error, merged.origins, target) from None


def changes_yaml(settings: Settings, *, target: str) -> str:
    """Return the shortest YAML that changes the target's defaults to `settings`, a `config` for `load`."""
    defaults = load(type(settings), target=target).model_dump(mode="json")
    return yaml.safe_dump(_changes(defaults, settings.model_dump(mode="json")), sort_keys=False)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for key, value in after.items():
        if key not in before:
            changes[key] = value
        elif isinstance(value, Mapping) and isinstance(before[key], Mapping) and value:
            if inside := _changes(before[key], value):
                changes[key] = inside
        elif value != before[key]:
            changes[key] = value
    return changes


@dataclass
class _MergedSettings:
    """Values merged so far, and for each dotted key the place that set it last.

    Attributes:
        groups: keys of groups.
        texts: keys of texts, true for those that may be null.
        mappings: keys of free mappings, in which a name may contain a dot.
        limits: limits on YAML.
        tree: nested values.
        origins: place of each key's value.
    """

    groups: Set[str]
    texts: Mapping[str, bool]
    mappings: Set[str]
    limits: YamlLimits
    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings_class: type[BaseModel], limits: YamlLimits) -> _MergedSettings:
        """Return an empty instance for that class."""
        types = {key: annotation_of(settings_class, key) for key in setting_keys(settings_class)}
        described = {key: describe_type(annotation) for key, annotation in types.items()}
        return cls(
            groups={key for key, annotation in types.items() if any(group_classes(annotation))},
            texts={
                key: text == "text or null"
                for key, text in described.items()
                if text in ("text", "text or null")
            },
            mappings={key for key, annotation in types.items() if is_mapping(annotation)},
            limits=limits,
        )

    def add_file(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                data = file.read(self.limits.bytes + 1)
        except FileNotFoundError:
            raise SettingsError(f"no settings file {path}", hint="check the path given to --config") from None
        except OSError as error:
            raise SettingsError(f"cannot read the settings file: {error}", where=str(path)) from None
        if len(data) > self.limits.bytes:
            raise SettingsError(f"{path} is larger than {self.limits.bytes} bytes: not a settings file")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise SettingsError(f"this is not YAML for settings: {error}", where=str(path)) from None
        self.add_yaml(text, str(path))

    def add_yaml(self, text: str, file: str) -> None:
        node = compose_yaml(text, file, self.limits)
        if node is None:
            return
        if not isinstance(node, yaml.MappingNode):
            raise SettingsError("settings must be `key: value` lines", where=f"{file} line 1")
        self._add_node(node, file, ())

    def _add_node(self, node: yaml.MappingNode, file: str, above: _Names) -> None:
        lines: dict[str, int] = {}
        for key_node, value_node in yaml_entries(node, file):
            names = (*above, *self._names(above, str(key_node.value)))
            key = ".".join(names)
            line = key_node.start_mark.line + 1
            if key in lines:
                where = f"{file} lines {lines[key]} and {line}"
                raise SettingsError(f"{key} is given twice", where=where, hint="keep one")
            lines[key] = line
            self.origins[key] = f"{file} line {line}"
            if isinstance(value_node, yaml.MappingNode):
                self._add_node(value_node, file, names)
            else:
                self._put(names, construct_yaml(value_node, file))

    def add_set(self, text: str) -> None:
        key, separator, value = text.partition("=")
        key = key.strip()
        if not separator or not all(key.split(".")) or "://" in key:
            raise SettingsError(
                f"--set takes key=value, not {'a secret' if may_hold_secret(text) else repr(text)}",
                hint="for example --set loop.epochs=20",
            )
        # Errors show the origin, and a value may be refused because of a secret in it.
        is_secret = may_hold_secret(value) or is_secret_name(key.rpartition(".")[2])
        origin = f"--set {key}=***" if is_secret else f"--set {text}"
        # Text is taken literally, without one pair of quotes: paths are no YAML.
        if key in self.texts and not (value == "null" and self.texts[key]):
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            parsed: Any = parse_yaml(value, origin, self.limits) if quoted else value
        else:
            parsed = self._parsed(value, origin)
        self._add_value(self._present_names(key), parsed, origin)

    def _parsed(self, value: str, origin: str) -> Any:
        try:
            return parse_yaml(value, origin, self.limits)
        except YamlTooMuch:
            raise
        except SettingsError:
            return value

    def _add_value(self, names: _Names, value: Any, origin: str) -> None:
        self.origins[".".join(names)] = origin
        if isinstance(value, Mapping) and value:
            for key, part in value.items():
                self._add_value((*names, *self._names(names, str(key))), part, origin)
        else:
            self._put(names, value)

    def _names(self, above: _Names, key: str) -> _Names:
        """Return the names of a dotted key below `above`: dots lead into groups, not into free mappings."""
        names: _Names = ()
        for part in key.split("."):
            if self._is_free((*above, *names)):
                return (*names, key.split(".", len(names))[-1])
            names = (*names, part)
        return names

    def _is_free(self, names: _Names) -> bool:
        return any(".".join(names[:n]) in self.mappings for n in range(1, len(names) + 1))

    def _present_names(self, key: str) -> _Names:
        """Return the names of a dotted key on the command line. In a free mapping an existing name may
        contain dots; a new name ends at the next dot."""
        parts = key.split(".")
        names: _Names = ()
        inside: Any = self.tree
        while parts:
            lengths = range(len(parts), 1, -1) if self._is_free(names) and isinstance(inside, dict) else ()
            length = next((n for n in lengths if ".".join(parts[:n]) in inside), 1)
            name = ".".join(parts[:length])
            names = (*names, name)
            parts = parts[length:]
            inside = inside.get(name) if isinstance(inside, dict) else None
        return names

    def _put(self, names: _Names, value: Any) -> None:
        if ".".join(names) in self.groups and (value is None or value == {}):
            return  # all lines of the group are commented out
        *groups, last = names
        into = self.tree
        for group in groups:
            child = into.get(group)
            if not isinstance(child, dict):
                child = into[group] = {}
            into = child
        into[last] = value
