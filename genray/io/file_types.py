"""File types by name, and counts of the files that are read and not read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from genray.io.kinds import kind_of_name
from genray.text import visible

IDX_SUFFIXES = ("ubyte", "ubyte.gz")
"""Endings of idx files; the dot may be missing."""

_MOST_TYPES = 100  # types counted separately
_SHOWN_TYPES = 8
_LONGEST_SUFFIX = 12  # characters
_HASH = 8  # characters from which a suffix with digits counts as a hash


def type_of(name: str) -> str:
    """Return the type of a file by its name: its suffix in lower case, "idx", or "" without a suffix.

    A suffix has 1 to 12 ASCII letters and digits, is not a number, and is not a hash (8 or more characters
    with digits). So IMG_0001, 1.2.840.10008, photo.jpg?w=200 and x.8f00b204 have none.
    """
    lower = name.lower()
    if lower.endswith(IDX_SUFFIXES):
        return "idx"
    stem, _, suffix = lower.rpartition(".")
    if (
        not stem
        or len(suffix) > _LONGEST_SUFFIX
        or not (suffix.isascii() and suffix.isalnum())
        or suffix.isdigit()
    ):
        return ""
    if len(suffix) >= _HASH and any(map(str.isdigit, suffix)):
        return ""
    return ".tar.gz" if lower.endswith(".tar.gz") else f".{suffix}"


@dataclass
class FileCounts:
    """Numbers of files by type: a suffix, "idx", "" (no suffix) or "hidden"."""

    read: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    columns: set[str] = field(default_factory=set)
    """Names of Parquet columns that are not read."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Numbers of inputs that could be read and are left out, by the reason in words."""
    carried: Counter[str] = field(default_factory=Counter)
    """Numbers of other members of samples that the output has too, by type."""

    def add_unread(self, kind: str) -> None:
        """Count one more file that is not read."""
        known = kind in self.unread or len(self.unread) < _MOST_TYPES
        self.unread[kind if known else "of other types"] += 1

    def add_carried(self, kind: str) -> None:
        """Count one more member of a sample that the output has too."""
        known = kind in self.carried or len(self.carried) < _MOST_TYPES
        self.carried[kind if known else "of other types"] += 1

    def add_filtered(self) -> None:
        """Count one more input that read.include or read.exclude leaves out."""
        self.left_out["by read.include or read.exclude"] += 1

    def add(self, other: FileCounts) -> None:
        """Add the counts of another place."""
        self.read.update(other.read)
        self.unread.update(other.unread)
        self.columns |= other.columns
        self.left_out.update(other.left_out)
        self.carried.update(other.carried)

    @property
    def unread_text(self) -> str:
        """Sentence about the files that are not read: "24 .heic are not read (HEIF), nor 3 .txt; 2 are left
        out (listed twice); 5 .json are carried along"; "" if there are none."""
        counted = sum(self.left_out.values())
        reasons = self.left_out.most_common()
        why = ", ".join(reason if len(reasons) == 1 else f"{count:,} {reason}" for reason, count in reasons)
        left_out = f"{counted:,} {'are' if counted > 1 else 'is'} left out ({why})" if counted else ""
        return "; ".join(filter(None, [self._not_read_text, left_out, self._carried_text]))

    @property
    def _carried_text(self) -> str:
        ranked = self.carried.most_common(_SHOWN_TYPES)
        rest = sum(self.carried.values()) - sum(count for _, count in ranked)
        shown = [f"{count:,} {_label(kind)}" for kind, count in ranked] + [f"{rest:,} others"] * bool(rest)
        return (
            f"{', '.join(shown)} {'are' if self.carried.total() > 1 else 'is'} carried along" if shown else ""
        )

    @property
    def _not_read_text(self) -> str:
        # Images first: the user expects them to be read.
        ranked = sorted(self.unread.items(), key=lambda each: (not _title(each[0]), -each[1], each[0]))
        clauses = [
            (f"{count:,} {_label(kind)}", _title(kind), count > 1) for kind, count in ranked[:_SHOWN_TYPES]
        ]
        more = sum(count for _, count in ranked[_SHOWN_TYPES:])
        if more:
            clauses.append((f"{more:,} of other types", "", more > 1))
        if self.columns:
            names = sorted(visible(name) for name in self.columns)
            rest = len(names) - _SHOWN_TYPES
            shown = ", ".join(names[:_SHOWN_TYPES]) + f" and {rest} more" * (rest > 0)
            clauses.append((f"the Parquet column{'s' * (len(names) > 1)} {shown}", "", len(names) > 1))
        if not clauses:
            return ""
        (what, title, several), *others = clauses
        text = f"{what} {'are' if several else 'is'} not read" + f" ({title})" * bool(title)
        more_text = ", ".join(what + f" ({title})" * bool(title) for what, title, _ in others)
        return text + f", nor {more_text}" * bool(others)

    def as_json(self) -> dict[str, int]:
        """Return the numbers of files that are not read by type, as plain JSON values."""
        counts = {_label(kind): count for kind, count in self.unread.most_common()}
        counts |= {f"column {name}": 1 for name in sorted(self.columns)[:_MOST_TYPES]}
        return counts | {f"left out: {reason}": count for reason, count in self.left_out.items()}


def _label(kind: str) -> str:
    return visible(kind) or "without a suffix"


def _title(kind: str) -> str:
    """Return the name of an image format by its suffix; "" for other types."""
    found = kind_of_name(f"x{kind}")
    return found.title if found else ""
