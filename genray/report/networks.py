"""Drawing of a network: a bar for each stage, as wide as its features are large."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.sax.saxutils import escape

from genray.models.summary import Layer, NetworkSummary
from genray.report.page import Drawing
from genray.text import encodable

_WIDTH = 760
_ROW = 34  # height of a stage with its gap, in pixels
_BAR = 24
_MIDDLE = 300  # middle of the bars
_WIDEST = 260
_NARROWEST = 90  # as wide as the text in it
_TEXT = 450  # left edge of the kinds of layers
_MOST_STAGES = 60
_MOST_TEXT = 46  # characters beside a bar
# Colours that are readable on light and dark pages alike.
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.n{fill:#666}.b{fill:#dbe7f5;stroke:#4878a8}"
    "line{stroke:#999}@media(prefers-color-scheme:dark){text{fill:#ddd}.n{fill:#aaa}"
    ".b{fill:#26384c;stroke:#7ba7d3}}"
)


@dataclass(frozen=True)
class _Stage:
    """Neighbouring layers of one part of the network whose outputs have one shape."""

    layers: Sequence[Layer]

    @property
    def place(self) -> str:
        return _part(self.layers[0])

    @property
    def text(self) -> str:
        names = (layer.kind.split(" ")[0] for layer in self.layers)
        counts: dict[str, int] = {}
        for name in names:
            counts[name] = counts.get(name, 0) + 1
        parts = [f"{count} x {name}" if count > 1 else name for name, count in counts.items()]
        parameters = sum(layer.parameters for layer in self.layers)
        return (f"{parameters:,}: " if parameters else "") + ", ".join(parts)


def draw_network(network: NetworkSummary) -> Drawing:
    """Draw the stages of a network from top to bottom, with the shape, the layers and the parameters of each.

    A bar is as wide as the logarithm of the height and width of the features, so that an autoencoder looks
    like an hourglass.
    """
    stages = [_Stage(list(group)) for _, group in groupby(network.layers, lambda x: (_part(x), x.output))]
    left_out = len(stages) - _MOST_STAGES
    shown = stages if left_out <= 0 else [*stages[: _MOST_STAGES // 2], *stages[-_MOST_STAGES // 2 :]]
    # Networks of dense layers, or of unknown shapes, have no sides.
    largest = max((_size(stage.layers[0].output) for stage in shown), default=0.0) or 1.0
    height = _ROW * len(shown) + 14
    marks: list[str] = []
    for index, stage in enumerate(shown):
        top = 8 + _ROW * index
        if index:
            marks.append(f'<line x1="{_MIDDLE}" x2="{_MIDDLE}" y1="{top - _ROW + _BAR}" y2="{top}"/>')
        share = _size(stage.layers[0].output) / largest
        width = round(_NARROWEST + (_WIDEST - _NARROWEST) * share)
        marks.append(
            f'<rect class="b" x="{_MIDDLE - width // 2}" y="{top}" width="{width}" height="{_BAR}" rx="4"/>'
        )
        base = top + _BAR - 8
        marks.append(_text(_MIDDLE, base, stage.layers[0].output_text, anchor="middle"))
        marks.append(_text(10, base, stage.place, kind="n"))
        marks.append(_text(_TEXT, base, stage.text))
    if left_out > 0:
        marks.append(_text(10, height - 2, f"{left_out} stages in the middle are not drawn", kind="n"))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}"><style>{_STYLE}</style>{"".join(marks)}</svg>'
    )
    return Drawing(svg, _WIDTH, height)


def _part(layer: Layer) -> str:
    """Return the part of the network that a layer belongs to, without its number: encoder of encoder.0, "" of
    0."""
    names = [name for name in layer.name.split(".") if not name.isdigit()]
    return ".".join(names[:-1]) or "".join(names)


def _size(output: Sequence[int]) -> float:
    """Return the logarithm of the mean side of features; 0 for codes and unknown shapes."""
    sides = output[1:]
    return math.log2(1 + math.prod(sides) ** (1 / len(sides))) if sides else 0.0


def _text(x: int, y: int, text: str, *, kind: str = "", anchor: str = "start") -> str:
    if len(text) > _MOST_TEXT:
        text = text[: _MOST_TEXT - 3] + "..."
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in encodable(text))
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{of_kind}>{escape(printable)}</text>'
