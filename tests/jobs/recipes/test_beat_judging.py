import numpy as np
import pytest

from jobs.recipes.beats import Method, class_table, judge

ABNORMAL = np.array([0, 0, 0, 0, 1, 1, 1, 1], bool)
METHOD = Method("it", np.array([1, 2, 3, 9, 4, 6, 7, 8.0]), 5.0)


def test_rates_are_counted_at_the_threshold() -> None:
    said = judge(METHOD, ABNORMAL)
    assert (said["sensitivity"], said["specificity"], said["accuracy"]) == (0.75, 0.75, 0.75)
    assert (said["precision"], said["normal_precision"], said["f1"]) == (0.75, 0.75, 0.75)
    assert said["auc"] == pytest.approx(12 / 16)
    assert said["above_threshold"] == 0.5


@pytest.mark.parametrize("truth", [None, np.zeros(8, bool), np.ones(8, bool)])
def test_where_only_one_kind_is_known_there_are_no_rates(truth: np.ndarray | None) -> None:
    assert judge(METHOD, truth) == {"threshold": 5.0, "above_threshold": 0.5}


def test_each_class_has_its_recall_by_every_method() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    other = Method("other", np.zeros(8), 1.0)
    table = class_table([METHOD, other], labels, ("N", "S", "V"), (0,))
    assert table.columns == ["class", "kind", "beats", "it", "other"]
    assert table.rows == [
        ["N", "normal", 4, 0.75, 1.0],
        ["S", "abnormal", 2, 0.5, 0.0],
        ["V", "abnormal", 2, 1.0, 0.0],
    ]
