"""Log of a training: `history.jsonl`, a picture of the loss curves, and the trackers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.io.files import atomic_write, write_text
from genray.progress import Tick
from genray.text import duration
from jobs.runs.metrics import TrainingMetrics
from jobs.runs.run import Run
from jobs.runs.trackers.base import Tracker

Row = dict[str, Any]

_NOT_CURVES = {"seconds", "images_per_second"}


class TrainingLog:
    """Writes the log of a run. Every checkpoint also stores the rows (one per epoch), so that a resumed run's
    history contains each epoch once.

    Args:
        run: the run's folder.
        trackers: further logs of the same numbers and pictures.
        metrics: metrics that are served while the training runs; None: there are none.
    """

    def __init__(
        self, run: Run, trackers: Sequence[Tracker] = (), metrics: TrainingMetrics | None = None
    ) -> None:
        self._run = run
        self._trackers = trackers
        self._metrics = metrics

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log `values` at optimizer step `step`.

        Raises:
            StorageFull: no space.
        """
        for tracker in self._trackers:
            tracker.scalars(step, values)

    def progress(self, tick: Tick) -> None:
        """Show where the training is; the values of `tick` are the losses."""
        if self._metrics is not None:
            self._metrics.progress(tick)

    def validated(self, row: Row) -> None:
        """Show a validation, a row of the history."""
        if self._metrics is not None:
            self._metrics.validated(row)

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """Log an (H, W, 3) uint8 picture."""
        for tracker in self._trackers:
            tracker.picture(step, name, image)

    def text(self, step: int, name: str, text: str) -> None:
        """Log words."""
        for tracker in self._trackers:
            tracker.text(step, name, text)

    def write(self, rows: Sequence[Row], *, draw: bool) -> None:
        """Rewrite `history.jsonl`, and draw `loss_curves.png` (which takes up to a second)."""
        write_text(self._run.history, "".join(json.dumps(row) + "\n" for row in rows))
        if draw:
            draw_curves(self._run.curves, rows)

    def close(self, *, finished: bool) -> None:
        """Close the trackers; `finished` is false for a run that was stopped or failed."""
        if self._metrics is not None:
            self._metrics.close()
        for tracker in self._trackers:
            tracker.close(finished=finished)


def epoch_line(row: Row, epochs: int) -> str:
    """Return an epoch's row as a line for a person."""
    numbers = metrics_text({name: row[name] for name in _curve_names(row)})
    return f"epoch {row['epoch']}/{epochs}  {numbers}  {duration(row['seconds'])}"


def metrics_text(values: Mapping[str, float]) -> str:
    """Return numbers with their names for a person."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


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
