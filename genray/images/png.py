"""PNG files (ISO 15948): what they say before they are decoded, and their pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import cast

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
_BEST_RATIO = 1032  # of deflate
_LAST_FILTER = 4  # Paeth's
# Of each pass of an interlaced image the first row and column, and the steps between them (Adam7).
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def inspect_png(data: bytes, limits: ReadLimits) -> ImageFile:
    """See `inspect_file`.

    Raises:
        BadImage, ValueError, LookupError, struct.error: it cannot be read.
    """
    chunks = {kind: (at, length) for kind, at, length in _chunks(data)}
    header = _chunk(data, *chunks[b"IHDR"])
    width, height, depth, colour, packing, filtering, interlacing = struct.unpack(">LLBBBBB", header)
    known = packing == 0 and filtering == 0 and interlacing <= 1 and depth in _DEPTHS.get(colour, ())
    if chunks[b"IHDR"][0] != 16 or not known:
        raise ValueError("its header is damaged")
    if colour == _PALETTE and b"PLTE" not in chunks:
        raise ValueError("it has no palette")
    if max(width, height) > _LONGEST_SIDE:
        raise BadImage("too-large", f"{width}x{height} pixels: more than {_LONGEST_SIDE} a side")
    limits.check_pixels(width, height)
    if b"acTL" in chunks and struct.unpack_from(">L", data, chunks[b"acTL"][0])[0] > 1:
        raise BadImage("unsupported", "an animation")
    notes = []
    icc = exif = None
    if b"iCCP" in chunks:
        try:
            _, _, packed = _chunk(data, *chunks[b"iCCP"]).partition(b"\0")
            # One byte more, so that too much is seen by who checks it.
            icc = zlib.decompressobj().decompress(packed[1:], limits.max_text_bytes + 1)
        except (ValueError, zlib.error):
            notes.append("its colour profile is damaged: left out")
    if b"eXIf" in chunks:
        try:
            exif = _chunk(data, *chunks[b"eXIf"])
        except ValueError:
            notes.append("its EXIF is damaged: left out")
    if b"IEND" not in chunks:
        notes.append("its end chunk is missing")
    return ImageFile(
        "png",
        (width, height),
        _COLOURS[colour],
        depth=16 if depth == 16 else 8,
        alpha=colour >= _GRAY_ALPHA or b"tRNS" in chunks,
        icc=icc,
        exif=exif,
        notes=tuple(notes),
    )


def decode_png(data: bytes, file: ImageFile) -> FilePixels:
    """See `decode_file`.

    libspng decodes: as fast as libpng, whose decoder in imagecodecs (2026.3) loses a reference to None and
    the image's memory at each error, and writes its warnings to the terminal. What libspng's there does not
    give (16 bits, gray with alpha, a transparent colour), libpng decodes, from data that was checked.

    Raises:
        Whatever the decoders raise.
    """
    colour, depth = data[25], data[24]
    samples = _SAMPLES[colour]
    width, height = file.size
    if width * height * samples * depth / 8 > _BEST_RATIO * len(data):
        raise ValueError(f"{width}x{height} pixels cannot be in {len(data)} bytes")
    head, pixels = _shown_chunks(data, colour)
    end = make_chunk(b"IEND", b"")
    is_transparent = b"tRNS" in head
    if is_transparent or colour == _GRAY_ALPHA or (depth == 16 and colour != _RGB_ALPHA):
        packed = b"".join(data[at : at + length] for at, length in pixels)
        raw = _unpack(packed, file.size, depth * samples, is_interlaced=bool(data[28]))
        if is_transparent and colour != _PALETTE:  # libpng warns of more bits
            levels = np.frombuffer(head[b"tRNS"], ">u2", _COLOURS[colour], 8) & (2**depth - 1)
            head[b"tRNS"] = make_chunk(b"tRNS", levels.astype(">u2").tobytes())
        stored = make_chunk(b"IDAT", zlib.compress(raw, 0))
        return cast(FilePixels, imagecodecs.png_decode(b"".join([*head.values(), stored, end])))
    chunks = (data[at - 8 : at + length + 4] for at, length in pixels)
    return cast(FilePixels, imagecodecs.spng_decode(b"".join([*head.values(), *chunks, end])))


def make_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of PNG, with its length and checksum."""
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def _shown_chunks(data: bytes, colour: int) -> tuple[dict[bytes, bytes], list[tuple[int, int]]]:
    """The chunks that make the pixels alone (what is damaged of the others cannot matter then): the signature
    and those before IDAT by their kind, and where the contents of IDAT chunks begin and how long they are.

    Raises:
        ValueError: damaged.
    """
    head = {b"": _SIGNATURE}
    pixels: list[tuple[int, int]] = []
    colours = 0
    for kind, at, length in _chunks(data):
        is_first = not pixels and kind not in head
        if kind == b"IDAT":
            pixels.append((at, length))
        elif is_first and kind == b"PLTE" and colour == _PALETTE:
            colours, rest = divmod(length, 3)
            if rest or not 1 <= colours <= 256:
                raise ValueError(f"a palette of {length} bytes")
        elif not is_first or (kind != b"IHDR" and (kind != b"tRNS" or not _fits(length, colour, colours))):
            continue
        _chunk(data, at, length)
        if kind != b"IDAT":
            head[kind] = data[at - 8 : at + length + 4]
    return head, pixels


