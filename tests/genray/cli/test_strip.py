"""The strip of an alarm as a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from genray.cli.main import main
from monitors.outputs.journal import Journal
from monitors.outputs.strip_picture import draw_strip
from monitors.outputs.strips import StripSettings, StripStore
from monitors.patient.output import Strip
from monitors.sources.message import MISSING
from tests.monitors.transitions import ONSET

MM = 8  # pixels


def genray(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["monitor", "strip", *map(str, arguments)], catch_exceptions=False)


def square_wave(*, complete: bool = True) -> Strip:
    """1 mV up and down every second in one lead, flat in the other."""
    until = ONSET.onset + (20 if complete else 7.5)
    seconds = np.arange(0, until - ONSET.onset + 10, 1 / 200)
    wave = np.where(seconds % 2 < 1, 1000, 0)
    wave[300:320] = MISSING
    return Strip(
        alarm=ONSET.alarm,
        stream="bed-$1$",
        kind=ONSET.kind,
        priority=ONSET.priority,
        reason="no QRS complex for 4.2 s; limit 4 s",
        onset=ONSET.onset,
        start=ONSET.onset - 10,
        rate=200.0,
        leads=("II", "V1"),
        left_out=3,
        microvolts=np.stack([wave, 0 * wave], axis=1).astype(np.int16),
        until=until,
        complete=complete,
    )


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state of a monitor with an alarm and its strip, and an alarm without one."""
    with Journal.open(tmp_path / "state" / "journal.sqlite") as journal:
        journal.record([ONSET, replace(ONSET, alarm="bed-1 stream-lost 1", kind="stream-lost")])
    StripStore(tmp_path / "state" / "strips", StripSettings()).save([square_wave(complete=False)])
    return tmp_path / "state"


def test_a_strip_is_drawn_and_says_what_it_lacks(state: Path, tmp_path: Path) -> None:
    result = genray(ONSET.alarm, "--state", state, "--output", tmp_path / "strip.png")
    assert result.exit_code == 0
    assert "incomplete: 7.5 of 20 s after the onset" in result.stderr
    with Image.open(tmp_path / "strip.png") as picture:
        assert picture.width > 250 * MM


def test_an_unknown_alarm_and_one_without_a_strip_say_what_to_do(state: Path, tmp_path: Path) -> None:
    for alarm, expected in (
        ("bed-9:asystole:1", "column `alarm` of `genray monitor alarms --csv`"),
        ("bed-1 stream-lost 1", "alarms of lost streams have no samples"),
        ("../../etc/passwd", "no alarm ../../etc/passwd"),
    ):
        result = genray(alarm, "--state", state, "--output", tmp_path / "strip.png")
        assert result.exit_code == 2
        assert expected in " ".join(result.stderr.split())
    assert not (tmp_path / "strip.png").exists()
    for output, expected in ((tmp_path / "strip.pdf", "as PNG"), (state / "stream.key" / "x.png", "")):
        (state / "stream.key").touch()
        result = genray(ONSET.alarm, "--state", state, "--output", output)
        assert result.exit_code == 2
        assert expected in result.stderr
    nowhere = genray("a", "--state", tmp_path / "nowhere", "--output", tmp_path / "strip.png")
    assert "no journal of alarms" in nowhere.stderr


def test_a_millivolt_is_ten_millimetres_and_a_second_twenty_five(tmp_path: Path) -> None:
    draw_strip(square_wave(), tmp_path / "strip.png")
    with Image.open(tmp_path / "strip.png") as picture:
        dark = np.asarray(picture.convert("L")) < 90
        dots_per_mm = picture.info["dpi"][0] / 25.4
    assert dots_per_mm == pytest.approx(MM, rel=0.01)
    left, right = 16 * MM + 20, (16 + 250) * MM - 20
    rows = dark[:, left:right].sum(axis=1)
    long = np.flatnonzero(rows > 0.35 * (right - left))  # upper and lower level of the wave, the flat lead
    levels = [group.mean() for group in np.split(long, np.flatnonzero(np.diff(long) > 3) + 1)]
    assert len(levels) == 3 * 3
    assert levels[1] - levels[0] == pytest.approx(10 * MM, abs=1.5)
    between = round((levels[0] + levels[1]) / 2)
    edges = np.flatnonzero(dark[between, left:right])
    steps = np.diff([group.mean() for group in np.split(edges, np.flatnonzero(np.diff(edges) > 3) + 1)])
    assert np.median(steps) == pytest.approx(25 * MM, abs=1.5)
