"""Readers of the formats that are read but not written: AVIF, GIF, HEIF, JPEG 2000 and JPEG XL.

Of an animation the first frame is read, and of a HEIF file its primary picture. The output is a PNG, which
loses nothing of the pixels.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, cast

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, GifImagePlugin

from genray.images.headers import jxl
from genray.images.headers.boxes import MOST_BOXES, box_at
from genray.images.image_file import FilePixels, ImageFile
from genray.images.limits import ReadLimits
from genray.io.bad_input import BadImage

_HIGH_DEPTH, _TWELVE_BITS = 0x40, 0x20  # bits of the third byte of an AV1 configuration
_LOST_EXIF = "lost EXIF"
_CODESTREAM = b"\xff\x4f\xff\x51"
_CHANNELS_OF_SPACE = {16: 3, 17: 1}  # sRGB and gray, by their number in a box `colr`
_ICC_METHOD = 2


def inspect_avif(data: bytes, limits: ReadLimits) -> ImageFile:
    """Read the header, see `inspect_file`.

    Raises:
        BadImage, OSError, ValueError: the file cannot be read.
    """
    with open_avif(data) as image:
        left_out = limits.further_frames(image.n_frames)
        notes = left_out
        if _LOST_EXIF in image.info:
            left_out = (*left_out, "EXIF")
            notes = (*notes, "EXIF is damaged and left out")
        return ImageFile(
            "avif",
            image.size,
            1 if image.mode in ("L", "LA") else 3,
            depth=8 if _avif_bits(data) == 8 else 16,
            alpha=image.mode.endswith("A"),
            icc=image.info.get("icc_profile"),
            exif=image.info.get("exif"),
            left_out=left_out,
            notes=notes,
        )


def open_avif(data: bytes) -> AvifImagePlugin.AvifImageFile:
    """Open an AVIF file; if Pillow cannot make its EXIF true of the turning, without EXIF.

    Raises:
        Exception: any error of the decoder.
    """
    try:
        return AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    except Exception:
        image = AvifImagePlugin.AvifImageFile(io.BytesIO(data.replace(b"Exif", b"none")))
        image.info[_LOST_EXIF] = True
        return image


def decode_avif(data: bytes, file: ImageFile) -> FilePixels:
    """Decode the pixels, see `decode_file`; 10 and 12 bits become 16.

    Raises:
        Exception: any error of the decoders.
    """
    if file.depth == 8:
        with open_avif(data) as image:
            return np.array(image)
    raw = imagecodecs.avif_decode(data, index=0)
    return _with_all_values(raw, _avif_bits(data), 16)


def inspect_gif(data: bytes, limits: ReadLimits) -> ImageFile:
    """Read the header, see `inspect_file`.

    Raises:
        BadImage, OSError, ValueError, EOFError: the file cannot be read.
    """
    width, height = struct.unpack_from("<HH", data, 6)
    limits.check_pixels(width, height)
    with GifImagePlugin.GifImageFile(io.BytesIO(data)) as image:
        frames = limits.further_frames(image.n_frames)
        return ImageFile(
            "gif",
            image.size,
            1 if image.mode == "L" else 3,
            alpha="transparency" in image.info,
            left_out=frames,
            notes=frames,
        )


def decode_gif(data: bytes, file: ImageFile) -> FilePixels:
    """Decode the first frame, see `decode_file`.

    Raises:
        Exception: any error of the decoder.
    """
    with GifImagePlugin.GifImageFile(io.BytesIO(data)) as image:
        mode = "L" if file.samples == 1 else "RGB"
        return np.array(image.convert({"L": "LA", "RGB": "RGBA"}[mode] if file.alpha else mode))


def inspect_heif(data: bytes, limits: ReadLimits) -> ImageFile:
    """Read the header of the primary picture, see `inspect_file`.

    Raises:
        BadImage, ValueError: the file cannot be read.
    """
    image, others = heif_picture(data)
    names = {
        "further pictures": others,
        "depth maps": len(image.info.get("depth_images", ())),
        "auxiliary pictures": len(image.info.get("aux", ())),
    }
    left_out = tuple(f"{name}: {count}" for name, count in names.items() if count)
    return ImageFile(
        "heif",
        image.size,
        1 if image.mode.startswith("L") else 3,
        depth=16 if image.mode.endswith(";16") else 8,
        alpha="A" in image.mode.partition(";")[0],
        icc=image.info.get("icc_profile"),
        exif=image.info.get("exif"),
        left_out=left_out,
        notes=left_out,
    )


def decode_heif(data: bytes, file: ImageFile) -> FilePixels:
    """Decode the primary picture, see `decode_file`; libheif turns it upright. 10 and 12 bits become 16.

    Raises:
        Exception: any error of the decoder.
    """
    image, _ = heif_picture(data)
    pixels = np.array(image)
    bits = image.info.get("bit_depth", 8)
    if file.depth == 16 and bits < 16:  # shifted to the left, which leaves white below 65535
        pixels = pixels | (pixels >> np.uint16(bits))
    return cast(FilePixels, pixels)


def inspect_jp2(data: bytes, limits: ReadLimits) -> ImageFile:
    """Read the header of a JPEG 2000 file or codestream (ISO 15444-1, annexes A and I); see `inspect_file`.

    Raises:
        BadImage, ValueError, LookupError, struct.error: the file cannot be read.
    """
    boxes = dict(_boxes(data))
    found = data.find(_CODESTREAM)
    if found < 0:
        raise ValueError("it has no codestream")
    right, bottom, left, top = struct.unpack_from(">4L", data, found + 8)
    (channels,) = struct.unpack_from(">H", data, found + 40)
    parts = [data[found + 42 + 3 * index : found + 45 + 3 * index] for index in range(channels)]
    icc = None
    colours = 1 if channels <= 2 else 3
    if b"colr" in boxes:
        box = boxes[b"colr"]
        if box[0] == _ICC_METHOD:
            icc = box[3:]
        elif _CHANNELS_OF_SPACE.get(int.from_bytes(box[3:7])) != colours:
            raise BadImage("unsupported", f"a JPEG 2000 of colour space {box[3:7].hex()}; {_WAY_OUT}")
    bits = parts[0][0] + 1
    if channels not in (1, 2, 3, 4) or any(part != parts[0] for part in parts) or b"pclr" in boxes:
        raise BadImage(
            "unsupported", f"a JPEG 2000 of {channels} channels of several sizes, or of a palette; {_WAY_OUT}"
        )
    if bits > 16 or parts[0][1:] != b"\1\1":  # beyond 128 it is signed
        raise BadImage(
            "unsupported", f"a JPEG 2000 of signed, of more than 16 bits, or subsampled; {_WAY_OUT}"
        )
    left_out = tuple(name for kind, name in ((b"uuid", "metadata boxes"), (b"xml ", "XML")) if kind in boxes)
    return ImageFile(
        "jp2",
        (right - left, bottom - top),
        colours,
        depth=8 if bits <= 8 else 16,
        alpha=channels in (2, 4),
        icc=icc,
        left_out=left_out,
        notes=(f"{bits} bits are read as {8 if bits <= 8 else 16}",) if bits not in (8, 16) else (),
    )


def decode_jp2(data: bytes, file: ImageFile) -> FilePixels:
    """Decode the pixels, see `decode_file`.

    Raises:
        Exception: any error of the decoder.
    """
    raw: NDArray[Any] = imagecodecs.jpeg2k_decode(data)
    return _with_all_values(raw, data[data.find(_CODESTREAM) + 42] + 1, file.depth)


def inspect_jxl(data: bytes, limits: ReadLimits) -> ImageFile:
    """Read the header, see `inspect_file`.

    Raises:
        BadImage, ValueError, struct.error: the file cannot be read.
    """
    header = jxl.read_header(data)
    if header.is_animated:
        raise BadImage("unsupported", f"an animation in JPEG XL; {_WAY_OUT}")
    if header.is_float or header.bits > 16 or header.has_other_channels:
        raise BadImage(
            "unsupported", f"a JPEG XL of floats, more than 16 bits, or extra channels; {_WAY_OUT}"
        )
    if not header.is_srgb:  # its decoder does not give the profile
        raise BadImage("unsupported", f"a JPEG XL in other colours than sRGB; {_WAY_OUT} with its profile")
    left_out = ("compressed metadata",) if header.has_packed_boxes else ()
    return ImageFile(
        "jxl",
        header.size,
        1 if header.is_gray else 3,
        depth=8 if header.bits <= 8 else 16,
        alpha=header.has_alpha,
        exif=header.exif,
        left_out=left_out,
        notes=(f"{header.bits} bits are read as 16",) if 8 < header.bits < 16 else (),
    )


def decode_jxl(data: bytes, file: ImageFile) -> FilePixels:
    """Decode the pixels, see `decode_file`; libjxl turns them upright.

    Raises:
        Exception: any error of the decoder.
    """
    raw: NDArray[Any] = imagecodecs.jpegxl_decode(data)
    return _with_all_values(raw, jxl.read_header(data).bits, file.depth)


def _with_all_values(raw: NDArray[Any], bits: int, depth: int) -> FilePixels:
    """Scale values of `bits` to all values of `depth` bits."""
    if bits == depth:
        return cast(FilePixels, raw)
    levels = np.rint(np.arange(2**bits) * ((2**depth - 1) / (2**bits - 1)))
    return cast(FilePixels, levels.astype(f"u{depth // 8}")[np.minimum(raw, 2**bits - 1)])


_WAY_OUT = "convert it to PNG or TIFF"


def _avif_bits(data: bytes) -> int:
    """Return the bits of a value: the most of any AV1 configuration in the file."""
    bits = 8
    at = data.find(b"av1C")
    while 0 <= at < len(data) - 7:
        if data[at + 6] & _HIGH_DEPTH:
            bits = max(bits, 12 if data[at + 6] & _TWELVE_BITS else 10)
        at = data.find(b"av1C", at + 4)
    return bits


def heif_picture(data: bytes) -> tuple[Any, int]:
    """Return the primary picture, and the number of others."""
    try:
        import pillow_heif
    except ImportError as error:
        raise BadImage(
            "unsupported", "HEIF is read with the extra heif: pip install 'genray[heif]'"
        ) from error
    file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    return file[file.primary_index], len(file) - 1


def _boxes(data: bytes, at: int = 0, end: int | None = None) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of the boxes of a JPEG 2000 file before its codestream, headers opened."""
    end = len(data) if end is None else end
    for _ in range(MOST_BOXES):
        if at + 8 > end or data.startswith(_CODESTREAM):
            return
        try:
            kind, begin, box_end = box_at(data, at)
        except (ValueError, struct.error):
            return
        if kind == b"jp2c":
            return
        if kind == b"jp2h":
            yield from _boxes(data, begin, min(end, box_end))
        else:
            yield kind, data[begin:box_end]
        at = box_end
