"""Processes that a run starts beside its own, and the dialogue with them: lines of JSON.

A started process ends when its standard input ends, so that none is left when the run is killed. Ctrl-C is
for the run, which asks its workers to stop.
"""

from __future__ import annotations

import json
import os
import queue
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from genray.errors import BulkError, GenrayError
from genray.text import visible

_STOP = b"stop\n"
_MOST_WORDS = 200  # characters of the last line of stderr


class ChildProcess:
    """A process that a run started, as the run has it; see `start`.

    Args:
        process: the process, with pipes to its standard input and output.
        log: its stderr.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self._process = process
        self._log = log

    @classmethod
    def start(cls, module: str) -> ChildProcess:
        """Start `python -m MODULE`, which calls `run_in_process`."""
        log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        return cls(process, log)

    def ask(self, message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Send a message; yields the answers until the process ends."""
        self._send(json.dumps(message).encode() + b"\n")
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = _message_of(line)
            if answer is not None:
                yield answer

    def stop(self) -> None:
        """Ask the process to stop; its next report answers that it has to."""
        self._send(_STOP)

    def kill(self) -> None:
        """End the process at once, from any thread."""
        if self._process.returncode is None:
            # Not Popen's kill: it looks for the end first, which `wait` may be waiting for in another thread.
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    def wait(self) -> ProcessEnd:
        """Close the pipes, which ends a process that still waits for messages, and wait for its end."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        with self._log:
            last_words = _last_line(self._log)
        peak = int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
        return ProcessEnd(self._process.returncode, peak, last_words)

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: then it has no answers
            self._process.stdin.write(line)
            self._process.stdin.flush()


@dataclass(frozen=True)
class ProcessEnd:
    """End of a process: its exit code (negative: the signal that killed it), the most memory that it had, in
    bytes, and the last line of its stderr."""

    code: int
    peak_bytes: int
    last_words: str


def _message_of(line: bytes) -> Mapping[str, Any] | None:
    """Return the message in a line; None for a line that the end of its process cut off."""
    try:
        message: Mapping[str, Any] = json.loads(line)
    except ValueError:
        return None
    return message


def _last_line(log: IO[bytes]) -> str:
    """Return the last line of `log`; "" if there is none."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return visible(lines[-1])[:_MOST_WORDS] if lines else ""


def main_file(step: str) -> str | None:
    """Return the program of this process, if it defines the step of an assignment."""
    if not step.startswith("__main__:"):
        return None
    return getattr(sys.modules["__main__"], "__file__", None)


class StartedProcess:
    """The dialogue as a started process has it; see `run_in_process`."""

    def __init__(self, output: IO[str]) -> None:
        self._output = output
        self._messages: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._stopped = False

    def listen(self) -> None:
        """Take messages until the run that started the process is gone, then end the process."""
        for line in sys.stdin.buffer:
            if line == _STOP:
                self._stopped = True
            else:
                self._messages.put(json.loads(line))
        os._exit(1)

    def messages(self) -> Iterator[Mapping[str, Any]]:
        """Yield the messages to this process, as long as it lives."""
        while True:
            yield self._messages.get()

    def say(self, **message: Any) -> None:
        """Send a message to the run."""
        self._output.write(json.dumps(message) + "\n")
        self._output.flush()

    def report(self, counts: Mapping[str, float]) -> bool:
        """Send counts; see `ReportCounts`."""
        self.say(counts=dict(counts))
        return self._stopped


def run_in_process(work: Callable[[StartedProcess], None]) -> None:
    """Run `work` in a started process, send the error that it ends with, and end the process."""
    # What a library prints must not get among the messages.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    process = StartedProcess(output)
    threading.Thread(target=process.listen, daemon=True, name="listen").start()
    try:
        work(process)
    except GenrayError as error:
        process.say(error=error.as_json())
    except Exception as error:
        process.say(error=BulkError(f"a worker failed: {type(error).__name__}: {error}").as_json())
    os._exit(0)  # libraries have nothing to say any more


def load_main(file: str | None) -> None:
    """Load the program that defines the step, as `multiprocessing` does: not as `__main__`."""
    if file is None:
        return
    module = types.ModuleType("__mp_main__")
    module.__dict__.update(runpy.run_path(file, run_name="__mp_main__"))
    sys.modules["__main__"] = module
