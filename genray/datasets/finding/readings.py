"""Readings of a list of files as image pairs in two files: by folders, or by parts of the names.

A side of the pairs is a folder, at any depth, and a pattern of names: `labels`, `*_mask`, `gtFine/*_color`.
Two files are a pair if they are of the two sides, in the same split, and equal in everything else. Readings
are found by trying the sides that the names suggest; a reading counts if it pairs half of its smaller side.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import combinations
from typing import Literal

from genray.datasets.finding.names import PairFile, rank_of, stem_patterns, without_split

_LEAST_SHARE = 0.5  # of the smaller side that has partners
_LEAST_PAIRS = 2
_KEYS_LOOKED_AT = 5000
_SIDES_OF_KEY = 24  # sides that one key may have: class folders with equal file names have many
_YAML_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
_TRIED = 16  # readings that are matched in full


@dataclass(frozen=True)
class Side:
    """One side of the pairs.

    Attributes:
        folder: folders that mark the side, without splits (empty: any folder).
        pattern: names of the files, with `*`; one with a dot is matched with the whole name, else with the
            stem.
    """

    folder: tuple[str, ...]
    pattern: str = "*"

    @classmethod
    def parse(cls, text: str) -> Side:
        """Return the side that a user named: a folder, a pattern, or both joined by a slash."""
        folder, _, last = text.rpartition("/")
        if "*" in last:
            return cls(without_split(folder), last)
        if text.startswith(("_", "-", ".")) and text not in (".", ".."):
            return cls((), f"*{text}")
        return cls(without_split(text))

    def key(self, file: PairFile) -> tuple[str, ...] | None:
        """Return what the file has in common with its partner; None if it is not of this side."""
        found = self._in_folders(file.folders)
        if found is None:
            return None
        name = file.name if "." in self.pattern else file.stem
        matched = _compiled(self.pattern).fullmatch(name)
        if matched is None:
            return None
        return (*found, "", *matched.groups())

    @property
    def rank(self) -> int | None:
        """Rank of the side's name, see `rank_of`; a side without a name has that of photos."""
        if not self.folder and self.pattern == "*":
            return rank_of("photo")
        words = [*reversed(self.folder), self.pattern.strip("*_-. ")]
        return next((rank for word in words if word and (rank := rank_of(word)) is not None), None)

    @property
    def weight(self) -> int:
        """How much the side demands: a file that is of both sides belongs to the one that demands more."""
        return 1000 * len(self.folder) + len(self.pattern)

    def named_by(self, file: PairFile) -> str:
        """Return the side as a user would write it; `file` is of this side."""
        if not self.folder:
            return self.pattern if self.pattern != "*" else "."
        real = {name: part for part in file.path.split("/")[:-1] for name in without_split(part)}
        folder = "/".join(real.get(name, name) for name in self.folder)
        return folder if self.pattern == "*" else f"{folder}/{self.pattern}"

    def order_key(self, file: PairFile) -> str:
        """Return the path of a file of this side without the side and the ending, to sort pairs by."""
        *parts, _ = file.path.split("/")
        kept = [part for part in parts if part not in self.folder]
        kept = [(file.split or part) if without_split(part) == self.folder else part for part in kept]
        return "/".join([*kept, file.stem])

    def _in_folders(self, folders: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the other folders; None if those of the side are not among `folders`, side by side."""
        size = len(self.folder)
        for i in range(len(folders) - size + 1):
            if folders[i : i + size] == self.folder:
                return (*folders[:i], *folders[i + size :])
        return None


@dataclass
class Matching:
    """Files of two sides, matched.

    Attributes:
        pairs: (first, second) of each pair, in the order of their paths.
        alone: files of each side without a partner.
        doubled: files whose partner already has another, with that other.
        elsewhere: files of neither side.
    """

    pairs: list[tuple[PairFile, PairFile]] = field(default_factory=list)
    alone: tuple[list[PairFile], list[PairFile]] = field(default_factory=lambda: ([], []))
    doubled: list[tuple[PairFile, PairFile]] = field(default_factory=list)
    elsewhere: list[PairFile] = field(default_factory=list)

    @property
    def counts(self) -> bool:
        """True if there are enough pairs for a reading that nobody asked for."""
        smaller = len(self.pairs) + min(map(len, self.alone))
        return len(self.pairs) >= max(_LEAST_PAIRS, _LEAST_SHARE * smaller)


@dataclass(frozen=True)
class PairReading:
    """Reading of files as pairs: `source` is translated to `target`.

    Attributes:
        source, target: the sides.
        matching: the pairs (source, target).
        known: true if the names say which is the source.
    """

    source: Side
    target: Side
    matching: Matching
    known: bool

    @property
    def layout(self) -> Literal["folders", "suffixes"]:
        """Folders, or suffixes where both sides lie in the same folder."""
        return "folders" if self.source.folder != self.target.folder else "suffixes"

    @cached_property
    def names(self) -> tuple[str, str]:
        """The sides as a user would write them."""
        first, second = min(self.matching.pairs, key=lambda pair: pair[0].split != "train")
        return self.source.named_by(first), self.target.named_by(second)

    @property
    def setting(self) -> str:
        """Setting that chooses this reading."""
        return setting_of(*self.names)

    @property
    def turned(self) -> PairReading:
        """The reading with input and target exchanged."""
        matching = self.matching
        pairs = [(second, first) for first, second in matching.pairs]
        turned = Matching(pairs, (matching.alone[1], matching.alone[0]), matching.doubled, matching.elsewhere)
        return PairReading(self.target, self.source, turned, self.known)

    @cached_property
    def paths(self) -> frozenset[frozenset[str]]:
        """Both paths of each pair."""
        return frozenset(frozenset((a.path, b.path)) for a, b in self.matching.pairs)


def setting_of(source: str, target: str) -> str:
    """Return the setting that names the sides of the pairs."""
    return f"data.pairs={{input: {_quoted(source)}, target: {_quoted(target)}}}"


def match(files: Sequence[PairFile], first: Side, second: Side) -> Matching:
    """Match the files of two sides."""
    matching = Matching()
    sides = sorted((0, 1), key=lambda i: -(first, second)[i].weight)
    keyed: tuple[dict[object, PairFile], dict[object, PairFile]] = ({}, {})
    for file in files:
        for i in sides:
            key = (first, second)[i].key(file)
            if key is not None:
                other = keyed[i].setdefault((file.split, key), file)
                if other is not file:
                    matching.doubled.append((file, other))
                break
        else:
            matching.elsewhere.append(file)
    for split_and_key, file in keyed[0].items():
        partner = keyed[1].pop(split_and_key, None)
        if partner is None:
            matching.alone[0].append(file)
        else:
            matching.pairs.append((file, partner))
    matching.alone[1].extend(keyed[1].values())
    return matching


def find_readings(files: Sequence[PairFile]) -> list[PairReading]:
    """Return the readings of `files` as pairs in two files.

    Folders with equal stems are tried first, then parts of the names. Readings whose names say the direction
    exclude others, and readings by folders exclude those by suffixes.
    """
    readings: list[PairReading] = []
    for by_name in (False, True):
        readings += _readings(files, _suggested(files, by_name))
        known = [reading for reading in readings if reading.known]
        if known:
            by_folders = [reading for reading in known if reading.layout == "folders"]
            return _without_parts(by_folders or known)
    return _without_parts(readings)


def _readings(files: Sequence[PairFile], sides: Iterable[tuple[Side, Side]]) -> Iterator[PairReading]:
    for first, second in sides:
        known = _says_direction(first, second)
        if known and (first.rank or 0) > (second.rank or 0):
            first, second = second, first
        matching = match(files, first, second)
        if matching.counts:
            yield PairReading(first, second, matching, known)


def _says_direction(first: Side, second: Side) -> bool:
    return first.rank is not None and second.rank is not None and first.rank != second.rank


def _without_parts(readings: Sequence[PairReading]) -> list[PairReading]:
    """Leave out readings whose pairs are all in another reading, or whose sides only narrow another's."""
    kept: list[PairReading] = []
    for reading in sorted(readings, key=lambda each: (-len(each.matching.pairs), _weight(each))):
        if not any(reading.paths <= other.paths or _narrows(reading, other) for other in kept):
            kept.append(reading)
    return kept


def _weight(reading: PairReading) -> int:
    return reading.source.weight + reading.target.weight


def _narrows(reading: PairReading, other: PairReading) -> bool:
    """Return whether both sides of `reading` lie in those of `other`, as scene1/blur does in blur."""
    return all(
        mine.pattern == wide.pattern and set(mine.folder) > set(wide.folder)
        for mine, wide in ((reading.source, other.source), (reading.target, other.target))
    )


def _suggested(files: Sequence[PairFile], by_name: bool) -> list[tuple[Side, Side]]:
    """Return the sides that files with a common stem, or part of a stem, suggest; the most frequent first."""
    groups: dict[tuple[str, str], list[tuple[tuple[str, ...], str]]] = defaultdict(list)
    for file in files:
        patterns = stem_patterns(file) if by_name else [(file.stem, "*")]
        for base, pattern in patterns:
            groups[file.split, base].append((file.folders, pattern))
    shared = [list(dict.fromkeys(group)) for group in groups.values() if len(group) > 1]
    step = max(1, len(shared) // _KEYS_LOOKED_AT)
    counts: Counter[tuple[Side, Side]] = Counter()
    for group in shared[::step]:
        for first, second in combinations(sorted(group[:_SIDES_OF_KEY]), 2):
            if ("." in first[1]) == ("." in second[1]):
                counts[_sides(first, second)] += 1
    usual = [sides for sides, _ in counts.most_common(8 * _TRIED)]
    known = [
        sides for sides in usual if None not in (ranks := [side.rank for side in sides]) and len({*ranks}) > 1
    ]
    return list(dict.fromkeys([*known[:_TRIED], *usual[:_TRIED]]))


def _sides(first: tuple[tuple[str, ...], str], second: tuple[tuple[str, ...], str]) -> tuple[Side, Side]:
    """Return the sides of two files by what differs between their folders and patterns."""
    a, b = list(first[0]), list(second[0])
    while a and b and a[0] == b[0]:
        a, b = a[1:], b[1:]
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    return Side(tuple(a), first[1]), Side(tuple(b), second[1])


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("(.*)".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def _quoted(text: str) -> str:
    """Return a text as a value of YAML, in quotes where it would mean something else."""
    is_plain = re.fullmatch(r"[A-Za-z][\w./+-]*", text) and text.lower() not in _YAML_WORDS
    return text if is_plain else f'"{text}"'
