from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genray.ecg.synthesis import Episode
from genray.errors import DataError
from genray.settings.load import load
from monitors.alarms.events import Transition
from monitors.patient.resume import WARM_UP
from monitors.service.shard import Partition, Shard, ShardReport, Start
from monitors.settings import EcgSettings
from tests.monitors.running import KEY, START, replay, sets, write_patients


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two records of 100 s."""
    scripts = [[Episode("asystole", 60, 8)], [Episode("lead-off", 30, 20)]]
    return write_patients(tmp_path_factory.mktemp("patients"), scripts, 100)


def settings(bundle: Path, records: Path, *more: str) -> EcgSettings:
    return load(EcgSettings, target="ecg", sets=(*sets(bundle, Path("unused"), *replay(records)), *more))


def played(
    of: EcgSettings,
    start: Start | None = None,
    *,
    until: Callable[[ShardReport], bool] = lambda report: False,
    do: Callable[[Shard, ShardReport], Any] = lambda shard, report: None,
) -> list[ShardReport]:
    """The reports of a shard until its source is over, or one is as wanted."""

    async def run() -> list[ShardReport]:
        shard = Shard.begin(of, KEY, start=start)
        reports: list[ShardReport] = []
        while not reports or not (reports[-1].over or until(reports[-1])):
            reports.append(await shard.collect(save=True))
            do(shard, reports[-1])
        await shard.close()
        return reports

    return asyncio.run(run())


def changes(reports: list[ShardReport]) -> list[Transition]:
    return [each for report in reports for each in report.output.transitions]


def test_a_source_that_is_fast_waits_for_the_work_and_nothing_is_behind(
    beat_bundle: Path, patients: Path
) -> None:
    reports = played(settings(beat_bundle, patients))
    readings = [reading for report in reports for reading in report.output.readings]
    assert len(readings) == 2 * 100
    assert max(len(report.output.readings) for report in reports) <= 2 * 5
    assert "behind" not in {each.kind for each in changes(reports)}


def test_a_place_lies_a_warm_up_before_what_was_looked_at(beat_bundle: Path, patients: Path) -> None:
    ends: dict[str, float] = {}
    for report in played(settings(beat_bundle, patients)):
        ends |= {reading.stream: reading.time - START for reading in report.output.readings}
        if report.place and ends:
            assert report.place["start"] == START
            assert report.place["chunk"] <= max(0, min(ends.values()) - WARM_UP)
            assert report.place["chunk"] >= max(ends.values()) - WARM_UP - 8


def test_what_was_found_after_the_place_is_found_again_and_what_was_before_is_not(
    beat_bundle: Path, patients: Path
) -> None:
    of = settings(beat_bundle, patients)
    whole = changes(played(of))
    assert {each.kind for each in whole} >= {"asystole", "lead-off"}
    # The end comes right after the onset of the asystole.
    first = played(of, until=lambda report: any(t.kind == "asystole" for t in report.output.transitions))
    last = first[-1]
    opened = {t.alarm: t for t in changes(first) if t.state != "ended"}
    states = {stream: bed.alarms for stream, bed in last.moment.beds.items()}
    kept = Start({}, list(opened.values()), last.place, states)
    second = changes(played(of, kept))
    assert [t.alarm for t in changes(first)] + [t.alarm for t in second] == [t.alarm for t in whole]


@pytest.mark.parametrize("beds_per_save", [64, 1])
def test_states_references_and_place_are_of_one_moment_or_the_place_of_an_earlier_one(
    beat_bundle: Path, patients: Path, monkeypatch: pytest.MonkeyPatch, beds_per_save: int
) -> None:
    monkeypatch.setattr("monitors.service.shard._BEDS_PER_SAVE", beds_per_save)
    references: dict[str, set[bytes]] = {}
    saved_until: dict[str, float] = {}
    places = 0
    for report in played(settings(beat_bundle, patients)):
        for stream, bed in report.moment.beds.items():
            references.setdefault(stream, set()).add(bed.reference)
            saved_until[stream] = json.loads(bed.alarms)["time"] - START
        if report.moment.place:
            places += 1
            resumed = report.moment.place["chunk"]
            assert len(saved_until) == 2
            assert resumed <= max(0, min(saved_until.values()) - WARM_UP), "a warm-up before every stream"
    assert places > 3
    assert all(len(each) > 3 for each in references.values()), "also while it is learned, and as it follows"


def test_a_stream_is_discharged_after_what_was_found_before(beat_bundle: Path, patients: Path) -> None:
    answers: list[bool] = []

    def leave(shard: Shard, report: ShardReport) -> None:
        if not answers and (found := [t for t in report.output.transitions if t.kind == "asystole"]):
            answers.extend(shard.discharge(found[0].stream) for _ in range(2))

    reports = played(settings(beat_bundle, patients), do=leave)
    assert answers == [True, False]
    found = [t for t in changes(reports) if t.kind == "asystole"]
    assert [t.change for t in found[:2]] == ["onset", "ended"]
    assert [r.output.discharged for r in reports if r.output.discharged] == [[found[0].stream]]


def test_an_alarm_is_acknowledged_after_what_was_found_before(beat_bundle: Path, patients: Path) -> None:
    done: list[bool] = []

    def answer(shard: Shard, report: ShardReport) -> None:
        done.extend(shard.acknowledge(t.alarm) for t in report.output.transitions if t.change == "onset")

    found = [
        t.change for t in changes(played(settings(beat_bundle, patients), do=answer)) if t.kind == "asystole"
    ]
    assert found[:2] == ["onset", "acknowledged"]
    assert "latched" not in found
    assert all(done)


def test_records_that_cannot_be_read_are_told_once(beat_bundle: Path, tmp_path: Path) -> None:
    records = write_patients(tmp_path, [[]], 6)
    (records / "broken.hea").write_text("broken 1 360 none\n")
    reports = played(settings(beat_bundle, records))
    (left_out,) = [text for report in reports for text in report.left_out]
    assert "broken" in left_out


def test_a_source_that_can_never_be_opened_ends_the_shard(beat_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no records"):
        played(settings(beat_bundle, tmp_path))


def test_each_stream_is_of_one_shard(beat_bundle: Path, patients: Path) -> None:
    async def streams(number: int) -> set[str]:
        shard = Shard.begin(settings(beat_bundle, patients), KEY, Partition(number, 2))
        found: set[str] = set()
        while True:
            report = await shard.collect()
            found |= {reading.stream for reading in report.output.readings}
            if report.over:
                await shard.close()
                return found

    first, second = asyncio.run(streams(0)), asyncio.run(streams(1))
    assert len(first | second) == 2
    assert not first & second


def test_streams_of_which_there_are_too_many_are_counted(beat_bundle: Path, patients: Path) -> None:
    reports = played(settings(beat_bundle, patients, "ward.streams=1"))
    assert sum(report.refused for report in reports) == 100
    assert reports[-1].streams == 1
