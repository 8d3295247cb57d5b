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

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genray.datasets.demo_fronts import parts as paint
from genray.datasets.demo_fronts.canvas import PALETTE, Canvas, choose_style, rgb
from genray.errors import DataError, UsageError
from genray.images.pixels import Pixels
from genray.io.files import atomic_write

__all__ = ["PALETTE", "building_front", "write_fronts"]

SMALLEST, LARGEST = 32, 1024


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
    canvas = Canvas(size, fine, choose_style(rng), np.random.default_rng([seed, index, 1]))
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


@dataclass(frozen=True)
class _FrontPlan:
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


def _plan(rng: np.random.Generator, margin: float) -> _FrontPlan:
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
    return _FrontPlan(left, right, eaves, street, story, story * taller, stories, edges)


def _build(canvas: Canvas, rng: np.random.Generator) -> None:
    """Decide where everything is, and paint it from the back to the front."""
    stone = canvas.style.material == "stone"
    plan = _plan(rng, 0.04 if stone else rng.uniform(0.01, 0.04))
    left, right, eaves, street = plan.left, plan.right, plan.eaves, plan.street
    paint.wall(canvas)
    besides = [canvas.box(0, 0, left, 1), canvas.box(right, 0, 1, 1)] if left else []
    paint.sky(canvas, [canvas.box(0, 0, 1, eaves), *besides])
    paint.pavement(canvas, canvas.box(0, street, 1, 1))
    canvas.fill(canvas.box(left, street - 0.02, right, street), None, canvas.style.trim * 0.62, 0.004)
    if eaves > 0.14 and rng.random() < 0.75:
        _attic(canvas, rng, plan)
    if stone:
        for line in plan.edges if rng.random() < 0.6 else plan.edges[[0, -1]]:
            paint.pillar(canvas, canvas.about(line, 0.014, eaves, street - 0.02))
    for floor in range(1, plan.stories if rng.random() < 0.6 else 2):
        y = plan.foot(floor)
        paint.ledge(canvas, "cornice", canvas.box(left, y - 0.006, right, y + 0.01), 0.012)
    top = canvas.box(left - 0.015, eaves - 0.006, right + 0.015, eaves + 0.024)
    paint.ledge(canvas, "cornice", top, 0.024, teeth=True)
    _openings(canvas, rng, plan)


def _attic(canvas: Canvas, rng: np.random.Generator, plan: _FrontPlan) -> None:
    """Paint the roof, its chimneys and dormers."""
    eaves, wall = plan.eaves, canvas.style.wall
    ridge = eaves - rng.uniform(0.07, min(0.2, eaves - 0.07))
    for x in rng.uniform(plan.left + 0.12, plan.right - 0.12, rng.integers(3)):
        canvas.fill(canvas.about(x, 0.022, ridge - 0.05, eaves), "wall", wall * 0.9, 0)
        paint.ledge(canvas, "cornice", canvas.about(x, 0.03, ridge - 0.055, ridge - 0.04), 0.01)
    dormers = eaves - ridge > 0.11 and rng.random() < 0.6
    # A dormer at the side would hang in the air where the roof slopes there.
    slope = 0.02 if dormers else float(rng.choice([0.02, 0.08, 0.2]))
    paint.roof(canvas, canvas.box(plan.left, ridge, plan.right, eaves), slope)
    for x, half in plan.bays()[int(rng.integers(2)) :: 2] if dormers else []:
        half = min(0.4 * half, 0.04)
        canvas.fill(canvas.about(x, half + 0.012, eaves - 0.09, eaves), "wall", wall, 0.01)
        paint.window(canvas, canvas.about(x, half, eaves - 0.075, eaves - 0.015), 0)
        paint.gable(canvas, canvas.about(x, half + 0.02, eaves - 0.12, eaves - 0.085))


def _openings(canvas: Canvas, rng: np.random.Generator, plan: _FrontPlan) -> None:
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
                paint.door(canvas, canvas.about(x, half, door, plan.street))
                paint.ledge(canvas, "deco", canvas.about(x, half + 0.015, door - 0.016, door), 0.016)
            if floor == 0 and (shops or bay == entrance):
                continue
            row = balconies == "row" and floor == 1
            some = (balconies == "middle" and bay in sides) or (balconies == "some" and (bay + floor) % 2)
            out = row or (some and floor > 0)
            low, high = foot - plan.story * (0.05 if out else 0.24), foot - plan.story * (0.24 + tall)
            window = canvas.about(x, half, high, low)
            paint.window(canvas, window, bend)
            if plaster and state < 0.15 and bay > 0:  # One bay stays open: every front shows a window.
                paint.slats(canvas, "shutter", window, wood, -0.004)
            elif plaster:
                for side in (x - 1.5 * half, x + 1.5 * half):
                    paint.slats(canvas, "shutter", canvas.about(side, half / 2, high, low), wood, 0.008)
            elif blinds and not bend and state < 0.6:
                lowered = canvas.about(x, half, high, high + (low - high) * (0.2 + 0.6 * drop))
                paint.slats(canvas, "blind", lowered, rgb("d9ccad"), -0.008)
            if hood != "none" and not bend:
                paint.ledge(canvas, "deco", canvas.about(x, half + 0.014, high - 0.018, high - 0.003), 0.012)
                if hood == "gable" and floor == 1:
                    paint.gable(canvas, canvas.about(x, half + 0.014, high - 0.05, high - 0.016))
            if out:
                wide = reach if row else half + 0.02
                paint.balcony(canvas, canvas.about(x, wide, foot - 0.36 * plan.story, foot + 0.008))
            else:
                paint.ledge(canvas, "sill", canvas.about(x, half + 0.01, low, low + 0.013), 0.014)
    top = plan.street - 0.86 * plan.ground
    for first, last in ((0, entrance), (entrance + 1, len(bays))) if shops else ():
        if first < last:
            start, stop = plan.edges[first] + 0.015, plan.edges[last] - 0.015
            paint.shop(canvas, canvas.box(start, top, stop, plan.street), rng.random())
            if awnings:
                cloth = canvas.box(start, top + 0.19 * plan.ground, stop, top + 0.4 * plan.ground)
                paint.awning(canvas, cloth)
