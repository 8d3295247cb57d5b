from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from genray.errors import RunError
from genray.progress import LineDisplay
from genray.targets import Resources, find_target
from tests.pipelines.bulk_runs import settings_of, submit
from tests.pipelines.conftest import Bulk, rows_of, write_photos

ROOT = Path(__file__).parents[3]

_HOLD = """
import sys
from pipelines.storage.output import Output
with Output.create(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_on_the_same_output_is_refused_and_changes_nothing(bulk: Bulk, tmp_path: Path) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    write_photos(photos, 4)
    bulk("corrupt", f"input={photos}")
    write_photos(photos / "more", 2)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(out)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
        with pytest.raises(RunError, match="another run is writing to this output"):
            bulk("corrupt", f"input={photos}")
        result = submit("corrupt", f"input={photos}", f"output={out}")
        assert result.exit_code == 2
        assert "another run is writing to this output" in result.stderr
        assert "wait for it, or give another output" in result.stderr
        assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
        holder.kill()
    assert bulk("corrupt", f"input={photos}")["this_pass"]["images"] == 2


def test_two_runs_at_once_do_the_work_once(tmp_path: Path) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    write_photos(photos, 60, size=(200, 260))
    results: list[Any] = []

    def work() -> None:
        settings = settings_of("corrupt", f"input={photos}", f"output={out}")
        prepared = find_target("corrupt").load().prepare(settings, "corrupt", None, lambda text: None)
        try:
            results.append(prepared.run(LineDisplay(), Resources(2, 0), attached=False).summary.total)
        except RunError as error:
            results.append(error.what)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, results)) == ["60", "another run is writing to this output"]
    assert len(rows_of(out)) == 60
