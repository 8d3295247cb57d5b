from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.storage.attempts import Attempt
from pipelines.storage.ledger import chunk_name
from pipelines.storage.output import Output
from tests.pipelines.bulk_runs import Bundles
from tests.pipelines.conftest import Bulk, passes_of, rows_of, write_photos

ROOT = Path(__file__).parents[3]


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


_DEADLY = """
import os, sys
from pipelines.corrupt import Corrupt

def look(self, inputs, process=Corrupt.process):
    if any(each.path == sys.argv[1] for each in inputs):
        os.kill(os.getpid(), 9)
    return process(self, inputs)

Corrupt.process = look
from genray.cli.main import main
main(sys.argv[2:])
"""


def die_of(image: str, photos: Path, out: Path) -> None:
    """A run in one process that is killed as soon as the image comes to the model."""
    words = [
        f"input={photos}",
        f"output={out}",
        "work.workers=0",
        "work.cpus_per_worker=1",
        "report.samples=0",
    ]
    given = [word for text in words for word in ("--set", text)]
    command = [sys.executable, "-c", _DEADLY, image, "submit", "corrupt", *given]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60).returncode == -signal.SIGKILL


def left_by_dead_passes(out: Path, died: int, attempt: Attempt) -> None:
    """Make the output's last pass one that was killed, before it recorded anything."""
    for file in (out / "_genray" / "ledger").iterdir():
        file.unlink()
    output = Output.create(str(out))
    header = output.read_header()
    assert header is not None
    header.passes[-1].ended = None
    header.passes[-1].died = died
    output.write_header(header)
    marker = out / "_genray" / "attempts" / f"{chunk_name(header.passes[-1].number, 0)}.json"
    marker.parent.mkdir(exist_ok=True)
    marker.write_text(json.dumps(asdict(attempt)))


def test_an_image_that_kills_the_driver_twice_in_a_row_is_recorded_in_the_end(
    bulk: Bulk, tmp_path: Path
) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    deadly = "0/0004.png"
    write_photos(photos, 6)
    bulk("corrupt", f"input={photos}")
    left_by_dead_passes(out, 1, Attempt(1))  # from here on images are worked on one by one
    for _ in range(2):
        die_of(deadly, photos, out)
        (marker,) = (out / "_genray" / "attempts").iterdir()
        assert json.loads(marker.read_text())["suspect"] == deadly
    assert [each.died for each in passes_of(out)] == [1, 2, 3]
    outcome = bulk("corrupt", f"input={photos}")
    assert (outcome["done"], outcome["reasons"]) == (5, {"killed-worker": 1})
    assert [row["path"] for row in rows_of(out) if row["status"] == "failed"] == [deadly]
    assert bulk("corrupt", f"input={photos}")["this_pass"]["images"] == 0
    assert bulk("corrupt", f"input={photos}", "retry=failed")["done"] == 6, "what died long ago is forgotten"


@pytest.mark.parametrize(
    ("attempt", "poisonous"),
    [
        (Attempt(1), False),
        (Attempt(2, "1/0003.jpg", 1), False),
        (Attempt(3, "1/0003.jpg", 2), True),
        (Attempt(3, "1/0003.jpg", 2, done=True), False),
    ],
)
def test_what_killed_passes_left_decides_over_an_image(
    bulk: Bulk, tmp_path: Path, attempt: Attempt, poisonous: bool
) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    write_photos(photos, 5)
    bulk("corrupt", f"input={photos}")
    left_by_dead_passes(out, attempt.number, attempt)
    outcome = bulk("corrupt", f"input={photos}")
    assert outcome["total"] == 5
    assert outcome["reasons"] == ({"killed-worker": 1} if poisonous else {})
    passes = passes_of(out)
    assert [each.number for each in passes] == [1, 2]
    assert passes[-1].died == (0 if attempt.done else attempt.number + 1)
    assert not list((out / "_genray" / "attempts").iterdir())


def test_a_pass_that_ended_well_leaves_nothing_of_those_that_died_before(bulk: Bulk, tmp_path: Path) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    write_photos(photos, 5)
    bulk("corrupt", f"input={photos}")
    left_by_dead_passes(out, 2, Attempt(2, "1/0003.jpg", 1))
    bulk("corrupt", f"input={photos}")
    write_photos(photos / "more", 2)
    bulk("corrupt", f"input={photos}")
    assert [each.died for each in passes_of(out)] == [2, 3, 0]
