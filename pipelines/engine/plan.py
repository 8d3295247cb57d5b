"""Plan of a pass: the remaining inputs, in files that workers read their chunks from.

The inputs of a store are listed once and compared with the ledger, and the remaining ones are written to
files of `FILE_ROWS` inputs. All of this is streamed, so that no process ever holds the list of a whole store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from genray.errors import DataError
from genray.images.photo_writer import WriteSettings, output_path
from genray.io.bad_input import BadInput
from genray.io.kinds import READ_SUFFIXES, kind_of_name
from genray.io.sources import Item, ItemSource
from genray.io.store import Store
from genray.text import visible
from pipelines.engine.planning.names import OutputNames, folded_hash, is_too_long, renamed, short_name
from pipelines.engine.planning.selection import Selection
from pipelines.engine.sample import ItemSample
from pipelines.steps.base import Step
from pipelines.storage.ledger.index import LedgerIndex
from pipelines.storage.ledger.rows import FAILED

FOLDER = "_genray/plan"
FILE_ROWS = 8192
_MOST = 512  # inputs of a chunk, the unit of work of a worker
_LEAST = 4
_NOTE_SECONDS = 5.0
_BATCH = 1024  # inputs that are looked up in the ledger together
_INSTEAD = ".png"  # suffix of the outputs of formats that are read, but not written
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


class PlannedInput(NamedTuple):
    """An input, and the name of its output."""

    item: Item
    output: str


@dataclass
class InputListing:
    """Lists `source`, and counts what it finds.

    Args:
        source: the inputs.
        step: the step, which names the outputs.
        index: index of the ledger.
        note: takes a line about the progress now and then.
    """

    source: ItemSource
    step: Step[Any]
    index: LedgerIndex
    note: Callable[[str], None]
    known: int = field(init=False)
    """Number of inputs in the ledger."""
    listed: int = field(default=0, init=False)
    recorded: int = field(default=0, init=False)
    """Number of listed inputs that the ledger contains, with any status."""
    changed: list[str] = field(default_factory=list, init=False)
    """Inputs that changed since they were processed."""
    retried: list[str] = field(default_factory=list, init=False)
    problems: list[BadInput] = field(default_factory=list, init=False)
    sample: ItemSample = field(init=False)
    """Sample of the remaining inputs."""
    found: int = field(default=0, init=False)
    """Number of all inputs, also those that are not selected."""
    names: OutputNames = field(default_factory=OutputNames, init=False)
    renamed: int = field(default=0, init=False)
    """Number of outputs that are renamed."""
    first_renamed: str = field(default="", init=False)

    def __post_init__(self) -> None:
        settings = self.step.settings
        self.known = len(self.index)
        self.sample = ItemSample(settings.report.seed)
        self.selection = Selection(settings.read)
        self.writes_files = self.step.writes_images and settings.write.container == "files"

    def remaining(self) -> Iterator[PlannedInput]:
        """List the inputs; yields the remaining ones, each with the name of its output."""
        noted = time.monotonic()
        chosen = self.selection.choose(self._planned(), lambda each: each.item.path)
        while batch := list(islice(chosen, _BATCH)):
            self.listed += len(batch)
            if time.monotonic() - noted > _NOTE_SECONDS:
                noted = time.monotonic()
                self.note(f"listing: {self.listed} images so far")
            recorded = self.index.has([planned.item.path for planned in batch])
            for planned, is_recorded in zip(batch, recorded, strict=True):
                if not is_recorded or self._is_left(planned.item):
                    self.sample.add(planned.item)
                    yield planned
        self.index = LedgerIndex.empty()  # of a large store it is most of the memory

    def _is_left(self, item: Item) -> bool:
        """Return whether an input that the ledger contains is processed again."""
        self.recorded += 1
        item = self.source.completed(item)
        state = self.index.find(item.path, item.size, item.modified)
        if state == "changed":
            self.changed.append(item.path)
            return True
        if state == FAILED and self.step.settings.retry != "none":
            self.retried.append(item.path)
            return True
        return False

    def _planned(self) -> Iterator[PlannedInput]:
        """List all inputs, also those that are not selected: their outputs may have equal names."""
        step = self.step
        write = step.settings.write
        for item in self._items():
            self.found += 1
            output = output_name(step.output_path(item.path), write)
            if self.writes_files:
                if is_too_long(output):
                    self.note_renamed(output)
                    output = short_name(output)
                self.names.add(output)
            yield PlannedInput(item, output)

    def note_renamed(self, output: str) -> None:
        """Count an output that is renamed, see `names.py`."""
        self.renamed += 1
        self.first_renamed = self.first_renamed or output

    @property
    def renamed_text(self) -> str:
        """Sentence about the outputs that are renamed; "" if there are none."""
        if not self.renamed:
            return ""
        first = self.first_renamed
        what = "1 output is" if self.renamed == 1 else f"{self.renamed:,} outputs are"
        return (
            f"{what} renamed, because the names are too long or differ only in case or Unicode form, which "
            f"some file systems merge: {visible(first)} -> {visible(renamed(first))}"
        )

    def _items(self) -> Iterator[Item]:
        for item in self.source.items(self.problems.append):
            try:
                item.path.encode()
            except UnicodeEncodeError:
                escaped = item.path.encode("utf-8", "backslashreplace").decode()
                self.problems.append(BadInput(escaped, "bad-name", "its name is not UTF-8"))
                continue
            yield item


@dataclass
class SuspectsLast:
    """Inputs in the order of the listing, but the suspects of earlier kills last.

    Args:
        inputs: inputs in the order of the listing.
        suspects: paths of the suspects, and how often the run was killed at them.
    """

    inputs: Iterable[PlannedInput]
    suspects: Mapping[str, int]
    found: dict[str, int] = field(default_factory=dict, init=False)
    """The suspects that are among the inputs."""

    def __iter__(self) -> Iterator[PlannedInput]:
        held: list[PlannedInput] = []
        for planned in self.inputs:
            path = planned.item.path
            if path in self.suspects:
                self.found[path] = self.suspects[path]
                held.append(planned)
            else:
                yield planned
        yield from held


def output_name(path: str, settings: WriteSettings) -> str:
    """Return the name of the output of the input `path`.

    It is the same name, with the suffix of the format appended if the format differs: a.jpg becomes
    a.jpg.png. A format that is read but not written becomes PNG: a.heic becomes a.heic.png. No two inputs
    get the same output, whatever is added later.
    """
    if settings.format == "same":
        stem = path
        while stem.lower().endswith(_INSTEAD):  # such names are left for the outputs of other inputs
            stem = stem[: -len(_INSTEAD)]
        return path + _INSTEAD if _is_only_read(stem[stem.rfind("/") + 1 :].rpartition(".")[2]) else path
    _, *suffixes = path[path.rfind("/") + 1 :].rsplit(".", 2)
    return path + _added_suffix(".".join(["x", *suffixes]), settings.format)


@lru_cache(4096)
def _is_only_read(suffix: str) -> bool:
    """Return whether `suffix`, without its dot, is that of a format that is read and not written."""
    kind = kind_of_name(f"x.{suffix}")
    return kind is not None and kind.is_read and not kind.is_written


@lru_cache(4096)
def _added_suffix(name: str, kind: Any) -> str:
    """Return what `output_name` adds to a name that ends like `name`."""
    settings = WriteSettings(format=kind)
    # A name that looks like one made here gets a suffix, too: the name is left for the other input.
    looks_made_here = PurePosixPath(name).with_suffix("").suffix.lower() in READ_SUFFIXES
    if output_path(name, settings) == name and not looks_made_here:
        return ""
    return PurePosixPath(output_path("x", settings)).suffix


def check_listing(source: ItemSource, inputs: int, problems: Sequence[BadInput]) -> None:
    """Check what came of a listing of `source`, or of its beginning.

    Raises:
        DataError: a person has to choose a column; or there are no inputs, and why.
    """
    for bad in problems:
        if bad.reason == "ambiguous":
            raise DataError(f"{visible(bad.path)}: {bad.detail}", where="read.column")
    if inputs:
        return
    error = source.nothing_there()
    if problems:
        first = problems[0]
        raise DataError(
            f"no images are there that can be listed: {visible(first.path)}: {visible(first.detail)}",
            where=error.where,
            hint=error.hint,
        )
    raise error


def write_plan(store: Store, number: int, inputs: Iterable[PlannedInput]) -> int:
    """Write the plan of the pass `number`; returns its number of inputs."""
    total = 0
    rows: list[tuple[Any, ...]] = []
    for planned in inputs:
        item = planned.item
        rows.append((item.path, item.size, item.modified, item.container, item.position, planned.output))
        if len(rows) == FILE_ROWS:
            _write_file(store, number, total // FILE_ROWS, rows)
            total += len(rows)
            rows = []
    if rows:
        _write_file(store, number, total // FILE_ROWS, rows)
    return total + len(rows)


def rename_repeated(store: Store, number: int, inputs: int, listing: InputListing) -> None:
    """Rename the outputs in the plan of the pass `number` whose names a file system may merge."""
    repeated = listing.names.repeated()
    listing.names = OutputNames()  # of a large store they are much of the memory
    if not repeated:
        return
    for serial in range(-(-inputs // FILE_ROWS)):
        rows = pa.ipc.open_file(BytesIO(store.read(_file_name(number, serial)))).read_all().to_pylist()
        for row in rows:
            if folded_hash(row["output"]) in repeated:
                listing.note_renamed(row["output"])
                row["output"] = renamed(row["output"])
        _write_file(store, number, serial, [tuple(row.values()) for row in rows])


def remove_plans(store: Store) -> None:
    """Delete the plans of all passes."""
    store.clear(FOLDER)


def chunk_bounds(inputs: int, workers: int) -> list[int]:
    """Return the starts of the chunks, and the end of the last: large chunks first, which have least
    overhead, then ever smaller ones, so that all workers finish together (Polychronopoulos and Kuck 1987,
    "Guided Self-Scheduling").
    """
    bounds = [0]
    while bounds[-1] < inputs:
        left = inputs - bounds[-1]
        size = left if workers == 1 else max(_LEAST, left // (2 * workers))
        bounds.append(bounds[-1] + min(size, left, _MOST))
    return bounds


class Plan:
    """Reads the plan of a pass, chunk by chunk.

    Args:
        store: store of the output.
        number: number of the pass.
        bounds: bounds of the chunks, see `chunk_bounds`.
    """

    def __init__(self, store: Store, number: int, bounds: Sequence[int]) -> None:
        self._store = store
        self.number = number
        self._bounds = bounds
        self._file: _PlanFile | None = None
        """The file that was read last: neighbouring chunks are in one file."""

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def chunk(self, index: int) -> Iterator[PlannedInput]:
        """Return the inputs of the chunk `index`."""
        at = self._bounds[index]
        end = self._bounds[index + 1]
        while at < end:
            serial, first = divmod(at, FILE_ROWS)
            count = min(end - at, FILE_ROWS - first)
            for row in self._read(serial).slice(first, count).to_pylist():
                output = row.pop("output")
                yield PlannedInput(Item(**row), output)
            at += count

    def _read(self, serial: int) -> pa.Table:
        if self._file is None or self._file.serial != serial:
            data = self._store.read(_file_name(self.number, serial))
            self._file = _PlanFile(serial, pa.ipc.open_file(BytesIO(data)).read_all())
        return self._file.table


@dataclass(frozen=True)
class _PlanFile:
    serial: int
    table: pa.Table


def _file_name(number: int, serial: int) -> str:
    return f"{FOLDER}/{number:05}-{serial:06}.arrow"


def _write_file(store: Store, number: int, serial: int, rows: list[tuple[Any, ...]]) -> None:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    stream = BytesIO()
    with pa.ipc.new_file(stream, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as file:
        file.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA))
    store.write(_file_name(number, serial), stream.getvalue())
