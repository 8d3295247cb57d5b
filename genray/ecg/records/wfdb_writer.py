"""Writing WFDB records, so that any tool of PhysioNet reads what was generated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.base import MISSING
from genray.ecg.records.wfdb import BEATS
from genray.io.files import atomic_write, write_text

_GAIN = 1000
_SKIP = 59
_FAR = 0x3FF  # samples between two annotations that fit into one word


def write_wfdb(
    path: Path,
    millivolts: NDArray[np.floating],
    rate: float,
    leads: Sequence[str],
    peaks: NDArray[np.integer],
    symbols: Sequence[str],
) -> None:
    """Write the header `path`, a .dat file of format 16 and an .atr file, the header last.

    Args:
        millivolts: (samples, leads), NaN where a sample is missing.
        peaks: samples of the annotated beats, increasing.
        symbols: a code of PhysioNet's for each, as N or V.

    Raises:
        StorageFull: there was no room for them.
    """
    units = np.clip(np.rint(np.nan_to_num(millivolts) * _GAIN), MISSING + 1, -MISSING - 1)
    stored = np.where(np.isfinite(millivolts), units, MISSING).astype("<i2")
    for suffix, data in ((".dat", stored.tobytes()), (".atr", _annotations(peaks, symbols))):
        with atomic_write(path.with_suffix(suffix)) as temporary:
            temporary.write_bytes(data)
    lines = [f"{path.stem} {len(leads)} {rate:.10g} {len(stored)}"]
    for lead, name in enumerate(leads):
        checksum = int(stored[:, lead].sum(dtype=np.int64).astype(np.int16))
        lines.append(f"{path.stem}.dat 16 {_GAIN}(0)/mV 16 0 {stored[0, lead]} {checksum} 0 {name}")
    write_text(path, "\n".join(lines) + "\n")


def _annotations(peaks: NDArray[np.integer], symbols: Sequence[str]) -> bytes:
    codes = {symbol: code for code, symbol in BEATS.items()}
    words: list[int] = []
    last = 0
    for peak, symbol in zip(peaks.tolist(), symbols, strict=True):
        step, last = peak - last, peak
        if step > _FAR:
            words += [_SKIP << 10, step >> 16, step & 0xFFFF]
            step = 0
        words.append(codes[symbol] << 10 | step)
    return np.array([*words, 0], "<u2").tobytes()
