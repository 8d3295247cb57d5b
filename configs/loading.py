"""Settings from a target's YAML, the user's YAML and `--set`, each value remembering where it came from."""

from __future__ import annotations

import difflib
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
    merged = _Merged()
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
        f"{key}={yaml.safe_dump(value, default_flow_style=True, width=10**6).splitlines()[0]}"
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


class _Merged:
    """The values so far, and for each dotted key the place that set it last."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.origins: dict[str, str] = {}

    def add_file(self, path: Path) -> None:
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise SettingsError(f"{path} is larger than {_MAX_BYTES} bytes: not a settings file")
            node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except FileNotFoundError:
            raise SettingsError(f"no settings file {path}", hint="check the path given to --config") from None
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"cannot read the settings file: {error}", where=str(path)) from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f" line {mark.line + 1}" if mark else ""
            problem = getattr(error, "problem", None) or str(error)
            raise SettingsError(f"this is not YAML: {problem}", where=f"{path}{line}") from None
        if node is None:
            return
        if not isinstance(node, yaml.MappingNode):
            raise SettingsError("settings must be `key: value` lines", where=f"{path} line 1")
        self._add_node(node, str(path), self.tree, "")

    def _add_node(self, node: yaml.MappingNode, file: str, into: dict[str, Any], prefix: str) -> None:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in seen:
                raise SettingsError(
                    f"{prefix}{key} is given twice",
                    where=f"{file} lines {seen[key]} and {line}",
                    hint="keep one",
                )
            seen[key] = line
            self.origins[prefix + key] = f"{file} line {line}"
            if isinstance(value_node, yaml.MappingNode):
                child = into.setdefault(key, {})
                if not isinstance(child, dict):
                    child = into[key] = {}
                self._add_node(value_node, file, child, f"{prefix}{key}.")
            else:
                into[key] = _construct(value_node)

    def add_set(self, text: str) -> None:
        key, separator, value = text.partition("=")
        parts = key.strip().split(".")
        if not separator or not all(parts):
            raise SettingsError(
                f"--set takes key=value, not {text!r}", hint="for example --set loop.epochs=20"
            )
        into = self.tree
        for part in parts[:-1]:
            child = into.setdefault(part, {})
            if not isinstance(child, dict):
                child = into[part] = {}
            into = child
        try:
            into[parts[-1]] = yaml.safe_load(value) if value.strip() else ""
        except yaml.YAMLError:
            into[parts[-1]] = value  # such as a path with a colon: take it as it stands
        self.origins[".".join(parts)] = f"--set {text}"


def _construct(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def _explain(
    cls: type[Settings], error: ValidationError, origins: Mapping[str, str], target: str
) -> SettingsError:
    lines, wheres = [], []
    keys = list(known_keys(cls))
    for problem in error.errors(include_url=False):
        location = [str(part) for part in problem["loc"]]
        # A union adds the names of its members to the location; the origin is the longest known prefix.
        key = next(
            (k for n in range(len(location), 0, -1) if (k := ".".join(location[:n])) in origins or k in keys),
            ".".join(location),
        )
        if problem["type"] == "extra_forbidden":
            key = ".".join(location)
            near = _nearest(key, keys)
            line = f"unknown setting {key}" + (f"; did you mean {near}?" if near else "")
        elif key:
            message = str(problem["msg"]).removeprefix("Value error, ")
            line = f"{key}: {message[0].lower()}{message[1:]}"
            if problem["type"] not in ("value_error", "missing"):
                line += f", not {problem['input']!r}"
        else:
            line = str(problem["msg"]).removeprefix("Value error, ")
        if line not in lines:
            lines.append(line)
            parents = [".".join(key.split(".")[:n]) for n in range(key.count(".") + 1, 0, -1)]
            wheres.append(next((origins[k] for k in parents if k in origins), "the defaults"))
    if len(lines) == 1:
        what, where = lines[0], wheres[0]
    else:
        what = f"{len(lines)} settings are wrong:\n" + "\n".join(
            f"  {line}  ({where})" for line, where in zip(lines, wheres, strict=True)
        )
        where = None
    return SettingsError(what, where=where, hint=f"genray config {target} lists every setting")


def _nearest(key: str, keys: Sequence[str]) -> str | None:
    """The valid key that `key` most resembles: by its whole, or, in a wrong group, by its last part."""
    whole = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    if whole:
        return whole[0]
    last = {k.rsplit(".", 1)[-1]: k for k in reversed(keys)}
    part = difflib.get_close_matches(key.rsplit(".", 1)[-1], list(last), n=1, cutoff=0.6)
    return last[part[0]] if part else None
