"""Pictures and tables of a run's report, in its `samples/`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genray.images.pixels import save_png
from genray.io.files import atomic_write, write_json
from genray.models.summary import NetworkSummary
from jobs.runs.run import Run

_MOST_FRAMES = 120
_FILM_SECONDS = 12
_LAST_SECONDS = 3
_FILM_QUALITY = 80


@dataclass(frozen=True)
class RunPicture:
    """A picture of the report, or a film.

    Attributes:
        name: stem of its file.
        title: heading in the report.
        image: (H, W, 3) uint8; of a film the bytes of an animated WebP file.
        caption: what it shows.
    """

    name: str
    title: str
    image: NDArray[np.uint8] | bytes
    caption: str = ""

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.name}.webp" if isinstance(self.image, bytes) else f"{self.name}.png"


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
        files.append(run.samples / picture.file)
        if isinstance(picture.image, bytes):
            with atomic_write(files[-1]) as temporary:
                temporary.write_bytes(picture.image)
        else:
            save_png(files[-1], picture.image)
    listed = [{"file": p.file, "title": p.title, "caption": p.caption} for p in pictures]
    write_json(run.samples / "pictures.json", listed)
    write_json(run.samples / "tables.json", [asdict(table) for table in tables])
    return files


def epochs_film(run: Run) -> RunPicture | None:
    """Return a film of the pictures of a training, in order; None with fewer than two of one size."""
    files = sorted(run.samples.glob("epoch_*.png"))
    step = -(-len(files) // _MOST_FRAMES)
    frames: list[Image.Image] = []
    for file in [*files[:-1:step], *files[-1:]] if files else []:
        with Image.open(file, formats=["PNG"]) as image:
            if not frames or image.size == frames[0].size:
                frames.append(image.convert("RGB"))
    if len(frames) < 2:
        return None
    stream = io.BytesIO()
    durations = [max(60, _FILM_SECONDS * 1000 // len(frames))] * (len(frames) - 1) + [_LAST_SECONDS * 1000]
    frames[0].save(
        stream,
        format="WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        quality=_FILM_QUALITY,
        method=2,
    )
    caption = f"The same samples while the network learned: {len(frames)} of {len(files)} pictures."
    return RunPicture("film", "Film of the training", stream.getvalue(), caption)
