"""The monitor reads Redis streams from a real server, is killed, and goes on from where it was."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from shutil import copy
from urllib.request import urlopen

import redis

from genray.ecg.synthesis import generate
from monitors.sources.message import encode
from monitors.sources.pseudonyms import load_or_make_key
from tests.monitors.patients import chunks
from tests.monitors.running import EVENTFUL, LEADS, START, Process, recorded, sets, wait_for
from tests.servers import redis_server

SECONDS, FIRST = 240, 150
SPEED = 60
LOST = 60  # s of the clock without samples: longer than the test takes to kill and to begin again


def messages() -> list[list[bytes]]:
    """What three eventful patients send each second."""
    patients = [
        generate(SECONDS, leads=LEADS, seed=70 + n, script=script) for n, script in enumerate(EVENTFUL)
    ]
    streams = [chunks(f"bed-{n}", each.millivolts, leads=LEADS) for n, each in enumerate(patients)]
    return [[encode(chunk) for chunk in second] for second in zip(*streams, strict=True)]


def send(port: int, seconds: Sequence[Sequence[bytes]], speed: float) -> None:
    began = time.monotonic()
    with closing(redis.Redis(host="127.0.0.1", port=port)) as client:
        for number, second in enumerate(seconds):
            time.sleep(max(0.0, began + number / speed - time.monotonic()))
            for message in second:
                client.xadd("ecg", {"m": message})


def shown(monitor: Process, name: str) -> list[float]:
    """What its metrics say of `name`, for each stream or source."""
    with urlopen(monitor.metrics_address(), timeout=5) as answer:
        text = answer.read().decode()
    return [float(value) for value in re.findall(rf"^genray_ecg_{name}\{{[^}}]*\}} (\S+)$", text, re.M)]


def watched_to_the_end(monitor: Process) -> int:
    """Wait until it has seen all samples, and end it; gives how many beats it saw."""
    last = [START + SECONDS] * len(EVENTFUL)
    wait_for(lambda: shown(monitor, "last_sample_timestamp_seconds") == last)
    monitor.signal(signal.SIGTERM)
    code, outcome = monitor.end()
    assert code == 0
    return int(outcome["beats"])


def place(state: Path) -> str:
    """The id of the last entry that need not come again."""
    with closing(sqlite3.connect(f"file:{state / 'journal.sqlite'}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT data FROM states WHERE name = 'place'").fetchall()
    return str(json.loads(rows[0][0])["place"]["ecg"]) if rows else "0-0"


def test_after_a_kill_it_goes_on_from_its_place_and_the_same_alarms_come_once(
    beat_bundle: Path, tmp_path: Path
) -> None:
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    load_or_make_key(killed / "stream.key")
    unbroken.mkdir()
    copy(killed / "stream.key", unbroken)  # so that streams have the same names
    sent = messages()

    with redis_server(tmp_path) as server:
        source = ["source.kind=redis", f"source.port={server.port}"]
        fixed = [
            "ward.reference.drift=0",
            f"alarms.stream_lost.medium={LOST}",
            f"alarms.suppress_after={LOST}",
        ]

        def monitor(state: Path) -> Process:
            return Process(sets(beat_bundle, state, *source, *fixed), tmp_path)

        with monitor(unbroken) as whole:
            with monitor(killed) as first:
                for each in (whole, first):
                    wait_for(lambda each=each: shown(each, "source_connected") == [1])
                began = place(killed)
                send(server.port, sent[:FIRST], SPEED)
                seen = [START + FIRST] * len(EVENTFUL)
                wait_for(lambda: shown(first, "last_sample_timestamp_seconds") == seen)
                wait_for(lambda: place(killed) != began and recorded(killed))
                first.kill()
            before = recorded(killed)
            send(server.port, sent[FIRST:], 1000 * SPEED)
            with monitor(killed) as second:
                resumed_beats = watched_to_the_end(second)
            all_beats = watched_to_the_end(whole)
    assert before
    assert len(before) < len(recorded(unbroken))
    assert sorted(recorded(killed)) == sorted(recorded(unbroken))
    assert 0 < resumed_beats < 0.75 * all_beats, "it did not begin at the beginning"
