import numpy as np
import pytest

from genray.report.pictures import draw_beats
from tests.beat_files import drawn_beats


def test_the_error_between_a_beat_and_its_reconstruction_is_shaded() -> None:
    beat = drawn_beats(1)[0]
    same = draw_beats([("normal", [("", beat, beat)])], (0.25, 0.45))
    other = draw_beats([("normal", [("", beat, -beat)])], (0.25, 0.45))
    reddish = [(picture[..., 0] > picture[..., 1].astype(int) + 40).sum() for picture in (same, other)]
    assert reddish[1] > 5 * reddish[0] + 500


def test_rows_may_have_fewer_beats_than_others_and_odd_names() -> None:
    beat = drawn_beats(1)[0]
    picture = draw_beats([("a", [("$x_", beat, beat)] * 3), ("\x00", [("", beat, beat)])], (0.25, 0.45))
    assert picture.dtype == np.uint8
    assert picture.shape[1] > picture.shape[0]


def test_no_beats_are_refused() -> None:
    with pytest.raises(ValueError, match="no beats"):
        draw_beats([], (0.25, 0.45))


def test_where_nobody_knows_the_r_peak_samples_are_counted() -> None:
    beat = drawn_beats(1)[0]
    with_peak, without = (draw_beats([("", [("", beat, beat)])], window) for window in ((0.25, 0.45), None))
    assert with_peak.shape == without.shape
    assert not np.array_equal(with_peak[-60:], without[-60:]), "the axis is another"
