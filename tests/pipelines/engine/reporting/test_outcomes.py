from __future__ import annotations

from pathlib import Path

from tests.pipelines.bulk_runs import Bundles, png, submit
from tests.pipelines.conftest import Bulk, rows_of, write_photos


def test_a_run_of_which_every_image_fails_is_an_error_of_its_own(tmp_path: Path) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    photos.mkdir()
    for index in range(3):
        (photos / f"{index}.png").write_bytes(b"\x89PNG")
    result = submit("corrupt", f"input={photos}", f"output={out}")
    assert result.exit_code not in (0, 130)
    assert "all 3 images failed" in result.stderr
    assert f"genray ledger {out} --list failed" in result.stderr
    assert len(rows_of(out)) == 3
    (photos / "3.png").write_bytes(png(0))
    assert submit("corrupt", f"input={photos}", f"output={out}").exit_code == 0


def test_the_outcome_says_what_the_workers_said_of_how_they_run(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path
) -> None:
    write_photos(tmp_path / "in", 2)
    this = bulk("embed", f"input={tmp_path / 'in'}", f"bundle={bundle_of('autoencoder')}")["this_pass"]
    assert this.keys() == {
        *("images", "changed", "retried", "gone", "not_read", "notes"),
        *("images_per_second", "mb_per_second", "start_seconds"),
    }
    assert any("fp32" in line or "bf16" in line for line in this["notes"]), this["notes"]
