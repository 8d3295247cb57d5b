from __future__ import annotations

import pytest

from genray.errors import SettingsError
from genray.settings.load import load
from monitors.settings import EcgSettings


def settings_with(*sets: str) -> EcgSettings:
    return load(EcgSettings, target="ecg", sets=sets)


def test_a_patient_has_the_limits_of_all_but_for_its_own() -> None:
    settings = settings_with(
        "alarms.bradycardia.medium=45", "patients={bed-7: {tachycardia: {medium: 160, high: 190}}, b: {}}"
    )
    limits = settings.limits_by(lambda name: name.upper())
    assert limits("BED-7").tachycardia.medium == 160
    assert limits("BED-7").bradycardia.medium == limits("B").bradycardia.medium == 45
    assert limits("B") == limits("another") == settings.alarms


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (
            "{tachycardia: {medum: 160}}",
            "unknown setting patients.bed-7.tachycardia.medum; did you mean "
            "patients.bed-7.tachycardia.medium?",
        ),
        (
            "{tachycardia: {medium: 900}}",
            "patients.bed-7.tachycardia.medium: input should be less than or equal to 350, not 900",
        ),
        (
            "{tachycardia: {medium: 300}}",
            "patients.bed-7.tachycardia: `high` must not be below `medium`: the faster, the more urgent",
        ),
        ("3", "patients.bed-7: input should be a valid dictionary, not 3"),
    ],
)
def test_what_is_wrong_with_the_limits_of_a_patient_is_said_by_its_key_and_place(
    limits: str, expected: str
) -> None:
    given = f"patients={{bed-7: {limits}}}"
    with pytest.raises(SettingsError) as refused:
        settings_with("shards=2", given)
    assert (refused.value.what, refused.value.where) == (expected, f"--set {given}")


def test_all_mistakes_in_the_limits_of_patients_are_said_at_once() -> None:
    with pytest.raises(SettingsError, match="2 settings are wrong") as refused:
        settings_with("patients.bed-7.gap.bgin=5", "patients.bed-7.asystole.silence=900")
    assert "did you mean patients.bed-7.gap.begin?  (--set patients.bed-7.gap.bgin=5)" in refused.value.what
    assert "patients.bed-7.asystole.silence: input should be" in refused.value.what


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("patients={bed-7: {tachycardia: {medium: 900}}}", "patients.bed-7.tachycardia.medium"),
        ("patients={bed-7: {tachycardy: {medium: 150}}}", "patients.bed-7.tachycardy"),
        ("source.kind=carrier-pigeon", "mqtt"),
        ("source.kind=mqqt", "not 'mqqt'; did you mean mqtt?"),
        ("source.speeed=3", "did you mean source.speed?"),
        ("seconds=0", "seconds"),
        ("shards=-1", "shards"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: str, expected: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings_with(given)
    assert expected in str(refused.value)


def test_a_setting_of_another_source_is_said_to_be_that() -> None:
    with pytest.raises(SettingsError, match=r"belongs to source\.kind=replay, not to mqtt") as refused:
        settings_with("source.kind=mqtt", "source.path=records")
    assert refused.value.where == "--set source.path=records"
