"""Shards on a real Ray, of which one is killed, or hangs."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from genray.ecg.synthesis import Episode
from genray.settings.load import load
from monitors.outputs.journal import Journal
from monitors.service.backends import RayBackend, ShardBackend, ShardLost
from monitors.service.monitor import Monitor
from monitors.service.shard import Partition
from monitors.settings import EcgSettings
from monitors.sources.pseudonyms import Pseudonyms
from tests.monitors.journals import recent
from tests.monitors.running import KEY, Notes, replay, sets, write_patients

SPEED = 15


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(200):
        while not happened():
            await asyncio.sleep(0.02)


def processes(notes: Notes) -> list[int]:
    """Of shard 0, one after the other."""
    return [int(m[1]) for m in re.finditer(r"shard 0: process (\d+)", "\n".join(notes.lines))]


def changes(journal: Journal, kind: str) -> list[tuple[str, str]]:
    """Of all alarms of a kind: the stream and what changed, in their order."""
    return [(t.stream, t.change) for t in reversed(recent(journal, 1000)) if t.kind == kind]


def gone(process: int) -> bool:
    """Whether there is no process any more that this descriptor stands for."""
    try:
        signal.pidfd_send_signal(process, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_shard_that_is_killed_comes_back_and_the_others_do_not_notice(
    embedded_ray: None, beat_bundle: Path, tmp_path: Path
) -> None:
    records = write_patients(tmp_path / "records", [[Episode("asystole", 60, 8)] for _ in range(4)], 300)
    state = tmp_path / "state"
    values = sets(beat_bundle, state, *replay(records, SPEED), "shards=2")
    settings = load(EcgSettings, target="ecg", sets=tuple(values))
    notes = Notes()

    async def test(journal: Journal) -> None:
        backends: list[ShardBackend] = [
            RayBackend(settings, KEY, Partition(number, 2)) for number in range(2)
        ]
        monitor = Monitor.resume(settings, backends, journal, Pseudonyms(KEY).of, notes)
        running = asyncio.create_task(monitor.run())
        streams = monitor.dispatcher.streams

        await until(
            lambda: len(changes(journal, "asystole")) == 8 and len(journal.load_states("reference")) == 4
        )
        mine = [each for each in streams.values() if each.shard == 0]
        assert 0 < len(mine) < 4
        os.kill(processes(notes)[0], signal.SIGKILL)
        await until(lambda: len(changes(journal, "stream-lost")) == len(mine))
        lost = [t for t in recent(journal, 100) if t.kind == "stream-lost"]
        assert all("being restarted" in t.why["reason"] for t in lost)
        # No learning again, and samples come again: the alarms end.
        await until(lambda: len(changes(journal, "stream-lost")) == 2 * len(mine))
        changed = [(streams[stream].shard, change) for stream, change in changes(journal, "stream-lost")]
        assert changed == [(0, "onset")] * len(mine) + [(0, "ended")] * len(mine)
        assert processes(notes)[0] != processes(notes)[1]
        await until(running.done)
        summary = running.result()
        # Nothing that was found before was found anew, and the others were watched all the time.
        assert summary.onsets == {"asystole": 4, "stream-lost": len(mine)}
        assert "behind" not in summary.onsets

    with Journal.open(state / "journal.sqlite", ("alertmanager",)) as journal:
        asyncio.run(test(journal))


def test_a_shard_that_hangs_is_begun_anew_and_its_streams_are_lost_meanwhile(
    embedded_ray: None, beat_bundle: Path, tmp_path: Path
) -> None:
    # Longer than a shard needs to be there again on a busy machine; the test ends before.
    records = write_patients(tmp_path / "records", [[] for _ in range(4)], 2400)
    state = tmp_path / "state"
    values = sets(beat_bundle, state, *replay(records, SPEED), "shards=2")
    settings = load(EcgSettings, target="ecg", sets=tuple(values))
    notes = Notes()

    async def test(journal: Journal) -> None:
        backends: list[ShardBackend] = [
            RayBackend(settings, KEY, Partition(number, 2), answer_timeout=3) for number in range(2)
        ]
        monitor = Monitor.resume(settings, backends, journal, Pseudonyms(KEY).of, notes)
        running = asyncio.create_task(monitor.run())
        streams = monitor.dispatcher.streams
        await until(lambda: len(streams) == 4)
        mine = sorted(stream for stream, each in streams.items() if each.shard == 0)
        assert 0 < len(mine) < 4
        hung = os.pidfd_open(processes(notes)[0])  # nobody else is met, should its number be given again
        try:
            signal.pidfd_send_signal(hung, signal.SIGSTOP)
            stopped = time.monotonic()
            await until(lambda: len(changes(journal, "stream-lost")) == len(mine))
            assert time.monotonic() - stopped < 3 + 5
            assert "shard 0 has not responded for 3 s; restarting it" in notes.lines
            assert len(processes(notes)) == 1, "the streams are lost before it is back"
            await until(lambda: len(changes(journal, "stream-lost")) == 2 * len(mine))
            lost_changes = changes(journal, "stream-lost")
            assert sorted(lost_changes[: len(mine)]) == [(stream, "onset") for stream in mine]
            assert sorted(lost_changes[len(mine) :]) == [(stream, "ended") for stream in mine]
            assert len(set(processes(notes))) == 2
            # It does not wake up one day, and go on beside the other.
            await until(lambda: gone(hung))
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(hung, signal.SIGKILL)
            os.close(hung)
            monitor.stop()
        assert (await running).onsets == {"stream-lost": len(mine)}

    with Journal.open(state / "journal.sqlite", ("alertmanager",)) as journal:
        asyncio.run(test(journal))


def test_a_shard_that_is_not_there_is_lost(embedded_ray: None, beat_bundle: Path, tmp_path: Path) -> None:
    settings = load(EcgSettings, target="ecg", sets=tuple(sets(beat_bundle, tmp_path)))
    with pytest.raises(ShardLost):
        asyncio.run(RayBackend(settings, KEY, Partition(0, 2)).acknowledge("a:asystole:1"))
