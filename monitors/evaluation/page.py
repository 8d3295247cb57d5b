"""Report of an evaluation: one HTML file with the figures, a time line of each record, and the ECG around
missed episodes and false alarms, to look through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from genray.ecg.records.base import EcgRecord
from genray.io.files import write_text
from genray.report.page import Page, Picture
from genray.text import counted
from monitors.evaluation.drawings import draw_excerpt, draw_time_line
from monitors.evaluation.tables import FigureTable
from monitors.evaluation.timeline import Fault, TimeLine

_MOST_LINES = 100
_MOST_EXCERPTS = 60
_URGENT = (
    "ventricular-fibrillation",
    "asystole",
    "ventricular-tachycardia",
    "bradycardia",
    "tachycardia",
    "anomaly",
)


def write_report(
    path: Path,
    about: str,
    tables: Sequence[FigureTable],
    records: Mapping[str, EcgRecord],
    lines: Mapping[str, TimeLine],
) -> None:
    """Write the report of an evaluation.

    Args:
        path: the HTML file.
        about: what was evaluated.
        tables: figures.
        records: the records, by name.
        lines: what happened in each.

    Raises:
        DataError: a record can no longer be read.
        StorageFull: no space.
    """
    page = Page("Evaluation of the ECG monitor", about)
    page.section("Figures")
    for table in tables:
        columns = table.heading or [""] * max(map(len, table.rows))
        page.table(list(columns), table.rows, table.title)
    page.paragraph("In brackets: 95 % intervals, by bootstrap over records.")
    _add_time_lines(page, lines)
    faults = [(name, fault) for name, line in lines.items() for fault in line.faults]
    chosen = _chosen(faults)
    for title, missed in (("Missed episodes", True), ("False alarms", False)):
        of_kind = [each for each in chosen if each[1].missed == missed]
        all_of_kind = sum(fault.missed == missed for _, fault in faults)
        page.section(f"{title}: {all_of_kind}")
        if all_of_kind > len(of_kind):
            page.paragraph(
                f"{len(of_kind)} are drawn, first one of each kind and record, life-threatening ones first."
            )
        for name, fault in of_kind:
            page.picture(_excerpt(name, fault, records[name], lines[name]))
    write_text(path, page.html())


def _add_time_lines(page: Page, lines: Mapping[str, TimeLine]) -> None:
    page.section("Time lines")
    page.paragraph(
        "Above: what the annotations say, in the colour of the alarm that it calls for (grey: none). Below: "
        "the announced alarms, red with high, yellow with medium, blue with low priority, grey if technical. "
        "Triangles: missed episodes (down) and false alarms (up)."
    )
    drawn = sorted(sorted(lines), key=lambda name: not lines[name].faults)[:_MOST_LINES]
    if len(drawn) < len(lines):
        page.paragraph(f"{len(drawn)} of {len(lines)} records are drawn, those with faults first.")
    for name in sorted(drawn):
        line = lines[name]
        missed = sum(fault.missed for fault in line.faults)
        false = len(line.faults) - missed
        caption = f"{missed} missed, {counted(false, 'false alarm')}"
        page.picture(Picture(draw_time_line(line), name, caption if line.faults else ""))


def _chosen(faults: Sequence[tuple[str, Fault]]) -> list[tuple[str, Fault]]:
    """Return the faults to draw, so that no record or kind fills the page."""
    seen: Counter[tuple[str, str, bool]] = Counter()
    ordered = []
    for name, fault in faults:
        turn = seen[name, fault.kind, fault.missed]
        seen[name, fault.kind, fault.missed] += 1
        urgency = _URGENT.index(fault.kind) if fault.kind in _URGENT else len(_URGENT)
        ordered.append(((turn, urgency, not fault.missed, name, fault.span), name, fault))
    chosen = sorted(ordered)[:_MOST_EXCERPTS]
    return [(name, fault) for _, name, fault in sorted(chosen, key=lambda each: (each[1], each[2].span))]


def _excerpt(name: str, fault: Fault, record: EcgRecord, line: TimeLine) -> Picture:
    drawing, left_out = draw_excerpt(record, fault, line)
    what = "missed" if fault.missed else "false"
    seconds = fault.span.end - fault.span.start
    caption = f"from {fault.span.start:.1f} s on, {seconds:.1f} s"
    if left_out:
        caption += f"; not drawn: {', '.join(left_out)}"
    return Picture(drawing, f"{name}: {what} {fault.kind}", caption)
