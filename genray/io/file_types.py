"""The types of files, by their names: what there is, and what of it is not read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from genray.io.kinds import kind_of_name
from genray.text import visible

IDX_SUFFIXES = ("ubyte", "ubyte.gz")
"""Of idx files; they may lack the dot."""

_MOST_TYPES = 100  # that are counted apart
_SHOWN_TYPES = 8
_LONGEST_SUFFIX = 12  # characters
_HASH = 8  # characters that are no suffix if digits are among them


def type_of(name: str) -> str:
    """The type of a file by its name: its suffix in lower case, idx, or "" as of IMG_0001, which has none.

    No suffix is what has no letter, other characters than letters and digits or more than 12, nor a hash:
    8 or more characters, digits among them. So 1.2.840.10008, photo.jpg?w=200 and x.8f00b204 have none.
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
    """How many files there are of each type: a suffix, "idx", "" for none, or "hidden"."""

    read: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    columns: set[str] = field(default_factory=set)
    """Of Parquet files, those that are not read."""

    def add_unread(self, kind: str) -> None:
        """Count one file more that is not read."""
        known = kind in self.unread or len(self.unread) < _MOST_TYPES
        self.unread[kind if known else "of other types"] += 1

    def add(self, other: FileCounts) -> None:
        """Count the files of another place too."""
        self.read.update(other.read)
        self.unread.update(other.unread)
        self.columns |= other.columns

    @property
    def unread_text(self) -> str:
        """What is not read, for a person: "24 .heic are not read (HEIF), nor 3 .txt"; "" if all is."""
        # Images first: somebody expected them to be read.
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
        """What is not read, by type, plain values."""
        counts = {_label(kind): count for kind, count in self.unread.most_common()}
        return counts | {f"column {name}": 1 for name in sorted(self.columns)[:_MOST_TYPES]}


def _label(kind: str) -> str:
    return visible(kind) or "without a suffix"


def _title(kind: str) -> str:
    """What images of this type are called; "" if they are none."""
    found = kind_of_name(f"x{kind}")
    return found.title if found else ""
