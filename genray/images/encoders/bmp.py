"""Encoder of BMP (Windows bitmaps, headers of version 4 and 5)."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.images.encoders.indexed import Indexed

_MASKS = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
_V3, _V4, _V5 = 40, 108, 124  # bytes of the headers
_MOST_PELS = 2**31 - 1


def encode_bmp(
    pixels: NDArray[np.uint8] | Indexed, icc: bytes | None, per_metre: tuple[int, int] | None
) -> bytes:
    """Encode pixels.

    Args:
        pixels: (H, W, 1 to 4) uint8, or indexed pixels without alpha.
        icc: colour profile.
        per_metre: pixels per metre, across and down.
    """
    palette: NDArray[Any] = np.zeros((0, 3), np.uint8)
    if isinstance(pixels, Indexed):
        height, width = pixels.numbers.shape
        palette = _gray(2**pixels.bits) if pixels.palette is None else pixels.palette
        bits = pixels.bits if pixels.bits != 2 else 4  # there are no 2 bits
        rows = Indexed(pixels.numbers, bits, pixels.palette).rows()
    else:
        height, width, samples = pixels.shape
        bits = {1: 8, 2: 32, 3: 24, 4: 32}[samples]
        if samples == 1:
            palette = _gray(256)
        rows = pixels[..., {1: [0], 2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples]]
        rows = rows.reshape(height, -1)
    body = np.pad(rows[::-1], ((0, 0), (0, -rows.shape[1] % 4))).tobytes()
    has_alpha = bits == 32
    # Readers find alpha by its mask, which only headers from version 4 on have; a profile needs version 5.
    size = _V5 if icc is not None else _V4 if has_alpha else _V3
    across, down = (min(pels, _MOST_PELS) for pels in per_metre or (0, 0))
    offset = 14 + size + 4 * len(palette)
    header = struct.pack(
        "<LllHHLLllLL",
        *(size, width, height, 1, bits, 3 if has_alpha else 0),
        *(len(body), across, down, len(palette), 0),
    )
    if size > _V3:
        masks = _MASKS if has_alpha else (0, 0, 0, 0)
        header += struct.pack("<4L4s", *masks, b"BGRs" if icc is None else b"DEBM") + bytes(48)
    if icc is not None:
        header += struct.pack("<4L", 4, size + 4 * len(palette) + len(body), len(icc), 0)  # 4: images
    colours = np.zeros((len(palette), 4), np.uint8)
    colours[:, :3] = palette[:, 2::-1]
    file_size = offset + len(body) + len(icc or b"")
    head = struct.pack("<2sLLL", b"BM", file_size, 0, offset)
    return b"".join([head, header, colours.tobytes(), body, icc or b""])


def _gray(levels: int) -> NDArray[np.uint8]:
    ramp = np.linspace(0, 255, levels).round().astype(np.uint8)
    return np.repeat(ramp[:, None], 3, axis=1)
