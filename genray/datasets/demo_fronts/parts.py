"""Parts of a building front, each painted into a box of the canvas."""

from __future__ import annotations

import numpy as np

from genray.datasets.demo_fronts.canvas import PART_NUMBER, Box, Canvas, Values, across, arch, mix, rgb


def wall(canvas: Canvas) -> None:
    """Paint plaster, bricks or blocks of stone over the whole canvas."""
    box = canvas.box(0, 0, 1, 1)
    colour = canvas.style.wall
    stains = 1 + 0.05 * canvas.clouds(7, 7) + 0.03 * canvas.clouds(5, 48)
    if canvas.style.material == "plaster":
        canvas.fill(box, "wall", colour * (stains + 0.03 * canvas.clouds(90, 90))[..., None], 0)
        return
    brick = canvas.style.material == "brick"
    if brick:
        tone, joint = canvas.cells(box, 64, 24, gap=0.24, spread=0.16)
    else:
        tone, joint = canvas.cells(box, 20, 9, gap=0.08, spread=0.06)
    canvas.fill(box, "wall", colour * (tone * stains)[..., None], 0)
    canvas.fill(box, None, rgb("b2a899") if brick else colour * 0.75, -0.001, joint)


def sky(canvas: Canvas, boxes: list[Box]) -> None:
    """Paint thin clouds on a blue that gets paler towards the street."""
    clouds = np.clip(canvas.clouds(9, 5) * 0.6, 0, 0.5)
    for box in boxes:
        blue = mix(rgb("5c8fd6"), rgb("ccdef0"), np.clip(canvas.rows(box, 1) * 1.6, 0, 1))
        canvas.fill(box, "sky", mix(blue, rgb("f2f2f5"), clouds[box]), -0.05)


def pavement(canvas: Canvas, box: Box) -> None:
    """Paint grey slabs."""
    tone, joint = canvas.cells(box, 50, 11, gap=0.1, spread=0.05)
    canvas.fill(box, "ground", rgb("807d78") * tone[..., None], -0.02)
    canvas.fill(box, None, rgb("666361"), -0.02, joint)


def roof(canvas: Canvas, box: Box, slope: float) -> None:
    """Paint rows of tiles or slates on a roof whose top is narrower by `slope` widths at each side."""
    down, along, _, _ = across(box)
    tone, joint = canvas.cells(box, 50, 50, gap=0.14, spread=0.12)
    shade = tone * (0.8 + 0.3 * (canvas.rows(box, 50) % 1)) * (1 - np.float32(0.25) * joint)
    inside = np.minimum(along, 1 - along) >= slope * (1 - down)
    canvas.fill(box, "roof", canvas.style.roof * shade[..., None], -0.008, inside)


def ledge(canvas: Canvas, part: str, box: Box, out: float, *, teeth: bool = False) -> None:
    """Paint a cornice, a lintel or a sill, which is highest at its top."""
    down, along, _, columns = across(box)
    trim = canvas.style.trim
    canvas.fill(box, part, mix(trim, trim * 0.84, down), out * (1 - 0.25 * np.floor(down * 3)))
    if teeth:
        gaps = (along * columns * (60 / canvas.side) % 1 < 0.5) & (np.abs(down - 0.7) < 0.18)
        canvas.fill(box, None, trim * 0.6, out * 0.2, gaps)


def gable(canvas: Canvas, box: Box) -> None:
    """Paint a flat triangle with a raised edge over a window."""
    down, along, rows, _ = across(box)
    depth = (down - np.abs(2 * along - 1)) * rows
    canvas.fill(box, "deco", canvas.style.trim * 0.92, 0.003, depth >= 0)
    rim = (depth < canvas.points(0.007)) | ((1 - down) * rows < canvas.points(0.005))
    canvas.fill(box, None, canvas.style.trim, 0.012, rim & (depth >= 0))


def pillar(canvas: Canvas, box: Box) -> None:
    """Paint a flat pillar with two flutes, between a plain head and foot."""
    down, along, rows, _ = across(box)
    plain = np.minimum(down, 1 - down) * rows < canvas.points(0.03)
    shade = 1 - np.float32(0.16) * (0.5 + 0.5 * np.cos(along * 6 * np.float32(np.pi))) * ~plain
    canvas.fill(box, "pillar", canvas.style.trim * shade[..., None], np.where(plain, 0.012, 0.007))


def glass(canvas: Canvas, box: Box, curtains: float = 0) -> Values:
    """Return panes (h, w, 3): the sky above, the street below, a bright streak across."""
    down, along, rows, columns = across(box)
    panes = mix(rgb("8fadc9"), rgb("26303b"), np.clip(down * 1.25, 0, 1))
    streak = np.clip(1 - np.abs(down * (0.7 * rows / columns) + along - 0.95) * 6, 0, 0.4)
    panes = mix(panes, rgb("d1e0ed"), streak)
    if curtains:
        drawn = np.clip((np.abs(2 * along - 1) - 1 + curtains) * 8, 0, 1)
        folds = np.float32(0.5) + np.float32(0.2) * np.sin(along * 40)
        panes = mix(panes, rgb("dbd6c7"), drawn * folds)
    return panes


