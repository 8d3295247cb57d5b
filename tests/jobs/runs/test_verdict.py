import math

import pytest

from jobs.runs.verdict import Verdict, judge

TRIVIAL = {"noisy": "leaving the images unchanged", "constant": "one constant colour"}


def verdict_of(value: float, metric: str = "psnr", **baselines: float) -> Verdict:
    verdict = judge(
        {metric: value, "epoch": 3},
        {name: {metric: rival} for name, rival in baselines.items()},
        compared_by=("auroc", metric),
        trivial=TRIVIAL,
        advice="more epochs",
    )
    assert verdict is not None
    return verdict


def test_a_model_below_the_best_trivial_predictor_is_worse_and_told_what_to_try() -> None:
    verdict = verdict_of(21.6, noisy=34.2, constant=9.0)
    assert verdict.quality == "worse-than-trivial"
    assert verdict.text == (
        "worse than leaving the images unchanged: psnr 21.6 dB against 34.2; what to try: more epochs"
    )


def test_a_tie_counts_as_worse() -> None:
    verdict = verdict_of(34.2, noisy=34.2)
    assert verdict.is_worse
    assert verdict.text.startswith("no better than leaving the images unchanged: ")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_finite_number_is_worse(value: float) -> None:
    assert verdict_of(value, noisy=34.2).is_worse


@pytest.mark.parametrize(("metric", "better", "worse"), [("psnr", 31, 29), ("l1", 0.1, 0.3), ("mse", 1, 3)])
def test_the_direction_is_that_of_the_metric(metric: str, better: float, worse: float) -> None:
    limit = (better + worse) / 2
    assert verdict_of(better, metric, noisy=limit).quality == "better-than-trivial"
    assert verdict_of(worse, metric, noisy=limit).quality == "worse-than-trivial"


def test_a_model_behind_a_method_is_not_worse_than_trivial() -> None:
    verdict = verdict_of(30.0, noisy=20.0, bm3d=31.0, median=25.0)
    assert verdict.quality == "better-than-trivial"
    assert verdict.behind == ("bm3d",)
    assert verdict.text == (
        "better than leaving the images unchanged: psnr 30 dB against 20; behind bm3d (31)"
    )


def test_the_first_metric_that_both_have_counts() -> None:
    verdict = judge(
        {"auroc": 0.4, "mse": 0.1},
        {"guessing": {"auroc": 0.5}, "mean": {"mse": 9.0}},
        compared_by=("auroc", "mse"),
        trivial={"guessing": "guessing", "mean": "the mean image"},
        advice="",
    )
    assert verdict is not None
    assert verdict.is_worse


def test_without_a_trivial_predictor_there_is_no_verdict() -> None:
    metrics = {"l1": 0.1}
    assert judge(metrics, {"pca": {"l1": 0.2}}, compared_by=("l1",), trivial=TRIVIAL, advice="") is None
