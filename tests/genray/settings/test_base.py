from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from genray.settings.base import Location, Settings, absolute, flatten, nested
from genray.settings.load import changes_yaml, load
from jobs.train_autoencoder import TrainAutoencoderSettings


class Inner(Settings):
    path: str = Field("x", description="no location")


class Outer(Settings):
    inner: Inner = Field(Inner(), description="a group")
    rate: float = Field(1.0, description="a number")


class Places(Settings):
    first: Location = Field("a", description="a location")
    second: Location | None = Field(None, description="a location that may be missing")
    word: str | None = Field("word", description="no location")


class Group(Settings):
    places: Places = Field(Places(), description="a group")


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


def test_locations_in_groups_become_absolute_also_where_they_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    made = absolute(Group(places=Places(second="b/c"))).places
    assert (made.first, made.second, made.word) == (str(tmp_path / "a"), str(tmp_path / "b" / "c"), "word")
    assert absolute(Group()).places.second is None
    assert absolute(Places(second="s3://bucket/x")).second == "s3://bucket/x"
    assert absolute(Places(second="~/x")).second == "/home/ada/x"


def test_a_location_that_may_be_missing_holds_no_secrets_and_is_not_empty() -> None:
    with pytest.raises(ValidationError, match="credentials do not belong in a URI"):
        Places(second="s3://KEY:SECRET@bucket/x")
    with pytest.raises(ValidationError, match="at least 1 character"):
        Places(second="")


@pytest.mark.parametrize("path", ["2024", "on", "a: b", "[odd", "a #b", "'null'"])
def test_a_location_that_may_be_missing_is_set_as_text(path: str) -> None:
    settings = load(TrainAutoencoderSettings, target="train-autoencoder", sets=[f"data.test={path}"])
    assert settings.data.test == path.strip("'")


def test_a_location_that_may_be_missing_can_be_taken_away() -> None:
    sets = ["data.test=somewhere", "data.test=null"]
    settings = load(TrainAutoencoderSettings, target="train-autoencoder", sets=sets)
    assert settings.data.test is None
    given = load(TrainAutoencoderSettings, target="train-autoencoder", sets=["data.test=null "])
    assert given.data.test == "null ", "a folder may be called so"
    assert changes_yaml(given, target="train-autoencoder") == "data:\n  test: 'null '\n"


def test_nesting_undoes_flattening() -> None:
    tree = {"a": 1, "b": {"c": [1, 2], "d": {"e": None}}}
    assert nested(flatten(tree)) == tree
