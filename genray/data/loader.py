"""Training batches of image pairs, in an order that the seed sets, from memory or through Ray Data.

Both loaders give the same batches for the same (seed, epoch), so small and large stores, one worker
and many, an interrupted run and an uninterrupted one all see the same samples:
- the order of an epoch is a permutation drawn from (seed, epoch);
- the jitter of a sample is drawn from (seed, epoch, its index);
- of each global batch, rank r of w workers takes every w-th sample from r on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genray.data.images import BadImage
from genray.data.paired import BadPair, Pair, PairedSettings, Pixels, jitter, load_pair
from genray.data.store import Store
from genray.errors import DataError

Batch = tuple[Pixels, Pixels]  # inputs (N, H, W, C), targets (N, H, W, C'), uint8
Report = Callable[[BadPair], None]


@dataclass(frozen=True)
class Share:
    """The part of every global batch that one worker takes."""

    rank: int = 0
    world: int = 1


class Loader(Protocol):
    """What the loop reads from. `count` samples make an epoch."""

    count: int

    def batches(self, epoch: int, batch: int, share: Share, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` for one worker, `batch` samples each, the incomplete last one left out.

        `start` samples of the epoch (all workers together) are passed over: that is how a run resumes.
        """


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of an epoch: a permutation of range(count)."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def load_all(
    store: Store, pairs: Sequence[Pair], settings: PairedSettings, report: Report
) -> tuple[list[Pair], list[tuple[Pixels, Pixels]]]:
    """Decode every pair, in threads (the codecs release the interpreter's lock).

    Broken ones go to `report`. Returns the good pairs and their pixels, in order.
    """

    def attempt(pair: Pair) -> tuple[Pixels, Pixels] | BadPair:
        try:
            return load_pair(store, pair, settings)
        except BadImage as bad:
            return BadPair(pair.name, bad.reason, bad.detail)

    good: list[Pair] = []
    pixels: list[tuple[Pixels, Pixels]] = []
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        for pair, loaded in zip(pairs, pool.map(attempt, pairs), strict=True):
            if isinstance(loaded, BadPair):
                report(loaded)
            else:
                good.append(pair)
                pixels.append(loaded)
    return good, pixels


def check_bad_share(bad: Sequence[BadPair], total: int, settings: PairedSettings) -> None:
    """Raise `DataError` if more than `max_bad_share` of `total` pairs are bad, or all of them."""
    if len(bad) <= settings.max_bad_share * total and len(bad) < total:
        return
    shown = "\n".join(f"    {b.path}: {b.reason} ({b.detail})" for b in bad[:5])
    raise DataError(
        f"{len(bad)} of {total} pairs are broken, more than data.max_bad_share="
        f"{settings.max_bad_share:g}:\n{shown}",
        where=settings.path,
        hint="mend or remove them, or raise data.max_bad_share to train on the rest",
    )


class MemoryLoader:
    """Pairs that were decoded once and are kept as uint8."""

    def __init__(self, pixels: Sequence[tuple[Pixels, Pixels]], settings: PairedSettings, seed: int) -> None:
        self.count = len(pixels)
        self._pixels = pixels
        self._settings = settings
        self._seed = seed

    def batches(self, epoch: int, batch: int, share: Share, start: int = 0) -> Iterator[Batch]:
        for indices in _batch_indices(self.count, self._seed, epoch, batch, share, start):
            yield _stack([self._sample(epoch, int(i)) for i in indices])

    def mean_target(self, size: int) -> NDArray[np.float64]:
        """The mean of all targets' middles: (size, size, C), from 0 to 255."""
        total = np.zeros((size, size, self._pixels[0][1].shape[-1]))
        for _, target in self._pixels:
            total += _middle(target, size)
        return total / self.count

    def _sample(self, epoch: int, index: int) -> tuple[Pixels, Pixels]:
        key = (self._seed, epoch, index)
        return jitter(self._pixels[index], self._settings.size, self._settings.flip, key)


