"""Reader of TIFF files (TIFF 6.0; BigTIFF): headers and pixels of all pages.

Every page is decoded from a small file that holds only what defines its pixels, unless it is the only one and
nothing about it is unusual. Damage elsewhere in the file cannot matter then.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from genray.images.arrays import MOST_CHANNELS, checked_floats, unit_levels
from genray.images.carried.tags import (
    EXIF_TAGS,
    Entries,
    Tag,
    TagDirectory,
    TagValue,
    encode_block,
    encode_directory,
)
from genray.images.image_file import FilePixels, ImageFile, Levels, to_srgb
from genray.images.limits import ReadLimits
from genray.io.bad_input import BadImage

_MAX_PAGES = 10_000
_MAX_TILE = 2**26  # pixels
_WHITE_IS_ZERO, _RGB, _PALETTE, _CMYK, _CIE_LAB, _ICC_LAB = 0, 2, 3, 5, 8, 9
_AS_RGB = (_CMYK, _CIE_LAB, _ICC_LAB)  # libtiff would convert them, without their profile
_SAMPLES = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3}  # by photometric interpretation
_JPEG, _OLD_JPEG = 7, 6
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
# Compressions whose decoders fail if data are missing; others may fill the rest with gray.
_STRICT = (1, 5, 8, 32946, 32773, 34925, 50000)
_ALPHA_IS_MULTIPLIED = 1
_REDUCED, _MASK = 1, 4  # bits of the tag SUBFILE
_SUB_DIRECTORIES = 330
_PIXEL_TAGS = frozenset((*range(256, 260), 262, 266, *range(277, 279), 284, 292, 293, 317, 320, 322, 323))
_PIXEL_TAGS |= frozenset((332, 338, 339, 347, 529, 530, 531, 532, 50674))
_LONG, _LONG8 = 4, 16  # types


def inspect_tiff(data: bytes, limits: ReadLimits) -> ImageFile:
    """Read the headers of all pages, or of the first one if `limits.pages` says so; see `inspect_file`.

    Raises:
        BadImage, ValueError, LookupError, struct.error: the file cannot be read.
    """
    first = TagDirectory.parse(data)
    directories, problem = _directories(first)
    if limits.pages == "first":
        file = _inspect_page(data, first, limits)
        names = _names_of_further(directories[1:])
        if not names:
            return file
        note = f"only the first page is read; left out: {', '.join(names)}"
        return replace(file, left_out=(*file.left_out, *names), notes=(*file.notes, note))
    if problem:
        raise ValueError(f"{problem} (pages=first reads the first)")
    return _inspect_pages(data, directories, limits)


def decode_tiff(data: bytes, file: ImageFile) -> Levels:
    """Decode the pixels of the page whose header is `file`; see `decode_file`.

    Raises:
        Exception: any error of the decoder.
    """
    tags = TagDirectory.parse(data, file.page_at)
    form = _PixelForm.read(tags)
    is_first = file.page_at in (None, TagDirectory.parse(data).at)
    if not is_first or file.salvaged or Tag.ORIENTATION in tags or form.meaning in _AS_RGB:
        data = _bare_page(tags, form)
    raw = imagecodecs.tiff_decode(data)
    if raw.ndim == 3 and tags.number(Tag.PLANAR, 1) == 2:
        raw = np.moveaxis(raw, 0, -1)
    if form.meaning == _PALETTE:
        return _of_palette(raw, tags)
    if form.meaning == _CMYK:
        return np.array(to_srgb(Image.frombytes("CMYK", file.size, raw.tobytes()), file.icc))
    if form.meaning in (_CIE_LAB, _ICC_LAB):
        return _of_lab(raw, is_signed=form.meaning == _CIE_LAB)
    raw = raw.reshape(*raw.shape[:2], -1)
    if form.is_numbers:
        levels = checked_floats(raw)
        if form.meaning != _WHITE_IS_ZERO and not file.alpha:
            return levels
        raw = unit_levels(levels)
    else:
        raw = _scaled(raw, form)
    top = np.iinfo(raw.dtype).max
    if form.meaning == _WHITE_IS_ZERO:
        raw[..., 0] = top - raw[..., 0]
    if file.alpha and tags.number(Tag.EXTRA_SAMPLES, 2) == _ALPHA_IS_MULTIPLIED:
        alpha = np.maximum(raw[..., -1:], 1).astype(np.uint32)
        raw[..., :-1] = np.minimum((raw[..., :-1] * np.uint32(top) + alpha // 2) // alpha, top)
    return raw


@dataclass(frozen=True)
class _PixelForm:
    """Form in which a page stores its pixels.

    Attributes:
        meaning: photometric interpretation.
        samples: channels of the colours, without alpha.
        extra: 1 for alpha, else 0.
        bands: number of channels that are no colours (0: they are colours).
        bits: bits of a value.
        kind: unsigned, signed or float numbers.
        compression: its number.
    """

    meaning: int
    samples: int
    extra: int
    bits: int
    kind: int
    compression: int
    bands: int = 0

    @classmethod
    def read(cls, tags: TagDirectory) -> _PixelForm:
        """Read the form of a page.

        Raises:
            BadImage: `unsupported`.
        """
        compression = tags.number(Tag.COMPRESSION, 1)
        meaning = tags.number(Tag.PHOTOMETRIC, 1)
        samples = _SAMPLES.get(meaning, 0)
        stored = tags.number(Tag.SAMPLES, 1 if compression != _OLD_JPEG else samples)
        bits = set(tags.numbers(Tag.BITS, (1,))[:stored])
        kinds = set(tags.numbers(Tag.SAMPLE_FORMAT, (_UNSIGNED,))[:stored])
        extra = stored - samples
        what = f"photometric interpretation {meaning}, {sorted(bits)} bits, {extra} extra channels"
        if not samples or len(bits) != 1 or len(kinds) != 1 or not 0 <= extra < MOST_CHANNELS:
            raise BadImage("unsupported", f"a TIFF of {what}; {_WAY_OUT}")
        bands = 0
        if extra > 1 or (extra and tags.number(Tag.EXTRA_SAMPLES, 2) not in (1, 2)):
            if meaning not in (1, _RGB):
                raise BadImage("unsupported", f"a TIFF of {what}, which are no alpha; {_WAY_OUT}")
            bands, samples, extra = stored, stored, 0
        form = cls(meaning, samples, extra, bits.pop(), kinds.pop(), compression, bands)
        form._check(what)
        return form

    @property
    def depth(self) -> int:
        """Bits of a decoded value: 8 or 16."""
        return 16 if self.is_numbers or self.bits > 8 else 8

    @property
    def is_numbers(self) -> bool:
        """True for floats, signed numbers and those of 32 bits, whose black and white are not known."""
        return self.kind in (_FLOAT, _SIGNED) or self.bits == 32

    def _check(self, what: str) -> None:
        depths: Sequence[int] = (8,)
        if self.is_numbers:
            depths = (16, 32, 64) if self.kind == _FLOAT else (8, 16, 32)
            depths = depths if self.meaning in (0, 1, _RGB) else ()
        elif self.meaning in (0, 1):
            depths = range(1, 17)
        elif self.meaning == _RGB:
            depths = range(8, 17)
        elif self.meaning == _PALETTE:
            depths = (1, 2, 4, 8)
        if self.bits not in depths:
            raise BadImage("unsupported", f"a TIFF of {what}; {_WAY_OUT}")
        if self.extra and self.meaning not in (0, 1, _RGB, _PALETTE):
            raise BadImage("unsupported", f"a TIFF of {what}, with alpha; {_WAY_OUT}")


_WAY_OUT = "convert it to gray or RGB of 8 or 16 bits"


class _Directories(NamedTuple):
    """Directories of the pages, and why there may be more."""

    found: list[TagDirectory]
    problem: str = ""


def _directories(first: TagDirectory) -> _Directories:
    """Return the directories of all pages.

    Raises:
        BadImage: `too-much-work`.
    """
    found = [first]
    seen = {0, first.at}
    at = first.next_directory()
    while at not in seen:
        if len(found) == _MAX_PAGES:
            raise BadImage("too-much-work", f"a TIFF of more than {_MAX_PAGES} pages; split it")
        seen.add(at)
        if at >= len(first.data):
            return _Directories(found, f"the file ends before its page {len(found) + 1}")
        try:
            tags = TagDirectory.parse(first.data, at)
            tags.number(Tag.WIDTH)
        except (ValueError, LookupError, struct.error):
            return _Directories(found, f"its page {len(found) + 1} is damaged")
        found.append(tags)
        at = tags.next_directory()
    return _Directories(found)


def _names_of_further(directories: Sequence[TagDirectory]) -> list[str]:
    """Return what pages after the first are, and how many."""
    copies = sum(bool(_subfile(tags) & (_REDUCED | _MASK)) for tags in directories)
    names = {"further pages": len(directories) - copies, "reduced copies or masks": copies}
    return [f"{name}: {count}" for name, count in names.items() if count]


def _inspect_pages(data: bytes, directories: Sequence[TagDirectory], limits: ReadLimits) -> ImageFile:
    pages: list[ImageFile] = []
    for tags in directories:
        if _SUB_DIRECTORIES in tags or _subfile(tags) & _MASK:
            what = "copies in SubIFDs" if _SUB_DIRECTORIES in tags else "a transparency mask"
            raise BadImage("unsupported", f"a TIFF with {what}; pages=first reads its first page alone")
        if pages and _subfile(tags) & _REDUCED:
            copy = (tags.number(Tag.WIDTH), tags.number(Tag.HEIGHT))
            pages[-1] = replace(pages[-1], copies=(*pages[-1].copies, copy))
        else:
            pages.append(replace(_inspect_page(data, tags, limits), page_at=tags.at))
        pixels = sum(page.size[0] * page.size[1] for page in pages)
        if pixels > limits.max_pixels:
            raise BadImage(
                "too-large",
                f"{len(pages)} pages have {pixels} pixels together, the limit is {limits.max_pixels} "
                "(max_pixels); pages=first reads the first",
            )
    return replace(pages[0], pages=tuple(pages[1:]))


def _subfile(tags: TagDirectory) -> int:
    return tags.number(Tag.SUBFILE, 0)


def _inspect_page(data: bytes, tags: TagDirectory, limits: ReadLimits) -> ImageFile:
    size = (tags.number(Tag.WIDTH), tags.number(Tag.HEIGHT))
    limits.check_pixels(*size)
    form = _PixelForm.read(tags)
    parts = _Parts.find(tags, form)
    if form.compression in (_JPEG, _OLD_JPEG):
        # Each strip or tile is a JPEG of its own, with at least one scan of its pixels.
        scans = sum(data.count(b"\xff\xda", at, at + length) for at, length in parts.places)
        limits.check_scans(max(1, scans - len(parts.places) + 1), size[0] * size[1])
    notes = []
    left_out = []
    icc = None
    orientation = 1
    try:
        orientation = tags.number(Tag.ORIENTATION, 1)
        icc = tags.raw(Tag.ICC) if Tag.ICC in tags else None
    except (ValueError, LookupError, struct.error):
        notes.append("its orientation or colour profile is damaged: left out")
        left_out.append("ICC profile")
    if form.is_numbers:
        notes.append("numbers from 0.0 to 1.0 are read as 16 bits")
    elif 8 < form.bits < 16:
        notes.append(f"{form.bits} bits are read as 16")
    if form.meaning in (_CIE_LAB, _ICC_LAB):
        left_out.append("L*a*b*")
        icc = None
    entries = tags.exif_entries(limits.max_text_bytes)
    exif = encode_block(tags.order, entries) if entries else None
    left_out += [f"TIFF tag {tag}" for tag in EXIF_TAGS if tag in tags and tag not in entries]
    return ImageFile(
        "tiff",
        size,
        3 if form.meaning == _PALETTE else form.samples,
        depth=form.depth,
        alpha=bool(form.extra),
        orientation=orientation,
        icc=icc,
        exif=exif,
        left_out=tuple(left_out),
        notes=tuple(notes),
        salvaged=parts.repairs,
        bands=form.bands,
    )


@dataclass(frozen=True)
class _Parts:
    """Strips or tiles of a page: offset and length of each, and notes on what was repaired."""

    is_tiled: bool
    places: tuple[tuple[int, int], ...]
    repairs: tuple[str, ...] = ()

    @classmethod
    def find(cls, tags: TagDirectory, form: _PixelForm) -> _Parts:
        """Find the strips or tiles.

        Raises:
            ValueError, LookupError: one of them lies beyond the end of the file.
            BadImage: `too-large`, if a tile is.
        """
        tiled = Tag.TILE_OFFSETS in tags
        if tags.number(Tag.TILE_WIDTH, 1) * tags.number(Tag.TILE_HEIGHT, 1) > _MAX_TILE:
            raise BadImage("too-large", f"tiles of more than {_MAX_TILE} pixels")
        offsets = tags.numbers(Tag.TILE_OFFSETS if tiled else Tag.STRIP_OFFSETS)
        lengths = tags.numbers(Tag.TILE_BYTES if tiled else Tag.STRIP_BYTES)
        end = len(tags.data)
        if len(offsets) == len(lengths):
            places = tuple(zip(offsets, lengths, strict=True))
            if all(at + length <= end for at, length in places):
                return cls(tiled, places)
        if form.compression not in _STRICT or len(lengths) not in (0, len(offsets)):
            raise ValueError("the file ends before its pixels do")
        needed = _part_bytes(tags, form) if form.compression == 1 else 0
        following = sorted({*offsets, end})
        repaired = []
        for index, at in enumerate(offsets):
            limit = min((other for other in following if other > at), default=end) if not lengths else end
            length = min(lengths[index] if lengths else end, limit - at)
            if length <= 0 or (needed and index < len(offsets) - 1 and length < needed):
                raise ValueError("the file ends before its pixels do")
            repaired.append((at, length))
        return cls(tiled, tuple(repaired), ("wrong lengths of strips or tiles",))


def _part_bytes(tags: TagDirectory, form: _PixelForm) -> int:
    """Return the bytes of a strip or tile that is not compressed."""
    planes = 1 if tags.number(Tag.PLANAR, 1) == 2 else form.samples + form.extra
    if Tag.TILE_OFFSETS in tags:
        columns, rows = tags.number(Tag.TILE_WIDTH), tags.number(Tag.TILE_HEIGHT)
    else:
        height = tags.number(Tag.HEIGHT)
        columns, rows = tags.number(Tag.WIDTH), min(height, tags.number(Tag.STRIP_ROWS, height))
    return rows * -(-columns * planes * form.bits // 8)


def _bare_page(tags: TagDirectory, form: _PixelForm) -> bytes:
    """Return a TIFF of one page with nothing but what defines its pixels."""
    if form.compression == _OLD_JPEG:  # its parts lie anywhere
        whole = bytearray(tags.data if Tag.ORIENTATION not in tags else tags.with_number(Tag.ORIENTATION, 1))
        struct.pack_into(
            tags.order + ("Q" if tags.is_wide else "L"), whole, 8 if tags.is_wide else 4, tags.at
        )
        return bytes(whole)
    entries: Entries = {}
    for tag, (kind, count, _) in tags.places.items():
        if tag in _PIXEL_TAGS:
            if kind >= _LONG8:
                numbers = tags.numbers(tag)
                kind = _LONG
                raw = struct.pack(f"{tags.order}{count}L", *numbers)
            else:
                raw = tags.raw(tag)
            entries[tag] = TagValue(kind, count, raw)
    if form.meaning in _AS_RGB:
        entries[Tag.PHOTOMETRIC] = TagValue(3, 1, struct.pack(tags.order + "H", _RGB))
    parts = _Parts.find(tags, form)
    lengths = [length for _, length in parts.places]

    def put(tag: int, numbers: Sequence[int]) -> None:
        entries[tag] = TagValue(_LONG, len(numbers), struct.pack(f"{tags.order}{len(numbers)}L", *numbers))

    put(Tag.TILE_BYTES if parts.is_tiled else Tag.STRIP_BYTES, lengths)
    offsets_tag = Tag.TILE_OFFSETS if parts.is_tiled else Tag.STRIP_OFFSETS
    put(offsets_tag, lengths)  # placeholders of the right size
    at = 8 + len(encode_directory(tags.order, entries, 8))
    put(offsets_tag, (at + np.cumsum([0, *lengths[:-1]])).tolist())
    pixels = (tags.data[start : start + length] for start, length in parts.places)
    return encode_block(tags.order, entries) + b"".join(pixels)


def _of_palette(raw: NDArray[Any], tags: TagDirectory) -> FilePixels:
    colours = np.array(tags.numbers(Tag.PALETTE)).reshape(3, -1).T
    palette = (colours >> (8 if colours.max() > 255 else 0)).astype(np.uint8)
    if raw.ndim == 2:
        return cast(FilePixels, palette[raw.astype(np.uint8)])
    return np.dstack([palette[raw[..., 0]], raw[..., 1]])


def _of_lab(raw: NDArray[np.uint8], *, is_signed: bool) -> FilePixels:
    """Convert L*a*b* to sRGB (TIFF 6.0, section 23)."""
    # Pillow takes a* and b* as signed.
    lab = raw if is_signed else raw ^ np.array([0, 0x80, 0x80], np.uint8)
    image = Image.frombytes("LAB", (raw.shape[1], raw.shape[0]), lab.tobytes())
    profiles = (ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"))
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    return np.array(converted)


def _scaled(raw: NDArray[Any], form: _PixelForm) -> FilePixels:
    """Scale whole numbers of a page to all values of 8 or 16 bits."""
    top = 2**form.bits - 1
    if form.bits in (8, 16) and raw.dtype in (np.uint8, np.uint16):
        return cast(FilePixels, raw)
    if form.bits < 8:
        levels = np.rint(np.arange(top + 1) * (255 / top)).astype(np.uint8)
        return cast(FilePixels, levels[np.minimum(raw, top).astype(np.uint8)])
    levels = np.rint(np.arange(top + 1) * (65535 / top)).astype(np.uint16)
    return cast(FilePixels, levels[np.minimum(raw, top)])
