"""Progress of long work: a live line on a terminal, plain lines elsewhere, a file between processes."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.table import Column

from genray.io.files import atomic_write
from genray.text import duration

_NEWEST_TICK = "progress.json"
_NOTES = "notes.log"


@dataclass(frozen=True)
class Tick:
    """State of long work: `step` of `steps` (in a training, optimizer steps over all epochs).

    `unit` is the name of a step, `samples` that of what is counted per second; `epochs` is 0 for work without
    epochs.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_second: float
    seconds_left: float
    values: Mapping[str, float] = field(default_factory=dict)
    unit: str = "step"
    samples: str = "images"

    @property
    def place(self) -> str:
        """Return "epoch 3/20" or the like; nothing if the work has no epochs."""
        return f"epoch {self.epoch}/{self.epochs}" if self.epochs else ""


class Display(Protocol):
    """Output of progress, written to standard error: standard output is for results."""

    def tick(self, tick: Tick) -> None:
        """Show the newest state; called a few times per second."""

    def note(self, text: str) -> None:
        """Show a line that remains on the screen."""

    def row(self, row: Mapping[str, Any], text: str) -> None:
        """Show `text`, the line of a finished epoch, whose numbers are `row`."""

    def close(self) -> None:
        """Restore the terminal."""


class LineDisplay:
    """Display for logs and pipes: prints a plain line every `every` seconds."""

    def __init__(self, every: float = 15.0) -> None:
        self._every = every
        self._last = float("-inf")

    def tick(self, tick: Tick) -> None:
        now = time.monotonic()
        if now - self._last >= self._every or tick.step == tick.steps:
            self._last = now
            place = f"{tick.place}  " if tick.place else ""
            self.note(
                f"{place}{tick.unit} {tick.step}/{tick.steps}  {_values(tick.values)}"
                f"{tick.images_per_second:.1f} {tick.samples}/s  {duration(tick.seconds_left)} left"
            )

    def note(self, text: str) -> None:
        with suppress(OSError):  # the reader is gone: the work continues
            print(text, file=sys.stderr, flush=True)

    def row(self, row: Mapping[str, Any], text: str) -> None:
        self.note(text)

    def close(self) -> None:
        pass  # nothing to restore


class LiveDisplay:
    """Display for terminals: redraws one line with a bar."""

    def __init__(self, console: Console) -> None:
        columns: list[ProgressColumn] = [
            _fixed("{task.fields[place]}"),
            _fixed("{task.fields[unit]} {task.completed:.0f}/{task.total:.0f}"),
            _fixed("{task.fields[left]} left"),
        ]
        # A line that is too long would push the bar out of sight.
        if console.width >= 130:
            columns.insert(1, BarColumn(bar_width=24))
        if console.width >= 100:
            columns.append(TextColumn("{task.fields[values]}"))
        if console.width >= 70:
            columns.append(TextColumn("{task.fields[speed]}"))
        self._progress = Progress(*columns, console=console, transient=True)
        self._task: TaskID | None = None

    def tick(self, tick: Tick) -> None:
        fields: dict[str, Any] = {
            "place": tick.place,
            "unit": tick.unit,
            "values": _values(tick.values).rstrip(),
            "speed": f"{tick.images_per_second:.1f} {tick.samples}/s",
            "left": duration(tick.seconds_left),
        }
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("", total=tick.steps, **fields)
        self._progress.update(self._task, completed=tick.step, total=tick.steps, **fields)

    def note(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def row(self, row: Mapping[str, Any], text: str) -> None:
        self.note(text)

    def close(self) -> None:
        self._progress.stop()


class FileDisplay:
    """Display for another process: writes the newest tick to `progress.json` and appends notes to
    `notes.log`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last = float("-inf")

    def tick(self, tick: Tick) -> None:
        now = time.monotonic()
        if now - self._last >= 0.5 or tick.step == tick.steps:
            self._last = now
            # NaN is not JSON.
            numbers = {name: value for name, value in tick.values.items() if math.isfinite(value)}
            with atomic_write(self._folder / _NEWEST_TICK, durable=False) as temporary:
                temporary.write_text(json.dumps(asdict(replace(tick, values=numbers))), encoding="utf-8")

    def note(self, text: str) -> None:
        with (self._folder / _NOTES).open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def row(self, row: Mapping[str, Any], text: str) -> None:
        self.note(text)

    def close(self) -> None:
        pass  # nothing to restore


class FileFollower:
    """Reader of the files of a `FileDisplay` in another process: shows its progress.

    Args:
        folder: the folder of the `FileDisplay`.
        display: shows the progress.
        start: byte of the notes to start at.
    """

    def __init__(self, folder: Path, display: Display, start: int = 0) -> None:
        self._folder = folder
        self._display = display
        self._position = start
        self._newest: object = None

    @classmethod
    def from_now(cls, folder: Path, display: Display) -> FileFollower:
        """Return a follower that skips the existing notes, which are of earlier attempts."""
        notes = folder / _NOTES
        return cls(folder, display, notes.stat().st_size if notes.exists() else 0)

    def poll(self) -> None:
        """Show what is new since the last call."""
        notes = self._folder / _NOTES
        if notes.exists():
            with notes.open("rb") as file:
                file.seek(self._position)
                lines, newline, _ = file.read().rpartition(b"\n")
            self._position += len(lines) + len(newline)
            for line in lines.decode(errors="replace").splitlines():
                self._display.note(line)
        try:
            tick = json.loads((self._folder / _NEWEST_TICK).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return
        if tick != self._newest:
            self._newest = tick
            self._display.tick(Tick(**tick))


def default_display() -> Display:
    """Return the display that suits standard error."""
    console = Console(stderr=True)
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveDisplay(console) if live else LineDisplay()


def _values(values: Mapping[str, float]) -> str:
    return "".join(f"{name} {value:.3g}  " for name, value in values.items())


def _fixed(text: str) -> TextColumn:
    return TextColumn(text, table_column=Column(no_wrap=True))
