"""The page of the image formats, docs/formats.md: made of the table of kinds, and of samples that are read
and written again.

    python -m tests.genray.images.formats_page

writes it; a test fails while it is not current.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif

from genray.images.decode import decode
from genray.images.limits import ReadLimits
from genray.images.photo import Photo, read_photo
from genray.images.photo_writer import WriteSettings, output_path, write_photo
from genray.io.bad_input import BadImage
from genray.io.kinds import KINDS, ImageKind
from tests.broken_files import encode
from tests.genray.images.carried_samples import FORMATS, ITEMS, outcome
from tests.genray.images.photo_samples import ICC, exif, smooth

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"

_INTRODUCTION = """# Image formats

Training and bulk read image files through one reader (`genray/images/formats.py`). A file is what its first
bytes say, whatever its name is. It is turned by its EXIF orientation. What cannot be read, or is beyond a
limit (`data.max_pixels`, `read.max_pixels` and those beside it), is set aside by name with its reason. Bulk
writes the format that it read (PNG for those that are not written: `a.heic` becomes `a.heic.png`), or
`write.format`. Training gets 8 bits: 16 bits are scaled, palettes and CMYK become RGB, transparency is laid
over white.

- HEIF needs the extra `heif` (`pip install 'genray[heif]'`).
- More than 8 bits are read as 16, scaled so that white stays white. Floats are read if all are within 0
  and 1. Of other floats, signed numbers and numbers of 32 bits black and white are not known: trainings take
  them with a window of levels (`data.window`, for pairs `data.input_window` and `data.target_window`), and so
  do the bulk targets of the bundle.
- TIFFs and arrays of other numbers of channels (2 to 64) are read by trainings, and by `translate`, `embed`,
  `detect` and the other targets whose model has as many channels.
- NumPy arrays are (H, W), (H, W, C) or (C, H, W). A training reads them where no other images are, pairs
  always, bulk with `read.suffixes=[.npy]`: beside images they are mostly something else.
- Of JPEG XL only sRGB is read, because its decoder does not give other profiles.
- A TIFF is read with all its pages ([bulk](bulk.md)). Of MPO and HEIF the main picture is read. An animation
  is refused, or gives its first frame (`read.pages=first`). What is left out is named.
- A file that is damaged but lacks no pixel is read, and the damage noted (`read.damaged`).

`python -m tests.genray.images.formats_page` makes this page of samples that are read and written.

"""
_CARRIED = """
## What an image carries

Bulk outputs keep what the input carries: **what the format of the output has a place for is kept, the rest is
named** in the ledger's column `not_kept`, which the summary and the report count. What files say of their
pixels is made true: orientation 1 and the size in EXIF and XMP; thumbnails show the previous pixels, so they
are removed, and named. A result that equals its input is the input's file, byte for byte.

- A palette stays a palette if the result has at most 256 colours (the same palette if it has all of them).
  1, 2 or 4 bits of gray stay so if the result has no levels in between. Gray stays gray. Alpha stays alpha,
  even if it is opaque everywhere.
- A JPEG keeps its subsampling, and its quantisation tables if its quality is 75 to 98 (else the nearest of
  these).
- `write.keep_exif=false` leaves out what the input says in words (EXIF, XMP, IPTC, comments, texts), and
  `write.keep_icc=false` the colour profile and PNG's colour chunks.
- Unknown chunks of a PNG are kept if their name says that editors may copy them. Unknown segments of a JPEG,
  chunks of a WebP and tags of a TIFF are named.
- All of it together may have `read.max_text_bytes`; what is beyond is named.

Each cell is made of a file that carries the item, is read and written again, and is then read by Pillow:

