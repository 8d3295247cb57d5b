"""Training batches through Ray Data, for stores that do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genray.datasets.loader import Batch, ReportBad, SampleSource, WorkerShare, check_bad_share, epoch_order
from genray.errors import DataError
from genray.images.pixels import Pixels
from genray.io.bad_input import BadImage, BadInput


class StreamLoader:
    """Samples that Ray Data reads, decodes and varies every epoch: rows carry a place in the epoch's order.

    A broken sample's place is taken by the next good one in the order, so that every worker has the same
    number of steps; it is reported once.

    Args:
        source: where samples come from.
        shapes: of what `source.vary` gives, (H, W, C) for each part.
        seed: of order and variants.
        report: told of broken samples.
        limit: largest share of them (data.max_bad_share).
        path: of the store, for errors.
        repeats: how often `source` has every sample, for the share of the broken ones.
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
        self._source, self._shapes, self._seed = source, tuple(shapes), seed
        self._report, self._limit, self._path = report, limit, path
        self._distinct = self.count // repeats
        self._stored: Any = None  # the source in Ray's object store, put there once
        self._bad: dict[str, BadInput] = {}

    def batches(self, epoch: int, batch: int, share: WorkerShare, start: int = 0) -> Iterator[Batch]:
        """Needs an initialised Ray with at least one CPU that no worker holds."""
        import ray

        rows = (self.count - start) // (batch * share.world) * batch
        if not rows:
            return
        if self._stored is None:
            self._stored = ray.put(self._source)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        decoder = _Decode(self._stored, len(self._shapes), self._seed, epoch, batch, share, start)
        blocks = -(-rows // self._rows_per_block(batch))
        data = ray.data.range(rows, override_num_blocks=blocks).map_batches(
            decoder, batch_size=None, batch_format="pyarrow", zero_copy_batch=True
        )
        for block in data.iter_batches(batch_size=batch, batch_format="numpy", prefetch_batches=2):
            self._note(block["bad"])
            yield tuple(_unpack(block[f"part{i}"], shape) for i, shape in enumerate(self._shapes))

    def _rows_per_block(self, batch: int) -> int:
        size = sum(height * width * channels for height, width, channels in self._shapes)
        return max(batch, min(1024, 32_000_000 // size))

    def _note(self, cells: Any) -> None:
        found = [BadInput(*entry) for cell in cells for entry in cell]
        if any(len(cell) == self.count for cell in cells):
            what = f"every sample is broken, {found[0].path} for one: {found[0].detail}"
            raise DataError(what, where=self._path)
        for bad in found:
            if bad.path not in self._bad:
                self._bad[bad.path] = bad
                self._report(bad)
        if found:
            check_bad_share(list(self._bad.values()), self._distinct, self._limit, self._path)


def _unpack(cells: Any, shape: tuple[int, int, int]) -> Pixels:
    # A copy, because the bytes belong to Ray's shared memory and are read-only.
    return np.stack([np.frombuffer(cell, np.uint8).reshape(shape) for cell in cells])


@dataclass(frozen=True)
class _Decode:
    """The Ray Data step: row numbers in, rows of varied pixels (as bytes) out."""

    stored: Any
    parts: int
    seed: int
    epoch: int
    batch: int
    share: WorkerShare
    start: int

    def __call__(self, rows: Any) -> Any:
        import pyarrow as pa
        import ray

        source: SampleSource = ray.get(self.stored)
        order = epoch_order(len(source), self.seed, self.epoch)
        columns: dict[str, list[Any]] = {f"part{i}": [] for i in range(self.parts)}
        broken: list[list[list[str]]] = []
        for row in rows["id"].to_pylist():
            step, inside = divmod(row, self.batch)
            place = self.start + (step * self.batch + inside) * self.share.world + self.share.rank
            key = (self.seed, self.epoch, int(order[place]))
            bad: list[list[str]] = []
            for further in range(len(order)):
                index = int(order[(place + further) % len(order)])
                try:
                    images = source.load(index)
                    break
                except BadImage as error:
                    bad.append([source.name(index), error.reason, error.detail])
            else:
                # The loader raises it: what is raised here Ray Data hides behind errors of its own.
                columns = {name: [b""] * len(rows) for name in columns}
                broken = [bad] + [[]] * (len(rows) - 1)
                break
            for i, part in enumerate(source.vary(images, key)):
                columns[f"part{i}"].append(part.tobytes())
            broken.append(bad)
        # Bytes, not tensors: they pass through Arrow without a copy per pixel row.
        table = {name: pa.array(cells, pa.large_binary()) for name, cells in columns.items()}
        return pa.table(table | {"bad": pa.array(broken, pa.list_(pa.list_(pa.string())))})
