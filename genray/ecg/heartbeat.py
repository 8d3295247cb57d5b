"""The shape of generated heartbeats: waves of a moving dipole, seen by the leads.

Each wave is a Gaussian in time, as in McSharry, Clifford, Tarassenko and Smith (2003), "A dynamical model for
generating synthetic electrocardiogram signals". Here its height is a vector, as in the dipole of Sameni and
others (2007), which each lead sees from its own side, so that leads agree with each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
BEFORE, AFTER = 0.35, 0.75
"""Seconds that a beat takes before and after its R peak."""

_LIMB = {"I": (0.632, -0.235, 0.059), "II": (0.235, 1.066, -0.132)}
_CHEST = {
    "V1": (-0.515, 0.157, -0.917),
    "V2": (0.044, 0.164, -1.387),
    "V3": (0.882, 0.098, -1.277),
    "V4": (1.213, 0.127, -0.601),
    "V5": (1.125, 0.127, -0.086),
    "V6": (0.831, 0.076, 0.230),
}
_STEP = 0.06  # seconds of the RR interval that beats of one shape differ by at most


@dataclass(frozen=True)
class _Wave:
    at: float  # seconds after the R peak; of waves that follow the rhythm, at an RR interval of 1 s
    width: float  # standard deviation, seconds
    height: tuple[float, float, float]  # mV to the left, down and back
    follows: bool = False  # whether it comes later in slower rhythms


_NORMAL = (
    _Wave(-0.165, 0.022, (0.07, 0.11, -0.02)),
    _Wave(-0.032, 0.009, (-0.08, -0.05, -0.12)),
    _Wave(0.000, 0.011, (0.85, 0.85, 0.15)),
    _Wave(0.030, 0.012, (-0.12, -0.08, 0.45)),
    _Wave(0.230, 0.060, (0.08, 0.08, -0.06), follows=True),
    _Wave(0.285, 0.038, (0.14, 0.15, -0.12), follows=True),
)
_VENTRICULAR = (
    _Wave(-0.040, 0.028, (0.30, 0.35, 0.20)),
    _Wave(0.000, 0.030, (1.00, 1.00, 0.50)),
    _Wave(0.075, 0.030, (-0.35, -0.30, -0.30)),
    _Wave(0.310, 0.060, (-0.40, -0.40, -0.20), follows=True),
)


def lead_vectors(leads: tuple[str, ...]) -> NDArray[np.float64]:
    """What each of `leads` sees of a dipole to the left, down and back, (3, leads): Dower et al., 1980.

    Raises:
        ValueError: a lead that is none of the standard twelve (or MLII, which sees what II does).
    """
    one, two = np.array(_LIMB["I"]), np.array(_LIMB["II"])
    known = {name: np.array(vector) for name, vector in (_LIMB | _CHEST).items()}
    known |= {
        "MLII": two,
        "III": two - one,
        "aVR": -(one + two) / 2,
        "aVL": one - two / 2,
        "aVF": two - one / 2,
    }
    if unknown := set(leads) - set(known):
        raise ValueError(f"cannot generate the leads {sorted(unknown)}; known are {', '.join(known)}")
    return np.stack([known[lead] for lead in leads], axis=1)


class Heart:
    """How one patient's beats look: waves of their own heights, widths and directions.

    Args:
        seed: of the patient.
        rate: samples a second.
    """

    def __init__(self, seed: int, rate: float, leads: tuple[str, ...]) -> None:
        rng = np.random.default_rng([seed, 1])
        self._vectors = lead_vectors(leads)
        self._rate = rate
        size = rng.uniform(0.75, 1.3)
        normal = [_varied(wave, rng, size, 0.15) for wave in _NORMAL]
        focus = _turn(rng)
        ectopic = [_varied(wave, rng, 1.2 * size, 0.1, focus) for wave in _VENTRICULAR]
        early = _Wave(normal[0].at + 0.03, 0.018, (-0.05, -0.09, 0.02))
        self._waves = {"N": normal, "V": ectopic, "S": [early, *normal[1:]]}
        self._shapes: dict[tuple[str, int], Array] = {}
        self.before = round(BEFORE * rate)
        self.length = self.before + round(AFTER * rate)

    def beat(self, symbol: str, interval: float) -> Array:
        """A beat (samples, leads) in mV, whose R peak is `before` samples in, `interval` seconds after the
        one before."""
        key = symbol, round(min(max(interval, 0.3), 1.5) / _STEP)
        if key not in self._shapes:
            self._shapes[key] = self._shape(symbol, key[1] * _STEP)
        return self._shapes[key]

    def _shape(self, symbol: str, interval: float) -> Array:
        times = (np.arange(self.length) - self.before) / self._rate
        shape = np.zeros((self.length, 3))
        later = interval**0.5  # the QT interval, by Bazett
        for wave in self._waves[symbol]:
            at, width = (wave.at * later, wave.width * later) if wave.follows else (wave.at, wave.width)
            shape += np.exp(-(((times - at) / width) ** 2) / 2)[:, None] * wave.height
        return (shape @ self._vectors).astype(np.float32)


def _turn(rng: np.random.Generator) -> NDArray[np.float64]:
    """Where the focus of ventricular beats lies: anywhere from which they are plain in II, as most are."""
    main = np.array(_VENTRICULAR[1].height)
    while True:
        turned: NDArray[np.float64] = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        if abs(turned @ main @ _LIMB["II"]) > 0.7 * np.linalg.norm(main):
            return turned


def _varied(
    wave: _Wave,
    rng: np.random.Generator,
    size: float,
    spread: float,
    turned: NDArray[np.float64] | None = None,
) -> _Wave:
    height = size * np.array(wave.height) * rng.normal(1, spread, 3)
    if turned is not None:
        height = turned @ height
    x, y, z = height.tolist()
    at = wave.at * rng.normal(1, 0.06)
    return _Wave(at, wave.width * rng.uniform(0.85, 1.2), (x, y, z), wave.follows)
