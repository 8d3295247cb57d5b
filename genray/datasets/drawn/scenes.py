"""Scenes drawn in place of photographs: dead leaves with textures, shading, blur, thin lines and text.

Leaves that cover each other, of radii of a power law, have the statistics of natural images (Lee, Mumford and
Huang 2001, "Occlusion models for natural images"), and denoisers that are trained on them serve photographs
(Achddou, Gousseau and Ladjal 2021, "Synthetic images as a regularity prior for image restoration neural
networks").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from genray.datasets.drawn.textures import COUNT, SIDE, textures
from genray.fonts import load_font
from genray.images.pixels import Pixels

_SCALE = 2  # drawn at twice the size and averaged, so that edges are smooth
_CORNERS = 20  # corners of a leaf's outline
_GRAY_SHARE = 0.15  # of scenes without colour
_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral", "cmr10", "cmss10")
_LETTERS = tuple("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:-")


def draw_scene(height: int, width: int, key: Sequence[int]) -> Pixels:
    """Draw a scene.

    Args:
        height, width: size in pixels.
        key: seed of all random choices, whole numbers of at least 0: the same key gives the same scene.

    Returns:
        (height, width, 3) uint8.
    """
    rng = np.random.default_rng(key)
    size = (_SCALE * height, _SCALE * width)
    palette = _draw_palette(rng)
    back, _ = _draw_leaves(rng, size, palette, ground=True)
    picture = Image.fromarray(back)
    if rng.random() < 0.3:  # a sharp object before a background out of focus
        picture = picture.filter(ImageFilter.GaussianBlur(_SCALE * rng.uniform(0.7, 5)))
        front, cover = _draw_leaves(rng, size, palette, ground=False)
        picture.paste(Image.fromarray(front), mask=Image.fromarray(cover))
    draw = ImageDraw.Draw(picture)
    if rng.random() < 0.3:
        _draw_lines(rng, draw, size, palette)
    if rng.random() < 0.12:
        _draw_words(rng, draw, size, palette)
    if rng.random() < 0.65:  # the lens and the sensor: photographs at their full size are soft
        picture = picture.filter(ImageFilter.GaussianBlur(_SCALE * rng.uniform(0.2, 2.0)))
    scene = np.asarray(picture.reduce(_SCALE))
    if rng.random() < _GRAY_SHARE:
        scene = np.asarray(Image.fromarray(scene).convert("L"))[..., None].repeat(3, axis=2)
    return scene


def _draw_palette(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw the colours of a scene, (n, 3) from 0 to 1: a few hues, most of them pale, as in photographs."""
    count = int(rng.integers(3, 9))
    hue = rng.uniform(0, 2 * np.pi) + rng.normal(0, rng.uniform(0.2, 2.5), count)
    saturation = rng.beta(1.1, 2.2, count) * rng.uniform(0.2, 1.0)
    bright = rng.beta(1.2, 1.5, count)
    # Red, green and blue lie a third of a turn apart on the colour circle.
    offsets = np.array([0, -2 * np.pi / 3, 2 * np.pi / 3])
    colours = bright[:, None] * (1 + saturation[:, None] * np.cos(hue[:, None] + offsets))
    palette: NDArray[np.float32] = np.clip(colours, 0, 1).astype(np.float32)
    return palette


def _draw_leaves(
    rng: np.random.Generator, size: tuple[int, int], palette: NDArray[np.float32], *, ground: bool
) -> tuple[Pixels, Pixels]:
    """Draw leaves over each other.

    Args:
        rng: source of random numbers.
        size: height and width in pixels.
        palette: colours, (n, 3).
        ground: fill what no leaf covers, with a leaf of its own.

    Returns:
        The picture, (height, width, 3), and what is covered, (height, width), 0 or 255.
    """
    height, width = size
    most = max(size)
    # As many on a pixel whatever the size.
    count = 1 + int(10 ** rng.uniform(0.3, 2.75) * height * width / 256**2) if ground else rng.integers(1, 12)
    least = 10 ** rng.uniform(0.2, 1.2) if ground else most / 12
    labels = np.asarray(_draw_labels(rng, size, int(count), least, most)).ravel()
    covered = (labels > 0).astype(np.uint8).reshape(size) * np.uint8(255)
    leaves = int(count) + 1

    def of_leaf(values: NDArray[np.floating]) -> NDArray[np.float32]:
        of_pixels: NDArray[np.float32] = values.astype(np.float32)[labels]
        return of_pixels

    rows = np.repeat(np.arange(height, dtype=np.float32), width)
    columns = np.tile(np.arange(width, dtype=np.float32), height)
    turn = rng.uniform(0, 2 * np.pi, leaves)
    zoom = 2 ** rng.uniform(-2.5, 0.6, leaves)
    cosine, sine = of_leaf(zoom * np.cos(turn)), of_leaf(zoom * np.sin(turn))
    surface = rng.integers(0, COUNT, leaves)
    start = rng.integers(0, SIDE * SIDE, leaves)
    down = (rows * cosine - columns * sine).astype(np.int32)
    along = (rows * sine + columns * cosine).astype(np.int32)
    # The place in the bank is one number: the sums wrap around at the edges of a texture.
    place = ((down & (SIDE - 1)) * SIDE + along) + start.astype(np.int32)[labels]
    grain = textures().ravel()[(place & (SIDE * SIDE - 1)) + (surface * SIDE * SIDE).astype(np.int32)[labels]]
    # Most surfaces are nearly smooth, few are rough.
    rough = np.exp(rng.normal(np.log(0.06), 1.1, leaves)).clip(0, 0.6) * (rng.random(leaves) < 0.85)
    light = of_leaf(rough) * grain
    slope = rng.normal(0, 0.5 / most, (2, leaves)) * rng.exponential(1, leaves)
    light += of_leaf(slope[0]) * (rows - height / 2) + of_leaf(slope[1]) * (columns - width / 2)
    lamp = rng.normal(0, 0.6 / most, 2)
    light += np.float32(lamp[0]) * (rows - height / 2) + np.float32(lamp[1]) * (columns - width / 2)
    np.exp(np.clip(light, -3, 2, out=light), out=light)
    base = palette[rng.integers(0, len(palette), leaves)] + rng.normal(0, 0.06, (leaves, 3))
    tint = rng.normal(0, 0.05, (leaves, 3)) * (rng.random((leaves, 1)) < 0.4)
    colours = of_leaf(base.clip(0.01, 1)) * light[:, None] + of_leaf(tint) * grain[:, None]
    exposure = 2 ** rng.normal(0, 0.35)
    levels = np.clip(colours * np.float32(255 * exposure) + np.float32(0.5), 0, 255).astype(np.uint8)
    return levels.reshape(height, width, 3), covered


