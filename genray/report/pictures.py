"""Pictures of a network's inputs, outputs and references: images, heartbeats, and heat maps of differences.

Images are (H, W, C) uint8; a picture may contain images of several sizes. RGBA is drawn over a checkerboard.
Small images are enlarged by whole factors, so that a pixel stays a square; images larger than a column are
reduced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genray.images.pixels import Pixels, grid, shown
from genray.report.style import COLOURS, DPI, FAINT, INK, label, render, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NARROWEST, _WIDEST, _WIDEST_OF_FOUR = 196, 336, 240  # pixels, width of a column
_LOWEST = 96  # pixels, size of a histogram
_HEAD, _GAP, _CAPTION = 30, 20, 18  # pixels above the first row, between cells, and of a line of text
_SEVERE = 0.5  # difference of values in [0, 1] that gets the hottest colour


@dataclass(frozen=True)
class RestorationExample:
    """Damaged, restored and clean image, with captions of the first two."""

    before: Pixels
    after: Pixels
    clean: Pixels
    before_caption: str = ""
    after_caption: str = ""


@dataclass(frozen=True)
class BeatExample:
    """Heartbeat (samples,), its reconstruction by a network, and a caption."""

    caption: str
    beat: NDArray[Any]
    reconstruction: NDArray[Any]


def draw_reconstructions(
    originals: Sequence[Pixels], reconstructions: Sequence[Pixels], captions: Sequence[str] = ()
) -> Pixels:
    """Draw rows of original | reconstruction | heat map of the difference | histogram of the difference.

    The heat map is the mean absolute difference over the channels; all rows share its scale, which ends at
    the largest difference. The histogram counts reconstruction - original over pixels and channels, on a
    logarithmic axis, because most differences are near zero.

    Args:
        captions: line under each row, such as its error.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: no images, or pairs of unequal shapes.
    """
    given = list(zip(originals, reconstructions, strict=True))
    if not given:
        raise ValueError("no images to draw")
    for original, reconstruction in given:
        if original.shape != reconstruction.shape:
            raise ValueError(f"an image of {original.shape} beside one of {reconstruction.shape}")
    pairs = [(_drawable(original), _drawable(reconstruction)) for original, reconstruction in given]
    differences = [b.astype(np.int16) - a for a, b in given]
    errors = [np.abs(d).mean(axis=-1) for d in differences]
    largest = max(1.0, *(float(e.max()) for e in errors))
    span = max(1, *(int(np.abs(d).max()) for d in differences))
    with styled():
        sizes = [original.shape[:2] for original, _ in pairs]
        sheet = _Sheet.lay_out(
            sizes, 4, _WIDEST_OF_FOUR, captioned=bool(captions), lowest=_LOWEST, foot=72, aside=30
        )
        for r, (original, reconstruction) in enumerate(pairs):
            sheet.image(r, 0, original)
            sheet.image(r, 1, reconstruction)
            sheet.heat_map(r, 2, errors[r], "magma", largest)
            _draw_histogram(sheet.axes(r, 3), differences[r], span, last=r == len(pairs) - 1)
            sheet.caption(r, 0, captions[r] if r < len(captions) else "", columns=4)
        sheet.headings(["original", "reconstruction", "difference", "number of differences"])
        sheet.colour_bar(2, "magma", largest, "absolute difference (0 to 255)")
        return sheet.render()


def draw_restorations(examples: Sequence[RestorationExample]) -> Pixels:
    """Draw rows of before | after | clean, with a caption (such as PSNR and SSIM) under before and after.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: no images, or images of different sizes in a row.
    """
    if not examples:
        raise ValueError("no images to draw")
    with styled():
        sizes = [_drawable(example.clean).shape[:2] for example in examples]
        sheet = _Sheet.lay_out(sizes, 3, _WIDEST, captioned=True)
        for r, example in enumerate(examples):
            for c, image in enumerate((example.before, example.after, example.clean)):
                drawable = _drawable(image)
                if drawable.shape[:2] != example.clean.shape[:2]:
                    raise ValueError(f"an image of {image.shape} beside one of {example.clean.shape}")
                sheet.image(r, c, drawable)
            sheet.caption(r, 0, example.before_caption)
            sheet.caption(r, 1, example.after_caption)
        sheet.headings(["before", "after", "clean"])
        return sheet.render()


def draw_tiles(images: Sequence[Pixels], columns: int = 8, titles: Sequence[str] = ()) -> Pixels:
    """Draw images of one size as a grid, row by row: samples, or an interpolation in each row.

    Args:
        titles: headings of the columns.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: no images, or images of different sizes.
    """
    tiles = [_drawable(image) for image in images]
    if not tiles or len({tile.shape[:2] for tile in tiles}) > 1:
        raise ValueError("tiles must be images of one size, one at least")
    factor = max(1, 84 // max(tiles[0].shape[:2]))
    tiles = [tile.repeat(factor, axis=0).repeat(factor, axis=1) for tile in tiles]
    return grid([tiles[i : i + columns] for i in range(0, len(tiles), columns)], [label(t) for t in titles])


def draw_beats(
    rows: Sequence[tuple[str, Sequence[BeatExample]]],
    window: tuple[float, float] | None,
    unit: str = "deviations",
) -> NDArray[np.uint8]:
    """Draw beats with their reconstructions and shaded error; all panels share their axes.

    Args:
        rows: title and examples of each row; rows may differ in length.
        window: seconds of a beat before and after its R peak, where time is 0 (None: the axis counts
            samples).
        unit: unit of the values.

    Returns:
        (H, W, 3) uint8, as wide as the longest row has beats.

    Raises:
        ValueError: no beats.
    """
    columns = max((len(beats) for _, beats in rows), default=0)
    if not columns:
        raise ValueError("no beats to draw")
    from matplotlib.figure import Figure

    examples = [example for _, beats in rows for example in beats]
    values = np.concatenate([part for example in examples for part in (example.beat, example.reconstruction)])
    low = float(values.min())
    high = float(values.max())
    edge = 0.05 * (high - low or 1.0)
    ends = None if window is None else (-1000 * window[0], 1000 * window[1])
    with styled():
        width, height = 2.4 * columns + 0.8, 2.0 * len(rows) + 0.9
        figure = Figure(figsize=(width, height))  # laid out here: automatic layout takes longer than drawing
        figure.subplots_adjust(
            left=0.6 / width,
            right=1 - 0.2 / width,
            top=1 - 0.3 / height,
            bottom=0.75 / height,
            hspace=0.25,
            wspace=0.08,
        )
        legend: list[Any] = []
        for r, (title, beats) in enumerate(rows):
            for c, example in enumerate(beats):
                beat, made = example.beat, example.reconstruction
                axes = figure.add_subplot(len(rows), columns, r * columns + c + 1)
                time = np.linspace(*ends, len(beat)) if ends else np.arange(len(beat))
                shade = axes.fill_between(time, beat, made, color=COLOURS[2], alpha=0.3, linewidth=0)
                (first,) = axes.plot(time, beat, color=INK, linewidth=1.2)
                (second,) = axes.plot(time, made, color=COLOURS[0], linewidth=1.2)
                legend = [first, second, shade]
                axes.set_ylim(low - edge, high + edge)
                heading = f"{title} {example.caption}" if c == 0 else example.caption
                axes.set_title(label(heading, 40), fontsize=9)
                axes.tick_params(labelsize=8, labelbottom=r == len(rows) - 1, labelleft=c == 0)
                if c == 0:
                    axes.set_ylabel(label(unit), fontsize=8)
                if r == len(rows) - 1:
                    axes.set_xlabel("ms from the R peak" if ends else "sample", fontsize=8)
        names = ["beat", "reconstruction", "error"]
        figure.legend(legend, names, loc="lower left", ncols=3, fontsize=8)
        return render(figure)


def draw_heat_map(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw `before` in gray with a heat map of its difference to `after`, both (H, W, C) uint8, as (H, W, 3).

    The scale is fixed, so that pictures of one run can be compared: black, red, yellow, and white at a
    difference of half the range.
    """
    difference = np.abs(before.astype(np.float32) - after).mean(axis=-1) / 255
    heat = np.clip(difference / _SEVERE, 0.0, 1.0)
    ramp = np.stack([np.clip(3 * heat - k, 0.0, 1.0) for k in range(3)], axis=-1)
    ground = before.astype(np.float32).mean(axis=-1, keepdims=True) / 255
    share = np.sqrt(heat)[..., None]
    mixed = ground * 0.6 * (1 - share) + ramp * share
    return np.asarray(np.rint(mixed * 255), np.uint8)


