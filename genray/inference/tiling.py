"""Images of any size through a network: in tiles that overlap, without a seam and in little memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from genray.bundle import ImageSpec
from genray.models.autoencoder import Autoencoder, up_to_multiple
from genray.models.pix2pix import UNet
from genray.models.restorer import Restorer

Array = NDArray[Any]

_MAX_PROBE = 1024  # pixels; a network that sees further than a quarter of it counts as seeing all


@dataclass(frozen=True)
class Sizes:
    """What a network takes: `fixed` alone (height and width, or the length of a vector), or any multiples of
    `multiple`, and what is not one `mirrored`."""

    multiple: int = 1
    fixed: tuple[int, ...] | None = None
    mirrored: bool = False

    @property
    def example(self) -> tuple[int, ...]:
        """A size that it takes, of several multiples: what is a single pixel inside can be special."""
        return self.fixed or (2 * self.multiple, 3 * self.multiple)

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether images, or vectors, of `shape` are taken."""
        if self.fixed is not None:
            return shape == self.fixed
        return min(shape) > 0 and (self.mirrored or not any(side % self.multiple for side in shape))

    def __str__(self) -> str:
        return f"{self.fixed} alone" if self.fixed else f"multiples of {self.multiple}"


def sizes(network: nn.Module, takes: ImageSpec | None, size: tuple[int, int] | None = None) -> Sizes | None:
    """The sizes that `network`, or the autoencoder that is a part of it, takes; None if nobody knows.

    Args:
        takes: the images that go in; None: vectors.
        size: height and width, for a network that does not say itself.
    """
    if isinstance(network, Restorer):
        return Sizes(network.multiple, mirrored=True)
    if isinstance(network, UNet):
        return Sizes(2**network.depth)
    for part in network.modules():
        if isinstance(part, Autoencoder):
            return Sizes(fixed=part.shape[1:] if takes else (part.latent,))
    return Sizes(fixed=size) if size else None


def mirrored(batch: Array, multiple: int) -> Array:
    """(N, H, W, C) mirrored at its edges until `multiple` divides height and width: the pixels that
    `genray.models.restorer.mirror_to_multiple` gives."""
    height, width = batch.shape[1:3]
    if not height % multiple and not width % multiple:
        return batch
    rows, columns = _sources(height, width, multiple)
    return np.ascontiguousarray(batch[:, rows[:, None], columns])


