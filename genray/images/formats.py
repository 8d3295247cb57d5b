"""The one reader of image files, for training and bulk: headers before decoding, and pixels as stored.

The format is found by the first bytes. Every error of a decoder becomes a `BadImage`. Damage outside the
pixels does not prevent reading them.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import imagecodecs
import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile

from genray.images.image_file import FilePixels, ImageFile, guarded, to_srgb
from genray.images.jpeg import decode_jpeg, inspect_jpeg
from genray.images.limits import ReadLimits
from genray.images.png import decode_png, inspect_png
from genray.images.tiff import EXIF_TAGS, Tag, TagDirectory, encode_block, without_orientation
from genray.io.bad_input import BadImage
from genray.io.kinds import HEAD_BYTES, READ_TITLES, kind_of_bytes

_MAX_CHUNKS = 100_000
_MAX_PAGES = 10_000
_ICC_SPACES = {1: (b"GRAY", b"RGB "), 3: (b"RGB ",), 4: (b"CMYK",)}
_BESIDE_WEBP_PIXELS = (b"EXIF", b"XMP ")
_TIFF_SAMPLES = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # by photometric interpretation
_TIFF_WHITE_IS_ZERO = 0
_TIFF_RGB = 2
_TIFF_PALETTE = 3
_TIFF_CMYK = 5
_TIFF_JPEGS = (6, 7)  # compressions
_MAX_TILE = 2**26  # pixels
_BMP_PROFILE = b"DEBM"  # the colour space of a BMP with an embedded profile
_BMP_V5 = b"\x7c\0\0\0"  # size of its header


def inspect_file(data: bytes, limits: ReadLimits) -> ImageFile:
    """Read the header of a file, without decoding its pixels.

    Args:
        data: the whole file.
        limits: what to refuse.

    Raises:
        BadImage: `empty`, `unknown-format`, `truncated` or `unsupported`; `too-large` or `too-much-work` if
            decoding would exceed `limits`.
    """
    return guarded(lambda: _inspect(data, limits))


def decode_file(
    data: bytes,
    file: ImageFile,
    limits: ReadLimits,
    *,
    salvaged: list[str] | None = None,
    gray: bool = False,
) -> FilePixels:
    """Decode the pixels of a file, as stored: not yet turned upright.

    Args:
        data: the whole file.
        file: its header, from `inspect_file`.
        limits: what to refuse.
        salvaged: receives notes on damage that is found while decoding, and costs no pixel (None: nowhere).
        gray: decode only the brightness of a JPEG: C is then 1.

    Returns:
        (H, W, C) uint8 or uint16, with alpha as the last channel.

    Raises:
        BadImage: `truncated`, `unsupported`, `too-large`.
    """

    def decode() -> FilePixels:
        if file.format == "jpeg":
            pixels = decode_jpeg(data, file, repairs, gray=gray)
        elif file.format == "png":
            pixels = decode_png(data, file, repairs)
        else:
            pixels = _DECODERS[file.format](data, file)
        limits.check_damage(repairs)
        width, height = file.size
        if pixels.shape[:2] != (height, width):
            raise BadImage(
                "truncated",
                f"it has {pixels.shape[1]}x{pixels.shape[0]} pixels, but its header says {width}x{height}",
            )
        return pixels.reshape(height, width, -1)

    repairs: list[str] = []
    decoded = guarded(decode)
    if salvaged is not None:
        salvaged += repairs
    return decoded


def _inspect(data: bytes, limits: ReadLimits) -> ImageFile:
    limits.check_bytes(len(data))
    if not data:
        raise BadImage("empty", "the file has 0 bytes")
    kind = kind_of_bytes(data[:HEAD_BYTES])
    if kind is None:
        raise BadImage("unknown-format", f"no image format begins with the bytes {data[:8]!r}")
    if kind.name not in _INSPECTORS:
        raise BadImage("unsupported", f"{kind.title} files are not read: convert them to {READ_TITLES}")
    file = _INSPECTORS[kind.name](data, limits)
    if min(file.size) < 1:
        raise BadImage("truncated", f"{file.size[0]}x{file.size[1]} pixels: the header is damaged")
    limits.check_pixels(*file.size)
    limits.check_damage(file.salvaged)
    notes = list(file.notes)
    left_out = list(file.left_out)
    icc = file.icc
    if icc is not None and len(icc) > limits.max_text_bytes:
        notes.append(f"its colour profile has more than {limits.max_text_bytes} bytes: left out")
        left_out.append("ICC profile")
        icc = None
    elif icc is not None and not _is_profile(icc, _ICC_SPACES[file.samples]):
        notes.append("its colour profile is damaged, or of other colours: left out")
        left_out.append("ICC profile")
        icc = None
    orientation, exif = file.orientation, file.exif
    if exif is not None and file.format != "tiff":
        orientation, exif, is_whole, had_thumbnail = without_orientation(exif.removeprefix(b"Exif\0\0"))
        if not is_whole:
            notes.append("its EXIF is damaged: left out" + (" in part" if exif else ""))
            left_out.append("EXIF (in part)" if exif else "EXIF")
        if had_thumbnail:
            left_out.append("EXIF thumbnail")
    if exif is not None and len(exif) > limits.max_text_bytes:
        notes.append(f"its EXIF has more than {limits.max_text_bytes} bytes: left out")
        left_out.append("EXIF")
        exif = None
    orientation = orientation if 1 <= orientation <= 8 else 1
    return replace(
        file,
        icc=icc,
        exif=exif,
        orientation=orientation,
        left_out=tuple(left_out),
        notes=tuple(notes),
    )


def _is_profile(icc: bytes, spaces: tuple[bytes, ...]) -> bool:
    return 132 <= int.from_bytes(icc[:4]) <= len(icc) and icc[36:40] == b"acsp" and icc[16:20] in spaces


def _inspect_webp(data: bytes, limits: ReadLimits) -> ImageFile:
    # https://developers.google.com/speed/webp/docs/riff_container
    chunks = list(webp_chunks(data))
    if sum(kind == b"ANMF" for kind, _, _ in chunks) > 1:
        raise BadImage("unsupported", "an animation")
    body = {kind: data[at : at + length] for kind, at, length in chunks}
    alpha = False
    if b"VP8X" in body:
        head = body[b"VP8X"]
        alpha = bool(head[0] & 16)
        size = (1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little"))
    elif b"VP8L" in body:
        (bits,) = struct.unpack_from("<L", body[b"VP8L"], 1)
        alpha = bool(bits >> 28 & 1)
        size = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    else:
        width, height = struct.unpack_from("<HH", body[b"VP8 "], 6)
        size = (width & 0x3FFF, height & 0x3FFF)
    salvaged: tuple[str, ...] = ()
    if _webp_end(data) > len(data):
        salvaged = ("it ends early, behind its pixels",)
    icc, exif = body.get(b"ICCP"), body.get(b"EXIF")
    return ImageFile(
        "webp", size, 3, alpha=alpha, icc=icc, exif=exif, lossless=b"VP8L" in body, salvaged=salvaged
    )


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, start and length of each complete chunk of a WebP file (RIFF).

    Raises:
        ValueError, struct.error: the file is damaged, or ends before its pixels do.
    """
    at = 12
    end = _webp_end(data)
    has_pixels = False
    for _ in range(_MAX_CHUNKS):
        if at >= end or (has_pixels and at == len(data)):
            return
        kind, length = struct.unpack_from("<4sL", data, at)
        if at + 8 + length > len(data):
            if has_pixels and kind in _BESIDE_WEBP_PIXELS:
                return
            raise ValueError(f"the file ends within its chunk {kind!r}")
        yield kind, at + 8, length
        has_pixels |= kind in (b"VP8 ", b"VP8L")
        at += 8 + length + length % 2
    raise ValueError("too many chunks")


