from pathlib import Path
from typing import Any

import pytest

from genray.errors import SettingsError, YamlTooMuch
from genray.settings.load import changes_yaml, load
from genray.settings.yaml_reader import YamlLimits, parse_yaml
from monitors.settings import EcgSettings
from tests.genray.settings.pix2pix_settings import load_pix2pix, write_config

LEVELS = 60  # of two references each: more values than there are atoms in a stone


def bomb(first: str, level: str) -> str:
    """Anchors a0, a1, ..., each of which holds the one before it several times."""
    lines = [
        f"a0: &a0 {first}",
        *(f"a{n}: &a{n} {level}".replace("*", f"*a{n - 1}") for n in range(1, LEVELS)),
    ]
    return "\n".join(lines) + "\n"


BOMBS = {
    "mappings": bomb("{x: 1, y: 2}", "{x: *, y: *}"),
    "lists": bomb("[1, 2]", "[*, *]"),
    "merge keys": bomb("{x: 1, y: 2}", "{<<: [*, *], z: *}"),
    "nested merge keys": bomb("{x: 1, y: 2}", "{<<: *, b: {<<: *}}"),
    "keys": bomb("[1, 2]", "{[*, *]: 1}"),
    "lists in a setting": "loop:\n  workers:\n"
    + "\n".join(f"  - &a{n} " + (f"[*a{n - 1}, *a{n - 1}]" if n else "[1, 2]") for n in range(LEVELS)),
    "wide": f"a: &a [{'1,' * 1000}]\nb: &b [{'*a ,' * 1000}]\nc: [{'*b ,' * 1000}]\n",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_aliases_of_aliases_are_refused_before_they_are_expanded(tmp_path: Path, text: str) -> None:
    with pytest.raises(YamlTooMuch, match="more than 100000 keys and values") as refused:
        load_pix2pix(write_config(tmp_path, text))
    assert refused.value.where is not None
    file, _, line = refused.value.where.rpartition(" line ")
    assert file == str(tmp_path / "my.yaml")
    assert 1 <= int(line) <= LEVELS + 2
    with pytest.raises(YamlTooMuch, match="more than 100000 keys and values"):
        parse_yaml(text, "text")


def test_aliases_on_the_command_line_are_counted_too() -> None:
    flow = "{" + ", ".join(BOMBS["lists"].splitlines()) + "}"
    with pytest.raises(YamlTooMuch, match="more than 100000") as refused:
        load_pix2pix(None, f"loop.workers={flow}")
    assert refused.value.where is not None
    assert refused.value.where.startswith("--set loop.workers=")


def test_the_limits_are_settings() -> None:
    text = "a: &a [1, 2]\nb: *a\n"  # the mapping, two keys, twice a list of two
    assert parse_yaml(text, "text", YamlLimits(nodes=9)) == {"a": [1, 2], "b": [1, 2]}
    with pytest.raises(YamlTooMuch, match="more than 8 keys and values, with repetitions") as refused:
        parse_yaml(text, "text", YamlLimits(nodes=8))
    assert refused.value.where == "text line 2"
    assert parse_yaml("[[1]]", "text", YamlLimits(depth=3)) == [[1]]
    with pytest.raises(YamlTooMuch, match="nested deeper than 3"):
        parse_yaml("[[[1]]]", "text", YamlLimits(depth=3))
    with pytest.raises(YamlTooMuch, match="larger than 4 bytes"):
        parse_yaml("\N{EURO SIGN}12", "text", YamlLimits(bytes=4))


@pytest.mark.parametrize("text", ["[" * 3000, "{a: " * 3000, "\n".join(" " * n + "a:" for n in range(900))])
def test_deep_nesting_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(YamlTooMuch, match="nested deeper than 50") as refused:
        load_pix2pix(write_config(tmp_path, text))
    assert " line " in (refused.value.where or "")


@pytest.mark.parametrize("text", ["a: &a {b: *a}", "a: &a [*a]", "a: &a {<<: *a}"])
def test_what_holds_itself_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(YamlTooMuch, match=r"\*a is inside of &a"):
        load_pix2pix(write_config(tmp_path, text))


def test_many_wrong_settings_are_counted_and_the_first_explained(tmp_path: Path) -> None:
    text = "\n".join(f"wrong{n}: {n}" for n in range(3000))
    with pytest.raises(SettingsError, match="3000 settings are wrong") as refused:
        load_pix2pix(write_config(tmp_path, text))
    assert refused.value.what.endswith("and 2950 more mistakes")


def monitor(folder: Path, text: str, *sets: str) -> EcgSettings:
    file = folder / "ward.yaml"
    file.write_text(text)
    return load(EcgSettings, target="ecg", config=file, sets=sets)


def test_aliases_and_merge_keys_save_writing(tmp_path: Path) -> None:
    settings = monitor(
        tmp_path,
        "patients:\n"
        "  one: &fast {tachycardia: {medium: 160, high: 190}, bradycardia: {medium: 40}}\n"
        "  two: *fast\n"
        "  three: {<<: *fast, bradycardia: {medium: 45}}\n"
        "  four: {<<: [{gap: {begin: 3}}, *fast]}\n",
    )
    limits = settings.limits_by(lambda name: name)
    assert [limits(name).tachycardia.high for name in ("one", "two", "three", "four")] == [190] * 4
    assert [limits(name).bradycardia.medium for name in ("two", "three")] == [40, 45]
    assert limits("four").gap.begin == 3


def test_a_merge_key_may_stand_in_a_group(tmp_path: Path) -> None:
    text = "loop:\n  epochs: 3\n  <<: {epochs: 7, batch_size: 5}\n"
    settings = load_pix2pix(write_config(tmp_path, text))
    assert (settings.loop.epochs, settings.loop.batch_size) == (3, 5)
    with pytest.raises(SettingsError, match="a merge key `<<` takes a mapping") as refused:
        load_pix2pix(write_config(tmp_path, "loop:\n  <<: 3\n"))
    assert refused.value.where == f"{tmp_path / 'my.yaml'} line 2"


@pytest.mark.parametrize("text", ["? [a, b]\n: 1\n", "loop:\n  {a: 1}: 2\n"])
def test_a_list_is_no_key(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="a list or mapping cannot be a key"):
        load_pix2pix(write_config(tmp_path, text))


def test_a_value_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="invalid literal") as refused:
        load_pix2pix(write_config(tmp_path, "loop:\n  epochs: !!int three\n"))
    assert refused.value.where == f"{tmp_path / 'my.yaml'} line 2"


