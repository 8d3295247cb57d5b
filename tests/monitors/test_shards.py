"""Shards on a real Ray, of which one is killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.loading import load
from genray.ecg.rhythm import Episode
from monitors.ecg_settings import EcgSettings
from monitors.journal import Journal
from monitors.monitor import Monitor
from monitors.pseudonym import Pseudonyms
from monitors.shards import OnRay, Running, ShardLost
from tests.monitors.running import Notes, replay, sets, write_patients

KEY = b"a key for tests only"
SECONDS, SPEED = 150, 15


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not happened():
            await asyncio.sleep(0.02)


def test_a_shard_that_is_killed_comes_back_and_the_others_do_not_notice(
    embedded_ray: None, beat_bundle: Path, tmp_path: Path
) -> None:
    records = write_patients(tmp_path / "records", [[Episode("asystole", 60, 8)] for _ in range(4)], SECONDS)
    state = tmp_path / "state"
    values = sets(beat_bundle, state, *replay(records, SPEED), "shards=2")
    settings = load(EcgSettings, target="ecg", sets=tuple(values))
    notes = Notes()

    async def test(journal: Journal) -> None:
        shards: list[Running] = [OnRay(settings, KEY, number, 2) for number in range(2)]
        monitor = Monitor(settings, shards, journal, settings.limits_by(Pseudonyms(KEY).of), notes)
        running = asyncio.create_task(monitor.run())
        home = monitor.telling.home

        def processes() -> list[int]:
            return [int(m[1]) for m in re.finditer(r"shard 0: process (\d+)", "\n".join(notes.lines))]

        def changes(kind: str) -> list[tuple[int, str]]:
            found = [t for t in reversed(journal.recent(1000)) if t.kind == kind]
            return [(home[t.stream], t.change) for t in found]

        await until(lambda: len(changes("asystole")) == 8 and len(journal.load_states("reference")) == 4)
        mine = [shard for shard in home.values() if shard == 0]
        assert 0 < len(mine) < 4
        os.kill(processes()[0], signal.SIGKILL)
        await until(lambda: len(changes("stream-lost")) == len(mine))
        lost = [t for t in journal.recent(100) if t.kind == "stream-lost"]
        assert all("being started again" in t.why["reason"] for t in lost)
        # No learning again, and samples come again: the alarms end.
        await until(lambda: len(changes("stream-lost")) == 2 * len(mine))
        assert changes("stream-lost") == [(0, "onset")] * len(mine) + [(0, "ended")] * len(mine)
        assert processes()[0] != processes()[1]
        await until(running.done)
        outcome = running.result()
        # Nothing that was found before was found anew, and the others were watched all the time.
        assert outcome["alarms"] == {"asystole": 4, "stream-lost": len(mine)}
        assert "behind" not in outcome["alarms"]

    with Journal(state / "journal.sqlite", ("alertmanager",)) as journal:
        asyncio.run(test(journal))


def test_a_shard_that_is_not_there_is_lost(embedded_ray: None, beat_bundle: Path, tmp_path: Path) -> None:
    settings = load(EcgSettings, target="ecg", sets=tuple(sets(beat_bundle, tmp_path)))
    with pytest.raises(ShardLost):
        asyncio.run(OnRay(settings, KEY, 0, 2).acknowledge("a:asystole:1"))
