from __future__ import annotations

from pathlib import Path

import pytest

from genray.ecg.records.channels import (
    Channel,
    Look,
    choose_channels,
    lead_kind,
    lead_names,
    look_of,
    numbers_a_millivolt,
)
from genray.errors import DataError

WHERE = Path("bed.edf")


@pytest.mark.parametrize(
    ("look", "names"),
    [
        (
            Look.ECG,
            "II|aVR|V1|V5R|MLII|ECG 2|Lead I|EKG|MCL1|D2|mod.V1|V|V4-V5|ecg_ch1|CM5|E-S|Ableitung II",
        ),
        (
            Look.ECG,
            "ECG leg|EKG LOC|ECG LA-RA|ECG chest (resp)|Elektrokardiogramm|ECG1-ECG2|ECG art line|lead1",
        ),
        (Look.UNKNOWN, "X1|ch2|P|C|A1|C3|value|voltage|Channel 1|signal"),
        (Look.OTHER, "C3-M2|F4:A1|Fp1-F7|E1-M2|EEG C3|O2|Cz|T3-AVG|EEG_Fpz-Cz|C3-A2|LOC|ROC-M1|EOG(L)|EOG1"),
        (
            Look.OTHER,
            "EMG2|Chin|chin1-chin2|Leg/L|RespEffort|Thorax|ABD|Flow|nasal_pressure|Snore|rip.chest",
        ),
        (Look.OTHER, "NIBP|ABP|art|PLETH|SpO2|SaO2|PPG_red|accX|acc_z|Temp|GSR|Position"),
        (
            Look.OTHER,
            "HR|hr_bpm|HeartRate|heart rate|Marker3|RRinterval|trigger|event|quality|Status",
        ),
        (Look.OTHER, "ECG HR|ecg_quality|ECG_SQI|ECG marker|time|index|sample_index|r_peaks|battery"),
    ],
)
def test_what_a_name_says(look: Look, names: str) -> None:
    assert {name: look_of(name) for name in names.split("|")} == dict.fromkeys(names.split("|"), look)


def _taken(*channels: Channel, wanted: tuple[str, ...] = ()) -> list[str]:
    return [channels[n].name for n in choose_channels(WHERE, channels, wanted).taken]


def test_chest_leads_of_the_iec_are_told_from_electrodes_by_their_company() -> None:
    limbs = [Channel(name, "mV") for name in ("I", "II", "C1", "C6")]
    assert _taken(*limbs) == ["I", "II", "C1", "C6"]
    head = [Channel(name, "uV") for name in ("C3", "C4", "O1", "ECG")]
    assert _taken(*head) == ["ECG"]


def test_a_name_that_says_ecg_wins_where_the_unit_is_of_volts() -> None:
    assert _taken(Channel("ECG event", "uV"), Channel("Event", "uV")) == ["ECG event"]
    with pytest.raises(DataError, match="no channel is an ECG"):
        choose_channels(WHERE, [Channel("ECG event"), Channel("Event")])


def test_channels_that_only_their_unit_tells_of_are_taken_and_named() -> None:
    choice = choose_channels(WHERE, [Channel("ch1", "mV"), Channel("Resp", "mV"), Channel("ch2", "mV")])
    assert choice.taken == (0, 2)
    assert choice.notes == (
        "taken for an ECG by their unit, as their names do not say what they are: ch1, ch2",
        "left out, no ECG by their names: Resp",
    )


def test_where_nothing_tells_of_an_ecg_the_error_asks_which_it_is() -> None:
    with pytest.raises(DataError, match=r"no channel is an ECG: ch1 \(no unit\), HR \(no unit\)") as refusal:
        choose_channels(WHERE, [Channel("ch1"), Channel("HR")])
    assert "--set 'source.leads=[ch1]'" in str(refusal.value.hint)


def test_names_that_the_user_chooses_win() -> None:
    channels = [Channel("II", "mV"), Channel("Resp", "mV"), Channel("ABP", "mmHg", in_volts=False)]
    assert _taken(*channels, wanted=("resp",)) == ["Resp"]
    with pytest.raises(DataError, match=r"none of the channels V9; it has II, Resp, ABP"):
        choose_channels(WHERE, channels, ("V9",))
    with pytest.raises(DataError, match="its channel ABP is in mmHg"):
        choose_channels(WHERE, channels, ("ABP",))


@pytest.mark.parametrize(
    ("name", "unit", "kind"),
    [
        ("PLETH", "NU", "pulse"), ("Pleth 2", "", "pulse"), ("PPG", "", "pulse"), ("II", "mV", "ecg"),
        ("ABP", "mmHg", "pressure"), ("ART1", "", "pressure"), ("Art. line", "", "pressure"),
        ("P1", "mmHg", "pressure"),
        ("P1", "", "ecg"), ("ABPMean", "mmHg", "ecg"), ("SpO2", "%", "ecg"), ("ECG art", "mV", "ecg"),
        ("aVR", "", "ecg"), ("Pulse", "", "ecg"),
    ],
)  # fmt: skip
def test_a_lead_is_of_a_kind_by_its_name_and_unit(name: str, unit: str, kind: str) -> None:
    assert lead_kind(name, unit) == kind


def test_pulse_waves_are_read_after_the_ecg_where_they_are_wanted() -> None:
    channels = [
        Channel("PLETH", "NU", 125, in_volts=False),
        Channel("II", "mV", 250),
        Channel("ABP", "mmHg", 500, in_volts=False),
        Channel("ART", "mmHg", 250, in_volts=False),
        Channel("CVP", "mmHg", 250, in_volts=False),
    ]
    choice = choose_channels(WHERE, channels, pulse=True)
    assert (choice.taken, choice.kinds) == ((1, 0, 3), ("ecg", "pulse", "pressure"))
    assert choice.notes == (
        "read beside the ECG, for the pulse: PLETH (pulse), ART (pressure)",
        "left out, no ECG by their names: ABP, CVP",
    )
    chosen = choose_channels(WHERE, channels, ("CVP", "II"), pulse=True)
    assert (chosen.taken, chosen.kinds) == ((1, 4), ("ecg", "pressure"))
    assert choose_channels(WHERE, channels).taken == (1,)


def test_names_are_shown_in_few_characters() -> None:
    names = [Channel("Resp \x1b[31m" + "x" * 500, "mV") for _ in range(30)]
    note = choose_channels(WHERE, [Channel("II", "mV"), *names]).notes[0]
    assert note.endswith(" and 20 more")
    assert len(note) < 600
    assert note.isprintable()


@pytest.mark.parametrize(
    ("unit", "gain"), [("uV", 1000), ("\u00b5V", 1000), ("\u03bcV", 1000), ("mV", 1), ("V", 0.001)]
)
def test_units_of_volts_are_known_however_they_are_written(unit: str, gain: float) -> None:
    assert numbers_a_millivolt(1, unit) == pytest.approx(gain)
    assert numbers_a_millivolt(1, f" {unit.upper()}") == pytest.approx(gain)
    assert numbers_a_millivolt(1, "microvolts") == pytest.approx(1000)
    assert numbers_a_millivolt(1, "mmHg") is None


def test_lead_names_are_short_printable_and_all_different() -> None:
    names = lead_names(["II", "II", "II", "", "a\x00b\n\u00b5", "x" * 40, "x" * 40])
    assert len(set(names)) == 7
    assert names[:2] == ("II", "II-2")
    assert all(1 <= len(name) <= 16 and name.isascii() and name.isprintable() for name in names)
