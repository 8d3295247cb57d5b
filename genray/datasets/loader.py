"""Training batches in an order that the seed sets, from memory or through Ray Data.

Both loaders give the same batches for the same (seed, epoch), whatever the size of the store, the number of
workers and the interruptions:

- the order of an epoch is a permutation drawn from (seed, epoch);
- random variation of a sample (crop, mirroring, stamp) is drawn from (seed, epoch, index);
- rank r of w workers takes every w-th sample of each global batch, starting at r.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genray.errors import DataError
from genray.images.pixels import Pixels
from genray.io.bad_input import BadImage, BadInput

Sample = tuple[Pixels, ...]  # parts of a sample, such as input and target, each (H, W, C)
Batch = tuple[NDArray[Any], ...]  # the same parts of several samples, each (N, ...): images (N, H, W, C)
ReportBad = Callable[[BadInput], None]

_CHUNK = 64  # samples in a thread's task: a task for each small image would cost more than its decoding


class SampleSource(Protocol):
    """Samples by index. Sources are sent to Ray's workers: long columns are Arrow arrays, which Ray shares
    without copies."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return the path of the sample, for lists and messages."""

    def load(self, index: int) -> Sample:
        """Read and decode a sample.

        Raises:
            BadImage: the sample is to be set aside; says why.
        """

    def vary(self, images: Sample, key: Sequence[int]) -> Sample:
        """Return a random variant to train on, seeded by `key`, of the same shapes for every sample."""


@dataclass(frozen=True)
class WorkerShare:
    """Share of every global batch that one worker takes."""

    rank: int = 0
    world: int = 1

    def batches(self, count: int, batch: int, start: int) -> Iterator[slice]:
        """Yield this worker's places in an epoch of `count` samples, `batch` at a time, from `start` on."""
        step = batch * self.world
        for first in range(start, count - step + 1, step):
            yield slice(first + self.rank, first + step, self.world)


class Loader(Protocol):
    """Source of the loop's batches. An epoch has `count` samples."""

    count: int

    def batches(self, epoch: int, batch: int, share: WorkerShare, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` for one worker, `batch` samples each, without an incomplete last one.

        The first `start` samples of the epoch (of all workers) are skipped, which a resumed run needs.
        """


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of an epoch, a permutation of range(count)."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def load_all(source: SampleSource, report: ReportBad) -> tuple[list[int], list[Sample]]:
    """Decode every sample, in threads (the codecs release the interpreter's lock).

    Broken samples go to `report`. Returns the indices of the good samples and their pixels, in order.
    """

    def load(index: int) -> Sample | BadInput:
        try:
            return source.load(index)
        except BadImage as bad:
            return BadInput(source.name(index), bad.reason, bad.detail)

    def load_chunk(start: int) -> list[Sample | BadInput]:
        return [load(index) for index in range(start, min(start + _CHUNK, len(source)))]

    good: list[int] = []
    samples: list[Sample] = []
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        chunks = pool.map(load_chunk, range(0, len(source), _CHUNK))
        for index, loaded in enumerate(loaded for chunk in chunks for loaded in chunk):
            if isinstance(loaded, BadInput):
                report(loaded)
            else:
                good.append(index)
                samples.append(loaded)
    return good, samples


def check_bad_share(bad: Sequence[BadInput], total: int, limit: float, path: str) -> None:
    """Raise `DataError` if all of `total` samples are broken, or more than the share `limit`
    (data.max_bad_share). Files without use or partner are no broken samples."""
    broken = [b for b in bad if b.reason not in ("unused", "unpaired")]
    if len(broken) <= limit * total and len(broken) < total:
        return
    examples = "\n".join(f"    {b.path}: {b.reason} ({b.detail})" for b in broken[:5])
    raise DataError(
        f"{len(broken)} of {total} samples are broken, more than data.max_bad_share={limit:g}:\n{examples}",
        where=path,
        hint="repair or remove them, or raise data.max_bad_share to train on the rest",
    )


class MemoryLoader:
    """Loader of samples that were decoded once and are kept as uint8.

    Args:
        samples: decoded samples.
        vary: `SampleSource.vary` of their source.
        seed: seed of order and variants.
    """

    def __init__(
        self, samples: Sequence[Sample], vary: Callable[[Sample, Sequence[int]], Sample], seed: int
    ) -> None:
        self.count = len(samples)
        self._samples = samples
        self._vary = vary
        self._seed = seed

    def batches(self, epoch: int, batch: int, share: WorkerShare, start: int = 0) -> Iterator[Batch]:
        order = epoch_order(self.count, self._seed, epoch).tolist()
        for places in share.batches(self.count, batch, start):
            indices = order[places]
            yield stack([self._vary(self._samples[k], (self._seed, epoch, k)) for k in indices])


class ArrayLoader:
    """Loader of rows of an array in memory, without variants.

    Args:
        samples: the array (N, ...).
        seed: seed of the order.
        repeats: number of times that each row occurs in an epoch.
    """

    def __init__(self, samples: NDArray[Any], seed: int, repeats: int = 1) -> None:
        self.count = len(samples) * repeats
        self._samples = samples
        self._seed = seed

    def batches(self, epoch: int, batch: int, share: WorkerShare, start: int = 0) -> Iterator[Batch]:
        order = epoch_order(self.count, self._seed, epoch) % len(self._samples)
        for places in share.batches(self.count, batch, start):
            yield (self._samples[order[places]],)


def held_out_batches(
    samples: Sequence[Sample], batch: int, share: WorkerShare
) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Yield one worker's held-out samples in order, with their indices, in batches of up to `batch`
    neighbours of the same shape."""
    run: list[int] = []
    for index in range(share.rank, len(samples), share.world):
        if run and (len(run) == batch or samples[index][0].shape != samples[run[0]][0].shape):
            yield np.array(run), stack([samples[k] for k in run])
            run = []
        run.append(index)
    if run:
        yield np.array(run), stack([samples[k] for k in run])


def stack(samples: Sequence[Sample]) -> Batch:
    """Return samples of one shape as a batch."""
    return tuple(np.stack(part) for part in zip(*samples, strict=True))
