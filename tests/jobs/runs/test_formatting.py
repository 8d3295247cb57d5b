from jobs.runs.formatting import best_places, exact_text, metric_direction, short_text


def test_the_better_of_two_is_known_by_the_metrics_name() -> None:
    names = ("val_psnr", "inside.mse", "ssim_loss", "auroc", "latent")
    assert [metric_direction(name) for name in names] == [1, -1, -1, 1, 0]
    assert best_places("psnr", [20.0, 30.0, None, float("nan"), 30.0]) == {1, 4}
    assert best_places("mse", [0.2, 0.1]) == {1}
    assert best_places("mse", [0.1, 0.1]) == best_places("mse", [0.1, None]) == set()
    assert best_places("latent", [1.0, 2.0]) == set()


def test_values_are_short_to_read_and_settings_exact_text() -> None:
    assert [short_text(v) for v in (0.123456, True, None, 12, 123456, [1, [2]])] == [
        "0.1235", "true", "null", "12", "123,456", "[1, [2]]",
    ]  # fmt: skip
    assert len(short_text([[[[[0] * 1000] * 1000] * 1000] * 1000])) < 20_000
    assert [exact_text(v) for v in (0.99991234, 1e5, 2e-4)] == ["0.99991234", "100000", "0.0002"]
