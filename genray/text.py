"""Text for people: columns, amounts, and what may be shown of names from outside."""

from __future__ import annotations

from collections.abc import Sequence

LABEL_LENGTH = 64


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words in columns. Nothing is ever cut or wrapped: paths are there to be copied."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def visible(text: str) -> str:
    """`text` from outside in one line, with what cannot be printed as escapes: a file's name may hold
    anything, commands to the terminal and changes of direction too."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def printable(text: str) -> str:
    """`text` from outside in one line of the same length, with what cannot be printed as `?`."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def encodable(text: str) -> str:
    """`text` with a question mark for each half of a surrogate pair, as names of files may hold: it cannot be
    written."""
    return text.encode("utf-8", "replace").decode("utf-8")


def label_value(text: str, length: int = LABEL_LENGTH) -> str:
    """`text` as a label: at most `length` printable characters, the others as `?`; never empty.

    A lone surrogate or a line break in one name would otherwise make the whole scrape fail.
    """
    return printable(text[:length]) or "?"


def amount(count: float) -> str:
    """1234567 bytes -> "1.23 MB"."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            number = f"{count / size:.3g}" if count < 99.95 * size else f"{count / size:,.0f}"
            return f"{number} {unit}"
    return f"{count:.0f} bytes"


def counted(count: int, noun: str) -> str:
    """3, "epoch" -> "3 epochs"; 1, "epoch" -> "1 epoch"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def change_in_bytes(before: int, after: int) -> str:
    """Such as "-12.5 %"; nothing where nothing was written."""
    return f"{100 * (after / before - 1):+.1f} %" if before and after else ""


def duration(seconds: float) -> str:
    """3725 -> "1 h 2 min", 62 -> "1 min 2 s", 7 -> "7 s"."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
