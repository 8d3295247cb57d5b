"""Encoder of JPEG (ITU-T T.81)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

# Numbers of the coefficients in the order of the file: along the diagonals of the 8x8 block (figure A.6).
_ZIGZAG = sorted(range(64), key=lambda at: (at // 8 + at % 8, at // 8 if (at // 8 + at % 8) % 2 else at % 8))


def encode_jpeg(
    pixels: NDArray[np.uint8], quality: int, subsampling: str, tables: Sequence[bytes] = ()
) -> bytes:
    """Encode (H, W, 1 or 3) uint8 pixels.

    Args:
        pixels: gray or RGB.
        quality: quality of libjpeg, 1 to 100.
        subsampling: such as "4:2:0"; not used for gray.
        tables: quantisation tables for luma and chroma to use instead of those of `quality`, each 64 bytes in
            zigzag order (none: those of `quality`).
    """
    gray = pixels.shape[2] == 1
    if (
        tables
        and subsampling in ("4:4:4", "4:2:2", "4:2:0")
        and tuple(tables) != standard_tables(quality, gray)
    ):
        # TurboJPEG takes no tables. Pillow's encoder does, and takes a third longer.
        buffer = io.BytesIO()
        image = Image.fromarray(pixels[..., 0] if gray else pixels)
        image.save(
            buffer, "JPEG", qtables=[natural_order(table) for table in tables], subsampling=subsampling
        )
        return buffer.getvalue()
    data = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels),
        quality=quality,
        colorspace="GRAY" if gray else "RGB",
        colorsubsampling="Gray" if gray else subsampling.replace(":", ""),
    )
    return cast(bytes, data)


@lru_cache(maxsize=256)
def standard_tables(quality: int, gray: bool) -> tuple[bytes, ...]:
    """Return libjpeg's quantisation tables of a quality, in zigzag order: luma, and chroma unless `gray`."""
    sample = np.zeros((8, 8, 1 if gray else 3), np.uint8)
    data = encode_jpeg(sample, quality, "4:4:4")
    tables = []
    at = 2
    while data[at + 1] != 0xDA:
        if data[at + 1] == 0xDB:
            body = data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4])]
            tables += [body[start + 1 : start + 65] for start in range(0, len(body), 65)]
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return tuple(tables)


def natural_order(table: bytes) -> list[int]:
    """Return the 64 steps of a table in zigzag order row by row, from low to high frequencies."""
    return [table[_ZIGZAG.index(at)] for at in range(64)]


def turned_table(table: bytes) -> bytes:
    """Return the table of an image that is turned on its side: rows and columns are exchanged."""
    natural = natural_order(table)
    return bytes(natural[at % 8 * 8 + at // 8] for at in _ZIGZAG)
