from pathlib import Path

import pytest
import yaml

from genray.errors import SettingsError
from genray.settings.base import Settings, absolute, flatten
from genray.settings.load import changes_yaml
from genray.settings.schema import setting_keys
from jobs.train_pix2pix import TrainPix2PixSettings
from tests.genray.settings.pix2pix_settings import load_pix2pix, write_config


def test_set_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = write_config(tmp_path, "loop:\n  epochs: 7\n  batch_size: 3\n")
    settings = load_pix2pix(file, "loop.epochs=9")
    assert (settings.loop.epochs, settings.loop.batch_size, settings.loss.l1) == (9, 3, 100)


def test_contradictions_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"resize \(64\) is smaller than the crop, size \(128\)"):
        load_pix2pix(None, "data.resize=64", "data.size=128")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("loop: [1, 2", "this is not YAML"),
        ("just a word", "key: value"),
        ("seed: 1\nseed: 2\n", "seed is given twice"),
    ],
)
def test_a_file_that_is_no_settings_file_is_named(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(SettingsError, match=what) as caught:
        load_pix2pix(write_config(tmp_path, text))
    assert "my.yaml" in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SettingsError, match=r"no settings file .*nowhere\.yaml"):
        load_pix2pix(Path("nowhere.yaml"))


def test_a_set_without_a_value_is_explained() -> None:
    with pytest.raises(SettingsError, match="--set takes key=value"):
        load_pix2pix(None, "loop.epochs")


def test_a_value_that_is_no_yaml_is_taken_as_it_stands() -> None:
    assert load_pix2pix(None, "data.path=[odd: name").data.path == "[odd: name"


def rebuilt(settings: TrainPix2PixSettings, tmp_path: Path) -> TrainPix2PixSettings:
    """What another process makes of the changes to the defaults."""
    file = tmp_path / "settings.yaml"
    file.write_text(changes_yaml(settings, target="train-pix2pix"), encoding="utf-8")
    return load_pix2pix(file)


def test_changes_to_the_defaults_rebuild_the_same_settings_elsewhere(tmp_path: Path) -> None:
    settings = load_pix2pix(
        None, "loop.workers=[1, 4]", "data.path=/a b", "loop.clip=0.5", "device.gpu=false"
    )
    assert rebuilt(settings, tmp_path) == settings
    changes = yaml.safe_load(changes_yaml(settings, target="train-pix2pix"))
    assert changes == {
        "data": {"path": "/a b"},
        "loop": {"workers": [1, 4], "clip": 0.5},
        "device": {"gpu": False},
    }


@pytest.mark.parametrize(
    "path", ["/\N{GRINNING FACE}", "/caf\u00e9", 'a"b', "a\\b", "010", "1:30", "null", "a: b", "2024-01-01"]
)
def test_any_letter_of_a_path_survives_the_file(path: str, tmp_path: Path) -> None:
    settings = load_pix2pix(None, f"data.path='{path}'")
    assert settings.data.path == path
    assert rebuilt(settings, tmp_path) == settings


def test_relative_locations_become_absolute_and_uris_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = absolute(load_pix2pix(None, "data.path=s3://bucket/pairs"))
    assert settings.runs == str(tmp_path / "runs")
    assert settings.data.path == "s3://bucket/pairs"


def test_every_field_has_a_description_and_is_flattened() -> None:
    def check(cls: type) -> None:
        for name, field in cls.model_fields.items():  # type: ignore[attr-defined]
            assert field.description, f"{cls.__name__}.{name}"

    settings = load_pix2pix()
    for group in [settings, *(getattr(settings, name) for name in type(settings).model_fields)]:
        if isinstance(group, Settings):
            check(type(group))
    assert set(flatten(settings)) <= set(setting_keys(TrainPix2PixSettings))


@pytest.mark.parametrize("path", ["a #b", "2024", "on", "2024-01-01", "a: b", "x ", "[odd: name", "'quoted'"])
def test_a_path_is_taken_as_it_stands(path: str) -> None:
    assert load_pix2pix(None, f"data.path={path}").data.path == path.strip("'")


def test_numbers_are_decimal(tmp_path: Path) -> None:
    assert load_pix2pix(None, "loop.epochs=010").loop.epochs == 10
    with pytest.raises(SettingsError, match="'1:30'"):
        load_pix2pix(None, "loop.batch_size=1:30")


def test_a_group_is_merged_and_not_replaced() -> None:
    settings = load_pix2pix(None, "loop.epochs=1", "loop={batch_size: 2}", "data={}")
    assert (settings.loop.epochs, settings.loop.batch_size, settings.loop.ema) == (1, 2, 0.999)


def test_a_group_with_all_its_lines_commented_out_is_empty(tmp_path: Path) -> None:
    assert load_pix2pix(write_config(tmp_path, "loop:\n#  epochs: 3\nseed: 2\n")).seed == 2


def test_dotted_keys_may_stand_in_a_file(tmp_path: Path) -> None:
    assert load_pix2pix(write_config(tmp_path, "loop.epochs: 3\n")).loop.epochs == 3


@pytest.mark.parametrize(
    "text",
    [
        "seed: 2024-13-45", "seed: !foo 3", "seed: !!int abc", "a: &a {b: *a}", "a: &a [*a]", "[" * 3000,
        "seed: " + "9" * 5000, "\x00", "loop: *nowhere",
    ],
)  # fmt: skip
def test_broken_yaml_is_an_error_and_no_traceback(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError):
        load_pix2pix(write_config(tmp_path, text))


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(SettingsError, match="not a settings file"):
        load_pix2pix(Path("/dev/zero"))


@pytest.mark.parametrize("uri", ["s3://KEY:SECRET@bucket/x", "https://user:pw@host/y"])
def test_credentials_in_a_uri_are_refused(uri: str) -> None:
    with pytest.raises(SettingsError, match="credentials do not belong in a URI"):
        load_pix2pix(None, f"data.path={uri}")


def test_an_empty_location_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"data\.path"):
        load_pix2pix(None, "data.path=")
