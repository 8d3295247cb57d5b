"""The record of a training: `history.jsonl`, TensorBoard, and the loss curves as a picture."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.files import atomic_write, storage_errors, write_text
from jobs.run import Run

Row = dict[str, Any]


class Record:
    """Writes what happens in a run. The rows (one per epoch) are also kept in every checkpoint, so that a
    resumed run's history has each epoch once.

    Args:
        run: the folder.
        step: optimizer steps that the run goes on from.
    """

    def __init__(self, run: Run, step: int) -> None:
        from tensorboardX import SummaryWriter

        self._run = run
        run.tensorboard.mkdir(parents=True, exist_ok=True)
        # purge_step hides what an earlier process logged beyond the checkpoint. The suffix keeps two
        # processes of the same second from writing one file: its name has no finer time.
        self._board = SummaryWriter(
            str(run.tensorboard),
            purge_step=step + 1 if step else None,
            flush_secs=20,
            filename_suffix=f".{time.time_ns()}",
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log `values` to TensorBoard at optimizer step `step`."""
        with storage_errors(self._run.tensorboard / "events"):
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """Log an (H, W, 3) uint8 picture to TensorBoard."""
        with storage_errors(self._run.tensorboard / "events"):
            self._board.add_image(name, image, step, dataformats="HWC")
            self._board.flush()

    def write(self, rows: Sequence[Row]) -> None:
        """Write `history.jsonl` and `loss_curves.png` anew."""
        write_text(self._run.history, "".join(json.dumps(row) + "\n" for row in rows))
        draw_curves(self._run.curves, rows)

    def close(self) -> None:
        """Flush TensorBoard."""
        self._board.close()


def draw_curves(path: Path, rows: Sequence[Row]) -> None:
    """Draw every number of `rows` over the epochs, each in a panel of its own: their scales differ."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = [k for k, v in rows[-1].items() if isinstance(v, float) and k not in _NOT_CURVES] if rows else []
    names += [k for row in rows for k in row if k.startswith("val_") and k not in names]
    names = list(dict.fromkeys(names))
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
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.supxlabel("epoch", fontsize="medium")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


_NOT_CURVES = {"seconds", "images_per_second", "learning_rate"}
