"""Log of a training: `history.jsonl`, TensorBoard, and a picture of the loss curves."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from genray.io.files import atomic_write, storage_errors, write_text
from genray.text import duration
from jobs.runs.run import Run

Row = dict[str, Any]

_NOT_CURVES = {"seconds", "images_per_second"}


class TrainingLog:
    """Writes the log of a run. Every checkpoint also stores the rows (one per epoch), so that a resumed run's
    history contains each epoch once.

    Args:
        run: the run's folder.
        events: TensorBoard's file, unbuffered.
    """

    def __init__(self, run: Run, events: BinaryIO) -> None:
        self._run = run
        self._events = events

    @classmethod
    def open(cls, run: Run, step: int) -> Self:
        """Open a TensorBoard file in the run's folder, for everything after optimizer step `step`."""
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        run.tensorboard.mkdir(parents=True, exist_ok=True)
        # Written at once. The usual SummaryWriter writes in a thread, which dies of a full disk and
        # makes the training wait without end.
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{time.time_ns()}"
        log = cls(run, (run.tensorboard / name).open("ab", buffering=0))
        now = time.time()
        log._add(Event(file_version="brain.Event:2", wall_time=now))
        # START of a later file hides the events that an earlier process logged from this step on.
        log._add(Event(session_log=SessionLog(status=SessionLog.START), step=step + 1, wall_time=now))
        return log

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log `values` to TensorBoard at optimizer step `step`.

        Raises:
            StorageFull: no space.
        """
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._log(step, scalar(name, value))

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """Log an (H, W, 3) uint8 picture to TensorBoard."""
        from tensorboardX.summary import image as encode

        self._log(step, encode(name, image, dataformats="HWC"))

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
        with storage_errors(self._run.tensorboard / "events"):
            self._events.write(record)

    def write(self, rows: Sequence[Row], *, draw: bool) -> None:
        """Rewrite `history.jsonl`, and draw `loss_curves.png` (which takes a third of a second)."""
        write_text(self._run.history, "".join(json.dumps(row) + "\n" for row in rows))
        if draw:
            draw_curves(self._run.curves, rows)

    def close(self) -> None:
        """Close the TensorBoard file."""
        self._events.close()


def epoch_line(row: Row, epochs: int) -> str:
    """Return an epoch's row as a line for a person."""
    numbers = "  ".join(f"{name} {row[name]:.4g}" for name in _curve_names(row))
    return f"epoch {row['epoch']}/{epochs}  {numbers}  {duration(row['seconds'])}"


def draw_curves(path: Path, rows: Sequence[Row]) -> None:
    """Draw every number of `rows` over the epochs, each in its own panel, as their scales differ."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = _curve_names(rows[-1]) if rows else []
    names = list(dict.fromkeys([*names, *(key for row in rows for key in row if key.startswith("val_"))]))
    if not names:
        return
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * lines), layout="constrained")
    for i, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, i + 1)
        epochs, values = zip(*[(row["epoch"], row[name]) for row in rows if name in row], strict=True)
        axes.plot(epochs, values, marker="." if len(epochs) < 30 else None)
        axes.set_title(name, fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    figure.supxlabel("epoch", fontsize="medium")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _curve_names(row: Row) -> list[str]:
    return [key for key, value in row.items() if isinstance(value, float) and key not in _NOT_CURVES]
