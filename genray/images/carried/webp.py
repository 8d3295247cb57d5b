"""Items in the chunks of a WebP (https://developers.google.com/speed/webp/docs/riff_container)."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from genray.images.carried.items import Carried, ItemCollector

# Chunks of pixels, and those that are read elsewhere.
_ELSEWHERE = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"EXIF", b"ANIM", b"ANMF")


def read_riff_chunks(chunks: Iterable[tuple[bytes, bytes]], collector: ItemCollector) -> Carried:
    """Read the items of a WebP.

    Args:
        chunks: kind and content of each chunk.
        collector: takes the names of what is left out.
    """
    xmp: bytes | None = None
    for kind, body in chunks:
        if kind == b"XMP ":
            if xmp is None and collector.admits("XMP", body):
                xmp = body
        elif kind not in _ELSEWHERE:
            collector.leave_out(f"chunk {kind.decode('latin-1').strip()}")
    return Carried(xmp=xmp)


def with_alpha_flag(data: bytes) -> bytes:
    """Return a WebP that says it has alpha: encoders leave out an alpha that is opaque everywhere.

    A lossless picture has a bit for it. A lossy one is given the extended header, whose flag says that there
    may be an alpha, which is opaque if its chunk is missing.
    """
    if data[12:16] == b"VP8X":
        flagged = bytearray(data)
        flagged[20] |= 16
        at = 30
        while data[at : at + 4] not in (b"VP8 ", b"VP8L"):
            length = int.from_bytes(data[at + 4 : at + 8], "little")
            at += 8 + length + length % 2
        if data[at : at + 4] == b"VP8L":
            flagged[at + 12] |= 16
        return bytes(flagged)
    if data[12:16] == b"VP8L":
        return data[:24] + bytes([data[24] | 16]) + data[25:]
    sides = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    header = bytes([16, 0, 0, 0]) + b"".join((side - 1).to_bytes(3, "little") for side in sides)
    chunks = b"WEBPVP8X" + struct.pack("<L", len(header)) + header + data[12:]
    return b"RIFF" + struct.pack("<L", len(chunks)) + chunks
