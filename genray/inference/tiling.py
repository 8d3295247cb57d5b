"""Networks on images of any size: in overlapping tiles, without seams and with little memory."""

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
    """A tile along one axis of the mirrored image: `start` and `end`, the part that is used (from `first` to
    before `last`), and the weight of each of its pixels when tiles are blended."""

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
    """Run a network over `image` (H, W, C), tile by tile; returns (H, W, D).

    Tiles lie on the network's own grid of `multiple` pixels in the whole image, which is mirrored at its
    edges as `Restorer` does it. A network whose outputs depend only on neighbourhoods gives the
    same result as for the whole image if half of `overlap` is at least the radius of those neighbourhoods.

    A tile is used up to the middle of its overlap with the next. With `blend` tiles fade into each other by
    raised cosines, for networks that depend on the whole image, whose tiles differ in tone.

    Memory: the image, the result and `batch` tiles; with `blend` also a float32 row of tiles.

    Args:
        run: network from (N, h, w, C) to (N, h, w, D), with the same h and w, which are multiples of
            `multiple` and equal for all tiles of an image.
        tile: largest height and width of a tile, in pixels.
        overlap: fewest pixels that neighbouring tiles share.
        batch: number of tiles in a call of `run`.

    Raises:
        ValueError: the overlap is as large as a tile, or `run` changes height or width.
    """
    tile = max(multiple, tile // multiple * multiple)
    if not 0 <= overlap <= tile - multiple:
        raise ValueError(
            f"tiles of {tile} pixels can overlap by 0 to {tile - multiple} pixels, not {overlap}"
        )
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
            raise ValueError(
                f"the network cannot be tiled, as its output for {tiles.shape} is {outputs.shape}"
            )
        if result is None:
            join = _BlendedTiles if blend else _CutTiles
            empty = np.empty((height, width, outputs.shape[3]), outputs.dtype)
            result = join(empty, len(rows), len(columns))
        for (y, x), output in zip(group, outputs, strict=True):
            result.add(y, x, output)
    assert result is not None
    return result.finish()


def _spans(length: int, tile: int, overlap: int, multiple: int) -> list[_TileSpan]:
    """Return tiles of one length, spread evenly over `length`; both are multiples of `multiple`."""
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
    """Return weights from 0 to 1 over `length` pixels, half a cosine; none is 0, as sums of 0 cannot
    divide."""
    return 0.5 - 0.5 * np.cos(np.pi * (place / max(length, 1)).clip(1e-3, 1.0))


class _CutTiles:
    """Result in which each tile fills its part."""

    def __init__(self, result: Array, rows: int, columns: int) -> None:
        self.result = result
        self.top = (rows - result.shape[0]) // 2
        self.left = (columns - result.shape[1]) // 2

    def add(self, y: _TileSpan, x: _TileSpan, tile: Array) -> None:
        """Add the tile at `y` and `x`."""
        part = tile[y.first - y.start : y.last - y.start, x.first - x.start : x.last - x.start]
        self._fill(y.first, x.first, part)

    def finish(self) -> Array:
        """Return the whole result, after all tiles were added."""
        return self.result

    def _fill(self, row: int, column: int, part: Array) -> None:
        """Write `part` at `row` and `column` of the mirrored image, except what is outside of the image."""
        row -= self.top
        column -= self.left
        part = part[max(0, -row) :, max(0, -column) :]
        row = max(0, row)
        column = max(0, column)
        target = self.result[row : row + part.shape[0], column : column + part.shape[1]]
        target[...] = part[: target.shape[0], : target.shape[1]]


class _BlendedTiles(_CutTiles):
    """Result of weighted sums of tiles, stored as floats only for a row of tiles."""

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
        """Move rows that no tile adds to any more into the result; in place, as they are not used again."""
        if self.result.dtype.kind == "u":  # weights can add up to a little more than 1
            np.rint(sums, out=sums).clip(0, np.iinfo(self.result.dtype).max, out=sums)
        self._fill(self._row, 0, sums)
