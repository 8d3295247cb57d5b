from __future__ import annotations

import pytest

from configs.loading import load
from genray.errors import SettingsError
from monitors.ecg_settings import EcgSettings


def made(*sets: str) -> EcgSettings:
    return load(EcgSettings, target="ecg", sets=sets)


def test_a_patient_has_the_limits_of_all_but_for_its_own() -> None:
    settings = made(
        "alarms.bradycardia.medium=45", "patients={bed-7: {tachycardia: {medium: 160, high: 190}}, b: {}}"
    )
    limits = settings.limits_by(lambda name: name.upper())
    assert limits("BED-7").tachycardia.medium == 160
    assert limits("BED-7").bradycardia.medium == limits("B").bradycardia.medium == 45
    assert limits("B") == limits("another") == settings.alarms


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("patients={bed-7: {tachycardia: {medium: 900}}}", "patients.bed-7.tachycardia.medium"),
        ("patients={bed-7: {tachycardy: {medium: 150}}}", "patients.bed-7.tachycardy"),
        ("source.kind=carrier-pigeon", "mqtt"),
        ("seconds=0", "seconds"),
        ("shards=-1", "shards"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        made(given)
    assert said in str(refused.value)
