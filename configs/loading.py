"""Settings from a target's YAML, the user's YAML and `--set`, each value remembering where it came from."""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from genray.errors import SettingsError
from genray.settings import Settings, flatten

S = TypeVar("S", bound=Settings)

FOLDER = Path(__file__).parent
_MAX_BYTES = 1_000_000  # a settings file is written by hand; anything larger is something else


def load(cls: type[S], *, target: str, config: Path | None = None, sets: Sequence[str] = ()) -> S:
    """Merge `configs/<target>.yaml`, then `config`, then `sets` ("a.b=value"), and validate.

    Raises:
        SettingsError: every unknown key, wrong type and contradiction at once, each with the file and
            line or the `--set` that it came from, and the nearest valid name.
    """
    merged = _Merged(cls)
    merged.add_file(FOLDER / f"{target}.yaml")
    if config is not None:
        merged.add_file(config)
    for text in sets:
        merged.add_set(text)
    try:
        return cls.model_validate(merged.tree)
    except ValidationError as error:
        raise _explain(cls, error, merged.origins, target) from None


def as_sets(settings: Settings, *, target: str) -> list[str]:
    """The shortest list of `--set` values that turns the target's defaults into `settings`."""
    defaults = flatten(load(type(settings), target=target))
    return [
        f"{key}={json.dumps(value)}"  # JSON is YAML, and one line
        for key, value in flatten(settings).items()
        if key not in defaults or defaults[key] != value
    ]


