from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from genray.ecg.records.open import open_record
from genray.ecg.synthesis import generate
from monitors.evaluation.drawings import draw_excerpt
from monitors.evaluation.matching import AlarmSpan, TimeSpan
from monitors.evaluation.page import write_report
from monitors.evaluation.tables import FigureTable
from monitors.evaluation.timeline import Fault, Reference, TimeLine
from tests.genray.ecg.rhythms import write_unannotated

VF, VT = "ventricular-fibrillation", "ventricular-tachycardia"
LINE = TimeLine(
    length=60.0,
    reference=(Reference("VFL", VF, TimeSpan(20, 40)), Reference("NOISE", None, TimeSpan(50, 55))),
    alarms=(AlarmSpan(VT, TimeSpan(52, 58), True, "high"), AlarmSpan("lead-off", TimeSpan(3, 9), True)),
    faults=(Fault(VF, True, TimeSpan(20, 40)), Fault(VT, False, TimeSpan(52, 58))),
    complexes=(10.5, 21.25, 90.0),
)
TABLE = FigureTable("all", ("KIND", "SHARE"), [("<x>", "90 % (80 to 95)")])


@pytest.fixture
def header(tmp_path: Path) -> Path:
    write_unannotated(tmp_path / "a.hea", generate(60.0, 125.0, seed=1).millivolts, 125.0)
    return tmp_path / "a.hea"


def drawings(page: Path) -> list[str]:
    """Drawings of a page, each a whole XML document."""
    encoded = re.findall(r"svg\+xml;base64,([^\"]+)", page.read_text(encoding="utf-8"))
    found = [base64.b64decode(text).decode() for text in encoded]
    for each in found:
        ElementTree.fromstring(each)
    return found


def test_a_report_shows_figures_a_time_line_and_each_fault(header: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report(page, "one record", [TABLE], {"a": open_record(header)}, {"a": LINE})
    line, missed, false = drawings(page)
    assert {"annotated", VT, "lead-off"} <= set(re.findall(r">([^<>]+)</text>", line))
    assert line.count("<polygon") == 2
    assert {"VFL", "II", "V1"} <= set(re.findall(r">([^<>]+)</text>", missed))
    assert missed.count('class="c"') == 2, "the complexes within the excerpt"
    assert f"alarm: {VT}" in false
    html = page.read_text(encoding="utf-8")
    assert "90 % (80 to 95)" in html
    assert "&lt;x&gt;" in html
    assert f"a: missed {VF}" in html


def test_a_report_says_what_it_left_out_and_shows_every_record_first(header: Path, tmp_path: Path) -> None:
    many = tuple(Fault("anomaly", False, TimeSpan(n / 10, n / 10 + 1)) for n in range(90))
    record = open_record(header)
    lines = {"a": replace(LINE, faults=many), "b": LINE} | {
        f"c{n}": replace(LINE, faults=()) for n in range(110)
    }
    page = tmp_path / "report.html"
    write_report(page, "", [TABLE], dict.fromkeys(lines, record), lines)
    html = page.read_text(encoding="utf-8")
    assert "100 of 112 records are drawn" in html
    assert "False alarms: 91" in html
    assert "59 are drawn" in html
    assert f"b: missed {VF}" in html
    assert len(drawings(page)) == 160


def test_leads_beyond_the_fourth_are_named(header: Path) -> None:
    record = replace(open_record(header), leads=("I", "II", "III", "V1", "V2"), gains=(200.0,) * 5)
    object.__setattr__(record, "millivolts", lambda first, last: generate(16.0, 125.0).millivolts[:, [0] * 5])
    drawing, left_out = draw_excerpt(record, LINE.faults[0], LINE)
    assert left_out == ["V2"]
    assert drawing.svg.count('class="s"') == 4
