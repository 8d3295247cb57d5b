"""Outcomes of the reader over folders of image files, such as the test suites of image libraries.

    python -m tests.benchmarks.image_suites FOLDER... [--list] [--pages first]

Counts for each format the files that are read, those that are refused by reason, and of the refused ones
those that Pillow decodes completely (`ImageFile.LOAD_TRUNCATED_IMAGES` is off). Files whose first bytes are
those of no format in `genray/io/kinds.py` are not counted. `--list` prints each refused file.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from genray.images.limits import ReadLimits
from genray.images.photo import read_photo
from genray.io.bad_input import BadImage
from genray.io.kinds import HEAD_BYTES, kind_of_bytes


@dataclass(frozen=True)
class Outcome:
    """Outcome of one file.

    Attributes:
        path: path of the file.
        format: name of its format.
        reason: reason why it is refused; empty if it is read.
        detail: detail of the reason, or notes.
        pillow: whether Pillow decodes it completely.
    """

    path: Path
    format: str
    reason: str
    detail: str
    pillow: bool


def outcomes(folders: list[Path], limits: ReadLimits) -> Iterator[Outcome]:
    """Yield the outcome of each image file under `folders`."""
    paths = sorted(path for folder in folders for path in folder.rglob("*"))
    for path in paths:
        if not path.is_file() or path.is_symlink():
            continue
        data = path.read_bytes()
        kind = kind_of_bytes(data[:HEAD_BYTES])
        if kind is None:
            continue
        try:
            photo = read_photo(data, limits)
            yield Outcome(path, kind.name, "", "; ".join(photo.notes), True)
        except BadImage as bad:
            yield Outcome(path, kind.name, bad.reason, bad.detail, _opens_in_pillow(path))


def table(found: list[Outcome]) -> str:
    """Return the counts as a table, a line for each format."""
    reasons = sorted({each.reason for each in found} - {""})
    rows = [["format", "files", "read", *reasons, "refused, opens in Pillow"]]
    for name in [*sorted({each.format for each in found}), "all"]:
        these = [each for each in found if name in (each.format, "all")]
        counts = Counter(each.reason for each in these)
        opens = sum(each.pillow for each in these if each.reason)
        rows.append([name, *map(str, (len(these), *(counts[reason] for reason in ("", *reasons)), opens))])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


def _opens_in_pillow(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except Exception:
        return False
    return True


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--pages", choices=["all", "first"], default="all")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    found = list(outcomes(given.folders, ReadLimits(pages=given.pages)))
    if given.list:
        for each in found:
            if each.reason or each.detail:
                opens = "opens in Pillow" if each.reason and each.pillow else ""
                print(each.path, each.reason or "read", each.detail, opens, sep="\t")
    print(table(found))


if __name__ == "__main__":
    main()
