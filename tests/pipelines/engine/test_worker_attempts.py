from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq
import pytest

from genray.errors import BulkError
from pipelines.steps.base import StepInput
from tests.pipelines.conftest import rows_of, write_photos
from tests.pipelines.worker_bench import Bench, go_on, paths_of


def test_after_two_deaths_each_image_is_named_before_it_is_worked_on_alone(bench: Bench) -> None:
    write_photos(bench.photos, 5)
    bench.die(2)
    seen = []

    def look(inputs: Sequence[StepInput]) -> None:
        seen.append(([each.path for each in inputs], bench.marker().suspect))

    assert bench.worker(look).work(bench.plan, 0, go_on)
    assert [paths for paths, _ in seen] == [[suspect] for _, suspect in seen]
    assert {suspect for _, suspect in seen} == paths_of(bench.photos)


@pytest.mark.parametrize("times", [1, 4])
def test_an_image_that_workers_died_at_is_tried_again(bench: Bench, times: int) -> None:
    write_photos(bench.photos, 5)
    bench.die(2)
    bench.die(times, "1/0003.jpg")
    assert bench.worker().work(bench.plan, 0, go_on)
    assert bench.statuses() == dict.fromkeys(paths_of(bench.photos), "")


def test_an_image_that_five_workers_in_a_row_died_at_is_recorded_and_the_rest_is_done(bench: Bench) -> None:
    write_photos(bench.photos, 5)
    poison = "1/0003.jpg"
    seen = set[str]()
    bench.die(2)
    bench.die(5, poison)
    assert bench.worker(lambda inputs: seen.update(each.path for each in inputs)).work(bench.plan, 0, go_on)
    assert bench.statuses() == dict.fromkeys(paths_of(bench.photos), "") | {poison: "killed-worker"}
    assert seen == paths_of(bench.photos) - {poison}
    (detail,) = (row["detail"] for row in rows_of(bench.out) if row["status"] == "failed")
    assert detail.startswith("5 workers in a row died, of memory most likely, while only this image was in ")


def test_two_poisonous_images_cost_two_rows(bench: Bench) -> None:
    write_photos(bench.photos, 5)
    bench.die(2)
    bench.die(5, "1/0003.jpg")
    died: list[str] = []

    def look(inputs: Sequence[StepInput]) -> None:
        if inputs[0].path == "0/0004.png":
            died.append(inputs[0].path)
            raise SystemExit  # the worker is gone

    for _ in range(5):
        with pytest.raises(SystemExit):
            bench.worker(look).work(bench.plan, 0, go_on)
    assert bench.worker(look).work(bench.plan, 0, go_on)
    assert died == ["0/0004.png"] * 5
    bad = {"1/0003.jpg": "killed-worker", "0/0004.png": "killed-worker"}
    assert bench.statuses() == dict.fromkeys(paths_of(bench.photos), "") | bad


def test_workers_that_die_without_end_stop_the_run(bench: Bench) -> None:
    write_photos(bench.photos, 5)
    bench.die(50)
    with pytest.raises(BulkError, match=r"worker after worker died \(50 times\)"):
        bench.worker().work(bench.plan, 0, go_on)


def test_a_suspect_of_earlier_passes_is_processed_after_the_others(bench: Bench) -> None:
    write_photos(bench.photos, 5)
    seen: list[list[str]] = []
    worker = bench.worker(lambda inputs: seen.append([each.path for each in inputs]), suspects={"0/0000.jpg"})
    assert worker.work(bench.plan, 0, go_on)
    assert seen[-1] == ["0/0000.jpg"]
    assert {path for paths in seen[:-1] for path in paths} == paths_of(bench.photos) - {"0/0000.jpg"}
    assert len(rows_of(bench.out)) == 5


def test_an_attempt_that_lost_its_chunk_records_nothing(bench: Bench) -> None:
    write_photos(bench.photos, 4)
    worker = bench.worker(lambda inputs: bench.die(1), table=True)
    assert not worker.work(bench.plan, 0, go_on)
    assert bench.ledger.keys() == set()
    assert not list(bench.out.glob("rows/*"))
    assert bench.worker(table=True).work(bench.plan, 0, go_on), "the one that has it does all"
    assert len(rows_of(bench.out)) == 4
    assert pq.read_table(bench.out / "rows").num_rows == 4


def test_a_stop_after_some_images_records_them_and_the_next_attempt_does_the_rest(bench: Bench) -> None:
    write_photos(bench.photos, 30)
    seen: Counter[str] = Counter()

    def look(inputs: Sequence[StepInput]) -> None:
        seen.update(each.path for each in inputs)
        threading.Event().wait(0.01)

    small: dict[str, Any] = {"batch_megapixels": 0.001, "commit_seconds": 0.05}
    reported: list[float] = []

    def report(counts: Mapping[str, float]) -> bool:
        reported.append(counts.get("skipped", 0))
        return sum(reported) > 0

    assert not bench.worker(look, table=True, **small).work(bench.plan, 0, report)
    first = {row["path"] for row in rows_of(bench.out)}
    assert 0 < len(first) < 30
    assert first == set(seen) == set(pq.read_table(bench.out / "rows")["path"].to_pylist())
    assert sum(reported) == len(first)
    assert bench.worker(look, table=True, **small).work(bench.plan, 0, go_on)
    assert seen == Counter(dict.fromkeys(paths_of(bench.photos), 1)), "none is done twice"
    assert len(rows_of(bench.out)) == pq.read_table(bench.out / "rows").num_rows == 30


def test_after_a_stop_only_what_is_being_written_is_finished(bench: Bench) -> None:
    write_photos(bench.photos, 40)
    seen: list[str] = []
    at_stop: list[int] = []

    def look(inputs: Sequence[StepInput]) -> None:
        seen.extend(each.path for each in inputs)
        threading.Event().wait(0.03)

    def report(counts: Mapping[str, float]) -> bool:
        at_stop.append(len(seen))
        return True

    assert not bench.worker(look, table=True, batch_megapixels=0.001).work(bench.plan, 0, report)
    assert 0 < at_stop[0] < 40
    assert len(seen) == at_stop[0], "no other was begun"
    assert {row["path"] for row in rows_of(bench.out)} == set(seen)
    assert sorted(pq.read_table(bench.out / "rows")["path"].to_pylist()) == sorted(seen)
    assert not bench.marker().done
    assert bench.worker(table=True).work(bench.plan, 0, go_on)
    assert len(rows_of(bench.out)) == pq.read_table(bench.out / "rows").num_rows == 40


def test_several_pieces_of_a_dead_attempt_are_all_passed_over(bench: Bench) -> None:
    write_photos(bench.photos, 100)
    seen: list[str] = []

    def look(inputs: Sequence[StepInput]) -> None:
        if len(seen) == 90:
            raise SystemExit
        seen.append(inputs[0].path)
        threading.Event().wait(0.01)

    with pytest.raises(SystemExit):
        bench.worker(look, batch_megapixels=0.001, commit_seconds=0.05).work(bench.plan, 0, go_on)
    assert len(bench.ledger.keys()) > 1
    known = {row["path"] for row in rows_of(bench.out)}
    seen.clear()
    assert bench.worker(lambda inputs: seen.extend(each.path for each in inputs)).work(bench.plan, 0, go_on)
    assert set(seen) == paths_of(bench.photos) - known
    assert len(rows_of(bench.out)) == 100
