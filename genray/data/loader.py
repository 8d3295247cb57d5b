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

from genray.data.images import BadImage, BadInput
from genray.data.paired import Pair, PairedSettings, Pixels, jitter, load_pair
from genray.data.store import Store
from genray.errors import DataError

Batch = tuple[Pixels, Pixels]  # inputs (N, H, W, C), targets (N, H, W, C'), uint8
Report = Callable[[BadInput], None]


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

    def attempt(pair: Pair) -> tuple[Pixels, Pixels] | BadInput:
        try:
            return load_pair(store, pair, settings)
        except BadImage as bad:
            return BadInput(pair.name, bad.reason, bad.detail)

    good: list[Pair] = []
    pixels: list[tuple[Pixels, Pixels]] = []
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        for pair, loaded in zip(pairs, pool.map(attempt, pairs), strict=True):
            if isinstance(loaded, BadInput):
                report(loaded)
            else:
                good.append(pair)
                pixels.append(loaded)
    return good, pixels


def check_bad_share(bad: Sequence[BadInput], total: int, settings: PairedSettings) -> None:
    """Raise `DataError` if more than `max_bad_share` of `total` pairs are bad, or all of them."""
    bad = [b for b in bad if b.reason != "unused"]
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
    """Pairs that Ray Data reads, decodes and jitters every epoch: rows carry a place in the epoch's order.

    A broken pair's place is taken by the next good one in the order, so that every worker has the same
    number of steps; it is reported once.
    """

    def __init__(
        self, store: Store, pairs: Sequence[Pair], settings: PairedSettings, seed: int, report: Report
    ) -> None:
        self.count = len(pairs)
        self._inputs = [pair.input for pair in pairs]
        self._targets = [pair.target for pair in pairs]
        self._store = store
        self._settings = settings
        self._seed = seed
        self._report = report
        self._paths: Any = None  # both columns in Ray's object store, put there once
        self._bad: dict[str, BadInput] = {}

    def batches(self, epoch: int, batch: int, share: Share, start: int = 0) -> Iterator[Batch]:
        """Needs an initialised Ray with at least one CPU that no worker holds."""
        import pyarrow as pa
        import ray

        together = batch * share.world
        rows = (self.count - start) // together * batch
        if not rows:
            return
        if self._paths is None:
            self._paths = ray.put((pa.array(self._inputs), pa.array(self._targets, pa.string())))
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        decoder = _Decode(
            self._store.root, self._paths, self._settings, self._seed, epoch, batch, share, start
        )
        blocks = -(-rows // self._rows_per_block(batch))
        data = ray.data.range(rows, override_num_blocks=blocks).map_batches(
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
        found = [BadInput(*entry) for cell in cells for entry in cell]
        for bad in found:
            if bad.path not in self._bad:
                self._bad[bad.path] = bad
                self._report(bad)
        if found:
            check_bad_share(list(self._bad.values()), self.count, self._settings)


@dataclass(frozen=True)
class _Decode:
    """The Ray Data step: row numbers in, rows of jittered pixels (as bytes) out."""

    root: str
    paths: Any
    settings: PairedSettings
    seed: int
    epoch: int
    batch: int
    share: Share
    start: int

    def __call__(self, rows: Any) -> Any:
        import pyarrow as pa
        import ray

        store = Store(self.root)
        inputs, targets = ray.get(self.paths)
        order = epoch_order(len(inputs), self.seed, self.epoch)
        columns: dict[str, list[Any]] = {"input": [], "target": [], "bad": []}
        for row in rows["id"].to_pylist():
            step, inside = divmod(row, self.batch)
            place = self.start + (step * self.batch + inside) * self.share.world + self.share.rank
            key = (self.seed, self.epoch, int(order[place]))
            bad: list[list[str]] = []
            for further in range(len(order)):
                index = int(order[(place + further) % len(order)])
                pair = Pair(inputs[index].as_py(), targets[index].as_py())
                try:
                    images = load_pair(store, pair, self.settings)
                    break
                except BadImage as error:
                    bad.append([pair.name, error.reason, error.detail])
            else:
                raise DataError(f"every pair is broken, {bad[0][0]} for one: {bad[0][2]}", where=self.root)
            first, second = jitter(images, self.settings.size, self.settings.flip, key)
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
