"""Base of every settings class, and settings as flat or nested plain values.

Settings live beside the code that they configure. They are frozen, take keywords only and refuse
unknown keys; `genray/settings/errors.py` turns a refusal into a message with file, line and nearest name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from genray.named_bundles import is_ready
from genray.settings.schema import group_classes
from genray.uris import STORE_CREDENTIALS, secret_in


class Settings(BaseModel):
    """A frozen group of typed parameters. Give every field a `Field(description=...)`:
    `genray config TARGET` prints it as the field's comment.

    No value may contain a URI with a secret, whatever the field's name, because settings are written to
    runs, ledgers, logs and lists of jobs."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    credentials: ClassVar[str] = STORE_CREDENTIALS
    """Advice in the error for a secret: where credentials belong."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_secrets(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        found = {}
        for name, value in data.items():
            field = cls.model_fields.get(name)
            if isinstance(value, Mapping) and field and any(group_classes(field.annotation)):
                continue  # groups check their own fields
            if secret := next(filter(None, map(secret_in, _texts(value))), None):
                found[name] = (
                    f"credentials do not belong in a URI, and this one holds {secret}: {cls.credentials}"
                )
        if found:
            # Without the values, which an error's text would show.
            raise ValidationError.from_exception_data(
                cls.__name__,
                [
                    InitErrorDetails(type=PydanticCustomError("value_error", why), loc=(name,), input=None)
                    for name, why in found.items()
                ],
            )
        return data


S = TypeVar("S", bound=BaseModel)


class _Location:
    """Marker of a field that contains a path or URI."""


Location = Annotated[str, _Location(), StringConstraints(min_length=1)]
"""A local path, relative to the working directory, a URI, or the name of a ready model (ready:photo)."""


def absolute(settings: S) -> S:
    """Return `settings` with every relative `Location` made absolute, so that they mean the same in
    another process, on another node, and when the run is resumed from another folder."""
    changes: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            changes[name] = absolute(value)
        elif isinstance(value, str) and "://" not in value and not is_ready(value) and _is_location(field):
            changes[name] = str(Path(value).expanduser().absolute())
    return settings.model_copy(update=changes)


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a plain value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            yield from _texts(inner)


def _is_location(field: FieldInfo) -> bool:
    # pydantic moves the marks of `Location` to the field, but leaves those of `Location | None` inside.
    marks = [*field.metadata, *(mark for part in get_args(field.annotation) for mark in get_args(part))]
    return any(isinstance(mark, _Location) for mark in marks)


def flatten(settings: BaseModel | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings as {"data.path": ..., "loop.epochs": ...}, with plain JSON values."""
    tree = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return flat settings as nested values, the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, last = str(key).split(".")
        into = tree
        for group in groups:
            into = into.setdefault(group, {})
        into[last] = value
    return tree
