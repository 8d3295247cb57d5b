from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.recipes.beats import Method, PictureRow, beat_pictures

METHOD = Method("it", np.array([1.0, 2, 9, 4, 3, 8, 7, 6]), 5.0)
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2])


def drawn(
    method: Method, abnormal: NDArray[np.bool_] | None, labels: NDArray[np.int64]
) -> tuple[list[str], list[PictureRow]]:
    rows: list[PictureRow] = []

    def draw(some: Sequence[PictureRow]) -> NDArray[np.uint8]:
        rows.extend(some)
        return np.zeros((4, 4, 3), np.uint8)

    pictures = beat_pictures(method, abnormal, labels, ("N", "S", "V"), draw, most=2, error="MSE")
    return [picture.name for picture in pictures], rows


def test_both_kinds_are_shown_and_all_that_went_wrong() -> None:
    names, rows = drawn(METHOD, LABELS > 0, LABELS)
    assert names == ["errors", "rates", "beats", "mistakes"]
    shown = {title: (list(places), list(captions)) for title, places, captions in rows}
    assert set(shown["normal"][0]) <= {0, 1, 2, 3}
    assert sorted(LABELS[shown["abnormal"][0]]) == [1, 2], "a beat of each class"
    assert shown["missed"] == ([4], ["S: 3"])
    assert shown["suspected"] == ([2], ["N: 9"])


def test_without_classes_there_are_beats_and_errors_alone() -> None:
    names, rows = drawn(METHOD, None, np.full(8, -1))
    assert names == ["errors", "beats"]
    assert [title for title, _, _ in rows] == ["beats"]


def test_normal_beats_alone_have_no_rates() -> None:
    names, _ = drawn(METHOD, np.zeros(8, bool), np.zeros(8, np.int64))
    assert names == ["errors", "beats", "mistakes"]
