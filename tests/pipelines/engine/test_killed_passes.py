from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.storage.attempts import Attempt
from tests.pipelines.bulk_runs import Bundles, left_by_killed_passes
from tests.pipelines.conftest import Bulk, passes_of, rows_of, write_photos


@pytest.mark.parametrize(("target", "folder"), [("embed", "embeddings"), ("detect", "detections")])
def test_rows_that_the_ledger_does_not_speak_of_are_gone_at_the_next_run(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path, target: str, folder: str
) -> None:
    photos = tmp_path / "in"
    table = tmp_path / "out" / folder
    write_photos(photos, 6, noise=0)
    sets = (f"input={photos}", f"bundle={bundle_of('autoencoder' if target == 'embed' else 'anomaly')}")
    bulk(target, *sets)
    (part,) = table.glob("*.parquet")
    before = sorted(pq.read_table(part)["path"].to_pylist())
    # Killed between the commit of a part and that of its rows.
    shutil.copy(part, part.with_name("part-00001-000007-0-0.parquet"))
    (table / "notes.parquet").write_bytes(part.read_bytes())
    assert bulk(target, *sets)["this_pass"]["images"] == 0
    assert sorted(file.name for file in table.iterdir()) == ["notes.parquet", part.name]
    assert sorted(pq.read_table(part)["path"].to_pylist()) == before


def test_a_part_whose_rows_were_never_recorded_is_made_again_once(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path
) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    write_photos(photos, 6, noise=0)
    sets = (f"input={photos}", f"bundle={bundle_of('autoencoder')}")
    bulk("embed", *sets)
    for file in (out / "_genray" / "ledger").iterdir():
        file.unlink()
    assert bulk("embed", *sets)["this_pass"]["images"] == 6
    assert pq.read_table(out / "embeddings").num_rows == len(rows_of(out)) == 6


def test_after_two_killed_passes_images_are_processed_apart_and_none_is_condemned(
    bulk: Bulk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    write_photos(photos, 5)
    bulk("corrupt", f"input={photos}")
    left_by_killed_passes(out, died=2)
    outcome = bulk("corrupt", f"input={photos}")
    assert (outcome["done"], outcome["total"]) == (5, 5)
    assert "the run was killed 2 times in a row: its next images are processed one at a time" in (
        capsys.readouterr().err
    )
    assert len(rows_of(out)) == 5
    assert not list((out / "_genray" / "attempts").iterdir())


@pytest.mark.parametrize("died", [1, 5, 50])
def test_an_image_that_was_alone_at_any_number_of_kills_is_processed_last(
    bulk: Bulk, tmp_path: Path, capsys: pytest.CaptureFixture[str], died: int
) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    suspect = "0/0000.jpg"
    write_photos(photos, 5)
    bulk("corrupt", f"input={photos}")
    left_by_killed_passes(out, died=died, attempt=Attempt(2, suspect, 4))
    assert bulk("corrupt", f"input={photos}")["done"] == 5
    assert (
        f"kills of the run while only {suspect} was in progress: 1; it is processed last"
        in capsys.readouterr().err
    )
    last = max(rows_of(out), key=lambda row: row["finished"])
    assert last["path"] == suspect
    assert passes_of(out)[-1].died == died
    assert bulk("corrupt", f"input={photos}")["this_pass"]["images"] == 0
    assert passes_of(out)[-1].suspects is None


def test_a_finished_chunk_is_no_sign_of_a_kill(bulk: Bulk, tmp_path: Path) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    write_photos(photos, 5)
    bulk("corrupt", f"input={photos}")
    left_by_killed_passes(out, died=3, attempt=Attempt(3, "1/0003.jpg", 4, done=True))
    assert bulk("corrupt", f"input={photos}")["done"] == 5
    assert passes_of(out)[-1].died == 0


def test_a_pass_that_ended_well_leaves_nothing_of_those_that_were_killed_before(
    bulk: Bulk, tmp_path: Path
) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    write_photos(photos, 5)
    bulk("corrupt", f"input={photos}")
    left_by_killed_passes(out, died=3)
    bulk("corrupt", f"input={photos}")
    write_photos(photos / "more", 2)
    bulk("corrupt", f"input={photos}")
    assert [each.died for each in passes_of(out)] == [2, 3, 0]
