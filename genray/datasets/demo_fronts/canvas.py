"""Canvas on which building fronts are painted, with its lighting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genray.images.pixels import Pixels

PALETTE: dict[str, tuple[int, int, int]] = {
    "sky": (0, 0, 170),
    "wall": (0, 0, 255),
    "window": (0, 85, 255),
    "door": (0, 170, 255),
    "cornice": (0, 255, 255),
    "sill": (85, 255, 170),
    "balcony": (170, 255, 85),
    "blind": (255, 255, 0),
    "deco": (255, 170, 0),
    "shutter": (255, 85, 0),
    "pillar": (255, 0, 0),
    "shop": (170, 0, 0),
    "roof": (170, 0, 170),
    "ground": (85, 85, 85),
}
"""Colour of each kind of part in a label map."""

PART_NUMBER = {name: number for number, name in enumerate(PALETTE)}
_COLOURS = np.array(list(PALETTE.values()), np.uint8)

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice]


def rgb(colour: str) -> Values:
    """Return the levels (3,), from 0 to 1, of a hexadecimal colour such as e0d9c7."""
    return np.array([level / 255 for level in bytes.fromhex(colour)], np.float32)


@dataclass(frozen=True)
class Style:
    """Style common to the parts of one building. Colours are (3,), from 0 to 1."""

    material: str
    curtains: float
    wall: Values
    wood: Values
    paint: Values
    roof: Values
    trim: Values
    frame: Values


def choose_style(rng: np.random.Generator) -> Style:
    """Choose a material, and colours that differ a little from building to building."""
    material = str(rng.choice(["brick", "plaster", "stone"]))
    plaster = str(rng.choice(["e6cc99", "e0b380", "dbb8a8", "d4d1b8"]))
    # The colours depend on the material; otherwise a network could only predict their grey mean.
    wall, wood, paint, roof = {
        "brick": ("9e5440", "335747", "2e3d66", "5c6673"),
        "plaster": (plaster, "456b66", "802b26", "a85c40"),
        "stone": ("b8a891", "6b4226", "264f40", "666b75"),
    }[material]

    def near(colour: str) -> Values:
        shift = rng.uniform(0.95, 1.05) + rng.uniform(-0.03, 0.03, 3)
        return np.clip(rgb(colour) * shift, 0, 1).astype(np.float32)

    colours = (near(colour) for colour in (wall, wood, paint, roof, "e0d9c7", "ebe8de"))
    return Style(material, float(rng.choice([0, 0.35, 0.5])), *colours)


class Canvas:
    """Square canvas, finer than the picture that is rendered from it.

    Positions, lengths and heights are shares of its side, from 0 to 1; y points down.

    Args:
        size: side of the picture in pixels.
        oversampling: points of the canvas along a pixel's side.
        style: style of the building.
        grain: random generator of texture.
    """

    def __init__(self, size: int, oversampling: int, style: Style, grain: np.random.Generator) -> None:
        self.size = size
        self.oversampling = oversampling
        self.side = size * oversampling
        self.style = style
        self.grain = grain
        self.parts = np.zeros((self.side, self.side), np.uint8)
        self.colour = np.zeros((self.side, self.side, 3), np.float32)
        self.height = np.zeros((self.side, self.side), np.float32)

    def box(self, left: float, top: float, right: float, bottom: float) -> Box:
        """Return the slices of a rectangle, snapped to pixels of the picture and at least one pixel wide."""

        def snap(low: float, high: float) -> slice:
            first = min(max(round(low * self.size), 0), self.size - 1)
            last = min(max(round(high * self.size), first + 1), self.size)
            return slice(first * self.oversampling, last * self.oversampling)

        return snap(top, bottom), snap(left, right)

    def centred(self, middle: float, half: float, top: float, bottom: float) -> Box:
        """Return the slices of the rectangle that extends `half` to each side of the middle."""
        return self.box(middle - half, top, middle + half, bottom)

    def fill(self, box: Box, part: str | None, colour: Values, height: Any, where: Any = True) -> None:
        """Paint the points `where` (h, w) of a box. Without a part the label map stays as it is."""
        np.copyto(self.colour[box], colour, where=where if where is True else where[..., None])
        np.copyto(self.height[box], height, where=where)
        if part is not None:
            np.copyto(self.parts[box], PART_NUMBER[part], where=where)

    def points(self, share: float) -> int:
        """Return the number of points of a length, at least one."""
        return max(1, round(share * self.side))

    def rows(self, box: Box, count: int) -> Values:
        """Return, for each row of a box, the index (h, 1) of its row among `count` rows on the canvas, and
        the depth within it."""
        return np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None] * np.float32(count / self.side)

    def cells(self, box: Box, rows: int, columns: int, gap: float, spread: float) -> tuple[Values, Mask]:
        """Return staggered bricks, stones or tiles: the tone of each point (h, w), and a mask of the
        joints."""
        y = self.rows(box, rows)
        row = y.astype(np.intp)
        x = np.arange(box[1].start, box[1].stop, dtype=np.float32) * np.float32(columns / self.side)
        x = x + (row % 2).astype(np.float32) / 2
        column = x.astype(np.intp)
        tones = self.grain.uniform(1 - spread, 1 + spread, (rows + 1, columns + 2)).astype(np.float32)
        return tones[row, column], (x - column < gap * columns / rows) | (y - row < gap)

    def clouds(self, rows: int, columns: int) -> Values:
        """Return a smooth random field over the canvas, mostly from -1 to 1."""
        field = Image.fromarray(self.grain.normal(0, 0.5, (rows, columns)).astype(np.float32))
        return np.asarray(field.resize((self.side, self.side), Image.Resampling.BICUBIC))

    def label_map(self) -> Pixels:
        """Return the colours of the parts, (size, size, 3)."""
        middle = slice(self.oversampling // 2, None, self.oversampling)
        return _COLOURS[self.parts[middle, middle]]

    def photo(self, sun: int) -> Pixels:
        """Return the picture, lit from the upper left (1) or the upper right (-1)."""
        height = self.height
        step = max(1, self.side // 256)
        edge = np.zeros_like(height)
        edge[step:] += 13 * (height[step:] - height[:-step])
        edge[:, step:] += 6 * sun * (height[:, step:] - height[:, :-step])
        horizon = height.copy()
        for reach in range(1, 10):
            down = self.points(0.004 * reach)
            along = self.points(0.0022 * reach)
            here, there = (slice(along, None), slice(-along))[::sun]
            np.maximum(horizon[down:, here], height[:-down, there] - 0.003 * reach, out=horizon[down:, here])
        light = (1 + np.clip(edge, -0.3, 0.25)) * (1 - 0.42 * np.clip((horizon - height) * 150, 0, 1))
        light *= np.linspace(1.06, 0.92, self.side, dtype=np.float32)[:, None]
        light[self.parts == PART_NUMBER["sky"]] = 1
        finer = np.clip(self.colour * (light * 255)[..., None], 0, 255).astype(np.uint8)
        picture = np.asarray(Image.fromarray(finer).reduce(self.oversampling), np.float32)
        noise = self.grain.standard_normal((self.size, self.size, 1), np.float32)
        return np.clip(picture * (1 + 0.012 * noise), 0, 255).astype(np.uint8)


def across(box: Box) -> tuple[Values, Values, int, int]:
    """Return the positions along a box of its rows (h, 1) and columns (1, w), from 0 to 1; then h and w."""
    rows, columns = (part.stop - part.start for part in box)
    down = (np.arange(rows, dtype=np.float32) + 0.5) / rows
    along = (np.arange(columns, dtype=np.float32) + 0.5) / columns
    return down[:, None], along[None], rows, columns


def arch(box: Box, rise: float) -> Mask:
    """Return a mask of the points of a box under an arch that rises by `rise` widths (0: all points)."""
    down, along, rows, columns = across(box)
    top = max(rise * columns / rows, 1e-6)
    return np.asarray((2 * along - 1) ** 2 + (np.maximum(top - down, 0) / top) ** 2 <= 1)


def mix(first: Values, second: Values, share: Values) -> Values:
    """Return colours (h, w, 3) between the first and the second, mixed by the share (h, w) from 0 to 1."""
    return first + (second - first) * share[..., None]
