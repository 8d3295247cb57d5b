"""A photo: the pixels of an image file, and what else the file carried; read, and written again with it."""

from __future__ import annotations

import io
import struct
import time
import zlib
from dataclasses import dataclass
from typing import Any, Literal, cast

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from genray.images.formats import decode_file, inspect_file
from genray.images.image_file import FilePixels, to_srgb, upright
from genray.images.limits import ReadLimits
from genray.images.png import make_chunk
from genray.images.tiff import ByteOrder, Entries, Tag, TagDirectory, TagValue, encode_directory
from genray.io.bad_input import BadImage
from genray.io.kinds import KINDS, kind_of_name
from genray.settings.base import Settings

# libjpeg's and libpng's own limits, and those that WebP, TIFF and BMP can say.
_LONGEST_SIDE = {"jpeg": 65500, "webp": 16383, "png": 1_000_000, "tiff": 2**31 - 1, "bmp": 2**31 - 1}
_STRIP_BYTES = 2**18
_SHORT = 3  # types of a TIFF's tags
_LONG = 4


class WriteSettings(Settings):
    """Settings of the files that are written."""

    format: Literal["same", "jpeg", "png", "webp", "tiff", "bmp"] = Field(
        "same", description="format of the outputs (same: that of the input)"
    )
    quality: int | None = Field(
        None,
        ge=1,
        le=100,
        description="quality of JPEG and WebP, 1 to 100 (null: that of a JPEG input, from 75 to 98, else 90)",
    )
    lossless: bool | None = Field(
        None, description="write lossless WebP (null: if the input is a lossless WebP)"
    )
    png_level: int = Field(1, ge=0, le=9, description="compression level of PNG, 0 to 9 (1 is fast)")
    keep_icc: bool = Field(True, description="write the input's colour profile")
    keep_exif: bool = Field(True, description="write the input's EXIF: camera, date, place")


@dataclass(frozen=True)
class PhotoHeader:
    """What an image file says of itself: `width` and `height` upright, `channels` 1 or 3, `depth` 8 or 16."""

    format: str
    width: int
    height: int
    channels: int
    depth: int
    has_alpha: bool


@dataclass(frozen=True)
class Photo:
    """An image file's pixels, and what else the file carried.

    Args:
        pixels: (H, W, C) uint8 or uint16; C is 1 (gray) or 3 (RGB); upright. Of `read_photo`: writable, in
            one piece.
        alpha: (H, W) of the same type; None if the image is opaque.
        format: of the file: "jpeg", "png", "webp", "tiff"; "" of an image that was in no file.
        icc: its colour profile, as it was.
        exif: its EXIF block, from "II" or "MM" on: orientation 1, the thumbnail unlinked, the rest as it was.
        quality: of a JPEG, from 1 to 100: libjpeg's whose table comes nearest.
        subsampling: of a colour JPEG: "4:4:4", "4:2:2", "4:2:0", "4:4:0", "4:1:1"; None if it is another.
        lossless: whether the file is a lossless WebP.
        notes: what was odd in the file, or is left out of the photo, for a person.
    """

    pixels: FilePixels
    alpha: FilePixels | None
    format: str
    icc: bytes | None = None
    exif: bytes | None = None
    quality: int | None = None
    subsampling: str | None = None
    lossless: bool = False
    notes: tuple[str, ...] = ()

    @property
    def depth(self) -> int:
        """Bits of a value: 8 or 16."""
        return 8 * self.pixels.dtype.itemsize


def photo_header(data: bytes, limits: ReadLimits) -> PhotoHeader:
    """The header of an image file, without decoding it.

    Raises:
        BadImage: see `read_photo`; what shows in the pixels alone is not noticed.
    """
    file = inspect_file(data, limits)
    width, height = file.upright_size
    channels = 1 if file.samples == 1 else 3
    return PhotoHeader(file.format, width, height, channels, file.depth, file.alpha)


