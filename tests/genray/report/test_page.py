import base64
import hashlib
import io
import re

import numpy as np
import pytest
from PIL import Image

from genray.report.page import Page, Picture, png_size
from tests.page_reader import PageReader, is_drawn

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


def test_a_page_holds_its_parts_in_their_order() -> None:
    page = Page("first", "a run")
    page.headline([("mse", "0.01", "PCA 0.02"), ("time", "3 s", "")])
    page.section("Numbers")
    page.table(["metric", "this", "PCA"], [["mse", "0.01", "0.02"]], "held out", marked={(0, 1)})
    with page.details("more"):
        page.paragraph("folded away")
    read = PageReader(page.html())
    words = ["first", "a run", "mse", "PCA 0.02", "Numbers", "held out", "metric", "more", "folded away"]
    places = [read.text.index(word) for word in words]
    assert places == sorted(places)
    assert read.rows == [["metric", "this", "PCA"], ["mse", "0.01", "0.02"]]
    assert read.marked == ["0.01"]
    assert "details" in read.tags


def test_a_row_of_one_cell_is_a_heading_over_the_others() -> None:
    page = Page("t")
    page.table(["", "a", "b"], [["sizes"], ["width", "1", "2"]])
    assert 'colspan="3"' in page.html()


@pytest.mark.parametrize("text", ['<script>alert("1")</script>', '"><img src=x onerror=a>', "a & b", "'"])
def test_what_is_given_is_text_and_never_markup(text: str) -> None:
    page = Page(text, text)
    page.section(text)
    page.paragraph(text)
    page.headline([(text, text, text)])
    page.table([text, text], [[text, text], [text]], text, marked={(0, 1)})
    page.picture(Picture(NOISE, text, text))
    with page.details(text):
        page.paragraph(text)
    read = PageReader(page.html())
    assert read.text.count(text) == 18
    assert read.tags.count("script") == 1
    assert read.tags.count("img") == 1


def test_names_that_no_file_can_hold_are_made_visible() -> None:
    page = Page("a\x00b\udcffc")
    page.html().encode("utf-8")
    assert "a\N{REPLACEMENT CHARACTER}b?c" in PageReader(page.html()).text


@pytest.mark.parametrize("image", [NOISE, NOISE[..., :1], np.dstack([NOISE, NOISE[..., 0]]), png(NOISE)])
def test_pictures_are_inside_the_page(image: np.ndarray | bytes) -> None:
    page = Page("t")
    page.pictures([Picture(image, "one"), Picture(image, "two", "with words")])
    first, second = PageReader(page.html()).pictures
    assert is_drawn(first)
    assert first.shape == NOISE.shape
    assert np.array_equal(first, second)


def test_a_picture_that_is_not_whole_is_refused() -> None:
    whole = png(NOISE)
    huge = whole[:16] + b"\xff\xff\xff\x00" * 2 + whole[24:]
    damaged = bytearray(whole)
    damaged[60] ^= 255
    for data in (b"", b"GIF89a" + whole, whole[:-40], bytes(damaged), huge):
        with pytest.raises(ValueError, match="PNG"):
            Page("t").picture(Picture(data, "broken"))
    assert png_size(whole) == (30, 20)


def test_the_browser_is_told_to_load_nothing_and_run_only_the_pages_script() -> None:
    html = Page("t").html()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    for element in ("style", "script"):
        inside = re.search(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
        assert inside is not None
        digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy[1]
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert not re.search(r"https?:", html)


def test_rows_may_be_short_or_empty() -> None:
    page = Page("t")
    page.table(["a", "b"], [["x", "1"], [], ["heading"]])
    page.table(["a"], [["x"]])
    assert PageReader(page.html()).rows == [["a", "b"], ["x", "1"], [], ["heading"], ["a"], ["x"]]


def test_parts_inside_of_what_is_folded_away_stay_there() -> None:
    page = Page("t")
    with page.details("outer"):
        page.paragraph("before")
        with page.details("inner"):
            page.paragraph("deep")
        page.paragraph("after")
    page.paragraph("last")
    html = page.html()
    tags = re.sub(r"</?(?!details|summary|p)\w+[^>]*>", "", html[html.index("<details>") :])
    assert (
        tags.split("<script>")[0]
        .replace("\n", "")
        .startswith(
            "<details><summary>outer</summary><p>before</p><details><summary>inner</summary><p>deep</p></details>"
            "<p>after</p></details><p>last</p>"
        )
    )