def _draw_labels(
    rng: np.random.Generator, size: tuple[int, int], count: int, least: float, most: float
) -> Image.Image:
    """Draw the outlines of `count` leaves as an image of their numbers, from 1 on; 0 where none is.

    Args:
        rng: source of random numbers.
        size: height and width in pixels.
        count: number of leaves.
        least, most: smallest and largest radius in pixels; radii follow a power law of exponent 3.
    """
    draws = rng.random(count)
    radius = (least**-2 + draws * (most**-2 - least**-2)) ** -0.5
    angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    outline = np.ones((count, _CORNERS))
    corners = rng.integers(3, 7, count)[:, None]
    wedge = np.pi / corners
    polygon = np.cos(wedge) / np.cos((angle + 0.01) % (2 * wedge) - wedge)
    blob = 1 + rng.uniform(0, 0.35, (count, 1)) * np.sin(
        rng.integers(2, 6, (count, 1)) * angle + rng.uniform(0, 6, (count, 1))
    )
    form = rng.integers(0, 3, (count, 1))
    outline = np.where(form == 0, outline, np.where(form == 1, polygon, blob))
    flat = rng.uniform(0.08, 1, (count, 1)) ** rng.choice([0.3, 1.0])  # long and thin ones, too
    across, upward = outline * np.cos(angle), flat * outline * np.sin(angle)
    turn = rng.uniform(0, np.pi, (count, 1))
    points = np.empty((count, _CORNERS, 2), np.float32)
    points[..., 0] = rng.uniform(0, size[1], (count, 1)) + radius[:, None] * (
        across * np.cos(turn) - upward * np.sin(turn)
    )
    points[..., 1] = rng.uniform(0, size[0], (count, 1)) + radius[:, None] * (
        across * np.sin(turn) + upward * np.cos(turn)
    )
    labels = Image.new("I", (size[1], size[0]))
    draw = ImageDraw.Draw(labels)
    for number, corner in enumerate(points.reshape(count, -1).tolist(), 1):
        draw.polygon(corner, fill=number)
    return labels


def _draw_lines(
    rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: tuple[int, int], palette: NDArray[np.float32]
) -> None:
    """Draw thin lines: wires, hair, twigs, fences."""
    count = int(rng.integers(1, 30))
    parallel = rng.random() < 0.4
    step = rng.normal(0, max(size) / 6, 2)
    for _ in range(count):
        start = rng.uniform(0, size[::-1])
        steps = (step if parallel else rng.normal(0, max(size) / 6, 2)) * np.ones((4, 1))
        points = start + np.cumsum(steps + rng.normal(0, 4, (4, 2)), axis=0)
        draw.line(points.ravel().tolist(), fill=_ink(rng, palette), width=int(rng.integers(1, 5)))


def _draw_words(
    rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: tuple[int, int], palette: NDArray[np.float32]
) -> None:
    """Draw a few words, as on signs and labels."""
    font = load_font(str(rng.choice(_FONTS)), int(rng.integers(14, 90)))
    for _ in range(int(rng.integers(1, 5))):
        text = "".join(rng.choice(_LETTERS, int(rng.integers(2, 16))))
        place = (float(rng.uniform(-40, size[1] * 0.7)), float(rng.uniform(-10, size[0] - 10)))
        draw.text(place, text, fill=_ink(rng, palette), font=font)


def _ink(rng: np.random.Generator, palette: NDArray[np.float32]) -> tuple[int, ...]:
    colour = palette[rng.integers(len(palette))] * rng.uniform(0.1, 1.4)
    return tuple(int(level) for level in np.clip(255 * colour, 0, 255))
