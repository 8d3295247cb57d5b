"""Other heart rates make no beats unusual, and hide no ventricular ones."""

from __future__ import annotations

import numpy as np

from monitors.patient.reference import ReferenceSettings
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import Ward, WardSettings
from tests.monitors.patients import LiveWard, chunks, rhythm_of

RATE = 125.0
CHANGE, LONG = 110.0, 210.0  # s


def step(before: float, after: float, seconds: float = 0.1) -> np.ndarray:
    """Sinus rhythm that goes from one rate to another within `seconds`."""
    times, rates = (0, CHANGE, CHANGE + seconds), (before, before, after)
    return rhythm_of(LONG, RATE, round(before + after), lambda time: float(np.interp(time, times, rates)))


def test_steps_and_ramps_of_a_sinus_rhythm_are_not_unusual_and_a_ventricular_rhythm_is(
    beat_model: BeatModel,
) -> None:
    settings = WardSettings(hop=2.0, reference=ReferenceSettings(minutes=1.25, beats=20))
    live = LiveWard(Ward(settings, beat_model))
    streams = {
        "60 to 105": step(60, 105),
        "75 to 150": step(75, 150),
        "120 to 60": step(120, 60),
        "ramp 50 to 150": step(50, 150, 60),
        "ramp 150 to 50": step(150, 50, 60),
    }
    ventricular = {
        f"ventricular {rate}": rhythm_of(
            LONG,
            RATE,
            rate,
            lambda time, rate=rate: rate if time > CHANGE else 75.0,  # type: ignore[misc]
            lambda time: "V" if time > CHANGE else "N",
        )
        for rate in (60, 140)
    }
    live.feed(*(chunks(name, ecg, RATE, sizes=(2.0,)) for name, ecg in (streams | ventricular).items()))
    assert {change.stream for change in live.changes("anomaly")} == set(ventricular)
