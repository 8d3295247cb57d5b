"""Ever new names from one sender take no place from the streams of patients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from aiohttp import web

from genray.settings.load import load
from monitors.service import newcomers
from monitors.service.newcomers import Newcomers
from monitors.service.shard import Shard, ShardReport, Start
from monitors.settings import EcgSettings
from monitors.sources.message import encode
from monitors.sources.pseudonyms import Pseudonyms
from tests.monitors.running import KEY, sets
from tests.monitors.samples import chunk

FLOOD = 500  # new names per second
PATIENTS = [f"bed-{number}" for number in range(5)]


def new_names() -> Iterator[str]:
    return (f"nobody-{number}" for number in count())


def flooded(bundle: Path, patients: list[str], seconds: int, start: Start, streams: int) -> list[ShardReport]:
    """The reports of a shard with room for `streams`, of a server whose `patients` are among new names."""
    names = new_names()
    reports: list[ShardReport] = []

    async def send(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for second in range(seconds):
            for _ in range(FLOOD):
                await socket.send_bytes(encode(replace(chunk(second), stream=next(names))))
            for patient in patients:
                await socket.send_bytes(encode(replace(chunk(second), stream=patient)))
        await asyncio.sleep(60)
        return socket

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/", send)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        source = ["source.kind=websocket", f"source.url=ws://127.0.0.1:{runner.addresses[0][1]}/"]
        values = sets(bundle, Path("unused"), *source, f"ward.streams={streams}")
        shard = Shard.begin(load(EcgSettings, target="ecg", sets=tuple(values)), KEY, start=start)

        def read_all() -> bool:
            last = seconds * len(patients)
            return sum(len(report.output.readings) for report in reports) >= last

        async with asyncio.timeout(60):
            while not read_all():
                reports.append(await shard.collect())
        await shard.close()
        await runner.cleanup()

    asyncio.run(run())
    return reports


def test_a_flood_of_names_gets_no_beds_and_new_patients_do(beat_bundle: Path) -> None:
    reports = flooded(beat_bundle, PATIENTS, 4, Start(), streams=len(PATIENTS))
    assert reports[-1].streams == len(PATIENTS)
    readings = [reading for report in reports for reading in report.output.readings]
    assert {reading.stream for reading in readings} == {Pseudonyms(KEY).of(name) for name in PATIENTS}
    assert len(readings) == 4 * len(PATIENTS), "also the samples of the first message are analysed"
    assert not sum(report.refused for report in reports)


def test_after_a_restart_places_are_kept_for_the_streams_that_were_watched(beat_bundle: Path) -> None:
    expected = frozenset(Pseudonyms(KEY).of(name) for name in PATIENTS)
    # Two strangers send second messages too, and would take both places before a patient arrives.
    strangers = ["stranger-1", "stranger-2"]
    room = len(PATIENTS) + 1

    def watched(start: Start) -> set[str]:
        reports = flooded(beat_bundle, PATIENTS, 3, start, streams=room)
        return {reading.stream for report in reports for reading in report.output.readings}

    assert watched(Start(expected=expected)) == expected
    kept = Newcomers((), expected, 1, keep_until=100.0)
    for stranger in strangers:
        assert kept.admitted(replace(chunk(1), stream=stranger), 1.0) == []
        assert len(kept.admitted(replace(chunk(2), stream=stranger), 2.0)) == 2
    assert kept.kept_places(3.0) == len(PATIENTS)
    first = next(iter(expected))
    assert kept.knows(first)
    assert [each.stream for each in kept.admitted(replace(chunk(1), stream=first), 3.0)] == [first]
    assert kept.kept_places(3.0) == len(PATIENTS) - 1
    assert kept.kept_places(101.0) == 0, (
        "a bed that does not come back is not waited for longer than a lost one"
    )


def test_a_message_that_is_repeated_is_no_second_one() -> None:
    waiting = Newcomers((), (), 1, keep_until=0.0)
    first = chunk(7)
    assert waiting.admitted(first, 0.0) == []
    assert waiting.admitted(first, 1.0) == []
    assert [each.sequence for each in waiting.admitted(chunk(8), 2.0)] == [7, 8]


def test_what_waits_is_limited_and_names_that_came_once_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    size = chunk(1).samples.nbytes
    monkeypatch.setattr(newcomers, "_MOST_NAMES", 100)
    monkeypatch.setattr(newcomers, "_MOST_BYTES", 10 * size)
    waiting = Newcomers((), (), 1, keep_until=0.0)
    names = new_names()
    for _ in range(150):
        assert waiting.admitted(replace(chunk(1), stream=next(names)), 0.0) == []
    assert waiting.pop_named_once(0.0) == 50
    late, recent = "nobody-60", "nobody-149"
    assert len(waiting.admitted(replace(chunk(2), stream=late), 1.0)) == 1, "its samples were dropped"
    assert len(waiting.admitted(replace(chunk(2), stream=recent), 1.0)) == 2
    assert waiting.pop_named_once(61.0) == 98
