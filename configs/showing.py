"""Settings as YAML that a person can read and edit: every field with its comment."""

from __future__ import annotations

import types
import typing
from typing import Any, Literal

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo


def annotated_yaml(settings: BaseModel) -> str:
    """All of `settings` as YAML, each field followed by what it means and what it may be."""
    rows = list(_rows(settings, indent=0))
    column = min(48, max((len(code) for code, comment in rows if comment), default=0) + 2)
    return "".join(f"{code:<{column}}# {comment}\n" if comment else f"{code}\n" for code, comment in rows)


def _rows(settings: BaseModel, indent: int) -> typing.Iterator[tuple[str, str]]:
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield f"{' ' * indent}{name}:", field.description or ""
            yield from _rows(value, indent + 2)
        else:
            plain = settings.model_dump(mode="json", include={name})[name]
            text = yaml.safe_dump(plain, default_flow_style=True, width=10**6).splitlines()[0]
            yield f"{' ' * indent}{name}: {text}", _comment(field)


def _comment(field: FieldInfo) -> str:
    parts = [field.description or ""]
    choices = _choices(field.annotation)
    if choices:
        parts.append(f"one of {', '.join(choices)}")
    low = high = ""
    for limit in field.metadata:
        match limit:
            case annotated_types.Ge(ge=bound):
                low = f"from {bound}"
            case annotated_types.Gt(gt=bound):
                low = f"above {bound}"
            case annotated_types.Le(le=bound):
                high = f"up to {bound}"
            case annotated_types.Lt(lt=bound):
                high = f"below {bound}"
            case annotated_types.MultipleOf(multiple_of=bound):
                parts.append(f"a multiple of {bound}")
    if low or high:
        parts.append(" ".join(filter(None, (low, high))))
    return "; ".join(filter(None, parts))


def _choices(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) is Literal:
        return [str(choice) for choice in typing.get_args(annotation)]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [choice for part in typing.get_args(annotation) for choice in _choices(part)]
    return []
