"""Pages drawn in place of scanned documents: text, rules, tables, line art and halftones on paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from genray.fonts import load_font
from genray.images.pixels import Pixels

_SCALE = 2  # drawn at twice the size and averaged, so that edges are smooth
_FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "cmr10",
    "cmb10",
    "cmss10",
    "cmti10",
    "cmtt10",
)
_VOWELS, _CONSONANTS = "aaeeeiou", "bcddfghjkllmnnprrssttvwxz"
_GRAY_SHARE = 0.6  # of pages without colour


def draw_page(height: int, width: int, key: Sequence[int]) -> Pixels:
    """Draw a part of a page.

    Args:
        height, width: size in pixels.
        key: seed of all random choices, whole numbers of at least 0: the same key gives the same page.

    Returns:
        (height, width, 3) uint8.
    """
    rng = np.random.default_rng(key)
    # Larger than the page, so that turning it leaves no empty corners.
    across, down = int(1.3 * _SCALE * width), int(1.3 * _SCALE * height)
    ink, paper = _draw_inks(rng)
    page = Image.new("L", (across, down))  # share of ink
    draw = ImageDraw.Draw(page)
    style = rng.random()
    if style < 0.6:
        _draw_text(rng, draw, page.size)
    elif style < 0.75:
        _draw_table(rng, draw, page.size)
    elif style < 0.95:
        _draw_line_art(rng, draw, page.size)
    else:
        page = _draw_halftone(rng, page.size)
    if rng.random() < 0.25:
        _draw_line_art(rng, ImageDraw.Draw(page), page.size, most=6)
    turned = rng.uniform(-4, 4) if rng.random() < 0.4 else 0.0
    page = page.rotate(turned, Image.Resampling.BICUBIC)
    left, top = (across - _SCALE * width) // 2, (down - _SCALE * height) // 2
    page = page.crop((left, top, left + _SCALE * width, top + _SCALE * height))
    if rng.random() < 0.6:  # the lens of the scanner
        page = page.filter(ImageFilter.GaussianBlur(_SCALE * rng.uniform(0.2, 0.9)))
    cover = np.asarray(page.reduce(_SCALE), np.float32)[..., None] / np.float32(255)
    light = np.ones((height, width, 1), np.float32)
    if rng.random() < 0.3:  # the shadow of a fold, or a lamp on one side
        slope = rng.normal(0, 0.15, 2)
        light += np.float32(slope[0]) * np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None, None]
        light += np.float32(slope[1]) * np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :, None]
    levels = np.rint((paper + (ink - paper) * cover) * light)
    pixels: Pixels = np.clip(levels, 0, 255).astype(np.uint8)
    return pixels


def _draw_inks(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the colours of ink and paper, (3,) float32 levels each."""
    gray = rng.random() < _GRAY_SHARE
    paper = np.full(3, 255 - 60 * rng.random() ** 2 * (rng.random() < 0.6))
    ink = np.full(3, 130 * rng.random() ** 2)
    if not gray:
        paper = paper - rng.uniform(0, 25, 3)
        ink = ink + rng.uniform(0, 120, 3) * (rng.random() < 0.5)
    if rng.random() < 0.07:
        ink, paper = paper, ink  # white on black
    return ink.astype(np.float32), paper.astype(np.float32)