def read_photo(data: bytes, limits: ReadLimits) -> Photo:
    """Decode a JPEG, PNG, WebP, TIFF or BMP file, known by its content, not by its name.

    Gray stays gray and 16 bits stay 16. Palettes become RGB; 1, 2 and 4 bits become 8; CMYK and YCCK become
    sRGB, through their ICC profile if they have one (which is dropped then). Of a JPEG with further pictures
    behind the first, the first is read. An ICC profile or EXIF block that is damaged is dropped and never
    costs the image. The notes say so. XMP, IPTC, comments and text are not read.

    Args:
        data: the whole file.
        limits: what to refuse, before anything is allocated.

    Raises:
        BadImage: `empty`; `unknown-format`; `too-large`; `too-much-work`; `truncated`: pixels are missing or
            damaged, even if most could be shown; `unsupported`: animations, floats, signed or 32-bit numbers,
            JPEGs of 12 bits, L*a*b*, TIFFs of several pages or with channels beyond one alpha, and other
            kinds of images.
    """
    file = inspect_file(data, limits)
    notes = list(file.notes)
    began = time.perf_counter()
    pixels = upright(decode_file(data, file, notes=notes), file.orientation)
    seconds = time.perf_counter() - began
    if seconds > limits.max_seconds:
        notes.append(f"decoding it took {seconds:.3g} s")
    alpha = None
    if pixels.shape[2] in (2, 4):
        alpha = np.ascontiguousarray(pixels[..., -1])
        pixels = np.ascontiguousarray(pixels[..., :-1])
        if alpha.min() == np.iinfo(alpha.dtype).max:
            alpha = None
    icc = file.icc if file.samples < 4 else None
    return Photo(
        pixels,
        alpha,
        file.format,
        icc,
        file.exif,
        file.quality,
        file.subsampling,
        file.lossless,
        tuple(notes),
    )


def output_path(path: str, settings: WriteSettings) -> str:
    """The path of the output for an input's: the same stem, the suffix of the format. The name stays
    as it is if it fits already, or the format is to be the same; a suffix of no image is part of the stem."""
    kind = kind_of_name(path)
    if settings.format == "same" or (kind is not None and kind.name == settings.format):
        return path
    stem = path.rpartition(".")[0] if kind is not None and kind.is_read else path
    return stem + KINDS[settings.format].suffixes[0]


def output_format(photo: Photo, settings: WriteSettings, path: str = "") -> str:
    """The format that `write_photo` writes: the setting's; for "same" the photo's, whatever the suffix of
    `path`; of a photo that was in no file the suffix', and PNG without one."""
    if settings.format != "same":
        return settings.format
    kind = kind_of_name(path)
    return photo.format or (kind.name if kind is not None and kind.name in _LONGEST_SIDE else "png")


def write_photo(photo: Photo, settings: WriteSettings, path: str = "") -> bytes:
    """Encode a photo, in the format of `output_format`.

    - A BigTIFF becomes a TIFF.
    - PNG and TIFF (deflate, one page) keep 16 bits and alpha. JPEG and WebP have 8 bits: v / 257, rounded.
    - JPEG has no alpha: it is laid over white. Of a JPEG input the quality (75 to 98) and the subsampling are
      kept; else it is 4:2:0.
    - BMP has 8 bits and alpha, but neither profile nor EXIF: these are left out.
    - WebP has no gray: it is written as RGB, through a gray profile to sRGB if there is one.
    - An ICC profile is written byte for byte, unless it is one of other colours than the pixels. So is an
      EXIF block, but for TIFF, into which its tags are copied (a maker note may not survive that). What a
      JPEG cannot hold of them (EXIF of 64 KiB, ICC of 16 MiB) is left out.

    Args:
        photo: what to write.
        settings: how.
        path: where it will be; see `output_format`.

    Raises:
        BadImage: `too-large` for the format: a side of more than 65500 pixels (JPEG), 16383 (WebP) or
            1000000 (PNG).
    """
    form = output_format(photo, settings, path)
    height, width, channels = photo.pixels.shape
    if max(height, width) > _LONGEST_SIDE[form]:
        raise BadImage(
            "too-large", f"{width}x{height} pixels; {form} has at most {_LONGEST_SIDE[form]} a side"
        )
    icc = photo.icc if settings.keep_icc and _fits(photo.icc, channels) else None
    exif = photo.exif if settings.keep_exif else None
    if form == "jpeg":
        return _encode_jpeg(photo, settings, icc, exif)
    if form == "webp":
        return _encode_webp(photo, settings, icc, exif)
    planes = photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])
    planes = np.ascontiguousarray(planes)
    if form == "bmp":
        return _encode_bmp(to_eight_bits(planes))
    if form == "png":
        return _encode_png(planes, settings.png_level, icc, exif)
    return _encode_tiff(planes, icc, exif, has_alpha=photo.alpha is not None)


