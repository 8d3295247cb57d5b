"""Photos: the pixels of an image file with what else it carries, read and written together."""

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

# The limits of libjpeg and libpng, and those of the header fields of WebP, TIFF and BMP.
_LONGEST_SIDE = {"jpeg": 65500, "webp": 16383, "png": 1_000_000, "tiff": 2**31 - 1, "bmp": 2**31 - 1}
_STRIP_BYTES = 2**18
_SHORT = 3  # types of TIFF tags
_LONG = 4


class WriteSettings(Settings):
    """Settings of the image files that are written."""

    format: Literal["same", "jpeg", "png", "webp", "tiff", "bmp"] = Field(
        "same", description="format of the outputs (same: the format of the input)"
    )
    quality: int | None = Field(
        None,
        ge=1,
        le=100,
        description="quality of JPEG and WebP, 1 to 100 (null: the quality of a JPEG input, within 75 to 98; "
        "90 for other inputs)",
    )
    lossless: bool | None = Field(
        None, description="write lossless WebP (null: only if the input is a lossless WebP)"
    )
    png_level: int = Field(
        1, ge=0, le=9, description="compression level of PNG, 0 (none) to 9 (smallest); 1 is fast"
    )
    keep_icc: bool = Field(True, description="keep the input's colour profile")
    keep_exif: bool = Field(True, description="keep the input's EXIF: camera, date, place")


@dataclass(frozen=True)
class PhotoHeader:
    """Header of an image file.

    Args:
        format: see `Photo`.
        width: pixels, after the image is turned upright.
        height: the same.
        channels: 1 (gray) or 3 (RGB), without alpha.
        depth: bits of a value, 8 or 16.
        has_alpha: whether the image can be transparent.
    """

    format: str
    width: int
    height: int
    channels: int
    depth: int
    has_alpha: bool


@dataclass(frozen=True)
class Photo:
    """Pixels of an image file, and what else the file carries.

    Args:
        pixels: (H, W, C) uint8 or uint16; C is 1 (gray) or 3 (RGB); upright. From `read_photo` they are
            writable and contiguous.
        alpha: (H, W) of the same type, transparent where 0 (None: the image is opaque).
        format: format of the file: "jpeg", "png", "webp", "tiff" or "bmp" ("": the image was in no file).
        icc: ICC colour profile, unchanged.
        exif: EXIF block, from its byte order ("II" or "MM") on: with orientation 1 and without the
            thumbnail, else unchanged.
        quality: quality of a JPEG, 1 to 100: the one whose table in libjpeg is nearest to the file's.
        subsampling: chroma subsampling of a colour JPEG: "4:4:4", "4:2:2", "4:2:0", "4:4:0" or "4:1:1"
            (None: another).
        lossless: whether the file is a lossless WebP.
        notes: what is odd in the file, or was left out of the photo, in words for the ledger.
        salvaged: damage of the file that cost no pixel, in words for the ledger.
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
    salvaged: tuple[str, ...] = ()

    @property
    def depth(self) -> int:
        """Bits of a pixel's value: 8 or 16."""
        return 8 * self.pixels.dtype.itemsize


def photo_header(data: bytes, limits: ReadLimits) -> PhotoHeader:
    """Read the header of an image file, without decoding its pixels.

    Args:
        data: the whole file.
        limits: what to refuse.

    Raises:
        BadImage: see `read_photo`; damage within the pixels is not found.
    """
    file = inspect_file(data, limits)
    width, height = file.upright_size
    channels = 1 if file.samples == 1 else 3
    return PhotoHeader(file.format, width, height, channels, file.depth, file.alpha)


def read_photo(data: bytes, limits: ReadLimits) -> Photo:
    """Decode a JPEG, PNG, WebP, TIFF or BMP file. The format is found by the content, not by the name.

    Gray stays gray and 16 bits stay 16. Palettes become RGB; 1, 2 and 4 bits become 8; CMYK and YCCK become
    sRGB, through their ICC profile if they have one, which is then left out. If a JPEG holds several
    pictures, the first is read. A damaged ICC profile or EXIF block is left out, and the pixels are read.
    The notes say what was left out. XMP, IPTC, comments and text are not read.

    Args:
        data: the whole file.
        limits: what to refuse, before memory is allocated for it.

    Raises:
        BadImage: `empty`; `unknown-format`; `too-large`; `too-much-work`; `truncated`: pixels are missing or
            damaged, even if most could be shown; `unsupported`: animations, floats, signed or 32-bit numbers,
            JPEGs of 12 bits, L*a*b*, TIFFs of several pages or with more channels than colours and one
            alpha, and other formats.
    """
    file = inspect_file(data, limits)
    notes = list(file.notes)
    began = time.perf_counter()
    salvaged = list(file.salvaged)
    pixels = upright(decode_file(data, file, limits, salvaged=salvaged), file.orientation)
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
        tuple(salvaged),
    )


