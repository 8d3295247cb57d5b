"""Who may read what genray writes: whoever the umask says, whichever library wrote it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from genray.cli.main import main
from tests.pipelines.bulk_runs import png, submit


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, set[int]]:
    """The modes of all files and of all folders below `folder`."""
    found: dict[str, set[int]] = {"files": set(), "folders": set()}
    for path in folder.rglob("*"):
        found["folders" if path.is_dir() else "files"].add(stat.S_IMODE(path.stat().st_mode))
    return found


def test_a_run_and_its_bundle_are_for_whom_the_umask_says(
    tiny: Callable[..., list[str]], tmp_path: Path
) -> None:
    with umask(0o027):
        sets = [word for text in tiny("loop.epochs=1") for word in ("--set", text)]
        command = ["submit", "train-pix2pix", "--name", "a", *sets]
        assert CliRunner().invoke(main, command, catch_exceptions=False).exit_code == 0
    run = tmp_path / "runs" / "a"
    assert {path.suffix for path in run.rglob("*")} >= {".safetensors", ".json", ".html", ".png", ".yaml"}
    assert modes(run) == {"files": {0o640}, "folders": {0o750}}


@pytest.mark.parametrize("container", ["files", "webdataset", "parquet"])
def test_an_output_and_its_ledger_are_for_whom_the_umask_says(container: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for seed in range(3):
        (tmp_path / "in" / f"{seed}.png").write_bytes(png(seed))
    places = (f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", f"write.container={container}")
    with umask(0o022):
        assert submit("corrupt", *places).exit_code == 0
    assert modes(tmp_path / "out") == {"files": {0o644}, "folders": {0o755}}