def _fits(length: int, colour: int, colours: int) -> bool:
    """Whether the content of tRNS can be so long."""
    return 1 <= length <= colours if colour == _PALETTE else length == {_GRAY: 2, _RGB: 6}.get(colour)


def _unpack(packed: bytes, size: tuple[int, int], bits: int, *, is_interlaced: bool) -> bytes:
    """The rows in the content of the IDAT chunks, of `bits` a pixel, so that libpng will not fail on them.

    Raises:
        ValueError, imagecodecs' errors: damaged.
    """
    width, height = size
    rows = [(height, width)]
    if is_interlaced:
        rows = [(-(-(height - y) // down), -(-(width - x) // across)) for y, x, down, across in _PASSES]
    rows = [(count, 1 + (columns * bits + 7) // 8) for count, columns in rows if count > 0 and columns > 0]
    expected = sum(count * row_bytes for count, row_bytes in rows)
    try:
        raw = bytes(imagecodecs.deflate_decode(packed, out=expected))
    except imagecodecs.DeflateError:  # more than that may be there, which libdeflate does not leave out
        raw = zlib.decompressobj().decompress(packed, expected)
    if len(raw) != expected:
        raise ValueError(f"its pixels are {expected} bytes, it has {len(raw)}")
    filters = np.frombuffer(raw, np.uint8)
    at = 0
    for count, row_bytes in rows:
        if filters[at : at + count * row_bytes : row_bytes].max() > _LAST_FILTER:
            raise ValueError("an unknown filter")
        at += count * row_bytes
    return raw


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The kind, start and length of each chunk that is there wholly. The end may be missing if all pixels
    may be there.

    Raises:
        ValueError, struct.error: damaged, or it ends before the pixels do.
    """
    if not data.startswith(_SIGNATURE) or data[12:16] != b"IHDR":
        raise ValueError("its header is damaged")
    at = 8
    has_pixels = False
    for _ in range(_MAX_CHUNKS):
        length = int.from_bytes(data[at : at + 4])
        kind = data[at + 4 : at + 8]
        if at + 12 + length > len(data):
            if not has_pixels or kind == b"IDAT":
                raise ValueError(f"ends within {kind!r}")
            return
        yield kind, at + 8, length
        if kind == b"IEND":
            return
        has_pixels |= kind == b"IDAT"
        at += 12 + length
    raise ValueError("too many chunks")


def _chunk(data: bytes, at: int, length: int) -> bytes:
    """The content of a chunk.

    Raises:
        ValueError: its checksum is another.
    """
    if zlib.crc32(memoryview(data)[at - 4 : at + length]) != int.from_bytes(
        data[at + length : at + length + 4]
    ):
        raise ValueError(f"bad checksum of {data[at - 4 : at]!r}")
    return data[at : at + length]
