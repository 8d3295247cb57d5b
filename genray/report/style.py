"""Style of every drawing, with colours for all kinds of colour vision, and rendering to pixels."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genray.text import encodable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100  # pixels per inch of a drawing
INK, FAINT, LINE = "#1b1f24", "#59636e", "#d5dae0"
COLOURS = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
"""Colours of Petroff 2021 (arXiv:2107.02270): ten that stay distinct with every common colour blindness."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
"""Markers, which distinguish groups without colours."""


@contextmanager
def styled() -> Iterator[None]:
    """Apply the style to drawings made and rendered inside; matplotlib's own settings stay as they are."""
    import matplotlib
    from cycler import cycler

    with warnings.catch_warnings(), matplotlib.rc_context():
        # Characters that the font lacks are drawn as boxes; the warning would disturb a training.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        matplotlib.rcdefaults()  # ignores the user's matplotlibrc
        matplotlib.rcParams.update(_PARAMETERS | {"axes.prop_cycle": cycler(color=COLOURS)})
        yield


def render(figure: Figure) -> NDArray[np.uint8]:
    """Return the drawing as (H, W, 3) uint8 on white."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)  # matplotlib has no type for it
    canvas.draw()
    return np.array(np.asarray(canvas.buffer_rgba())[..., :3])


def label(text: str, most: int = 40) -> str:
    """Return `text` from outside as one line of at most `most` characters that matplotlib can show."""
    line = re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", encodable(text)).strip()
    if text and not line:
        line = "?"
    if len(line) > most:
        line = f"{line[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
    return f" {line}" if line.startswith("_") else line  # matplotlib hides names that begin with _


_PARAMETERS: dict[Any, Any] = {
    "figure.dpi": DPI,
    "figure.facecolor": "white",
    "figure.constrained_layout.w_pad": 0.1,  # inches
    "figure.constrained_layout.h_pad": 0.1,
    "font.family": "DejaVu Sans",  # part of matplotlib
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "text.parse_math": False,  # names may contain $
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
}