def known_keys(cls: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key that `cls` takes, groups included."""
    for name, field in cls.model_fields.items():
        yield prefix + name
        for group in _groups(field.annotation):
            yield from known_keys(group, f"{prefix}{name}.")


def _groups(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _groups(part)


class _Loader(yaml.SafeLoader):
    """YAML without its surprises: 010 is ten, 1:30 and 2024-01-01 are text."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, re.compile(r"[-+]?[0-9]+$") if tag.endswith(":int") else pattern)
        for tag, pattern in resolvers
        if not tag.endswith(":timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(str(node.value)))


class _Merged:
    """The values so far, and for each dotted key the place that set it last."""

    def __init__(self, cls: type[BaseModel]) -> None:
        self.tree: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self._groups = {key for key in known_keys(cls) if _is_group(cls, key)}
        words = {key: _words(_annotation(cls, key)) for key in known_keys(cls)}
        self._texts = {key: w for key, w in words.items() if w in ("text", "text or null")}

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
            node = yaml.compose(data.decode("utf-8"), Loader=_Loader)
            if node is None:
                return
            if not isinstance(node, yaml.MappingNode):
                raise SettingsError("settings must be `key: value` lines", where=f"{path} line 1")
            self._add_node(node, str(path), "")
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f" line {mark.line + 1}" if mark else ""
            problem = getattr(error, "problem", None) or str(error)
            raise SettingsError(f"this is not YAML: {problem}", where=f"{path}{line}") from None
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise SettingsError(f"this is not YAML for settings: {error}", where=str(path)) from None

    def _add_node(self, node: yaml.MappingNode, file: str, prefix: str) -> None:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, line = prefix + str(key_node.value), key_node.start_mark.line + 1
            if key in seen:
                where = f"{file} lines {seen[key]} and {line}"
                raise SettingsError(f"{key} is given twice", where=where, hint="keep one")
            seen[key] = line
            self.origins[key] = f"{file} line {line}"
            if isinstance(value_node, yaml.MappingNode):
                self._add_node(value_node, file, f"{key}.")
            else:
                self._put(key, _construct(value_node))

    def add_set(self, text: str) -> None:
        key, separator, value = text.partition("=")
        key = key.strip()
        if not separator or not all(key.split(".")):
            raise SettingsError(
                f"--set takes key=value, not {text!r}", hint="for example --set loop.epochs=20"
            )
        origin = f"--set {text}"
        # Text as it stands, but for one pair of quotes: no YAML in paths.
        if key in self._texts and not (value == "null" and self._texts[key].endswith("null")):
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            parsed: Any = yaml.safe_load(value) if quoted else value
        else:
            try:
                parsed = yaml.load(value, Loader=_Loader)  # noqa: S506 (a SafeLoader)
            except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError):
                parsed = value
        self.origins[key] = origin
        leaves = flatten(parsed, f"{key}.") if isinstance(parsed, Mapping) and parsed else {key: parsed}
        for leaf, part in leaves.items():
            self.origins[leaf] = origin
            self._put(leaf, part)

    def _put(self, key: str, value: Any) -> None:
        if key in self._groups and (value is None or value == {}):
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
    loader = _Loader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def _annotation(cls: type[BaseModel], key: str) -> Any:
    annotation: Any = cls
    for part in key.split("."):
        annotation = (
            next(g for g in _groups(annotation) if part in g.model_fields).model_fields[part].annotation
        )
    return annotation


def _is_group(cls: type[BaseModel], key: str) -> bool:
    return any(True for _ in _groups(_annotation(cls, key)))


def _explain(
    cls: type[Settings], error: ValidationError, origins: Mapping[str, str], target: str
) -> SettingsError:
    found: dict[str, tuple[str, str]] = {}  # by key: what is wrong, and where it came from
    keys = list(known_keys(cls))
    for problem in error.errors(include_url=False):
        location, kind = _without_kind(cls, [str(part) for part in problem["loc"]])
        if problem["type"] == "extra_forbidden" and kind and (having := _having(cls, location)):
            key, group = ".".join(location), ".".join(location[:-1])
            line = f"{key}: there is none with {group}.kind={kind}, only with {', '.join(having)}"
            found.setdefault(key, (line, _origin(key, origins)))
            continue
        if problem["type"] == "union_tag_invalid":
            key, context = ".".join([*location, "kind"]), problem["ctx"]
            line = f"{key}: should be {context['expected_tags'].replace(chr(39), '')}, not {context['tag']!r}"
            found[key] = (line, _origin(key, origins))
            continue
        if problem["type"] == "extra_forbidden":
            key = ".".join(location)
            given = next((k for k in origins if k.startswith(f"{key}.")), key)
            near = _nearest(given, keys)
            line = f"unknown setting {given}" + (f"; did you mean {near}?" if near else "")
            found.setdefault(key, (line, _origin(given, origins)))
            continue
        # A union adds the names of its members to the location; the setting is the longest known prefix.
        key = next((k for n in range(len(location), 0, -1) if (k := ".".join(location[:n])) in keys), "")
        message = str(problem["msg"]).removeprefix("Value error, ")
        if key in found and "tuple" not in location:
            continue  # another way in which the same value is not one of its union's types
        if key and (len(location) > key.count(".") + 1 or problem["type"] == "tuple_type"):
            message = f"should be {_words(_annotation(cls, key))}"
        line = f"{key}: {message[0].lower()}{message[1:]}" if key else message
        if problem["type"] not in ("value_error", "missing"):
            value = problem["input"] if len(location) <= key.count(".") + 1 else _value(key, origins, problem)
            line += f", not {value!r}"
        found[key] = (line, _origin(key, origins))
    lines = list(found.values())
    if len(lines) == 1:
        what, where = lines[0]
        return SettingsError(what, where=where, hint=f"genray config {target} lists every setting")
    what = f"{len(lines)} settings are wrong:\n" + "\n".join(f"  {line}  ({where})" for line, where in lines)
    return SettingsError(what, hint=f"genray config {target} lists every setting")


def _without_kind(cls: type[BaseModel], location: list[str]) -> tuple[list[str], str | None]:
    """The location of a setting, and the kind of group that pydantic adds to it where a group has several."""
    annotation: Any = cls
    for i, part in enumerate(location):
        inside = next((g for g in _groups(annotation) if part in g.model_fields), None)
        if inside is None:
            several = len(list(_groups(annotation))) > 1 and i < len(location) - 1
            return (location[:i] + location[i + 1 :], part) if several else (location, None)
        annotation = inside.model_fields[part].annotation
    return location, None


def _having(cls: type[BaseModel], location: list[str]) -> list[str]:
    """The kinds of a group that have the setting at `location`."""
    *above, last = location
    groups = _groups(_annotation(cls, ".".join(above)))
    return [str(g.model_fields["kind"].default) for g in groups if last in g.model_fields]


def _value(key: str, origins: Mapping[str, str], problem: Any) -> Any:
    origin = origins.get(key, "")
    return origin.partition("=")[2] if origin.startswith("--set") else problem["input"]


def _words(annotation: Any) -> str:
    """A union of types, for a person."""
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [_words(part) for part in typing.get_args(annotation) if part is not type(None)]
        return " or ".join(parts) + (" or null" if type(None) in typing.get_args(annotation) else "")
    if typing.get_origin(annotation) is typing.Annotated:
        return _words(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is tuple and Ellipsis in typing.get_args(annotation):
        return f"a list, each {_words(typing.get_args(annotation)[0])}"
    if typing.get_origin(annotation) is tuple:
        return f"[{', '.join(_words(part) for part in typing.get_args(annotation))}]"
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(str(choice) for choice in typing.get_args(annotation))
    return names.get(getattr(annotation, "__name__", ""), str(annotation))


def _origin(key: str, origins: Mapping[str, str]) -> str:
    """Where `key` was set; for a group, where what was set in it was set, first of all by the user."""
    if key in origins and not any(k.startswith(f"{key}.") for k in origins):
        return origins[key]
    shipped = str(FOLDER)
    inside = [place for k, place in origins.items() if not key or k == key or k.startswith(f"{key}.")]
    own = [place for place in inside if not place.startswith(shipped)]
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
