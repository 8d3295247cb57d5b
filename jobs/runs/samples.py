"""Pictures and tables of a run's report, in its `samples/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genray.images.pixels import save_png
from genray.io.files import write_json
from genray.models.summary import NetworkSummary
from jobs.runs.run import Run


@dataclass(frozen=True)
class RunPicture:
    """A picture of the report; `name` is the stem of its file, `image` is (H, W, 3) uint8."""

    name: str
    title: str
    image: NDArray[np.uint8]
    caption: str = ""


@dataclass(frozen=True)
class RunTable:
    """A table of the report."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]


def write_networks(run: Run, networks: Mapping[str, NetworkSummary]) -> None:
    """Write the layers of each network for the report."""
    write_json(run.samples / "networks.json", {name: asdict(summary) for name, summary in networks.items()})


def write_pictures(run: Run, pictures: Sequence[RunPicture], tables: Sequence[RunTable]) -> list[Path]:
    """Write the pictures and tables of the report to `samples/`; returns the files of the pictures."""
    files = []
    for picture in pictures:
        files.append(run.samples / f"{picture.name}.png")
        save_png(files[-1], picture.image)
    listed = [{"file": f"{p.name}.png", "title": p.title, "caption": p.caption} for p in pictures]
    write_json(run.samples / "pictures.json", listed)
    write_json(run.samples / "tables.json", [asdict(table) for table in tables])
    return files