def _webp_end(data: bytes) -> int:
    end: int = 8 + struct.unpack_from("<L", data, 4)[0]
    return end


def _decode_webp(data: bytes, file: ImageFile) -> FilePixels:
    if _webp_end(data) > len(data):  # libwebp would refuse the file
        kept = b""
        for kind, at, length in webp_chunks(data):
            body = data[at : at + length]
            if kind == b"VP8X":  # without the bits that announce EXIF and XMP
                body = bytes([body[0] & ~12]) + body[1:]
            if kind not in _BESIDE_WEBP_PIXELS:
                kept += data[at - 8 : at] + body + bytes(length % 2)
        data = data[:4] + struct.pack("<L", 4 + len(kept)) + b"WEBP" + kept
    return cast(FilePixels, imagecodecs.webp_decode(data, hasalpha=file.alpha or None))


def _inspect_tiff(data: bytes, limits: ReadLimits) -> ImageFile:
    tags = TagDirectory.parse(data)
    pages = _count_pages(tags)
    if pages > 1:
        raise BadImage("unsupported", f"a TIFF of {pages} pages: split it into one file for each page")
    size = (tags.number(Tag.WIDTH), tags.number(Tag.HEIGHT))
    bits = tags.numbers(Tag.BITS, (1,))
    meaning = tags.number(Tag.PHOTOMETRIC)
    samples = _TIFF_SAMPLES.get(meaning, 0)
    extra = tags.number(Tag.SAMPLES, 1) - samples
    usual = _are_usual_samples(tags, meaning, bits)
    if (
        not samples
        or not usual
        or extra not in (0, 1)
        or (extra and tags.number(Tag.EXTRA_SAMPLES, 2) not in (1, 2))
    ):
        raise BadImage(
            "unsupported",
            f"a TIFF of photometric interpretation {meaning}, {bits} bits, {extra} extra channels",
        )
    if (extra and meaning >= _TIFF_PALETTE) or (
        meaning == _TIFF_CMYK and tags.number(Tag.COMPRESSION, 1) in _TIFF_JPEGS
    ):
        raise BadImage(
            "unsupported", "a TIFF of palette, CMYK or YCbCr with alpha, or of CMYK compressed as JPEG"
        )
    limits.check_pixels(*size)
    parts = _check_tiff_parts(tags)
    if tags.number(Tag.COMPRESSION, 1) in _TIFF_JPEGS:
        # Each strip or tile is a JPEG of its own, with at least one scan of its pixels.
        scans = data.count(b"\xff\xda")
        limits.check_scans(max(1, scans - parts + 1), size[0] * size[1])
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
    entries = tags.exif_entries(limits.max_text_bytes)
    exif = encode_block(tags.order, entries) if entries else None
    left_out += [f"TIFF tag {tag}" for tag in EXIF_TAGS if tag in tags and tag not in entries]
    return ImageFile(
        "tiff",
        size,
        3 if meaning == _TIFF_PALETTE else samples,
        depth=16 if bits[0] == 16 else 8,
        alpha=bool(extra),
        orientation=orientation,
        icc=icc,
        exif=exif,
        left_out=tuple(left_out),
        notes=tuple(notes),
    )


