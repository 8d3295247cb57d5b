"""Picture of a strip as ECG paper: 25 mm/s, 10 mm/mV, a grid of 1 mm and 5 mm, true to scale in print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from genray.errors import UsageError
from genray.io.files import atomic_write
from genray.text import label_value
from monitors.patient.output import Strip
from monitors.patient.strips import AFTER, BEFORE
from monitors.sources.message import MISSING

_SPEED, _GAIN = 25.0, 10.0  # mm/s, mm/mV
_ROW = 10.0  # s of a row, so that three fit across a page of A4
_LEFT, _RIGHT, _TOP, _BOTTOM, _BETWEEN = 16.0, 8.0, 26.0, 6.0, 8.0  # mm
_LEAST_BAND, _MOST_BAND = 20.0, 60.0  # mm of height of a lead
_DOTS_PER_MM = 8
_FINE, _COARSE, _INK, _MARK = "#f7d9d6", "#e8a9a3", "#101418", "#c4001a"
_POINTS_PER_MM = 72 / 25.4


@dataclass(frozen=True)
class _Band:
    """Place of one lead within a row.

    Attributes:
        top: distance of its upper edge from that of the row, mm.
        height: mm.
        middle: value at its middle, mV.
        cut: whether some of its values lie outside.
    """

    lead: str
    millivolts: NDArray[np.float64]
    top: float
    height: float
    middle: float
    cut: bool


def draw_strip(strip: Strip, path: Path) -> None:
    """Write `strip` to `path` as a PNG: rows of 10 s, the first one ending at the onset.

    Raises:
        UsageError: the name of the file does not end in .png.
        StorageFull: no space for the file.
        OSError: the file cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(
            f"a strip is drawn as PNG, not as {path.suffix or 'a file without ending'}",
            where=str(path),
            hint="name the output *.png",
        )
    bands = _bands(strip)
    row_height = sum(band.height for band in bands)
    rows = ceil((BEFORE + AFTER) / _ROW)
    width = _LEFT + _ROW * _SPEED + _RIGHT
    height = _TOP + rows * (row_height + _BETWEEN) + _BOTTOM
    figure = Figure(figsize=(width / 25.4, height / 25.4), dpi=25.4 * _DOTS_PER_MM)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)  # mm from the upper edge
    axes.axis("off")
    _write_head(axes, strip, bands)
    for row in range(rows):
        _draw_row(axes, strip, bands, _TOP + row * (row_height + _BETWEEN), row_height, row * _ROW - BEFORE)
    _write(axes, _LEFT, height - 5, "Not a medical device: for research and engineering.", colour="#555")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def incompleteness(strip: Strip) -> str:
    """Return what `strip` lacks after its onset, for a person; empty: nothing."""
    if strip.complete:
        return ""
    return (
        f"incomplete: {max(0.0, strip.until - strip.onset):.1f} of {AFTER:g} s after the onset (still being "
        "recorded, or the monitor or the bed stopped)"
    )


def _bands(strip: Strip) -> list[_Band]:
    bands = []
    top = 0.0
    for lead, column in zip(strip.leads, strip.microvolts.T, strict=True):
        values = np.where(column == MISSING, np.nan, column / 1000.0)
        found = values[np.isfinite(values)]
        low, high = (float(found.min()), float(found.max())) if found.size else (0.0, 0.0)
        needed = 5 * ceil(((high - low) * _GAIN + 6) / 5)
        height = min(max(needed, _LEAST_BAND), _MOST_BAND)
        cut = needed > _MOST_BAND
        middle = float(np.median(found)) if cut else (low + high) / 2
        bands.append(_Band(label_value(lead, 16), values, top, height, middle, cut))
        top += height
    return bands


def _write_head(axes: Any, strip: Strip, bands: Sequence[_Band]) -> None:
    _write(
        axes, _LEFT, 6, f"{strip.kind}, {strip.priority} priority, {strip.stream}", size=3.6, weight="bold"
    )
    _write(
        axes, _LEFT, 11, f"onset {_local_time(strip.onset)}{strip.reason and ': '}{strip.reason}", size=2.8
    )
    about = f"{_SPEED:g} mm/s, {_GAIN:g} mm/mV, {strip.rate:g} values/s"
    if strip.left_out:
        about += f"; {len(strip.leads)} of {len(strip.leads) + strip.left_out} leads"
    if cut := [band.lead for band in bands if band.cut]:
        about += f"; cut off at the edge: {', '.join(cut)}"
    _write(axes, _LEFT, 15, about, colour="#555")
    _write(axes, _LEFT, 19, incompleteness(strip), colour=_MARK)


def _draw_row(
    axes: Any, strip: Strip, bands: Sequence[_Band], top: float, height: float, begin: float
) -> None:
    """Draw ten seconds of all leads; `begin` is their first moment, in seconds from the onset."""
    right, bottom = _LEFT + _ROW * _SPEED, top + height
    for step, colour, thick in ((1, _FINE, 0.08), (5, _COARSE, 0.14)):
        columns = [((x, top), (x, bottom)) for x in np.arange(_LEFT, right + 0.1, step)]
        lines = [((_LEFT, y), (right, y)) for y in np.arange(top, bottom + 0.1, step)]
        axes.add_collection(
            LineCollection([*columns, *lines], colors=colour, linewidths=thick * _POINTS_PER_MM)
        )
    for second in range(0, round(_ROW) + 1, 2):
        text = f"{begin + second:+g} s".replace("-", "\u2212") if begin + second else "onset"
        _write(axes, _LEFT + second * _SPEED, top - 1, text, colour="#555", align="center")
    if begin <= 0 <= begin + _ROW:
        at = _LEFT - begin * _SPEED
        axes.plot((at, at), (top, bottom), color=_MARK, lw=0.3 * _POINTS_PER_MM, dashes=(6, 3))
    first = begin + strip.onset - strip.start  # seconds of the strip before this row
    for band in bands:
        middle = top + band.top + band.height / 2
        _write(axes, 2, middle - 7, band.lead, size=3, weight="bold")
        # The mark of 1 mV and 0.2 s that every ECG has.
        x = np.array([0, 1, 1, 6, 6, 7]) + 6.5
        y = middle + np.array([5, 5, -5, -5, 5, 5])
        axes.plot(x, y, color=_INK, lw=0.3 * _POINTS_PER_MM)
        _write(axes, 10, middle + 8.5, "1 mV", colour="#555", align="center")
        chosen = slice(max(0, ceil(first * strip.rate)), max(0, ceil((first + _ROW) * strip.rate) + 1))
        values = band.millivolts[chosen]
        seconds = np.arange(chosen.start, chosen.start + len(values)) / strip.rate - first
        up = np.clip((values - band.middle) * _GAIN, -band.height / 2, band.height / 2)
        axes.plot(_LEFT + seconds * _SPEED, middle - up, color=_INK, lw=0.28 * _POINTS_PER_MM)


def _write(
    axes: Any,
    x: float,
    y: float,
    text: str,
    *,
    size: float = 2.4,
    colour: str = _INK,
    weight: str = "normal",
    align: str = "left",
) -> None:
    """Write `text` on the baseline `y`; `size` in mm. Dollars make no formula: text may come from devices."""
    axes.text(
        x, y, text, fontsize=size * _POINTS_PER_MM, color=colour, weight=weight, ha=align, parse_math=False
    )


def _local_time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} s"