def to_eight_bits(pixels: FilePixels) -> NDArray[np.uint8]:
    """uint8 as it is; uint16 / 257, rounded."""
    if pixels.dtype == np.uint8:
        return cast(NDArray[np.uint8], pixels)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _fits(icc: bytes | None, channels: int) -> bool:
    return icc is not None and icc[16:20] in ((b"GRAY", b"RGB ") if channels == 1 else (b"RGB ",))


def _quality(photo: Photo, settings: WriteSettings) -> int:
    if settings.quality is not None:
        return settings.quality
    return min(max(photo.quality, 75), 98) if photo.quality is not None else 90


def _encode_jpeg(photo: Photo, settings: WriteSettings, icc: bytes | None, exif: bytes | None) -> bytes:
    pixels = to_eight_bits(_over_white(photo))
    gray = pixels.shape[2] == 1
    data = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels),
        quality=_quality(photo, settings),
        colorspace="GRAY" if gray else "RGB",
        colorsubsampling="Gray" if gray else (photo.subsampling or "4:2:0").replace(":", ""),
    )
    segments = []
    if exif is not None:
        segments.append((0xE1, b"Exif\0\0" + exif))
    parts = [icc[at : at + 65519] for at in range(0, len(icc), 65519)] if icc is not None else []
    if len(parts) < 256:
        for number, part in enumerate(parts, start=1):
            segments.append((0xE2, b"ICC_PROFILE\0" + bytes([number, len(parts)]) + part))
    carried = [
        struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body for kind, body in segments if len(body) < 65534
    ]
    # JFIF wants its segment to be the first.
    at = 4 + struct.unpack_from(">H", data, 4)[0] if data[2:4] == b"\xff\xe0" else 2
    return cast(bytes, data[:at] + b"".join(carried) + data[at:])


