from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genray.errors import RunError
from pipelines.engine.pool import ProgressCounter
from tests.pipelines.conftest import Bulk, write_photos


def test_reports_of_many_threads_add_up() -> None:
    progress = ProgressCounter()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(progress.report, [{"done": 1.0, "bytes_in": 10.0}] * 500))
    assert progress.counts() == {"done": 500.0, "bytes_in": 5000.0}


def test_a_report_is_answered_with_whether_to_stop() -> None:
    progress = ProgressCounter()
    assert not progress.report({})
    progress.stop()
    assert progress.report({"done": 1.0})
    assert progress.counts() == {"done": 1.0}


def test_an_output_that_the_workers_do_not_see_is_an_error_of_genray(
    embedded_ray: None, bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "in", 3)
    monkeypatch.chdir(tmp_path)
    out = "/proc/self/cwd/out"  # the same path, in each process another folder
    with pytest.raises(RunError, match="the workers do not see the folder") as caught:
        bulk("corrupt", f"input={tmp_path / 'in'}", f"output={out}", workers=2)
    assert (caught.value.where, caught.value.exit_code) == (out, 2)
    assert "output=s3://" in str(caught.value.hint)
    assert not list((tmp_path / "out").rglob("*.png"))
    assert not (tmp_path / "out" / "_genray" / "proof").exists()
