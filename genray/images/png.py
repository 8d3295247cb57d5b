"""Reader of PNG files (ISO 15948): header and pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

import imagecodecs
import numpy as np

from genray.images.image_file import FilePixels, ImageFile
from genray.images.limits import ReadLimits
from genray.io.bad_input import BadImage

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 1_000_000
_LONGEST_SIDE = 1_000_000  # libpng's own limit
_GRAY, _RGB, _PALETTE, _GRAY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_COLOURS = {_GRAY: 1, _RGB: 3, _PALETTE: 3, _GRAY_ALPHA: 1, _RGB_ALPHA: 3}
_SAMPLES = {_GRAY: 1, _RGB: 3, _PALETTE: 1, _GRAY_ALPHA: 2, _RGB_ALPHA: 4}
_DEPTHS = {
    _GRAY: (1, 2, 4, 8, 16), _RGB: (8, 16), _PALETTE: (1, 2, 4, 8), _GRAY_ALPHA: (8, 16), _RGB_ALPHA: (8, 16)
}  # fmt: skip
_BEST_RATIO = 1032  # highest compression ratio of deflate
_LAST_FILTER = 4  # Paeth's
# Passes of an interlaced image (Adam7): first row, first column, row step, column step.
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def inspect_png(data: bytes, limits: ReadLimits) -> ImageFile:
    """Read the header, see `inspect_file`.

    Raises:
        BadImage, ValueError, LookupError, struct.error: the file cannot be read.
    """
    every = list(chunks(data))
    found = {kind: (at, length) for kind, at, length in every}
    header = _chunk(data, *found[b"IHDR"])
    width, height, depth, colour, packing, filtering, interlacing = struct.unpack(">LLBBBBB", header)
    known = packing == 0 and filtering == 0 and interlacing <= 1 and depth in _DEPTHS.get(colour, ())
    if found[b"IHDR"][0] != 16 or not known:
        raise ValueError("the header is damaged")
    if colour == _PALETTE and b"PLTE" not in found:
        raise ValueError("the palette is missing")
    if max(width, height) > _LONGEST_SIDE:
        raise BadImage("too-large", f"{width}x{height} pixels; a side of a PNG has at most {_LONGEST_SIDE}")
    limits.check_pixels(width, height)
    frames = struct.unpack_from(">L", data, found[b"acTL"][0])[0] if b"acTL" in found else 1
    left_out = list(limits.further_frames(frames))
    notes = list(left_out)
    icc = exif = None
    if b"iCCP" in found:
        try:
            _, _, packed = _chunk(data, *found[b"iCCP"]).partition(b"\0")
            # One byte above the limit, so that the caller's check sees that the profile is too large.
            icc = zlib.decompressobj().decompress(packed[1:], limits.max_text_bytes + 1)
        except (ValueError, zlib.error):
            notes.append("the colour profile is damaged and left out")
            left_out.append("ICC profile")
    if b"eXIf" in found:
        try:
            exif = _chunk(data, *found[b"eXIf"])
        except ValueError:
            notes.append("EXIF is damaged and left out")
            left_out.append("EXIF")
    wrong = sum(
        not _has_right_checksum(data, at, length)
        for kind, at, length in every
        if kind not in (b"IDAT", b"IHDR", b"PLTE")
    )
    salvaged: tuple[str, ...] = ()
    if wrong:
        salvaged += (f"wrong checksums of chunks beside the pixels: {wrong}",)
    if b"IEND" not in found:
        salvaged += ("the end chunk is missing",)
    return ImageFile(
        "png",
        (width, height),
        _COLOURS[colour],
        depth=16 if depth == 16 else 8,
        alpha=colour >= _GRAY_ALPHA or b"tRNS" in found,
        icc=icc,
        exif=exif,
        left_out=tuple(left_out),
        notes=tuple(notes),
        salvaged=salvaged,
    )


def decode_png(data: bytes, file: ImageFile, repairs: list[str]) -> FilePixels:
    """Decode the pixels, see `decode_file`.

    libspng decodes most files. libpng is as fast, but its decoder in imagecodecs (2026.3) leaks a reference
    to None and the image's memory at each error, and prints warnings to the terminal. It decodes only what
    imagecodecs' libspng cannot (16 bits, gray with alpha, a transparent colour), from data checked here, so
    that it does not fail.

    The pixel data have two checksums: a CRC of each chunk, and an Adler-32 of all rows. One of them is enough
    to know that no pixel is damaged.

    Args:
        data: the whole file.
        file: result of `inspect_png`.
        repairs: receives a note if one of the checksums is wrong.

    Raises:
        Exception: any error of the decoders.
    """
    colour, depth = data[25], data[24]
    samples = _SAMPLES[colour]
    width, height = file.size
    if width * height * samples * depth / 8 > _BEST_RATIO * len(data):
        raise ValueError(f"{width}x{height} pixels do not fit into a PNG of {len(data)} bytes")
    head, pixels = _shown_chunks(data, colour)
    is_whole = all(_has_right_checksum(data, at, length) for at, length in pixels)
    is_transparent = b"tRNS" in head
    if is_transparent or colour == _GRAY_ALPHA or (depth == 16 and colour != _RGB_ALPHA):
        decoder = imagecodecs.png_decode
    else:
        decoder = imagecodecs.spng_decode
        if is_whole:
            checked = (data[at - 8 : at + length + 4] for at, length in pixels)
            with suppress(imagecodecs.SpngError):  # it fails, too, if only Adler-32 is wrong
                return cast(FilePixels, decoder(b"".join([*head.values(), *checked, _END])))
    packed = b"".join(data[at : at + length] for at, length in pixels)
    raw, is_right = _unpack(packed, file.size, depth * samples, is_interlaced=bool(data[28]))
    if not is_whole and not is_right:
        raise ValueError("the checksums of the pixel data are wrong")
    if not is_whole or is_right is False:
        repairs.append("one of the two checksums of the pixels is wrong")
    if is_transparent and colour != _PALETTE:  # libpng warns if unused high bits are set
        levels = np.frombuffer(head[b"tRNS"], ">u2", _COLOURS[colour], 8) & (2**depth - 1)
        head[b"tRNS"] = make_chunk(b"tRNS", levels.astype(">u2").tobytes())
    if data[28]:
        return _decode_passes(head, raw, file.size, depth * samples, decoder)
    stored = make_chunk(b"IDAT", zlib.compress(raw, 0))
    return cast(FilePixels, decoder(b"".join([*head.values(), stored, _END])))


def _decode_passes(
    head: Mapping[bytes, bytes], raw: bytes, size: tuple[int, int], bits: int, decoder: Callable[[bytes], Any]
) -> FilePixels:
    """Decode the passes of an interlaced image one by one: imagecodecs' libpng warns of such images."""
    width, height = size
    pixels: FilePixels | None = None
    at = 0
    for top, left, down, across in _PASSES:
        rows, columns = -(-(height - top) // down), -(-(width - left) // across)
        if rows <= 0 or columns <= 0:
            continue
        end = at + rows * (1 + (columns * bits + 7) // 8)
        header = struct.pack(">LL", columns, rows) + head[b"IHDR"][16:20] + b"\0"
        stored = make_chunk(b"IDAT", zlib.compress(raw[at:end], 0))
        chunks_of_pass = {**head, b"IHDR": make_chunk(b"IHDR", header)}
        decoded = decoder(b"".join([*chunks_of_pass.values(), stored, _END]))
        if pixels is None:
            pixels = np.empty((height, width, *decoded.shape[2:]), decoded.dtype)
        pixels[top::down, left::across] = decoded
        at = end
    return cast(FilePixels, pixels)


def make_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk, with its length and checksum."""
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def _shown_chunks(data: bytes, colour: int) -> tuple[dict[bytes, bytes], list[tuple[int, int]]]:
    """Return only what defines the pixels, so that damage in other chunks cannot matter.

    Returns:
        Signature and chunks before the pixels, by kind; offset and length of each IDAT chunk's content.

    Raises:
        ValueError: one of these chunks is damaged.
    """
    head = {b"": _SIGNATURE}
    pixels: list[tuple[int, int]] = []
    colours = 0
    for kind, at, length in chunks(data):
        is_first = not pixels and kind not in head
        if kind == b"IDAT":
            pixels.append((at, length))
        elif is_first and kind == b"PLTE" and colour == _PALETTE:
            colours, rest = divmod(length, 3)
            if rest or not 1 <= colours <= 256:
                raise ValueError(
                    f"a palette of {length} bytes, which is not 3 bytes for each of 1 to 256 colours"
                )
        elif not is_first or (kind != b"IHDR" and (kind != b"tRNS" or not _fits(length, colour, colours))):
            continue
        if kind != b"IDAT":
            _chunk(data, at, length)
            head[kind] = data[at - 8 : at + length + 4]
    return head, pixels


def _fits(length: int, colour: int, colours: int) -> bool:
    """Return whether a tRNS chunk of this length fits the image."""
    return 1 <= length <= colours if colour == _PALETTE else length == {_GRAY: 2, _RGB: 6}.get(colour)


def _unpack(
    packed: bytes, size: tuple[int, int], bits: int, *, is_interlaced: bool
) -> tuple[bytes, bool | None]:
    """Decompress the content of the IDAT chunks to filtered rows on which no decoder fails.

    Args:
        packed: content of the IDAT chunks.
        size: (width, height).
        bits: bits of a pixel.
        is_interlaced: whether the rows are those of Adam7's passes.

    Returns:
        The rows, and whether their checksum is right; None if further rows follow, which are left out.

    Raises:
        ValueError, zlib.error: the data are damaged.
    """
    width, height = size
    rows = [(height, width)]
    if is_interlaced:
        rows = [(-(-(height - y) // down), -(-(width - x) // across)) for y, x, down, across in _PASSES]
    rows = [(count, 1 + (columns * bits + 7) // 8) for count, columns in rows if count > 0 and columns > 0]
    expected = sum(count * row_bytes for count, row_bytes in rows)
    is_right: bool | None = True
    try:
        raw = bytes(imagecodecs.deflate_decode(packed, out=expected))
    except imagecodecs.DeflateError:  # libdeflate also refuses data with surplus rows
        raw, is_right = _inflate(packed, expected)
    if len(raw) != expected:
        raise ValueError(f"{len(raw)} of {expected} bytes of pixels are there")
    filters = np.frombuffer(raw, np.uint8)
    at = 0
    for count, row_bytes in rows:
        if filters[at : at + count * row_bytes : row_bytes].max() > _LAST_FILTER:
            raise ValueError("a row has an unknown filter")
        at += count * row_bytes
    return raw, is_right


def _inflate(packed: bytes, size: int) -> tuple[bytes, bool | None]:
    """Decompress `size` bytes; see `_unpack`."""
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(packed, size)
        return raw, None if stream.decompress(stream.unconsumed_tail, 1) else stream.eof
    except zlib.error:
        if packed[0] & 15 != 8 or int.from_bytes(packed[:2]) % 31:  # no header of zlib
            raise
        # Without zlib's header and checksum, of which the checksum may be all that is wrong.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed[2:], size), False


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, offset of the content and length of each complete chunk. A file may end early after IDAT.

    Raises:
        ValueError: the file is damaged, or ends before its pixels do.
    """
    if not data.startswith(_SIGNATURE) or data[12:16] != b"IHDR":
        raise ValueError("the header is damaged")
    at = 8
    has_pixels = False
    for _ in range(_MAX_CHUNKS):
        length = int.from_bytes(data[at : at + 4])
        kind = data[at + 4 : at + 8]
        if at + 12 + length > len(data):
            if not has_pixels or kind == b"IDAT":
                raise ValueError(f"it ends within chunk {_name(kind)}")
            return
        yield kind, at + 8, length
        if kind == b"IEND":
            return
        has_pixels |= kind == b"IDAT"
        at += 12 + length
    raise ValueError(f"more than {_MAX_CHUNKS} chunks")


def _chunk(data: bytes, at: int, length: int) -> bytes:
    """Return the content of a chunk.

    Raises:
        ValueError: the checksum is wrong.
    """
    if not _has_right_checksum(data, at, length):
        raise ValueError(f"the checksum of chunk {_name(data[at - 4 : at])} is wrong")
    return data[at : at + length]


def _has_right_checksum(data: bytes, at: int, length: int) -> bool:
    found = int.from_bytes(data[at + length : at + length + 4])
    return zlib.crc32(memoryview(data)[at - 4 : at + length]) == found


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "backslashreplace")


_END = make_chunk(b"IEND", b"")
