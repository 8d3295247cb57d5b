"""What all tests share: tiny image pairs, tiny settings, and one Ray for the session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from PIL import Image

from genray.threads import sleep_while_waiting

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
sleep_while_waiting()
# Nothing of the user's is written; workers of Ray and other processes inherit the variable.
os.environ.setdefault("GENRAY_MODEL_CACHE", "")
# Workers of the session's Ray use the tests' S3 server, which takes any credentials.
for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
    os.environ.setdefault(variable, "test")
os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "1")

# The same examples in every run, however busy the machine is; GENRAY_FUZZ=1 looks for new ones.
hypothesis.settings.register_profile(
    "genray", deadline=None, derandomize=not os.environ.get("GENRAY_FUZZ"), database=None
)
hypothesis.settings.load_profile("genray")


def write_pair_files(folder: Path, count: int, *, size: int = 64, seed: int = 0) -> None:
    """Side by side files, photo|labels: rectangles on a ground, the photo a shaded version of the labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    shade = np.linspace(0.6, 1.0, size)[:, None, None]
    for index in range(count):
        label = np.full((size, size, 3), (0, 0, 170), np.uint8)
        for _ in range(4):
            top, left = rng.integers(0, size - 12, 2)
            label[top : top + 12, left : left + 12] = (220, 80, 30)
        photo = (label[..., ::-1] * shade).astype(np.uint8)
        Image.fromarray(np.concatenate([photo, label], axis=1)).save(folder / f"{index:03}.png")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 12 training pairs and 4 held out, 64 pixels."""
    root = tmp_path_factory.mktemp("pairs")
    write_pair_files(root / "train", 12)
    write_pair_files(root / "val", 4, seed=1)
    return root


@pytest.fixture
def tiny(pairs: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The `--set` values of a training that takes a second; more can be given."""

    def sets(*more: str) -> list[str]:
        return [
            f"data.path={pairs}",
            f"runs={tmp_path / 'runs'}",
            "data.size=64",
            "loop.epochs=2",
            "loop.batch_size=2",
            "generator.filters=4",
            "discriminator.filters=4",
            "loop.samples=2",
            "loop.ema=0",
            "device.gpu=false",
            "device.threads=1",
            *more,
        ]

    return sets


@pytest.fixture
def settings(tiny: Callable[..., list[str]]) -> Callable[..., Any]:
    """Settings of train-pix2pix made from `tiny` and more."""
    from genray.settings.load import load
    from jobs.train_pix2pix import TrainPix2PixSettings

    return lambda *more: load(TrainPix2PixSettings, target="train-pix2pix", sets=tiny(*more))


@pytest.fixture(scope="session")
def embedded_ray() -> Iterator[None]:
    """One Ray for all tests that need one in this process."""
    from cluster.connect import cluster

    with cluster(cpus=4):
        yield


def write_images(folder: Path, count: int, *, size: tuple[int, int] = (24, 24), gray: bool = True) -> None:
    """PNG files of height and width `size`: a bright disc somewhere on a soft ramp, each another."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[: size[0], : size[1]]
    rng = np.random.default_rng(len(folder.name) + count)
    for index in range(count):
        top, left, radius = rng.uniform(0.25, 0.75, 3) * (size[0], size[1], min(size) / 3)
        disc = np.hypot(rows - top, columns - left) < radius
        image = np.where(disc, 230, 20 + 80 * columns / size[1]).astype(np.uint8)
        if not gray:
            image = np.stack([image, image[::-1], 255 - image], axis=-1)
        Image.fromarray(image).save(folder / f"{index:03}.png")