def _over_white(photo: Photo) -> FilePixels:
    pixels = photo.pixels
    if photo.alpha is None:
        return pixels
    top = np.uint32(np.iinfo(pixels.dtype).max)
    alpha = photo.alpha[..., None].astype(np.uint32)
    return ((pixels * alpha + top * (top - alpha) + top // 2) // top).astype(pixels.dtype)


def _encode_webp(photo: Photo, settings: WriteSettings, icc: bytes | None, exif: bytes | None) -> bytes:
    pixels = to_eight_bits(photo.pixels)
    if pixels.shape[2] == 1:
        gray = Image.fromarray(pixels[..., 0])
        pixels = np.asarray(to_srgb(gray, icc if _is_gray(icc) else None))
    if photo.alpha is not None:
        pixels = np.dstack([pixels, to_eight_bits(photo.alpha)])
    lossless = photo.lossless if settings.lossless is None else settings.lossless
    # Lossless, effort 1 costs a third of 4 for the same size; lossy, 2 costs half of 4 for 0.1 dB.
    options: dict[str, Any] = {"quality": _quality(photo, settings), "method": 2}
    if lossless:
        options = {"lossless": True, "method": 1, "quality": 0, "exact": True}
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        buffer, "WEBP", **options, icc_profile=b"" if icc is None or _is_gray(icc) else icc, exif=exif or b""
    )
    return buffer.getvalue()


def _is_gray(icc: bytes | None) -> bool:
    return icc is not None and icc[16:20] == b"GRAY"


def _encode_png(planes: FilePixels, level: int, icc: bytes | None, exif: bytes | None) -> bytes:
    if level == 1:
        # Of photos, runs of Paeth's residues are 4 times as fast as zlib's level 1, and smaller than its 6.
        # What repeats, as drawings and text do, shrinks well, and then shrinks more with matches.
        data = imagecodecs.png_encode(planes, level=1, filter=128, strategy=3)
        if len(data) < planes.nbytes / 4:
            data = min(data, imagecodecs.png_encode(planes, level=1, filter=16), key=len)
    else:
        data = imagecodecs.png_encode(planes, level=level, strategy=1)
    carried = b""
    if icc is not None:
        carried += make_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if exif is not None:
        carried += make_chunk(b"eXIf", exif)
    return bytes(data[:33] + carried + data[33:])  # behind the header


def _encode_bmp(planes: NDArray[np.uint8]) -> bytes:
    height, width, samples = planes.shape
    if samples in (1, 3):
        buffer = io.BytesIO()
        Image.fromarray(planes.squeeze(-1) if samples == 1 else planes).save(buffer, "BMP")
        return buffer.getvalue()
    # Alpha is known by its mask, which the fourth version of the header has, and Pillow does not write.
    colours = planes[::-1, :, [0, 0, 0, 1] if samples == 2 else [2, 1, 0, 3]].tobytes()
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<LllHHLLllLL", 108, width, height, 1, 32, 3, len(colours), 0, 0, 0, 0)
    header += struct.pack("<4L4s", *masks, b"BGRs") + bytes(48)  # sRGB
    return struct.pack("<2sLLL", b"BM", 122 + len(colours), 0, 122) + header + colours


def _encode_tiff(planes: FilePixels, icc: bytes | None, exif: bytes | None, *, has_alpha: bool) -> bytes:
    order: ByteOrder = "<"
    entries: Entries = {}
    if exif is not None:
        try:
            tags = TagDirectory.parse(exif)  # its values are copied as they are, so the file takes its order
            entries = tags.exif_entries(len(exif))
            order = tags.order
        except (ValueError, LookupError, struct.error):
            pass

    def put(tag: int, kind: int, *numbers: int) -> None:
        packed = struct.pack(f"{order}{len(numbers)}{'H' if kind == _SHORT else 'L'}", *numbers)
        entries[tag] = TagValue(kind, len(numbers), packed)

    height, width, samples = planes.shape
    rows = max(1, _STRIP_BYTES // (width * samples * planes.itemsize))
    strips = _tiff_strips(planes, rows, order)
    lengths = [len(strip) + len(strip) % 2 for strip in strips]
    put(Tag.WIDTH, _LONG, width)
    put(Tag.HEIGHT, _LONG, height)
    put(Tag.BITS, _SHORT, *[8 * planes.itemsize] * samples)
    put(Tag.COMPRESSION, _SHORT, 8)  # deflate
    put(Tag.PHOTOMETRIC, _SHORT, 2 if samples >= 3 else 1)
    put(Tag.SAMPLES, _SHORT, samples)
    put(Tag.STRIP_ROWS, _LONG, rows)
    put(Tag.STRIP_BYTES, _LONG, *map(len, strips))
    put(Tag.PREDICTOR, _SHORT, 2)
    if has_alpha:
        put(Tag.EXTRA_SAMPLES, _SHORT, 2)
    if icc is not None:
        entries[Tag.ICC] = TagValue(7, len(icc), icc)
    put(Tag.STRIP_OFFSETS, _LONG, *lengths)  # in its place, to know the size
    at = 8 + len(encode_directory(order, entries, 8))
    at += at % 2
    put(Tag.STRIP_OFFSETS, _LONG, *(at + sum(lengths[:index]) for index in range(len(lengths))))
    header = struct.pack(order + "2sHL", b"II" if order == "<" else b"MM", 42, 8)
    header += encode_directory(order, entries, 8)
    body = (strip.ljust(length, b"\0") for strip, length in zip(strips, lengths, strict=True))
    return header.ljust(at, b"\0") + b"".join(body)


def _tiff_strips(planes: FilePixels, rows: int, order: ByteOrder) -> list[bytes]:
    """The pixels, `rows` at a time, deflated after horizontal differencing (TIFF 6.0, section 14)."""
    residues = planes.copy()
    residues[:, 1:] -= planes[:, :-1]
    residues = residues.astype(residues.dtype.newbyteorder(order), copy=False)
    tops = range(0, len(residues), rows)
    return [bytes(imagecodecs.deflate_encode(residues[top : top + rows].tobytes(), 1)) for top in tops]
