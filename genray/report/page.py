"""Reports as single HTML files without network access, for phones, dark mode and paper.

All values given to a page are text, never markup, because names and paths come from outside. The templates
beside this file define the looks.
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
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeAlias

from PIL import Image

from genray.images.pixels import Pixels
from genray.text import encodable

if TYPE_CHECKING:
    from jinja2 import Environment

Cell = tuple[int, int]  # row and column in a table's body, from 0


@dataclass(frozen=True)
class Drawing:
    """SVG of our own making, whose texts are escaped; files from outside are never one. Width and height in
    pixels."""

    svg: str
    width: int
    height: int


@dataclass(frozen=True)
class Picture:
    """Picture on a page: (H, W, 1, 3 or 4) uint8, the bytes of a PNG, WebP or JPEG file, or a drawing."""

    image: Pixels | bytes | Drawing
    title: str
    caption: str = ""

    @property
    def size(self) -> int:
        """Bytes of the file or drawing; of pixels those in memory."""
        if isinstance(self.image, Drawing):
            return len(self.image.svg)
        return len(self.image) if isinstance(self.image, bytes) else self.image.nbytes


@dataclass(frozen=True)
class _Section:
    title: str
    kind: ClassVar[str] = "section"


@dataclass(frozen=True)
class _Paragraph:
    text: str
    kind: ClassVar[str] = "paragraph"


class _Card(NamedTuple):
    name: str
    value: str
    note: str


@dataclass(frozen=True)
class _Headline:
    cards: Sequence[_Card]
    kind: ClassVar[str] = "headline"


@dataclass(frozen=True)
class _Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    marked: Collection[Cell]
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class _Figure:
    """Picture in the page's HTML: `source` is a data URI."""

    source: str
    width: int
    height: int
    title: str
    caption: str


@dataclass(frozen=True)
class _Pictures:
    figures: Sequence[_Figure]
    kind: ClassVar[str] = "pictures"


@dataclass(frozen=True)
class _Details:
    summary: str
    parts: list[_Part]
    kind: ClassVar[str] = "details"


_Part: TypeAlias = "_Section | _Paragraph | _Headline | _Table | _Pictures | _Details"


class Page:
    """Report under construction: collects its parts in order; templates/parts.html.j2 renders each.

    Args:
        title: title and heading of the page.
        subtitle: line under the heading.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title = title
        self._subtitle = subtitle
        self._parts: list[_Part] = []

    def section(self, title: str) -> None:
        """Begin a section, to which the following parts belong."""
        self._parts.append(_Section(title))

    def paragraph(self, text: str) -> None:
        """Add a paragraph of text."""
        self._parts.append(_Paragraph(text))

    def headline(self, facts: Sequence[tuple[str, str, str]]) -> None:
        """Add main figures as cards: (name, value, smaller line under it)."""
        self._parts.append(_Headline([_Card(*fact) for fact in facts]))

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        caption: str = "",
        marked: Collection[Cell] = (),
    ) -> None:
        """Add a table. In a table of several columns, a row of one cell is a heading for the rows after it.

        Args:
            columns: headings; the first column contains the names of the rows.
            rows: cells, at most one for each column.
            marked: cells to highlight, such as the best of a row.
        """
        self._parts.append(_Table(columns, rows, caption, marked))

    def picture(self, picture: Picture) -> None:
        """Add a picture over the page's width.

        Raises:
            ValueError: neither an image nor a whole PNG, WebP or JPEG file.
        """
        self.pictures([picture])

    def pictures(self, pictures: Sequence[Picture]) -> None:
        """Add pictures side by side, as many in a row as fit; see `picture`."""
        self._parts.append(_Pictures([_figure(picture) for picture in pictures]))

    @contextmanager
    def details(self, summary: str) -> Iterator[None]:
        """Fold the parts that are added inside under `summary`; on paper they are unfolded."""
        outside = self._parts
        self._parts = []
        try:
            yield
        finally:
            outside.append(_Details(summary, self._parts))
            self._parts = outside

    def html(self) -> str:
        """Return the HTML file."""
        template = _environment().get_template("page.html.j2")
        return template.render(title=self._title, subtitle=self._subtitle, contents=self._parts)


@cache
def _environment() -> Environment:
    """Return the templates, which escape all values."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("genray.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: _writable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("style.css", "script.js"):
        text = (files("genray.report") / "templates" / name).read_text(encoding="utf-8")
        environment.globals[Path(name).stem] = {"text": Markup(text), "hash": Markup(_hash(text))}
    return environment


def png_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a whole PNG file with correct checksums.

    Raises:
        ValueError: no whole PNG file, or more than 100 million pixels.
    """
    if len(data) < 33 or data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        raise ValueError("not a PNG file")
    width, height = struct.unpack(">II", data[16:24])
    if not 0 < width * height <= _MAX_PIXELS:  # checked here, because Pillow only warns
        raise ValueError(f"a PNG file of {width} x {height} pixels")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
    except Exception as error:  # Pillow raises SyntaxError, OSError, zlib.error and more
        raise ValueError(f"a damaged PNG file: {error}") from error
    return width, height


def _kind(data: bytes) -> str:
    """Kind of a picture's file by its first bytes; "png" if it is neither of the others."""
    if data[8:12] == b"WEBP":
        return "webp"
    return "jpeg" if data[:3] == b"\xff\xd8\xff" else "png"


def _raster_size(data: bytes, kind: str) -> tuple[int, int]:
    """Width and height of a WebP or JPEG file that is whole.

    Raises:
        ValueError: it is not.
    """
    try:
        with Image.open(io.BytesIO(data), formats=[kind.upper()]) as image:
            image.load()
            return image.size
    except Exception as error:  # Pillow raises OSError, ValueError and more
        raise ValueError(f"a damaged {kind} file: {error}") from error


def picture_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a whole PNG, WebP or JPEG file.

    Raises:
        ValueError: it is none.
    """
    kind = _kind(data)
    return png_size(data) if kind == "png" else _raster_size(data, kind)


def _figure(picture: Picture) -> _Figure:
    from markupsafe import Markup

    if isinstance(picture.image, Drawing):
        drawing = picture.image
        source = Markup("data:image/svg+xml;base64," + base64.b64encode(drawing.svg.encode()).decode("ascii"))
        return _Figure(source, drawing.width, drawing.height, picture.title, picture.caption)
    data = picture.image if isinstance(picture.image, bytes) else png(picture.image)
    kind = _kind(data)
    width, height = picture_size(data)
    # Markup is not escaped: megabytes of base64 contain nothing to escape.
    source = Markup(f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii"))
    return _Figure(source, width, height, picture.title, picture.caption)


def png(image: Pixels) -> bytes:
    """Encode (H, W, 1, 3 or 4) uint8 as a PNG file."""
    stream = io.BytesIO()
    gray = image.ndim == 3 and image.shape[-1] == 1
    Image.fromarray(image[..., 0] if gray else image).save(stream, format="PNG")
    return stream.getvalue()


def _writable(text: str) -> str:
    """Return `text` with characters that HTML cannot contain as visible escapes."""
    return encodable(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # no characters of HTML
_MAX_PIXELS = 100_000_000
