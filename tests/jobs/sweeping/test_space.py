from typing import Any

import pytest

from genray.errors import SettingsError
from jobs.runs.run import Run
from jobs.sweeping.space import find_points, point_names, short_names


def test_lists_are_combined() -> None:
    space = {"model": {"latent": [64, 128]}, "seed": [0, 1]}
    points = find_points(space, 5, 0)
    assert [tuple(point.values()) for point in points] == [(64, 0), (64, 1), (128, 0), (128, 1)]
    assert list(points[0]) == ["model.latent", "seed"]


def test_ranges_are_drawn_from_between_their_ends() -> None:
    space = {
        "rate": {"min": 1e-5, "max": 1e-1, "log": True},
        "width": {"min": 2, "max": 4},
        "kind": ["a", "b"],
    }
    points = find_points(space, 200, 0)
    rates = [point["rate"] for point in points]
    assert len(set(rates)) > 150
    assert all(1e-5 <= rate <= 1e-1 for rate in rates)
    below = sum(rate < 1e-3 for rate in rates) / len(rates)
    assert 0.4 < below < 0.6, "half the draws are in the lower half of the powers of ten"
    assert {point["width"] for point in points} == {2, 3, 4}


def test_what_yaml_takes_for_a_text_is_a_number_here() -> None:
    assert find_points({"rate": ["1e-4", 1e-3]}, 1, 0) == [{"rate": 1e-4}, {"rate": 1e-3}]
    (point,) = find_points({"rate": {"min": "1e-4", "max": 1e-3, "log": True}}, 1, 0)
    assert 1e-4 <= point["rate"] <= 1e-3


def test_earlier_draws_stay_when_the_sweep_grows() -> None:
    space: dict[str, Any] = {"rate": {"min": 0.0, "max": 1.0}}
    few, many = find_points(space, 3, 7), find_points(space, 6, 7)
    assert many[:3] == few
    wider = find_points({**space, "width": {"min": 1, "max": 100}}, 3, 7)
    assert [point["rate"] for point in wider] == [point["rate"] for point in few]
    assert find_points(space, 3, 8) != few


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "nothing to sweep over"),
        ({"model": {}}, "nothing to sweep over"),
        ({"latent": 64}, r"sweep\.space\.latent(.|\n)*sweep\.settings\.latent"),
        ({"latent": []}, "should be a list"),
        ({"latent": [64, 64]}, "twice"),
        ({"rate": {"min": 0, "max": 1, "log": True}}, "and above 0 with log"),
        ({"rate": {"min": 2, "max": 1}}, "must be below max"),
        ({"rate": {"min": 1}}, "a range must be"),
        ({"rate": {"min": 1, "max": 2, "step": 1}}, "a range must be"),
        ({"a": list(range(40)), "b": list(range(40))}, "1600 trials, but at most"),
    ],
)
def test_what_is_no_space_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        find_points(space, 5, 0)


def test_names_are_readable_apart_and_can_be_folders() -> None:
    points = [
        {"model.latent": 64, "data.path": "/a/mnist"},
        {"model.latent": 64, "data.path": "/b/mnist"},
        {"model.latent": 8, "data.path": "x" * 300},
        {"model.latent": -1.5, "data.path": "é %"},
    ]
    names = point_names(points)
    assert len(set(names)) == 4
    assert names[0].startswith("latent-64_path-mnist_")
    assert names[3].startswith("latent--1.5")
    for name in names:
        Run.named("runs", name, "train-x")
    assert point_names([{"model.latent": 64}, {"model.latent": [16, 8]}]) == ["latent-64", "latent-16-8"]


def test_settings_that_share_their_last_part_keep_the_whole() -> None:
    shorts = short_names(["a.filters", "b.filters", "seed"])
    assert shorts == {"a.filters": "a.filters", "b.filters": "b.filters", "seed": "seed"}
