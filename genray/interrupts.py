"""Signals: the first Ctrl-C asks long work to stop with its state saved, the second ends the process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signals(requested: Callable[[], bool], request: Callable[[], None]) -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into a request to stop, and the second into a
    KeyboardInterrupt.

    Outside of the main thread signals cannot be handled, and nothing changes.

    Args:
        requested: returns whether the work was asked to stop already.
        request: asks the work to stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if requested():
            raise KeyboardInterrupt
        request()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        numbers.append(signal.SIGHUP)  # the terminal was closed
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_despite_threads(code: int) -> None:
    """End the process with exit code `code` if threads still work.

    Python would wait for them, and an image in progress can take minutes. What is not recorded is processed
    by the next run, as after a kill.
    """
    main = threading.main_thread()
    if all(thread is main or thread.daemon for thread in threading.enumerate()):
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
