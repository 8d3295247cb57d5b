import numpy as np
import pytest

from genray.report.charts import (
    draw_curves,
    draw_distributions,
    draw_matrix,
    draw_rates,
    draw_scatter,
    draw_tradeoff,
)
from genray.report.style import COLOURS
from tests.page_reader import is_drawn

RNG = np.random.default_rng(0)


def has_colour(picture: np.ndarray, colour: str) -> bool:
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(picture.astype(int) - rgb).max(axis=-1) <= 2).any())


def test_a_scatter_shows_a_colour_for_each_label() -> None:
    points, labels = RNG.normal(size=(300, 2)), RNG.integers(0, 3, 300)
    picture = draw_scatter(points, labels, ["shoe", "$bag", "_coat"], "Latent space")
    assert is_drawn(picture)
    assert all(has_colour(picture, colour) for colour in COLOURS[:3])
    assert not has_colour(picture, COLOURS[4])
    assert not has_colour(draw_scatter(points), COLOURS[2])


def test_several_scatters_stand_beside_one_another() -> None:
    points, labels = RNG.normal(size=(50, 2)), np.arange(50) % 30
    one = draw_scatter({"PCA": points}, labels)
    two = draw_scatter({"PCA": points, "t-SNE": points}, labels, [str(i) for i in range(30)])
    assert two.shape[1] - one.shape[1] == 460
    assert is_drawn(two)


def test_points_and_labels_must_fit() -> None:
    with pytest.raises(ValueError, match="points must be"):
        draw_scatter(np.zeros((5, 3)))
    with pytest.raises(ValueError, match="points must be"):
        draw_scatter(np.zeros((5, 2)), np.zeros(4, int))


@pytest.mark.parametrize("count", [1, 10, 40])
def test_a_matrix_is_drawn_at_any_size(count: int) -> None:
    matrix = np.atleast_2d(np.corrcoef(RNG.normal(size=(count, 5))))
    matrix[0, 0] = np.nan
    picture = draw_matrix(matrix, [f"class {i}" for i in range(count)], "Correlation")
    assert is_drawn(picture)
    assert max(picture.shape) < 1500


def test_a_matrix_needs_its_names() -> None:
    with pytest.raises(ValueError, match="names"):
        draw_matrix(np.eye(3), ["a", "b"])


def test_distributions_show_the_threshold_even_beyond_the_values() -> None:
    errors = {"normal": RNG.gamma(4, 0.002, 500), "anomalies": [0.02, np.nan, np.inf]}
    without, inside, beyond = (draw_distributions(errors, t, "MSE") for t in (None, 0.01, 5.0))
    assert is_drawn(without)
    assert is_drawn(inside)
    assert is_drawn(beyond)
    assert not np.array_equal(without, inside)


def test_a_few_huge_errors_do_not_squeeze_the_rest() -> None:
    errors = RNG.gamma(4, 0.002, 1000)
    picture = draw_distributions({"all": np.append(errors, 100.0)})
    # The bars' fill is as wide as without the outlier, not a single column.
    coloured = (picture[..., 2].astype(int) - picture[..., 0] > 20).any(axis=0).sum()
    assert coloured > 400


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0], [-3.0, 2.0], [1e-300, 2e-300]])
def test_few_or_equal_values_have_a_distribution(values: list[float]) -> None:
    assert is_drawn(draw_distributions({"a": values, "none": []}, 1.0))


def test_rates_of_a_perfect_and_of_a_useless_score_differ() -> None:
    labels = RNG.integers(0, 2, 200)
    perfect, useless = draw_rates(labels, labels + 0.0), draw_rates(labels, RNG.random(200))
    assert is_drawn(perfect)
    assert perfect.shape == useless.shape
    assert (perfect != useless).any(axis=-1).mean() > 0.02
    with pytest.raises(ValueError, match="both labels"):
        draw_rates([1, 1], [0.1, 0.2])


def test_a_tradeoff_shows_every_curve() -> None:
    own: list[tuple[float | str, float]] = [(512, 0.004), (64, 0.009), (128, np.nan), (256, 0.006)]
    plain = draw_tradeoff({"trials": own}, "latent size", "MSE", joined=True)
    compared = draw_tradeoff({"trials": own, "PCA": [(64, 0.09)]}, "latent size", "MSE", joined=True)
    assert is_drawn(plain)
    assert not has_colour(plain, COLOURS[1])
    assert has_colour(compared, COLOURS[1])
    apart = draw_tradeoff({"trials": own}, "latent size", "MSE", joined=False)
    assert (apart != plain).any()
    with pytest.raises(ValueError, match="no finite"):
        draw_tradeoff({"trials": [(1, np.nan)], "PCA": []}, "x", "y", joined=True)


@pytest.mark.parametrize("xs", [[0, 3], [-1.5, 1e9], ["conv", "_dense"], list(range(1, 40))])
def test_a_tradeoff_is_against_numbers_or_names(xs: list[float | str]) -> None:
    curves = {"trials": [(x, i - 1.0) for i, x in enumerate(xs)]}
    assert is_drawn(draw_tradeoff(curves, "x", "y", joined=True))


def test_curves_of_several_runs_lie_over_one_another() -> None:
    curves = {f"run {i}": ([1, 2, 3], [1.0, 0.5, i / 10]) for i in range(3)}
    picture = draw_curves({"l1": curves, "psnr": {"run 2": ([1], [20.0])}})
    assert is_drawn(picture)
    assert all(has_colour(picture, colour) for colour in COLOURS[:3])
    with pytest.raises(ValueError, match="no curves"):
        draw_curves({})
