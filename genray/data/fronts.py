"""Building fronts drawn from a seed: a label map, and the photo-like picture that belongs to it.

They stand in for the CMP facades where nothing may be downloaded: in `make demo` and in tests. What
a label map leaves open (hues, the side the sun is on, curtains) varies little; what it shows (how many
stories, bays and parts there are, and where) varies a lot. So a network that reads the map beats one
that always gives the mean picture. What a wall is made of can be read too: plaster has shutters, stone
has pillars, brick has neither.

A front is painted on a finer grid than the picture's, as a colour and a height above the wall for each
point. The sun then works on the heights, which gives every ledge its light edge and its shadow.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genray.errors import DataError, UsageError
from genray.files import atomic_write

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
"""The colour of each kind of part in a label map."""

SMALLEST, LARGEST = 32, 1024

_ID = {name: number for number, name in enumerate(PALETTE)}
_COLOURS = np.array(list(PALETTE.values()), np.uint8)

Pixels = NDArray[np.uint8]
Values = NDArray[np.float32]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice]


def building_front(seed: int, index: int, size: int = 256) -> tuple[Pixels, Pixels]:
    """Draw the front number `index` of a seed. The same arguments always give the same pair.

    Another size gives the same building, seen finer or coarser.

    Returns:
        The photo and its label map, each (size, size, 3). The map has only colours of `PALETTE`.

    Raises:
        UsageError: the size is not from 32 to 1024, or a number is negative.
    """
    if not SMALLEST <= size <= LARGEST:
        raise UsageError(
            f"no fronts of size {size}", hint=f"ask for a size from {SMALLEST} to {LARGEST} pixels"
        )
    if seed < 0 or index < 0:
        raise UsageError(f"no front {index} of seed {seed}", hint="give numbers from 0 up")
    fine = 4 if size <= 64 else 2 if size <= 256 else 1
    # The size must not change the building, so what is drawn for each pixel has numbers of its own.
    rng = np.random.default_rng([seed, index])
    canvas = _Canvas(size, fine, _style(rng), np.random.default_rng([seed, index, 1]))
    _build(canvas, rng)
    return canvas.photo(sun=int(rng.choice([-1, 1]))), canvas.label()


def write_fronts(root: Path, *, count: int, size: int = 256, seed: int = 0, val_share: float = 0.1) -> Path:
    """Write `count` fronts as files of a photo (left) and its label map (right), and return `root`.

    They go to `root/train` and `root/val` as 00000.png and so on: the layout of the CMP facades, so the
    direction of the task is BtoA. The same arguments give the same bytes again.

    Args:
        root: the folder, which may exist.
        count: how many files in all, at least 2: both parts get one or more.
        val_share: the share of them that goes to `val`, between 0 and 1.

    Raises:
        UsageError: the count, size, seed or share cannot work.
        DataError: `root` is a file, or holds files that this call would not write.
        StorageFull: no room was left.
    """
    if count < 2:
        raise UsageError(f"cannot split {count} fronts into train and val", hint="ask for 2 or more")
    if not 0 < val_share < 1:
        raise UsageError(f"cannot give a share of {val_share} to val", hint="give one like 0.1")
    if seed < 0 or not SMALLEST <= size <= LARGEST:
        building_front(seed, 0, size)  # Says what is wrong before anything is written.
    held_out = min(max(round(count * val_share), 1), count - 1)
    split = {"train": count - held_out, "val": held_out}
    for place in (root / "train", root / "val", root, *root.parents):
        if place.exists() and not place.is_dir():
            raise DataError("a file is where fronts should go", where=str(place), hint="name another folder")
    for part, number in split.items():
        expected = {f"{k:05}.png" for k in range(number)}
        # A reader takes every image of a folder, so another data set's would silently join this one.
        if others := sorted({p.name for p in root.glob(f"{part}/[!.]*")} - expected):
            what = f"{len(others)} files there do not belong to these {count} fronts, like {others[0]}"
            raise DataError(what, where=str(root / part), hint="name an empty folder, or remove them")
    index = 0
    for part, number in split.items():
        for k in range(number):
            pair = Image.fromarray(np.concatenate(building_front(seed, index, size), axis=1))
            with atomic_write(root / part / f"{k:05}.png") as temporary:
                pair.save(temporary, format="PNG", compress_level=1)
            index += 1
    return root


def _rgb(colour: str) -> Values:
    """The levels (3,), from 0 to 1, of a colour written like e0d9c7."""
    return np.array([level / 255 for level in bytes.fromhex(colour)], np.float32)


@dataclass(frozen=True)
class _Style:
    """What the parts of one building have in common. Colours are (3,), from 0 to 1."""

    material: str
    curtains: float
    wall: Values
    wood: Values
    paint: Values
    roof: Values
    trim: Values
    frame: Values


def _style(rng: np.random.Generator) -> _Style:
    material = str(rng.choice(["brick", "plaster", "stone"]))
    plaster = str(rng.choice(["e6cc99", "e0b380", "dbb8a8", "d4d1b8"]))
    # The colours go with the material. Else a network could only guess them, and would give a grey mean.
    wall, wood, paint, roof = {
        "brick": ("9e5440", "335747", "2e3d66", "5c6673"),
        "plaster": (plaster, "456b66", "802b26", "a85c40"),
        "stone": ("b8a891", "6b4226", "264f40", "666b75"),
    }[material]

    def near(colour: str) -> Values:
        shift = rng.uniform(0.95, 1.05) + rng.uniform(-0.03, 0.03, 3)
        return np.clip(_rgb(colour) * shift, 0, 1).astype(np.float32)

    colours = (near(colour) for colour in (wall, wood, paint, roof, "e0d9c7", "ebe8de"))
    return _Style(material, float(rng.choice([0, 0.35, 0.5])), *colours)


class _Canvas:
    """A square being painted, `fine` times finer than the picture that comes out of it.

    Places and lengths are shares of its side, from 0 to 1; y points down. Heights are such shares too.
    """

    def __init__(self, size: int, fine: int, style: _Style, grain: np.random.Generator) -> None:
        self.size, self.fine, self.side = size, fine, size * fine
        self.style, self.grain = style, grain
        self.parts = np.zeros((self.side, self.side), np.uint8)
        self.colour = np.zeros((self.side, self.side, 3), np.float32)
        self.height = np.zeros((self.side, self.side), np.float32)

    def box(self, left: float, top: float, right: float, bottom: float) -> Box:
        """The slices of a rectangle. It is snapped to pixels of the picture, and at least one wide."""

        def snap(low: float, high: float) -> slice:
            first = min(max(round(low * self.size), 0), self.size - 1)
            last = min(max(round(high * self.size), first + 1), self.size)
            return slice(first * self.fine, last * self.fine)

        return snap(top, bottom), snap(left, right)

    def about(self, middle: float, half: float, top: float, bottom: float) -> Box:
        """The rectangle that reaches `half` to each side of the middle."""
        return self.box(middle - half, top, middle + half, bottom)

    def fill(self, box: Box, part: str | None, colour: Values, height: Any, where: Any = True) -> None:
        """Paint the points of a box that `where` (h, w) names. Without a part the label map is left."""
        np.copyto(self.colour[box], colour, where=where if where is True else where[..., None])
        np.copyto(self.height[box], height, where=where)
        if part is not None:
            np.copyto(self.parts[box], _ID[part], where=where)

    def points(self, share: float) -> int:
        return max(1, round(share * self.side))

    def rows(self, box: Box, count: int) -> Values:
        """Which of `count` rows on the canvas each row of a box is in (h, 1), and how far down it."""
        return np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None] * np.float32(count / self.side)

    def cells(self, box: Box, rows: int, columns: int, gap: float, spread: float) -> tuple[Values, Mask]:
        """Staggered bricks, stones or tiles: the tone of each point (h, w), and where the joints are."""
        y = self.rows(box, rows)
        row = y.astype(np.intp)
        x = np.arange(box[1].start, box[1].stop, dtype=np.float32) * np.float32(columns / self.side)
        x = x + (row % 2).astype(np.float32) / 2
        column = x.astype(np.intp)
        tones = self.grain.uniform(1 - spread, 1 + spread, (rows + 1, columns + 2)).astype(np.float32)
        return tones[row, column], (x - column < gap * columns / rows) | (y - row < gap)

    def clouds(self, rows: int, columns: int) -> Values:
        """A smooth random field over the canvas, mostly from -1 to 1."""
        field = Image.fromarray(self.grain.normal(0, 0.5, (rows, columns)).astype(np.float32))
        return np.asarray(field.resize((self.side, self.side), Image.Resampling.BICUBIC))

    def label(self) -> Pixels:
        middle = slice(self.fine // 2, None, self.fine)
        return _COLOURS[self.parts[middle, middle]]

    def photo(self, sun: int) -> Pixels:
        """The picture, with the sun at the upper left (1) or the upper right (-1)."""
        height, step = self.height, max(1, self.side // 256)
        edge = np.zeros_like(height)
        edge[step:] += 13 * (height[step:] - height[:-step])
        edge[:, step:] += 6 * sun * (height[:, step:] - height[:, :-step])
        horizon = height.copy()
        for reach in range(1, 10):
            down, along = self.points(0.004 * reach), self.points(0.0022 * reach)
            here, there = (slice(along, None), slice(-along))[::sun]
            np.maximum(horizon[down:, here], height[:-down, there] - 0.003 * reach, out=horizon[down:, here])
        light = (1 + np.clip(edge, -0.3, 0.25)) * (1 - 0.42 * np.clip((horizon - height) * 150, 0, 1))
        light *= np.linspace(1.06, 0.92, self.side, dtype=np.float32)[:, None]
        light[self.parts == _ID["sky"]] = 1
        finer = np.clip(self.colour * (light * 255)[..., None], 0, 255).astype(np.uint8)
        picture = np.asarray(Image.fromarray(finer).reduce(self.fine), np.float32)
        noise = self.grain.standard_normal((self.size, self.size, 1), np.float32)
        return np.clip(picture * (1 + 0.012 * noise), 0, 255).astype(np.uint8)


def _across(box: Box) -> tuple[Values, Values, int, int]:
    """How far each row (h, 1) and column (1, w) of a box is along it, from 0 to 1; then h and w."""
    rows, columns = (part.stop - part.start for part in box)
    down = (np.arange(rows, dtype=np.float32) + 0.5) / rows
    along = (np.arange(columns, dtype=np.float32) + 0.5) / columns
    return down[:, None], along[None], rows, columns


def _arch(box: Box, rise: float) -> Mask:
    """The points of a box under an arch that rises by `rise` widths; all of them where it is 0."""
    down, along, rows, columns = _across(box)
    top = max(rise * columns / rows, 1e-6)
    return np.asarray((2 * along - 1) ** 2 + (np.maximum(top - down, 0) / top) ** 2 <= 1)


def _mix(first: Values, second: Values, share: Values) -> Values:
    """Colours (h, w, 3) that go from the first to the second as the share (h, w) goes from 0 to 1."""
    return first + (second - first) * share[..., None]


def _wall(canvas: _Canvas) -> None:
    box, wall = canvas.box(0, 0, 1, 1), canvas.style.wall
    stains = 1 + 0.05 * canvas.clouds(7, 7) + 0.03 * canvas.clouds(5, 48)
    if canvas.style.material == "plaster":
        canvas.fill(box, "wall", wall * (stains + 0.03 * canvas.clouds(90, 90))[..., None], 0)
        return
    brick = canvas.style.material == "brick"
    tone, joint = canvas.cells(box, 64, 24, 0.24, 0.16) if brick else canvas.cells(box, 20, 9, 0.08, 0.06)
    canvas.fill(box, "wall", wall * (tone * stains)[..., None], 0)
    canvas.fill(box, None, _rgb("b2a899") if brick else wall * 0.75, -0.001, joint)


def _sky(canvas: _Canvas, boxes: list[Box]) -> None:
    clouds = np.clip(canvas.clouds(9, 5) * 0.6, 0, 0.5)
    for box in boxes:
        blue = _mix(_rgb("5c8fd6"), _rgb("ccdef0"), np.clip(canvas.rows(box, 1) * 1.6, 0, 1))
        canvas.fill(box, "sky", _mix(blue, _rgb("f2f2f5"), clouds[box]), -0.05)


def _pavement(canvas: _Canvas, box: Box) -> None:
    tone, joint = canvas.cells(box, 50, 11, 0.1, 0.05)
    canvas.fill(box, "ground", _rgb("807d78") * tone[..., None], -0.02)
    canvas.fill(box, None, _rgb("666361"), -0.02, joint)


def _roof(canvas: _Canvas, box: Box, slope: float) -> None:
    down, along, _, _ = _across(box)
    tone, joint = canvas.cells(box, 50, 50, 0.14, 0.12)
    shade = tone * (0.8 + 0.3 * (canvas.rows(box, 50) % 1)) * (1 - np.float32(0.25) * joint)
    inside = np.minimum(along, 1 - along) >= slope * (1 - down)
    canvas.fill(box, "roof", canvas.style.roof * shade[..., None], -0.008, inside)


def _ledge(canvas: _Canvas, part: str, box: Box, out: float, teeth: bool = False) -> None:
    """A cornice, a lintel or a sill: it stands out most at its top."""
    down, along, _, columns = _across(box)
    trim = canvas.style.trim
    canvas.fill(box, part, _mix(trim, trim * 0.84, down), out * (1 - 0.25 * np.floor(down * 3)))
    if teeth:
        gaps = (along * columns * (60 / canvas.side) % 1 < 0.5) & (np.abs(down - 0.7) < 0.18)
        canvas.fill(box, None, trim * 0.6, out * 0.2, gaps)


def _gable(canvas: _Canvas, box: Box) -> None:
    """A flat triangle over a window, with a raised edge."""
    down, along, rows, _ = _across(box)
    depth = (down - np.abs(2 * along - 1)) * rows
    canvas.fill(box, "deco", canvas.style.trim * 0.92, 0.003, depth >= 0)
    rim = (depth < canvas.points(0.007)) | ((1 - down) * rows < canvas.points(0.005))
    canvas.fill(box, None, canvas.style.trim, 0.012, rim & (depth >= 0))


def _pillar(canvas: _Canvas, box: Box) -> None:
    """A flat pillar with two flutes, between a plain head and foot."""
    down, along, rows, _ = _across(box)
    plain = np.minimum(down, 1 - down) * rows < canvas.points(0.03)
    shade = 1 - np.float32(0.16) * (0.5 + 0.5 * np.cos(along * 6 * np.float32(np.pi))) * ~plain
    canvas.fill(box, "pillar", canvas.style.trim * shade[..., None], np.where(plain, 0.012, 0.007))


def _glass(canvas: _Canvas, box: Box, curtains: float = 0) -> Values:
    """Panes (h, w, 3): the sky above, the street below, a bright streak across."""
    down, along, rows, columns = _across(box)
    panes = _mix(_rgb("8fadc9"), _rgb("26303b"), np.clip(down * 1.25, 0, 1))
    streak = np.clip(1 - np.abs(down * (0.7 * rows / columns) + along - 0.95) * 6, 0, 0.4)
    panes = _mix(panes, _rgb("d1e0ed"), streak)
    if curtains:
        drawn = np.clip((np.abs(2 * along - 1) - 1 + curtains) * 8, 0, 1)
        folds = np.float32(0.5) + np.float32(0.2) * np.sin(along * 40)
        panes = _mix(panes, _rgb("dbd6c7"), drawn * folds)
    return panes


def _window(canvas: _Canvas, box: Box, rise: float) -> None:
    down, along, rows, columns = _across(box)
    line, edge = canvas.points(0.0055), canvas.points(0.008)
    sides = slice(max(box[1].start - edge, 0), min(box[1].stop + edge, canvas.side))
    casing = (slice(max(box[0].start - edge, 0), box[0].stop), sides)
    # The label map calls a casing wall, so it must not cover a shutter or a pillar.
    free = _arch(casing, rise) & (canvas.parts[casing] == _ID["wall"])
    canvas.fill(casing, None, canvas.style.trim, 0.004, free)
    frame = np.ones((rows, columns), np.bool_)
    if min(rows, columns) > 2 * line:
        inner = (slice(line, rows - line), slice(line, columns - line))
        frame[inner] = ~_arch(inner, rise)
    # The bars follow from the shape: two wings under a light, or three where it is wide.
    for share in (1 / 3, 2 / 3) if columns > 0.8 * rows else (1 / 2,):
        frame |= np.abs(along - share) * columns <= line / 2
    frame |= np.abs(down * rows - (rise * columns if rise > 0.3 else 0.3 * rows)) <= line / 2
    inside = _arch(box, rise)
    canvas.fill(box, "window", _glass(canvas, box, canvas.style.curtains), -0.016, inside)
    canvas.fill(box, None, canvas.style.frame, -0.012, frame & inside)


def _slats(canvas: _Canvas, part: str, box: Box, colour: Values, out: float) -> None:
    """A shutter, or a blind: slats in a border, each lighter at its top."""
    down, along, rows, columns = _across(box)
    border = np.minimum(np.minimum(along, 1 - along) * columns, np.minimum(down, 1 - down) * rows)
    slat = np.float32(1.1) - np.float32(0.4) * (canvas.rows(box, 64) % 1)
    shade = np.where(border < canvas.points(0.006), np.float32(0.95), slat)
    canvas.fill(box, part, colour * shade[..., None], out)


def _door(canvas: _Canvas, box: Box) -> None:
    """Panels of wood under a light, in one wing or two."""
    down, along, rows, columns = _across(box)
    x, y = along * (2 if columns > 0.5 * rows else 1) % 1, (down - 0.2) / 0.8 * 2.5 % 1
    leaf = down > 0.2
    panel = (np.abs(x - 0.5) < 0.32) & (np.abs(y - 0.5) < 0.36) & leaf
    tone = canvas.grain.normal(1, 0.05, along.shape).astype(np.float32) * (1 - np.float32(0.2) * panel)
    canvas.fill(box, "door", canvas.style.wood * tone[..., None], np.where(panel, -0.014, -0.01))
    canvas.fill(box, None, _glass(canvas, box), -0.014, ~leaf & (np.abs(x - 0.5) < 0.42) & (down > 0.04))
    knob = (np.abs(along - 0.58) < 0.04) & (np.abs(down - 0.6) < 0.02)
    canvas.fill(box, None, _rgb("dbb85c"), -0.004, knob)


def _balcony(canvas: _Canvas, box: Box) -> None:
    """A railing that shows what is behind it, on a slab. It is of stone on stone fronts, else of iron."""
    down, along, _, columns = _across(box)
    stone = canvas.style.material == "stone"
    off = np.abs(along * max(4, round(columns / canvas.side * 50)) % 1 - 0.5)
    railing = (off < (0.24 + 0.12 * np.sin(down * 9) if stone else 0.16)) | (down < 0.14) | (down > 0.72)
    canvas.parts[box] = _ID["balcony"]
    colour, out = (canvas.style.trim * 0.95, 0.014) if stone else (_rgb("212429"), -0.004)
    canvas.fill(box, None, colour, out, railing)
    canvas.fill(box, None, canvas.style.trim * 0.97, 0.03, (down > 0.8) & (along >= 0))


def _shop(canvas: _Canvas, box: Box, name: float) -> None:
    """A shop front: a sign with a name of some length, panes, and a plinth."""
    down, along, rows, columns = _across(box)
    panes = max(1, round(columns / rows * 1.2))
    x = np.abs(along * panes % 1 - 0.5) * columns / panes
    canvas.fill(box, "shop", canvas.style.paint, np.where(down < 0.22, 0.012, 0.003))
    glass = (down > 0.28) & (down < 0.84) & (x < 0.5 * columns / panes - canvas.points(0.007))
    canvas.fill(box, None, _glass(canvas, box), -0.012, glass)
    off = np.abs(along - 0.5)
    letter = np.floor(off * columns / canvas.side * 100)
    ink = (letter < 4 + 8 * name) & (letter % 3 != 1) & (np.abs(down - 0.11) < 0.045) & (off < 0.4)
    canvas.fill(box, None, _rgb("ede0b8"), 0.013, ink)


def _awning(canvas: _Canvas, box: Box) -> None:
    down, along, _, columns = _across(box)
    stripe = np.floor(along * np.float32(max(4, round(columns / canvas.side * 40)))) % 2
    cloth = _mix(canvas.style.paint * 1.3, _rgb("ede8d9"), stripe)
    canvas.fill(box, "blind", cloth * (1.1 - 0.3 * down)[..., None], 0.015 + 0.03 * down)


@dataclass(frozen=True)
class _Plan:
    """Where the stories and bays of a building are. `edges` (bays + 1,) are the bays' sides."""

    left: float
    right: float
    eaves: float
    street: float
    story: float
    ground: float
    stories: int
    edges: NDArray[np.float64]

    def foot(self, floor: int) -> float:
        """The y of a story's floor; 0 is the one at the street."""
        return self.street - (self.story * (floor - 1) + self.ground if floor else 0)

    def bays(self) -> list[tuple[float, float]]:
        """The middle of each bay, and half its width."""
        return [(float(a + b) / 2, float(b - a) / 2) for a, b in pairwise(self.edges)]


