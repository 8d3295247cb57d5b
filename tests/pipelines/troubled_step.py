"""A step that treats images by their names: some kill their process, some take their time."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genray.errors import StorageFull
from genray.progress import LineDisplay
from genray.targets import Resources
from pipelines.engine.reporting.outcome import BulkOutcome
from pipelines.engine.target import Bulk
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step, StepInput, StepPlace, StepResult


class Troubled(Step[BulkSettings]):
    """Leaves images as they are, unless they are named after their trouble.

    In the folder of the output, a file `slow` makes slow images slow; `at-PID` is made at each of them.
    """

    settings_class = BulkSettings
    can_use_gpu = False

    def check(self) -> Sequence[str]:
        return []

    def open(self, place: StepPlace, prepared: Mapping[str, Any]) -> Sequence[str]:
        return []

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        for each in inputs:
            trouble(Path(each.path).stem, Path(self.settings.output).parent)
        return [StepResult(copy=each.data) for each in inputs]


def trouble(name: str, folder: Path) -> None:
    if name.startswith("crash"):
        print("a word before it crashed", file=sys.stderr, flush=True)
        ctypes.string_at(0)
    if name.startswith("killed-once") and not (folder / name).exists():
        (folder / name).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("full"):
        raise StorageFull("no space left")
    if name.startswith("slow") and (folder / "slow").exists():
        (folder / f"at-{os.getpid()}").touch()
        time.sleep(120)


def run_troubled(photos: Path, out: Path, workers: int = 0) -> BulkOutcome:
    """Run the step over `photos` to its end."""
    settings = BulkSettings.model_validate(
        {
            "input": str(photos),
            "output": str(out),
            "work": {"workers": workers, "cpus_per_worker": 1, "commit_seconds": 0.2},
            "report": {"samples": 0},
        }
    )
    prepared = Bulk(Troubled).prepare(settings, "troubled", None, print)
    return prepared.run(LineDisplay(), Resources(2, 0), attached=False)


if __name__ == "__main__":
    run_troubled(Path(sys.argv[1]), Path(sys.argv[2]))
