"""Finder of image pairs: decides how the files of a place are pairs, or says why it cannot.

Files are read as pairs in two files if names show it, in halves if pixels show it, or by a table. Where two
readings are possible, the error lists them, each with the setting that chooses it.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from genray.datasets.finding.halves import HalvesEvidence, judge_halves
from genray.datasets.finding.names import PairFile, pair_files
from genray.datasets.finding.readings import PairReading, Side, find_readings, match, setting_of
from genray.datasets.finding.tables import PathTable, is_table, list_tables, open_table
from genray.errors import DataError
from genray.images.decode import read_header, read_image
from genray.images.limits import ReadLimits
from genray.images.pixels import Pixels
from genray.io.bad_input import BadImage, BadInput
from genray.io.file_types import FileCounts
from genray.io.listing import ImageFiles, Place, images_of, nothing_to_read
from genray.io.store import Entry, Store
from genray.text import parent_folders

PairLayout = Literal["side-by-side", "above-below", "folders", "suffixes", "table"]
Direction = Literal["AtoB", "BtoA"]

HALVES: tuple[PairLayout, ...] = ("side-by-side", "above-below")
_HALF_NAMES = {"side-by-side": ("left half", "right half"), "above-below": ("upper half", "lower half")}
_JUDGED = 16  # images that are decoded to see whether they are two halves
_GOOD_SHAPES = 0.8  # share of them that must have the shape of two images
_SHOWN = 4  # readings, folders or files in a message
_MOST_TABLES = 20  # tables beside images that are looked at
_MOST_TABLE_BYTES = 32 * 2**20  # bytes of such a table
_DOCS = 'see "How pairs are found" in docs/training.md'


@dataclass(frozen=True)
class PairSearch:
    """What is known of the pairs before they are searched.

    Attributes:
        layout: layout that the user chose (auto: none).
        direction: direction between A and B.
        names: sides of inputs and targets that the user named (None: not named).
        limits: limits on the files that are read.
    """

    layout: Literal["auto"] | PairLayout
    direction: Direction
    names: tuple[str, str] | None
    limits: ReadLimits


@dataclass(frozen=True)
class Pair:
    """Files of a pair: one file in halves, or two files."""

    input: str
    target: str | None = None

    @property
    def name(self) -> str:
        """Path of the pair for lists and messages: the file of the input."""
        return self.input


@dataclass
class FoundPairs:
    """Pairs as they were found, before the split.

    Attributes:
        layout: their layout.
        sides: sides of inputs and targets, in words.
        by_split: pairs by split (train, val, test, "").
        bad: files in no pair.
        notes: what was left out, in words.
        fingerprint: hash of names and sizes of all files, or of the rows of the tables.
        sizes: bytes of the files by path, as far as the listing has them.
    """

    layout: PairLayout
    sides: tuple[str, str]
    by_split: dict[str, list[Pair]] = field(default_factory=lambda: defaultdict(list))
    bad: list[BadInput] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fingerprint: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Way:
    """A way to read the files: in words, the setting that chooses it, and the pairs."""

    text: str
    setting: str
    found: FoundPairs


def search_pairs(place: Place, search: PairSearch, counts: FileCounts) -> FoundPairs:
    """Find the pairs at `place`; reads names, and a few images where only pixels can show halves.

    Args:
        place: folder, pattern or table.
        search: what is known of the pairs.
        counts: counts the files by type.

    Raises:
        DataError: no pairs, or several ways to read the files as pairs.
    """
    if search.layout == "table" or is_table(place.name):
        return _in_tables(place, search)
    listed = list(ImageFiles(arrays=True).list(place, counts))
    entries = sorted(images_of(listed, counts, beside=True), key=lambda entry: entry.path)
    if not entries:
        missing = nothing_to_read(place.location, ["files"], counts, where="data.path")
        raise DataError(
            missing.what,
            where=missing.where,
            hint="set data.path to the folder of train and val, or to a CSV or Parquet file with two columns "
            "of paths; to make pairs to try: genray fronts FOLDER",
        )
    found = _in_files(place, entries, search)
    digest = hashlib.sha256("\n".join(f"{e.path}\t{e.size}" for e in entries).encode()).hexdigest()
    found.fingerprint = f"sha256:{digest}"
    found.sizes = {entry.path: entry.size for entry in entries}
    return found


def _in_files(place: Place, entries: Sequence[Entry], search: PairSearch) -> FoundPairs:
    """Return the pairs of the way that the search chooses, or else of the only possible way."""
    files = pair_files(entries)
    if search.layout in HALVES:
        return _in_halves(files, search.layout, search.direction)
    if search.names is not None:
        return _by_names(files, search.names)
    readings = [r for r in find_readings(files) if search.layout in ("auto", r.layout)]
    ways = [way for reading in readings for way in _ways_of(reading, search.direction)]
    evidence: dict[PairLayout, HalvesEvidence] = {}
    if search.layout == "auto":
        if not any(reading.known for reading in readings):
            evidence = _judge(place.store, entries, search.limits)
            ways += [_halves_way(files, layout, search) for layout in HALVES if evidence[layout].plausible]
        ways += _table_ways(place, readings, search)
    if not ways:
        raise _no_pairs(place, entries, files, search, evidence)
    if len(ways) > 1:
        raise _several_ways(place, ways)
    return ways[0].found


def _halves_way(files: Sequence[PairFile], layout: PairLayout, search: PairSearch) -> _Way:
    first, second = _HALF_NAMES[layout]
    text = f"the {first} and the {second} of each of {len(files)} files"
    return _Way(text, f"data.layout={layout}", _in_halves(files, layout, search.direction))


def _ways_of(reading: PairReading, direction: Direction) -> list[_Way]:
    """Return the ways of a reading: two if its names do not say which side is the input."""
    if reading.known:
        return [_way_of(reading if direction == "BtoA" else reading.turned)]
    return [_way_of(reading), _way_of(reading.turned)]


def _way_of(reading: PairReading) -> _Way:
    source, target = reading.names
    text = f"{source} -> {target}, {len(reading.matching.pairs)} pairs"
    return _Way(text, setting_of(source, target), _of_reading(reading))


def _by_names(files: Sequence[PairFile], names: tuple[str, str]) -> FoundPairs:
    """Return the pairs of the sides that the user named."""
    source, target = map(Side.parse, names)
    if source == target:
        raise DataError(
            "data.pairs names the same side twice", where="data.pairs", hint="name the inputs and the targets"
        )
    matching = match(files, source, target)
    for key, name, alone in zip(("input", "target"), names, matching.alone, strict=True):
        if not matching.pairs and not alone:
            raise DataError(
                f"no image is in {name}",
                where=f"data.pairs.{key}",
                hint=f"name a folder relative to data.path, which has {_folders_of(files)}; {_DOCS}",
            )
    if not matching.pairs:
        examples = " and ".join(alone[0].path for alone in matching.alone)
        raise DataError(
            f"no file of {names[0]} has a partner in {names[1]}: {examples} have different names",
            where="data.pairs",
            hint='partners have equal names except for the * of a pattern, such as input "labels/*_mask" and '
            f"target images for labels/1_mask.png and images/1.png; {_DOCS}",
        )
    return _of_reading(PairReading(source, target, matching, known=True))


def _of_reading(reading: PairReading) -> FoundPairs:
    """Return the pairs of a reading, and what it leaves out."""
    matching = reading.matching
    found = FoundPairs(reading.layout, reading.names)
    for first, second in sorted(matching.pairs, key=lambda pair: reading.source.order_key(pair[0])):
        found.by_split[first.split].append(Pair(first.path, second.path))
    for side, alone in zip(reading.names, matching.alone, strict=True):
        found.bad += [BadInput(file.path, "unpaired", "no partner of the same stem") for file in alone]
        if alone:
            found.notes.append(f"unpaired: {_count(alone)} of {side}, such as {alone[0].path}")
    for file, other in matching.doubled:
        found.bad.append(BadInput(file.path, "unpaired", f"{other.path} has the same stem"))
    if matching.doubled:
        found.notes.append(f"doubled: {_count(matching.doubled)}, such as {matching.doubled[0][0].path}")
    elsewhere = [file.path for file in matching.elsewhere]
    found.bad += [BadInput(path, "unused", "in neither of the two folders") for path in elsewhere]
    if elsewhere:
        found.notes.append(f"of neither side: {_count(elsewhere)} in {parent_folders(elsewhere)}")
    return found


def _in_halves(files: Iterable[PairFile], layout: PairLayout, direction: Direction) -> FoundPairs:
    first, second = _HALF_NAMES[layout]
    found = FoundPairs(layout, (second, first) if direction == "BtoA" else (first, second))
    for file in files:
        found.by_split[file.split].append(Pair(file.path))
    return found


def _judge(store: Store, entries: Sequence[Entry], limits: ReadLimits) -> dict[PairLayout, HalvesEvidence]:
    """Return the evidence of a few images for pairs in halves, for each way to halve them."""
    places = np.unique(np.linspace(0, len(entries) - 1, _JUDGED).round().astype(int))
    images = []
    for place in places:
        try:
            images.append(read_image(store, entries[place].path, channels=3, limits=limits))
        except BadImage:
            continue
    return {
        "side-by-side": _judge_shaped(images),
        "above-below": _judge_shaped([image.swapaxes(0, 1) for image in images]),
    }


def _judge_shaped(images: list[Pixels]) -> HalvesEvidence:
    """Judge the images that have the shape of two; all, if too many have another."""
    shaped = [image for image in images if judge_halves([image]).shape]
    return judge_halves(shaped if len(shaped) >= _GOOD_SHAPES * len(images) else images)


def _table_ways(place: Place, readings: Sequence[PairReading], search: PairSearch) -> list[_Way]:
    """Return the ways of the tables directly in the folder that pair images otherwise than `readings` do.

    Tables that cannot be read, or without two columns of existing paths, are of something else."""
    if place.pattern or place.name:
        return []
    known = set[frozenset[str]]().union(*(reading.paths for reading in readings))
    by_columns: dict[tuple[str, str], FoundPairs] = {}
    texts: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in list_tables(place.store, _MOST_TABLE_BYTES)[:_MOST_TABLES]:
        try:
            table = open_table(place.store, path)
        except DataError:
            continue
        if len(table.columns) == 2:
            first, second = table.columns
            names = table.usual_order or (first, second)
            _add_rows(by_columns.setdefault(names, FoundPairs("table", names)), table, place.store)
            texts[names].append(path)
    ways = []
    for names, found in by_columns.items():
        pairs = [pair for part in found.by_split.values() for pair in part]
        if pairs and not {frozenset((pair.input, pair.target or "")) for pair in pairs} <= known:
            text = f"columns {names[0]} -> {names[1]} of {', '.join(texts[names])}, {len(pairs)} pairs"
            ways.append(_Way(text, f"data.layout=table and {setting_of(*names)}", found))
    return ways


def _in_tables(place: Place, search: PairSearch) -> FoundPairs:
    """Return the pairs in the table at `place`, or in the tables of that folder."""
    paths = [place.name] if place.name else list_tables(place.store)
    if not paths:
        raise DataError(
            f"no table (.csv, .tsv, .parquet) in {place.location}",
            where="data.path",
            hint="name a file with two columns of paths",
        )
    read = [open_table(place.store, path) for path in paths]
    tables = [table for table in read if len(table.columns) > 1] or read[:1]
    names = _columns(tables[0], search)
    found = FoundPairs("table", names)
    if others := [table.path for table in read if len(table.columns) < 2]:
        found.notes.append(f"not read: {', '.join(others[:_SHOWN])}, without two columns of image paths")
    for table in tables:
        if missing := [name for name in names if name not in table.columns]:
            raise DataError(
                f"{table.path} has no column of image paths {', '.join(missing)}, as {tables[0].path} has",
                where="data.path",
                hint="name one table as data.path",
            )
        _add_rows(found, table, place.store)
    rows = [(split, pair.input, pair.target) for split, part in found.by_split.items() for pair in part]
    if not rows:
        reason = f"{found.bad[0].path}: {found.bad[0].detail}" if found.bad else "it has no rows"
        raise DataError(
            f"no row of {tables[0].path} names two files: {reason}",
            where="data.path",
            hint="paths in a table are relative to the folder of the table",
        )
    text = "\n".join("\t".join(map(str, row)) for row in rows)
    found.fingerprint = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    if place.store.is_local:
        found.sizes = {path: place.store.size(path) for _, *paths in rows for path in paths if path}
    else:
        found.notes.append("not checked: whether an image is both trained on and held out")
    return found


def _add_rows(found: FoundPairs, table: PathTable, store: Store) -> None:
    """Add the pairs of a table whose files lie below its folder; a local file must exist."""
    source, target = found.sides
    cells = list(zip(table.columns[source], table.columns[target], strict=True))
    inputs = pair_files([Entry(first, 0) for first, _ in cells])
    bad = len(found.bad)
    for number, (split, file, (first, second)) in enumerate(
        zip(table.splits, inputs, cells, strict=True), start=1
    ):
        if reason := next(filter(None, (_why_unusable(path, store) for path in (first, second))), ""):
            kind = "unreadable" if reason.endswith("exist") else "bad-name"
            found.bad.append(BadInput(f"{table.path}:{number}", kind, reason))
        else:
            found.by_split[split or file.split].append(Pair(first, second))
    if count := len(found.bad) - bad:
        first_bad = found.bad[bad]
        found.notes.append(f"left out: {count} rows of {table.path}, such as {first_bad.detail}")


def _why_unusable(path: str, store: Store) -> str:
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or path.startswith("/") or ":" in parts[0]:
        return f"{path[:200]!r}, which is empty, absolute, or leaves the folder of the table"
    return f"{path[:200]!r}, which does not exist" if store.is_local and not store.exists(path) else ""


def _columns(table: PathTable, search: PairSearch) -> tuple[str, str]:
    """Return the columns of inputs and targets."""
    there = ", ".join(list(table.columns)[:20]) or "none"
    if search.names is not None:
        if unknown := [name for name in search.names if name not in table.columns]:
            raise DataError(
                f"{table.path} has no column of image paths called {', '.join(unknown)}",
                where="data.pairs",
                hint=f"columns of image paths: {there}",
            )
        return search.names
    if len(table.columns) < 2:
        raise DataError(
            f"{table.path} has {len(table.columns)} columns of image paths ({there}), but pairs need two",
            where="data.path",
            hint="a column of paths has values such as train/1.png; encoded images in Parquet are not pairs",
        )
    order = table.usual_order
    if order is None:
        first, second = list(table.columns)[:2]
        raise DataError(
            f"the columns {there} of {table.path} do not say which is the input",
            where="data.pairs",
            hint=f"set {setting_of(first, second)}, or {setting_of(second, first)}",
        )
    return order if search.direction == "BtoA" else (order[1], order[0])


def _no_pairs(
    place: Place,
    entries: Sequence[Entry],
    files: Sequence[PairFile],
    search: PairSearch,
    evidence: Mapping[PairLayout, HalvesEvidence],
) -> DataError:
    """Return the error for files that are no pairs in any way."""
    texts = []
    if search.layout in ("auto", "folders"):
        texts.append("no two folders have equal file names")
    if search.layout in ("auto", "suffixes"):
        texts.append("no two endings of names make pairs, as 0_image.png and 0_mask.png do")
    if evidence:
        texts.append(f"files are not two images side by side ({_why_not(place.store, entries, evidence)})")
    return DataError(
        f"no pairs found in {len(entries)} images under {place.location}, folders {_folders_of(files)}: "
        + "; ".join(texts),
        where="data.path",
        hint="name the two sides, such as data.pairs={input: train/labels, target: train/images}; if each "
        f"file is two images, set data.layout=side-by-side or data.layout=above-below; {_DOCS}",
    )


def _why_not(store: Store, entries: Sequence[Entry], evidence: Mapping[PairLayout, HalvesEvidence]) -> str:
    if evidence["side-by-side"].shape:
        return evidence["side-by-side"].describe()
    for entry in entries[:_SHOWN]:
        try:
            header = read_header(store, entry.path)
        except BadImage:
            continue
        if header.width % 2:
            return f"{entry.path} is {header.width} pixels wide, which is odd"
        return f"{entry.path} has {header.width}x{header.height} pixels"
    return "the first files cannot be read"


def _several_ways(place: Place, ways: Sequence[_Way]) -> DataError:
    """Return the error that lists the ways to read the files, each with its setting."""
    shown = ways[: 2 * _SHOWN]
    lines = "".join(f"\n  {i}. {way.text}: {way.setting}" for i, way in enumerate(shown, start=1))
    more = f"\n  and {len(ways) - len(shown)} more" if len(ways) > len(shown) else ""
    return DataError(
        f"the images under {place.location} can be read as pairs in {len(ways)} ways "
        f"(input -> target):{lines}{more}",
        where="data.pairs",
        hint=f"choose one with --set and the setting after the colon, in quotes; {_DOCS}",
    )


def _folders_of(files: Sequence[PairFile]) -> str:
    counts = Counter(file.path.rpartition("/")[0] or "." for file in files)
    shown = ", ".join(f"{folder} ({count})" for folder, count in counts.most_common(2 * _SHOWN))
    return shown + (f" and {len(counts) - 2 * _SHOWN} more" if len(counts) > 2 * _SHOWN else "")


def _count(files: Sequence[object]) -> str:
    return f"{len(files):,} file{'s' * (len(files) != 1)}"
