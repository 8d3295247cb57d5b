"""Log for TensorBoard: a file of events for each start of a run."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from genray.io.files import storage_errors
from jobs.runs.trackers.base import TrackedRun


class TensorBoard:
    """Writes events to the run's `tensorboard/`.

    Args:
        folder: that folder.
        events: file of this start, unbuffered.
    """

    def __init__(self, folder: Path, events: BinaryIO) -> None:
        self._folder = folder
        self._events = events

    @classmethod
    def open(cls, run: TrackedRun) -> Self:
        """Begin a file, for everything after the run's step.

        Raises:
            StorageFull: no space; so do the other methods.
        """
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder = run.folder / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        # Written at once. The usual SummaryWriter writes in a thread, which dies of a full disk and
        # makes the training wait without end.
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{time.time_ns()}"
        log = cls(folder, (folder / name).open("ab", buffering=0))
        now = time.time()
        log._add(Event(file_version="brain.Event:2", wall_time=now))
        # START of a later file hides the events that an earlier process logged from this step on.
        log._add(Event(session_log=SessionLog(status=SessionLog.START), step=run.step + 1, wall_time=now))
        return log

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._log(step, scalar(name, value))

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        from tensorboardX.summary import image as encode

        self._log(step, encode(name, image, dataformats="HWC"))

    def text(self, step: int, name: str, text: str) -> None:
        from tensorboardX.summary import text as encode

        self._log(step, encode(name, text))

    def close(self, *, finished: bool) -> None:
        self._events.close()

    def _log(self, step: int, summary: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._add(Event(summary=summary, step=step, wall_time=time.time()))

    def _add(self, event: Any) -> None:
        from tensorboardX.record_writer import masked_crc32c

        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        # One write per TFRecord: length, its checksum, data, its checksum.
        record = (
            length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
        )
        with storage_errors(self._folder / "events"):
            self._events.write(record)
