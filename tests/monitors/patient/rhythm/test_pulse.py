"""A pulse wave beside the ECG votes on its alarms, and a bad one does not."""

from __future__ import annotations

import numpy as np
import pytest

from genray.ecg.records.channels import LeadKind
from genray.ecg.synthesis import Episode, generate
from monitors.patient.scoring import BeatModel
from tests.genray.ecg.pulse_waves import Floats, pulse_wave, regular
from tests.monitors.patients import LiveWard, chunks, live_ward

SECONDS = 40.0


def watched(
    beat_model: BeatModel, ecg: Floats, wave: Floats, lead: str = "PLETH", **more: object
) -> LiveWard:
    live = live_ward(beat_model, **more)  # type: ignore[arg-type]
    live.feed(chunks("a", np.column_stack([ecg, wave]), leads=("II", lead)))
    return live


def asystole() -> Floats:
    """An ECG whose electrode slips at 20 s: no complex for 10 s, by the ECG an asystole."""
    return generate(SECONDS, seed=1, script=[Episode("asystole", 20, 10)]).millivolts[:, 0].astype(float)


@pytest.mark.parametrize("lead", ["PLETH", "ABP", "Art 1"])
def test_an_asystole_with_a_steady_pulse_is_refused(beat_model: BeatModel, lead: str) -> None:
    wave = 40 * pulse_wave(regular(72, SECONDS), SECONDS, 360.0)
    assert not watched(beat_model, asystole(), wave, lead).changes("asystole")


def test_a_bad_pulse_wave_suppresses_no_alarm(beat_model: BeatModel) -> None:
    steady = pulse_wave(regular(72, SECONDS), SECONDS, 360.0)
    stops = pulse_wave(regular(72, 20.5), SECONDS, 360.0)
    noise = np.random.default_rng(2).normal(size=len(steady))
    damped = 1.0 * steady  # of a pressure in mmHg
    for lead, wave in (
        ("PLETH", stops),
        ("PLETH", 0 * steady),
        ("PLETH", noise),
        ("PLETH", steady * np.where(np.arange(len(steady)) > 24 * 360, np.nan, 1)),
        ("PLETH", np.minimum(steady, 0.4)),
        ("ABP", damped),
    ):
        assert [t.priority for t in watched(beat_model, asystole(), wave, lead).changes("asystole")][:1] == [
            "high"
        ]


def test_a_pulse_without_complexes_for_long_is_a_technical_alarm_that_names_both(
    beat_model: BeatModel,
) -> None:
    ecg = generate(60, seed=1, script=[Episode("asystole", 15, 40)]).millivolts[:, 0]
    live = watched(beat_model, ecg, pulse_wave(regular(66, 60), 60, 360.0))
    assert not live.changes("asystole")
    why = live.changes("unjudged")[0].why["measured"]
    assert "asystole" in why["contradicted"]
    assert (why["pulse"]["lead"], why["pulse"]["steady"]) == ("PLETH", True)
    assert why["pulse"]["rate"] == pytest.approx(66, abs=2)


def test_the_kind_of_a_lead_can_be_set(beat_model: BeatModel) -> None:
    wave = 40 * pulse_wave(regular(72, SECONDS), SECONDS, 360.0)
    live = watched(beat_model, asystole(), wave, "P1", lead_kinds={"P1": LeadKind.PRESSURE})
    assert not live.changes("asystole")
    assert live.output.readings[-1].quality.keys() == {"II"}


def test_leads_that_are_all_pulse_waves_by_their_names_are_watched_as_an_ecg(beat_model: BeatModel) -> None:
    live = live_ward(beat_model)
    live.feed(chunks("a", generate(20, seed=1).millivolts[:, :1], leads=("PLETH",)))
    assert live.output.readings[-1].heart_rate is not None
