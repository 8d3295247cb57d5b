"""Bundles of small networks with drawn weights, photos, and bulk runs as `genray submit` does them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from genray.bundle import ImageSpec, Preprocessing, save_bundle
from genray.models.registry import NetworkSpec
from genray.progress import LineDisplay
from genray.settings.base import absolute
from genray.settings.load import load
from genray.targets import Resources, find_target
from pipelines.engine.reporting.outcome import BulkOutcome
from pipelines.storage.output import Output, PassRecord
from tests.s3 import s3_root, s3_server

__all__ = ["s3_root", "s3_server"]

Bulk = Callable[..., dict[str, Any]]

_UNET = {"kind": "unet", "widths": [4, 8], "blocks": 1, "middle": 1}
_NETWORKS: dict[str, tuple[NetworkSpec, int, tuple[float, float]]] = {
    "denoiser": (NetworkSpec("restorer-unet", {"channels": 3, "settings": _UNET}), 3, (0, 1)),
    "denoiser-gray": (NetworkSpec("restorer-unet", {"channels": 1, "settings": _UNET}), 1, (0, 1)),
    "destamper": (
        NetworkSpec("restorer-unet", {"channels": 3, "settings": {**_UNET, "bias": True, "gate": True}}),
        3,
        (0, 1),
    ),
    "pix2pix": (
        NetworkSpec("unet", {"in_channels": 3, "out_channels": 3, "size": 64, "settings": {"filters": 4}}),
        3,
        (-1, 1),
    ),
    "autoencoder": (
        NetworkSpec("autoencoder-conv", {"shape": [3, 32, 32], "settings": {"latent": 8, "filters": [4, 8]}}),
        3,
        (0, 1),
    ),
    "gan": (
        NetworkSpec(
            "gan-dcgan", {"shape": [3, 32, 32], "classes": 2, "settings": {"filters": 4, "hidden": 8}}
        ),
        3,
        (-1, 1),
    ),
}


def photo(rng: np.random.Generator, height: int, width: int, noise: float = 0.0) -> np.ndarray:
    """A soft picture with an edge, (height, width, 3) uint8."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / rng.uniform(9, 30) + columns / rng.uniform(9, 30) + p) for p in range(3)]
    image = 128 + 60 * np.stack(waves, axis=-1)
    image[height // 3 : height // 2, width // 4 : width // 2] += 50
    return np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)


def write_photos(folder: Path, count: int, *, size: tuple[int, int] = (48, 64), noise: float = 15.0) -> None:
    """PNG and JPEG files in two folders."""
    rng = np.random.default_rng(count)
    for index in range(count):
        file = folder / f"{index % 2}" / f"{index:04}.{'png' if index % 3 else 'jpg'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(rng, *size, noise)).save(file)


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The bundle of a kind: its network is small and its weights are drawn, not trained."""
    root = tmp_path_factory.mktemp("bundles")

    def make(kind: str) -> Path:
        path = root / kind
        if path.exists():
            return path
        spec, channels, span = _NETWORKS["autoencoder" if kind == "anomaly" else kind]
        torch.manual_seed(0)
        network = spec.build()
        with torch.no_grad():  # restorers begin as the identity
            for each in network.parameters():
                if not each.any():
                    each.normal_(0, 0.03)
        images = ImageSpec(channels=channels, range=span)
        one_size = spec.name.startswith(("autoencoder", "gan"))
        return save_bundle(
            path,
            network,
            spec,
            kind=kind.partition("-")[0],
            preprocessing=Preprocessing(
                input=images,
                output=images,
                size=(32, 32) if one_size else (64, 64),
                fixed=one_size,
                fit="crop" if one_size else None,
                direction="BtoA" if kind == "pix2pix" else None,
            ),
            metrics={},
            calibration={"error": "mse", "threshold": 0.05, "quantiles": {"1": 0.06}}
            if kind == "anomaly"
            else {},
            seed=0,
            data={},
        )

    return make


@pytest.fixture
def bulk(tmp_path: Path) -> Bulk:
    """Run a bulk target to its end: `bulk("denoise", "input=...", ...)`; the output is tmp_path/out, or
    `output`. Returns the outcome as JSON."""

    def run(target: str, *sets: str, workers: int = 0, output: Output | None = None) -> dict[str, Any]:
        implementation: Any = find_target(target).load()
        sure = (f"output={tmp_path / 'out'}", f"work.workers={workers}", "work.gpu=false")
        sure = (*sure, "work.cpus_per_worker=1", "report.samples=0")
        settings = absolute(load(implementation.settings_class, target=target, sets=[*sure, *sets]))
        prepared = implementation.prepare(settings, target, None, lambda text: None)
        if output is not None:
            prepared = replace(prepared, output=output)
        outcome: BulkOutcome = prepared.run(LineDisplay(), Resources(2, 0), attached=False)
        return outcome.as_json()

    return run


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output.create(str(tmp_path / "out"))


def rows_of(output: Path) -> list[dict[str, Any]]:
    """All rows of the ledger, by path; a path that is there twice is an error."""
    rows = pq.read_table(output / "_genray" / "ledger").to_pylist()
    paths = [row["path"] for row in rows]
    assert len(paths) == len(set(paths))
    return sorted(rows, key=lambda row: row["path"])


def passes_of(output: Path) -> list[PassRecord]:
    """What the header says of each pass."""
    header = Output.create(str(output)).read_header()
    assert header is not None
    return header.passes


def leftovers(output: Path) -> list[Path]:
    """Temporary files."""
    return [file for file in output.rglob("*") if file.name.endswith(".tmp")]
