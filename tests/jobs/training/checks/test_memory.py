from pathlib import Path

import pytest

from genray.errors import SettingsError
from genray.settings.load import load
from genray.targets import find_target
from jobs.training.checks.memory import TrainingMemory, machine_memory
from tests.conftest import write_images


def test_a_network_larger_than_the_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"needs 40 GB .* machine has 24 GB"):
        TrainingMemory(int(40e9), 0, int(24e9), "machine").check()
    TrainingMemory(int(20e9), int(10e9), int(24e9), "machine").check()  # an estimate only warns


def test_a_batch_larger_than_the_machine_is_warned_of() -> None:
    assert "lower loop.batch_size" in TrainingMemory(int(10e9), int(20e9), int(24e9), "machine").text
    assert "lower" not in TrainingMemory(int(1e9), int(2e9), int(24e9), "machine").text


def test_the_machine_has_memory() -> None:
    assert machine_memory() > 2**28


def test_a_training_says_its_memory_first(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 12, size=(24, 24))
    target = find_target("train-autoencoder").load()
    sets = [
        f"data.path={tmp_path / 'images'}",
        f"runs={tmp_path / 'runs'}",
        "model.kind=conv",
        "data.channels=1",
    ]
    settings = load(target.settings_class, target="train-autoencoder", sets=sets)
    prepared = target.prepare(settings, "train-autoencoder", "a", lambda text: None)
    (line,) = [line for line in prepared.lines if line.startswith("memory to train: about ")]
    # Each parameter has four values of four bytes: the weight, its gradient, and two means of Adam.
    parameters = next(line for line in prepared.lines if line.endswith(" parameters"))
    count = int(parameters.split(": ")[-1].split()[0].replace(",", ""))
    assert f"optimizer {16 * count / 1e6:.3g} MB" in line
