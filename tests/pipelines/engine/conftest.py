"""An input of many images, and a bench for workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.bulk_runs import png
from tests.pipelines.worker_bench import Bench


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 names of one image whose noise takes some time."""
    folder = tmp_path_factory.mktemp("many") / "in"
    folder.mkdir()
    (folder / "000.png").write_bytes(png(0, 200, 300))
    for index in range(1, 300):
        os.link(folder / "000.png", folder / f"{index:03}.png")
    return folder


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for worker in bench.workers:
        worker.close()
