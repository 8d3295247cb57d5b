import numpy as np
import pytest

from genray.report.pictures import (
    BeatExample,
    RestorationExample,
    draw_beats,
    draw_heat_map,
    draw_reconstructions,
    draw_restorations,
    draw_tiles,
)
from tests.beat_files import drawn_beats
from tests.page_reader import is_drawn

RNG = np.random.default_rng(0)


def image(height: int = 28, width: int = 28, channels: int = 1) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(28, 28, 1), (33, 47, 3), (700, 500, 3), (64, 64, 4), (1, 1, 1)])
def test_reconstructions_are_drawn_at_any_size(shape: tuple[int, int, int]) -> None:
    originals = [image(*shape) for _ in range(2)]
    picture = draw_reconstructions(originals, [image(*shape) for _ in range(2)], ["one", "two"])
    assert is_drawn(picture)
    assert 800 <= picture.shape[1] <= 1200, "readable on a page at its own size"


def test_small_images_are_enlarged_by_whole_factors() -> None:
    original = np.zeros((28, 28, 1), np.uint8)
    original[::2, ::2] = 255
    picture = draw_reconstructions([original], [original])
    block = picture[30 : 30 + 196, 20 : 20 + 196]
    assert np.array_equal(block, np.broadcast_to(original.repeat(7, 0).repeat(7, 1), (196, 196, 3)))


def test_the_heat_maps_of_all_rows_share_one_scale() -> None:
    black = np.zeros((28, 28, 1), np.uint8)
    near, far = black + np.uint8(10), black + np.uint8(200)
    together = draw_reconstructions([black, black], [near, far])
    cell = (slice(30, 226), slice(452, 648))
    assert together[cell].mean() < draw_reconstructions([black], [near])[cell].mean() / 2


def test_an_equal_reconstruction_has_no_difference() -> None:
    same = image()
    picture = draw_reconstructions([same], [same])
    assert is_drawn(picture)
    assert picture[30:226, 452:648].max() < 10, "the heat map is black"


def test_rows_may_have_different_sizes() -> None:
    large, small = image(128, 96, 3), image(28, 28, 1)
    examples = [
        RestorationExample(large, large, large, "PSNR 20.17 dB", "PSNR 29.97 dB"),
        RestorationExample(small, small, small),
    ]
    assert is_drawn(draw_restorations(examples))
    assert is_drawn(draw_reconstructions([large, small], [large, small]))


def test_the_captions_of_restorations_are_drawn() -> None:
    clean = image(64, 64, 3)
    captions = "PSNR 20.17 dB  SSIM 0.41", "PSNR 29.97 dB"
    plain = draw_restorations([RestorationExample(clean, clean, clean)])
    captioned = draw_restorations([RestorationExample(clean, clean, clean, *captions)])
    assert plain.shape == captioned.shape
    assert not np.array_equal(plain, captioned)


def test_tiles_are_laid_out_in_rows() -> None:
    picture = draw_tiles([image(28, 28, 3) for _ in range(7)], columns=4, titles=["first"])
    assert is_drawn(picture)
    assert picture.shape == (16 + 2 * 88 + 4, 4 * 88 + 4, 3)
    assert (picture[-80:, -80:] == 255).all(), "the last place is empty"


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="no images"):
        draw_reconstructions([], [])
    with pytest.raises(ValueError, match="no images"):
        draw_restorations([])
    with pytest.raises(ValueError, match="beside one of"):
        draw_reconstructions([image(28, 28)], [image(28, 27)])
    with pytest.raises(ValueError, match="beside one of"):
        draw_restorations([RestorationExample(image(28, 28), image(14, 28), image(28, 28))])
    with pytest.raises(ValueError, match="tiles"):
        draw_tiles([image(28, 28), image(14, 14)])
    with pytest.raises(ValueError, match="uint8"):
        draw_tiles([np.zeros((28, 28, 3), np.float32)])  # type: ignore[list-item]


def test_the_error_between_a_beat_and_its_reconstruction_is_shaded() -> None:
    beat = drawn_beats(1)[0]
    same = draw_beats([("normal", [BeatExample("", beat, beat)])], (0.25, 0.45))
    other = draw_beats([("normal", [BeatExample("", beat, -beat)])], (0.25, 0.45))
    reddish = [(picture[..., 0] > picture[..., 1].astype(int) + 40).sum() for picture in (same, other)]
    assert reddish[1] > 5 * reddish[0] + 500


def test_rows_may_have_fewer_beats_than_others_and_odd_names() -> None:
    beat = drawn_beats(1)[0]
    picture = draw_beats(
        [("a", [BeatExample("$x_", beat, beat)] * 3), ("\x00", [BeatExample("", beat, beat)])], (0.25, 0.45)
    )
    assert picture.dtype == np.uint8
    assert picture.shape[1] > picture.shape[0]


def test_no_beats_are_refused() -> None:
    with pytest.raises(ValueError, match="no beats"):
        draw_beats([], (0.25, 0.45))


def test_where_nobody_knows_the_r_peak_samples_are_counted() -> None:
    beat = drawn_beats(1)[0]
    with_peak, without = (
        draw_beats([("", [BeatExample("", beat, beat)])], window) for window in ((0.25, 0.45), None)
    )
    assert with_peak.shape == without.shape
    assert not np.array_equal(with_peak[-60:], without[-60:]), "the axis is another"


def test_what_differs_glows_and_the_rest_is_gray() -> None:
    before = np.full((20, 20, 3), 90, np.uint8)
    after = before.copy()
    after[5:10, 5:10] = 150
    picture = draw_heat_map(before, after)
    assert picture.shape == (20, 20, 3)
    calm, hot = picture[15, 15].astype(int), picture[7, 7].astype(int)
    assert calm[0] == calm[1] == calm[2]
    assert hot[0] > hot[2] + 100


def test_the_scale_does_not_depend_on_the_image() -> None:
    dark, half = np.zeros((4, 4, 1), np.uint8), np.full((4, 4, 1), 128, np.uint8)
    assert (draw_heat_map(dark, half) == 255).all()
    assert draw_heat_map(dark, np.full_like(dark, 20)).max() < 160