def window(canvas: Canvas, box: Box, rise: float) -> None:
    """Paint panes in a frame, set back in the wall, with a casing around them."""
    down, along, rows, columns = across(box)
    line = canvas.points(0.0055)
    edge = canvas.points(0.008)
    sides = slice(max(box[1].start - edge, 0), min(box[1].stop + edge, canvas.side))
    casing = (slice(max(box[0].start - edge, 0), box[0].stop), sides)
    # In the label map a casing is wall, so it must not cover a shutter or a pillar.
    free = arch(casing, rise) & (canvas.parts[casing] == PART_NUMBER["wall"])
    canvas.fill(casing, None, canvas.style.trim, 0.004, free)
    frame = np.ones((rows, columns), np.bool_)
    if min(rows, columns) > 2 * line:
        inner = (slice(line, rows - line), slice(line, columns - line))
        frame[inner] = ~arch(inner, rise)
    # Bars by the shape: two wings below a fanlight, three in wide windows.
    for share in (1 / 3, 2 / 3) if columns > 0.8 * rows else (1 / 2,):
        frame |= np.abs(along - share) * columns <= line / 2
    light = rise * columns if rise > 0.3 else 0.3 * rows
    frame |= np.abs(down * rows - light) <= line / 2
    inside = arch(box, rise)
    canvas.fill(box, "window", glass(canvas, box, canvas.style.curtains), -0.016, inside)
    canvas.fill(box, None, canvas.style.frame, -0.012, frame & inside)


def slats(canvas: Canvas, part: str, box: Box, colour: Values, out: float) -> None:
    """Paint a shutter or a blind: slats in a border, each lighter at its top."""
    down, along, rows, columns = across(box)
    border = np.minimum(np.minimum(along, 1 - along) * columns, np.minimum(down, 1 - down) * rows)
    slat = np.float32(1.1) - np.float32(0.4) * (canvas.rows(box, 64) % 1)
    shade = np.where(border < canvas.points(0.006), np.float32(0.95), slat)
    canvas.fill(box, part, colour * shade[..., None], out)


def door(canvas: Canvas, box: Box) -> None:
    """Paint wooden panels below a fanlight, in one wing or two."""
    down, along, rows, columns = across(box)
    wings = 2 if columns > 0.5 * rows else 1
    x = along * wings % 1
    y = (down - 0.2) / 0.8 * 2.5 % 1
    leaf = down > 0.2
    panel = (np.abs(x - 0.5) < 0.32) & (np.abs(y - 0.5) < 0.36) & leaf
    tone = canvas.grain.normal(1, 0.05, along.shape).astype(np.float32) * (1 - np.float32(0.2) * panel)
    canvas.fill(box, "door", canvas.style.wood * tone[..., None], np.where(panel, -0.014, -0.01))
    canvas.fill(box, None, glass(canvas, box), -0.014, ~leaf & (np.abs(x - 0.5) < 0.42) & (down > 0.04))
    knob = (np.abs(along - 0.58) < 0.04) & (np.abs(down - 0.6) < 0.02)
    canvas.fill(box, None, rgb("dbb85c"), -0.004, knob)


def balcony(canvas: Canvas, box: Box) -> None:
    """Paint a slab with a railing, of stone on stone fronts, else of iron; what is behind it stays
    visible."""
    down, along, _, columns = across(box)
    stone = canvas.style.material == "stone"
    off = np.abs(along * max(4, round(columns / canvas.side * 50)) % 1 - 0.5)
    thickness = 0.24 + 0.12 * np.sin(down * 9) if stone else 0.16
    railing = (off < thickness) | (down < 0.14) | (down > 0.72)
    canvas.parts[box] = PART_NUMBER["balcony"]
    if stone:
        canvas.fill(box, None, canvas.style.trim * 0.95, 0.014, railing)
    else:
        canvas.fill(box, None, rgb("212429"), -0.004, railing)
    canvas.fill(box, None, canvas.style.trim * 0.97, 0.03, (down > 0.8) & (along >= 0))


def shop(canvas: Canvas, box: Box, name: float) -> None:
    """Paint a shop front: a sign with a name of random length, panes, and a plinth."""
    down, along, rows, columns = across(box)
    panes = max(1, round(columns / rows * 1.2))
    x = np.abs(along * panes % 1 - 0.5) * columns / panes
    canvas.fill(box, "shop", canvas.style.paint, np.where(down < 0.22, 0.012, 0.003))
    clear = (down > 0.28) & (down < 0.84) & (x < 0.5 * columns / panes - canvas.points(0.007))
    canvas.fill(box, None, glass(canvas, box), -0.012, clear)
    off = np.abs(along - 0.5)
    letter = np.floor(off * columns / canvas.side * 100)
    ink = (letter < 4 + 8 * name) & (letter % 3 != 1) & (np.abs(down - 0.11) < 0.045) & (off < 0.4)
    canvas.fill(box, None, rgb("ede0b8"), 0.013, ink)


def awning(canvas: Canvas, box: Box) -> None:
    """Paint striped cloth, which is highest at its foot."""
    down, along, _, columns = across(box)
    stripe = np.floor(along * np.float32(max(4, round(columns / canvas.side * 40)))) % 2
    cloth = mix(canvas.style.paint * 1.3, rgb("ede8d9"), stripe)
    canvas.fill(box, "blind", cloth * (1.1 - 0.3 * down)[..., None], 0.015 + 0.03 * down)