def output_path(path: str, settings: WriteSettings) -> str:
    """Return the path of the output for that of an input: the same stem with the suffix of the format.

    The path stays as it is if its suffix fits the format, or the format is "same". A suffix that is not of
    an image format counts as part of the stem.
    """
    kind = kind_of_name(path)
    if settings.format == "same" or (kind is not None and kind.name == settings.format):
        return path
    stem = path.rpartition(".")[0] if kind is not None and kind.is_read else path
    return stem + KINDS[settings.format].suffixes[0]


def output_format(photo: Photo, settings: WriteSettings, path: str = "") -> str:
    """Return the format that `write_photo` writes.

    It is `settings.format`; for "same" the format of the photo, whatever the suffix of `path`; for a photo
    that was in no file the format of the suffix, and PNG if there is none.
    """
    if settings.format != "same":
        return settings.format
    kind = kind_of_name(path)
    return photo.format or (kind.name if kind is not None and kind.name in _LONGEST_SIDE else "png")


def write_photo(photo: Photo, settings: WriteSettings, path: str = "") -> bytes:
    """Encode a photo in the format that `output_format` returns.

    - A BigTIFF becomes a TIFF.
    - PNG and TIFF (deflate, one page) keep 16 bits and alpha. JPEG, WebP and BMP have 8 bits: 16-bit values
      are divided by 257 and rounded.
    - JPEG has no alpha: the image is laid over white. The quality of a JPEG input (within 75 to 98) and its
      subsampling are kept; other inputs are written as 4:2:0.
    - BMP keeps alpha, but has no place for a profile or EXIF: both are left out.
    - WebP has no gray: gray is written as RGB, converted to sRGB through a gray profile if there is one.
    - An ICC profile is written unchanged, unless it describes other colours than the pixels have. An EXIF
      block is written unchanged, too; a TIFF gets copies of its tags, which a maker note may not survive.
      What a JPEG cannot hold (EXIF of 64 KiB, ICC of 16 MiB) is left out.

    Args:
        photo: what to write.
        settings: format and quality.
        path: path of the output, see `output_format`.

    Raises:
        BadImage: `too-large`: a side is longer than the format allows (65500 pixels in JPEG, 16383 in WebP,
            1000000 in PNG).
    """
    form = output_format(photo, settings, path)
    height, width, channels = photo.pixels.shape
    if max(height, width) > _LONGEST_SIDE[form]:
        raise BadImage(
            "too-large",
            f"{width}x{height} pixels: a {KINDS[form].title} has at most {_LONGEST_SIDE[form]} on a side; "
            "write.format=tiff has room for it",
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
    """Convert pixels to uint8: uint16 is divided by 257 and rounded, uint8 returned as it is."""
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
    # The JFIF segment has to be the first.
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
    # Effort (method) against the usual 4: lossless, 1 takes a third of the time for the same size; lossy, 2
    # takes half the time and loses 0.1 dB.
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
        # On photos, the Paeth filter with run lengths is 4 times as fast as level 1 of zlib, with smaller
        # files than level 6. Drawings and text compress well, and better still with matches.
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
    # Readers find alpha by its mask, which only headers from version 4 on have; Pillow writes version 3.
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
            tags = TagDirectory.parse(
                exif
            )  # the values are copied unchanged, so the file takes their byte order
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
    put(Tag.STRIP_OFFSETS, _LONG, *lengths)  # placeholders of the right size
    at = 8 + len(encode_directory(order, entries, 8))
    at += at % 2
    put(Tag.STRIP_OFFSETS, _LONG, *(at + sum(lengths[:index]) for index in range(len(lengths))))
    header = struct.pack(order + "2sHL", b"II" if order == "<" else b"MM", 42, 8)
    header += encode_directory(order, entries, 8)
    body = (strip.ljust(length, b"\0") for strip, length in zip(strips, lengths, strict=True))
    return header.ljust(at, b"\0") + b"".join(body)


def _tiff_strips(planes: FilePixels, rows: int, order: ByteOrder) -> list[bytes]:
    """Deflate the pixels, `rows` at a time, after horizontal differencing (TIFF 6.0, section 14)."""
    residues = planes.copy()
    residues[:, 1:] -= planes[:, :-1]
    residues = residues.astype(residues.dtype.newbyteorder(order), copy=False)
    tops = range(0, len(residues), rows)
    return [bytes(imagecodecs.deflate_encode(residues[top : top + rows].tobytes(), 1)) for top in tops]
