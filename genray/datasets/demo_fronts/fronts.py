"""Building fronts drawn from a seed: a label map, and the photo-like picture that belongs to it.

They replace the CMP facades where nothing may be downloaded: in `make demo` and in tests. What a label map
does not determine (hues, the side of the sun, curtains) varies little; what it shows (number and place of
stories, bays and parts) varies a lot, so that a network that uses the map beats the mean picture. The map
shows the material of a wall as well: plaster has shutters, stone has pillars, brick has neither.

A front is painted on a grid finer than the picture's, as a colour and a height above the wall for each point.
Lighting the heights gives every ledge its bright edge and its shadow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genray.datasets.demo_fronts import parts
from genray.datasets.demo_fronts.canvas import Canvas, choose_style, rgb
from genray.errors import DataError, UsageError
from genray.images.pixels import Pixels, save_png

_SMALLEST = 32
_LARGEST = 1024


def building_front(seed: int, index: int, size: int = 256) -> tuple[Pixels, Pixels]:
    """Draw front number `index` of a seed. The same arguments always give the same pair.

    Another size gives the same building at another resolution.

    Returns:
        The photo and its label map, each (size, size, 3). The map has only colours of `PALETTE`.

    Raises:
        UsageError: the size is not from 32 to 1024, or a number is negative.
    """
    _check(seed, index, size)
    # Texture has its own generator: its number of draws depends on the size, the building must not.
    rng = np.random.default_rng([seed, index])
    grain = np.random.default_rng([seed, index, 1])
    canvas = Canvas(size, _oversampling(size), choose_style(rng), grain)
    _paint_building(canvas, rng)
    return canvas.photo(sun=int(rng.choice([-1, 1]))), canvas.label_map()


def write_fronts(root: Path, *, count: int, size: int = 256, seed: int = 0, val_share: float = 0.1) -> Path:
    """Write `count` fronts as files of a photo (left) and its label map (right), and return `root`.

    Files are `root/train/00000.png` and so on, and `root/val`: the layout of the CMP facades, whose direction
    is BtoA. The same arguments give the same bytes.

    Args:
        root: folder to write to; may exist.
        count: number of files in all, at least 2; both parts get one at least.
        val_share: share of the files in `val`, between 0 and 1.

    Raises:
        UsageError: an impossible count, size, seed or share.
        DataError: `root` is a file, or contains files that this call would not write.
        StorageFull: no space is left.
    """
    if count < 2:
        raise UsageError(f"cannot split {count} fronts into train and val", hint="choose 2 or more")
    if not 0 < val_share < 1:
        raise UsageError(f"a share of {val_share} for val is impossible", hint="choose a share such as 0.1")
    _check(seed, 0, size)
    held_out = min(max(round(count * val_share), 1), count - 1)
    split = {"train": count - held_out, "val": held_out}
    _check_folders(root, split)
    index = 0
    for part, number in split.items():
        for k in range(number):
            pair = np.concatenate(building_front(seed, index, size), axis=1)
            save_png(root / part / f"{k:05}.png", pair)
            index += 1
    return root


def _check(seed: int, index: int, size: int) -> None:
    if not _SMALLEST <= size <= _LARGEST:
        raise UsageError(
            f"no fronts of size {size}", hint=f"choose a size from {_SMALLEST} to {_LARGEST} pixels"
        )
    if seed < 0 or index < 0:
        raise UsageError(f"no front {index} of seed {seed}", hint="choose numbers from 0 on")


def _check_folders(root: Path, split: Mapping[str, int]) -> None:
    for place in (*(root / part for part in split), root, *root.parents):
        if place.exists() and not place.is_dir():
            raise DataError("the output folder is a file", where=str(place), hint="name another folder")
    for part, number in split.items():
        expected = {f"{k:05}.png" for k in range(number)}
        # A training uses every image of a folder, those of another data set too.
        if others := sorted({path.name for path in root.glob(f"{part}/[!.]*")} - expected):
            message = f"{len(others)} files are not of these {sum(split.values())} fronts, such as "
            raise DataError(
                message + others[0], where=str(root / part), hint="name an empty folder, or remove them"
            )


def _oversampling(size: int) -> int:
    if size <= 64:
        return 4
    return 2 if size <= 256 else 1


@dataclass(frozen=True)
class _FrontPlan:
    """Positions of the stories and bays of a building. `edges` (bays + 1,) are the sides of the bays."""

    left: float
    right: float
    eaves: float
    street: float
    story: float
    ground: float
    stories: int
    edges: NDArray[np.float64]

    def foot(self, floor: int) -> float:
        """Return the y of a story's floor (0: the story at the street)."""
        return self.street - (self.story * (floor - 1) + self.ground if floor else 0)

    def bays(self) -> list[tuple[float, float]]:
        """Return the middle of each bay, and half its width."""
        return [(float(a + b) / 2, float(b - a) / 2) for a, b in pairwise(self.edges)]


