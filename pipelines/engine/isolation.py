"""Images that may kill their process, one at a time in a process apart.

A worker that dies leaves no reason: the image may be the cause, or memory pressure, a preempted node or a
person. So nothing is concluded from it. The images that were in progress are processed again in a process
whose end the worker sees: its exit code, its memory and its last words. The two speak in lines of JSON.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from genray.errors import error_from_json
from pipelines.engine.assignment import Assignment
from pipelines.engine.chunk import ReportCounts
from pipelines.engine.deaths import CannotIsolate, Death, IsolatedEnd
from pipelines.engine.processes import (
    StartedProcess,
    last_line,
    load_main,
    main_file,
    message_of,
    run_in_process,
    send,
    send_stop,
    start_process,
)
from pipelines.storage.attempts import Attempt, EarlierKills


@dataclass(frozen=True)
class Isolation:
    """Starts processes apart for images of `assignment`; see `Isolate`.

    Responsible for: their start, what is said between the two, and what is seen of their end. What follows
    from a death is left to `deaths.py`.
    """

    assignment: Assignment

    def __call__(
        self,
        index: int,
        attempt: Attempt,
        paths: Sequence[str],
        name_image: Callable[[str], None],
        report: ReportCounts,
    ) -> IsolatedEnd:
        """See `Isolate`."""
        assignment = replace(self.assignment, earlier=EarlierKills())
        job = _Job(assignment, index, attempt, paths, main_file(assignment.step))
        with tempfile.TemporaryFile() as log:
            process = start_process("pipelines.engine.isolation", log)
            try:
                dialogue = _Dialogue(process, name_image, report)
                dialogue.hold(job)
            except BaseException:
                process.kill()
                raise
            finally:
                usage = _wait_for(process)
            if dialogue.end is not None:
                return dialogue.end
            death = Death(dialogue.image, process.returncode, _peak_bytes(usage), last_line(log))
        if not dialogue.image:
            raise CannotIsolate(f"it ended with {death.cause}: {death.last_words}")
        return IsolatedEnd(False, death)


class _Dialogue:
    """The worker's side of the dialogue with `process`."""

    def __init__(
        self, process: subprocess.Popen[bytes], name_image: Callable[[str], None], report: ReportCounts
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input: IO[bytes] = process.stdin
        self._output: IO[bytes] = process.stdout
        self._name_image = name_image
        self._report = report
        self._is_ready = False
        self.image = ""
        """The image in progress."""
        self.end: IsolatedEnd | None = None

    def hold(self, job: _Job) -> None:
        """Give the process its job, and listen until it ends."""
        with self._output, suppress(BrokenPipeError), self._input:
            send(self._input, **job.as_json())
            for line in self._output:
                self._take(message_of(line))

    def _take(self, message: Mapping[str, Any] | None) -> None:
        match message:
            case {"ready": _}:
                self._is_ready = True
            case {"image": path}:
                self.image = path
                self._name_image(path)
            case {"counts": counts}:
                if self._report(counts):
                    send_stop(self._input)
            case {"finished": finished}:
                self.end = IsolatedEnd(finished)
            case {"error": values}:
                error = error_from_json(values)
                raise error if self._is_ready else CannotIsolate(error.what)


@dataclass(frozen=True)
class _Job:
    """The job of a process apart; `main` is the program that defines the step, if that is no module."""

    assignment: Assignment
    index: int
    attempt: Attempt
    paths: Sequence[str]
    main: str | None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> _Job:
        assignment = Assignment.from_json(values["assignment"])
        return cls(**{**values, "assignment": assignment, "attempt": Attempt(**values["attempt"])})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def main() -> None:
    """Run the job that comes on stdin; for `Isolation`."""
    with suppress(OSError):  # the kernel, if it must, kills this process and not the run
        Path("/proc/self/oom_score_adj").write_text("1000")
    run_in_process(_work)


def _work(process: StartedProcess) -> None:
    job = _Job.from_json(next(process.messages()))
    load_main(job.main)
    assigned = job.assignment.open_worker()
    process.say(ready=True)
    finished = assigned.worker.work_one_by_one(
        assigned.plan,
        job.index,
        job.attempt,
        frozenset(job.paths),
        process.report,
        lambda path: process.say(image=path),
    )
    process.say(finished=finished)


def _wait_for(process: subprocess.Popen[bytes]) -> Any:
    """Wait for the end of `process`; returns its use of resources."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def _peak_bytes(usage: Any) -> int:
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
