import pytest
import torch

from jobs.recipes.beats import beat_errors


def test_each_beat_has_an_error_of_its_own() -> None:
    beats = torch.zeros(2, 1, 4)
    made = torch.tensor([[[1.0, -1, 1, -1]], [[0, 0, 0, -4]]])
    assert beat_errors("mse", made, beats).tolist() == [1.0, 4.0]
    assert beat_errors("mae", made, beats).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["mse", "mae"])
def test_half_precision_is_widened_first(kind: str) -> None:
    made = torch.full((1, 1, 4), 300.0, dtype=torch.bfloat16)
    assert beat_errors(kind, made, torch.zeros(1, 1, 4)).dtype == torch.float32  # type: ignore[arg-type]


def test_of_several_networks_the_errors_are_averaged_not_the_reconstructions() -> None:
    made = torch.tensor([1.0, -1.0])[:, None, None, None].expand(2, 3, 1, 4)
    assert beat_errors("mse", made, torch.zeros(3, 1, 4)).tolist() == [1.0, 1.0, 1.0]
