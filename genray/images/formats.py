"""The image formats: what a file says before it is decoded, and its pixels as they are stored.

The tags of TIFF files and EXIF blocks.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageCms, JpegImagePlugin

from genray.images.tiff import ORIENTATION, TIFF_EXIF, Tags, directory, without_orientation
from genray.io.bad_input import BadImage

FilePixels = NDArray[np.uint8 | np.uint16]

_ICC_SPACES = {1: (b"GRAY", b"RGB "), 3: (b"RGB ",), 4: (b"CMYK",)}
_MAX_ICC = 4 * 2**20
_SUBSAMPLING = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_SHOWN = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TIFF_SAMPLES = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # by photometric interpretation
# ITU-T T.81, annex K, table K.1, in the zigzag order of the file.
_LUMA = """16 11 12 14 12 10 16 14 13 14 18 17 16 19 24 40 26 24 22 22 24 49 35 37 29 40 58 51 61 60 57 51
56 55 64 72 92 78 64 68 87 69 55 56 80 109 81 87 95 98 103 104 103 62 77 113 121 112 100 120 92 101 103 99"""


@dataclass(frozen=True)
class ImageFile:
    """A file of which no pixel is decoded yet. `size` is (width, height) as stored; `samples` 4 is CMYK."""

    format: str
    size: tuple[int, int]
    samples: int
    depth: int = 8
    alpha: bool = False
    orientation: int = 1
    icc: bytes | None = None
    exif: bytes | None = None
    quality: int | None = None
    subsampling: str | None = None
    lossless: bool = False


def decode_file(data: bytes, file: ImageFile) -> FilePixels:
    """(H, W), or (H, W, C) with alpha last, as stored: not upright.

    Raises:
        BadImage: `truncated`, `unsupported`.
    """
    return cast(FilePixels, _guarded(_DECODERS[file.format], data, file))


def to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Convert to sRGB through the image's ICC profile; by Pillow's plain rule without a usable one."""
    if icc is not None:
        try:
            made = ImageCms.profileToProfile(
                image, io.BytesIO(icc), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            return cast(Image.Image, made)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    return image.convert("RGB")


def _guarded(work: Callable[..., Any], *values: Any) -> Any:
    try:
        return work(*values)
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # each codec has its own errors for broken data, and none may end a run
        said = str(error).split("\n")[0] or type(error).__name__
        raise BadImage("unsupported" if "Unsupported JPEG process" in said else "truncated", said) from error


def inspect(data: bytes) -> ImageFile:
    """What a file says of itself, without a look at its pixels.

    Raises:
        BadImage: `empty`, `unknown-format`, `truncated`, `unsupported`, `too-large`.
    """
    kind = image_format(data)
    file = cast(ImageFile, _guarded(_INSPECTORS[kind], data))
    if min(file.size) < 1:
        raise BadImage("truncated", f"{file.size[0]}x{file.size[1]} pixels: the header is damaged")
    icc = file.icc
    if icc is not None and not (
        132 <= int.from_bytes(icc[:4]) <= len(icc) <= _MAX_ICC
        and icc[36:40] == b"acsp"
        and icc[16:20] in _ICC_SPACES[file.samples]
    ):
        icc = None
    orientation, exif = file.orientation, file.exif
    if exif is not None and kind != "tiff":
        orientation, exif = without_orientation(exif.removeprefix(b"Exif\0\0"))
    return replace(file, icc=icc, exif=exif, orientation=orientation if 1 <= orientation <= 8 else 1)


def _inspect_jpeg(data: bytes) -> ImageFile:
    frame, exif, tables = b"", None, {}
    profile: dict[int, bytes] = {}
    for marker, body in jpeg_segments(data):
        if marker == 0xDB:
            while body:
                size = 128 if body[0] >> 4 else 64
                tables[body[0] & 15], body = body[1 : 1 + size], body[1 + size :]
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exif = exif or body
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"):
            profile[body[12]] = body[13:]
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = frame or body
    depth, height, width, samples = struct.unpack_from(">BHHB", frame)
    if depth != 8 or samples not in (1, 3, 4):
        raise BadImage("unsupported", f"a JPEG of {samples} components of {depth} bits")
    factors = [(frame[7 + 3 * c] >> 4, frame[7 + 3 * c] & 15, frame[8 + 3 * c]) for c in range(samples)]
    (across, down, table), (less_across, less_down, _) = factors[0], factors[-1]
    subsampling = None
    if samples == 3 and factors[1][:2] == factors[2][:2]:
        subsampling = _SUBSAMPLING.get((across // less_across, down // less_down))
    # All the parts that the first byte of each announces, in their order.
    whole = profile and sorted(profile) == list(range(1, profile[min(profile)][0] + 1))
    icc = b"".join(profile[part][1:] for part in sorted(profile)) if whole else None
    quality = _quality(tables[table]) if table in tables else None
    return ImageFile("jpeg", (width, height), samples, 8, False, 1, icc, exif, quality, subsampling)


@lru_cache(maxsize=256)
def _quality(table: bytes) -> int:
    qualities = np.arange(1, 101)[:, None]
    scale = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    steps = np.frombuffer(table, np.uint8 if len(table) == 64 else ">u2")
    luma = np.array([int(number) for number in _LUMA.split()])
    return 1 + int(np.abs(((luma * scale + 50) // 100).clip(1, 255) - steps).sum(axis=1).argmin())


def _decode_jpeg(data: bytes, file: ImageFile) -> FilePixels:
    if file.samples == 3 and file.subsampling is None:  # TurboJPEG knows the common ones alone
        return np.array(JpegImagePlugin.JpegImageFile(io.BytesIO(data)).convert("RGB"))
    space = {1: "GRAY", 3: "RGB", 4: "CMYK"}[file.samples]
    try:
        pixels = simplejpeg.decode_jpeg(data, colorspace=space, strict=True)
    except ValueError as error:
        if "ICC marker" not in str(error):
            raise
        # A damaged profile: libjpeg does not take the segments for one then.
        data = data.replace(b"ICC_PROFILE\0", b"ICC_PROFILE-")
        pixels = simplejpeg.decode_jpeg(data, colorspace=space, strict=True)
    if file.samples == 4:  # stored inverted, as Adobe does
        pixels = np.array(to_srgb(Image.frombytes("CMYK", file.size, (255 - pixels).tobytes()), file.icc))
    return cast(FilePixels, pixels)


def _inspect_png(data: bytes) -> ImageFile:
    found = {kind: (at, length) for kind, at, length in chunks(data, "png")}
    width, height, depth, colour = struct.unpack_from(">LLBB", _png_chunk(data, *found[b"IHDR"]))
    if data[12:16] != b"IHDR" or found[b"IHDR"][0] != 16 or depth not in (1, 2, 4, 8, 16):
        raise ValueError("its header is damaged")
    if colour == 3 and b"PLTE" not in found:
        raise ValueError("it has no palette")
    if max(width, height) > 1_000_000:
        raise BadImage("too-large", f"{width}x{height} pixels: more than 1000000 a side")
    if b"acTL" in found and struct.unpack_from(">L", data, found[b"acTL"][0])[0] > 1:
        raise BadImage("unsupported", "an animation")
    icc = exif = None
    try:
        if b"iCCP" in found:
            _, _, packed = _png_chunk(data, *found[b"iCCP"]).partition(b"\0")
            icc = zlib.decompressobj().decompress(packed[1:], _MAX_ICC)
    except (ValueError, zlib.error):
        pass
    try:
        if b"eXIf" in found:
            exif = _png_chunk(data, *found[b"eXIf"])
    except ValueError:
        pass
    alpha = colour >= 4 or b"tRNS" in found
    channels = _PNG_CHANNELS[colour]
    return ImageFile("png", (width, height), channels, 16 if depth == 16 else 8, alpha, 1, icc, exif)


def _png_chunk(data: bytes, at: int, length: int) -> bytes:
    if zlib.crc32(memoryview(data)[at - 4 : at + length]) != struct.unpack_from(">L", data, at + length)[0]:
        raise ValueError(f"bad checksum of {data[at - 4 : at]!r}")
    return data[at : at + length]


def _decode_png(data: bytes, file: ImageFile) -> FilePixels:
    # Only the chunks that make the pixels: what is damaged of the others cannot matter then. Checksums are
    # looked at here, because libpng writes warnings to the standard error before it comes to them.
    shown = []
    for kind, at, length in chunks(data, "png"):
        if kind in _PNG_SHOWN and (kind != b"tRNS" or data[25] < 4):
            shown.append(
                data[at - 8 : at] + _png_chunk(data, at, length) + data[at + length : at + length + 4]
            )
    width, height = file.size
    if width * height * _PNG_SAMPLES[data[25]] * data[24] / 8 > 1032 * len(data):  # deflate's best
        raise ValueError(f"{width}x{height} pixels cannot be in {len(data)} bytes")
    return cast(FilePixels, imagecodecs.png_decode(data[:8] + b"".join(shown)))


def _inspect_webp(data: bytes) -> ImageFile:
    # https://developers.google.com/speed/webp/docs/riff_container
    parts = list(chunks(data, "webp"))
    if sum(kind == b"ANMF" for kind, _, _ in parts) > 1:
        raise BadImage("unsupported", "an animation")
    body = {kind: data[at : at + length] for kind, at, length in parts}
    if b"VP8X" in body:
        head, alpha = body[b"VP8X"], bool(body[b"VP8X"][0] & 16)
        size = (1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little"))
    elif b"VP8L" in body:
        (bits,) = struct.unpack_from("<L", body[b"VP8L"], 1)
        size, alpha = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)), bool(bits >> 28 & 1)
    else:
        width, height = struct.unpack_from("<HH", body[b"VP8 "], 6)
        size, alpha = (width & 0x3FFF, height & 0x3FFF), False
    icc, exif = body.get(b"ICCP"), body.get(b"EXIF")
    return ImageFile("webp", size, 3, alpha=alpha, icc=icc, exif=exif, lossless=b"VP8L" in body)


def _decode_webp(data: bytes, file: ImageFile) -> FilePixels:
    return cast(FilePixels, imagecodecs.webp_decode(data))


def _inspect_tiff(data: bytes) -> ImageFile:
    tags = Tags(data)
    size, bits = (tags.numbers(256)[0], tags.numbers(257)[0]), tags.numbers(258, (1,))
    meaning = tags.numbers(262)[0]
    samples = _TIFF_SAMPLES.get(meaning, 0)
    extra = tags.numbers(277, (1,))[0] - samples
    depths = (1, 2, 4, 8, 16) if meaning in (0, 1) else (8, 16) if meaning == 2 else (8,)
    usual = len(set(bits)) == 1 and bits[0] in depths and set(tags.numbers(339, (1,))) == {1}
    if (
        not samples
        or not usual
        or extra not in (0, 1)
        or (extra and tags.numbers(338, (2,))[0] not in (1, 2))
    ):
        raise BadImage("unsupported", f"a TIFF of kind {meaning}, bits {bits}, {extra} further channels")
    if (extra and meaning >= 3) or (meaning == 5 and tags.numbers(259, (1,))[0] == 7):
        raise BadImage("unsupported", f"a TIFF of kind {meaning} with alpha, or of CMYK in JPEG")
    places, lengths = (324, 325) if 324 in tags else (273, 279)
    if any(at + n > len(data) for at, n in zip(tags.numbers(places), tags.numbers(lengths), strict=True)):
        raise ValueError("it ends before its pixels do")
    if tags.numbers(322, (1,))[0] * tags.numbers(323, (1,))[0] > 2**26:
        raise BadImage("too-large", "tiles of more than 64 megapixels")
    entries = {tag: entry for tag, entry in tags.entries().items() if tag in TIFF_EXIF}
    exif = (
        data[:4] + struct.pack(tags.order + "L", 8) + directory(tags.order, entries, 8) if entries else None
    )
    icc = tags.raw(34675) if 34675 in tags else None
    depth, orientation = 16 if bits[0] == 16 else 8, tags.numbers(ORIENTATION, (1,))[0]
    return ImageFile("tiff", size, 3 if meaning == 3 else samples, depth, bool(extra), orientation, icc, exif)


def _decode_tiff(data: bytes, file: ImageFile) -> FilePixels:
    tags = Tags(data)
    meaning, bits = tags.numbers(262)[0], tags.numbers(258, (1,))[0]
    if ORIENTATION in tags:  # libtiff heeds it for some compressions alone
        data = tags.changed(ORIENTATION, 1)
    if meaning == 5:  # as if it were RGB and alpha: libtiff would convert it without its profile
        data = Tags(data).changed(262, 2)
    raw = imagecodecs.tiff_decode(data)
    if raw.ndim == 3 and tags.numbers(284, (1,))[0] == 2:
        raw = np.moveaxis(raw, 0, -1)
    if meaning == 3:
        colours = np.array(tags.numbers(320)).reshape(3, -1).T
        palette = (colours >> (8 if colours.max() > 255 else 0)).astype(np.uint8)
        return cast(FilePixels, palette[raw])
    if meaning == 5:
        return np.array(to_srgb(Image.frombytes("CMYK", file.size, raw.tobytes()), file.icc))
    raw = raw.reshape(*raw.shape[:2], -1).astype(np.uint16 if bits == 16 else np.uint8)
    top = 65535 if bits == 16 else 255
    raw *= top // (2**bits - 1)
    if meaning == 0:
        raw[..., 0] = top - raw[..., 0]
    if file.alpha and tags.numbers(338, (2,))[0] == 1:  # colours were multiplied by alpha
        alpha = np.maximum(raw[..., -1:], 1).astype(np.uint32)
        raw[..., :-1] = np.minimum((raw[..., :-1] * np.uint32(top) + alpha // 2) // alpha, top)
    return cast(FilePixels, raw)


_INSPECTORS = {"jpeg": _inspect_jpeg, "png": _inspect_png, "webp": _inspect_webp, "tiff": _inspect_tiff}
_DECODERS = {"jpeg": _decode_jpeg, "png": _decode_png, "webp": _decode_webp, "tiff": _decode_tiff}


"""Type, count and value of each tag; the value of a pointer is the directory that it points to."""


_MAGIC = {
    b"\xff\xd8": "jpeg",
    b"\x89PNG": "png",
    b"RIFF": "webp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
}


_MAX_PARTS = 1_000_000


def image_format(data: bytes) -> str:
    """ "jpeg", "png", "webp" or "tiff", by the first bytes of `data`, whatever its name is.

    Raises:
        BadImage: empty or unknown.
    """
    if not data:
        raise BadImage("empty", "0 bytes")
    if data.startswith((b"II+\0", b"MM\0+")):
        raise BadImage("unsupported", "a BigTIFF")
    for magic, name in _MAGIC.items():
        if data.startswith(magic) and (name != "webp" or data[8:12] == b"WEBP"):
            return name
    raise BadImage("unknown-format", f"begins with {data[:8]!r}")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker and the content of each segment before the first scan (ITU-T T.81, annex B).

    Raises:
        ValueError, IndexError, struct.error: damaged.
    """
    at = 2
    for _ in range(_MAX_PARTS):
        if data[at] != 0xFF:
            raise ValueError(f"no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xDA:
            return
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length
    raise ValueError("too many segments")


def chunks(data: bytes, form: str) -> Iterator[tuple[bytes, int, int]]:
    """The kind, start and length of each chunk of a "png" (ISO 15948) or "webp" file (RIFF).

    Raises:
        ValueError, struct.error: damaged, or it ends before its last chunk does.
    """
    png = form == "png"
    at, end = (8, len(data)) if png else (12, 8 + struct.unpack_from("<L", data, 4)[0])
    for _ in range(_MAX_PARTS):
        if not png and at >= end:
            return
        length, kind = struct.unpack_from(">L4s" if png else "<4sL", data, at)[:: 1 if png else -1]
        if at + 8 + length > len(data):
            raise ValueError(f"ends within {kind!r}")
        yield kind, at + 8, length
        if kind == b"IEND":
            return
        at += 12 + length if png else 8 + length + length % 2
    raise ValueError("too many chunks")
