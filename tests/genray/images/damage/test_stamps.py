from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageFont
from pydantic import ValidationError

from genray.images.damage.stamps import StampKind, StampSettings, draw_text, stamp

OWN = "September 11, 2023"
PLAIN = {"angle": [0, 0], "opacity": [1, 1], "frame": 0, "box": 0, "outline": 0}


def settings(**more: object) -> StampSettings:
    return StampSettings.model_validate(more)


def texture(height: int = 96, width: int = 128, channels: int = 3) -> NDArray[np.uint8]:
    """Gray levels from 100 to 150, which no stamp of a pure colour has."""
    return np.random.default_rng(0).integers(100, 151, (height, width, channels), np.uint8)


def extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what is set; bottom and right are the last ones inside."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_stamp_changes_what_the_mask_shows_and_nothing_else(channels: int) -> None:
    image = texture(channels=channels)
    before = image.copy()
    for index in range(40):
        stamped, mask = stamp(image, settings(colors=["#ffffff", "#000000"]), (0, 1, index))
        assert stamped.shape == image.shape
        assert stamped.dtype == np.uint8
        assert mask.shape == image.shape[:2]
        assert mask.any()
        changed = (stamped != image).any(axis=-1)
        assert not changed[~mask].any()
        assert changed[mask].mean() > 0.8  # the rest are edges, of which one can see hardly anything
    np.testing.assert_array_equal(image, before)


