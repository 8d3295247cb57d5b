"""The image formats: what a file says before it is decoded, and its pixels as they are stored.

Each codec has errors of its own for broken data; whatever it is, it becomes a `BadImage`.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, cast

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageCms, JpegImagePlugin

from genray.images.tiff import Tag, TagDirectory, encode_directory, without_orientation
from genray.io.bad_input import BadImage

FilePixels = NDArray[np.uint8 | np.uint16]

_MAGIC = {
    b"\xff\xd8": "jpeg",
    b"\x89PNG": "png",
    b"RIFF": "webp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
}
_MAX_PARTS = 1_000_000
_ICC_SPACES = {1: (b"GRAY", b"RGB "), 3: (b"RGB ",), 4: (b"CMYK",)}
_MAX_ICC = 4 * 2**20
_SUBSAMPLING = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
# ITU-T T.81, annex K, table K.1, in the zigzag order of the file.
_LUMA = """16 11 12 14 12 10 16 14 13 14 18 17 16 19 24 40 26 24 22 22 24 49 35 37 29 40 58 51 61 60 57 51
56 55 64 72 92 78 64 68 87 69 55 56 80 109 81 87 95 98 103 104 103 62 77 113 121 112 100 120 92 101 103 99"""
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_SHOWN = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TIFF_SAMPLES = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # by photometric interpretation
_TIFF_WHITE_IS_ZERO = 0
_TIFF_RGB = 2
_TIFF_PALETTE = 3
_TIFF_CMYK = 5
_TIFF_JPEG = 7  # a compression
_MAX_TILE = 2**26  # pixels


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


def inspect_file(data: bytes) -> ImageFile:
    """What a file says of itself, without a look at its pixels.

    Raises:
        BadImage: `empty`, `unknown-format`, `truncated`, `unsupported`, `too-large`.
    """
    kind = _format_of(data)
    file = cast(ImageFile, _guarded(_INSPECTORS[kind], data))
    if min(file.size) < 1:
        raise BadImage("truncated", f"{file.size[0]}x{file.size[1]} pixels: the header is damaged")
    icc = file.icc
    if icc is not None and not _is_profile(icc, _ICC_SPACES[file.samples]):
        icc = None
    orientation = file.orientation
    exif = file.exif
    if exif is not None and kind != "tiff":
        orientation, exif = without_orientation(exif.removeprefix(b"Exif\0\0"))
    return replace(file, icc=icc, exif=exif, orientation=orientation if 1 <= orientation <= 8 else 1)


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
            converted = ImageCms.profileToProfile(
                image, io.BytesIO(icc), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            return cast(Image.Image, converted)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    return image.convert("RGB")


def _format_of(data: bytes) -> str:
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


def _is_profile(icc: bytes, spaces: tuple[bytes, ...]) -> bool:
    return (
        132 <= int.from_bytes(icc[:4]) <= len(icc) <= _MAX_ICC
        and icc[36:40] == b"acsp"
        and icc[16:20] in spaces
    )


def _guarded(work: Callable[..., Any], *values: Any) -> Any:
    try:
        return work(*values)
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # each codec has its own errors for broken data, and none may end a run
        detail = str(error).split("\n")[0] or type(error).__name__
        reason = "unsupported" if "Unsupported JPEG process" in detail else "truncated"
        raise BadImage(reason, detail) from error


@dataclass
class _JpegHeader:
    """What the segments before the first scan say: the frame, the EXIF block, the quantisation tables by
    their number, and the parts of the profile by theirs."""

    frame: bytes = b""
    exif: bytes | None = None
    tables: dict[int, bytes] = field(default_factory=dict)
    profile: dict[int, bytes] = field(default_factory=dict)


def _inspect_jpeg(data: bytes) -> ImageFile:
    header = _jpeg_header(data)
    frame = header.frame
    depth, height, width, samples = struct.unpack_from(">BHHB", frame)
    if depth != 8 or samples not in (1, 3, 4):
        raise BadImage("unsupported", f"a JPEG of {samples} components of {depth} bits")
    # Of each component how often it is sampled across and down, and the number of its table.
    components = [(frame[7 + 3 * c] >> 4, frame[7 + 3 * c] & 15, frame[8 + 3 * c]) for c in range(samples)]
    across, down, table = components[0]
    fewer_across, fewer_down, _ = components[-1]
    subsampling = None
    if samples == 3 and components[1][:2] == components[2][:2]:
        subsampling = _SUBSAMPLING.get((across // fewer_across, down // fewer_down))
    return ImageFile(
        "jpeg",
        (width, height),
        samples,
        icc=_joined_profile(header.profile),
        exif=header.exif,
        quality=_jpeg_quality(header.tables[table]) if table in header.tables else None,
        subsampling=subsampling,
    )


def _jpeg_header(data: bytes) -> _JpegHeader:
    header = _JpegHeader()
    for marker, body in _jpeg_segments(data):
        if marker == 0xDB:
            while body:
                size = 128 if body[0] >> 4 else 64
                header.tables[body[0] & 15] = body[1 : 1 + size]
                body = body[1 + size :]
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            header.exif = header.exif or body
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"):
            header.profile[body[12]] = body[13:]
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            header.frame = header.frame or body
    return header


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
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


def _joined_profile(parts: Mapping[int, bytes]) -> bytes | None:
    """A profile of its parts, if all are there: the first byte of each says how many there are."""
    if not parts or sorted(parts) != list(range(1, parts[min(parts)][0] + 1)):
        return None
    return b"".join(parts[number][1:] for number in sorted(parts))


@lru_cache(maxsize=256)
def _jpeg_quality(table: bytes) -> int:
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
    chunks = {kind: (at, length) for kind, at, length in _png_chunks(data)}
    width, height, depth, colour = struct.unpack_from(">LLBB", _png_chunk(data, *chunks[b"IHDR"]))
    if data[12:16] != b"IHDR" or chunks[b"IHDR"][0] != 16 or depth not in (1, 2, 4, 8, 16):
        raise ValueError("its header is damaged")
    if colour == 3 and b"PLTE" not in chunks:
        raise ValueError("it has no palette")
    if max(width, height) > 1_000_000:
        raise BadImage("too-large", f"{width}x{height} pixels: more than 1000000 a side")
    if b"acTL" in chunks and struct.unpack_from(">L", data, chunks[b"acTL"][0])[0] > 1:
        raise BadImage("unsupported", "an animation")
    icc = None
    try:
        if b"iCCP" in chunks:
            _, _, packed = _png_chunk(data, *chunks[b"iCCP"]).partition(b"\0")
            icc = zlib.decompressobj().decompress(packed[1:], _MAX_ICC)
    except (ValueError, zlib.error):
        pass
    exif = None
    try:
        if b"eXIf" in chunks:
            exif = _png_chunk(data, *chunks[b"eXIf"])
    except ValueError:
        pass
    return ImageFile(
        "png",
        (width, height),
        _PNG_CHANNELS[colour],
        depth=16 if depth == 16 else 8,
        alpha=colour >= 4 or b"tRNS" in chunks,
        icc=icc,
        exif=exif,
    )


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The kind, start and length of each chunk of a PNG file (ISO 15948).

    Raises:
        ValueError, struct.error: damaged, or it ends before its last chunk does.
    """
    at = 8
    for _ in range(_MAX_PARTS):
        length, kind = struct.unpack_from(">L4s", data, at)
        if at + 8 + length > len(data):
            raise ValueError(f"ends within {kind!r}")
        yield kind, at + 8, length
        if kind == b"IEND":
            return
        at += 12 + length
    raise ValueError("too many chunks")