def _draw_plan(rng: np.random.Generator, margin: float) -> _FrontPlan:
    left, right = (0.0, 1.0) if rng.random() < 0.35 else (rng.uniform(0.02, 0.2), rng.uniform(0.8, 0.98))
    street = rng.uniform(0.92, 0.97)
    eaves = rng.uniform(0.08, 0.34)
    stories = int(np.clip(round((street - eaves) / rng.uniform(0.14, 0.28)), 2, 6))
    taller = rng.uniform(1.0, 1.4)
    story = (street - eaves) / (stories - 1 + taller)
    inner = right - left - 2 * margin
    widths = np.ones(int(np.clip(round(inner / (story * rng.uniform(0.75, 1.2))), 2, 7)))
    if len(widths) % 2:
        widths[len(widths) // 2] = rng.uniform(1, 1.5)
    edges = left + margin + inner * np.concatenate([[0], np.cumsum(widths) / widths.sum()])
    return _FrontPlan(left, right, eaves, street, story, story * taller, stories, edges)


def _paint_building(canvas: Canvas, rng: np.random.Generator) -> None:
    """Plan a building, and paint it from back to front."""
    stone = canvas.style.material == "stone"
    plan = _draw_plan(rng, 0.04 if stone else rng.uniform(0.01, 0.04))
    left, right, eaves, street = plan.left, plan.right, plan.eaves, plan.street
    parts.wall(canvas)
    beside = [canvas.box(0, 0, left, 1), canvas.box(right, 0, 1, 1)] if left else []
    parts.sky(canvas, [canvas.box(0, 0, 1, eaves), *beside])
    parts.pavement(canvas, canvas.box(0, street, 1, 1))
    canvas.fill(canvas.box(left, street - 0.02, right, street), None, canvas.style.trim * 0.62, 0.004)
    if eaves > 0.14 and rng.random() < 0.75:
        _paint_attic(canvas, rng, plan)
    if stone:
        for line in plan.edges if rng.random() < 0.6 else plan.edges[[0, -1]]:
            parts.pillar(canvas, canvas.centred(line, 0.014, eaves, street - 0.02))
    for floor in range(1, plan.stories if rng.random() < 0.6 else 2):
        y = plan.foot(floor)
        parts.ledge(canvas, "cornice", canvas.box(left, y - 0.006, right, y + 0.01), 0.012)
    top = canvas.box(left - 0.015, eaves - 0.006, right + 0.015, eaves + 0.024)
    parts.ledge(canvas, "cornice", top, 0.024, teeth=True)
    _paint_openings(canvas, rng, plan)


def _paint_attic(canvas: Canvas, rng: np.random.Generator, plan: _FrontPlan) -> None:
    """Paint the roof, its chimneys and dormers."""
    eaves, wall = plan.eaves, canvas.style.wall
    ridge = eaves - rng.uniform(0.07, min(0.2, eaves - 0.07))
    for x in rng.uniform(plan.left + 0.12, plan.right - 0.12, rng.integers(3)):
        canvas.fill(canvas.centred(x, 0.022, ridge - 0.05, eaves), "wall", wall * 0.9, 0)
        parts.ledge(canvas, "cornice", canvas.centred(x, 0.03, ridge - 0.055, ridge - 0.04), 0.01)
    dormers = eaves - ridge > 0.11 and rng.random() < 0.6
    # The roof slopes at its sides: a dormer there would float.
    slope = 0.02 if dormers else float(rng.choice([0.02, 0.08, 0.2]))
    parts.roof(canvas, canvas.box(plan.left, ridge, plan.right, eaves), slope)
    if not dormers:
        return
    for x, reach in plan.bays()[int(rng.integers(2)) :: 2]:
        half = min(0.4 * reach, 0.04)
        canvas.fill(canvas.centred(x, half + 0.012, eaves - 0.09, eaves), "wall", wall, 0.01)
        parts.window(canvas, canvas.centred(x, half, eaves - 0.075, eaves - 0.015), 0)
        parts.gable(canvas, canvas.centred(x, half + 0.02, eaves - 0.12, eaves - 0.085))


@dataclass(frozen=True)
class _Openings:
    """Style common to the windows, doors and shops of a building.

    Attributes:
        width: width of a window as a share of its bay.
        height: height of a window as a share of its story.
        rise: rise of a window's arch, in widths.
        arched: stories whose windows have an arch.
        hood: part above windows without an arch (none, lintel, gable).
        balconies: placement of balconies (none, middle, row, some).
        shops, blinds, awnings: true if the building has them.
        entrance: index of the bay with the door.
    """

    width: float
    height: float
    rise: float
    arched: Sequence[int]
    hood: str
    balconies: str
    shops: bool
    blinds: bool
    awnings: bool
    entrance: int

    def has_balcony(self, floor: int, bay: int, bays: int) -> bool:
        """Return whether a window has a balcony; `row` extends over the whole first story."""
        if floor == 0:
            return False
        if self.balconies == "row":
            return floor == 1
        if self.balconies == "middle":
            return bay in (bays // 2, (bays - 1) // 2)
        return self.balconies == "some" and (bay + floor) % 2 == 1


def _draw_openings(rng: np.random.Generator, plan: _FrontPlan, *, plaster: bool) -> _Openings:
    width = rng.uniform(0.34, 0.44) if plaster else rng.uniform(0.4, 0.62)
    height = rng.uniform(0.5, 0.64)
    rise = float(rng.choice([0, 0, 0.15, 0.5]))
    # Arches are on every story, on the first only, or under the roof only.
    arched = (range(plan.stories), [1], [plan.stories - 1])[rng.integers(3)]
    hood = str(rng.choice(["none", "lintel", "gable"]))
    balconies = str(rng.choice(["none", "middle", "row", "some"]))
    shops, blinds, awnings = (rng.random(3) < (0.5, 0.4, 0.6)).tolist()
    entrance = int(rng.integers(len(plan.bays())))
    return _Openings(width, height, rise, arched, hood, balconies, shops, blinds, awnings, entrance)


def _paint_openings(canvas: Canvas, rng: np.random.Generator, plan: _FrontPlan) -> None:
    """Paint the windows with their parts, the door and the shops."""
    openings = _draw_openings(rng, plan, plaster=canvas.style.material == "plaster")
    for floor in range(plan.stories):
        for bay, (x, reach) in enumerate(plan.bays()):
            half = min(openings.width * reach, 0.31 * plan.story)
            state, drop = rng.random(2)
            if floor == 0 and bay == openings.entrance:
                _paint_entrance(canvas, plan, x, half)
            elif floor > 0 or not openings.shops:
                _paint_window(canvas, plan, openings, floor, bay, half, state, drop)
    if openings.shops:
        _paint_shops(canvas, rng, plan, openings)


def _paint_entrance(canvas: Canvas, plan: _FrontPlan, x: float, half: float) -> None:
    top = plan.street - 0.76 * plan.ground
    half = min(half * 1.1, 0.25 * plan.ground)
    parts.door(canvas, canvas.centred(x, half, top, plan.street))
    parts.ledge(canvas, "deco", canvas.centred(x, half + 0.015, top - 0.016, top), 0.016)


def _paint_window(
    canvas: Canvas,
    plan: _FrontPlan,
    openings: _Openings,
    floor: int,
    bay: int,
    half: float,
    state: float,
    drop: float,
) -> None:
    """Paint a window that extends `half` to each side, with its cover, hood, and sill or balcony.

    `state` and `drop`, from 0 to 1, determine whether the window is covered, and how far."""
    x, reach = plan.bays()[bay]
    foot = plan.foot(floor)
    balcony = openings.has_balcony(floor, bay, len(plan.bays()))
    low = foot - plan.story * (0.05 if balcony else 0.24)
    high = foot - plan.story * (0.24 + openings.height)
    rise = openings.rise if floor in openings.arched else 0
    box = canvas.centred(x, half, high, low)
    parts.window(canvas, box, rise)
    wood = canvas.style.wood * 1.1
    if canvas.style.material == "plaster":
        if state < 0.15 and bay > 0:  # at least one bay stays a window
            parts.slats(canvas, "shutter", box, wood, -0.004)
        else:
            for side in (x - 1.5 * half, x + 1.5 * half):
                parts.slats(canvas, "shutter", canvas.centred(side, half / 2, high, low), wood, 0.008)
    elif openings.blinds and not rise and state < 0.6:
        lowered = canvas.centred(x, half, high, high + (low - high) * (0.2 + 0.6 * drop))
        parts.slats(canvas, "blind", lowered, rgb("d9ccad"), -0.008)
    if openings.hood != "none" and not rise:
        parts.ledge(canvas, "deco", canvas.centred(x, half + 0.014, high - 0.018, high - 0.003), 0.012)
        if openings.hood == "gable" and floor == 1:
            parts.gable(canvas, canvas.centred(x, half + 0.014, high - 0.05, high - 0.016))
    if balcony:
        wide = reach if openings.balconies == "row" else half + 0.02
        parts.balcony(canvas, canvas.centred(x, wide, foot - 0.36 * plan.story, foot + 0.008))
    else:
        parts.ledge(canvas, "sill", canvas.centred(x, half + 0.01, low, low + 0.013), 0.014)


def _paint_shops(canvas: Canvas, rng: np.random.Generator, plan: _FrontPlan, openings: _Openings) -> None:
    """Paint a shop on each side of the entrance."""
    top = plan.street - 0.86 * plan.ground
    for first, last in ((0, openings.entrance), (openings.entrance + 1, len(plan.bays()))):
        if first == last:
            continue
        start, stop = plan.edges[first] + 0.015, plan.edges[last] - 0.015
        parts.shop(canvas, canvas.box(start, top, stop, plan.street), rng.random())
        if openings.awnings:
            cloth = canvas.box(start, top + 0.19 * plan.ground, stop, top + 0.4 * plan.ground)
            parts.awning(canvas, cloth)
