import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from genray.progress import FileDisplay, FileFollower, LineDisplay, LiveDisplay, Tick, display

TICK = Tick(2, 10, 120, 1000, 12.34, 3725.0, {"gen_l1_loss": 0.2468, "disc_loss": 0.5})


def test_without_a_terminal_progress_is_plain_lines_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    lines = display()
    assert isinstance(lines, LineDisplay)
    for _ in range(3):
        lines.tick(TICK)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "epoch 2/10  step 120/1000  gen_l1_loss 0.247  disc_loss 0.5  12.3 images/s  1 h 2 min left\n"
    )


def test_on_a_terminal_one_line_is_redrawn() -> None:
    screen = io.StringIO()
    live = LiveDisplay(Console(file=screen, force_terminal=True, width=120))
    live.tick(TICK)
    live.note("a line that stays")
    live.close()
    text = screen.getvalue()
    assert "step 120/1000" in text
    assert "1 h 2 min left" in text
    assert "a line that stays" in text


def test_progress_passes_from_one_process_to_another_through_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = FileDisplay(tmp_path)
    far.note("from an earlier attempt")
    follower = FileFollower(tmp_path, LineDisplay())
    far.note("epoch 1 is done")
    far.tick(TICK)
    for _ in range(2):
        follower.poll()
    err = capsys.readouterr().err
    assert err.count("epoch 1 is done") == 1
    assert err.count("step 120/1000") == 1
    assert "earlier attempt" not in err


def test_a_loss_that_is_no_number_does_not_stop_the_progress(tmp_path: Path) -> None:
    FileDisplay(tmp_path).tick(replace(TICK, values={"disc_loss": float("nan"), "gen_l1_loss": 1.0}))
    assert json.loads((tmp_path / "progress.json").read_text())["values"] == {"gen_l1_loss": 1.0}


def test_what_is_counted_has_its_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    beats = replace(TICK, samples="beats")
    FileDisplay(tmp_path).tick(beats)
    FileFollower(tmp_path, LineDisplay()).poll()
    assert "12.3 beats/s" in capsys.readouterr().err
    screen = io.StringIO()
    live = LiveDisplay(Console(file=screen, force_terminal=True, width=120))
    live.tick(beats)
    live.close()
    assert "beats/s" in screen.getvalue()
