"""A report as one HTML file that needs no network: texts, tables, pictures; for a phone, the dark and paper.

Everything that is given to a page is text, never markup: names and paths come from outside.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape

from PIL import Image

from genray.images.pixels import Pixels
from genray.text import encodable

Cell = tuple[int, int]  # row and column of a table's body, from 0


@dataclass(frozen=True)
class Picture:
    """A picture on a page: (H, W, 1, 3 or 4) uint8, or a PNG file's bytes."""

    image: Pixels | bytes
    title: str
    caption: str = ""


class Page:
    """Collects the parts of a report in their order.

    Args:
        title: of the page, its heading too.
        subtitle: a line under the heading.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title = title
        under = f"<p>{_text(subtitle)}</p>" if subtitle else ""
        self._parts = [f"<header><h1>{_text(title)}</h1>\n{under}</header>"]

    def section(self, title: str) -> None:
        """Begin a section: what follows belongs to it."""
        self._parts.append(f"<h2>{_text(title)}</h2>")

    def paragraph(self, text: str) -> None:
        """A paragraph of text."""
        self._parts.append(f"<p>{_text(text)}</p>")

    def headline(self, facts: Sequence[tuple[str, str, str]]) -> None:
        """Numbers to be seen first, as cards: (name, value, a smaller line under it)."""
        cards = (
            f"<div><dt>{_text(name).replace('_', '_<wbr>')}</dt><dd>{_text(value)}</dd>"
            + (f"<dd><small>{_text(note)}</small></dd></div>" if note else "</div>")
            for name, value, note in facts
        )
        self._parts.append(f"<dl>{''.join(cards)}</dl>")

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        caption: str = "",
        marked: Collection[Cell] = (),
    ) -> None:
        """A table. A row of one cell, where there are more columns, is a heading over the rows after it.

        Args:
            columns: headings; the first column names the rows.
            rows: the cells, at most as many as columns in each.
            marked: cells to be set off, such as the best of a row.
        """
        head = "".join(f'<th scope="col">{_text(name)}</th>' for name in columns)
        body = "".join(_row_html(r, row, len(columns), marked) for r, row in enumerate(rows))
        over = f"<caption>{_text(caption)}</caption>" if caption else ""
        whole = f"<table>{over}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        self._parts.append(f'<div class="wide">{whole}</div>')

    def picture(self, picture: Picture) -> None:
        """One picture over the page's width.

        Raises:
            ValueError: it is neither an image nor a whole PNG file.
        """
        self.pictures([picture])

    def pictures(self, pictures: Sequence[Picture]) -> None:
        """Pictures beside one another, as many as there is room for; see `picture`."""
        figures = "".join(map(_figure_html, pictures))
        layout = "beside" if len(pictures) > 1 else "alone"
        self._parts.append(f'<div class="{layout}">{figures}</div>')

    @contextmanager
    def details(self, summary: str) -> Iterator[None]:
        """What is added inside is folded away under `summary`; on paper it is unfolded."""
        self._parts.append(f"<details><summary>{_text(summary)}</summary>")
        try:
            yield
        finally:
            self._parts.append("</details>")

    def html(self) -> str:
        """The whole file."""
        # Whatever slips through: the browser loads nothing from elsewhere and runs only this script.
        policy = (
            f"default-src 'none'; img-src data:; style-src '{_hash(_STYLE)}'; script-src '{_hash(_SCRIPT)}'"
        )
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{_text(self._title)}</title><style>{_STYLE}</style></head>\n<body>\n"
            + "\n".join(self._parts)
            + f"\n<script>{_SCRIPT}</script></body></html>\n"
        )


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG file that is whole, its checksums included.

    Raises:
        ValueError: it is not one, or larger than 100 million pixels.
    """
    if len(data) < 33 or data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        raise ValueError("not a PNG file")
    width, height = struct.unpack(">II", data[16:24])
    if not 0 < width * height <= _MAX_PIXELS:  # before Pillow sees it, which only warns
        raise ValueError(f"a PNG file of {width} x {height} pixels")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
    except Exception as error:  # Pillow raises SyntaxError, OSError, zlib.error and more
        raise ValueError(f"a damaged PNG file: {error}") from error
    return width, height


def _figure_html(picture: Picture) -> str:
    data = picture.image if isinstance(picture.image, bytes) else png(picture.image)
    width, height = png_size(data)
    source = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
    image = f'<img src="{source}" width="{width}" height="{height}" alt="{_text(picture.title)}">'
    caption = f" {_text(picture.caption)}" if picture.caption else ""
    return f"<figure>{image}<figcaption><b>{_text(picture.title)}</b>{caption}</figcaption></figure>"


def png(image: Pixels) -> bytes:
    """(H, W, 1, 3 or 4) uint8 as a PNG file."""
    stream = io.BytesIO()
    gray = image.ndim == 3 and image.shape[-1] == 1
    Image.fromarray(image[..., 0] if gray else image).save(stream, format="PNG")
    return stream.getvalue()


def _row_html(number: int, row: Sequence[str], columns: int, marked: Collection[Cell]) -> str:
    if len(row) == 1 < columns:
        return f'<tr><th colspan="{columns}" scope="colgroup">{_text(row[0])}</th></tr>'
    cells = [f'<th scope="row">{_text(row[0])}</th>'] if row else []
    for column, value in enumerate(row[1:], start=1):
        content = f"<b>{_text(value)}</b>" if (number, column) in marked else _text(value)
        cells.append(f"<td>{content}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _text(text: str) -> str:
    return escape(encodable(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)))


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # these are no HTML
_MAX_PIXELS = 100_000_000

_SCRIPT = """
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(d => { d.open = true; }));
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --faint: #59636e; --line: #d5dae0; --paper: #fff;
  --card: #f5f7f9; --mark: #1a6fb5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --faint: #9aa4af; --line: #3a424b;
  --paper: #14181c; --card: #1d2328; --mark: #6db7f2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; }
h2 { margin: 2.2rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); font-size: 1.2rem; }
header p { margin: .2rem 0 1rem; color: var(--faint); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .6rem; margin: 1rem 0; }
dl div { padding: .6rem .8rem; border-radius: .5rem; background: var(--card); }
dt, small, caption, figcaption { color: var(--faint); font-size: .875rem; }
dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; line-height: 1.3; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; font-size: .9375rem; overflow-wrap: normal; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; unicode-bidi: isolate; font-variant-numeric: tabular-nums; max-width: 28rem;
  overflow-wrap: break-word; }
tbody th { font-weight: 400; }
thead th, th[colspan] { color: var(--faint); font-weight: 600; }
th[colspan] { padding-top: 1rem; }
td b { color: var(--mark); }
td b::after { content: " \\2713"; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
figure { margin: .8rem 0 1.4rem; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: .25rem; }
figcaption { margin-top: .4rem; }
figcaption b { color: var(--ink); }
details { margin: .8rem 0; }
summary { cursor: pointer; font-weight: 600; }
@media print { :root { color-scheme: light; --ink: #000; --faint: #444; --line: #ccc; --paper: #fff;
  --card: #fff; --mark: #000; } body { max-width: none; padding: 0; } figure, tr { break-inside: avoid; }
  h2, summary { break-after: avoid; } .wide { overflow: visible; } }
"""
