"""The plan of a pass: which inputs are left to do, as files that workers read their chunks from.

Listed once, streamed, in files of `FILE_ROWS` inputs: neither driver nor worker ever holds a whole store.

The listing: every input of a store, streamed, beside what the ledger has of it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass, field
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from genray.images.photo import WriteSettings, output_path
from genray.io.bad_input import BadInput
from genray.io.sources import ContainerSettings, Item, ItemSource
from genray.io.store import Store
from pipelines.steps.base import Step
from pipelines.storage.ledger import FAILED, LedgerIndex

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


_SAMPLE = 64
_SAY_S = 5.0
_IMAGES = ContainerSettings().suffixes


@dataclass
class Listing:
    """Lists `source`, and remembers what it saw.

    Args:
        source: the inputs.
        step: what is to be done; names the outputs.
        known: what the ledger has.
        note: takes a line now and then.
    """

    source: ItemSource
    step: Step[Any]
    known: LedgerIndex
    note: Callable[[str], None]
    listed: int = 0
    seen: int = 0
    left_over: int = 0
    changed: list[str] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)
    problems: list[BadInput] = field(default_factory=list)
    sample: list[Item] = field(default_factory=list)

    def left(self) -> Iterator[Planned]:
        """The inputs that are left to do, each with the name of its output."""
        drawn, said = random.Random(self.step.settings.report.seed), time.monotonic()
        for item in self._items():
            self.listed += 1
            if time.monotonic() - said > _SAY_S:
                said = time.monotonic()
                self.note(f"listing: {self.listed} images so far")
            found = self.known.find(item.path, item.size, item.modified)
            self.seen += found != "new"
            if found == "changed":
                self.changed.append(item.path)
            elif found == FAILED and self.step.settings.retry != "none":
                self.retried.append(item.path)
            elif found != "new":
                continue
            self.left_over += 1
            self._draw(item, drawn)
            yield Planned(item, output_name(self.step.output_path(item.path), self.step.settings.write))

    def _items(self) -> Iterator[Item]:
        for item in self.source.items(self.problems.append):
            try:
                item.path.encode()
            except UnicodeEncodeError:
                shown = item.path.encode("utf-8", "backslashreplace").decode()
                self.problems.append(BadInput(shown, "bad-name", "its name is not UTF-8"))
                continue
            yield item

    def _draw(self, item: Item, drawn: random.Random) -> None:
        """Keep a uniform sample of those that are left (reservoir sampling, Vitter 1985, algorithm R)."""
        if len(self.sample) < _SAMPLE:
            self.sample.append(item)
        elif (at := drawn.randrange(self.left_over)) < _SAMPLE:
            self.sample[at] = item


def output_name(path: str, settings: WriteSettings) -> str:
    """What the output of the input `path` is called: the same, and if it is to be of another format with that
    format's suffix behind it: a.jpg becomes a.jpg.png. No two inputs become one output, whatever is added
    later.
    """
    if settings.format == "same":
        return path
    # A name that looks as if it was made here has to make room for the one that would be.
    made_here = PurePosixPath(path).with_suffix("").suffix.lower() in _IMAGES
    if output_path(path, settings) == path and not made_here:
        return path
    return path + PurePosixPath(output_path("x", settings)).suffix