@dataclass(frozen=True)
class _Sheet:
    """Figure laid out in pixels, so that an image's pixels fall on the picture's.

    Attributes:
        figure: matplotlib figure.
        sizes: height and width of each row's images, on the sheet.
        tops: top of each row.
        box: width of a column.
        height, width: size of the sheet.
        last: index of the last column.
        aside: gap before the last column, for the numbers on its axis.
        lowest: smallest height of a row.
    """

    figure: Figure
    sizes: Sequence[tuple[int, int]]
    tops: Sequence[int]
    box: int
    height: int
    width: int
    last: int
    aside: int
    lowest: int

    @classmethod
    def lay_out(
        cls,
        sizes: Sequence[tuple[int, ...]],
        columns: int,
        widest: int,
        *,
        captioned: bool,
        lowest: int = 0,
        foot: int = 0,
        aside: int = 0,
    ) -> _Sheet:
        """Return an empty sheet for rows of images.

        Args:
            sizes: height and width of each row's images.
            widest: largest width of a column.
            captioned: true for a line of text under each row.
            lowest: smallest height of a row.
            foot: height under the rows.
            aside: gap before the last column, for the numbers on its axis.
        """
        from matplotlib.figure import Figure

        shown = [_size_on_sheet(size[0], size[1], widest) for size in sizes]
        box = max(_NARROWEST, max(width for _, width in shown))
        line = _GAP + (_CAPTION if captioned else 0)
        heights = [max(height, lowest) + line for height, _ in shown]
        height = _HEAD + sum(heights) + foot
        width = columns * (box + _GAP) + _GAP + aside
        return cls(
            figure=Figure(figsize=(width / DPI, height / DPI)),
            sizes=shown,
            tops=[_HEAD + sum(heights[:r]) for r in range(len(heights))],
            box=box,
            height=height,
            width=width,
            last=columns - 1,
            aside=aside,
            lowest=lowest,
        )

    def axes(self, row: int, column: int) -> Axes:
        """Return axes over a cell."""
        height = max(self.sizes[row][0], self.lowest)
        return self._place(self._left(column), self.tops[row], self.box, height)

    def heat_map(self, row: int, column: int, values: NDArray[Any], cmap: str, largest: float) -> None:
        """Draw numbers (H, W) from 0 to `largest` as colours into a cell."""
        height, width = self.sizes[row]
        axes = self._place(self._left(column), self.tops[row], width, height)
        axes.set_axis_off()
        smoothing = "nearest" if values.shape[0] <= height else "antialiased"
        axes.imshow(values, aspect="auto", interpolation=smoothing, cmap=cmap, vmin=0.0, vmax=largest)

    def image(self, row: int, column: int, image: NDArray[Any]) -> None:
        """Draw an image into a cell."""
        height, width = self.sizes[row]
        axes = self._place(self._left(column), self.tops[row], width, height)
        axes.set_axis_off()
        if image.shape[0] > height:
            colour = np.broadcast_to(image, (*image.shape[:2], 3))
            image = np.asarray(Image.fromarray(colour).resize((width, height), Image.Resampling.LANCZOS))
        gray = image[..., 0] if image.shape[-1] == 1 else image
        axes.imshow(gray, aspect="auto", interpolation="nearest", cmap="gray", vmin=0, vmax=255)

    def caption(self, row: int, column: int, text: str, columns: int = 1) -> None:
        """Write a small line under an image, cut at the next column."""
        top = self.tops[row] + self.sizes[row][0] + 4
        self._text(self._left(column), top, label(text, self.box * columns // 7), color=FAINT, fontsize=9)

    def headings(self, texts: Sequence[str]) -> None:
        """Write headings over the columns."""
        for column, text in enumerate(texts):
            self._text(self._left(column), 8, text, color=INK, fontsize=10.5, fontweight="bold")

    def colour_bar(self, column: int, cmap: str, largest: float, text: str) -> None:
        """Draw the scale of a column's heat maps, from 0 to `largest`, under the column."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        axes = self._place(self._left(column), self.height - 54, self.box, 10)
        mappable = ScalarMappable(Normalize(0.0, largest), cmap)
        bar = self.figure.colorbar(mappable, cax=axes, orientation="horizontal", label=text)
        bar.outline.set_visible(False)

    def render(self) -> Pixels:
        """Return the picture."""
        return render(self.figure)

    def _left(self, column: int) -> int:
        return _GAP + column * (self.box + _GAP) + (self.aside if column == self.last else 0)

    def _place(self, left: int, top: int, width: int, height: int) -> Axes:
        bottom = self.height - top - height
        return self.figure.add_axes(
            (left / self.width, bottom / self.height, width / self.width, height / self.height)
        )

    def _text(self, left: int, top: int, text: str, **how: Any) -> None:
        self.figure.text(left / self.width, 1 - top / self.height, text, va="top", **how)


def _draw_histogram(axes: Axes, differences: NDArray[np.int16], span: int, *, last: bool) -> None:
    from matplotlib.ticker import EngFormatter

    # Bins of equally many whole numbers, zero in the middle of one: otherwise the bars are uneven.
    width = (2 * span // 60) | 1
    beyond = (span // width + 1) * width + width / 2
    edges = np.arange(-beyond, beyond + 1, width)
    counts, _ = np.histogram(differences, edges)
    axes.stairs(counts + 0.0, edges, fill=True, color=COLOURS[0])
    axes.set_yscale("log")
    axes.set_ylim(0.7, max(10.0, counts.max() * 2.0))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.minorticks_off()
    axes.tick_params(labelsize=8.5, labelbottom=last)
    if last:
        axes.set_xlabel("reconstruction - original", fontsize=8.5)


def _drawable(image: Pixels) -> Pixels:
    """Return an image as gray or RGB, see `shown`.

    Raises:
        ValueError: not an image.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or not image.size:
        raise ValueError(f"an image is (H, W, C) uint8, not {image.shape} {image.dtype}")
    return image if image.shape[-1] == 1 else shown(image)


def _size_on_sheet(height: int, width: int, widest: int) -> tuple[int, int]:
    shrink = min(1.0, widest / max(height, width))
    factor = max(1, _NARROWEST // max(height, width))
    return max(1, round(height * shrink * factor)), max(1, round(width * shrink * factor))
