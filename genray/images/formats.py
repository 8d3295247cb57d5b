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
from PIL import WebPImagePlugin
from PIL.BmpImagePlugin import BmpImageFile

from genray.images.arrays import decode_npy, inspect_npy, unit_levels
from genray.images.carried.tags import without_orientation
from genray.images.image_file import FilePixels, ImageFile, Levels, guarded
from genray.images.jpeg import decode_jpeg, inspect_jpeg
from genray.images.limits import ReadLimits
from genray.images.other_formats import (
    decode_avif,
    decode_gif,
    decode_heif,
    decode_jp2,
    decode_jxl,
    inspect_avif,
    inspect_gif,
    inspect_heif,
    inspect_jp2,
    inspect_jxl,
)
from genray.images.png import decode_png, inspect_png
from genray.images.tiff_pixels import decode_tiff, inspect_tiff
from genray.io.bad_input import BadImage
from genray.io.kinds import HEAD_BYTES, READ_TITLES, kind_of_bytes

_MAX_CHUNKS = 100_000
_ICC_SPACES = {1: (b"GRAY", b"RGB "), 3: (b"RGB ",), 4: (b"CMYK",)}
_BESIDE_WEBP_PIXELS = (b"EXIF", b"XMP ")
_BMP_PROFILE = b"DEBM"  # the colour space of a BMP with an embedded profile
_TAKE_BANDS = "only targets with a model of as many channels take them"
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
    levels: bool = False,
) -> Levels:
    """Decode the pixels of a file, as stored: not yet turned upright.

    Args:
        data: the whole file.
        file: its header, from `inspect_file`.
        limits: what to refuse.
        salvaged: receives notes on damage that is found while decoding, and costs no pixel (None: nowhere).
        gray: decode only the brightness of a JPEG: C is then 1.
        levels: return floats as they are, and any number of channels.

    Returns:
        (H, W, C) uint8 or uint16, with alpha as the last channel; with `levels` also float32.

    Raises:
        BadImage: `truncated`, `unsupported`, `too-large`.
    """

    def decode() -> Levels:
        pixels: Levels
        if file.bands and not levels:
            raise BadImage("unsupported", f"{file.bands} channels, which are no colours: {_TAKE_BANDS}")
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
        pixels = pixels.reshape(height, width, -1)
        return pixels if levels else unit_levels(pixels)

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
    return _checked(_INSPECTORS[kind.name](data, limits), limits)


def _checked(file: ImageFile, limits: ReadLimits) -> ImageFile:
    """Return the header without what is damaged or too large, for all pages."""
    if min(file.size) < 1:
        raise BadImage("truncated", f"{file.size[0]}x{file.size[1]} pixels: the header is damaged")
    limits.check_pixels(*file.size)
    limits.check_damage(file.salvaged)
    if file.icc is None and file.exif is None and not file.pages and 1 <= file.orientation <= 8:
        return file
    notes = list(file.notes)
    left_out = list(file.left_out)
    icc = file.icc
    if icc is not None and len(icc) > limits.max_text_bytes:
        notes.append(f"its colour profile has more than {limits.max_text_bytes} bytes: left out")
        left_out.append("ICC profile")
        icc = None
    elif icc is not None and not _is_profile(icc, _ICC_SPACES.get(file.samples, ())):
        notes.append("its colour profile is damaged, or of other colours: left out")
        left_out.append("ICC profile")
        icc = None
    orientation, exif = file.orientation, file.exif
    if exif is not None and file.format != "tiff":
        orientation, exif, is_whole, had_thumbnail = without_orientation(exif.removeprefix(b"Exif\0\0"))
        if file.format in ("heif", "jxl"):  # their own properties turn them, and their decoders heed these
            orientation = 1
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
        pages=tuple(_checked(page, limits) for page in file.pages),
    )


def _is_profile(icc: bytes, spaces: tuple[bytes, ...]) -> bool:
    return 132 <= int.from_bytes(icc[:4]) <= len(icc) and icc[36:40] == b"acsp" and icc[16:20] in spaces


def _inspect_webp(data: bytes, limits: ReadLimits) -> ImageFile:
    # https://developers.google.com/speed/webp/docs/riff_container
    chunks = list(webp_chunks(data))
    frames = sum(kind == b"ANMF" for kind, _, _ in chunks)
    left_out = limits.further_frames(frames)
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
        "webp",
        size,
        3,
        alpha=alpha,
        icc=icc,
        exif=exif,
        lossless=b"VP8L" in body,
        left_out=left_out,
        notes=left_out,
        salvaged=salvaged,
        frames=max(1, frames),
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
    if file.frames > 1:
        with WebPImagePlugin.WebPImageFile(io.BytesIO(data)) as image:
            return np.array(image.convert("RGBA" if file.alpha else "RGB"))
    return cast(FilePixels, imagecodecs.webp_decode(data, hasalpha=file.alpha or None))


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
    "tiff": inspect_tiff,
    "bigtiff": inspect_tiff,
    "bmp": _inspect_bmp,
    "avif": inspect_avif,
    "gif": inspect_gif,
    "heif": inspect_heif,
    "jp2": inspect_jp2,
    "jxl": inspect_jxl,
    "npy": inspect_npy,
}
_DECODERS: dict[str, Callable[[bytes, ImageFile], Levels]] = {
    "webp": _decode_webp,
    "tiff": decode_tiff,
    "bmp": _decode_bmp,
    "avif": decode_avif,
    "gif": decode_gif,
    "heif": decode_heif,
    "jp2": decode_jp2,
    "jxl": decode_jxl,
    "npy": decode_npy,
}
