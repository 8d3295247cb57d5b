"""The base of every settings class, and settings as flat or nested plain values.

Settings live beside the code that they configure. They are frozen, take keywords only and refuse
unknown keys; `genray/settings/errors.py` turns a refusal into a message with file, line and nearest name.
"""

from __future__ import annotations

from collections.abc import Mapping
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