def _count_pages(tags: TagDirectory) -> int:
    """Count the images of a TIFF, without those marked as smaller copies of another."""
    pages = 1
    seen = {0}
    at = tags.next_directory()
    while at not in seen and len(seen) < _MAX_PAGES:
        seen.add(at)
        try:
            page = TagDirectory.parse(tags.data, at)
            pages += not page.number(Tag.SUBFILE, 0) & 1
            at = page.next_directory()
        except (ValueError, LookupError, struct.error):
            break
    return pages


def _are_usual_samples(tags: TagDirectory, meaning: int, bits: tuple[int, ...]) -> bool:
    """Return whether all samples are unsigned integers of a bit depth that is read for these colours."""
    depths: tuple[int, ...] = (8,)
    if meaning in (0, 1):
        depths = (1, 2, 4, 8, 16)
    elif meaning == _TIFF_RGB:
        depths = (8, 16)
    return len(set(bits)) == 1 and bits[0] in depths and set(tags.numbers(Tag.SAMPLE_FORMAT, (1,))) == {1}


def _check_tiff_parts(tags: TagDirectory) -> int:
    """Return the number of strips or tiles.

    Raises:
        ValueError: one of them lies beyond the end of the file.
        BadImage: `too-large`, if a tile is.
    """
    tiled = Tag.TILE_OFFSETS in tags
    offsets = tags.numbers(Tag.TILE_OFFSETS if tiled else Tag.STRIP_OFFSETS)
    lengths = tags.numbers(Tag.TILE_BYTES if tiled else Tag.STRIP_BYTES)
    if any(at + length > len(tags.data) for at, length in zip(offsets, lengths, strict=True)):
        raise ValueError("the file ends before its pixels do")
    if tags.number(Tag.TILE_WIDTH, 1) * tags.number(Tag.TILE_HEIGHT, 1) > _MAX_TILE:
        raise BadImage("too-large", f"tiles of more than {_MAX_TILE} pixels")
    return len(offsets)


