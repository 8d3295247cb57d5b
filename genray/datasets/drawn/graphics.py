"""Flat graphics drawn in place of screenshots, charts and logos: shapes of one colour, edges, small text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from genray.fonts import load_font
from genray.images.pixels import Pixels

_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif")
_TEXT = "File Edit View open close total 12.5 3,080 sum mean beat lead image run 2026 % + -"


def draw_graphic(height: int, width: int, key: Sequence[int]) -> Pixels:
    """Draw a graphic.

    Args:
        height, width: size in pixels.
        key: seed of all random choices, whole numbers of at least 0: the same key gives the same graphic.

    Returns:
        (height, width, 3) uint8.
    """
    rng = np.random.default_rng(key)
    scale = 2 if rng.random() < 0.6 else 1  # smooth edges, or edges of whole pixels as screens have
    size = (scale * width, scale * height)
    image = Image.new("RGB", size, _colour(rng))
    draw = ImageDraw.Draw(image)
    boxes = rng.random() < 0.6
    for _ in range(int(rng.integers(2, 40))):
        corners = rng.uniform(0, 1, (int(rng.integers(3, 7)), 2)) * size
        if boxes:
            left, top = corners[0]
            box = (left, top, left + abs(corners[1][0] - left) / 2, top + abs(corners[1][1] - top) / 2)
            outline = _colour(rng) if rng.random() < 0.4 else None
            draw.rectangle(box, fill=_colour(rng), outline=outline, width=scale)
        else:
            draw.polygon(corners.ravel().tolist(), fill=_colour(rng))
    font = load_font(str(rng.choice(_FONTS)), int(scale * rng.uniform(8, 18)))
    for _ in range(int(rng.integers(0, 40))):
        words = " ".join(rng.choice(_TEXT.split(), int(rng.integers(1, 5))))
        place = (float(rng.uniform(-20, size[0])), float(rng.uniform(-5, size[1])))
        draw.text(place, words, fill=_colour(rng), font=font)
    return np.asarray(image.reduce(scale))


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
    """Draw a colour: black, white, a gray or any."""
    kind = rng.random()
    if kind < 0.25:
        return (255, 255, 255) if kind < 0.15 else (0, 0, 0)
    levels = rng.integers(0, 256, 3) if kind > 0.5 else np.repeat(rng.integers(0, 256), 3)
    return tuple(int(level) for level in levels)
