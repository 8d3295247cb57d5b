"""The programs in examples/ do what they say, run as a user runs them."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genray.bundle import ImageSpec, Preprocessing, save_bundle
from genray.ecg.synthesis import Episode, generate
from genray.images.tensors import to_network, to_pixels
from genray.models.registry import NetworkSpec
from monitors.outputs.journal import Journal, JournalSettings
from tests.monitors.bundles import fit_beats
from tests.monitors.transitions import ONSET

ROOT = Path(__file__).parents[1]


def run(folder: Path, example: str, *arguments: object) -> str:
    """What the example prints, run in `folder`."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / example), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("name", "channels", "span"), [("unet", 1, (-1, 1)), ("restorer-conv", 3, (0, 1))])
def test_any_bundle_of_images_is_used(
    tmp_path: Path, name: str, channels: int, span: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    unet = {"in_channels": 3, "out_channels": 1, "size": 64, "settings": {"filters": 4}}
    spec = NetworkSpec(name, unet if name == "unet" else {"channels": 3, "settings": {}})
    network = spec.build().eval()
    takes, gives = ImageSpec(channels=3, range=span), ImageSpec(channels=channels, range=span)
    save_bundle(
        tmp_path / "bundle",
        network,
        spec,
        kind="any",
        preprocessing=Preprocessing(input=takes, output=gives, size=(64, 64)),
        metrics={},
        seed=0,
        data={},
    )
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "given.png")
    run(tmp_path, "use_a_bundle.py", "bundle", "given.png", "made.png")
    with torch.inference_mode():
        want = to_pixels(network(to_network(image[None], span=span)), span=span)[0]
    made = np.asarray(Image.open(tmp_path / "made.png")).reshape(want.shape)
    assert np.abs(made.astype(int) - want).max() <= 1, "another process may round the last bit otherwise"
    assert made.std() > 1


def test_a_custom_step_runs_over_a_store_and_its_ledger_is_read(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(image).save(photos / "whole.png")
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    run(tmp_path, "custom_step.py", "photos", "inverted")
    assert (np.asarray(Image.open(tmp_path / "inverted" / "whole.png")) == 255 - image).all()
    printed = run(tmp_path, "read_a_ledger.py", "inverted").splitlines()
    assert "done: 1" in printed
    assert "failed: 1" in printed
    assert any(line.startswith("broken.png: truncated: ") for line in printed)


def test_a_custom_source_is_watched(tmp_path: Path) -> None:
    fit_beats(tmp_path / "bundle")
    made = generate(60, seed=3, script=[Episode("asystole", 30, 15)])
    np.save(tmp_path / "samples.npy", made.millivolts)
    printed = run(tmp_path, "custom_source.py", "bundle", "samples.npy", 360)
    assert "heart rate" in printed
    assert "asystole, high priority: onset" in printed


def test_alarms_are_queried(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal.sqlite", ["page"], JournalSettings()) as journal:
        journal.record([replace(ONSET, onset=1_700_000_000.0, time=1_700_000_004.0)])
    printed = run(tmp_path, "query_alarms.py", ".")
    assert "2023-11-14 22:13:20" in printed
    assert "bed-1 asystole high" in printed
    assert "1 alarms on 1 beds" in printed


def test_photographs_are_reduced(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("large.jpg", (400, 200)), ("small.png", (60, 50)), ("note.txt", None)):
        if size is None:
            (tmp_path / "in" / name).write_text("no image")
        else:
            Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / "in" / name)
    printed = run(tmp_path, "shrink_photographs.py", "in", "out", 100)
    assert "large.jpg: 100x200" in printed
    with Image.open(tmp_path / "out" / "small.png") as small:
        assert small.size == (30, 36)
    with Image.open(tmp_path / "out" / "large_x1.5.png") as soft:
        assert soft.size == (150, 300)
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == [f"{name}{ending}.png" for name in ("large", "small") for ending in ("", "_x1.5", "_x2.2")]
