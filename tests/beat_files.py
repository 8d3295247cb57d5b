"""Tiny sets of beats for tests: a spike on a wave; abnormal ones have it upside down."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.wfdb import write_wfdb


def drawn_beats(
    count: int, *, abnormal: bool = False, samples: int = 140, seed: int = 0
) -> NDArray[np.float32]:
    """(count, samples), every one a little different."""
    rng = np.random.default_rng(seed + 1000 * abnormal)
    time = np.linspace(0, 1, samples)
    at, high, wave = rng.uniform([0.34, 0.8, 0.2], [0.37, 1.2, 0.4], (count, 3)).T[..., None]
    spike = high * np.exp(-0.5 * ((time - at) / 0.02) ** 2) * (-1 if abnormal else 1)
    beats = spike + wave * np.exp(-0.5 * ((time - 0.7) / 0.08) ** 2) + rng.normal(0, 0.01, (count, samples))
    return beats.astype(np.float32)


def write_table(
    path: Path, normal: int, abnormal: int, *, classes: tuple[str, str] = ("1", "2"), seed: int = 0
) -> None:
    """Rows as in the UCR archive, the class first; of a .csv the class last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for count, name, strange in ((normal, classes[0], False), (abnormal, classes[1], True)):
        for beat in drawn_beats(count, abnormal=strange, seed=seed):
            values = [f"{value:.5f}" for value in beat]
            lines.append(",".join([*values, name]) if path.suffix == ".csv" else "  ".join([name, *values]))
    path.write_text("\n".join(lines) + "\n")


def write_ucr(folder: Path) -> Path:
    """As ECG5000: 40 normal and 8 abnormal beats to train on, 20 and 20 to test."""
    write_table(folder / "TINY_TRAIN.txt", 40, 8)
    write_table(folder / "TINY_TEST.txt", 20, 20, seed=5)
    return folder


def write_record(
    folder: Path, name: str, symbols: str, *, leads: tuple[str, ...] = ("MLII", "V1"), seed: int = 0
) -> None:
    """A WFDB record of 200 samples a second with a beat each second; V and S are abnormal ones."""
    folder.mkdir(parents=True, exist_ok=True)
    signal = np.zeros((200 * (len(symbols) + 1), len(leads)), np.float32)
    peaks = 200 * np.arange(1, len(symbols) + 1)
    for number, symbol in enumerate(symbols):
        beat = drawn_beats(1, abnormal=symbol in "VS", seed=seed + number)[0]
        start = peaks[number] - 50
        signal[start : start + 140] += np.stack([beat, -0.5 * beat][: len(leads)], axis=1)
    write_wfdb(folder / f"{name}.hea", signal, 200.0, leads, peaks, list(symbols))