def _png_chunk(data: bytes, at: int, length: int) -> bytes:
    if zlib.crc32(memoryview(data)[at - 4 : at + length]) != struct.unpack_from(">L", data, at + length)[0]:
        raise ValueError(f"bad checksum of {data[at - 4 : at]!r}")
    return data[at : at + length]


def _decode_png(data: bytes, file: ImageFile) -> FilePixels:
    # Only the chunks that make the pixels: what is damaged of the others cannot matter then. Checksums are
    # looked at here, because libpng writes warnings to the standard error before it comes to them.
    depth, colour = data[24], data[25]
    shown = []
    for kind, at, length in _png_chunks(data):
        if kind in _PNG_SHOWN and (kind != b"tRNS" or colour < 4):
            head, tail = data[at - 8 : at], data[at + length : at + length + 4]
            shown.append(head + _png_chunk(data, at, length) + tail)
    width, height = file.size
    if width * height * _PNG_SAMPLES[colour] * depth / 8 > 1032 * len(data):  # deflate's best
        raise ValueError(f"{width}x{height} pixels cannot be in {len(data)} bytes")
    return cast(FilePixels, imagecodecs.png_decode(data[:8] + b"".join(shown)))


def _inspect_webp(data: bytes) -> ImageFile:
    # https://developers.google.com/speed/webp/docs/riff_container
    chunks = list(_webp_chunks(data))
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
    icc, exif = body.get(b"ICCP"), body.get(b"EXIF")
    return ImageFile("webp", size, 3, alpha=alpha, icc=icc, exif=exif, lossless=b"VP8L" in body)


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The kind, start and length of each chunk of a WebP file (RIFF).

    Raises:
        ValueError, struct.error: damaged, or it ends before its last chunk does.
    """
    at = 12
    end = 8 + struct.unpack_from("<L", data, 4)[0]
    for _ in range(_MAX_PARTS):
        if at >= end:
            return
        kind, length = struct.unpack_from("<4sL", data, at)
        if at + 8 + length > len(data):
            raise ValueError(f"ends within {kind!r}")
        yield kind, at + 8, length
        at += 8 + length + length % 2
    raise ValueError("too many chunks")


def _decode_webp(data: bytes, file: ImageFile) -> FilePixels:
    return cast(FilePixels, imagecodecs.webp_decode(data))


def _inspect_tiff(data: bytes) -> ImageFile:
    tags = TagDirectory.parse(data)
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
        raise BadImage("unsupported", f"a TIFF of kind {meaning}, bits {bits}, {extra} further channels")
    if (extra and meaning >= _TIFF_PALETTE) or (
        meaning == _TIFF_CMYK and tags.number(Tag.COMPRESSION, 1) == _TIFF_JPEG
    ):
        raise BadImage("unsupported", f"a TIFF of kind {meaning} with alpha, or of CMYK in JPEG")
    _check_tiff_parts(tags)
    entries = tags.exif_entries()
    exif = None
    if entries:
        exif = data[:4] + struct.pack(tags.order + "L", 8) + encode_directory(tags.order, entries, 8)
    return ImageFile(
        "tiff",
        size,
        3 if meaning == _TIFF_PALETTE else samples,
        depth=16 if bits[0] == 16 else 8,
        alpha=bool(extra),
        orientation=tags.number(Tag.ORIENTATION, 1),
        icc=tags.raw(Tag.ICC) if Tag.ICC in tags else None,
        exif=exif,
    )


def _are_usual_samples(tags: TagDirectory, meaning: int, bits: tuple[int, ...]) -> bool:
    """Whether all samples are unsigned integers, of as many bits as are read of such pixels."""
    depths: tuple[int, ...] = (8,)
    if meaning in (0, 1):
        depths = (1, 2, 4, 8, 16)
    elif meaning == _TIFF_RGB:
        depths = (8, 16)
    return len(set(bits)) == 1 and bits[0] in depths and set(tags.numbers(Tag.SAMPLE_FORMAT, (1,))) == {1}


def _check_tiff_parts(tags: TagDirectory) -> None:
    """Raise an error if strips or tiles lie beyond the end, or could not be held."""
    tiled = Tag.TILE_OFFSETS in tags
    offsets = tags.numbers(Tag.TILE_OFFSETS if tiled else Tag.STRIP_OFFSETS)
    lengths = tags.numbers(Tag.TILE_BYTES if tiled else Tag.STRIP_BYTES)
    if any(at + length > len(tags.data) for at, length in zip(offsets, lengths, strict=True)):
        raise ValueError("it ends before its pixels do")
    if tags.number(Tag.TILE_WIDTH, 1) * tags.number(Tag.TILE_HEIGHT, 1) > _MAX_TILE:
        raise BadImage("too-large", "tiles of more than 64 megapixels")


def _decode_tiff(data: bytes, file: ImageFile) -> FilePixels:
    tags = TagDirectory.parse(data)
    meaning = tags.number(Tag.PHOTOMETRIC)
    bits = tags.number(Tag.BITS, 1)
    if Tag.ORIENTATION in tags:  # libtiff heeds it for some compressions alone
        data = tags.with_number(Tag.ORIENTATION, 1)
    if meaning == _TIFF_CMYK:  # as if it were RGB and alpha: libtiff would convert it without its profile
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
    if file.alpha and tags.number(Tag.EXTRA_SAMPLES, 2) == 1:  # colours were multiplied by alpha
        alpha = np.maximum(raw[..., -1:], 1).astype(np.uint32)
        raw[..., :-1] = np.minimum((raw[..., :-1] * np.uint32(top) + alpha // 2) // alpha, top)
    return cast(FilePixels, raw)


_INSPECTORS = {"jpeg": _inspect_jpeg, "png": _inspect_png, "webp": _inspect_webp, "tiff": _inspect_tiff}
_DECODERS = {"jpeg": _decode_jpeg, "png": _decode_png, "webp": _decode_webp, "tiff": _decode_tiff}
