"""Images of any size through a network: in tiles that overlap, without a seam and in little memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.inference.sizes import mirror_indices

Array = NDArray[Any]


@dataclass(frozen=True)
class _TileSpan:
    """A tile along one axis of the mirrored image: `start` and `end`, the part that is used (`first` to
    before `last`), and what each of its pixels counts when tiles are blended."""

    start: int
    end: int
    first: int
    last: int
    share: NDArray[np.float32]


def run_in_tiles(
    run: Callable[[Array], Array],
    image: Array,
    tile: int,
    overlap: int,
    multiple: int = 1,
    batch: int = 1,
    *,
    blend: bool = False,
) -> Array:
    """Run a network over `image` (H, W, C), tile by tile: (H, W, D).

    Tiles lie on the network's own grid of `multiple` pixels in the whole image, which is mirrored at its
    edges as `Restorer` does it. A network whose results depend on neighbourhoods alone gives what it
    gives of the whole image as soon as half of `overlap` reaches as far as the network sees.

    A tile is used up to the middle of what it shares with the next. With `blend` they fade into each
    other by raised cosines: for networks that look at the whole image, whose tiles differ in tone.

    Memory: the image, the result and `batch` tiles; with `blend` also a float32 row of tiles.

    Args:
        run: (N, h, w, C) -> (N, h, w, D), the same h and w: those of all tiles of an image are equal, and
            multiples of `multiple`.
        tile: largest height and width of a tile, in pixels.
        overlap: fewest pixels that neighbours share.
        batch: tiles that `run` is given at once.

    Raises:
        ValueError: an overlap that leaves nothing of a tile; `run` changes height or width.
    """
    tile = max(multiple, tile // multiple * multiple)
    if not 0 <= overlap <= tile - multiple:
        raise ValueError(f"tiles of {tile} pixels can overlap by 0 to {tile - multiple}, not {overlap}")
    height, width = image.shape[:2]
    rows, columns = mirror_indices(height, width, multiple)
    down = _spans(len(rows), tile, overlap, multiple)
    across = _spans(len(columns), tile, overlap, multiple)
    places = ((y, x) for y in down for x in across)
    result: _CutTiles | None = None
    while group := list(islice(places, batch)):
        tiles = np.stack([image[rows[y.start : y.end, None], columns[x.start : x.end]] for y, x in group])
        outputs = run(tiles)
        if outputs.ndim != 4 or outputs.shape[:3] != tiles.shape[:3]:
            raise ValueError(f"the network makes {outputs.shape} of {tiles.shape}: it cannot be tiled")
        if result is None:
            join = _BlendedTiles if blend else _CutTiles
            empty = np.empty((height, width, outputs.shape[3]), outputs.dtype)
            result = join(empty, len(rows), len(columns))
        for (y, x), output in zip(group, outputs, strict=True):
            result.add(y, x, output)
    assert result is not None
    return result.finish()


def _spans(length: int, tile: int, overlap: int, multiple: int) -> list[_TileSpan]:
    """Tiles of one length, spread evenly over `length`, a multiple of `multiple` as they are."""
    tile = min(tile, length)
    step = (tile - overlap) // multiple
    free = (length - tile) // multiple
    count = -(-free // step) + 1 if free else 1
    starts = [index * free // max(1, count - 1) * multiple for index in range(count)]
    cuts = [0, *((after + before + tile) // 2 for before, after in pairwise(starts)), length]
    total = np.zeros(length)
    windows = []
    for index, start in enumerate(starts):
        window = np.ones(tile)
        place = np.arange(tile) + 0.5
        if index:
            window *= _rise(place, starts[index - 1] + tile - start)
        if index + 1 < count:
            window *= _rise(tile - place, start + tile - starts[index + 1])
        total[start : start + tile] += window
        windows.append(window)
    return [
        _TileSpan(start, start + tile, *cut, (window / total[start : start + tile]).astype(np.float32))
        for start, cut, window in zip(starts, pairwise(cuts), windows, strict=True)
    ]


def _rise(place: Array, length: int) -> NDArray[np.float64]:
    """From 0 to 1 over `length` pixels, by half a cosine; never 0: shares of nothing would be undefined."""
    return 0.5 - 0.5 * np.cos(np.pi * (place / max(length, 1)).clip(1e-3, 1.0))


class _CutTiles:
    """A result that each tile fills its part of."""

    def __init__(self, result: Array, rows: int, columns: int) -> None:
        self.result = result
        self.top = (rows - result.shape[0]) // 2
        self.left = (columns - result.shape[1]) // 2

    def add(self, y: _TileSpan, x: _TileSpan, tile: Array) -> None:
        """Take in the tile that lies at `y` and `x`."""
        part = tile[y.first - y.start : y.last - y.start, x.first - x.start : x.last - x.start]
        self._fill(y.first, x.first, part)

    def finish(self) -> Array:
        """The whole result; all tiles were added."""
        return self.result

    def _fill(self, row: int, column: int, part: Array) -> None:
        """Put `part` at `row` and `column` of the mirrored image, but for what lies outside of the image."""
        row -= self.top
        column -= self.left
        part = part[max(0, -row) :, max(0, -column) :]
        row = max(0, row)
        column = max(0, column)
        target = self.result[row : row + part.shape[0], column : column + part.shape[1]]
        target[...] = part[: target.shape[0], : target.shape[1]]


class _BlendedTiles(_CutTiles):
    """A result of weighted sums of tiles, kept as floats as far down as a row of tiles."""

    def __init__(self, result: Array, rows: int, columns: int) -> None:
        super().__init__(result, rows, columns)
        self._columns = columns
        self._row = 0
        self._sums: NDArray[np.float32] | None = None

    def add(self, y: _TileSpan, x: _TileSpan, tile: Array) -> None:
        if self._sums is None:
            self._sums = np.zeros((y.end - y.start, self._columns, tile.shape[2]), np.float32)
        if y.start > self._row:
            done = y.start - self._row
            self._finish_rows(self._sums[:done])
            self._sums[:-done] = self._sums[done:].copy()
            self._sums[-done:] = 0
            self._row = y.start
        self._sums[:, x.start : x.end] += tile * (y.share[:, None, None] * x.share[:, None])

    def finish(self) -> Array:
        assert self._sums is not None
        self._finish_rows(self._sums)
        return self.result

    def _finish_rows(self, sums: NDArray[np.float32]) -> None:
        """Put rows that no tile adds to any more into the result; in place, they are not used again."""
        if self.result.dtype.kind == "u":  # shares can add up to a little more than 1
            np.rint(sums, out=sums).clip(0, np.iinfo(self.result.dtype).max, out=sums)
        self._fill(self._row, 0, sums)
