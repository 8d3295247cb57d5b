"""Workers in processes of their own, on the machine of the run."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

from genray.errors import BulkError, error_from_json
from pipelines.engine.assignment import Assignment
from pipelines.engine.chunk import ReportCounts
from pipelines.engine.isolation import Isolation
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


class CannotStart(Exception):
    """A worker process died before it was ready."""


class ProcessWorker:
    """A worker in a process of its own, with the methods of `AssignedWorker`; see `start`.

    Responsible for: the process, which is started again when it dies, and the dialogue with it. What follows
    from a death is left to the attempts at the chunk, which the next process counts.

    Args:
        assignment: the assignment.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._is_stopped = False
        self.notes: Sequence[str] = ()
        """Notes on how it runs its model."""

    def start(self) -> None:
        """Start the process, and wait until its model is loaded.

        Raises:
            CannotStart: it died.
            GenrayError: the error that stopped it.
        """
        if self._is_stopped:
            self._log.close()
            raise CannotStart("it was stopped")
        self._is_ready = False
        self._process = start_process("pipelines.engine.worker_process", self._log)
        job = {"assignment": asdict(self._assignment), "main": main_file(self._assignment.step)}
        answer = next(self._ask(job), {})
        self._is_ready = "ready" in answer
        if self._is_ready:
            self.notes = answer["ready"]
            return
        self._end()
        last_words = last_line(self._log)
        self._log.close()
        if "error" in answer:
            raise error_from_json(answer["error"])
        raise CannotStart(last_words or "it was killed")

    def work(self, index: int, report: ReportCounts) -> bool:
        """Process the chunk `index`; returns whether it is finished. See `ChunkWorker.work`."""
        while not self._is_stopped:
            for message in self._ask({"chunk": index}):
                match message:
                    case {"counts": counts}:
                        if report(counts):
                            self._stop()
                    case {"finished": finished}:
                        return bool(finished)
                    case {"error": values}:
                        raise error_from_json(values)
            self._end()
            if not self._is_stopped:
                self._start_again()
        return False

    def give_up_start(self) -> None:
        """End the process if it is not ready yet, from any thread: its start may take long."""
        if not self._is_ready:
            self.kill()

    def close(self) -> None:
        """End the process, and discard uncommitted results."""
        self.kill()
        self._end()
        self._log.close()

    def kill(self) -> None:
        """End the process at once, from any thread."""
        self._is_stopped = True
        if self._process is not None:
            self._process.kill()

    def _start_again(self) -> None:
        try:
            self.start()
        except CannotStart as error:
            raise BulkError(
                f"a worker process died and did not start again: {error}",
                hint="look at the memory of the machine, and give the same command again",
            ) from error

    def _ask(self, message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Send a message; yields the answers until the process ends."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            send(process.stdin, **message)
        for line in process.stdout:
            answer = message_of(line)
            if answer is not None:
                yield answer

    def _stop(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            send_stop(self._process.stdin)

    def _end(self) -> None:
        """Wait for the end of a process that was killed or has died."""
        process = self._process
        self._process = None
        if process is not None:
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with suppress(BrokenPipeError):
                    stream.close()
            process.wait()


def _work(process: StartedProcess) -> None:
    messages = process.messages()
    job = next(messages)
    load_main(job["main"])
    assignment = Assignment.from_json(job["assignment"])
    worker = assignment.open_worker(Isolation(assignment))
    process.say(ready=list(worker.notes))
    for message in messages:
        process.say(finished=worker.work(message["chunk"], process.report))


if __name__ == "__main__":
    run_in_process(_work)