def _sources(height: int, width: int, multiple: int) -> list[NDArray[np.intp]]:
    """Which row, and which column, of the image each one of the mirrored image is."""
    added = [up_to_multiple(side, multiple) - side for side in (height, width)]
    fits = all(more - more // 2 < side for more, side in zip(added, (height, width), strict=True))
    sources = []
    for more, side in zip(added, (height, width), strict=True):
        place = np.arange(side + more) - more // 2
        last = side - 1
        sources.append(last - np.abs(last - np.abs(place)) if fits else place.clip(0, last))
    return sources


@dataclass(frozen=True)
class _TileSpan:
    """A tile along one axis of the mirrored image: `start` and `end`, the part that is used (`first` to
    before `last`), and what each of its pixels counts when tiles are blended."""

    start: int
    end: int
    first: int
    last: int
    share: NDArray[np.float32]


def tiled(
    run: Callable[[Array], Array],
    image: Array,
    tile: int,
    overlap: int,
    multiple: int = 1,
    batch: int = 1,
    blend: bool = False,
) -> Array:
    """What `run` makes of `image` (H, W, C), tile by tile: (H, W, D).

    Tiles lie on the network's own grid of `multiple` pixels in the whole image, which is mirrored at its
    edges as `Restorer` does it. A network whose results depend on neighbourhoods alone gives what it
    gives of the whole image as soon as half of `overlap` reaches as far as `receptive_radius`.

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
    rows, columns = _sources(height, width, multiple)
    down, across = (_spans(len(source), tile, overlap, multiple) for source in (rows, columns))
    places = ((y, x) for y in down for x in across)
    result: _Blended | _Cut | None = None
    while group := list(islice(places, batch)):
        tiles = np.stack([image[rows[y.start : y.end, None], columns[x.start : x.end]] for y, x in group])
        made = run(tiles)
        if made.ndim != 4 or made.shape[:3] != tiles.shape[:3]:
            raise ValueError(f"the network makes {made.shape} of {tiles.shape}: it cannot be tiled")
        if result is None:
            result = (_Blended if blend else _Cut)(
                np.empty((height, width, made.shape[3]), made.dtype), len(rows), len(columns)
            )
        for (y, x), one in zip(group, made, strict=True):
            result.add(y, x, one)
    assert result is not None
    return result.whole()


def _spans(length: int, tile: int, overlap: int, multiple: int) -> list[_TileSpan]:
    """Tiles of one length, spread evenly over `length`, a multiple of `multiple` as they are."""
    tile = min(tile, length)
    step, free = (tile - overlap) // multiple, (length - tile) // multiple
    count = -(-free // step) + 1 if free else 1
    starts = [index * free // max(1, count - 1) * multiple for index in range(count)]
    cuts = [0, *((after + before + tile) // 2 for before, after in pairwise(starts)), length]
    total = np.zeros(length)
    windows = []
    for index, start in enumerate(starts):
        window, place = np.ones(tile), np.arange(tile) + 0.5
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


class _Cut:
    """A result that each tile fills its part of."""

    def __init__(self, result: Array, rows: int, columns: int) -> None:
        self.result = result
        self.top, self.left = (rows - result.shape[0]) // 2, (columns - result.shape[1]) // 2

    def add(self, y: _TileSpan, x: _TileSpan, made: Array) -> None:
        self._fill(
            y.first, x.first, made[y.first - y.start : y.last - y.start, x.first - x.start : x.last - x.start]
        )

    def whole(self) -> Array:
        return self.result

    def _fill(self, row: int, column: int, made: Array) -> None:
        """Put `made` at `row` and `column` of the mirrored image."""
        row, column = row - self.top, column - self.left
        made = made[max(0, -row) :, max(0, -column) :]
        row, column = max(0, row), max(0, column)
        into = self.result[row : row + made.shape[0], column : column + made.shape[1]]
        into[...] = made[: into.shape[0], : into.shape[1]]


class _Blended(_Cut):
    """A result of weighted sums of tiles, kept as floats as far down as a row of tiles."""

    def __init__(self, result: Array, rows: int, columns: int) -> None:
        super().__init__(result, rows, columns)
        self._columns, self._row = columns, 0
        self._sums: NDArray[np.float32] | None = None

    def add(self, y: _TileSpan, x: _TileSpan, made: Array) -> None:
        if self._sums is None:
            self._sums = np.zeros((y.end - y.start, self._columns, made.shape[2]), np.float32)
        if y.start > self._row:
            done = y.start - self._row
            self._finish(self._sums[:done])
            self._sums[:-done] = self._sums[done:].copy()
            self._sums[-done:] = 0
            self._row = y.start
        self._sums[:, x.start : x.end] += made * (y.share[:, None, None] * x.share[:, None])

    def whole(self) -> Array:
        assert self._sums is not None
        self._finish(self._sums)
        return self.result

    def _finish(self, sums: NDArray[np.float32]) -> None:
        """Put rows that no tile adds to any more into the result; in place, they are not used again."""
        if self.result.dtype.kind == "u":  # shares can add up to a little more than 1
            np.rint(sums, out=sums).clip(0, np.iinfo(self.result.dtype).max, out=sums)
        self._fill(self._row, 0, sums)


def receptive_radius(network: nn.Module, channels: int, multiple: int = 1, draws: int = 2) -> int | None:
    """How many pixels away an image can still change a pixel of the result, or None: any number.

    The gradient of a block of `multiple` pixels in the middle is followed back to random images, at growing
    sizes until it ends well before the edges.

    Args:
        network: (N, channels, H, W) -> (N, any, H, W), on the CPU.
        multiple: heights and widths that it takes, and the period of its pixels.
        draws: random images; a path that one of them finds closed another may find open.
    """
    generator = torch.Generator().manual_seed(0)
    side = up_to_multiple(256, 2 * multiple)
    while side <= max(_MAX_PROBE, 4 * multiple):
        middle = side // 2 // multiple * multiple
        far = 0
        for _ in range(draws):
            image = torch.rand(1, channels, side, side, generator=generator).requires_grad_()
            block = network(image)[..., middle : middle + multiple, middle : middle + multiple]
            weights = torch.randn(block.shape, generator=generator)
            (gradient,) = torch.autograd.grad((block * weights).sum(), image)
            rows, columns = (gradient[0] != 0).any(dim=0).nonzero(as_tuple=True)
            for seen in (rows, columns):
                if len(seen):
                    far = max(far, middle - int(seen.min()), int(seen.max()) - (middle + multiple - 1))
        if 2 * far < side - middle - multiple:  # it may see some pixels beyond others that it does not see
            return far
        side *= 2
    return None