def _plan(rng: np.random.Generator, margin: float) -> _Plan:
    left, right = (0.0, 1.0) if rng.random() < 0.35 else (rng.uniform(0.02, 0.2), rng.uniform(0.8, 0.98))
    street, eaves = rng.uniform(0.92, 0.97), rng.uniform(0.08, 0.34)
    stories = int(np.clip(round((street - eaves) / rng.uniform(0.14, 0.28)), 2, 6))
    taller = rng.uniform(1.0, 1.4)
    story = (street - eaves) / (stories - 1 + taller)
    inner = right - left - 2 * margin
    widths = np.ones(int(np.clip(round(inner / (story * rng.uniform(0.75, 1.2))), 2, 7)))
    if len(widths) % 2:
        widths[len(widths) // 2] = rng.uniform(1, 1.5)
    edges = left + margin + inner * np.concatenate([[0], np.cumsum(widths) / widths.sum()])
    return _Plan(left, right, eaves, street, story, story * taller, stories, edges)


def _build(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Decide where everything is, and paint it from the back to the front."""
    stone = canvas.style.material == "stone"
    plan = _plan(rng, 0.04 if stone else rng.uniform(0.01, 0.04))
    left, right, eaves, street = plan.left, plan.right, plan.eaves, plan.street
    _wall(canvas)
    besides = [canvas.box(0, 0, left, 1), canvas.box(right, 0, 1, 1)] if left else []
    _sky(canvas, [canvas.box(0, 0, 1, eaves), *besides])
    _pavement(canvas, canvas.box(0, street, 1, 1))
    canvas.fill(canvas.box(left, street - 0.02, right, street), None, canvas.style.trim * 0.62, 0.004)
    if eaves > 0.14 and rng.random() < 0.75:
        _attic(canvas, rng, plan)
    if stone:
        for line in plan.edges if rng.random() < 0.6 else plan.edges[[0, -1]]:
            _pillar(canvas, canvas.about(line, 0.014, eaves, street - 0.02))
    for floor in range(1, plan.stories if rng.random() < 0.6 else 2):
        y = plan.foot(floor)
        _ledge(canvas, "cornice", canvas.box(left, y - 0.006, right, y + 0.01), 0.012)
    top = canvas.box(left - 0.015, eaves - 0.006, right + 0.015, eaves + 0.024)
    _ledge(canvas, "cornice", top, 0.024, teeth=True)
    _openings(canvas, rng, plan)


def _attic(canvas: _Canvas, rng: np.random.Generator, plan: _Plan) -> None:
    """Paint the roof, its chimneys and dormers."""
    eaves, wall = plan.eaves, canvas.style.wall
    ridge = eaves - rng.uniform(0.07, min(0.2, eaves - 0.07))
    for x in rng.uniform(plan.left + 0.12, plan.right - 0.12, rng.integers(3)):
        canvas.fill(canvas.about(x, 0.022, ridge - 0.05, eaves), "wall", wall * 0.9, 0)
        _ledge(canvas, "cornice", canvas.about(x, 0.03, ridge - 0.055, ridge - 0.04), 0.01)
    dormers = eaves - ridge > 0.11 and rng.random() < 0.6
    # A dormer at the side would hang in the air where the roof slopes there.
    slope = 0.02 if dormers else float(rng.choice([0.02, 0.08, 0.2]))
    _roof(canvas, canvas.box(plan.left, ridge, plan.right, eaves), slope)
    for x, half in plan.bays()[int(rng.integers(2)) :: 2] if dormers else []:
        half = min(0.4 * half, 0.04)
        canvas.fill(canvas.about(x, half + 0.012, eaves - 0.09, eaves), "wall", wall, 0.01)
        _window(canvas, canvas.about(x, half, eaves - 0.075, eaves - 0.015), 0)
        _gable(canvas, canvas.about(x, half + 0.02, eaves - 0.12, eaves - 0.085))


def _openings(canvas: _Canvas, rng: np.random.Generator, plan: _Plan) -> None:
    """Paint the windows and what belongs to them, the door and the shops."""
    plaster, wood, bays = canvas.style.material == "plaster", canvas.style.wood * 1.1, plan.bays()
    share = rng.uniform(0.34, 0.44) if plaster else rng.uniform(0.4, 0.62)
    tall, rise = rng.uniform(0.5, 0.64), float(rng.choice([0, 0, 0.15, 0.5]))
    # Arches are on every story, on the first only, or under the roof only.
    arched = (range(plan.stories), [1], [plan.stories - 1])[rng.integers(3)]
    hood, balconies = rng.choice(["none", "lintel", "gable"]), rng.choice(["none", "middle", "row", "some"])
    shops, blinds, awnings = rng.random(3) < (0.5, 0.4, 0.6)
    entrance, sides = int(rng.integers(len(bays))), (len(bays) // 2, (len(bays) - 1) // 2)
    door = plan.street - 0.76 * plan.ground
    for floor in range(plan.stories):
        foot, bend = plan.foot(floor), rise if floor in arched else 0
        for bay, (x, reach) in enumerate(bays):
            half = min(share * reach, 0.31 * plan.story)
            state, drop = rng.random(2)
            if floor == 0 and bay == entrance:
                half = min(half * 1.1, 0.25 * plan.ground)
                _door(canvas, canvas.about(x, half, door, plan.street))
                _ledge(canvas, "deco", canvas.about(x, half + 0.015, door - 0.016, door), 0.016)
            if floor == 0 and (shops or bay == entrance):
                continue
            row = balconies == "row" and floor == 1
            some = (balconies == "middle" and bay in sides) or (balconies == "some" and (bay + floor) % 2)
            out = row or (some and floor > 0)
            low, high = foot - plan.story * (0.05 if out else 0.24), foot - plan.story * (0.24 + tall)
            window = canvas.about(x, half, high, low)
            _window(canvas, window, bend)
            if plaster and state < 0.15 and bay > 0:  # One bay stays open: every front shows a window.
                _slats(canvas, "shutter", window, wood, -0.004)
            elif plaster:
                for side in (x - 1.5 * half, x + 1.5 * half):
                    _slats(canvas, "shutter", canvas.about(side, half / 2, high, low), wood, 0.008)
            elif blinds and not bend and state < 0.6:
                lowered = canvas.about(x, half, high, high + (low - high) * (0.2 + 0.6 * drop))
                _slats(canvas, "blind", lowered, _rgb("d9ccad"), -0.008)
            if hood != "none" and not bend:
                _ledge(canvas, "deco", canvas.about(x, half + 0.014, high - 0.018, high - 0.003), 0.012)
                if hood == "gable" and floor == 1:
                    _gable(canvas, canvas.about(x, half + 0.014, high - 0.05, high - 0.016))
            if out:
                wide = reach if row else half + 0.02
                _balcony(canvas, canvas.about(x, wide, foot - 0.36 * plan.story, foot + 0.008))
            else:
                _ledge(canvas, "sill", canvas.about(x, half + 0.01, low, low + 0.013), 0.014)
    top = plan.street - 0.86 * plan.ground
    for first, last in ((0, entrance), (entrance + 1, len(bays))) if shops else ():
        if first < last:
            start, stop = plan.edges[first] + 0.015, plan.edges[last] - 0.015
            _shop(canvas, canvas.box(start, top, stop, plan.street), rng.random())
            if awnings:
                _awning(canvas, canvas.box(start, top + 0.19 * plan.ground, stop, top + 0.4 * plan.ground))
