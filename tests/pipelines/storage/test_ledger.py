import json
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from genray.errors import DataError
from genray.io.bad_input import BadInput
from genray.io.store import open_store
from pipelines.storage.ledger.files import FOLDER
from pipelines.storage.ledger.ledger import Ledger
from pipelines.storage.ledger.rows import SCHEMA, LedgerRow


def row(path: str, status: str = "done", *, reason: str = "", not_kept: Sequence[str] = ()) -> LedgerRow:
    return LedgerRow(
        path,
        status,
        reason,
        bytes_in=10,
        bytes_out=5,
        modified=1,
        decode_ms=2.0,
        finished=datetime.now(UTC),
        not_kept=not_kept,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(open_store(str(tmp_path)))


def paths(ledger: Ledger) -> list[str]:
    return sorted(path for table in ledger.tables(["path"]) for path in table["path"].to_pylist())


def files(root: Path) -> list[str]:
    return sorted(file.name for file in (root / FOLDER).glob("*.parquet"))


def test_a_row_has_the_columns_of_the_files() -> None:
    assert [field.name for field in fields(LedgerRow)] == SCHEMA.names


def test_a_chunk_that_is_written_twice_is_there_once(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.add("00001-000000-0-0", [row("a"), row("b")])
    assert paths(ledger) == ["a", "b"]


def test_it_knows_what_is_new_done_failed_and_changed(ledger: Ledger) -> None:
    ledger.add("00001-000000-0-0", [row("a"), row("b", "failed"), row("c", "skipped")])
    index = ledger.index()
    assert index.has(["c", "d", "a", ""]) == [True, False, True, False]
    assert index.find("a", 10, 1) == "done"
    assert index.find("a", 0, 1) == "done", "a size that is not known says nothing"
    assert index.find("a", 11, 1) == "changed"
    assert index.find("a", 10, 2) == "changed"
    assert index.find("b", 10, 1) == "failed"
    assert index.find("c", 10, 1) == "done"
    assert index.find("d", 10, 1) == "new"
    assert len(index) == 3


def test_the_rows_of_earlier_versions_are_read_and_merged(ledger: Ledger, tmp_path: Path) -> None:
    for number in range(2):
        damaged = replace(row(f"{number}"), salvaged="the end chunk is missing")
        ledger.add(f"00001-00000{number}-0-0", [damaged])
    old = tmp_path / FOLDER / "00001-000000-0-0.parquet"
    pq.write_table(pq.read_table(old).drop_columns(["salvaged"]), old)
    assert ledger.summary().salvaged == 1
    ledger.compact(1)
    assert paths(ledger) == ["0", "1"]
    assert ledger.summary().salvaged == 1


def test_a_summary_counts_and_sums(ledger: Ledger) -> None:
    ledger.add("00001-000000-0-0", [row("a"), row("b", "failed", reason="truncated")])
    ledger.add(
        "00001-000001-0-0", [row("c", "failed", reason="truncated"), row("d", "skipped", reason="clean")]
    )
    summary = ledger.summary().as_json()
    assert (summary["total"], summary["done"], summary["skipped"], summary["failed"]) == (4, 1, 1, 2)
    assert summary["reasons"] == {"truncated": 2, "clean": 1}
    assert (summary["bytes_in"], summary["bytes_out"]) == (40, 20)
    assert summary["stage_seconds"]["decode"] == pytest.approx(0.008)


def test_what_outputs_lack_is_counted_and_ledgers_of_older_versions_are_read(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.add("00001-000000-0-0", [row("a"), row("b")])
    path = tmp_path / FOLDER / "00001-000000-0-0.parquet"
    pq.write_table(pq.read_table(path).drop(["not_kept"]), path)
    ledger.add("00002-000000-0-0", [row("c", not_kept=["XMP", "EXIF"]), row("d", not_kept=["XMP"]), row("e")])
    for _ in range(2):
        assert ledger.summary().as_json()["not_kept"] == {"XMP": 2, "EXIF": 1}
        columns = [table.column("not_kept").to_pylist() for table in ledger.tables(["path", "not_kept"])]
        assert [value for column in columns for value in column] == [None, None, ["XMP", "EXIF"], ["XMP"], []]
        ledger.compact(2)


def test_dropped_rows_are_gone_also_from_merged_files(ledger: Ledger) -> None:
    ledger.add("00001-000000-0-0", [row("a"), row("b")])
    ledger.add("00001-000001-0-0", [row("c")])
    ledger.compact(1)
    ledger.add("00002-000000-0-0", [row("d")])
    ledger.drop({"a", "d"})
    assert paths(ledger) == ["b", "c"]
    assert ledger.keys() >= {"00001-000000-0-0", "00001-000001-0-0"}


def test_compacting_makes_one_file_of_many_and_keeps_every_row_and_key(
    ledger: Ledger, tmp_path: Path
) -> None:
    keys = {f"00001-{index:06}-0-0" for index in range(20)}
    for index, key in enumerate(sorted(keys)):
        ledger.add(key, [row(f"{index}/{n}") for n in range(5)])
    ledger.compact(1)
    assert files(tmp_path) == ["merged-00001-000.parquet"]
    assert len(paths(ledger)) == len(set(paths(ledger))) == 100
    assert ledger.keys() - {name.removesuffix(".parquet") for name in files(tmp_path)} >= keys
    ledger.add("00002-000000-0-0", [row("more")])
    ledger.compact(2)
    assert len(files(tmp_path)) == 1
    assert len(paths(ledger)) == 101
    assert ledger.keys() >= {*keys, "00002-000000-0-0"}


def test_a_merged_file_contains_the_summary_of_its_rows(ledger: Ledger, tmp_path: Path) -> None:
    for index in range(4):
        rows = [replace(row(f"{index}/{n}", not_kept=["XMP"] * (n % 2)), noise=float(n)) for n in range(3)]
        rows += [
            row(f"{index}/clean", "skipped", reason="clean"),
            row(f"{index}/bad", "failed", reason="empty"),
        ]
        ledger.add(f"00001-{index:06}-0-0", rows)
    before = ledger.summary()
    ledger.compact(1, most_rows=10)
    assert len(files(tmp_path)) == 2
    assert ledger.summary().as_json() == before.as_json()
    ledger.drop({"0/clean", "3/bad"})
    assert Ledger(open_store(tmp_path)).summary().as_json() == ledger.summary().as_json()
    assert ledger.summary().reasons == {"clean": 3, "empty": 3}


def test_the_index_agrees_with_the_rows(ledger: Ledger) -> None:
    random = np.random.default_rng()
    states = {
        f"folder {n % 7}/{n}.jpg": (int(size), int(modified), str(status))
        for n, size, modified, status in zip(
            range(3000),
            random.integers(1, 2**33, 3000),
            random.integers(0, 2**62, 3000),
            random.choice(["done", "failed", "skipped"], 3000),
            strict=True,
        )
    }
    named = list(states.items())
    for start in range(0, 3000, 500):
        rows = [
            LedgerRow(path, status, bytes_in=size, modified=modified)
            for path, (size, modified, status) in named[start : start + 500]
        ]
        ledger.add(f"00001-{start:06}-0-0", rows)
    index = ledger.index()
    assert len(index) == 3000
    assert not len(index.repeated)
    assert all(index.has(list(states)))
    assert not any(index.has([f"{path}x" for path in states]))
    for path, (size, modified, status) in states.items():
        assert index.find(path, size, modified) == ("failed" if status == "failed" else "done")
        assert index.find(path, size, modified + 1_000_000_000) == "changed"
        assert index.find(path, size + 1, modified) == "changed"


def test_large_files_are_left_alone(ledger: Ledger, tmp_path: Path) -> None:
    for index in range(8):
        ledger.add(f"00001-{index:06}-0-0", [row(f"{index}/{n}") for n in range(6)])
    ledger.compact(1, small_rows=10, most_rows=20)
    assert files(tmp_path) == [
        "merged-00001-000.parquet",
        "merged-00001-001.parquet",
        "merged-00001-002.parquet",
    ]
    assert len(paths(ledger)) == 48
    before = files(tmp_path)[:2]
    ledger.add("00002-000000-0-0", [row("more")])
    ledger.add("00002-000001-0-0", [row("most")])
    ledger.compact(2, small_rows=10, most_rows=20)
    assert set(before) <= set(files(tmp_path))
    assert len(set(paths(ledger))) == len(paths(ledger)) == 50


@pytest.mark.parametrize("copies", [1, 2])
def test_of_an_input_with_rows_of_several_passes_the_newest_counts_and_stays(
    ledger: Ledger, copies: int
) -> None:
    ledger.add("00001-000000-0-0", [row(f"{n}") for n in range(6)])
    ledger.add("00001-000001-0-0", [row(f"{n}") for n in range(6, 12)])
    ledger.compact(1)
    for index in range(copies):
        ledger.add(f"00002-00000{index}-0-0", [row("7", "failed", reason=f"{index}"), row(f"new {index}")])
    index = ledger.index()
    assert len(index) == 12 + copies
    assert index.find("7", 10, 1) == "failed"
    ledger.drop_older(index.repeated)
    assert len(paths(ledger)) == len(set(paths(ledger))) == ledger.summary().total == 12 + copies
    reasons = [
        each["reason"] for table in ledger.tables() for each in table.to_pylist() if each["path"] == "7"
    ]
    assert reasons == [f"{copies - 1}"]


def test_rows_do_not_count_twice_when_a_crash_left_merged_files_behind(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.add("00001-000000-0-0", [row("a")])
    ledger.add("00001-000001-0-0", [row("b")])
    kept = {name: (tmp_path / FOLDER / name).read_bytes() for name in files(tmp_path)}
    ledger.compact(1)
    for name, data in kept.items():
        (tmp_path / FOLDER / name).write_bytes(data)
    assert paths(ledger) == ["a", "b"]
    assert ledger.summary().total == 2
    ledger.add("00002-000000-0-0", [row("c")])
    ledger.compact(2)
    assert paths(ledger) == ["a", "b", "c"]
    assert len(files(tmp_path)) == 1


def test_an_input_of_two_chunks_keeps_its_newest_row(ledger: Ledger) -> None:
    ledger.add("00001-000000-0-0", [row("a", "failed"), row("b")])
    ledger.add("00001-000000-1-0", [row("a"), row("c")])
    ledger.compact(1)
    assert paths(ledger) == ["a", "b", "c"]
    (table,) = ledger.tables()
    assert dict(zip(table["path"].to_pylist(), table["status"].to_pylist(), strict=True))["a"] == "done"


def test_what_could_not_be_listed_is_recorded_and_forgotten_when_tried_again(ledger: Ledger) -> None:
    ledger.add("00001-000000-0-0", [row("a")])
    ledger.add_problems(1, [BadInput("locked", "unreadable", "no permission")])
    assert ledger.summary().as_json()["reasons"] == {"unreadable": 1}
    ledger.add("00001-000001-0-0", [row("b")])
    ledger.compact(1)
    assert ledger.summary().total == 3
    ledger.drop_problems()
    assert paths(ledger) == ["a", "b"]


def test_a_damaged_file_is_named(ledger: Ledger, tmp_path: Path) -> None:
    ledger.add("00001-000000-0-0", [row("a")])
    (tmp_path / FOLDER / "00001-000000-0-0.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match=r"00001-000000-0-0\.parquet is damaged"):
        ledger.summary()


def test_anyone_can_read_it(ledger: Ledger, tmp_path: Path) -> None:
    ledger.add("00001-000000-0-0", [row("übel \n name.jpg"), row("b")])
    table = pq.read_table(tmp_path / FOLDER)
    assert table["path"].to_pylist() == ["übel \n name.jpg", "b"]
    assert json.dumps(table.column_names)
