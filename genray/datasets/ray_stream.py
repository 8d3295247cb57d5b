"""Training batches through Ray Data, for stores that do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.datasets.loader import (
    Batch,
    ReportBad,
    Sample,
    SampleSource,
    WorkerShare,
    check_bad_share,
    epoch_order,
)
from genray.errors import DataError
from genray.images.pixels import Pixels
from genray.io.bad_input import BadImage, BadInput


class StreamLoader:
    """Loader by Ray Data, which reads, decodes and varies the samples in every epoch.

    The next good sample in the epoch's order replaces a broken one, so that every worker takes the same
    number of steps. Broken samples are reported once.

    Args:
        source: source of the samples.
        shapes: (H, W, C) of each part that `source.vary` returns.
        seed: seed of order and variants.
        report: called with each broken sample.
        limit: largest share of broken samples (data.max_bad_share).
        path: path of the store, for errors.
        repeats: number of times that `source` contains each sample, for the share of broken ones.
    """

    def __init__(
        self,
        source: SampleSource,
        shapes: Sequence[tuple[int, int, int]],
        seed: int,
        report: ReportBad,
        *,
        limit: float,
        path: str,
        repeats: int = 1,
    ) -> None:
        self.count = len(source)
        self._source = source
        self._shapes = tuple(shapes)
        self._seed = seed
        self._report = report
        self._limit = limit
        self._path = path
        self._distinct = self.count // repeats
        self._source_in_ray: Any = None  # reference to the source, which is put into Ray's object store once
        self._bad: dict[str, BadInput] = {}

    def batches(self, epoch: int, batch: int, share: WorkerShare, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch`, see `Loader.batches`; needs an initialised Ray with a CPU that no
        worker holds."""
        import ray

        rows = (self.count - start) // (batch * share.world) * batch
        if not rows:
            return
        if self._source_in_ray is None:
            self._source_in_ray = ray.put(self._source)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        step = _LoadStep(self._source_in_ray, len(self._shapes), self._seed, epoch, batch, share, start)
        blocks = -(-rows // self._rows_per_block(batch))
        data = ray.data.range(rows, override_num_blocks=blocks).map_batches(
            step, batch_size=None, batch_format="pyarrow", zero_copy_batch=True
        )
        for block in data.iter_batches(batch_size=batch, batch_format="numpy", prefetch_batches=2):
            self._report_bad(block["bad"])
            yield tuple(_unpack(block[f"part{i}"], shape) for i, shape in enumerate(self._shapes))

    def _rows_per_block(self, batch: int) -> int:
        size = sum(height * width * channels for height, width, channels in self._shapes)
        return max(batch, min(1024, 32_000_000 // size))

    def _report_bad(self, cells: Any) -> None:
        broken = [BadInput(*entry) for cell in cells for entry in cell]
        if any(len(cell) == self.count for cell in cells):
            raise DataError(
                f"every sample is broken, {broken[0].path} for one: {broken[0].detail}", where=self._path
            )
        for bad in broken:
            if bad.path not in self._bad:
                self._bad[bad.path] = bad
                self._report(bad)
        if broken:
            check_bad_share(list(self._bad.values()), self._distinct, self._limit, self._path)


def _unpack(cells: Any, shape: tuple[int, int, int]) -> Pixels:
    # A copy, because the bytes belong to Ray's shared memory and are read-only.
    return np.stack([np.frombuffer(cell, np.uint8).reshape(shape) for cell in cells])


@dataclass(frozen=True)
class _LoadStep:
    """Step of Ray Data from row numbers to rows of varied pixels, as bytes.

    Args:
        source: reference to the `SampleSource`.
        parts: number of parts of a sample.
        seed, epoch, batch, share, start: as in `StreamLoader` and its `batches`.
    """

    source: Any
    parts: int
    seed: int
    epoch: int
    batch: int
    share: WorkerShare
    start: int

    def __call__(self, rows: Any) -> Any:
        import pyarrow as pa
        import ray

        source: SampleSource = ray.get(self.source)
        order = epoch_order(len(source), self.seed, self.epoch)
        columns: list[list[bytes]] = [[] for _ in range(self.parts)]
        broken: list[list[list[str]]] = []
        for row in rows["id"].to_pylist():
            place = self._place(row)
            sample, bad = _load_next(source, order, place)
            if sample is None:
                # The loader raises the error, because Ray Data would wrap one that is raised here.
                columns = [[b""] * len(rows) for _ in columns]
                broken = [bad] + [[]] * (len(rows) - 1)
                break
            varied = source.vary(sample, (self.seed, self.epoch, int(order[place])))
            for column, part in zip(columns, varied, strict=True):
                column.append(part.tobytes())
            broken.append(bad)
        # Bytes, not tensors: they pass through Arrow without a copy of each pixel row.
        table = {f"part{i}": pa.array(cells, pa.large_binary()) for i, cells in enumerate(columns)}
        return pa.table(table | {"bad": pa.array(broken, pa.list_(pa.list_(pa.string())))})

    def _place(self, row: int) -> int:
        """Return the place in the epoch's order of this worker's row."""
        step, inside = divmod(row, self.batch)
        return self.start + (step * self.batch + inside) * self.share.world + self.share.rank


def _load_next(
    source: SampleSource, order: NDArray[np.int64], place: int
) -> tuple[Sample | None, list[list[str]]]:
    """Return the first sample from `place` on in the order that can be loaded (None: there is none), and
    path, reason and detail of the broken ones before it."""
    bad: list[list[str]] = []
    for further in range(len(order)):
        index = int(order[(place + further) % len(order)])
        try:
            return source.load(index), bad
        except BadImage as error:
            bad.append([source.name(index), error.reason, error.detail])
    return None, bad
