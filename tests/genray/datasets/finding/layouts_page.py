"""The page of the layouts of image pairs, docs/layouts.md: made of layouts that are drawn and found.

    python -m tests.genray.datasets.finding.layouts_page

writes it; a test fails while it is not current.
"""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from genray.datasets.finding.tables import TABLE_SUFFIXES
from genray.datasets.pairs.pair_set import Pairs
from genray.errors import DataError
from tests.genray.datasets.finding.pair_layouts import LAYOUTS, draw, each, found, joined

PAGE = Path(__file__).parents[4] / "docs" / "layouts.md"

_INTRODUCTION = f"""# Layouts of image pairs

What `train-pix2pix` reports of a folder, and what it trains on, without any setting: the first lines of
`--dry-run` and of the run. [Training](training.md) has the rules, and the settings that override them.

`python -m tests.genray.datasets.finding.layouts_page` makes this page: it draws each layout and
searches it.

- The direction goes from the input to the target.
- Held out are the pairs of val, or else of test, or a share that the seed draws. Test pairs are never trained
  on.
- Tables ({", ".join(TABLE_SUFFIXES)}) of two columns of paths are named as `data.path`, or found beside the
  images.
"""
_HEADINGS = ("layout", "files", "report", "first pair that is trained on", "trained on", "held out")
_REFUSED = ("files", "error")
_SHOWN = 4  # files of a layout


def page() -> str:
    """The text of the page."""
    rows = [_row(name, layout.files) for name, layout in LAYOUTS.items()]
    rows += [
        _row("two halves of a file, side by side", each("{}.png", count=8), axis=1),
        _row("two halves of a file, one above the other", each("{}.png", count=8), axis=0),
    ]
    refused = [
        _refusal(each("day/{}.png", "night/{}.png")),
        _refusal(each("{}.png", count=8)),
        _refusal(each("images/{}.png", "depth/1{}.png")),
    ]
    return (
        f"{_INTRODUCTION}\n{_table(_HEADINGS, rows)}\n\n## What is refused\n\n"
        "Nothing is trained on where names and pixels show no pairs, or several readings are possible. The "
        "error says what there is, and lists each reading with its setting.\n\n"
        f"{_table(_REFUSED, refused)}\n"
    )


def _row(name: str, files: list[str], axis: int | None = None) -> tuple[str, ...]:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        if axis is None:
            draw(root, *files)
        else:
            for number, file in enumerate(files):
                Image.fromarray(joined(axis)(number)).save(root / file)
        pairs: Pairs = found(root)
        said = "<br>".join(_code(line) for line in (*pairs.lines[:2], *pairs.lines[3:]))
        example = _code(pairs.example)
    return name, _listed(files), said, example, str(len(pairs.train)), str(len(pairs.val))


def _refusal(files: list[str]) -> tuple[str, ...]:
    with TemporaryDirectory() as folder:
        draw(Path(folder), *files)
        try:
            found(Path(folder))
        except DataError as error:
            lines = error.what.replace(folder, "data").splitlines()
            return _listed(files), "<br>".join(_code(line.strip()) for line in lines)
    raise AssertionError(f"{files[0]} is accepted")


def _listed(files: list[str]) -> str:
    """One file of each folder and kind of name."""
    kinds = {re.sub(r"\d+", "0", file): file for file in reversed(files)}
    shown = list(kinds.values())[::-1][:_SHOWN]
    return "<br>".join(_code(file) for file in shown) + "<br>..." * (len(kinds) > _SHOWN)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
