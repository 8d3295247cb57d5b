import json
import math
import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genray.errors import DataError, Diverged, Interrupted, RunError, StorageFull, TrainingError
from genray.progress import LineDisplay, Tick
from jobs.runs.run import Run
from jobs.train_pix2pix import Pix2Pix
from tests.jobs.conftest import same

Train = Callable[..., dict[str, Any]]
Weights = Callable[[str], dict[str, torch.Tensor]]
RunOf = Callable[[str], Run]


class StopAt(LineDisplay):
    """Asks the run to stop when it has taken `step` steps, as Ctrl-C does."""

    def __init__(self, run: Run, step: int) -> None:
        super().__init__()
        self._run = run
        self._step = step

    def tick(self, tick: Tick) -> None:
        if tick.step == self._step:
            self._run.request_stop()


def history(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.history.read_text().splitlines()]


def test_a_run_leaves_all_that_is_promised(train: Train, run_of: RunOf) -> None:
    outcome = train("a")
    run = run_of("a")
    assert outcome["bundle"] == str(run.bundle)
    assert [row["epoch"] for row in history(run)] == [1, 2]
    row = history(run)[-1]
    assert {
        "gen_total_loss",
        "gen_gan_loss",
        "gen_l1_loss",
        "disc_loss",
        "val_l1",
        "val_psnr",
        "val_ssim",
    } <= set(row)
    assert row["gen_total_loss"] == pytest.approx(row["gen_gan_loss"] + 100 * row["gen_l1_loss"], rel=1e-4)
    assert outcome["metrics"]["l1"] == row["val_l1"]
    for picture in (run.curves, run.samples / "epoch_0002.png", run.samples / "validation.png"):
        assert np.asarray(Image.open(picture)).std() > 10, f"{picture} is blank"
    for file in (
        "checkpoints/last.safetensors",
        "checkpoints/best.safetensors",
        "settings.yaml",
        "outcome.json",
    ):
        assert (run.folder / file).is_file()
    assert list((run.folder / "tensorboard").glob("events*"))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(train: Train, weights: Weights) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(name, f"seed={seed}", "loop.epochs=1")
    assert same(weights("a"), weights("b"))
    assert not same(weights("a"), weights("c"))


@pytest.mark.parametrize(
    "more",
    [("device.channels_last=true",), ("loop.ema=0.9", "loop.accumulate=3", "loop.batch_size=1")],
    ids=["channels last", "average and accumulation"],
)
@pytest.mark.parametrize("step", [2, 6])
def test_a_stopped_run_goes_on_to_the_same_weights(
    train: Train, weights: Weights, run_of: RunOf, step: int, more: tuple[str, ...]
) -> None:
    train("whole", *more)
    with pytest.raises(Interrupted, match="with a checkpoint") as caught:
        train("parts", *more, display=StopAt(run_of("parts"), min(step, 7)))
    assert "--name parts resumes" in str(caught.value)
    outcome = train("parts", *more)
    assert same(weights("whole"), weights("parts"))
    times = {"seconds", "images_per_second"}
    rows = [
        [{k: v for k, v in row.items() if k not in times} for row in history(run_of(n))]
        for n in ("whole", "parts")
    ]
    assert rows[0] == rows[1]
    assert outcome["metrics"]["l1"] == rows[0][-1]["val_l1"]


def test_validations_inside_an_epoch_choose_the_best_weights_too(train: Train, run_of: RunOf) -> None:
    outcome = train("a", "loop.validate_steps=2", "loop.weights=best", "loop.epochs=1")
    (row,) = history(run_of("a"))
    inside = row["validations"]
    assert [(part["step"], "gen_l1_loss" in part) for part in inside] == [(2, False), (4, False)]
    best = min([*inside, row], key=lambda part: part["val_l1"])
    assert outcome["metrics"]["l1"] == pytest.approx(best["val_l1"], rel=1e-5)
    train("b", "loop.validate_steps=5", "loop.epochs=1")
    assert "validations" not in history(run_of("b"))[0], "the one of the epoch follows a step later"


def test_a_kill_after_the_last_checkpoint_costs_no_row_of_history(train: Train, run_of: RunOf) -> None:
    train("a")
    rows = history(run_of("a"))
    run_of("a").outcome.unlink()
    run_of("a").history.write_text("".join(json.dumps(row) + "\n" for row in rows[:1]))
    train("a")
    assert history(run_of("a")) == rows


def test_other_weights_can_be_chosen_for_the_bundle_afterwards(train: Train) -> None:
    train("a", "loop.epochs=3")
    outcome = train("a", "loop.epochs=3", "loop.weights=best")
    assert outcome["metrics"]["l1"] == train("b", "loop.epochs=3", "loop.weights=best")["metrics"]["l1"]


def test_losses_are_logged_even_in_short_runs(train: Train, run_of: RunOf) -> None:
    train("a", "loop.epochs=1")
    (events,) = (run_of("a").folder / "tensorboard").glob("events*")
    logged = events.read_bytes()
    for tag in ("gen_total_loss", "gen_gan_loss", "gen_l1_loss", "disc_loss", "val_l1", "samples"):
        assert tag.encode() in logged, tag


