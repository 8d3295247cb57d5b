"""A patient may have several usual shapes of beats; ectopic beats are none of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from genray.ecg.synthesis import Episode, Heart, generate
from monitors.patient.reference import ReferenceSettings
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import Ward, WardSettings
from tests.monitors.patients import LiveWard, chunks, seconds

RATE, USUAL = 125.0, 0.8  # Hz; s between beats


def block_of(seed: int, length: float, blocked: Callable[[float], bool]) -> NDArray[np.float32]:
    """`length` seconds of II and V1 (samples, leads) of a regular rhythm, with a right bundle branch block
    where `blocked`, a function of the time, says so."""
    rng = np.random.default_rng([seed, 9])
    heart = Heart(seed, RATE, ("II", "V1"))
    volts = rng.normal(0, 0.012, (round(length * RATE) + heart.length, 2)).astype(np.float32)
    times = (np.arange(heart.length) - heart.before) / RATE
    late = np.exp(-(((times - 0.06) / 0.022) ** 2) / 2)[:, None] * [-0.45, 0.6]
    repolarised = np.exp(-(((times - 0.26) / 0.05) ** 2) / 2)[:, None] * [0.0, -0.2]
    time = 0.5
    while time < length:
        at = round(time * RATE) - heart.before
        if at >= 0:
            beat = heart.beat("N", USUAL)
            volts[at : at + heart.length] += beat + (late + repolarised if blocked(time) else 0)
        time += USUAL * (1 + 0.03 * math.sin(1.6 * time) + rng.normal(0, 0.008))
    return volts[: round(length * RATE)]


def test_a_block_that_comes_and_goes_is_usual_once_it_is_learned_and_ectopic_beats_never_are(
    beat_model: BeatModel,
) -> None:
    settings = WardSettings(hop=2.0, reference=ReferenceSettings(minutes=1.25, beats=20))
    live = LiveWard(Ward(settings, beat_model))
    streams = {
        "in turns": block_of(1, 200, lambda time: time % 40 > 20),
        "from 90 s": block_of(2, 350, lambda time: time > 90),
        "ectopic": generate(350, RATE, seed=5, script=[Episode("pvc", 0, 350, share=0.4)]).millivolts,
    }
    live.ward.watched = frozenset(streams)
    live.feed(*(chunks(name, ecg, RATE, sizes=(2.0,)) for name, ecg in streams.items()))
    shapes = {name: len(live.ward._beds[name].reference.usual) for name in streams}
    assert shapes == {"in turns": 2, "from 90 s": 2, "ectopic": 1}
    assert not live.changes("anomaly", "in turns")
    assert live.changes("anomaly", "from 90 s"), "first it is new"
    beats = live.output.beats["from 90 s"]
    late = seconds(beats) > 320
    assert np.mean([beat.anomalous for beat in np.array(beats, object)[late]]) < 0.05