def _decode_tiff(data: bytes, file: ImageFile) -> FilePixels:
    tags = TagDirectory.parse(data)
    meaning = tags.number(Tag.PHOTOMETRIC)
    bits = tags.number(Tag.BITS, 1)
    if Tag.ORIENTATION in tags:  # libtiff would apply it, but only for some compressions
        data = tags.with_number(Tag.ORIENTATION, 1)
    if meaning == _TIFF_CMYK:  # read as RGB with alpha: libtiff would convert it without its profile
        data = TagDirectory.parse(data).with_number(Tag.PHOTOMETRIC, _TIFF_RGB)
    raw = imagecodecs.tiff_decode(data)
    if raw.ndim == 3 and tags.number(Tag.PLANAR, 1) == 2:
        raw = np.moveaxis(raw, 0, -1)
    if meaning == _TIFF_PALETTE:
        colours = np.array(tags.numbers(Tag.PALETTE)).reshape(3, -1).T
        palette = (colours >> (8 if colours.max() > 255 else 0)).astype(np.uint8)
        return cast(FilePixels, palette[raw])
    if meaning == _TIFF_CMYK:
        return np.array(to_srgb(Image.frombytes("CMYK", file.size, raw.tobytes()), file.icc))
    raw = raw.reshape(*raw.shape[:2], -1).astype(np.uint16 if bits == 16 else np.uint8)
    top = 65535 if bits == 16 else 255
    raw *= top // (2**bits - 1)
    if meaning == _TIFF_WHITE_IS_ZERO:
        raw[..., 0] = top - raw[..., 0]
    if file.alpha and tags.number(Tag.EXTRA_SAMPLES, 2) == 1:  # the colours are stored multiplied by alpha
        alpha = np.maximum(raw[..., -1:], 1).astype(np.uint32)
        raw[..., :-1] = np.minimum((raw[..., :-1] * np.uint32(top) + alpha // 2) // alpha, top)
    return cast(FilePixels, raw)


def _inspect_bmp(data: bytes, limits: ReadLimits) -> ImageFile:
    with BmpImageFile(io.BytesIO(data)) as image:
        samples = 1 if image.mode in ("1", "L") else 3
        return ImageFile("bmp", image.size, samples, alpha=image.mode == "RGBA", icc=_bmp_profile(data))


def _bmp_profile(data: bytes) -> bytes | None:
    """Return the embedded colour profile of a BMP, which headers of version 5 can have."""
    if data[14:18] != _BMP_V5 or data[70:74] != _BMP_PROFILE:
        return None
    start, count = struct.unpack_from("<LL", data, 14 + 112)
    return data[14 + start : 14 + start + count]


def _decode_bmp(data: bytes, file: ImageFile) -> FilePixels:
    with BmpImageFile(io.BytesIO(data)) as image:
        mode = "RGBA" if file.alpha else {1: "L", 3: "RGB"}[file.samples]
        return np.array(image.convert(mode))


_INSPECTORS: dict[str, Callable[[bytes, ReadLimits], ImageFile]] = {
    "jpeg": inspect_jpeg,
    "png": inspect_png,
    "webp": _inspect_webp,
    "tiff": _inspect_tiff,
    "bigtiff": _inspect_tiff,
    "bmp": _inspect_bmp,
}
_DECODERS: dict[str, Callable[[bytes, ImageFile], FilePixels]] = {
    "webp": _decode_webp,
    "tiff": _decode_tiff,
    "bmp": _decode_bmp,
}
