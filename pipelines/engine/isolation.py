"""Images that may kill their process, one at a time in a process apart.

A worker that dies leaves no reason: the image may be the cause, or memory pressure, a preempted node or a
person. So nothing is concluded from it. The images that were in progress are processed again in a process
whose end the worker sees: its exit code, its memory and its last words. The two speak in lines of JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from genray.errors import error_from_json
from pipelines.engine.assignment import Assignment
from pipelines.engine.chunk import ReportCounts
from pipelines.engine.deaths import CannotIsolate, Death, IsolatedEnd
from pipelines.engine.processes import ChildProcess, StartedProcess, load_main, main_file, run_in_process
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
        process = ChildProcess.start("pipelines.engine.isolation")
        dialogue = _Dialogue(process, name_image, report)
        try:
            dialogue.hold(job)
        except BaseException:
            process.kill()
            raise
        finally:
            end = process.wait()
        if dialogue.end is not None:
            return dialogue.end
        death = Death(dialogue.image, end.code, end.peak_bytes, end.last_words)
        if not dialogue.image:
            raise CannotIsolate(f"it ended with {death.cause}: {death.last_words}")
        return IsolatedEnd(False, death)


class _Dialogue:
    """The worker's side of the dialogue with `process`."""

    def __init__(
        self, process: ChildProcess, name_image: Callable[[str], None], report: ReportCounts
    ) -> None:
        self._process = process
        self._name_image = name_image
        self._report = report
        self._is_ready = False
        self.image = ""
        """The image in progress."""
        self.end: IsolatedEnd | None = None

    def hold(self, job: _Job) -> None:
        """Give the process its job, and listen until it ends."""
        for message in self._process.ask(job.as_json()):
            self._take(message)

    def _take(self, message: Mapping[str, Any]) -> None:
        match message:
            case {"ready": _}:
                self._is_ready = True
            case {"image": path}:
                self.image = path
                self._name_image(path)
            case {"counts": counts}:
                if self._report(counts):
                    self._process.stop()
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


if __name__ == "__main__":
    main()
