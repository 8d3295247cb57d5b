"""Leads that one core can watch, from replay to `/metrics`: the monitor against bytewax and others, in turns.

    python -m tests.benchmarks.bench_monitor [--leads 1000 --leads 2000] [--rounds 2] [--out FILE]
    python -m tests.benchmarks.bench_monitor --profile [--leads 5000] [--out FILE]

Everybody watches the same generated records (2 leads of 360 Hz) with the same parts, pinned to the same core
in a process of its own, while its metrics are scraped every second. Leads per core are seconds of samples of
all leads over seconds of CPU, all threads of the process included, once references are learned. Those who
look at each stream by itself cost the same for each, so they are given fewer (`--few`). Then, in real time:
seconds from an R peak to its score, and from the last beat before an asystole to Alertmanager's call of a
webhook; and what a scrape of `/metrics` costs. Quote ratios: absolute figures drift. With `--profile`, only
what a second of all leads costs the monitor, stage by stage, as a table (and as JSON in FILE).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from genray.ecg.records.wfdb import write_wfdb
from genray.ecg.synthesis import Episode, generate, write_records
from tests.benchmarks.monitor_case import LEADS, RATE, Case
from tests.benchmarks.monitor_contenders import CONTENDERS
from tests.benchmarks.monitor_profile import table
from tests.monitors.alerting import Pager, alertmanager_server
from tests.monitors.bundles import fit_beats

_RECORDS, _CYCLE = 16, 30.0
_ASYSTOLE = 30.0  # s after the start of a replay
_ALONE = {"bytewax", "dict loop", "sleepecg, detection only"}  # a stream at a time
_PROMETHEUS = {
    "Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    "Accept-Encoding": "gzip",
}


class Contender:
    """A process of `monitor_contenders`, and what it says."""

    def __init__(self, name: str, case: Case) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.monitor_contenders",
            name,
            json.dumps(asdict(case)),
        ]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self._over = threading.Event()

    def line(self) -> str:
        """The next line."""
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"{self.process.args!r} ended with {self.process.wait()}")
        return line.strip()

    def ask(self) -> float:
        """The seconds of CPU of `metrics`."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.line())

    def measured(self) -> dict[str, Any]:
        """Its figures, scraped every second until it gives them."""
        scraper = None
        while (line := self.line()).startswith("metrics:"):
            scraper = threading.Thread(target=self._scrape, args=(line.split()[1],))
            scraper.start()
        self._over.set()
        if scraper is not None:
            scraper.join()
        self.end()
        figures: dict[str, Any] = json.loads(line)
        return figures

    def end(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait() == 0, self.process.args

    def _scrape(self, url: str) -> None:
        while not self._over.wait(1.0):
            try:
                scrape(url)
            except OSError:
                return  # it has just ended


def scrape(url: str, **headers: str) -> bytes:
    """What is at `url`, as Prometheus asks for it."""
    request = urllib.request.Request(url, headers=_PROMETHEUS | headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        body: bytes = answer.read()
    return body


def cost_of_metrics(case: Case, times: int = 20) -> dict[str, float]:
    """CPU milliseconds and bytes of a scrape, plain and as Prometheus asks for it."""
    contender = Contender("metrics", case)
    url = contender.line().split()[1]
    figures: dict[str, float] = {}
    for name, headers in (("plain", {"Accept-Encoding": "identity"}), ("gzip", {})):
        scrape(url, **headers)
        spent = []
        for _ in range(times):
            before = contender.ask()
            size = len(scrape(url, **headers))
            spent.append(1e3 * (contender.ask() - before))
        figures |= {f"{name}_cpu_ms": statistics.median(spent), f"{name}_bytes": size}
    contender.end()
    return figures


async def live(name: str, case: Case, folder: Path) -> dict[str, float]:
    """In real time: the share of a core, p50 and p99 from beat to score. And for the monitor seconds from the
    last beat before an asystole to the call of a webhook by Alertmanager, with its shipped delays of high
    alarms, in one of 17 streams; with up to a second that a stream's own samples are late."""
    made = generate(60, seed=77, script=[Episode("asystole", _ASYSTOLE, 20)])
    last = made.peaks[made.peaks < (_ASYSTOLE + 2) * RATE].max() / RATE
    records = folder / "live"
    write_wfdb(records / "a.hea", made.millivolts, RATE, ("II", "V1"), made.peaks, made.symbols)
    write_records(records, _RECORDS, _CYCLE)
    case = replace(case, records=str(records), speed=1.0, warm=20.0, seconds=30.0)
    async with Pager() as pager:
        with alertmanager_server(folder, pager) as server:
            if name == "genray":
                case = replace(case, alertmanager=f"http://127.0.0.1:{server.port}")
            figures = await asyncio.to_thread(lambda: Contender(name, case).measured())
        onset = figures.pop("start", 0.0) + last + time.monotonic() - time.time()
        delays = [
            came - onset
            for call, came in zip(pager.calls, pager.times, strict=True)
            if any(a["status"] == "firing" and a["labels"]["kind"] == "asystole" for a in call["alerts"])
        ]
    if delays:
        figures |= {"webhooks": len(delays), "webhook_p50_s": statistics.median(delays)}
        figures["webhook_max_s"] = max(delays)
    return figures


def show(name: str, figures: dict[str, float]) -> None:
    """Print a line."""
    print(f"  {name:<26}", "  ".join(f"{key} {value:.4g}" for key, value in figures.items()), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--leads", type=int, action="append", help="of all streams together; default 1000, 2000"
    )
    parser.add_argument("--few", type=int, default=100, help="leads for those who look at a stream at a time")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--warm", type=float, default=30.0, help="seconds of samples before it is measured")
    parser.add_argument("--seconds", type=float, default=30.0, help="seconds of samples that are measured")
    parser.add_argument("--skip", action="append", default=[], help="a contender to leave out")
    parser.add_argument("--live", type=int, default=1000, help="leads in real time; 0: leave this out")
    parser.add_argument("--metrics", type=int, default=1000, help="streams of /metrics; 0: leave this out")
    parser.add_argument(
        "--profile", action="store_true", help="only the cost of each stage; default 5000 leads"
    )
    parser.add_argument("--out", type=Path, help="write the figures to this file as JSON")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[:-1]) or set(cores))  # the last one is the contenders'
    torch.set_num_threads(1)
    results: dict[str, Any] = {"throughput": {}, "live": {}}
    with tempfile.TemporaryDirectory(prefix="bench-monitor-") as root:
        folder = Path(root)
        write_records(folder / "records", _RECORDS, _CYCLE)
        bundle = fit_beats(folder / "bundle", members=16)  # as train-ecg does
        base = Case(str(folder / "records"), str(bundle), "", 1, given.warm, given.seconds)
        numbers = iter(range(10**6))

        def case(leads: int) -> Case:
            (state := folder / f"state-{next(numbers)}").mkdir()
            return replace(base, streams=max(1, leads // LEADS), folder=str(state))

        if given.profile:
            for leads in given.leads or [5000]:
                figures = Contender("profile", case(leads)).measured()
                stages = dict(sorted(figures["stages"].items(), key=lambda each: -each[1]))
                results.setdefault("profile", {})[leads] = stages
                print(table(stages, leads), flush=True)
            given.metrics = given.live = 0
        for leads in [] if given.profile else given.leads or [1000, 2000]:
            names = [name for name in CONTENDERS if name not in (*given.skip, "metrics", "profile")]
            turns: dict[str, list[dict[str, float]]] = {name: [] for name in names}
            print(f"{leads} leads, as fast as they are taken", flush=True)
            for _ in range(given.rounds):
                for name in names:
                    if name in _ALONE and leads != (given.leads or [1000])[0]:
                        continue
                    figures = Contender(name, case(given.few if name in _ALONE else leads)).measured()
                    figures.pop("start", None)
                    turns[name].append(figures)
                    show(name, figures)
            # The best turn is the one that the machine disturbed least.
            best = {n: max(f["leads_per_core"] for f in each) for n, each in turns.items() if each}
            ratios = {name: best["genray"] / each for name, each in best.items()} if "genray" in best else {}
            results["throughput"][leads] = {"turns": turns, "best": best, "ratios": ratios}
            for name, each in best.items():
                ratio = f"   genray is {ratios[name]:.2f} times as fast" if name in ratios else ""
                print(f"{name:<26} {each:8.0f} leads per core{ratio}", flush=True)
        if given.live:
            print(f"{given.live} leads in real time", flush=True)
            for name in ("genray", "bytewax, batched", "bytewax"):
                if name not in given.skip:
                    here = folder / f"live-{next(numbers)}"
                    here.mkdir()
                    results["live"][name] = asyncio.run(live(name, case(given.live), here))
                    show(name, results["live"][name])
        if given.metrics:
            results["metrics"] = cost_of_metrics(case(LEADS * given.metrics))
            print(f"/metrics of {given.metrics} streams of {LEADS} leads", flush=True)
            show("a scrape", results["metrics"])
    if given.out:
        given.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