def _draw_text(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
    """Draw lines of words, in one or two sizes and up to three columns."""
    across, down = size
    columns = int(rng.integers(1, 4))
    gap = int(rng.integers(10, 60))
    width = across // columns
    for column in range(columns):
        top = float(rng.uniform(-40, 60))
        em = int(_SCALE * rng.uniform(9, 20) * rng.choice([1, 1, 1, 2]))
        face = str(rng.choice(_FACES))
        leading = rng.uniform(1.1, 1.7)
        while top < down:
            if rng.random() < 0.08:  # a heading, or the space before a paragraph
                heading = load_font(str(rng.choice(_FACES)), min(120, int(em * rng.uniform(1.2, 2))))
                draw.text((column * width + gap, top), _draw_words(rng, 3), fill=255, font=heading)
                top += heading.size * leading
            words = _draw_words(rng, max(1, int(2.2 * (width - gap) / em / 6)))
            draw.text((column * width + gap, top), words, fill=255, font=load_font(face, em))
            top += em * leading


def _draw_words(rng: np.random.Generator, count: int) -> str:
    words = []
    for _ in range(count):
        length = int(rng.integers(1, 10))
        if rng.random() < 0.12:
            words.append(str(int(rng.integers(0, 10 ** min(length, 6)))))
            continue
        letters = [str(rng.choice(list(_VOWELS if i % 2 else _CONSONANTS))) for i in range(length)]
        word = "".join(letters)
        style = rng.random()
        words.append(word.upper() if style < 0.06 else word.title() if style < 0.2 else word)
        if rng.random() < 0.15:
            words[-1] += str(rng.choice(list(".,;:-!?()%")))
    return " ".join(words)


def _draw_table(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
    """Draw rules that cross, with words between them."""
    em = int(_SCALE * rng.uniform(9, 18))
    font = load_font(str(rng.choice(_FACES)), em)
    height, width = em * rng.uniform(1.5, 3), em * rng.uniform(4, 12)
    line = int(rng.integers(1, 5))
    shift = rng.uniform(0, 1, 2)
    for row in range(int(size[1] / height) + 2):
        top = (row - shift[0]) * height
        draw.line((0, top, size[0], top), fill=255, width=line)
        for column in range(int(size[0] / width) + 2):
            left = (column - shift[1]) * width
            if row == 0:
                draw.line((left, 0, left, size[1]), fill=255, width=line)
            if rng.random() < 0.8:
                draw.text((left + em / 3, top + height / 6), _draw_words(rng, 1), fill=255, font=font)


def _draw_line_art(
    rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: tuple[int, int], most: int = 60
) -> None:
    """Draw lines, arcs, circles, boxes and hatching."""
    for _ in range(int(rng.integers(1, most))):
        x, y = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        long, high = np.abs(rng.normal(0, size[0] / 5, 2)) + 4
        box = (x, y, x + long, y + high)
        width = int(rng.integers(1, 7))
        fill = 255 if rng.random() < 0.7 else int(rng.integers(60, 255))
        match int(rng.integers(0, 6)):
            case 0:
                draw.ellipse(box, outline=fill, width=width)
            case 1:
                draw.rectangle(box, outline=fill, width=width)
            case 2:
                begin = rng.uniform(0, 360)
                draw.arc(box, begin, begin + rng.uniform(30, 300), fill=fill, width=width)
            case 3:
                steps = rng.normal(0, size[0] / 8, (int(rng.integers(2, 8)), 2))
                points = np.cumsum(np.concatenate([[(x, y)], steps]), axis=0)
                draw.line(points.ravel().tolist(), fill=fill, width=width)
            case 4:
                step = int(rng.integers(4, 20))
                for k in range(0, int(long), step):
                    draw.line((x + k, y, x + k + high / 2, y + high), fill=fill, width=min(width, 3))
            case _:
                draw.polygon((box[0], box[1], box[2], box[1], box[0], box[3]), fill=fill)


def _draw_halftone(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Draw a gradient as printed: dots on a turned grid, larger where it is darker."""
    across, down = size
    rows, columns = np.mgrid[:down, :across].astype(np.float32)
    turn, pitch = rng.uniform(0, np.pi), _SCALE * rng.uniform(3, 8)
    u = (rows * np.cos(turn) + columns * np.sin(turn)) * (2 * np.pi / pitch)
    v = (columns * np.cos(turn) - rows * np.sin(turn)) * (2 * np.pi / pitch)
    shade = rng.uniform(0, 1) + rng.normal(0, 0.7) * rows / down + rng.normal(0, 0.7) * columns / across
    dots = np.clip(8 * ((np.cos(u) + np.cos(v)) / 4 + shade - 0.5) + 0.5, 0, 1)
    return Image.fromarray((255 * dots).astype(np.uint8))
