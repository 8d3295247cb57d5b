from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from genray.cli.main import main
from genray.ecg.records.base import BedsideAlarm, RhythmMark
from genray.ecg.records.open import open_record
from genray.ecg.synthesis import Episode, generate
from monitors.alarms.events import AlarmKind
from monitors.evaluation.matching import AlarmSpan, TimeSpan
from monitors.evaluation.rhythms import BedsideCounts, BedsideJudgement, judge_bedside, judge_rhythms
from tests.genray.ecg.rhythms import write_unannotated, write_ventricular_record

VF: AlarmKind = "ventricular-fibrillation"
VT: AlarmKind = "ventricular-tachycardia"


def alarm(kind: AlarmKind, start: float, end: float) -> AlarmSpan:
    return AlarmSpan(kind, TimeSpan(start, end), announced=True)


def test_an_episode_is_alarmed_within_ten_seconds_by_any_alarm_for_a_deadly_rhythm() -> None:
    marks = [RhythmMark(0, "N"), RhythmMark(1000, "VFL"), RhythmMark(3000, "N"), RhythmMark(10_000, "VT")]
    marks += [RhythmMark(12_000, "N"), RhythmMark(20_000, "VT"), RhythmMark(20_300, "N")]
    found = judge_rhythms(marks, 100.0, 300.0, [alarm(VT, 16, 40), alarm(VT, 113, 130), alarm(VF, 250, 260)])
    first, second = found.episodes
    assert (first.kind, first.delay, first.named) == (VF, 6.0, False)
    assert (second.kind, second.delay, second.named) == (VT, None, True), "too late"
    assert dict(found.false) == {VF: (250,), VT: (), "asystole": ()}


def test_short_and_unclear_rhythms_are_no_episodes_and_excuse_an_alarm() -> None:
    marks = [RhythmMark(0, "N"), RhythmMark(5000, "VT"), RhythmMark(5300, "HGEA"), RhythmMark(9000, "N")]
    found = judge_rhythms(
        marks, 100.0, 200.0, [alarm(VT, 52, 60), alarm(VF, 80, 85), alarm("tachycardia", 150, 160)]
    )
    assert not found.episodes
    assert not any(found.false.values())


@pytest.mark.parametrize(
    ("start", "end", "raised"), [(280, 293, False), (280, 294, True), (301.5, 310, True), (302, 310, False)]
)
def test_a_bedside_alarm_is_raised_by_an_alarm_of_its_kind_around_it(
    start: float, end: float, raised: bool
) -> None:
    judged = judge_bedside(BedsideAlarm(VT, confirmed=True), [alarm(VT, start, end), alarm(VF, 290, 301)])
    assert judged.raised == judged.is_right == raised


def test_a_missed_alarm_counts_five_times_in_the_score() -> None:
    true, false = BedsideAlarm(VT, confirmed=True), BedsideAlarm(VT, confirmed=False)
    judged = [(true, True), (true, False), (false, True), (false, False), (false, False)]
    counts = BedsideCounts.of([BedsideJudgement(*each) for each in judged])
    assert counts.score == pytest.approx(100 * 3 / (3 + 1 + 5))
    assert (counts.sensitivity, counts.specificity) == (0.5, pytest.approx(2 / 3))
    assert BedsideCounts.of([]).score is None


def evaluate(folder: Path, *options: str) -> tuple[dict[str, Any], str]:
    done = CliRunner().invoke(main, ["monitor", "evaluate", "--records", str(folder), "--json", *options])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), done.stderr


def test_records_with_annotated_rhythms_judge_the_alarms(tmp_path: Path) -> None:
    marks = write_ventricular_record(tmp_path / "a.hea", seed=1)
    record = open_record(tmp_path / "a.hea")
    assert [(mark.sample, mark.name) for mark in record.rhythms()] == marks
    page = tmp_path / "report.html"
    figures, text = evaluate(tmp_path, "--report", str(page))
    check_report(page.read_text(encoding="utf-8"))
    kinds = figures["rhythms"]["kinds"]
    assert (kinds[VF]["episodes"], kinds[VF]["alarmed"]) == (1, 1)
    assert (kinds[VT]["episodes"], kinds[VT]["alarmed"]) == (1, 1)
    assert figures["rhythms"]["missed"] == figures["rhythms"]["false_alarms"] == []
    assert "the figures are too good" in text
    assert "ventricular-fibrillation" in text


def check_report(html: str) -> None:
    """Check that a report shows figures and the time line of its record, and asks the network for nothing."""
    drawings = [base64.b64decode(text).decode() for text in re.findall(r"svg\+xml;base64,([^\"]+)", html)]
    assert len(drawings) == 1
    assert {"annotated", VT, VF} <= set(re.findall(r">([^<>]+)</text>", drawings[0]))
    assert "annotated rhythms" in html
    assert "http" not in html.replace("http-equiv", "")


def test_records_with_a_bedside_alarm_give_the_score_of_the_challenge(tmp_path: Path) -> None:
    script = [Episode("asystole", 290, 12)]
    for name, episodes, verdict in (("a1", script, "True"), ("a2", [], "False")):
        made = generate(305.0, 125.0, seed=3, script=episodes)
        write_unannotated(tmp_path / f"{name}.hea", made.millivolts, 125.0)
        with (tmp_path / f"{name}.hea").open("a") as file:
            file.write(f"#Asystole\n#{verdict} alarm\n")
    figures, text = evaluate(tmp_path)
    bedside = figures["bedside_alarms"]
    assert (bedside["score"], bedside["kinds"]["asystole"]["sensitivity"], bedside["wrong"]) == (100, 1, [])
    assert "challenge 2015" in text


def test_a_folder_without_annotations_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    write_unannotated(tmp_path / "a.hea", np.zeros((5000, 2)), 250.0)
    done = CliRunner().invoke(main, ["monitor", "evaluate", "--records", str(tmp_path)])
    assert done.exit_code == 2
    assert "annotated beats or rhythms (.atr files beside the headers)" in done.output
