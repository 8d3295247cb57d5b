"""Drawings of the report of an evaluation: time lines, and the ECG around a fault."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, floor
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.base import EcgRecord
from genray.report.page import Drawing
from genray.report.style import COLOURS
from genray.text import label_value
from monitors.alarms.conditions import CONDITIONS
from monitors.alarms.events import AlarmKind
from monitors.evaluation.matching import AlarmSpan, TimeSpan
from monitors.evaluation.timeline import Fault, Reference, TimeLine

_WIDTH, _LEFT, _RIGHT, _ROW = 1100, 178, 22, 16  # px: of a drawing, its margins, height of a row
_BAR = 10  # px, height of a bar
_TICKS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 43_200, 86_400)  # s
_MOST_TICKS = 14
_BEFORE, _AFTER = 10.0, 6.0  # s of the ECG before and after the onset of a fault
_MM = (_WIDTH - _LEFT - _RIGHT) / ((_BEFORE + _AFTER) * 25.0)  # px of a millimetre at 25 mm/s
_MILLIVOLT = 10 * _MM  # px
_LEAST, _MOST = 30.0, 110.0  # px, height of a lead
_MOST_LEADS = 4
_GREY = "#94a4a2"
_REFERENCE: dict[AlarmKind, str] = {
    "asystole": COLOURS[4],
    "ventricular-fibrillation": COLOURS[2],
    "ventricular-tachycardia": COLOURS[6],
    "bradycardia": COLOURS[9],
    "tachycardia": COLOURS[0],
    "anomaly": COLOURS[7],
}
_PRIORITY = {"high": "#d1242f", "medium": "#e0a100", "low": "#2f81d6"}
# Readable on light and dark pages alike, as the drawings of networks are.
_STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#222}.f{fill:#666}.g{stroke:#0002}.s{fill:none;stroke:#111}"
    ".z{fill:#8883}.c{stroke:#2a8a3e}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.f{fill:#aaa}.g{stroke:#fff3}.s{stroke:#eee}}"
)


def draw_time_line(line: TimeLine) -> Drawing:
    """Draw what the annotations say, and under it a row for each kind of alarm."""
    scale = (_WIDTH - _LEFT - _RIGHT) / max(line.length, 1e-9)
    kinds = [kind for kind in CONDITIONS if any(alarm.kind == kind for alarm in line.alarms)]
    rows = 1 + len(kinds)
    marks = _ticks(TimeSpan(0.0, line.length), scale, rows * _ROW)
    marks += [_text(4, _ROW - 4, "annotated")]
    marks += _bars(((each.span, _colour(each)) for each in line.reference), 0.0, scale, 0)
    for number, kind in enumerate(kinds, 1):
        marks.append(_text(4, (number + 1) * _ROW - 4, kind))
        spans = ((alarm.span, _alarm_colour(alarm)) for alarm in line.alarms if alarm.kind == kind)
        marks += _bars(spans, 0.0, scale, number)
    for fault in line.faults:
        row = 0 if fault.missed else 1 + kinds.index(fault.kind) if fault.kind in kinds else 0
        marks.append(_triangle(_LEFT + fault.span.start * scale, row * _ROW, down=fault.missed))
    return _drawing(marks, rows * _ROW + 16)


def draw_excerpt(record: EcgRecord, fault: Fault, line: TimeLine) -> tuple[Drawing, list[str]]:
    """Draw the leads around the onset of a fault, as on ECG paper, with the detected complexes, the
    annotations and the alarms of the same time; also return the names of the leads that are not drawn.

    Raises:
        DataError: the record can no longer be read.
    """
    begin = max(0.0, fault.span.start - _BEFORE)
    shown = TimeSpan(begin, begin + _BEFORE + _AFTER)
    scale = 25 * _MM
    first = round(begin * record.rate)
    samples = record.millivolts(first, round(shown.end * record.rate))
    ecg = record.ecg_columns
    others = [column for column in range(len(record.leads)) if column not in ecg]
    drawn = [*ecg, *others][:_MOST_LEADS]
    reference = [each for each in line.reference if _overlaps(each.span, shown)]
    alarms = [alarm for alarm in line.alarms if _overlaps(alarm.span, shown)]
    rows = [(_colour(each), each.name, each.span) for each in reference]
    rows += [(_alarm_colour(alarm), f"alarm: {alarm.kind}", alarm.span) for alarm in alarms]
    marks: list[str] = []
    for row, (colour, name, span) in enumerate(rows):
        inside = TimeSpan(max(span.start, begin), min(span.end, shown.end))
        marks += [_text(4, (row + 1) * _ROW - 4, name), *_bars([(inside, colour)], begin, scale, row)]
    top = len(rows) * _ROW + 4.0
    for column in drawn:
        values = samples[:, column].astype(np.float64)
        height, path = _trace(values, scale / record.rate, top, millivolts=column in ecg)
        marks += [_text(4, top + height / 2, label_value(record.leads[column], 16)), path]
        top += height
    ticks = [time for time in line.complexes if begin <= time <= shown.end]
    marks += [
        f'<line class="c" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.0f}" y2="{top + 6:.0f}"/>'
        for x in (_LEFT + (time - begin) * scale for time in ticks)
    ]
    marks.append(_text(4, top + 7, "detected complexes", faint=True))
    onset = _LEFT + (fault.span.start - begin) * scale
    shade = f'<rect class="z" x="{onset:.1f}" y="0" width="2" height="{top:.0f}"/>'
    grid = _ticks(shown, scale, top + 8)
    return _drawing([shade, *grid, *marks], top + 26), [
        label_value(record.leads[column], 16) for column in [*ecg, *others][_MOST_LEADS:]
    ]


def _trace(values: NDArray[np.float64], step: float, top: float, *, millivolts: bool) -> tuple[float, str]:
    """Return the height of a lead and its curve: the lowest and the highest value of each pixel.

    Args:
        values: (samples,) NaN where missing.
        step: pixels from sample to sample.
        top: upper edge, pixels.
        millivolts: whether the gain is that of ECG paper; else the curve fills its height.
    """
    found = values[np.isfinite(values)]
    low, high = (float(found.min()), float(found.max())) if found.size else (0.0, 0.0)
    gain = _MILLIVOLT if millivolts else 0.8 * _LEAST / max(high - low, 1e-9)
    height = min(max((high - low) * gain + 8, _LEAST), _MOST)
    middle = (low + high) / 2 if (high - low) * gain <= _MOST else float(np.median(found))
    y = np.clip(top + height / 2 - (values - middle) * gain, top, top + height)
    group = max(1, floor(1 / step))
    count = len(y) // group
    thin = y[: count * group].reshape(count, group)
    parts, pen = [], "M"
    for number in range(count):
        some = thin[number][np.isfinite(thin[number])]
        if not some.size:
            pen = "M"
            continue
        x = _LEFT + number * group * step
        parts.append(f"{pen}{x:.1f} {some[0]:.1f}")
        if group > 1:
            parts.append(f"V{some.min():.1f}V{some.max():.1f}")
        pen = "L"
    return height, f'<path class="s" d="{"".join(parts)}"/>'


def _bars(spans: Iterable[tuple[TimeSpan, str]], begin: float, scale: float, row: int) -> list[str]:
    """Return time spans as bars; those of one colour that touch are one, so that their number is limited by
    the pixels."""
    bars: list[tuple[float, float, str]] = []
    for span, colour in spans:
        left = _LEFT + (span.start - begin) * scale
        right = max(left + 2, _LEFT + (span.end - begin) * scale)
        if bars and bars[-1][2] == colour and left <= bars[-1][1] + 1:
            bars[-1] = (bars[-1][0], max(right, bars[-1][1]), colour)
        else:
            bars.append((left, right, colour))
    y = row * _ROW + (_ROW - _BAR) / 2
    return [
        f'<rect x="{left:.1f}" y="{y:.1f}" width="{right - left:.1f}" height="{_BAR}" fill="{colour}"/>'
        for left, right, colour in bars
    ]


def _ticks(span: TimeSpan, scale: float, height: float) -> list[str]:
    seconds = span.end - span.start
    step = next((each for each in _TICKS if seconds / each <= _MOST_TICKS), _TICKS[-1])
    marks = []
    for number in range(ceil(span.start / step), floor(span.end / step) + 1):
        x = _LEFT + (number * step - span.start) * scale
        marks.append(f'<line class="g" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height:.0f}"/>')
        marks.append(_text(x, height + 12, _clock(number * step), faint=True, middle=True))
    return marks


def _clock(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def _triangle(x: float, top: float, *, down: bool) -> str:
    low, high = top + 1, top + _ROW - 1
    points = f"{x - 5:.1f},{low} {x + 5:.1f},{low} {x:.1f},{low + 8}"
    if not down:
        points = f"{x - 5:.1f},{high} {x + 5:.1f},{high} {x:.1f},{high - 8}"
    return f'<polygon points="{points}" fill="#d63fb0" stroke="#fff" stroke-width="1"/>'


def _colour(reference: Reference) -> str:
    return _GREY if reference.kind is None else _REFERENCE.get(reference.kind, _GREY)


def _alarm_colour(alarm: AlarmSpan) -> str:
    technical = CONDITIONS[alarm.kind].category == "technical"
    return _GREY if technical else _PRIORITY[alarm.priority]


def _overlaps(one: TimeSpan, other: TimeSpan) -> bool:
    return one.start <= other.end and other.start <= one.end


def _text(x: float, y: float, text: str, *, faint: bool = False, middle: bool = False) -> str:
    attributes = (' class="f"' if faint else "") + (' text-anchor="middle"' if middle else "")
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(label_value(text, 40))}</text>'


def _drawing(marks: Sequence[str], height: float) -> Drawing:
    tall = ceil(height)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {tall}" width="{_WIDTH}" '
        f'height="{tall}"><style>{_STYLE}</style>{"".join(marks)}</svg>'
    )
    return Drawing(svg, _WIDTH, tall)
