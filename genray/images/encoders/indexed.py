"""Pixels of few colours or levels, stored as a palette or in less than 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_COLOURS = 256
_MOST_IN_TABLE = 2**24
_MANY_PIXELS = 2**20  # above which a table of all colours is faster than sorting
_TRIES = 100
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
    chosen = _with_alpha(palette, planes.shape[2])
    numbers = _places(colours, _as_numbers(chosen[None])[0])
    if numbers is None:
        if len(np.unique(colours.reshape(-1)[:: max(1, colours.size // _PROBED)])) > _MOST_COLOURS:
            return None
        used = _used(colours, all_colours=2 ** (8 * planes.shape[2]))
        if len(used) > _MOST_COLOURS:
            return None
        chosen = used.astype("<u4").view(np.uint8).reshape(-1, 4)[:, : planes.shape[2]]
        numbers = _places(colours, used)
        assert numbers is not None
    return Indexed(numbers, _bits_for(len(chosen)), np.ascontiguousarray(chosen))


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


def _places(colours: NDArray[np.uint32], palette: NDArray[np.uint32]) -> NDArray[np.uint8] | None:
    """Return the place of each colour in a palette of at most 256; None if one is not there.

    A table of hashes is several times as fast as a search in the sorted palette. A multiplier for which no
    two colours of the palette share a slot is found after a few tries.
    """
    known, places = np.unique(palette, return_index=True)
    if len(known) > _MOST_COLOURS:
        return None
    for multiplier in range(0x9E3779B1, 0x9E3779B1 + 2 * _TRIES, 2):
        slots = known * np.uint32(multiplier) >> np.uint32(16)
        if len(np.unique(slots)) == len(known):
            table = np.zeros(2**16, np.uint8)
            table[slots] = places
            numbers = table[colours * np.uint32(multiplier) >> np.uint32(16)]
            return numbers if np.array_equal(palette[numbers], colours) else None
    found = np.minimum(np.searchsorted(known, colours), len(known) - 1)
    return places.astype(np.uint8)[found] if np.array_equal(known[found], colours) else None


def _used(colours: NDArray[np.uint32], all_colours: int) -> NDArray[np.uint32]:
    """Return the colours that are there, each once, in order."""
    if all_colours > _MOST_IN_TABLE or colours.size < _MANY_PIXELS:
        return np.unique(colours)
    seen = np.zeros(all_colours, np.bool_)
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
