import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from genray.cli.main import main
from genray.errors import DataError
from genray.io.store import open_store
from pipelines.storage.ledger.ledger import Ledger
from pipelines.storage.ledger.rows import LedgerRow
from pipelines.storage.output import HEADER
from pipelines.storage.overview import read_overview

BEGUN = datetime(2025, 3, 1, 12, tzinfo=UTC)
HOSTILE = "a\n\x1b[31mred\r\u202e<script>.png"


def row(path: str, status: str = "done", **more: Any) -> LedgerRow:
    basis = {"path": path, "status": status, "reason": "", "detail": "", "bytes_in": 1000, "bytes_out": 500}
    times = {"read_ms": 1.0, "decode_ms": 2.0, "model_ms": 16.0, "encode_ms": 1.0, "write_ms": 0.0}
    return LedgerRow(**basis | times | {"modified": 1, "output": path, "finished": BEGUN} | more)


def header(*passes: dict[str, Any]) -> dict[str, Any]:
    settings = {"bundle": "runs/first/bundle", "input": "photos"}
    return {"format": 1, "target": "denoise", "settings": settings, "identity": {}, "passes": list(passes)}


def one_pass(**more: Any) -> dict[str, Any]:
    return {"number": 1, "started": BEGUN.isoformat(), "listed": 5, "left": 5} | more


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An output of which three images are done, one was skipped and one has failed."""
    writer = Ledger(open_store(str(tmp_path)))
    done = [row(f"{i}.png", finished=BEGUN + timedelta(seconds=i)) for i in range(3)]
    writer.add("00001-000000-0-0", done)
    failed = row(HOSTILE, "failed", reason="truncated", detail="at 9")
    others = [row("clean.png", "skipped", reason="clean"), failed]
    writer.add("00001-000001-0-0", others)
    write_header(tmp_path, header(one_pass(images_per_second=2.0)))
    return tmp_path


def write_header(root: Path, content: dict[str, Any]) -> None:
    (root / HEADER).parent.mkdir(exist_ok=True)
    (root / HEADER).write_text(json.dumps(content))


def lines(text: str) -> dict[str, str]:
    """Lines by their first word."""
    parts = [line.strip().partition(" ") for line in text.splitlines() if line]
    return {first: rest.strip() for first, _, rest in parts}


def ledger(root: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["ledger", str(root), *words], catch_exceptions=False)


def shown(root: Path, *words: str) -> str:
    result = ledger(root, *words)
    assert result.exit_code == 0
    return result.stdout


def files(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*")}


def test_it_says_what_was_done_and_what_to_do_next(root: Path) -> None:
    before = files(root)
    printed = lines(shown(root))
    assert printed["target"] == "denoise"
    assert printed["bundle"] == "runs/first/bundle"
    assert printed["started"] == "2025-03-01 12:00:00 UTC"
    assert [printed[name] for name in ("images", "done", "skipped", "failed", "left")] == [
        "5",
        "3",
        "1",
        "1",
        "0",
    ]
    assert printed["bytes"] == "5 kB in, 2.5 kB out (-50.0 %)"
    assert printed["speed"].startswith("2.0 images/s")
    assert "the file ends early or its data are damaged" in printed["truncated"]
    assert printed["truncated"].split()[:4] == ["failed", "1", "20", "%"]
    assert printed["clean"].startswith("skipped")
    assert printed["model"].split()[-3:] == ["%", "16", "ms"]
    assert "--retry failed" in printed["next:"]
    assert files(root) == before


def test_as_json_it_is_one_line(root: Path) -> None:
    (line,) = shown(root, "--json").splitlines()
    printed = json.loads(line)
    assert (printed["target"], printed["run"], printed["left"]) == ("denoise", str(root), 0)
    assert (printed["total"], printed["done"], printed["skipped"], printed["failed"]) == (5, 3, 1, 1)
    assert printed["reasons"] == {"truncated": 1, "clean": 1}
    assert (printed["bytes_in"], printed["bytes_out"], printed["stage_seconds"]["decode"]) == (
        5000,
        2500,
        0.01,
    )
    assert printed["settings"]["input"] == "photos"
    assert printed["passes"][0]["number"] == 1
    assert printed["images_per_second"] == 2.0


def test_a_name_cannot_command_the_terminal(root: Path) -> None:
    heading, listed = shown(root, "--list", "failed").splitlines()
    assert heading.split() == ["path", "reason", "detail"]
    assert listed.split() == [r"a\n\x1b[31mred\r\u202e<script>.png", "truncated", "at", "9"]


def test_listed_as_json_names_are_exact(root: Path) -> None:
    (line,) = shown(root, "--list", "failed", "--json").splitlines()
    assert json.loads(line) == {"path": HOSTILE, "reason": "truncated", "detail": "at 9"}


def test_a_list_ends_at_its_limit_and_says_what_is_left_out(root: Path) -> None:
    printed = ledger(root, "--list", "done", "--limit", "2")
    assert [line.split() for line in printed.stdout.splitlines()[1:]] == [["0.png"] * 2, ["1.png"] * 2]
    assert printed.stderr == "1 more: --limit 3 shows all\n"
    assert ledger(root, "--list", "skipped", "--limit", "2").stderr == ""


@pytest.mark.parametrize("made", [True, False])
def test_where_there_is_no_ledger_it_says_so_and_makes_nothing(tmp_path: Path, made: bool) -> None:
    root = tmp_path / "out"
    if made:
        root.mkdir()
    with pytest.raises(DataError, match="no ledger") as caught:
        read_overview(str(root))
    assert caught.value.where == str(root)
    assert "output" in str(caught.value.hint)
    assert list(tmp_path.rglob("*")) == [root] * made


def test_left_is_what_the_last_pass_has_not_done(root: Path) -> None:
    later = BEGUN + timedelta(days=1)
    again = one_pass(number=2, started=later.isoformat(), listed=9, left=6)
    write_header(root, header(one_pass(ended="2025-03-01T13:00:00+00:00"), again))
    Ledger(open_store(str(root))).add("00002-000000-0-0", [row("new.png", finished=later)])
    printed = lines(shown(root))
    assert printed["left"] == "5"
    assert printed["ended"].startswith("not yet")
    assert "speed" not in printed, "it is told when the pass has ended"


def test_a_run_that_only_begins_is_shown(tmp_path: Path) -> None:
    started = one_pass()
    del started["left"], started["listed"]
    write_header(tmp_path, header(started))
    printed = lines(shown(tmp_path))
    assert printed["images"] == "0"
    assert "unknown until" in printed["left"]


@pytest.mark.parametrize("damage", ["", "[]", '{"form', "\x00"])
def test_without_its_header_a_ledger_still_says_much(root: Path, damage: str) -> None:
    (root / HEADER).write_text(damage)
    printed = lines(shown(root))
    assert printed["done"] == "3"
    assert "damaged" in printed["target"]


def test_it_can_be_read_while_a_run_writes_it(root: Path) -> None:
    ended = threading.Event()
    writer = Ledger(open_store(str(root)))

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            writer.add(f"00002-{number:06}-0-0", [row(f"more/{number}.png")])
            if number % 3 == 0:
                writer.compact(number)

    thread = threading.Thread(target=write)
    thread.start()
    totals = []
    try:
        for _ in range(30):
            totals.append(read_overview(str(root)).as_json()["total"])
    finally:
        ended.set()
        thread.join()
    assert totals == sorted(totals), "no row is ever missing"
    assert totals[-1] > totals[0] >= 5


def test_a_terminal_without_unicode_shows_escapes(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Ledger(open_store(str(root))).add("00001-000002-0-0", [row("\N{DOG FACE}.png", "failed", reason="empty")])
    with open(tmp_path / "terminal", "w", encoding="ascii") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        with pytest.raises(SystemExit):
            main(["ledger", str(root), "--list", "failed"])
    assert r"\U0001f436.png" in (tmp_path / "terminal").read_text(encoding="ascii")
