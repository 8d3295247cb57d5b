"""Drawings of images: what a network made of them, beside what they were and should be.

Images are (H, W, C) uint8, C 1, 3 or 4; a picture may hold images of several sizes. Small ones are enlarged
by whole factors, so that a pixel stays a square; those that are larger than a column are made smaller.

Drawings of heartbeats: each with what a network made of it, and the error between them.

Heat maps: where two images differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genray.images.pixels import Pixels, grid
from genray.report.style import COLOURS, DPI, FAINT, INK, label, render, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DrawnRestoration = tuple[Pixels, Pixels, Pixels, str, str]
"""Before, after, clean; captions of before and after."""


def draw_reconstructions(
    originals: Sequence[Pixels], reconstructions: Sequence[Pixels], captions: Sequence[str] = ()
) -> Pixels:
    """Rows of original | reconstruction | difference as a heat map | difference as a histogram.

    The heat map is the mean absolute difference over the channels; all rows share its scale, which ends at
    the largest difference. The histogram counts reconstruction - original over pixels and channels, on a
    logarithmic axis: most differences are near zero.

    Args:
        captions: a line under each row, such as its error.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: no images, or pairs that do not fit one another.
    """
    pairs = list(zip(map(_checked, originals), map(_checked, reconstructions), strict=True))
    if not pairs:
        raise ValueError("no images to draw")
    for original, reconstruction in pairs:
        if original.shape != reconstruction.shape:
            raise ValueError(f"an image of {original.shape} beside one of {reconstruction.shape}")
    differences = [b.astype(np.int16) - a for a, b in pairs]
    errors = [np.abs(d).mean(axis=-1) for d in differences]
    largest = max(1.0, *(float(e.max()) for e in errors))
    span = max(1, *(int(np.abs(d).max()) for d in differences))
    with styled():
        sizes = [original.shape[:2] for original, _ in pairs]
        sheet = _Sheet(sizes, 4, _WIDEST_OF_FOUR, captioned=bool(captions), lowest=_LOWEST, foot=72, aside=30)
        for r, (original, reconstruction) in enumerate(pairs):
            sheet.image(r, 0, original)
            sheet.image(r, 1, reconstruction)
            sheet.image(r, 2, errors[r], cmap="magma", vmin=0.0, vmax=largest)
            _draw_histogram(sheet.axes(r, 3), differences[r], span, last=r == len(pairs) - 1)
            sheet.caption(r, 0, captions[r] if r < len(captions) else "", columns=4)
        sheet.headings(["original", "reconstruction", "difference", "number of differences"])
        sheet.colour_bar(2, "magma", largest, "absolute difference (0 to 255)")
        return sheet.render()


def draw_restorations(rows: Sequence[DrawnRestoration]) -> Pixels:
    """Rows of before | after | clean, with a caption (such as PSNR and SSIM) under before and after.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: no images, or three that are not of one size.
    """
    if not rows:
        raise ValueError("no images to draw")
    with styled():
        sheet = _Sheet([_checked(clean).shape[:2] for _, _, clean, _, _ in rows], 3, _WIDEST, captioned=True)
        for r, (before, after, clean, *captions) in enumerate(rows):
            for c, image in enumerate((before, after, clean)):
                if _checked(image).shape[:2] != clean.shape[:2]:
                    raise ValueError(f"an image of {image.shape} beside one of {clean.shape}")
                sheet.image(r, c, image)
            for c, caption in enumerate(captions):
                sheet.caption(r, c, caption)
        sheet.headings(["before", "after", "clean"])
        return sheet.render()


def draw_tiles(images: Sequence[Pixels], columns: int = 8, titles: Sequence[str] = ()) -> Pixels:
    """Images of one size as a grid, row by row: samples, or interpolations with a row for each.

    Args:
        titles: over the columns.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: no images, or not all of one height and width.
    """
    tiles = [_checked(image) for image in images]
    if not tiles or len({tile.shape[:2] for tile in tiles}) > 1:
        raise ValueError("tiles must be images of one size, one at least")
    factor = _factor(max(tiles[0].shape[:2]), wanted=84)
    tiles = [tile.repeat(factor, axis=0).repeat(factor, axis=1) for tile in tiles]
    return grid([tiles[i : i + columns] for i in range(0, len(tiles), columns)], [label(t) for t in titles])


class _Sheet:
    """A figure laid out in pixels, so that an image's pixels fall on the picture's.

    Args:
        sizes: height and width of each row's images.
        widest: pixels of a column at most.
        captioned: whether there is a line of text under each row.
        lowest: height of a row at least.
        foot: room under the rows.
        aside: by how much the last column stands off, for the numbers on its axis.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, ...]],
        columns: int,
        widest: int,
        *,
        captioned: bool,
        lowest: int = 0,
        foot: int = 0,
        aside: int = 0,
    ) -> None:
        from matplotlib.figure import Figure

        self._sizes = [_shown(size[0], size[1], widest) for size in sizes]
        self._box = max(_NARROWEST, max(width for _, width in self._sizes))
        line = _GAP + (_CAPTION if captioned else 0)
        heights = [max(height, lowest) + line for height, _ in self._sizes]
        self._tops = [_HEAD + sum(heights[:r]) for r in range(len(heights))]
        self._height = _HEAD + sum(heights) + foot
        self._width = columns * (self._box + _GAP) + _GAP + aside
        self._last, self._aside, self._lowest = columns - 1, aside, lowest
        self._figure = Figure(figsize=(self._width / DPI, self._height / DPI))

    def axes(self, row: int, column: int) -> Axes:
        """Axes over a cell."""
        height = max(self._sizes[row][0], self._lowest)
        return self._place(self._left(column), self._tops[row], self._box, height)

    def image(self, row: int, column: int, image: NDArray[Any], **shown: Any) -> None:
        """An image, or (H, W) numbers with their colour map, in a cell."""
        height, width = self._sizes[row]
        axes = self._place(self._left(column), self._tops[row], width, height)
        axes.set_axis_off()
        if "cmap" in shown:
            axes.imshow(image, aspect="auto", interpolation=_interpolation(image, height), **shown)
            return
        if image.shape[0] > height:
            colour = np.broadcast_to(image, (*image.shape[:2], 3))
            image = np.asarray(Image.fromarray(colour).resize((width, height), Image.Resampling.LANCZOS))
        gray = image[..., 0] if image.shape[-1] == 1 else image
        axes.imshow(gray, aspect="auto", interpolation="nearest", cmap="gray", vmin=0, vmax=255)

    def caption(self, row: int, column: int, text: str, columns: int = 1) -> None:
        """A small line under an image, cut where the next of its kind would begin."""
        top = self._tops[row] + self._sizes[row][0] + 4
        self._text(self._left(column), top, label(text, self._box * columns // 7), color=FAINT, fontsize=9)

    def headings(self, texts: Sequence[str]) -> None:
        """Words over the columns."""
        for column, text in enumerate(texts):
            self._text(self._left(column), 8, text, color=INK, fontsize=10.5, fontweight="bold")

    def colour_bar(self, column: int, cmap: str, largest: float, text: str) -> None:
        """The scale of a column's heat maps, from 0 to `largest`, under it."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        axes = self._place(self._left(column), self._height - 54, self._box, 10)
        mappable = ScalarMappable(Normalize(0.0, largest), cmap)
        bar = self._figure.colorbar(mappable, cax=axes, orientation="horizontal", label=text)
        bar.outline.set_visible(False)

    def render(self) -> Pixels:
        """The picture so far."""
        return render(self._figure)

    def _left(self, column: int) -> int:
        return _GAP + column * (self._box + _GAP) + (self._aside if column == self._last else 0)

    def _place(self, left: int, top: int, width: int, height: int) -> Axes:
        bottom = self._height - top - height
        return self._figure.add_axes(
            (left / self._width, bottom / self._height, width / self._width, height / self._height)
        )

    def _text(self, left: int, top: int, text: str, **how: Any) -> None:
        self._figure.text(left / self._width, 1 - top / self._height, text, va="top", **how)


def _draw_histogram(axes: Axes, differences: NDArray[np.int16], span: int, *, last: bool) -> None:
    from matplotlib.ticker import EngFormatter

    # As many whole numbers in each bin, and zero in the middle of one: otherwise the bars are uneven.
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


def _checked(image: Pixels) -> Pixels:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4) or not image.size:
        raise ValueError(f"an image is (H, W, 1, 3 or 4) uint8, not {image.shape} {image.dtype}")
    return image[..., :3]


def _factor(side: int, wanted: int) -> int:
    return max(1, wanted // side)


def _shown(height: int, width: int, widest: int) -> tuple[int, int]:
    """Height and width on a sheet."""
    shrink = min(1.0, widest / max(height, width))
    factor = _factor(max(height, width), _NARROWEST)
    return max(1, round(height * shrink * factor)), max(1, round(width * shrink * factor))


def _interpolation(image: NDArray[Any], height: int) -> str:
    return "nearest" if image.shape[0] <= height else "antialiased"


_NARROWEST, _WIDEST, _WIDEST_OF_FOUR = 196, 336, 240  # pixels of a column
_LOWEST = 96  # pixels of a histogram
_HEAD, _GAP, _CAPTION = 30, 20, 18  # over the first row, between cells, for a line of text


DrawnBeat = tuple[str, NDArray[Any], NDArray[Any]]
"""A caption, the beat (samples,), its reconstruction (samples,)."""


def draw_beats(
    rows: Sequence[tuple[str, Sequence[DrawnBeat]]],
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


_SEVERE = 0.5  # difference of values in [0, 1] that is drawn as hot as there is


def heat_map(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, C) uint8 twice -> (H, W, 3): `before` in gray, glowing where `after` differs from it.

    The scale is fixed, so that pictures of one run can be compared: from black by red and yellow to white at
    a difference of half the range.
    """
    difference = np.abs(before.astype(np.float32) - after).mean(axis=-1) / 255
    heat = np.clip(difference / _SEVERE, 0.0, 1.0)
    ramp = np.stack([np.clip(3 * heat - k, 0.0, 1.0) for k in range(3)], axis=-1)
    ground = before.astype(np.float32).mean(axis=-1, keepdims=True) / 255
    share = np.sqrt(heat)[..., None]
    mixed = ground * 0.6 * (1 - share) + ramp * share
    return np.asarray(np.rint(mixed * 255), np.uint8)
