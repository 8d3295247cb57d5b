"""Kills of the ECG monitor at random moments of a replay: alarms equal to those of an undisturbed run?

    python -m tests.benchmarks.bench_kills [--minutes 30] [--speed 60] [--life 4] [--seed 0] [--out FILE]

Each round generates three patients with episodes at random times, plays them to `genray monitor ecg` once
undisturbed, and once with a SIGKILL a random time after each start (also while it is starting) until the
replay has ended. A real Alertmanager with the shipped configuration calls a webhook. Compared are the journal
(alarm, change, time of the samples), which alarms have a strip, the patients' references, and the calls of
the webhook (status, alarm).
The monitors are forked from a process that has imported all, so that there are many kills in a minute. A
kill after the replay has ended is its end. Prints a line for each round, and exits with 1 if any differs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from shutil import copy

from genray.ecg.synthesis import Episode
from genray.settings.load import load
from genray.targets import Resources
from monitors.ecg import TARGET
from monitors.outputs.strips import FOLDER, read_strip
from monitors.settings import EcgSettings
from tests.monitors.alerting import Pager, alertmanager_server
from tests.monitors.bundles import fit_beats
from tests.monitors.running import Notes, recorded, replay, sets, write_patients

_SECONDS = 240  # of each record
_FORKS = get_context("forkserver")
_POLL = 0.01  # s between looks at the CPU time of a process
_STARTING = 0.25  # share of kills while the process is still starting
_SETTLING = 3.0  # s until Alertmanager has called for everything


@dataclass
class Run:
    """What one replay left behind.

    Attributes:
        journal: alarm, change and time of each row, sorted.
        calls: how often the webhook was called for a status and an alarm.
        learned: references of the patients.
        strips: alarms that have a strip, complete or not.
        kills: kills until the replay had ended.
    """

    journal: Sequence[tuple[str, str, float]]
    calls: Counter[tuple[str, str]]
    learned: dict[str, bytes]
    strips: set[str]
    kills: int


@dataclass
class Round:
    """Outcome of one round.

    Attributes:
        kills: kills of the disturbed run.
        alarms: alarms of the undisturbed run.
        calls: calls of its webhook.
        differences: what the disturbed run had more (+) or less (-).
    """

    kills: int
    alarms: int
    calls: int
    differences: list[str] = field(default_factory=list)


def random_script(chance: random.Random) -> list[Episode]:
    """Episodes of one patient: at random times after 45 s, in which the patient is learned."""
    script, at = [], 45.0 + chance.uniform(0, 20)
    while at < _SECONDS - 30:
        kind = chance.choice(["asystole", "tachycardia", "bradycardia", "pvc", "lead-off", "gap"])
        length = chance.uniform(8, 25)
        share = {"share": 0.6} if kind == "pvc" else {}
        script.append(Episode(kind, round(at, 1), round(length, 1), **share))  # type: ignore[arg-type]
        at += length + chance.uniform(15, 50)
    return script


class Announcing(Notes):
    """A display that sends a byte when the monitor begins to watch."""

    def __init__(self, ready: Connection) -> None:
        super().__init__()
        self._ready = ready

    def note(self, text: str) -> None:
        super().note(text)
        if text.startswith("metrics:"):
            self._ready.send_bytes(b"r")


def watch(values: Sequence[str], ready: Connection) -> None:
    """Run a monitor until its replay has ended, in a process of its own."""
    settings = load(EcgSettings, target="ecg", sets=tuple(values))
    display = Announcing(ready)
    TARGET.prepare(settings, "ecg", None, display.note).run(display, Resources(2, 0), False)


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process; infinite once it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def killed(values: Sequence[str], life: float, chance: random.Random | None) -> bool:
    """Run a monitor, and kill it at a random moment (None: never); return whether that was before its end.
    Most kills come after it has begun to watch, `life` seconds of its CPU time on average: on a busy machine
    a kill after seconds of the clock would always come in the beginning."""
    receiving, sending = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(target=watch, args=(values, sending))
    process.start()
    sending.close()
    if chance is None:
        process.join()
    else:
        assert process.pid is not None
        starting = chance.random() < _STARTING
        if not starting:
            with suppress(EOFError):
                receiving.recv_bytes()
        end = cpu_seconds(process.pid) + (chance.uniform(0, 1) if starting else chance.expovariate(1 / life))
        while process.is_alive() and cpu_seconds(process.pid) < end:
            process.join(_POLL)
    alive = process.is_alive()
    if alive:
        process.kill()
        process.join()
    receiving.close()
    assert alive or process.exitcode == 0, f"the monitor ended with {process.exitcode}"
    return alive


def play(values: Sequence[str], folder: Path, state: Path, life: float, chance: random.Random | None) -> Run:
    """Replay to the end; with `chance`, kill each process at a random moment."""

    def monitor(values: Sequence[str]) -> int:
        kills = 0
        while killed(values, life, chance) and not has_ended(state):
            kills += 1
        return kills

    async def together() -> tuple[int, Counter[tuple[str, str]]]:
        async with Pager() as pager:
            with alertmanager_server(folder, pager) as alertmanager:
                urls = f"alertmanager.urls=[http://127.0.0.1:{alertmanager.port}]"
                kills = await asyncio.to_thread(monitor, [*values, urls])
                await asyncio.sleep(_SETTLING)
            alerts = [alert for call in pager.calls for alert in call["alerts"]]
            return kills, Counter((alert["status"], alert["labels"]["alarm"]) for alert in alerts)

    kills, calls = asyncio.run(together())
    learned = states(state, "reference")
    journal = sorted(recorded(state))
    alarms = {alarm for alarm, _, _ in journal}
    strips = {alarm for alarm in alarms if read_strip(state / FOLDER, alarm) is not None}
    return Run(journal, calls, learned, strips, kills)


def states(state: Path, name: str) -> dict[str, bytes]:
    """Return the states `name` in the journal, by stream."""
    with closing(sqlite3.connect(f"file:{state / 'journal.sqlite'}?mode=ro", uri=True)) as database:
        return dict(database.execute("SELECT stream, data FROM states WHERE name = ?", (name,)))


def has_ended(state: Path) -> bool:
    """Whether the replay has ended: its place is that of a new one."""
    with suppress(sqlite3.Error):
        places = [json.loads(data)["place"] for data in states(state, "place").values()]
        return bool(places) and not any(places)
    return False


def compare(whole: Run, disturbed: Run) -> list[str]:
    """Return what `disturbed` has more (+) or less (-) than `whole`."""
    found = []
    for name, before, after in (
        ("journal", Counter(whole.journal), Counter(disturbed.journal)),
        ("webhook", whole.calls, disturbed.calls),
    ):
        found += [f"{name} - {row}" for row in (before - after).elements()]
        found += [f"{name} + {row}" for row in (after - before).elements()]
    found += [f"strip of {alarm}" for alarm in whole.strips ^ disturbed.strips]
    found += [f"reference of {stream}" for stream in whole.learned.keys() ^ disturbed.learned.keys()]
    both = whole.learned.keys() & disturbed.learned.keys()
    return found + [f"reference of {s}" for s in both if whole.learned[s] != disturbed.learned[s]]


def one_round(bundle: Path, folder: Path, speed: float, life: float, chance: random.Random) -> Round:
    """Play a set of new patients undisturbed, then with kills."""
    scripts = [random_script(chance) for _ in range(3)]
    records = write_patients(folder / "records", scripts, _SECONDS)
    runs = []
    for name, killing in (("whole", None), ("disturbed", chance)):
        state = folder / name
        state.mkdir()
        if killing is not None:
            copy(folder / "whole" / "stream.key", state)  # so that streams have the same pseudonyms
        runs.append(play(sets(bundle, state, *replay(records, speed)), state, state, life, killing))
    whole, disturbed = runs
    alarms = len({alarm for alarm, _, _ in whole.journal})
    return Round(disturbed.kills, alarms, whole.calls.total(), compare(whole, disturbed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--speed", type=float, default=60)
    parser.add_argument("--life", type=float, default=4, help="mean CPU seconds from watching to the kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    _FORKS.set_forkserver_preload(["monitors.ecg", "tests.monitors.running"])
    chance = random.Random(options.seed)
    end = time.monotonic() + 60 * options.minutes
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = fit_beats(Path(folder) / "bundle")
        while time.monotonic() < end:
            place = Path(folder) / f"round-{len(rounds)}"
            place.mkdir()
            rounds.append(one_round(bundle, place, options.speed, options.life, chance))
            last = rounds[-1]
            verdict = "\n  ".join(["different", *last.differences]) if last.differences else "equal"
            counts = f"{last.kills} kills, {last.alarms} alarms, {last.calls} calls"
            print(f"round {len(rounds)}: {counts}, {verdict}", flush=True)
    different = sum(bool(each.differences) for each in rounds)
    kills = sum(each.kills for each in rounds)
    print(f"{kills} kills in {len(rounds)} rounds: {different} rounds differ")
    if options.out:
        options.out.write_text(json.dumps([asdict(each) for each in rounds], indent=2) + "\n")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