def test_a_finished_run_is_not_trained_again_but_can_be_prolonged(train: Train, run_of: RunOf) -> None:
    first = train("a")
    written = (run_of("a").checkpoints / "last.safetensors").stat().st_mtime_ns
    assert train("a") == first
    assert (run_of("a").checkpoints / "last.safetensors").stat().st_mtime_ns == written
    assert train("a", "loop.epochs=3")["epochs"] == 3
    rows = history(run_of("a"))
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[2]["learning_rate"] == pytest.approx(0.1 * rows[0]["learning_rate"]), "no jump upwards"


def test_epochs_added_to_a_finished_run_survive_a_stop(train: Train, weights: Weights, run_of: RunOf) -> None:
    for name in ("whole", "parts"):
        train(name, "loop.epochs=1")
    train("whole", "loop.epochs=3")
    with pytest.raises(Interrupted):
        train("parts", "loop.epochs=3", display=StopAt(run_of("parts"), 9))
    train("parts", "loop.epochs=3")
    assert same(weights("parts"), weights("whole"))


def test_a_run_refuses_settings_that_its_weights_do_not_fit(train: Train) -> None:
    train("a", "loop.epochs=1")
    with pytest.raises(RunError, match=r"generator\.filters: 4 -> 8"):
        train("a", "loop.epochs=1", "generator.filters=8")


def test_a_checkpoint_of_other_networks_is_named(train: Train, run_of: RunOf) -> None:
    train("a", "loop.epochs=1")
    run_of("a").settings.unlink()
    run_of("a").outcome.unlink()
    with pytest.raises(TrainingError, match="does not fit the networks"):
        train("a", "generator.filters=8")


@pytest.mark.parametrize(
    ("more", "message"),
    [("optimizer.learning_rate=1e30", "too large at step"), ("loop.loss_limit=0.01", "too large at step 1 ")],
)
def test_a_loss_that_explodes_ends_the_run_with_advice(
    train: Train, run_of: RunOf, more: str, message: str
) -> None:
    with pytest.raises(Diverged, match=message) as caught:
        train("a", more)
    assert "optimizer.learning_rate" in str(caught.value)
    assert "none yet" in str(caught.value)
    assert not run_of("a").outcome.exists()


def test_weights_that_are_not_finite_are_never_saved(
    train: Train, run_of: RunOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Pix2Pix.step

    def poisoned(self: Pix2Pix, networks: Any, batch: Any, updater: Any) -> Any:
        losses = step(self, networks, batch, updater)
        with torch.no_grad():
            next(networks["generator"].parameters()).fill_(math.nan)
        return losses

    monkeypatch.setattr(Pix2Pix, "step", poisoned)
    with pytest.raises(Diverged, match="a weight is not finite after step 1"):
        train("a", "loop.checkpoint_steps=1", "loop.epochs=1")
    assert not (run_of("a").checkpoints / "last.safetensors").exists()


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint_whole(
    train: Train, weights: Weights, run_of: RunOf
) -> None:
    with pytest.raises(Interrupted):
        train("a", display=StopAt(run_of("a"), 3))
    before = weights("a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))  # less than a checkpoint
    try:
        with pytest.raises(StorageFull, match=r"no room left to write (last|best)\.safetensors") as caught:
            train("a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "the command resumes from there" in str(caught.value)
    assert same(weights("a"), before)
    train("a")
    train("whole")
    assert same(weights("a"), weights("whole"))


def test_patience_ends_a_run_that_does_not_get_better(train: Train, run_of: RunOf) -> None:
    # With a rate this small nothing changes, and so nothing gets better.
    train("a", "loop.epochs=9", "loop.patience=2", "optimizer.learning_rate=1e-30")
    assert [row["epoch"] for row in history(run_of("a"))] == [1, 2, 3]
    assert run_of("a").outcome.exists()


def test_the_best_weights_can_be_chosen(train: Train, run_of: RunOf) -> None:
    outcome = train("a", "loop.weights=best", "loop.epochs=4")
    values = [row["val_l1"] for row in history(run_of("a"))]
    assert outcome["metrics"]["l1"] == min(values)
    assert outcome["metrics"]["epoch"] == values.index(min(values)) + 1


def test_validation_and_checkpoints_come_as_often_as_asked(train: Train, run_of: RunOf) -> None:
    train("a", "loop.epochs=5", "loop.validate_every=2", "loop.checkpoint_every=3")
    assert [row["epoch"] for row in history(run_of("a")) if "val_l1" in row] == [2, 4, 5]


def test_too_few_samples_for_one_step_is_found_before_training(train: Train) -> None:
    with pytest.raises(DataError, match="12 training samples, but one step takes at least 16") as caught:
        train("a", "loop.accumulate=16")
    assert "lower loop.accumulate" in str(caught.value)


def test_a_batch_that_is_larger_than_the_data_is_made_smaller(train: Train, run_of: RunOf) -> None:
    whole, large = train("whole", "loop.batch_size=12"), train("large", "loop.batch_size=64")
    assert large["metrics"] == whole["metrics"]
    assert train("large", "loop.batch_size=64") == large, "the run knows the settings that it was given"


def test_bf16_channels_last_and_plain_adam_train_too(train: Train) -> None:
    more = ("device.precision=bf16", "device.channels_last=true", "device.fused=false", "loop.clip=1.0")
    assert train("a", *more, "loop.epochs=1")["metrics"]["l1"] < 0.6