def test_the_key_alone_says_which_stamp() -> None:
    image = texture()
    first, again = (stamp(image, StampSettings(), (3, 1, 4)) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    seen = {stamp(image, StampSettings(), (3, epoch, i))[0].tobytes() for epoch in (0, 1) for i in range(20)}
    assert len(seen) == 40


def test_a_cropped_and_mirrored_view_is_stamped_as_its_copy_is() -> None:
    view = texture()[10:80, 5:70][:, ::-1]
    np.testing.assert_array_equal(
        stamp(view, StampSettings(), (1,))[0], stamp(np.ascontiguousarray(view), StampSettings(), (1,))[0]
    )


@pytest.mark.parametrize(
    ("kind", "styles"),
    [
        (
            "date",
            [
                r"(January|February|March|April|May|June|July|August|September|October|November|December)"
                r" \d{1,2}, \d{4}",  # September 11, 2023
                r"[A-Z][a-z]{2} \d{1,2}, \d{4}",
                r"\d{1,2} [A-Z][a-z]{2,8} \d{4}",
                r"\d{4}-\d\d-\d\d",
                r"\d\d\.\d\d\.\d{4}",
                r"\d\d/\d\d/\d{4}",
                r"'\d\d \d\d \d\d",
            ],
        ),
        ("time", [r"\d\d:\d\d", r"\d\d:\d\d:\d\d"]),
        ("word", [r"[A-Z]{3,12}", r"[A-Z][a-z]{2,11}"]),
        ("number", [r"\d{6}", r"No\. \d+", r"#\d+", r"IMG_\d{4}"]),
    ],
)
def test_made_up_texts_are_of_their_styles_and_all_styles_appear(kind: StampKind, styles: list[str]) -> None:
    rng = np.random.default_rng(0)
    texts = [draw_text(kind, rng) for _ in range(300)]
    for style in styles:
        assert any(re.fullmatch(style, text) for text in texts), style
    for text in texts:
        assert any(re.fullmatch(style, text) for style in styles), text
    assert len(set(texts)) > 150


def test_a_date_may_have_a_time() -> None:
    rng = np.random.default_rng(0)
    assert all(re.fullmatch(r".{8,18} \d\d:\d\d", draw_text("date-time", rng)) for _ in range(100))


def test_the_text_that_is_asked_for_is_stamped() -> None:
    image = np.zeros((64, 256, 3), np.uint8)
    chosen = {**PLAIN, "colors": ["#ffffff"], "size": [0.2, 0.2], "place": "bottom-right"}
    masks = {}
    for text in (OWN, "II", "I"):
        masks[text] = stamp(image, settings(texts=[text], **chosen), (0,))[1]
    assert masks[OWN].sum() > 6 * masks["II"].sum() > 9 * masks["I"].sum()
    twice = [stamp(image, settings(texts=[OWN, OWN], **chosen), (0, i))[1].tobytes() for i in range(60)]
    assert len(set(twice)) <= 8  # one for each face of the font


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_letters_have_the_height_that_was_set(share: float) -> None:
    chosen = settings(texts=["H"], size=[share, share], **PLAIN)
    for index in range(10):
        top, bottom, _, _ = extent(stamp(texture(200, 300), chosen, (index,))[1])
        assert bottom - top + 1 == pytest.approx(200 * share, abs=2)


def test_a_long_text_is_made_smaller_until_it_fits() -> None:
    image = np.zeros((128, 128, 1), np.uint8)
    chosen = settings(**{**PLAIN, "angle": [-45, 45]}, texts=[OWN], size=[0.2, 0.2], colors=["#ffffff"])
    for index in range(30):
        _, mask = stamp(image, chosen, (index,))
        top, bottom, left, right = extent(mask)
        assert max(bottom - top, right - left) > 80
        assert min(top, left) > 0  # so nothing is cut off
        assert max(bottom, right) < 127


@pytest.mark.parametrize(("name", "colour"), [("#ff8000", (255, 128, 0)), ("#000000", (0, 0, 0))])
def test_an_opaque_stamp_has_its_colour(name: str, colour: tuple[int, int, int]) -> None:
    chosen = settings(colors=[name], size=[0.2, 0.2], **PLAIN)
    stamped, mask = stamp(texture(), chosen, (5,))
    assert (stamped[mask] == colour).all(axis=-1).mean() > 0.3
    gray, mask = stamp(texture(channels=1), chosen, (5,))
    assert (gray[mask] == round(np.dot(colour, (0.299, 0.587, 0.114)))).mean() > 0.3


def test_opacity_says_how_much_shines_through() -> None:
    image = np.full((96, 128, 3), 100, np.uint8)
    chosen = settings(**{**PLAIN, "opacity": [0.25, 0.25]}, colors=["#ffffff"], size=[0.2, 0.2])
    stamped, _ = stamp(image, chosen, (0,))
    assert stamped.max() == round(100 + 0.25 * 155)


def test_random_colours_differ() -> None:
    chosen = settings(colors=["random"], size=[0.3, 0.3], texts=["H"], **PLAIN)
    black = np.zeros((64, 64, 3), np.uint8)
    assert len({tuple(stamp(black, chosen, (i,))[0].max(axis=(0, 1))) for i in range(20)}) == 20


def test_places_are_where_they_say() -> None:
    image = np.zeros((200, 200, 1), np.uint8)
    centres: dict[str, NDArray[np.float64]] = {}
    for place in ("anywhere", "corners", "bottom-right"):
        chosen = settings(place=place, texts=["H"], **PLAIN)
        extents = [extent(stamp(image, chosen, (i,))[1]) for i in range(80)]
        centres[place] = np.array([((t + b) / 2, (left + r) / 2) for t, b, left, r in extents])
    assert (centres["bottom-right"] > 160).all()
    assert (np.abs(centres["corners"] - 100) > 60).all()
    assert len({tuple(row) for row in centres["corners"] > 100}) == 4
    quarters = [tuple(row) for row in centres["anywhere"] > 100]
    assert min(quarters.count((low, left)) for low in (False, True) for left in (False, True)) > 8


@pytest.mark.parametrize("decoration", ["frame", "box", "outline"])
def test_a_decoration_covers_more_and_a_share_of_stamps_have_it(decoration: str) -> None:
    image = np.full((96, 128, 3), 128, np.uint8)
    chosen = {**PLAIN, "texts": ["12:30"], "colors": ["#ffffff"], "place": "bottom-right"}

    def sizes(share: float) -> NDArray[np.int64]:
        some = settings(**{**chosen, decoration: share})
        return np.array([stamp(image, some, (i,))[1].sum() for i in range(100)])

    without, some, every = sizes(0), sizes(0.3), sizes(1)
    assert (every > without).all()
    assert np.isin(some, (without, every)).all()
    assert 0.15 < (some == every).mean() < 0.45


def test_letters_are_turned_by_the_angle() -> None:
    chosen = {**PLAIN, "texts": ["IIIIIIIIII"], "colors": ["#ffffff"]}
    image = np.zeros((200, 200, 1), np.uint8)
    for angle in (-30, 30):
        _, mask = stamp(image, settings(**{**chosen, "angle": [angle, angle]}), (0,))
        rows, columns = np.nonzero(mask)
        slope = np.degrees(np.arctan(np.polyfit(columns, rows, 1)[0]))
        assert slope == pytest.approx(-angle, abs=4)  # rows count downwards


@pytest.mark.parametrize("shape", [(16, 16, 1), (16, 16, 3), (16, 90, 3), (300, 17, 1)])
@pytest.mark.parametrize("place", ["anywhere", "corners", "bottom-right"])
def test_something_is_seen_on_the_smallest_images(shape: tuple[int, int, int], place: str) -> None:
    chosen = settings(place=place, texts=[OWN, "I"], angle=[-90, 90], colors=["#ffffff"], opacity=[1, 1])
    for index in range(40):
        stamped, mask = stamp(np.zeros(shape, np.uint8), chosen, (index,))
        assert mask.any()
        assert stamped.max() > 60


def test_the_font_is_not_one_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def truetype(path: str, size: int, **more: object) -> ImageFont.FreeTypeFont:
        asked.append(Path(path))
        return whole(path, size)

    whole = ImageFont.truetype
    monkeypatch.setattr(ImageFont, "truetype", truetype)
    size = 0.937  # of letters that no other test has, so that its font has not been opened yet
    stamp(texture(701, 900), settings(texts=["H"], size=[size, size]), (0,))
    assert asked
    assert all(path.is_file() and "matplotlib" in path.parts for path in asked)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"texts": ["x" * 41]}, "at most 40"),
        ({"texts": ["  "]}, "can be seen"),
        ({"texts": ["two\nlines"]}, "one line"),
        ({"kinds": []}, "at least 1"),
        ({"kinds": ["poem"]}, "date-time"),
        ({"colors": ["orange"]}, "pattern"),
        ({"size": [0.2, 0.1]}, "lowest, highest"),
        ({"opacity": [0, 1]}, "greater than or equal to 0.1"),
        ({"frame": 0.5, "box": 0.6}, "together at most 1"),
    ],
)
def test_a_stamp_that_cannot_be_is_refused(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        StampSettings.model_validate(wrong)
