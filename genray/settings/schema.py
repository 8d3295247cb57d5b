"""Dotted keys of a settings class, and the type of each, also in words."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel


def setting_keys(cls: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of `cls`, groups included."""
    for name, field in cls.model_fields.items():
        yield prefix + name
        for group in group_classes(field.annotation):
            yield from setting_keys(group, f"{prefix}{name}.")


def group_classes(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the groups that a value of this type may be (several: a choice of kinds; none: a plain value)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif is_union(annotation):
        for part in typing.get_args(annotation):
            yield from group_classes(part)


def annotation_of(cls: type[BaseModel], key: str) -> Any:
    """Return the type of the setting `key`, one of `setting_keys`."""
    annotation: Any = cls
    for part in key.split("."):
        group = next(g for g in group_classes(annotation) if part in g.model_fields)
        annotation = group.model_fields[part].annotation
    return annotation


def is_union(annotation: Any) -> bool:
    """Return whether the type is a union."""
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def is_mapping(annotation: Any) -> bool:
    """Return whether the type is a mapping with free keys."""
    origin = typing.get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def describe_type(annotation: Any) -> str:
    """Return a type in words, such as "a whole number or null"."""
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    origin = typing.get_origin(annotation)
    parts = typing.get_args(annotation)
    if is_union(annotation):
        either = " or ".join(describe_type(part) for part in parts if part is not type(None))
        return either + (" or null" if type(None) in parts else "")
    if origin is typing.Annotated:
        return describe_type(parts[0])
    if origin is tuple and Ellipsis in parts:
        return f"a list, each {describe_type(parts[0])}"
    if origin is tuple:
        return f"[{', '.join(describe_type(part) for part in parts)}]"
    if origin is typing.Literal:
        return f"one of {', '.join(str(choice) for choice in parts)}"
    return names.get(getattr(annotation, "__name__", ""), str(annotation))
