"""Text for people: columns, amounts, and safe display of names from outside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LABEL_LENGTH = 64

_SHOWN = 4  # folders


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of words in aligned columns, never cut or wrapped, so that paths can be copied."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def visible(text: str) -> str:
    """Return `text` from outside as one line with unprintable characters as escapes.

    File names may contain terminal commands and changes of text direction."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def printable(text: str) -> str:
    """Return `text` from outside as one line of the same length, with `?` for unprintable characters."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def encodable(text: str) -> str:
    """Return `text` with `?` for lone surrogates, which file names may contain and UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def label_value(text: str, length: int = LABEL_LENGTH) -> str:
    """Return `text` as a label of at most `length` characters, with `?` for unprintable ones; never empty.

    A lone surrogate or a line break in one name would make the whole scrape fail.
    """
    return printable(text[:length]) or "?"


def amount(count: float) -> str:
    """Return a number of bytes in words: "1.23 MB" for 1234567."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            number = f"{count / size:.3g}" if count < 99.95 * size else f"{count / size:,.0f}"
            return f"{number} {unit}"
    return f"{count:.0f} bytes"


def counted(count: int, noun: str) -> str:
    """3, "epoch" -> "3 epochs"; 1, "epoch" -> "1 epoch"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def parent_folders(paths: Iterable[str]) -> str:
    """Return the folders of relative paths in words, the first four by name."""
    folders = sorted({path.rpartition("/")[0] or "." for path in paths})
    more = f" and {len(folders) - _SHOWN} more" if len(folders) > _SHOWN else ""
    return visible(", ".join(folders[:_SHOWN])) + more


def change_in_bytes(before: int, after: int) -> str:
    """Return the change of size, such as "-12.5 %" (empty if either size is 0)."""
    return f"{100 * (after / before - 1):+.1f} %" if before and after else ""


def duration(seconds: float) -> str:
    """Return seconds in words: "1 h 2 min" for 3725, "1 min 2 s" for 62, "7 s" for 7."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
