from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jobs.recipes.beats import (
    BeatEvalSettings,
    BeatGallery,
    BeatRow,
    Detector,
    beat_errors,
    class_table,
    nearest_neighbour,
    plain_detectors,
    principal_components,
    rate,
)
from jobs.recipes.threshold import ThresholdSettings
from tests.beat_files import drawn_beats

# In float64: a distance is the root of a difference of squares, so half the digits of a small one are lost.
NORMAL, OTHERS, STRANGE = (
    beats.astype(np.float64)
    for beats in (drawn_beats(60), drawn_beats(20, seed=9), drawn_beats(20, abnormal=True))
)
ROUNDING = 1e-12  # of a squared distance: sums of 140 squares, 150 in all


def test_principal_components_reconstruct_what_lies_in_their_space() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(2, 30))
    normal = (rng.normal(size=(50, 2)) @ plane).astype(np.float32)
    judged = np.concatenate([(rng.normal(size=(1, 2)) @ plane), rng.normal(size=(1, 30))]).astype(np.float32)
    inside, outside = principal_components(2)(normal, judged)
    assert inside < 1e-6 < 0.1 < outside


def test_the_nearest_neighbour_of_a_beat_that_was_learned_is_itself() -> None:
    errors = nearest_neighbour(1000, 0)(NORMAL, np.concatenate([NORMAL[:1], NORMAL[:1] + 1]))
    assert errors[0] <= ROUNDING**0.5
    plain = np.sqrt(np.square(NORMAL - NORMAL[0] - 1).sum(axis=1)).min()
    assert errors[1] == pytest.approx(plain, rel=ROUNDING)


def test_references_are_limited_by_a_draw_of_the_seed() -> None:
    whole, few, again, other = (
        nearest_neighbour(n, s)(NORMAL, OTHERS) for n, s in ((60, 0), (5, 0), (5, 0), (5, 1))
    )
    assert (few**2 >= whole**2 - ROUNDING).all()
    np.testing.assert_array_equal(few, again)
    assert not np.array_equal(few, other)


def test_each_detector_gets_a_threshold_from_beats_that_it_did_not_learn() -> None:
    folds = [np.arange(0, 30), np.arange(30, 60)]
    judged = np.concatenate([OTHERS, STRANGE])
    detectors = plain_detectors(
        BeatEvalSettings(),
        ThresholdSettings(),
        latent=4,
        seed=0,
        normal=NORMAL,
        folds=folds,
        judged=judged,
    )
    assert [detector.name for detector in detectors] == ["mean-beat", "pca-4", "pca-8", "1-nn"]
    for detector in detectors:
        above = detector.errors > detector.threshold
        assert above[20:].all(), detector.name
        assert above[:20].mean() <= 0.35, detector.name


def test_a_single_normal_beat_has_no_components_and_yet_an_error() -> None:
    assert np.isfinite(principal_components(8)(NORMAL[:1], OTHERS)).all()


def test_each_beat_has_an_error_of_its_own() -> None:
    beats = torch.zeros(2, 1, 4)
    reconstructions = torch.tensor([[[1.0, -1, 1, -1]], [[0, 0, 0, -4]]])
    assert beat_errors("mse", reconstructions, beats).tolist() == [1.0, 4.0]
    assert beat_errors("mae", reconstructions, beats).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["mse", "mae"])
def test_half_precision_is_widened_first(kind: str) -> None:
    reconstructions = torch.full((1, 1, 4), 300.0, dtype=torch.bfloat16)
    assert beat_errors(kind, reconstructions, torch.zeros(1, 1, 4)).dtype == torch.float32  # type: ignore[arg-type]


def test_of_several_networks_the_errors_are_averaged_not_the_reconstructions() -> None:
    reconstructions = torch.tensor([1.0, -1.0])[:, None, None, None].expand(2, 3, 1, 4)
    assert beat_errors("mse", reconstructions, torch.zeros(3, 1, 4)).tolist() == [1.0, 1.0, 1.0]


ABNORMAL = np.array([0, 0, 0, 0, 1, 1, 1, 1], bool)
DETECTOR = Detector("it", np.array([1, 2, 3, 9, 4, 6, 7, 8.0]), 5.0)


def test_rates_are_counted_at_the_threshold() -> None:
    rates = rate(DETECTOR, ABNORMAL)
    assert (rates["sensitivity"], rates["specificity"], rates["accuracy"]) == (0.75, 0.75, 0.75)
    assert (rates["precision"], rates["normal_precision"], rates["f1"]) == (0.75, 0.75, 0.75)
    assert rates["auc"] == pytest.approx(12 / 16)
    assert rates["above_threshold"] == 0.5


@pytest.mark.parametrize("abnormal", [None, np.zeros(8, bool), np.ones(8, bool)])
def test_where_only_one_kind_is_known_there_are_no_rates(abnormal: np.ndarray | None) -> None:
    assert rate(DETECTOR, abnormal) == {"threshold": 5.0, "above_threshold": 0.5}


def test_each_class_has_its_recall_by_every_detector() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    other = Detector("other", np.zeros(8), 1.0)
    table = class_table([DETECTOR, other], labels, ("N", "S", "V"), (0,))
    assert table.columns == ["class", "kind", "beats", "it", "other"]
    assert table.rows == [
        ["N", "normal", 4, 0.75, 1.0],
        ["S", "abnormal", 2, 0.5, 0.0],
        ["V", "abnormal", 2, 1.0, 0.0],
    ]


SPREAD_DETECTOR = Detector("it", np.array([1.0, 2, 9, 4, 3, 8, 7, 6]), 5.0)
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2])


def pictures_of(
    detector: Detector, abnormal: NDArray[np.bool_] | None, labels: NDArray[np.int64]
) -> tuple[list[str], list[BeatRow]]:
    """The names of the pictures, and the rows of beats in them."""
    drawn: list[BeatRow] = []

    def draw(rows: Sequence[BeatRow]) -> NDArray[np.uint8]:
        drawn.extend(rows)
        return np.zeros((4, 4, 3), np.uint8)

    gallery = BeatGallery(detector, abnormal, labels, ("N", "S", "V"), draw, most=2, error="MSE")
    return [picture.name for picture in gallery.pictures()], drawn


def test_both_kinds_are_shown_and_all_that_went_wrong() -> None:
    names, rows = pictures_of(SPREAD_DETECTOR, LABELS > 0, LABELS)
    assert names == ["errors", "rates", "beats", "mistakes"]
    by_title = {row.title: (list(row.places), list(row.captions)) for row in rows}
    assert set(by_title["normal"][0]) <= {0, 1, 2, 3}
    assert sorted(LABELS[by_title["abnormal"][0]]) == [1, 2], "a beat of each class"
    assert by_title["missed"] == ([4], ["S: 3"])
    assert by_title["suspected"] == ([2], ["N: 9"])


def test_without_classes_there_are_beats_and_errors_alone() -> None:
    names, rows = pictures_of(SPREAD_DETECTOR, None, np.full(8, -1))
    assert names == ["errors", "beats"]
    assert [row.title for row in rows] == ["beats"]


def test_normal_beats_alone_have_no_rates() -> None:
    names, _ = pictures_of(SPREAD_DETECTOR, np.zeros(8, bool), np.zeros(8, np.int64))
    assert names == ["errors", "beats", "mistakes"]
