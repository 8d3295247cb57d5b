from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from monitors.outputs.journal import Journal
from monitors.patient.output import SavedBed
from monitors.service.checkpoint import MonitorCheckpoint
from monitors.service.shard import Moment
from monitors.sources import SourceSettings
from monitors.sources.replay import ReplaySettings
from tests.monitors.journals import no_room

PLACE = {"start": 1.0, "chunk": 7, "stream": "a"}


def loaded(
    journal: Journal, source: SourceSettings | None = None, shards: int = 2, notes: list[str] | None = None
) -> MonitorCheckpoint:
    return MonitorCheckpoint.load(
        journal, source or ReplaySettings(), shards, ([] if notes is None else notes).append
    )


async def fill(checkpoint: MonitorCheckpoint) -> None:
    await checkpoint.save(1, Moment({"s": SavedBed(b"state", b"reference")}, PLACE))


def learned(stream: str, reference: bytes) -> Moment:
    return Moment({stream: SavedBed(b"", reference)})


def test_what_was_kept_is_there_after_a_restart_for_the_shard_that_it_belongs_to(journal: Journal) -> None:
    asyncio.run(fill(loaded(journal)))
    start = loaded(journal).start(1, [])
    assert (start.references, start.alarm_states, start.place) == (
        {"s": b"reference"},
        {"s": b"state"},
        PLACE,
    )
    other = loaded(journal).start(0, [])
    assert (other.references, other.alarm_states, other.place) == ({"s": b"reference"}, {}, {})


@pytest.mark.parametrize(
    ("source", "shards"),
    [(ReplaySettings(path="elsewhere"), 2), (ReplaySettings(), 3)],
    ids=["source", "shards"],
)
def test_a_place_is_not_that_of_another_source_or_sharing(
    journal: Journal, source: ReplaySettings, shards: int
) -> None:
    asyncio.run(fill(loaded(journal)))
    assert loaded(journal, source, shards).start(1, []).place == {}
    assert loaded(journal, ReplaySettings(speed=9)).start(1, []).place == PLACE


def test_a_source_that_is_over_begins_at_its_beginning(journal: Journal) -> None:
    async def run() -> None:
        checkpoint = loaded(journal)
        await fill(checkpoint)
        await checkpoint.save(1, Moment(place={}))

    asyncio.run(run())
    assert loaded(journal).start(1, []).place == {}


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[1]", b'{"source": "x", "place": 3}'])
def test_a_damaged_place_is_none(journal: Journal, damaged: bytes) -> None:
    journal.save_states({"place": {"shard-0-of-2": damaged}}, 0.0)
    assert loaded(journal).start(0, []).place == {}


def test_a_stream_that_is_forgotten_is_forgotten_everywhere(journal: Journal) -> None:
    async def run() -> MonitorCheckpoint:
        checkpoint = loaded(journal)
        await fill(checkpoint)
        await checkpoint.discharge("s")
        return checkpoint

    for each in (asyncio.run(run()), loaded(journal)):
        start = each.start(1, [])
        assert (start.references, start.alarm_states) == ({}, {})


def test_which_streams_were_watched_is_known_with_the_time_they_would_have_now(journal: Journal) -> None:
    began = time.time()
    asyncio.run(loaded(journal).save_watched({"a": 100.0, "b": 50.0}))
    time.sleep(0.05)
    again = loaded(journal, ReplaySettings(speed=9), shards=7).watched_before(60)
    assert again.keys() == {"a", "b"}
    assert 100.05 <= again["a"] <= 100.0 + time.time() - began
    assert loaded(journal, ReplaySettings(path="elsewhere")).watched_before(60) == {}
    assert loaded(journal).watched_before(within=0.01) == {}, "it is too long ago"
    asyncio.run(loaded(journal).save_watched({"b": 51.0}))
    assert loaded(journal).watched_before(60).keys() == {"b"}
    asyncio.run(loaded(journal).save_watched({}))
    assert loaded(journal).watched_before(60) == {}


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[1]", b'{"source": "x", "at": 1, "streams": []}', b"\xff"])
def test_damaged_streams_are_none(journal: Journal, damaged: bytes) -> None:
    journal.save_states({"watched": {"monitor": damaged}}, 0.0)
    assert loaded(journal).watched_before(60) == {}


def test_a_full_disk_is_told_once_and_what_is_owed_goes_with_the_next(tmp_path: Path) -> None:
    notes: list[str] = []
    path = tmp_path / "journal.sqlite"
    with Journal.open(path) as journal:
        checkpoint = loaded(journal, notes=notes)
        with no_room(path):
            asyncio.run(checkpoint.save(0, learned("a", bytes(100_000))))
            asyncio.run(checkpoint.save(0, learned("b", bytes(100_000))))
        assert len(notes) == 1
        assert checkpoint.start(0, []).references.keys() == {"a", "b"}
        asyncio.run(checkpoint.save(0, learned("c", b"small")))
        assert loaded(journal).start(0, []).references.keys() == {"a", "b", "c"}


def test_who_is_discharged_while_the_disk_is_full_is_forgotten_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal.open(path) as journal:
        checkpoint = loaded(journal)
        asyncio.run(fill(checkpoint))
        with no_room(path):
            asyncio.run(checkpoint.discharge("s"))
        assert not checkpoint.knows("s")
        asyncio.run(checkpoint.save(0, learned("t", b"another")))
        assert loaded(journal).start(1, []).references == {"t": b"another"}
