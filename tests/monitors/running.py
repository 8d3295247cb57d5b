"""The whole monitor for tests: in this process, or as a process of its own that can be killed."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from genray.ecg.records.wfdb import write_wfdb
from genray.ecg.synthesis import Episode, generate
from genray.settings.load import load
from genray.targets import Resources
from monitors.ecg import TARGET
from monitors.settings import EcgSettings

KEY = b"a key for tests only"
"""Of the pseudonyms."""

START = 1_700_000_000.0
LEADS = ("II", "V1")
EVENTFUL = (
    (Episode("asystole", 60, 9), Episode("tachycardia", 110, 25), Episode("lead-off", 170, 15)),
    (Episode("pvc", 70, 60, share=0.6), Episode("bradycardia", 150, 30), Episode("gap", 200, 8)),
    (Episode("lead-off", 65, 15), Episode("asystole", 130, 8), Episode("tachycardia", 180, 25)),
)
"""What happens to three patients in four minutes, after 45 s in which they are learned."""


def write_patients(
    folder: Path, scripts: Sequence[Sequence[Episode]] = EVENTFUL, seconds: float = 240
) -> Path:
    """A record for each of `scripts`; gives `folder`."""
    for number, script in enumerate(scripts):
        made = generate(seconds, leads=LEADS, seed=70 + number, script=script)
        write_wfdb(folder / f"p{number}.hea", made.millivolts, 360.0, LEADS, made.peaks, made.symbols)
    return folder


def sets(bundle: Path, state: Path, *more: str) -> list[str]:
    """Values for `--set`: any ports, and patients who are learned in half a minute."""
    return [
        f"bundle={bundle}",
        f"state={state}",
        "metrics.port=0",
        "page.port=null",
        "ward.reference.minutes=0.5",
        "ward.reference.beats=10",
        *more,
    ]


def replay(records: Path, speed: float = 0) -> list[str]:
    """Values for `--set` that play `records`, from `START`."""
    return [
        "source.kind=replay",
        f"source.path={records}",
        f"source.speed={speed}",
        f"source.start={START}",
    ]


class Notes:
    """A display that keeps the lines that it is to show."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def tick(self, tick: object) -> None:
        raise AssertionError("a monitor makes no progress")

    def row(self, row: object, text: str) -> None:
        raise AssertionError("a monitor has no epochs")

    def close(self) -> None:
        pass


def run_here(values: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Run the monitor in this process to its end; gives the outcome and the notes."""
    notes = Notes()
    settings = load(EcgSettings, target="ecg", sets=tuple(values))
    prepared = TARGET.prepare(settings, "ecg", None, notes.note)
    return prepared.run(notes, Resources(2, 0), False).as_json(), notes.lines


class Process:
    """`genray monitor ecg` with `values`, from `with` until its end; `lines` are those of standard error."""

    def __init__(self, values: Sequence[str], folder: Path) -> None:
        self._command = [sys.executable, "-m", "genray", "monitor", "ecg", "--json"]
        for value in values:
            self._command += ["--set", value]
        self._folder = folder
        self.lines: list[str] = []
        self._news = threading.Condition()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdout.close()
        self._process.stderr.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for_lines(self, enough: Callable[[list[str]], bool], seconds: float = 120) -> list[str]:
        """Wait until its lines are `enough`, or it ended."""
        with self._news:
            done = self._news.wait_for(
                lambda: enough(self.lines) or not self._reader.is_alive() or self._process.poll() is not None,
                seconds,
            )
        assert done, "\n".join(self.lines)
        return self.lines

    def metrics_address(self) -> str:
        """The address of its metrics."""
        lines = self.wait_for_lines(lambda lines: any("/metrics" in line for line in lines))
        found = re.search(r"http://\S+/metrics", "\n".join(lines))
        assert found, "\n".join(lines)
        return found[0]

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, seconds: float = 60) -> tuple[int, dict[str, Any]]:
        """Wait for its end; gives the exit code and the outcome."""
        assert self._process.stdout is not None
        self._process.wait(seconds)
        self._reader.join()
        output = self._process.stdout.read()
        assert output, "\n".join(self.lines)
        outcome: dict[str, Any] = json.loads(output)
        return self._process.returncode, outcome

    @property
    def pid(self) -> int:
        return self._process.pid


def recorded(state: Path) -> list[tuple[str, str, float]]:
    """All that the journal in `state` holds, in its order: alarm, change, time."""
    with closing(sqlite3.connect(f"file:{state / 'journal.sqlite'}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT alarm, change, time FROM transitions ORDER BY id").fetchall()
    return [(alarm, change, round(time, 3)) for alarm, change, time in rows]


def high(state: Path) -> set[str]:
    """Alarms that reached high priority, by the journal in `state`."""
    with closing(sqlite3.connect(f"file:{state / 'journal.sqlite'}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT DISTINCT alarm FROM transitions WHERE priority = 'high'").fetchall()
    return {alarm for (alarm,) in rows}


def wait_for(happened: Callable[[], bool], seconds: float = 60) -> None:
    """Ask again and again, where nothing tells."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
