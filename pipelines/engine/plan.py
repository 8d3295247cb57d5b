"""The plan of a pass: which inputs are left to do, as files that workers read their chunks from.

Listed once, streamed, in files of `FILE_ROWS` inputs: neither driver nor worker ever holds a whole store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from io import BytesIO
from typing import Any

import pyarrow as pa

from genray.io.sources import Item
from genray.io.store import Store

FOLDER = "_genray/plan"
FILE_ROWS = 8192
_MOST, _LEAST = 512, 4  # inputs of a chunk; a chunk is what is handed to a worker at once
_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("modified", pa.int64()),
        ("container", pa.string()),
        ("position", pa.int64()),
        ("output", pa.string()),
    ]
)


@dataclass(frozen=True)
class Planned:
    """An input, and the name of its output."""

    item: Item
    output: str


def write_plan(store: Store, number: int, planned: Iterable[Planned]) -> int:
    """Write the plan of the pass `number`; returns how many inputs it has."""
    total, rows = 0, []
    for each in planned:
        rows.append((*astuple(each.item), each.output))
        if len(rows) == FILE_ROWS:
            _write(store, number, total // FILE_ROWS, rows)
            total += len(rows)
            rows = []
    if rows:
        _write(store, number, total // FILE_ROWS, rows)
    return total + len(rows)


def remove_plans(store: Store) -> None:
    """Delete the plans of all passes."""
    for entry in store.list([".arrow"], FOLDER):
        store.delete(entry.path)


def chunks(inputs: int, workers: int) -> list[int]:
    """Where chunks begin, and the end of the last: large ones first, which cost least, then smaller and
    smaller, so that all workers end together (Polychronopoulos and Kuck 1987, "Guided Self-Scheduling").
    """
    ends = [0]
    while ends[-1] < inputs:
        left = inputs - ends[-1]
        size = left if workers == 1 else max(_LEAST, left // (2 * workers))
        ends.append(ends[-1] + min(size, left, _MOST))
    return ends


class Plan:
    """Reads the plan of the pass `number`, of `inputs` in chunks for `workers`."""

    def __init__(self, store: Store, number: int, inputs: int, workers: int) -> None:
        self._store, self._number = store, number
        self._bounds = chunks(inputs, workers)
        self._open: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def chunk(self, index: int) -> Iterator[Planned]:
        """The inputs of the chunk `index`."""
        at, end = self._bounds[index], self._bounds[index + 1]
        while at < end:
            serial, first = divmod(at, FILE_ROWS)
            count = min(end - at, FILE_ROWS - first)
            for row in self._table(serial).slice(first, count).to_pylist():
                output = row.pop("output")
                yield Planned(Item(**row), output)
            at += count

    def _table(self, serial: int) -> Any:
        if self._open is None or self._open[0] != serial:
            data = self._store.read(_name(self._number, serial))
            self._open = serial, pa.ipc.open_file(BytesIO(data)).read_all()
        return self._open[1]


def _name(number: int, serial: int) -> str:
    return f"{FOLDER}/{number:05}-{serial:06}.arrow"


def _write(store: Store, number: int, serial: int, rows: list[tuple[Any, ...]]) -> None:
    arrays = [
        pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)
    ]
    stream = BytesIO()
    with pa.ipc.new_file(stream, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as file:
        file.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA))
    store.write(_name(number, serial), stream.getvalue())
