from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitors.outputs.journal import Journal
from monitors.service.checkpoint import MonitorCheckpoint
from monitors.sources import SourceSettings
from monitors.sources.replay import ReplaySettings
from tests.monitors.journals import no_room

PLACE = {"start": 1.0, "chunk": 7, "stream": "a"}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "journal.sqlite") as journal:
        yield journal


def keeping(
    journal: Journal, source: SourceSettings | None = None, shards: int = 2, notes: list[str] | None = None
) -> MonitorCheckpoint:
    return MonitorCheckpoint(
        journal, source or ReplaySettings(), shards, ([] if notes is None else notes).append
    )


async def filled(of: MonitorCheckpoint) -> None:
    await of.references({"s": b"reference"})
    await of.states({"s": b"state"})
    await of.place(1, PLACE)


def test_what_was_kept_is_there_after_a_restart_for_the_shard_that_it_belongs_to(journal: Journal) -> None:
    asyncio.run(filled(keeping(journal)))
    start = keeping(journal).start(1, [])
    assert (start.references, start.states, start.place) == ({"s": b"reference"}, {"s": b"state"}, PLACE)
    other = keeping(journal).start(0, [])
    assert (other.references, other.states, other.place) == ({"s": b"reference"}, {}, {})


@pytest.mark.parametrize(
    ("source", "shards"),
    [(ReplaySettings(path="elsewhere"), 2), (ReplaySettings(), 3)],
    ids=["source", "shards"],
)
def test_a_place_is_not_that_of_another_source_or_sharing(
    journal: Journal, source: ReplaySettings, shards: int
) -> None:
    asyncio.run(filled(keeping(journal)))
    assert keeping(journal, source, shards).start(1, []).place == {}
    assert keeping(journal, ReplaySettings(speed=9)).start(1, []).place == PLACE


def test_a_source_that_is_over_begins_at_its_beginning(journal: Journal) -> None:
    async def run() -> None:
        of = keeping(journal)
        await filled(of)
        await of.place(1, {})

    asyncio.run(run())
    assert keeping(journal).start(1, []).place == {}


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[1]", b'{"source": "x", "place": 3}'])
def test_a_damaged_place_is_none(journal: Journal, damaged: bytes) -> None:
    journal.save_states("place", {"shard-0-of-2": damaged}, 0.0)
    assert keeping(journal).start(0, []).place == {}


def test_a_stream_that_is_forgotten_is_forgotten_everywhere(journal: Journal) -> None:
    async def run() -> MonitorCheckpoint:
        of = keeping(journal)
        await filled(of)
        await of.forget("s")
        return of

    for each in (asyncio.run(run()), keeping(journal)):
        start = each.start(1, [])
        assert (start.references, start.states) == ({}, {})


def test_which_streams_were_watched_is_known_with_the_time_they_would_have_now(journal: Journal) -> None:
    began = time.time()
    asyncio.run(keeping(journal).watching({"a": 100.0, "b": 50.0}))
    time.sleep(0.05)
    again = keeping(journal, ReplaySettings(speed=9), shards=7).watched(60)
    assert again.keys() == {"a", "b"}
    assert 100.05 <= again["a"] <= 100.0 + time.time() - began
    assert keeping(journal, ReplaySettings(path="elsewhere")).watched(60) == {}
    assert keeping(journal).watched(within=0.01) == {}, "it is too long ago"
    asyncio.run(keeping(journal).watching({"b": 51.0}))
    assert keeping(journal).watched(60).keys() == {"b"}
    asyncio.run(keeping(journal).watching({}))
    assert keeping(journal).watched(60) == {}


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[1]", b'{"source": "x", "at": 1, "streams": []}', b"\xff"])
def test_damaged_streams_are_none(journal: Journal, damaged: bytes) -> None:
    journal.save_states("watched", {"monitor": damaged}, 0.0)
    assert keeping(journal).watched(60) == {}


def test_a_full_disk_is_told_once_and_what_is_owed_goes_with_the_next(tmp_path: Path) -> None:
    notes: list[str] = []
    path = tmp_path / "journal.sqlite"
    with Journal.open(path) as journal:
        of = keeping(journal, notes=notes)
        with no_room(path):
            asyncio.run(of.references({"a": bytes(100_000)}))
            asyncio.run(of.references({"b": bytes(100_000)}))
        assert len(notes) == 1
        assert of.start(0, []).references.keys() == {"a", "b"}
        asyncio.run(of.references({"c": b"small"}))
        assert keeping(journal).start(0, []).references.keys() == {"a", "b", "c"}


def test_who_is_discharged_while_the_disk_is_full_is_forgotten_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal.open(path) as journal:
        of = keeping(journal)
        asyncio.run(filled(of))
        with no_room(path):
            asyncio.run(of.forget("s"))
        assert not of.knows("s")
        asyncio.run(of.references({"t": b"another"}))
        assert keeping(journal).start(1, []).references == {"t": b"another"}
