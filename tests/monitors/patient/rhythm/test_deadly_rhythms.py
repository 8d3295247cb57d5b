"""Generated rhythms through a whole ward, all patients at once: deadly ones are alarmed with high priority
within 10 s, before and after the patient's own beat was learned, and artefacts of care are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from genray.ecg.synthesis import generate
from monitors.alarms.events import AlarmKind, Transition
from monitors.patient.scoring import BeatModel
from tests.genray.ecg.rhythms import Floats, fibrillation, flutter, torsades, wide_beats
from tests.monitors.patients import START, chunks, live_ward

RATE = 125.0
LENGTH, EARLY, LATE, LASTS = 78.0, 12.0, 56.0, 14.0  # s; the beat is learned in 30 s
VF: AlarmKind = "ventricular-fibrillation"
VT: AlarmKind = "ventricular-tachycardia"
DEADLY = (VF, VT, "asystole")


def p_waves() -> Floats:
    """Atria that beat at 75/min, without complexes."""
    times = np.arange(round(LASTS * RATE)) / RATE
    near = (times + 0.4) % 0.8 - 0.4
    noise = np.random.default_rng(5).normal(0, 0.008, len(times))
    return np.asarray(0.12 * np.exp(-((near / 0.035) ** 2) / 2) + noise)


RHYTHMS: dict[str, tuple[Callable[[], Floats], tuple[AlarmKind, ...]]] = {
    "tachycardia of 120": (lambda: wide_beats(LASTS, RATE, 120), (VT,)),
    "tachycardia of 130": (lambda: 0.8 * wide_beats(LASTS, RATE, 130), (VT,)),
    "tachycardia of 150": (lambda: wide_beats(LASTS, RATE, 150), (VT,)),
    "flutter of 240": (lambda: flutter(LASTS, RATE, 240), (VF, VT)),
    "flutter of 300": (lambda: flutter(LASTS, RATE, 300), (VF, VT)),
    "torsades": (lambda: torsades(LASTS, RATE), (VF, VT)),
    "coarse fibrillation": (lambda: fibrillation(LASTS, RATE, 0.8), (VF, VT)),
    "fine fibrillation": (lambda: fibrillation(LASTS, RATE, 0.2), (VF,)),
    "asystole with P waves": (p_waves, ("asystole",)),
}


def tremor(volts: Floats) -> Floats:
    """Tremor of a hand at 5 Hz."""
    times = np.arange(len(volts)) / RATE
    return volts + 0.12 * np.sin(2 * np.pi * 5 * times)[:, None] * [1.0, 0.6]


def compressions_of_a_cuff(volts: Floats) -> Floats:
    """Slow movement of the chest, as in nursing, 2 mV at 0.5 Hz."""
    times = np.arange(len(volts)) / RATE
    return volts + 2.0 * np.sin(2 * np.pi * 0.5 * times)[:, None]


def touched_electrode(volts: Floats) -> Floats:
    """Someone touches the electrode of one lead: steps that decay, 3 mV."""
    rng = np.random.default_rng(3)
    moved = volts.copy()
    for at in np.cumsum(rng.uniform(0.4, 1.5, 16)):
        times = np.arange(len(volts)) / RATE - at
        moved[:, 0] += np.where(times >= 0, rng.normal(0, 3) * np.exp(-np.maximum(times, 0) / 0.4), 0)
    return moved


def diathermy(volts: Floats) -> Floats:
    """Electrosurgery: loud noise in both leads for 6 s."""
    noise = np.random.default_rng(4).normal(0, 2.0, volts.shape)
    noise[round(6 * RATE) :] = 0
    return volts + noise


def moved_electrode(volts: Floats) -> Floats:
    """One electrode moves as fibrillation does, 1 mV; the other lead is clear."""
    moved = volts.copy()
    moved[:, 0] += fibrillation(len(volts) / RATE, RATE, 1.0)
    return moved


CARE = (tremor, compressions_of_a_cuff, touched_electrode, diathermy, moved_electrode)


def patient(seed: int) -> Floats:
    return generate(LENGTH, RATE, seed=seed).millivolts.astype(np.float64)


@pytest.fixture(scope="module")
def alarms(beat_model: BeatModel) -> dict[str, list[Transition]]:
    """Announced changes of alarms, by patient."""
    beds: dict[str, Floats] = {}
    for number, (name, (make, _)) in enumerate(RHYTHMS.items()):
        volts = patient(number)
        for begin in (EARLY, LATE):
            first = round(begin * RATE)
            volts[first : first + round(LASTS * RATE)] = make()[:, None] * [1.0, 0.7]
        beds[name] = volts
    for number, disturb in enumerate(CARE):
        volts = patient(20 + number)
        first, last = round(LATE * RATE), round((LATE + LASTS) * RATE)
        volts[first:last] = disturb(volts[first:last])
        beds[disturb.__name__] = volts
    live = live_ward(beat_model)
    live.feed(*(chunks(name, volts, RATE) for name, volts in beds.items()))
    return {name: [t for t in live.output.transitions if t.stream == name] for name in beds}


@pytest.mark.parametrize("begin", [EARLY, LATE])
@pytest.mark.parametrize("name", RHYTHMS)
def test_a_deadly_rhythm_is_a_high_alarm_within_ten_seconds(
    alarms: dict[str, list[Transition]], name: str, begin: float
) -> None:
    raised = [t for t in alarms[name] if t.kind in DEADLY and t.change in ("onset", "resumed")]
    found = [t for t in raised if begin < t.time - START <= begin + 10]
    assert found, "no alarm"
    assert found[0].kind in RHYTHMS[name][1]
    assert found[0].priority == "high"


@pytest.mark.parametrize("name", ["torsades", "flutter of 240", "flutter of 300"])
def test_a_fast_rhythm_is_no_slow_one(alarms: dict[str, list[Transition]], name: str) -> None:
    assert "bradycardia" not in {t.kind for t in alarms[name]}


@pytest.mark.parametrize("disturb", CARE)
def test_artefacts_of_care_are_no_deadly_rhythm(
    alarms: dict[str, list[Transition]], disturb: Callable[[Floats], Floats]
) -> None:
    assert not [t for t in alarms[disturb.__name__] if t.kind in DEADLY]
