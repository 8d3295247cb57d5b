"""Settings from a target's YAML, the user's YAML and `--set`, each value remembering where it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from genray.errors import SettingsError
from genray.settings.base import Settings, flatten, nested
from genray.settings.errors import explain
from genray.settings.schema import annotation_of, describe_type, group_classes, setting_keys
from genray.settings.shipped import shipped_place, shipped_text
from genray.uris import is_secret_name, may_hold_secret

S = TypeVar("S", bound=Settings)

_MAX_BYTES = 1_000_000  # a settings file is written by hand; anything larger is something else


def load(cls: type[S], *, target: str, config: Path | None = None, sets: Sequence[str] = ()) -> S:
    """Merge `configs/<target>.yaml`, then `config`, then `sets` ("a.b=value"), and validate.

    Raises:
        SettingsError: every unknown key, wrong type and contradiction at once, each with the file and
            line or the `--set` that it came from, and the nearest valid name.
    """
    merged = _MergedSettings.of(cls)
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
    """The shortest YAML that turns the target's defaults into `settings`: what `load` takes as `config`."""
    defaults = flatten(load(type(settings), target=target))
    changes = {
        key: value
        for key, value in flatten(settings).items()
        if key not in defaults or defaults[key] != value
    }
    return yaml.safe_dump(nested(changes), sort_keys=False)


class _YamlLoader(yaml.SafeLoader):
    """YAML without its surprises: 010 is ten, 1:30 and 2024-01-01 are text."""


_YamlLoader.yaml_implicit_resolvers = {
    first: [
        (tag, re.compile(r"[-+]?[0-9]+$") if tag.endswith(":int") else pattern)
        for tag, pattern in resolvers
        if not tag.endswith(":timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


_YamlLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(str(node.value)))


@dataclass
class _MergedSettings:
    """The values so far, and for each dotted key the place that set it last.

    Attributes:
        groups: the keys of groups.
        texts: the keys of texts; those that may be null instead are True.
        tree: the values, nested.
        origins: by key.
    """

    groups: Set[str]
    texts: Mapping[str, bool]
    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings_class: type[BaseModel]) -> _MergedSettings:
        """No values yet, for that class."""
        types = {key: annotation_of(settings_class, key) for key in setting_keys(settings_class)}
        described = {key: describe_type(annotation) for key, annotation in types.items()}
        return cls(
            groups={key for key, annotation in types.items() if any(group_classes(annotation))},
            texts={
                key: text == "text or null"
                for key, text in described.items()
                if text in ("text", "text or null")
            },
        )

    def add_file(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            raise SettingsError(f"no settings file {path}", hint="check the path given to --config") from None
        except OSError as error:
            raise SettingsError(f"cannot read the settings file: {error}", where=str(path)) from None
        if len(data) > _MAX_BYTES:
            raise SettingsError(f"{path} is larger than {_MAX_BYTES} bytes: not a settings file")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise SettingsError(f"this is not YAML for settings: {error}", where=str(path)) from None
        self.add_yaml(text, str(path))

    def add_yaml(self, text: str, file: str) -> None:
        try:
            node = yaml.compose(text, Loader=_YamlLoader)
            if node is None:
                return
            if not isinstance(node, yaml.MappingNode):
                raise SettingsError("settings must be `key: value` lines", where=f"{file} line 1")
            self._add_node(node, file, "")
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f" line {mark.line + 1}" if mark else ""
            problem = getattr(error, "problem", None) or str(error)
            raise SettingsError(f"this is not YAML: {problem}", where=f"{file}{line}") from None
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise SettingsError(f"this is not YAML for settings: {error}", where=file) from None

    def _add_node(self, node: yaml.MappingNode, file: str, prefix: str) -> None:
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = prefix + str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in lines:
                where = f"{file} lines {lines[key]} and {line}"
                raise SettingsError(f"{key} is given twice", where=where, hint="keep one")
            lines[key] = line
            self.origins[key] = f"{file} line {line}"
            if isinstance(value_node, yaml.MappingNode):
                self._add_node(value_node, file, f"{key}.")
            else:
                self._put(key, _construct(value_node))

    def add_set(self, text: str) -> None:
        key, separator, value = text.partition("=")
        key = key.strip()
        if not separator or not all(key.split(".")) or "://" in key:
            raise SettingsError(
                f"--set takes key=value, not {'a secret' if may_hold_secret(text) else repr(text)}",
                hint="for example --set loop.epochs=20",
            )
        # Errors say where a value is from, and a value may be refused for the secret in it.
        is_secret = may_hold_secret(value) or is_secret_name(key.rpartition(".")[2])
        origin = f"--set {key}=***" if is_secret else f"--set {text}"
        # Text as it stands, but for one pair of quotes: no YAML in paths.
        if key in self.texts and not (value == "null" and self.texts[key]):
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            parsed: Any = yaml.safe_load(value) if quoted else value
        else:
            try:
                parsed = yaml.load(value, Loader=_YamlLoader)  # noqa: S506 (a SafeLoader)
            except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError):
                parsed = value
        self.origins[key] = origin
        leaves = flatten(parsed, f"{key}.") if isinstance(parsed, Mapping) and parsed else {key: parsed}
        for leaf, part in leaves.items():
            self.origins[leaf] = origin
            self._put(leaf, part)

    def _put(self, key: str, value: Any) -> None:
        if key in self.groups and (value is None or value == {}):
            return  # a group whose lines are all commented out
        *groups, last = key.split(".")
        into = self.tree
        for group in groups:
            child = into.get(group)
            if not isinstance(child, dict):
                child = into[group] = {}
            into = child
        into[last] = value


def _construct(node: yaml.Node) -> Any:
    loader = _YamlLoader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()
