"""The base of every settings class, and what all of them share.

Settings live beside the code that they configure. They are frozen, take keywords only and refuse
unknown keys; `configs/explaining.py` turns a refusal into a message with file, line and nearest name.

The dotted keys that a settings class takes, and the type of each.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints
from pydantic.fields import FieldInfo


class Settings(BaseModel):
    """A frozen group of typed parameters. Give every field a `Field(description=...)`:
    `genray config TARGET` prints it as the field's comment."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


S = TypeVar("S", bound=BaseModel)


class _Location:
    """Marks a field that holds a path or URI."""


def _no_secrets(location: str) -> str:
    user_info = urlsplit(location).netloc.rpartition("@")[0] if "://" in location else ""
    if ":" in user_info:
        # It would be written into runs, logs and the lists of jobs.
        raise ValueError("credentials do not belong in a URI: put them into the environment (AWS_...)")
    return location


Location = Annotated[str, _Location(), StringConstraints(min_length=1), AfterValidator(_no_secrets)]
"""A local path, relative to the working directory, or a URI without credentials."""


def absolute(settings: S) -> S:
    """`settings` with every relative `Location` made absolute, so that they mean the same in another
    process, on another node, and when the run is continued from another folder."""
    changes: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            changes[name] = absolute(value)
        elif isinstance(value, str) and "://" not in value and _is_location(field):
            changes[name] = str(Path(value).expanduser().absolute())
    return settings.model_copy(update=changes)


def _is_location(field: FieldInfo) -> bool:
    # pydantic moves the marks of `Location` to the field, but leaves those of `Location | None` inside.
    marks = [*field.metadata, *(mark for part in get_args(field.annotation) for mark in get_args(part))]
    return any(isinstance(mark, _Location) for mark in marks)


def flatten(settings: BaseModel | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings as {"data.path": ..., "loop.epochs": ...}, values plain JSON."""
    tree = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, last = str(key).split(".")
        into = tree
        for group in groups:
            into = into.setdefault(group, {})
        into[last] = value
    return tree


def known_keys(cls: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key that `cls` takes, groups included."""
    for name, field in cls.model_fields.items():
        yield prefix + name
        for group in groups_of(field.annotation):
            yield from known_keys(group, f"{prefix}{name}.")


def groups_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The groups that a value of this type may be: several where there is a choice of kinds, none for a
    plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif is_union(annotation):
        for part in typing.get_args(annotation):
            yield from groups_of(part)


def annotation_of(cls: type[BaseModel], key: str) -> Any:
    """The type of the setting `key`, one of `known_keys`."""
    annotation: Any = cls
    for part in key.split("."):
        group = next(g for g in groups_of(annotation) if part in g.model_fields)
        annotation = group.model_fields[part].annotation
    return annotation


def is_union(annotation: Any) -> bool:
    """Whether it is a choice of types."""
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def is_mapping(annotation: Any) -> bool:
    """Whether it is a mapping whose keys are free."""
    origin = typing.get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def words(annotation: Any) -> str:
    """A type, for a person."""
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if is_union(annotation):
        either = " or ".join(words(part) for part in parts if part is not type(None))
        return either + (" or null" if type(None) in parts else "")
    if origin is typing.Annotated:
        return words(parts[0])
    if origin is tuple and Ellipsis in parts:
        return f"a list, each {words(parts[0])}"
    if origin is tuple:
        return f"[{', '.join(words(part) for part in parts)}]"
    if origin is typing.Literal:
        return f"one of {', '.join(str(choice) for choice in parts)}"
    return names.get(getattr(annotation, "__name__", ""), str(annotation))