class StreamLoader:
    """Pairs that Ray Data reads, decodes and jitters every epoch: rows carry paths, blocks carry pixels.

    A broken pair's place is taken by the next good one in the epoch's order, so that every worker has
    the same number of steps; it is reported once.
    """

    def __init__(
        self, store: Store, pairs: Sequence[Pair], settings: PairedSettings, seed: int, report: Report
    ) -> None:
        self.count = len(pairs)
        self._pairs = list(pairs)
        self._store = store
        self._settings = settings
        self._seed = seed
        self._report = report
        self._bad: dict[str, BadPair] = {}

    def batches(self, epoch: int, batch: int, share: Share, start: int = 0) -> Iterator[Batch]:
        """See `Loader`. Needs an initialised Ray with at least one CPU that no worker holds."""
        import pyarrow as pa
        import ray

        order = epoch_order(self.count, self._seed, epoch)
        rows = list(_batch_indices(self.count, self._seed, epoch, batch, share, start))
        if not rows:
            return
        place = np.argsort(order)
        indices = np.concatenate(rows)
        candidates = [[int(order[(place[i] + k) % self.count]) for k in range(_SPARES)] for i in indices]
        table = pa.table(
            {
                "index": pa.array([int(i) for i in indices], pa.int64()),
                "inputs": [[self._pairs[c].input for c in row] for row in candidates],
                "targets": [[self._pairs[c].target for c in row] for row in candidates],
            }
        )
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        step = self._rows_per_block(batch)
        blocks = [table.slice(i, step) for i in range(0, len(indices), step)]
        decoder = _Decode(self._store.root, self._settings, self._seed, epoch)
        data = ray.data.from_arrow(blocks).map_batches(
            decoder, batch_size=None, batch_format="pyarrow", zero_copy_batch=True
        )
        for block in data.iter_batches(batch_size=batch, batch_format="numpy", prefetch_batches=2):
            self._note(block["bad"])
            yield self._unpack(block["input"]), self._unpack(block["target"])

    def _rows_per_block(self, batch: int) -> int:
        channels = self._settings.input_channels + self._settings.target_channels
        return max(batch, min(1024, 32_000_000 // (self._settings.size**2 * channels)))

    def _unpack(self, cells: Any) -> Pixels:
        size = self._settings.size
        # A copy, because the bytes belong to Ray's shared memory and are read-only.
        return np.stack([np.frombuffer(cell, np.uint8).reshape(size, size, -1) for cell in cells])

    def _note(self, cells: Any) -> None:
        for cell in cells:
            for path, reason, detail in cell:
                if path not in self._bad:
                    self._bad[path] = BadPair(path, reason, detail)
                    self._report(self._bad[path])
        check_bad_share(list(self._bad.values()), self.count, self._settings)


_SPARES = 4  # a pair and the three after it; four broken in a row means a broken store


class _Decode:
    """The Ray Data step: rows of paths in, rows of jittered pixels (as bytes) out."""

    def __init__(self, root: str, settings: PairedSettings, seed: int, epoch: int) -> None:
        self._root = root
        self._settings = settings
        self._key = (seed, epoch)

    def __call__(self, rows: Any) -> Any:
        import pyarrow as pa

        store = Store(self._root)
        size, flip = self._settings.size, self._settings.flip
        columns: dict[str, list[Any]] = {"input": [], "target": [], "bad": []}
        for row in rows.to_pylist():
            bad = []
            for path, target in zip(row["inputs"], row["targets"], strict=True):
                try:
                    pair = load_pair(store, Pair(path, target), self._settings)
                    break
                except BadImage as error:
                    bad.append([path, error.reason, error.detail])
            else:
                raise DataError(f"{len(bad)} broken pairs in a row, from {bad[0][0]} on: {bad[0][1:]}")
            first, second = jitter(pair, size, flip, (*self._key, row["index"]))
            columns["input"].append(first.tobytes())
            columns["target"].append(second.tobytes())
            columns["bad"].append(bad)
        # Bytes, not tensors: they pass through Arrow without a copy per pixel row.
        return pa.table(
            {
                "input": pa.array(columns["input"], pa.large_binary()),
                "target": pa.array(columns["target"], pa.large_binary()),
                "bad": pa.array(columns["bad"], pa.list_(pa.list_(pa.string()))),
            }
        )


def validation_batches(
    pixels: Sequence[tuple[Pixels, Pixels]], size: int, batch: int, share: Share
) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """The held-out pairs of one worker in order, from the middle, with their indices."""
    mine = np.arange(share.rank, len(pixels), share.world)
    for i in range(0, len(mine), batch):
        indices = mine[i : i + batch]
        pairs = (pixels[int(k)] for k in indices)
        yield indices, _stack([(_middle(a, size), _middle(b, size)) for a, b in pairs])


def _middle(image: Pixels, size: int) -> Pixels:
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def _batch_indices(
    count: int, seed: int, epoch: int, batch: int, share: Share, start: int
) -> Iterator[NDArray[np.int64]]:
    order = epoch_order(count, seed, epoch)
    together = batch * share.world
    for i in range(start, count - together + 1, together):
        yield order[i + share.rank : i + together : share.world]


def _stack(pairs: Sequence[tuple[Pixels, Pixels]]) -> Batch:
    return np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])
