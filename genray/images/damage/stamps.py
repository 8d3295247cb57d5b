"""Stamps drawn on clean images at training time: a date, a time, a word or a number, as people, cameras and
archives put on pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from genray.fonts import load_font
from genray.images.pixels import Pixels
from genray.settings.base import Settings

T = TypeVar("T")
Mask = NDArray[np.bool_]
StampKind = Literal["date", "date-time", "time", "word", "number"]

_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_WORDS = ("COPY", "SAMPLE", "DRAFT", "PROOF", "PAID", "VOID", "APPROVED", "RECEIVED", "CONFIDENTIAL")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_FACES = ("Sans", "Sans-Bold", "Sans-Oblique", "SansMono", "Serif", "Serif-Bold", "Serif-Italic")
_CAPITAL = 0.729  # height of a capital letter in ems, the same in all these faces
_SMALLEST = 6  # pixels of an em; letters of smaller sizes cannot be read


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"{list(pair)} must be [lowest, highest]")
    return pair


def _can_be_seen(text: str) -> str:
    if not text.isprintable() or not _font("Sans", 16).getmask(text).getbbox():
        raise ValueError(f"{text!r} is not one line of text that can be seen")
    return text


Share = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[float, Field(ge=0.01, le=1)]
Degrees = Annotated[float, Field(ge=-180, le=180)]
Opacity = Annotated[float, Field(ge=0.1, le=1)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(_can_be_seen)]
Colour = Annotated[str, StringConstraints(pattern=r"^(#[0-9a-fA-F]{6}|random)$")]


class StampSettings(Settings):
    """Settings of the stamps. Each image gets a stamp of its own; a pair of numbers is [lowest, highest]."""

    texts: tuple[Text, ...] = Field(
        (),
        max_length=10_000,
        description="texts to stamp, each in quotes, at most 40 letters ([]: random texts of `kinds`)",
    )
    kinds: tuple[StampKind, ...] = Field(
        ("date", "date-time", "time", "word", "number"),
        min_length=1,
        description="kinds of random texts (used if `texts` is [])",
    )
    colors: tuple[Colour, ...] = Field(
        ("#ff8c1a", "#ffd400", "#d02020", "#2040b0", "#ffffff", "#000000", "random"),
        min_length=1,
        description='colours, each "#rrggbb" with the quotes, or random; gray images show their brightness',
    )
    size: Annotated[tuple[Size, Size], AfterValidator(_ordered)] = Field(
        (0.04, 0.12),
        description="height of a capital letter as a share of the image's shorter side in pixels (0.01 to "
        "1); smaller where the text would not fit",
    )
    place: Literal["anywhere", "corners", "bottom-right"] = Field(
        "anywhere", description="place of the stamp in the image"
    )
    angle: Annotated[tuple[Degrees, Degrees], AfterValidator(_ordered)] = Field(
        (-8.0, 8.0), description="angle of the text in degrees, counter-clockwise"
    )
    opacity: Annotated[tuple[Opacity, Opacity], AfterValidator(_ordered)] = Field(
        (0.6, 1.0), description="opacity of the stamp, 0.1 to 1 (1 hides what is below)"
    )
    frame: Share = Field(0.1, description="share of stamps with a line around the text (0 to 1)")
    box: Share = Field(0.1, description="share of stamps with a filled box behind the text (0 to 1)")
    outline: Share = Field(0.1, description="share of stamps whose letters have a contrasting edge (0 to 1)")

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.frame + self.box + self.outline > 1 + 1e-9:
            raise ValueError("frame, box and outline are shares of all stamps: together at most 1")
        return self


def stamp(image: Pixels, settings: StampSettings, key: Sequence[int]) -> tuple[Pixels, Mask]:
    """Draw one stamp on an image.

    A stamp that does not fit is made smaller, but never smaller than can be read: on a tiny image it is cut
    off at the border, and a part of it is always inside.

    Args:
        image: (H, W, 1 or 3) uint8, at least 16 pixels high and wide; it is not changed.
        settings: texts and looks to draw from.
        key: seed of all random choices, such as (seed, epoch, index): the same key gives the same stamp.

    Returns:
        The stamped image, of the shape of `image`, and the mask, (H, W) bool: True where the stamp changes
        the image, however little. Where it is False the two images are equal.
    """
    rng = np.random.default_rng(key)
    height, width, channels = image.shape
    look = _draw_look(rng, settings, (height, width))
    layers = _render(look)
    top, left = _draw_place(settings.place, rng, (height, width), layers.letters)
    rows = slice(max(top, 0), min(top + layers.letters.shape[0], height))
    columns = slice(max(left, 0), min(left + layers.letters.shape[1], width))
    inside = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    letters = layers.letters[inside]
    under = layers.under[inside]

    clean = image[rows, columns].astype(np.float32)
    contrast = (0, 0, 0) if _brightness(look.ink) > 127 else (255, 255, 255)
    painted = _blend(clean, contrast, under, channels)
    painted = _blend(painted, look.ink, letters, channels)
    stamped = image.copy()
    stamped[rows, columns] = np.rint(clean + (painted - clean) * np.float32(look.opacity)).astype(np.uint8)
    mask = np.zeros((height, width), np.bool_)
    mask[rows, columns] = (letters > 0) | (under > 0)
    return stamped, mask


def draw_text(kind: StampKind, rng: np.random.Generator) -> str:
    """Draw a random text of a kind, at most 24 letters long."""
    time = f"{rng.integers(24):02}:{rng.integers(60):02}"
    match kind:
        case "date":
            return _draw_date(rng)
        case "date-time":
            return f"{_draw_date(rng)} {time}"
        case "time":
            return _pick(rng, (time, f"{time}:{rng.integers(60):02}"))
        case "word":
            letters = "".join(_pick(rng, _LETTERS) for _ in range(rng.integers(3, 11)))
            word = _pick(rng, (_pick(rng, _WORDS), letters))
            return _pick(rng, (word.upper(), word.title()))
        case "number":
            number = int(rng.integers(100, 1_000_000))
            return _pick(rng, (f"{number:06}", f"No. {number}", f"#{number}", f"IMG_{number % 10_000:04}"))


@dataclass(frozen=True)
class _Look:
    """Look of a stamp.

    Attributes:
        text: one line.
        face: name of the DejaVu face.
        em: size of the letters, pixels of an em.
        angle: degrees, counter-clockwise.
        ink: red, green and blue, 0 to 255.
        opacity: 0 to 1.
        decoration: "frame", "box", "outline" or "none".
    """

    text: str
    face: str
    em: int
    angle: float
    ink: tuple[int, ...]
    opacity: float
    decoration: str


def _draw_look(rng: np.random.Generator, settings: StampSettings, shape: tuple[int, int]) -> _Look:
    """Draw a random look that fits an image of `shape` (height, width)."""
    text = _pick(rng, settings.texts) if settings.texts else draw_text(_pick(rng, settings.kinds), rng)
    face = _pick(rng, _FACES)
    angle = rng.uniform(*settings.angle)
    ink = _draw_colour(_pick(rng, settings.colors), rng)
    opacity = rng.uniform(*settings.opacity)
    limits = np.cumsum([settings.frame, settings.box, settings.outline])
    decoration = ("frame", "box", "outline", "none")[int(np.searchsorted(limits, rng.random(), side="right"))]
    em = max(_SMALLEST, round(rng.uniform(*settings.size) * min(shape) / _CAPITAL))
    # Repeated, because hinted letters do not shrink in proportion to their size.
    while em > _SMALLEST and (room := _room(text, face, em, angle, shape)) < 1:
        em = max(_SMALLEST, min(em - 1, int(em * room)))
    return _Look(text, face, em, angle, ink, opacity, decoration)


def _draw_date(rng: np.random.Generator) -> str:
    day = date.fromordinal(int(rng.integers(date(1970, 1, 1).toordinal(), date(2040, 1, 1).toordinal())))
    # Without strftime, whose names of months depend on the language of the machine.
    month = _MONTHS[day.month - 1]
    return _pick(
        rng,
        (
            f"{month} {day.day}, {day.year}",
            f"{month[:3]} {day.day}, {day.year}",
            f"{day.day} {month} {day.year}",
            day.isoformat(),
            f"{day.day:02}.{day.month:02}.{day.year}",
            f"{day.month:02}/{day.day:02}/{day.year}",
            f"'{day.year % 100:02} {day.month:02} {day.day:02}",  # the format of film cameras
        ),
    )


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _draw_colour(name: str, rng: np.random.Generator) -> tuple[int, ...]:
    if name == "random":
        return tuple(int(level) for level in rng.integers(0, 256, 3))
    return ImageColor.getrgb(name)


def _brightness(colour: tuple[int, ...]) -> int:
    return round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])


def _blend(
    under: NDArray[np.float32], colour: tuple[int, ...], cover: Pixels, channels: int
) -> NDArray[np.float32]:
    """Blend `colour` over (h, w, C) levels; `cover` (h, w) is its opacity, 0 to 255."""
    levels = np.array(colour if channels == 3 else [_brightness(colour)], np.float32)
    share: NDArray[np.float32] = cover[..., None].astype(np.float32) / np.float32(255)
    return under + (levels - under) * share


def _font(face: str, em: int) -> ImageFont.FreeTypeFont:
    return load_font(f"DejaVu{face}", em)


def _margin(em: int) -> int:
    """Return the pixels around the text that a frame, box or outline needs."""
    return max(2, round(0.3 * em))


def _room(text: str, face: str, em: int, angle: float, shape: tuple[int, int]) -> float:
    """Return the factor by which the rotated text could grow and still fit an image of `shape`."""
    left, top, right, bottom = _font(face, em).getbbox(text)
    width = right - left + 2 * _margin(em)
    height = bottom - top + 2 * _margin(em)
    cosine = abs(math.cos(math.radians(angle)))
    sine = abs(math.sin(math.radians(angle)))
    return min(shape[0] / (width * sine + height * cosine), shape[1] / (width * cosine + height * sine))


@dataclass(frozen=True)
class _Layers:
    """Opacity of the two layers of a stamp, each (h, w), 255 where opaque: the letters (with a frame, if
    any), and the box or outline under them."""

    letters: Pixels
    under: Pixels


def _render(look: _Look) -> _Layers:
    font = _font(look.face, look.em)
    margin = _margin(look.em)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(look.text))
    layers = [Image.new("L", (right - left + 2 * margin, bottom - top + 2 * margin)) for _ in range(2)]
    letters, under = (ImageDraw.Draw(layer) for layer in layers)
    start = (margin - left, margin - top)
    line = max(1, look.em // 12)
    edge = (0, 0, layers[0].width - 1, layers[0].height - 1)
    letters.text(start, look.text, fill=255, font=font)
    if look.decoration == "frame":
        letters.rectangle(edge, outline=255, width=line)
    elif look.decoration == "box":
        under.rectangle(edge, fill=255)
    elif look.decoration == "outline":
        under.text(start, look.text, fill=255, font=font, stroke_width=line)
    if look.angle:
        layers = [layer.rotate(look.angle, Image.Resampling.BILINEAR, expand=True) for layer in layers]
    return _Layers(np.asarray(layers[0]), np.asarray(layers[1]))


def _draw_place(
    place: str, rng: np.random.Generator, shape: tuple[int, int], letters: Pixels
) -> tuple[int, int]:
    """Draw the top and left of the stamp in an image of `shape`; negative where the stamp is cut off."""
    free = [shape[axis] - letters.shape[axis] for axis in (0, 1)]
    if place == "anywhere":
        top, left = (int(rng.integers(min(0, room), max(0, room) + 1)) for room in free)
    else:
        ends = rng.integers(0, 2, 2) if place == "corners" else (1, 1)
        gap = round(0.03 * min(shape))
        gaps = [min(gap, max(0, room // 2)) for room in free]
        top, left = (room - by if end else by for room, by, end in zip(free, gaps, ends, strict=True))
    if letters[max(-top, 0) : shape[0] - top, max(-left, 0) : shape[1] - left].max() < 128:
        # Only gaps between letters would be inside the image: move the darkest point to its middle.
        row, column = np.unravel_index(int(letters.argmax()), letters.shape)
        top, left = shape[0] // 2 - int(row), shape[1] // 2 - int(column)
    return top, left
