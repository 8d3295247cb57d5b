"""Images that may kill their process, one at a time in a process apart.

A worker that dies leaves no reason: the image may be the cause, or memory pressure, a preempted node or a
person. So nothing is concluded from it. The images that were in progress are processed again in a process
whose end the worker sees: its exit code, its memory and its last words. The two speak in lines of JSON.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from genray.errors import BulkError, GenrayError, error_from_json
from genray.text import visible
from pipelines.engine.assignment import Assignment
from pipelines.engine.chunk import ReportCounts
from pipelines.engine.deaths import CannotIsolate, Death, IsolatedEnd
from pipelines.storage.attempts import Attempt, EarlierKills

_MOST_WORDS = 200  # characters of the last line of stderr
_STOP = b"stop\n"


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
        job = _Job(replace(self.assignment, earlier=EarlierKills()), index, attempt, paths, self._main_file())
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipelines.engine.isolation"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # Ctrl-C is for the run, which asks its workers to stop
            )
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
            death = Death(dialogue.image, process.returncode, _peak_bytes(usage), _last_line(log))
        if not dialogue.image:
            raise CannotIsolate(f"it ended with {death.cause}: {death.last_words}")
        return IsolatedEnd(False, death)

    def _main_file(self) -> str | None:
        """Return the program of this process, if it defines the step."""
        if not self.assignment.step.startswith("__main__:"):
            return None
        return getattr(sys.modules["__main__"], "__file__", None)


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
            self._say(json.dumps(job.as_json()).encode() + b"\n")
            for line in self._output:
                with suppress(ValueError):  # a line that death cut off
                    self._take(json.loads(line))

    def _take(self, message: Mapping[str, Any]) -> None:
        match message:
            case {"ready": _}:
                self._is_ready = True
            case {"image": path}:
                self.image = path
                self._name_image(path)
            case {"counts": counts}:
                if self._report(counts):
                    self._say(_STOP)
            case {"finished": finished}:
                self.end = IsolatedEnd(finished)
            case {"error": values}:
                error = error_from_json(values)
                raise error if self._is_ready else CannotIsolate(error.what)

    def _say(self, line: bytes) -> None:
        self._input.write(line)
        self._input.flush()


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
        assignment = {**values["assignment"], "earlier": EarlierKills(**values["assignment"]["earlier"])}
        parts = {**values, "assignment": Assignment(**assignment), "attempt": Attempt(**values["attempt"])}
        return cls(**parts)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class _Worker:
    """The other side of the dialogue, in the process apart."""

    def __init__(self, output: IO[str]) -> None:
        self._output = output
        self._stopped = False

    def listen(self) -> None:
        """Wait for the request to stop; ends the process when the worker that started it is gone."""
        for line in sys.stdin.buffer:
            self._stopped = self._stopped or line == _STOP
        os._exit(1)

    def say(self, **message: Any) -> None:
        self._output.write(json.dumps(message) + "\n")
        self._output.flush()

    def report(self, counts: Mapping[str, float]) -> bool:
        self.say(counts=dict(counts))
        return self._stopped

    def work(self, job: _Job) -> None:
        if job.main is not None:
            _load_main(job.main)
        assigned = job.assignment.open_worker()
        self.say(ready=True)
        finished = assigned.worker.work_one_by_one(
            assigned.plan,
            job.index,
            job.attempt,
            frozenset(job.paths),
            self.report,
            lambda path: self.say(image=path),
        )
        self.say(finished=finished)


def main() -> None:
    """Run the job that comes on stdin; for `Isolation`."""
    # What a library prints must not get among the messages.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with suppress(OSError):  # the kernel, if it must, kills this process and not the run
        Path("/proc/self/oom_score_adj").write_text("1000")
    worker = _Worker(output)
    job = _Job.from_json(json.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=worker.listen, daemon=True, name="listen").start()
    try:
        worker.work(job)
    except GenrayError as error:
        worker.say(error=error.as_json())
    except Exception as error:
        worker.say(error=BulkError(f"a worker failed: {type(error).__name__}: {error}").as_json())
    os._exit(0)  # libraries have nothing to say any more


def _load_main(file: str) -> None:
    """Load the program that defines the step, as `multiprocessing` does: not as `__main__`."""
    module = types.ModuleType("__mp_main__")
    module.__dict__.update(runpy.run_path(file, run_name="__mp_main__"))
    sys.modules["__main__"] = module


def _wait_for(process: subprocess.Popen[bytes]) -> Any:
    """Wait for the end of `process`; returns its use of resources."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def _peak_bytes(usage: Any) -> int:
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def _last_line(log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return visible(lines[-1])[:_MOST_WORDS] if lines else ""


if __name__ == "__main__":
    main()
