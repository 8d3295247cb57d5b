"""The record of a training: `history.jsonl`, TensorBoard, and the loss curves as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.files import atomic_write, storage_errors, write_text
from jobs.run import Run

Row = dict[str, Any]


class Record:
    """Writes what happens in a run. `rows` (one per epoch) is also kept in every checkpoint, so that a
    resumed run's history has each epoch once."""

    def __init__(self, run: Run, rows: Sequence[Row], step: int) -> None:
        from tensorboardX import SummaryWriter

        self.rows = list(rows)
        self._run = run
        run.tensorboard.mkdir(parents=True, exist_ok=True)
        # purge_step hides what an earlier process logged beyond the checkpoint.
        self._board = SummaryWriter(str(run.tensorboard), purge_step=step or None, flush_secs=20)

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

    def write(self) -> None:
        """Write `history.jsonl` and `loss_curves.png` anew."""
        write_text(self._run.history, "".join(json.dumps(row) + "\n" for row in self.rows))
        draw_curves(self._run.curves, self.rows)

    def close(self) -> None:
        """Flush TensorBoard."""
        self._board.close()


def draw_curves(path: Path, rows: Sequence[Row]) -> None:
    """Draw every number of `rows` over the epochs: losses that share a name's beginning together
    (gen_*, disc_*), validation metrics one to a panel."""
    from matplotlib.figure import Figure

    names = [k for k, v in rows[-1].items() if isinstance(v, float) and k not in _NOT_CURVES] if rows else []
    names += [k for row in rows for k in row if k.startswith("val_") and k not in names]
    names = list(dict.fromkeys(names))
    if not names:
        return
    panels: dict[str, list[str]] = {}
    for name in names:
        panels.setdefault(name if name.startswith("val_") else name.split("_")[0], []).append(name)
    figure = Figure(figsize=(4.2 * len(panels), 3.2), layout="constrained")
    for i, (title, members) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), i + 1)
        for name in members:
            points = [(row["epoch"], row[name]) for row in rows if name in row]
            axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 30 else None)
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        if len(members) > 1:
            axes.legend(fontsize="small")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


_NOT_CURVES = {"seconds", "images_per_second", "learning_rate"}
