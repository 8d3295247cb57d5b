import math

import pytest
import torch

from genray.models.parts.losses import Adversarial, adversarial_loss


@pytest.mark.parametrize(("kind", "undecided"), [("bce", math.log(2)), ("least-squares", 0.0)])
def test_confident_scores_cost_little_if_right_and_much_if_wrong(kind: Adversarial, undecided: float) -> None:
    high = torch.full((2, 1, 3, 3), 5.0 if kind == "bce" else 1.0)
    assert adversarial_loss(high, kind, real=True) < 0.01
    assert adversarial_loss(high, kind, real=False) > 0.9
    assert float(adversarial_loss(torch.zeros(4), kind, real=False)) == pytest.approx(undecided)


def test_half_precision_scores_give_a_float_loss() -> None:
    assert adversarial_loss(torch.zeros(4, dtype=torch.bfloat16), "bce", real=True).dtype == torch.float32
