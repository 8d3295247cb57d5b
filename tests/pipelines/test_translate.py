import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genray.bundle import load_bundle
from genray.images.tensors import to_network, to_pixels
from tests.pipelines.conftest import Bulk, photo, rows_of


@pytest.fixture
def bundle(bundle_of: Callable[[str], Path]) -> Path:
    return bundle_of("pix2pix")


def made_by(bundle: Path, image: np.ndarray) -> np.ndarray:
    network = load_bundle(bundle).network
    with torch.inference_mode():
        return to_pixels(network(to_network(image[None])))[0]


def save(folder: Path, name: str, pixels: np.ndarray) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return pixels


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_an_image_of_the_trained_size_is_what_the_network_makes(
    bulk: Bulk, bundle: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    images = [save(tmp_path / "in", f"{i}.png", photo(rng, 64, 64)) for i in range(3)]
    bulk("translate", f"input={tmp_path / 'in'}", f"bundle={bundle}")
    for index, image in enumerate(images):
        assert np.abs(read(tmp_path / "out" / f"{index}.png") - made_by(bundle, image)).max() <= 1


@pytest.mark.parametrize("fit", ["resize", "tile"])
def test_other_sizes_come_out_at_their_own_size(bulk: Bulk, bundle: Path, tmp_path: Path, fit: str) -> None:
    rng = np.random.default_rng(1)
    for index, size in enumerate([(100, 150), (40, 64), (64, 65)]):
        save(tmp_path / "in", f"{index}.png", photo(rng, *size))
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle}", "inference.backend=torch")
    outcome = bulk("translate", *sets, f"translate.fit={fit}")
    assert outcome["done"] == 3
    for file in (tmp_path / "in").iterdir():
        assert read(tmp_path / "out" / file.name).shape == read(file).shape


def test_the_window_of_the_training_is_applied_to_the_inputs(
    bulk: Bulk, bundle: Path, tmp_path: Path
) -> None:
    classes = np.random.default_rng(3).integers(0, 5, (64, 64), dtype=np.uint8)
    save(tmp_path / "in", "0.png", classes)
    windowed = shutil.copytree(bundle, tmp_path / "bundle")
    manifest = json.loads((windowed / "bundle.json").read_text())
    assert "window" not in manifest["preprocessing"]["input"]
    manifest["preprocessing"]["input"]["window"] = [0, 4]
    (windowed / "bundle.json").write_text(json.dumps(manifest))
    bulk("translate", f"input={tmp_path / 'in'}", f"bundle={windowed}", "inference.backend=torch")
    spread = np.rint(classes * 63.75).astype(np.uint8)[..., None].repeat(3, axis=2)
    assert np.abs(read(tmp_path / "out" / "0.png") - made_by(bundle, spread)).max() <= 1


def test_halves_of_pairs_are_translated_and_judged_by_the_other_half(
    bulk: Bulk, bundle: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    target = photo(rng, 64, 64)
    label = photo(rng, 64, 64)
    save(tmp_path / "in", "pair.png", np.concatenate([target, label], axis=1))
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle}", "translate.half=auto", "translate.beside=true")
    bulk("translate", *sets)
    made = read(tmp_path / "out" / "pair.png")
    assert np.abs(made - made_by(bundle, label)).max() <= 1
    (row,) = rows_of(tmp_path / "out")
    assert row["error"] == pytest.approx(np.abs(made - target).mean() / 255, abs=0.005)
    assert read(tmp_path / "out" / "pair.png-beside.png").shape == (64, 192, 3)


def test_a_pair_of_odd_width_fails_alone(bulk: Bulk, bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    save(tmp_path / "in", "odd.png", photo(rng, 64, 65))
    save(tmp_path / "in", "pair.png", photo(rng, 64, 128))
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle}", "inference.backend=torch")
    outcome = bulk("translate", *sets, "translate.half=left")
    assert (outcome["done"], outcome["reasons"]) == (1, {"odd-shape": 1})


def with_input(bundle: Path, folder: Path, **more: object) -> Path:
    """A copy of a bundle whose input has other values."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["preprocessing"]["input"] |= more
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("fit", ["resize", "tile"])
def test_label_maps_become_a_channel_for_each_class_and_unknown_classes_fail(
    bulk: Bulk, bundle: Path, tmp_path: Path, fit: str
) -> None:
    labelled = with_input(bundle, tmp_path / "bundle", classes=[[0], [3], [9]])
    levels = np.array([0, 3, 9], np.uint8)[np.random.default_rng(3).integers(0, 3, (64, 64))]
    save(tmp_path / "in", "0.png", levels)
    save(tmp_path / "in", "1.png", levels + 1)
    sets = (f"input={tmp_path / 'in'}", f"bundle={labelled}", "inference.backend=torch")
    outcome = bulk("translate", *sets, f"translate.fit={fit}", "translate.beside=true")
    assert (outcome["done"], outcome["failed"]) == (1, 1)
    channels = (levels[..., None] == np.array([0, 3, 9])).astype(np.uint8) * 255
    assert np.abs(read(tmp_path / "out" / "0.png") - made_by(bundle, channels)).max() <= 1
    assert read(tmp_path / "out" / "0.png-beside.png").shape == (64, 128, 3)
    failed = rows_of(tmp_path / "out")[1]
    assert failed["reason"] == "unknown-class"
    assert "is none of the 3 classes of the training" in failed["detail"]


def test_floats_are_read_by_the_window_of_the_training(bulk: Bulk, bundle: Path, tmp_path: Path) -> None:
    windowed = with_input(bundle, tmp_path / "bundle", window=[-4, 4])
    (tmp_path / "in").mkdir()
    values = np.random.default_rng(3).uniform(-4, 4, (64, 64, 3)).astype(np.float32)
    np.save(tmp_path / "in" / "0.npy", values)
    sets = (f"input={tmp_path / 'in'}", f"bundle={windowed}", "inference.backend=torch")
    bulk("translate", *sets, "read.suffixes=[.npy]")
    seen = np.rint((values + 4) * (255 / 8)).astype(np.uint8)
    assert np.abs(read(tmp_path / "out" / "0.npy.png") - made_by(bundle, seen)).max() <= 1
