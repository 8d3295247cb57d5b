"""Pulse waves of a bed: the last seconds of each, and the vote of the best one on the rhythm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genray.ecg.pulse import PULSE_WINDOW, PulseWave, find_pulses
from genray.ecg.records.channels import LeadKind
from monitors.alarms.events import Pulse

Floats = NDArray[np.float32]

_LEAST = 4  # pulses of a wave that votes
_ALIKE = 0.8  # least share of pulses like the others of a wave that votes
_LEAST_PRESSURE = 10.0  # mmHg between systole and diastole, less of which is a damped line
_RATE_SECONDS = 4.0  # of the last intervals that the rate is taken from, as that of the ECG
_STEADY = 6.0  # s for which pulses must be alike and regular to be steady
_REGULAR = (0.75, 1.35)  # ratios to the usual interval between which pulses are regular


@dataclass(slots=True)
class PulseLeads:
    """Pulse waves of one bed.

    Attributes:
        names: of the leads.
        kinds: what each shows.
        columns: their places in a message.
        history: (leads, samples) the last `PULSE_WINDOW` seconds in their own units, NaN where missing.
    """

    names: tuple[str, ...]
    kinds: tuple[LeadKind, ...]
    columns: tuple[int, ...]
    history: Floats

    @classmethod
    def of(cls, leads: Sequence[str], kinds: Sequence[LeadKind], rate: float) -> PulseLeads:
        """Return the pulse waves among `leads`, without samples."""
        places = tuple(n for n, kind in enumerate(kinds) if kind is not LeadKind.ECG)
        empty = np.full((len(places), round(PULSE_WINDOW * rate)), np.nan, np.float32)
        return cls(tuple(leads[n] for n in places), tuple(kinds[n] for n in places), places, empty)

    def push(self, samples: Floats, *, restarted: bool) -> None:
        """Add a hop (samples, all leads of a message); `restarted`: it does not continue the one before."""
        if restarted:
            self.history[:] = np.nan
        new = samples[:, list(self.columns)].T
        self.history = np.concatenate([self.history, new], axis=1)[:, -self.history.shape[1] :]


def judge_pulses(leads: Sequence[PulseLeads], rate: float) -> list[Pulse | None]:
    """Return the pulse of each of several beds: of its steadiest wave; None: no wave is good enough to vote.

    Args:
        leads: pulse waves of the beds, of the same sampling rate; each has at least one.
        rate: sampling rate, Hz.
    """
    waves = iter(find_pulses(np.concatenate([each.history for each in leads]), rate))
    return [
        max(
            (
                pulse
                for name, kind in zip(each.names, each.kinds, strict=True)
                if (pulse := _pulse(name, kind, next(waves))) is not None
            ),
            key=lambda pulse: (pulse.steady, -pulse.silence),
            default=None,
        )
        for each in leads
    ]


def _pulse(name: str, kind: LeadKind, wave: PulseWave) -> Pulse | None:
    times = wave.times
    damped = kind is LeadKind.PRESSURE and wave.height < _LEAST_PRESSURE
    if len(times) < _LEAST or wave.alike.sum() < _ALIKE * len(times) or damped:
        return None
    intervals = times[:-1] - times[1:]
    last = intervals[::-1]
    count = max(3, int(np.searchsorted(np.cumsum(last), _RATE_SECONDS)) + 1)
    some = np.sort(last[:count])
    usual = float(some[(len(some) - 1) // 2] + some[len(some) // 2]) / 2
    recent = times < _STEADY
    regular = intervals[recent[1:]]
    low, high = _REGULAR[0] * usual, _REGULAR[1] * usual
    steady = (
        len(regular) > 0
        and bool(wave.alike[recent].all())
        and bool(((regular >= low) & (regular <= high)).all())
        and float(times[-1]) <= high
    )
    return Pulse(name, 60.0 / usual, float(times[-1]), steady)
