import pytest
from pydantic import Field, ValidationError

from genray.settings import Settings, absolute, flatten


class Inner(Settings):
    path: str = Field("x", description="no location")


class Outer(Settings):
    inner: Inner = Field(Inner(), description="a group")
    rate: float = Field(1.0, description="a number")


def test_settings_are_frozen_strict_about_keys_and_finite() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Outer().rate = 2.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Outer.model_validate({"rat": 1})
    with pytest.raises(ValidationError, match="finite"):
        Outer(rate=float("nan"))


def test_groups_are_flattened_with_dots() -> None:
    assert flatten(Outer()) == {"inner.path": "x", "rate": 1.0}


def test_only_locations_are_made_absolute() -> None:
    assert absolute(Outer()) == Outer()
