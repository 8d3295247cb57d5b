"""Pixels of few colours or levels, stored as a palette or in less than 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_COLOURS = 256
_ALL_COLOURS = 2**24
_MANY_PIXELS = 2**20  # above which a table of all colours is faster than sorting, up to five times
_PROBED = 4096  # pixels that are looked at first, to give up early


@dataclass(frozen=True)
class Indexed:
    """Pixels as numbers of colours, or as levels of gray of less than 8 bits.

    Args:
        numbers: (H, W) uint8, less than 2**bits.
        bits: 1, 2, 4 or 8.
        palette: (N, 3 or 4) uint8, with alpha if there are 4 (None: the numbers are levels of gray).
    """

    numbers: NDArray[np.uint8]
    bits: int
    palette: NDArray[np.uint8] | None

    def rows(self) -> NDArray[np.uint8]:
        """Return the rows, (H, bytes) uint8, each padded to whole bytes."""
        if self.bits == 8:
            return self.numbers
        bits = np.unpackbits(self.numbers[..., None], axis=2)[..., 8 - self.bits :]
        return np.packbits(bits.reshape(len(bits), -1), axis=1)


def with_palette(planes: NDArray[Any], palette: NDArray[np.uint8]) -> Indexed | None:
    """Store pixels as a palette, if they have at most 256 colours.

    Args:
        planes: (H, W, 3 or 4) uint8, with alpha if there are 4.
        palette: palette of the input, which is kept if it has all colours; else it is made of the colours,
            in the order of their values.

    Returns:
        None if there are more colours.
    """
    if planes.dtype != np.uint8 or planes.shape[2] < 3:
        return None
    colours = _as_numbers(planes)
    if len(np.unique(colours.reshape(-1)[:: max(1, colours.size // _PROBED)])) > _MOST_COLOURS:
        return None
    by_table = planes.shape[2] == 3 and colours.size > _MANY_PIXELS
    used = _used(colours) if by_table else np.unique(colours)
    if len(used) > _MOST_COLOURS:
        return None
    known, first = np.unique(_as_numbers(_with_alpha(palette, planes.shape[2])[None])[0], return_index=True)
    if np.isin(used, known).all():
        places = first[np.searchsorted(known, used)]
        bits = _bits_for(len(palette))
        chosen = _with_alpha(palette, planes.shape[2])
    else:
        places = np.arange(len(used))
        bits = _bits_for(len(used))
        chosen = used.astype("<u4").view(np.uint8).reshape(-1, 4)[:, : planes.shape[2]]
    numbers = places.astype(np.uint8)
    if by_table:
        table = np.zeros(_ALL_COLOURS, np.uint8)
        table[used] = numbers
        numbers = table[colours]
    else:
        numbers = numbers[np.searchsorted(used, colours)]
    return Indexed(numbers, bits, np.ascontiguousarray(chosen))


def with_few_bits(planes: NDArray[Any], bits: int) -> Indexed | None:
    """Store gray pixels in 1, 2 or 4 bits; None if a pixel has a level in between.

    Args:
        planes: (H, W, 1) uint8.
        bits: bits of the input.
    """
    if planes.dtype != np.uint8 or planes.shape[2] != 1:
        return None
    numbers, rest = np.divmod(planes[..., 0], np.uint8(255 // (2**bits - 1)))
    return None if rest.any() else Indexed(numbers, bits, None)


def _used(colours: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the colours that are there, each once, in order."""
    seen = np.zeros(_ALL_COLOURS, np.bool_)
    seen[colours] = True
    return np.flatnonzero(seen).astype(np.uint32)


def _as_numbers(planes: NDArray[np.uint8]) -> NDArray[np.uint32]:
    padded = np.zeros((*planes.shape[:2], 4), np.uint8)
    padded[..., : planes.shape[2]] = planes
    return padded.view("<u4")[..., 0]


def _with_alpha(palette: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    if palette.shape[1] >= channels:
        return palette[:, :channels]
    return np.hstack([palette, np.full((len(palette), 1), 255, np.uint8)])


def _bits_for(colours: int) -> int:
    return next(bits for bits in (1, 2, 4, 8) if colours <= 2**bits)
