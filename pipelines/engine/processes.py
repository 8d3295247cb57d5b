"""Processes that a run starts beside its own, and the dialogue with them: lines of JSON.

A started process ends when its standard input ends, so that none is left when the run is killed. Ctrl-C is
for the run, which asks its workers to stop.
"""

from __future__ import annotations

import json
import os
import queue
import runpy
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from genray.errors import BulkError, GenrayError
from genray.text import visible

_STOP = b"stop\n"
_MOST_WORDS = 200  # characters of the last line of stderr


def start_process(module: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start `python -m MODULE`, with pipes to its standard input and output, and `log` as its stderr."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )


def main_file(step: str) -> str | None:
    """Return the program of this process, if it defines the step of an assignment."""
    if not step.startswith("__main__:"):
        return None
    return getattr(sys.modules["__main__"], "__file__", None)


def message_of(line: bytes) -> Mapping[str, Any] | None:
    """Return the message in a line; None for a line that the end of its process cut off."""
    try:
        message: Mapping[str, Any] = json.loads(line)
    except ValueError:
        return None
    return message


def send(stream: IO[bytes], **message: Any) -> None:
    """Send a message to a started process."""
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def send_stop(stream: IO[bytes]) -> None:
    """Ask a started process to stop; its next report answers that it has to."""
    stream.write(_STOP)
    stream.flush()


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


def last_line(log: IO[bytes]) -> str:
    """Return the last line that a process wrote to `log`, its stderr; "" if there is none."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return visible(lines[-1])[:_MOST_WORDS] if lines else ""


def load_main(file: str | None) -> None:
    """Load the program that defines the step, as `multiprocessing` does: not as `__main__`."""
    if file is None:
        return
    module = types.ModuleType("__mp_main__")
    module.__dict__.update(runpy.run_path(file, run_name="__mp_main__"))
    sys.modules["__main__"] = module
