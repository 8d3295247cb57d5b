from pathlib import Path

import pytest

from genray.errors import SettingsError
from genray.settings.base import Settings
from genray.settings.load import load
from jobs.train_denoiser import TrainDenoiserSettings
from jobs.train_destamper import TrainDestamperSettings
from tests.genray.settings.pix2pix_settings import load_pix2pix, write_config


def mistake(cls: type[Settings], target: str, text: str) -> str:
    """What the error says is wrong with one setting."""
    with pytest.raises(SettingsError) as caught:
        load(cls, target=target, sets=[text])
    return caught.value.what


def test_an_unknown_key_names_its_file_line_and_the_nearest_name(tmp_path: Path) -> None:
    file = write_config(tmp_path, "seed: 1\nloop:\n  epoch: 7\n")
    with pytest.raises(SettingsError) as caught:
        load_pix2pix(file)
    assert caught.value.what == "unknown setting loop.epoch; did you mean loop.epochs?"
    assert caught.value.where == f"{file} line 3"


def test_a_key_in_the_wrong_group_is_found_in_the_right_one() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting data\.epochs; did you mean loop\.epochs\?"):
        load_pix2pix(None, "data.epochs=7")


@pytest.mark.parametrize(
    ("given", "meant"),
    [("lr", "optimizer.learning_rate"), ("loop.bs", "loop.batch_size"), ("num-workers", "loop.workers")],
)
def test_names_of_other_programs_are_known(given: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown setting {given}; did you mean {meant}"):
        load_pix2pix(None, f"{given}=1")


def test_a_wrong_type_names_the_set_it_came_from() -> None:
    with pytest.raises(SettingsError) as caught:
        load_pix2pix(None, "loop.epochs=many")
    assert caught.value.what.startswith("loop.epochs: input should be a valid integer")
    assert "'many'" in caught.value.what
    assert caught.value.where == "--set loop.epochs=many"


def test_a_union_is_reported_once_for_each_way_it_fails_and_by_its_key() -> None:
    with pytest.raises(SettingsError, match=r"^loop\.workers: should be a whole number or") as caught:
        load_pix2pix(None, "loop.workers=[4, 1, 2]")
    assert "--set loop.workers=[4, 1, 2]" in str(caught.value)


def test_all_mistakes_are_reported_together(tmp_path: Path) -> None:
    file = write_config(tmp_path, "loop:\n  epochs: -1\ndata:\n  direction: sideways\n")
    with pytest.raises(SettingsError, match="2 settings are wrong") as caught:
        load_pix2pix(file)
    assert "line 2" in caught.value.what
    assert "line 4" in caught.value.what


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("lop.epochs=3", "--set lop.epochs=3"),
        ("data.resize=32", "--set data.resize=32"),
        ("loop.workers=[4,1]", "--set loop.workers=[4,1]"),
        ("discriminator.filters=0", "--set discriminator.filters=0"),
    ],
)
def test_where_names_what_the_user_gave(text: str, where: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_pix2pix(None, text)
    assert caught.value.where == where


def test_a_union_is_explained_in_words() -> None:
    with pytest.raises(SettingsError) as caught:
        load_pix2pix(None, "loop.workers=many")
    expected = "loop.workers: should be a whole number or [a whole number, a whole number], not 'many'"
    assert caught.value.what == expected


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("noise.sigma=300", "noise.sigma: input should be less than or equal to 255, not 300"),
        ("noise.sigma=[10, 300]", "noise.sigma: input should be less than or equal to 255, not 300"),
        ("noise.quality=[0, 50]", "noise.quality: input should be greater than or equal to 1, not 0"),
        ("noise.sigma=[50, 10]", "noise.sigma: [50.0, 10.0] must be [lowest, highest]"),
        ("noise.sigma=[1, 2, 3]", "noise.sigma: should be a number or [a number, a number], not '[1, 2, 3]'"),
        ("noise.sigma=[1, x]", "noise.sigma: should be a number or [a number, a number], not '[1, x]'"),
    ],
)
def test_the_type_of_a_union_that_fits_says_which_limit_is_broken(text: str, what: str) -> None:
    assert mistake(TrainDenoiserSettings, "train-denoiser", text) == what


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            'stamps.colors=["#ffffff", red]',
            r"string should match pattern '^(#[0-9a-fA-F]{6}|random)$', not 'red'",
        ),
        ("stamps.colors=[]", "list should have at least 1 item, not []"),
        ("stamps.colors=red", "should be a list, each text, not 'red'"),
        ("stamps.colors=[red, 3]", "should be a list, each text, not '[red, 3]'"),
        (
            "stamps.kinds=[year]",
            "input should be 'date', 'date-time', 'time', 'word' or 'number', not 'year'",
        ),
        (
            "stamps.kinds=date",
            "should be a list, each one of date, date-time, time, word, number, not 'date'",
        ),
        ("stamps.size=[0.5, 2]", "input should be less than or equal to 1, not 2"),
        ("stamps.size=[0.1]", "should be [a number, a number], not '[0.1]'"),
        ('stamps.texts=["\\t"]', r"'\t' is not one line of text that can be seen"),
        ("model.widths=[0, 3]", "input should be greater than or equal to 1, not 0"),
    ],
)
def test_the_item_of_a_list_that_is_not_allowed_is_named(text: str, what: str) -> None:
    assert mistake(TrainDestamperSettings, "train-destamper", text) == f"{text.partition('=')[0]}: {what}"
