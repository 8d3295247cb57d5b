"""What the tests of whole bulk runs share: images, settings, and an output's content."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from genray.cli.main import main
from genray.io.sources import ContainerSettings, open_source
from genray.settings.load import load
from genray.targets import find_target
from pipelines.storage.attempts import Attempt
from pipelines.storage.ledger.rows import chunk_name
from pipelines.storage.output import Output
from tests.pipelines.conftest import photo

Bundles = Callable[[str], Path]


def png(seed: int, height: int = 40, width: int = 52) -> bytes:
    """A photo as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(photo(np.random.default_rng(seed), height, width)).save(stream, "PNG")
    return stream.getvalue()


def settings_of(target: str, *sets: str) -> Any:
    given = ("work.workers=0", "work.gpu=false", "work.cpus_per_worker=1", "report.samples=0", *sets)
    return load(find_target(target).load().settings_class, target=target, sets=list(given))


def submit(target: str, *sets: str, more: tuple[str, ...] = ()) -> Any:
    """`genray submit`, in this process without Ray."""
    given = (*sets, "work.workers=0", "work.gpu=false", "work.cpus_per_worker=1", "report.samples=0")
    words = [word for text in given for word in ("--set", text)]
    return CliRunner().invoke(main, ["submit", target, *words, *more], catch_exceptions=False)


def left_by_killed_passes(out: Path, *, died: int, attempt: Attempt | None = None) -> None:
    """Make the output `out` that of passes that were killed: `died` in a row, at `attempt`, before they
    recorded anything."""
    output = Output.create(str(out))
    output.ledger.clear()
    header = output.read_header()
    assert header is not None
    last = header.passes[-1]
    last.ended = None
    last.died = died - 1
    output.write_header(header)
    marker = out / "_genray" / "attempts" / f"{chunk_name(last.number, 0)}.json"
    marker.parent.mkdir(exist_ok=True)
    marker.write_text(json.dumps(asdict(attempt or Attempt(max(0, died - 1)))))


def listed(root: str, container: Any) -> dict[str, bytes]:
    """What an output has, by name; one that is there twice is an error."""
    source = open_source(root, ContainerSettings(container=container))
    items = list(source.items(lambda bad: pytest.fail(f"{bad.path}: {bad.detail}")))
    found = {item.path.split("/", 2)[-1]: source.read(item, 10**9) for item in items}
    assert len(found) == len(items)
    return found


def outputs_of(out: Path, container: str) -> dict[str, bytes]:
    if container != "files":
        return listed(str(out), container)
    return {f.relative_to(out).as_posix(): f.read_bytes() for f in out.rglob("*.png")}
