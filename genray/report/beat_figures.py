"""Drawings of heartbeats: each with what a network made of it, and the error between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.report.style import COLOURS, INK, label, render, styled

Beat = tuple[str, NDArray[Any], NDArray[Any]]
"""A caption, the beat (samples,), its reconstruction (samples,)."""


def draw_beats(
    rows: Sequence[tuple[str, Sequence[Beat]]],
    window: tuple[float, float] | None,
    unit: str = "deviations",
) -> NDArray[np.uint8]:
    """Beats with their reconstructions, the error between them shaded; all panels share their axes.

    Args:
        rows: for each a title and its beats; a row may be shorter than others.
        window: seconds of a beat before its R peak, where time is 0, and after that; None: samples are
            counted.
        unit: of the values.

    Returns:
        (H, W, 3) uint8, as wide as the longest row has beats.

    Raises:
        ValueError: no beats.
    """
    columns = max((len(beats) for _, beats in rows), default=0)
    if not columns:
        raise ValueError("no beats to draw")
    from matplotlib.figure import Figure

    values = np.concatenate([np.concatenate(b[1:]) for _, beats in rows for b in beats])
    low, high = float(values.min()), float(values.max())
    edge = 0.05 * (high - low or 1.0)
    ends = None if window is None else (-1000 * window[0], 1000 * window[1])
    with styled():
        width, height = 2.4 * columns + 0.8, 2.0 * len(rows) + 0.9
        figure = Figure(figsize=(width, height))  # laid out here: finding the room takes longer than drawing
        figure.subplots_adjust(
            left=0.6 / width,
            right=1 - 0.2 / width,
            top=1 - 0.3 / height,
            bottom=0.75 / height,
            hspace=0.25,
            wspace=0.08,
        )
        looks: list[Any] = []
        for r, (title, beats) in enumerate(rows):
            for c, (caption, beat, made) in enumerate(beats):
                axes = figure.add_subplot(len(rows), columns, r * columns + c + 1)
                time = np.linspace(*ends, len(beat)) if ends else np.arange(len(beat))
                shade = axes.fill_between(time, beat, made, color=COLOURS[2], alpha=0.3, linewidth=0)
                (first,) = axes.plot(time, beat, color=INK, linewidth=1.2)
                (second,) = axes.plot(time, made, color=COLOURS[0], linewidth=1.2)
                looks = [first, second, shade]
                axes.set_ylim(low - edge, high + edge)
                axes.set_title(label(f"{title} {caption}" if c == 0 else caption, 40), fontsize=9)
                axes.tick_params(labelsize=8, labelbottom=r == len(rows) - 1, labelleft=c == 0)
                if c == 0:
                    axes.set_ylabel(label(unit), fontsize=8)
                if r == len(rows) - 1:
                    axes.set_xlabel("ms from the R peak" if ends else "sample", fontsize=8)
        names = ["beat", "reconstruction", "error"]
        figure.legend(looks, names, loc="lower left", ncols=3, fontsize=8)
        return render(figure)