def high(settings: EcgSettings, name: str) -> Any:
    return settings.limits_by(lambda each: each)(name).tachycardia.high


def test_a_name_in_a_free_mapping_may_hold_dots(tmp_path: Path) -> None:
    text = "patients:\n  bed.7: {tachycardia: {high: 190}}\n  ward.3.bed.1: {tachycardia.high: 180}\n"
    settings = monitor(tmp_path, text)
    assert list(settings.patients) == ["bed.7", "ward.3.bed.1"]
    assert (high(settings, "bed.7"), high(settings, "ward.3.bed.1")) == (190, 180)
    given = monitor(tmp_path, "", "patients={bed.7: {tachycardia: {high: 195}}}")
    assert high(given, "bed.7") == 195
    changed = monitor(tmp_path, text, "patients.bed.7.tachycardia.high=200")
    assert list(changed.patients) == list(settings.patients)
    assert high(changed, "bed.7") == 200
    assert high(monitor(tmp_path, "patients.bed-7: {tachycardia: {high: 185}}"), "bed-7") == 185


def test_a_name_with_dots_survives_the_way_to_another_process(tmp_path: Path) -> None:
    settings = monitor(tmp_path, "patients:\n  bed.7: {tachycardia: {high: 190}}\n")
    assert monitor(tmp_path, changes_yaml(settings, target="ecg")) == settings


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(SettingsError, match=r"data\.size: .*\[0, 1, 2, .*\.\.\.") as refused:
        load_pix2pix(None, f"data.size={list(range(3000))}")
    assert len(refused.value.what) < 500