"""
_HEADINGS = ("format", "suffixes", "depths in bits", "colours", "beside the pixels", "read by", "written as")
_CLAIMS = {
    "png": ("1", "8", "16", "gray", "RGB", "palette", "alpha", "profile", "EXIF"),
    "jpeg": ("8", "gray", "RGB", "CMYK", "profile", "EXIF"),
    "webp": ("8", "RGB", "alpha", "profile", "EXIF"),
    "tiff": ("1", "8", "16", "gray", "RGB", "palette", "CMYK", "alpha", "profile", "EXIF"),
    "bigtiff": ("1", "8", "16", "gray", "RGB", "palette", "CMYK", "alpha", "profile"),
    "bmp": ("1", "8", "gray", "RGB", "palette", "alpha"),
    "gif": ("8", "RGB", "palette"),
    "avif": ("8", "16", "gray", "RGB", "alpha", "profile", "EXIF"),
    "heif": ("8", "16", "gray", "RGB", "alpha", "profile"),
    "jp2": ("8", "16", "gray", "RGB", "alpha"),
    "jxl": ("8", "gray", "RGB", "alpha"),
    "npy": ("8", "16", "gray", "RGB"),
}
_DEPTHS = ("1", "8", "16")
_BESIDE = ("alpha", "profile", "EXIF")
_KEPT = ("gray", "16", "alpha", "profile", "EXIF")

_HOLDS: dict[str, Callable[[Photo], bool]] = {
    "1": lambda photo: set(np.unique(photo.pixels)) == {0, 255},
    "8": lambda photo: photo.depth == 8,
    "16": lambda photo: photo.depth == 16,
    "gray": lambda photo: photo.pixels.shape[2] == 1,
    "RGB": lambda photo: photo.pixels.shape[2] == 3,
    "palette": lambda photo: photo.pixels.shape[2] == 3,
    "CMYK": lambda photo: photo.pixels.shape[2] == 3,
    "alpha": lambda photo: photo.alpha is not None,
    "profile": lambda photo: photo.icc == ICC,
    "EXIF": lambda photo: photo.exif is not None and photo.pixels.shape[:2] == (32, 24),
}


def page() -> str:
    """The text of the page."""
    rows = [_row(kind) for kind in KINDS.values() if kind.is_read]
    lines = [_HEADINGS, tuple("---" for _ in _HEADINGS), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    others = ", ".join(kind.title for kind in KINDS.values() if not kind.is_read)
    known = f"Known by their first bytes, and set aside by name: {others}."
    return f"{_INTRODUCTION}{table}\n\n{known}\n{_CARRIED}{_carried_table()}\n"


def _carried_table() -> str:
    """The table of items: a line for each, a column for each format that is written."""
    heading = ("carried", "in", *(f"as {KINDS[form].title}" for form in FORMATS))
    lines = [heading, tuple("---" for _ in heading)]
    for item in ITEMS:
        sources = [form for form in FORMATS if item.draw(form) is not None]
        cells = []
        for target in FORMATS:
            found = {outcome(item, source, target) for source in sources}
            cells.append(" or ".join(sorted(found)))
        lines.append((item.name, ", ".join(KINDS[form].title for form in sources), *cells))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _row(kind: ImageKind) -> tuple[str, ...]:
    """The cells of a kind: of what it is claimed to have only what a sample shows."""
    photos: dict[str, Photo] = {}
    trained = True
    for claim in _CLAIMS[kind.name]:
        data = _draw(kind.name, claim)
        try:
            photo = read_photo(data, ReadLimits())
        except BadImage:
            continue
        if photo.format == kind.name.removeprefix("big") and _HOLDS[claim](photo):
            photos[claim] = photo
        try:
            decode(data, channels=3, limits=ReadLimits())
        except BadImage:
            trained = False
    kept = [claim for claim in _KEPT if claim in photos and _HOLDS[claim](_again(photos[claim]))]
    readers = ["training"] * (trained and bool(photos)) + ["bulk"] * bool(photos)
    formats = {_again(photo).format for photo in photos.values()}
    written = " or ".join(sorted(KINDS[name].title for name in formats))
    suffix = output_path("a", WriteSettings(format=formats.pop()))[1:]
    named = ["16 bits" if claim == "16" else claim for claim in kept]
    return (
        kind.title,
        " ".join(kind.suffixes),
        ", ".join(claim for claim in _DEPTHS if claim in photos),
        ", ".join(claim for claim in photos if claim not in (*_DEPTHS, *_BESIDE)),
        ", ".join(claim for claim in _BESIDE if claim in photos) or "nothing",
        ", ".join(readers) or "none",
        f"{written} ({suffix}), with " + ", ".join(named) if named else f"{written} ({suffix})",
    )


def _again(photo: Photo) -> Photo:
    return read_photo(write_photo(photo, WriteSettings()).data, ReadLimits())


def _draw(kind: str, claim: str) -> bytes:
    """A file of a kind that has what is claimed."""
    if claim == "16":
        levels = np.asarray(smooth()).astype(np.uint16) * 257
        if kind == "png":
            return bytes(imagecodecs.png_encode(levels))
        if kind == "jp2":
            return bytes(imagecodecs.jpeg2k_encode(levels, level=0))
        if kind == "avif":
            return bytes(imagecodecs.avif_encode(levels >> 4, bitspersample=12))
        if kind == "npy":
            return array_of(levels)
        if kind == "heif":
            return heif_of(pillow_heif.from_bytes("RGB;16", smooth().size, levels.tobytes()))
        return bytes(imagecodecs.tiff_encode(levels, bigtiff=kind == "bigtiff"))
    if claim == "alpha" and kind == "bmp":  # Pillow writes none that is known by its mask
        alpha = np.array(smooth("L"))
        return write_photo(Photo(np.array(smooth()), alpha, kind), WriteSettings()).data
    mode = {"1": "1", "gray": "L", "palette": "P", "CMYK": "CMYK", "alpha": "RGBA"}.get(claim, "RGB")
    image = smooth(mode)
    if claim == "alpha":
        image.putalpha(smooth("L"))
    options = {"profile": {"icc_profile": ICC}, "EXIF": {"exif": exif(6)}}.get(claim, {})
    if kind == "npy":
        return array_of(np.asarray(image))
    if kind == "bigtiff":
        return encode(image, "TIFF", big_tiff=True, **options)
    if kind == "jxl":
        return bytes(imagecodecs.jpegxl_encode(np.asarray(image)))
    if kind == "heif":
        return heif_of(pillow_heif.from_pillow(image), **options)
    return encode(image, "JPEG2000" if kind == "jp2" else kind.upper(), **options)


def heif_of(file: pillow_heif.HeifFile, **options: Any) -> bytes:
    """A HEIF file."""
    stream = io.BytesIO()
    file.save(stream, **options)
    return stream.getvalue()


def array_of(values: np.ndarray[Any, Any]) -> bytes:
    """A file of NumPy's format."""
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
