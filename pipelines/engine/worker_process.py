"""Workers in processes of their own, on the machine of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from genray.errors import BulkError, error_from_json
from pipelines.engine.assignment import Assignment
from pipelines.engine.chunk import ReportCounts
from pipelines.engine.isolation import Isolation
from pipelines.engine.processes import ChildProcess, StartedProcess, load_main, main_file, run_in_process


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
        self._process: ChildProcess | None = None
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
            raise CannotStart("it was stopped")
        self._is_ready = False
        process = self._process = ChildProcess.start("pipelines.engine.worker_process")
        job = {"assignment": asdict(self._assignment), "main": main_file(self._assignment.step)}
        answer = next(process.ask(job), {})
        self._is_ready = "ready" in answer
        if self._is_ready:
            self.notes = answer["ready"]
            return
        self._process = None
        end = process.wait()
        if "error" in answer:
            raise error_from_json(answer["error"])
        raise CannotStart(end.last_words or "it was killed")

    def work(self, index: int, report: ReportCounts) -> bool:
        """Process the chunk `index`; returns whether it is finished. See `ChunkWorker.work`."""
        while not self._is_stopped:
            process = self._process
            assert process is not None
            for message in process.ask({"chunk": index}):
                match message:
                    case {"counts": counts}:
                        if report(counts):
                            process.stop()
                    case {"finished": finished}:
                        return bool(finished)
                    case {"error": values}:
                        raise error_from_json(values)
            self._process = None
            process.wait()
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
        process, self._process = self._process, None
        if process is not None:
            process.wait()

    def kill(self) -> None:
        """End the process at once, from any thread."""
        self._is_stopped = True
        process = self._process
        if process is not None:
            process.kill()

    def _start_again(self) -> None:
        try:
            self.start()
        except CannotStart as error:
            raise BulkError(
                f"a worker process died and did not start again: {error}",
                hint="look at the memory of the machine, and give the same command again",
            ) from error


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
