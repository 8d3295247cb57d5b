from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from genray.errors import Interrupted
from genray.progress import LineDisplay
from jobs.recipes.cross_fitting import CrossFit, SampleLosses, first_component, folds_of
from jobs.runs.run import Run
from jobs.training.device import DeviceSettings, open_device
from jobs.training.follow_up import FollowUp
from jobs.training.optimisation.optimizer import AdamSettings
from jobs.training.settings import LoopSettings

SAMPLES = np.random.default_rng(0).normal(size=(40, 1, 6)).astype(np.float32)


class Memory(nn.Module):
    """Remembers the samples that it was trained on, by their sums."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.learned: set[float] = set()


def learn(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    assert isinstance(network, Memory)
    network.learned |= {round(float(row.sum()), 4) for row in batch}
    return network.weight * batch.square().mean(dim=(1, 2))


def has_learned(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    assert isinstance(network, Memory)
    return torch.tensor([float(round(float(row.sum()), 4) in network.learned) for row in batch])


def cross_fit(
    error: SampleLosses = has_learned,
    *,
    optimizer: AdamSettings | None = None,
    settings: dict[str, int] | None = None,
    ema: float = 0.0,
) -> CrossFit:
    return CrossFit(
        make_network=Memory,
        loss=learn,
        error=error,
        optimizer=optimizer or AdamSettings(),
        fused=True,
        loop=LoopSettings(epochs=3, batch_size=8, ema=ema),
        repeats=2,
        seed=0,
        settings=settings or {},
    )


@pytest.fixture
def work(tmp_path: Path) -> FollowUp:
    return FollowUp(Run(tmp_path), open_device(DeviceSettings(threads=1), gpu=False), LineDisplay(), epoch=3)


def test_no_sample_is_scored_by_a_network_that_learned_it(work: FollowUp) -> None:
    folds = plain_folds(40, 5)
    assert cross_fit().errors(SAMPLES, folds, work).sum() == 0


def test_every_other_sample_is_learned(work: FollowUp) -> None:
    def count_learned(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        assert isinstance(network, Memory)
        return torch.full((len(batch),), float(len(network.learned)))

    errors = cross_fit(count_learned).errors(SAMPLES, [np.arange(20)], work)
    assert set(errors[:20]) == {20.0}


def test_the_average_of_the_weights_scores_where_the_loop_keeps_one(work: FollowUp) -> None:
    def weight(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        assert isinstance(network, Memory)
        return network.weight * torch.ones(len(batch))

    fast = AdamSettings(learning_rate=0.1)
    last, mean = (
        cross_fit(weight, optimizer=fast, ema=ema).errors(SAMPLES, plain_folds(40, 2), work)
        for ema in (0.0, 0.9)
    )
    assert (mean > last).all(), "weights fall, so their average is above the last"


def test_folds_that_are_done_are_kept_until_something_else_is_asked_for(
    work: FollowUp,
) -> None:
    trained: list[int] = []

    def counting(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        trained.append(len(batch))
        return torch.arange(float(len(batch)))

    def errors(folds: int = 2, **settings: int) -> list[float]:
        fit = cross_fit(counting, settings=settings)
        return list(fit.errors(SAMPLES, plain_folds(40, folds), work))

    first = errors()
    assert trained == [20, 20]
    assert errors() == first
    assert trained == [20, 20], "nothing was scored again"
    errors(width=3)
    errors(folds=4, width=3)
    assert trained == [20, 20, 20, 20, 10, 10, 10, 10]
    (work.run.checkpoints / "folds.safetensors").write_bytes(b"damaged")
    errors(folds=4, width=3)
    assert len(trained) == 12


def test_a_stop_ends_it_at_once(work: FollowUp) -> None:
    work.run.request_stop()
    with pytest.raises(Interrupted, match="stopped after the last epoch, calibration step 1 of"):
        cross_fit().errors(SAMPLES, plain_folds(40, 5), work)


def test_folds_part_all_samples_into_parts_of_one_size() -> None:
    folds = plain_folds(42, 5)
    assert sorted(np.concatenate(folds).tolist()) == list(range(42))
    assert {len(fold) for fold in folds} <= {8, 9}
    assert not np.array_equal(folds[0], folds_of(np.arange(42), 5, 1, np.zeros(42))[0])
    assert [len(fold) for fold in plain_folds(3, 5)] == [1, 1, 1]


def test_samples_that_are_alike_go_into_different_folds() -> None:
    values = np.random.default_rng(0).normal(size=(50, 1, 8)).astype(np.float32)
    values[7:12] += 100  # a rare kind
    folds = folds_of(np.arange(50), 5, 0, first_component(values))
    assert [len(set(fold) & set(range(7, 12))) for fold in folds] == [1] * 5


def test_a_record_is_in_one_fold() -> None:
    groups = np.repeat(np.arange(7), [50, 10, 10, 10, 10, 10, 20])
    folds = folds_of(groups, 3, 0, np.zeros(120))
    assert sum(len(set(groups[fold])) for fold in folds) == 7
    assert sorted(len(fold) for fold in folds) == [30, 40, 50]
    for records in (2, 3, 4):
        groups = np.repeat(np.arange(records), 30)
        few = folds_of(groups, 5, 0, np.zeros(len(groups)))
        assert sorted((set(groups[fold]) for fold in few), key=min) == [{record} for record in range(records)]


def test_the_beats_of_a_single_record_are_parted() -> None:
    assert [len(fold) for fold in folds_of(np.zeros(60, np.int64), 3, 0, np.zeros(60))] == [20, 20, 20]


def plain_folds(count: int, folds: int) -> list[np.ndarray]:
    return folds_of(np.arange(count), folds, 0, np.zeros(count))
