"""Settings as commented YAML to read and edit."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from genray.settings.schema import group_classes, is_union


def annotated_yaml(settings: BaseModel) -> str:
    """Return `settings` as YAML, each field with its description and allowed values as comment."""
    rows = list(_rows(settings, 0, {}))
    column = min(48, max((len(code) for code, comment in rows if comment), default=0) + 2)
    return "".join(
        f"{code + '  ':<{column}}# {comment}\n" if comment else f"{code}\n" for code, comment in rows
    )


def _rows(settings: BaseModel, indent: int, kinds: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Yield code and comment of each line.

    Args:
        kinds: allowed values of the fields that choose between groups, by name.
    """
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield f"{' ' * indent}{name}:", field.description or ""
            yield from _rows(value, indent + 2, _kinds(field))
        else:
            json_value = settings.model_dump(mode="json", include={name})[name]
            text = yaml.safe_dump(json_value, default_flow_style=True, width=10**6).splitlines()[0]
            yield f"{' ' * indent}{name}: {text}", _comment(field, kinds.get(name, ()))


def _kinds(field: FieldInfo) -> dict[str, list[str]]:
    """Return the kinds of groups that `field` may be, by the name of the field that chooses."""
    name = field.discriminator
    if not isinstance(name, str):
        return {}
    groups = group_classes(field.annotation)
    return {name: [kind for group in groups for kind in _choices(group.model_fields[name].annotation)]}


def _comment(field: FieldInfo, kinds: Sequence[str]) -> str:
    parts = [field.description or ""]
    if choices := kinds or _choices(field.annotation):
        each = "each " if typing.get_origin(field.annotation) is tuple else ""
        parts.append(f"{each}one of {', '.join(choices)}")
    low = ""
    high = ""
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
    """Return the choices for a value or for an item of a list."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        return [str(choice) for choice in parts]
    if is_union(annotation) or typing.get_origin(annotation) is tuple:
        return [choice for part in parts for choice in _choices(part)]
    return []
