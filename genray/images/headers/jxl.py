"""Reader of the header of JPEG XL files (ISO/IEC 18181-1, annex D; 18181-2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from genray.images.headers.boxes import MOST_BOXES, box_at

_CODESTREAM = b"\xff\x0a"
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width / height, from 1 on
_MAX_CHANNELS = 64
_ALPHA = 0
_GRAY = 1
_D65 = 1
_SRGB_PRIMARIES = 1
_SRGB_TRANSFER = 13


@dataclass(frozen=True)
class JxlHeader:
    """Header of a JPEG XL file.

    Attributes:
        size: (width, height) after turning by the orientation.
        bits: bits of a value.
        is_float: whether values are floats.
        is_gray: whether the image has no colour.
        has_alpha: whether it has one alpha channel.
        has_other_channels: whether it has further channels.
        is_animated: whether it has several frames.
        is_srgb: whether its colours, or its gray levels, are those of sRGB.
        exif: EXIF block, without its prefix.
        xmp: XMP packet.
        has_packed_boxes: whether it has metadata that is compressed.
    """

    size: tuple[int, int]
    bits: int
    is_float: bool
    is_gray: bool
    has_alpha: bool
    has_other_channels: bool
    is_animated: bool
    is_srgb: bool
    exif: bytes | None
    xmp: bytes | None
    has_packed_boxes: bool


def read_header(data: bytes) -> JxlHeader:
    """Read the header of a file or a codestream.

    Raises:
        ValueError, struct.error: it is damaged.
    """
    stream = data
    boxes: dict[bytes, bytes] = {}
    if not data.startswith(_CODESTREAM):
        boxes = dict(_boxes(data))
        # A codestream in parts: each begins with its number.
        stream = boxes.get(b"jxlc", boxes.get(b"jxlp", b"")[4:])
    if not stream.startswith(_CODESTREAM):
        raise ValueError("it has no codestream")
    bits = _Bits(stream[2:1024])
    width, height = _size(bits)
    metadata = _metadata(bits)
    size = (width, height) if metadata.orientation < 5 else (height, width)
    exif = boxes.get(b"Exif")
    return JxlHeader(
        size,
        metadata.bits,
        metadata.is_float,
        metadata.is_gray,
        metadata.extra == (_ALPHA,),
        metadata.extra not in ((), (_ALPHA,)),
        metadata.is_animated,
        metadata.is_srgb,
        None if exif is None else exif[4 + int.from_bytes(exif[:4]) :],
        boxes.get(b"xml "),
        b"brob" in boxes,
    )


class _Bits:
    """Reader of numbers from bits, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """Return the number in the next `count` bits."""
        if count > self._left:
            raise ValueError("its header is cut off")
        number = self._bits & ((1 << count) - 1)
        self._bits >>= count
        self._left -= count
        return number

    def flag(self) -> bool:
        """Return the next bit."""
        return bool(self.take(1))

    def choice(self, *choices: tuple[int, int]) -> int:
        """Return a number of one of four forms: an offset, and the bits that are added to it."""
        offset, count = choices[self.take(2)]
        return offset + self.take(count)

    def enumerated(self) -> int:
        """Return a number that stands for a name."""
        return self.choice((0, 0), (1, 0), (2, 4), (18, 6))


def _size(bits: _Bits) -> tuple[int, int]:
    is_small = bits.flag()

    def side() -> int:
        if is_small:
            return 8 * (bits.take(5) + 1)
        return 1 + bits.choice((0, 9), (0, 13), (0, 18), (0, 30))

    height = side()
    ratio = bits.take(3)
    if not ratio:
        return side(), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height


@dataclass
class _Metadata:
    orientation: int = 1
    is_animated: bool = False
    bits: int = 8
    is_float: bool = False
    extra: tuple[int, ...] = ()
    is_gray: bool = False
    is_srgb: bool = True


def _metadata(bits: _Bits) -> _Metadata:
    found = _Metadata()
    if bits.flag():  # all as usual
        return found
    if bits.flag():
        found.orientation = 1 + bits.take(3)
        if bits.flag():
            _size(bits)
        if bits.flag():
            raise ValueError("it has a preview")
        found.is_animated = bits.flag()
        if found.is_animated:
            bits.choice((100, 0), (1000, 0), (1, 10), (1, 30))
            bits.choice((1, 0), (1001, 0), (1, 8), (1, 10))
            bits.choice((0, 0), (0, 3), (0, 16), (0, 32))
            bits.flag()
    found.bits, found.is_float = _depth(bits)
    bits.flag()
    count = bits.choice((0, 0), (1, 0), (2, 4), (1, 12))
    found.extra = tuple(_extra_channel(bits) for _ in range(min(count, _MAX_CHANNELS)))
    bits.flag()  # whether it is stored as XYB
    _read_colours(bits, found)
    return found


def _depth(bits: _Bits) -> tuple[int, bool]:
    if bits.flag():
        depth = bits.choice((32, 0), (16, 0), (24, 0), (1, 6))
        bits.take(4)
        return depth, True
    return bits.choice((8, 0), (10, 0), (12, 0), (1, 6)), False


def _extra_channel(bits: _Bits) -> int:
    if bits.flag():
        return _ALPHA
    kind = bits.enumerated()
    _depth(bits)
    bits.choice((0, 0), (3, 0), (4, 0), (1, 3))
    for _ in range(bits.choice((0, 0), (0, 4), (16, 5), (48, 10))):
        bits.take(8)
    if kind == _ALPHA:
        bits.flag()
        return kind
    return -1 - kind  # its further fields are not needed: such files are refused


def _read_colours(bits: _Bits, found: _Metadata) -> None:
    if any(kind < 0 for kind in found.extra) or bits.flag():
        return
    has_profile = bits.flag()
    space = bits.enumerated()
    found.is_gray = space == _GRAY
    if has_profile:
        found.is_srgb = False
        return
    white = bits.enumerated()
    primaries = bits.enumerated() if not found.is_gray and white == _D65 else _SRGB_PRIMARIES
    is_usual = space in (0, _GRAY) and (white, primaries) == (_D65, _SRGB_PRIMARIES)
    found.is_srgb = is_usual and not bits.flag() and bits.enumerated() == _SRGB_TRANSFER


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of the boxes of a container, of each kind the first."""
    at = 0
    seen: set[bytes] = set()
    for _ in range(MOST_BOXES):
        if at + 8 > len(data):
            return
        kind, begin, end = box_at(data, at)
        if kind not in seen:
            seen.add(kind)
            yield kind, data[begin : min(end, begin + 2**20 if kind.startswith(b"jxl") else end)]
        at = end
