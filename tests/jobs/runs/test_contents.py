import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from genray.errors import RunError
from genray.images.pixels import save_png
from genray.settings.base import flatten
from genray.settings.load import load
from jobs.runs.contents import read_contents
from jobs.runs.run import Run
from jobs.train_destamper import TrainDestamperSettings

NOISE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A folder with nothing but settings: the least that is a run."""
    run = Run(tmp_path / "runs" / "first")
    run.samples.mkdir(parents=True)
    run.settings.write_text(yaml.safe_dump({"seed": 3, "loop.epochs": 5}))
    return run


def list_pictures(run: Run, *rows: Any) -> None:
    (run.samples / "pictures.json").write_text(json.dumps(rows))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="it does not exist"):
        read_contents(Run(tmp_path / "none"))
    with pytest.raises(RunError, match=r"it has no settings\.yaml") as caught:
        read_contents(Run(tmp_path))
    assert "runs/first" in str(caught.value)


def test_a_run_that_has_just_begun_is_read(run: Run) -> None:
    contents = read_contents(run)
    assert not contents.finished
    assert (contents.metrics, contents.baselines, contents.history, contents.pictures) == ({}, {}, [], {})
    assert contents.settings == contents.changed == {"seed": 3, "loop.epochs": 5}, "of no known target"
    assert contents.notes == []


def test_before_the_end_the_metrics_are_those_of_the_last_validation(run: Run) -> None:
    rows = [{"epoch": 1, "val_l1": 0.5}, {"epoch": 2, "val_l1": 0.4}, {"epoch": 3, "disc_loss": 0.7}]
    run.history.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"epoch": 4, "va')
    contents = read_contents(run)
    assert contents.metrics == {"l1": 0.4, "epoch": 2}
    assert len(contents.history) == 3


def test_a_finished_run_is_read(train: Callable[..., Any], run_of: Callable[[str], Run]) -> None:
    outcome = train("first", "loop.epochs=1")
    contents = read_contents(run_of("first"))
    assert contents.finished
    assert contents.target == "train-pix2pix"
    assert contents.metrics == {k: v for k, v in outcome["metrics"].items() if k != "baselines"}
    assert contents.baselines == outcome["metrics"]["baselines"]
    assert {"generator.filters", "loop.epochs"} <= contents.changed.keys()
    assert not {"loss.l1", "loop.accumulate"} & contents.changed.keys(), "these are the defaults"
    assert contents.changed["loop.ema"] == 0, "the shipped YAML has another"
    assert list(contents.pictures) == ["validation.png"]
    assert contents.parameters is not None
    assert 1000 < contents.parameters < 10**6
    assert contents.notes == []
    assert list(contents.networks) == ["generator", "discriminator"]
    assert contents.networks["generator"].parameters == contents.parameters


def test_layers_that_are_none_are_left_out(run: Run) -> None:
    good = {"name": "a", "kind": "Linear", "output": [3], "parameters": 6}
    bad = [{}, 7, {**good, "output": "3"}, {**good, "output": [-1]}, {**good, "parameters": 1e9}]
    networks = {"net": {"layers": [good, *bad], "parameters": 6}, "odd": {"layers": 5}, "none": None}
    (run.samples / "networks.json").parent.mkdir(exist_ok=True)
    (run.samples / "networks.json").write_text(json.dumps(networks))
    (network,) = read_contents(run).networks.values()
    assert [layer.name for layer in network.layers] == ["a"]


def test_pictures_come_in_the_order_of_their_list(run: Run) -> None:
    for name in ("b.png", "a.png", "validation.png"):
        save_png(run.samples / name, NOISE)
    list_pictures(run, {"file": "b.png", "title": "B", "caption": "two"}, {"file": "a.png"})
    pictures = read_contents(run).pictures
    assert [(p.title, p.caption) for p in pictures.values()] == [("B", "two"), ("a.png", "")]
    assert list(pictures) == ["b.png", "a.png"]


def test_without_a_list_there_are_the_samples_of_the_last_epoch(run: Run) -> None:
    for epoch in (1, 2):
        save_png(run.samples / f"epoch_{epoch:04d}.png", NOISE)
    assert list(read_contents(run).pictures) == ["epoch_0002.png"]
    save_png(run.samples / "validation.png", NOISE)
    assert list(read_contents(run).pictures) == ["validation.png"]


def test_nothing_outside_the_folder_is_read(run: Run, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    save_png(secret, NOISE)
    (run.samples / "link.png").symlink_to(secret)
    rows = [{"file": name} for name in ("../../../secret.png", str(secret), "link.png")]
    list_pictures(run, *rows)
    run.outcome.symlink_to(tmp_path / "other.json")
    (tmp_path / "other.json").write_text('{"epochs": 1}')
    contents = read_contents(run)
    assert contents.pictures == {}
    assert not contents.finished
    assert sum("outside the run's folder" in note for note in contents.notes) == 4


def test_what_is_damaged_or_absurd_is_left_out_with_a_note(run: Run) -> None:
    run.outcome.write_text("{bad")
    (run.folder / "data.json").write_text("[" * 1500)
    run.history.write_text('{"epoch": 1, "val_l1": 0.5}\n' * 100)
    (run.samples / "broken.png").write_bytes(b"GIF89a")
    os.mkfifo(run.samples / "pipe.png")
    run.bundle.mkdir()
    (run.bundle / "weights.safetensors").write_bytes(b"\xff" * 100)
    list_pictures(run, {"file": "broken.png"}, {"file": "pipe.png"}, {"file": "a\0b"}, {"file": "x" * 999}, 7)
    contents = read_contents(run, max_text=2000)
    assert contents.history == []
    assert contents.pictures == {}
    assert contents.parameters is None
    notes = "\n".join(contents.notes)
    for part in (
        "outcome.json",
        "data.json",
        "history.jsonl was left out: it is larger",
        "broken.png",
        "pipe",
    ):
        assert part in notes


ALIASES = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize("text", ["a: [", "- 1", ALIASES, "\xff"])
def test_damaged_settings_do_not_hide_the_rest(run: Run, text: str) -> None:
    run.settings.write_text(text, encoding="latin-1")
    run.outcome.write_text(json.dumps({"target": "loop", "metrics": {"l1": 0.5}, "epochs": 2}))
    contents = read_contents(run)
    assert contents.settings == {}
    assert contents.metrics == {"l1": 0.5}
    assert contents.notes == ["settings.yaml was left out: it is damaged"]


def test_the_target_that_a_file_names_is_imported_only_if_it_is_one(run: Run) -> None:
    for name in ("loop", "../configs/train-pix2pix", "train-none", "os"):
        run.outcome.write_text(json.dumps({"target": name}))
        assert read_contents(run).defaults == {}
    run.outcome.write_text(json.dumps({"target": "train-pix2pix"}))
    assert read_contents(run).defaults["data.direction"] == "BtoA"


def test_what_a_choice_brings_along_is_no_change_of_the_users(run: Run) -> None:
    sets = ["preset=quality", "model.kind=conv", "loop.epochs=7"]
    settings = load(TrainDestamperSettings, target="train-destamper", sets=sets)
    run.outcome.write_text(json.dumps({"target": "train-destamper"}))
    run.settings.write_text(yaml.safe_dump(flatten(settings)))
    assert read_contents(run).changed == {"preset": "quality", "model.kind": "conv", "loop.epochs": 7}
    alone = load(TrainDestamperSettings, target="train-destamper", sets=["preset=quality"])
    run.settings.write_text(yaml.safe_dump(flatten(alone)))
    assert read_contents(run).changed == {"preset": "quality"}


def test_tables_of_the_recipe_are_read(run: Run) -> None:
    rows = [{"title": "t", "columns": ["a", "b"], "rows": [[1, 2, 3], ["x", None]]}, {"title": "no rows"}, 5]
    (run.samples / "tables.json").write_text(json.dumps(rows))
    (table,) = read_contents(run).tables
    assert (table.title, table.columns, table.rows) == ("t", ["a", "b"], [[1, 2], ["x", None]])


def test_numbers_that_no_float_holds_do_no_harm(run: Run) -> None:
    run.outcome.write_text('{"epochs": 1, "metrics": {"mse": %s, "psnr": NaN}}' % ("9" * 400))
    assert read_contents(run).metrics["mse"] == float("inf")
