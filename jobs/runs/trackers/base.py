"""What every tracker does, and what it is opened with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from genray.io.files import write_json

TrackerName = Literal["tensorboard", "mlflow", "wandb"]

_MAX_TEXT = 2**16


@dataclass(frozen=True)
class TrackedRun:
    """Run that is tracked.

    Attributes:
        folder: the run's folder.
        step: optimizer steps that are done; what a killed process logged after it is outdated.
        settings: settings, flat.
    """

    folder: Path
    step: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.folder.name

    def identity(self, tracker: TrackerName, make: Callable[[], str]) -> str:
        """Return the run's identity in a tracker, which a resumed run keeps; `make` makes a new one."""
        file = self.folder / "trackers.json"
        known: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            known = dict(json.loads(file.read_bytes()[:_MAX_TEXT]))
        if not isinstance(known.get(tracker), str):
            known[tracker] = make()
            write_json(file, known)
        return str(known[tracker])


class Tracker(Protocol):
    """Takes the numbers, pictures and words of one run, in the order of its steps."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log `values` at optimizer step `step`."""

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """Log an (H, W, 3) uint8 picture."""

    def text(self, step: int, name: str, text: str) -> None:
        """Log words, such as what is wrong."""

    def close(self, *, finished: bool) -> None:
        """End the log; `finished` is false for a run that was stopped or failed."""


class Expendable:
    """Tracker that a training can do without: after its first error, which is shown, it is left alone.

    `begin` makes one.

    Args:
        name: name of the tracker.
        note: shows a line.
    """

    def __init__(self, name: TrackerName, note: Callable[[str], None]) -> None:
        self._name = name
        self._note = note
        self._tracker: Tracker | None = None

    @classmethod
    def begin(
        cls, name: TrackerName, open_tracker: Callable[[], Tracker], note: Callable[[str], None]
    ) -> Self:
        """Open the tracker."""
        expendable = cls(name, note)
        expendable._attempt(lambda: expendable._take(open_tracker()))
        return expendable

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._tracker is not None:
            self._attempt(partial(self._tracker.scalars, step, values))

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        if self._tracker is not None:
            self._attempt(partial(self._tracker.picture, step, name, image))

    def text(self, step: int, name: str, text: str) -> None:
        if self._tracker is not None:
            self._attempt(partial(self._tracker.text, step, name, text))

    def close(self, *, finished: bool) -> None:
        if self._tracker is not None:
            self._attempt(partial(self._tracker.close, finished=finished))

    def _take(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # of a library and a network
            self._tracker = None
            text = " ".join(str(error).split())[:300]
            self._note(
                f"{self._name} failed, and the training continues without it: {type(error).__name__}: {text}"
            )
