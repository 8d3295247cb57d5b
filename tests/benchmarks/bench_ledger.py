"""What the engine itself costs in a large store: listing, plan, ledger and report of up to a million images.

    python -m tests.benchmarks.bench_ledger [--counts 10000 100000 1000000]
    python -m tests.benchmarks.bench_ledger --requests 2000 [--latency 0.02]

Empty files stand for images and no model is run: rows are written as workers would. Each count is a process
of its own, which prints its seconds for each step and its largest memory over what it had before.

`--requests` counts the requests to an S3 server (moto, behind a proxy that delays each answer) of three
passes: the first writes so many chunks, the second finds them as a killed run would leave them, the third has
nothing to do.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from genray.io.sources import open_source
from genray.io.store import create_store
from pipelines.corrupt import Corrupt, CorruptSettings
from pipelines.engine.bulk_pass import Pass
from pipelines.engine.plan import InputListing, Plan, chunk_bounds, write_plan
from pipelines.engine.reporting.outcome import PassRates
from pipelines.storage.ledger.index import LedgerIndex
from pipelines.storage.ledger.ledger import Ledger
from pipelines.storage.ledger.rows import LedgerRow, chunk_name, piece_key
from pipelines.storage.output import Output
from pipelines.storage.overview import read_overview
from tests.benchmarks.slow_s3 import slow_s3

_FOLDER = 1000
_CHUNK = 256
_ROWS = 16  # of a chunk, where requests are counted
T = TypeVar("T")


def lay_out(root: Path, count: int) -> None:
    """`count` empty files, a thousand to a folder."""
    for index in range(count):
        if index % _FOLDER == 0:
            folder = root / f"{index // _FOLDER:04}"
            folder.mkdir(parents=True)
        (folder / f"photo-{index:07}.jpg").touch()


def work(root: Path, count: int) -> dict[str, Any]:
    """Open, list, plan, record and summarise; a second listing, where nothing is left."""
    settings = CorruptSettings(input=str(root / "in"), output=str(root / "out"))
    step = Corrupt(settings)
    store = create_store(settings.output)
    ledger, seconds = Ledger(store), {}
    before, began = _memory(), time.perf_counter()

    def lap(name: str) -> None:
        nonlocal began
        seconds[name] = round(time.perf_counter() - began, 2)
        began = time.perf_counter()

    source = open_source(settings.input, settings.read)
    lap("open")
    inputs = write_plan(
        store, 1, InputListing(source, step, LedgerIndex.empty(), lambda line: None).remaining()
    )
    assert inputs == count
    lap("list_and_plan")
    plan = Plan(store, 1, chunk_bounds(inputs, _CHUNK))
    for index in range(len(plan)):
        items = [source.completed(each.item) for each in plan.chunk(index)]
        ledger.add(f"00001-{index:06}-0-0", [_row(each.path, each.modified) for each in items])
    lap("record")
    ledger.compact(1)
    lap("compact")
    again = InputListing(source, step, ledger.index(), lambda line: None)
    assert not list(again.remaining())
    lap("list_again")
    assert ledger.summary().total == count
    lap("summary")
    return {"images": count, "seconds": seconds, "memory_mb": round(_memory() - before, 1)}


def count_requests(root: Path, chunks: int, latency: float) -> Iterator[dict[str, Any]]:
    """Yield seconds and requests by method of three passes, and of `genray ledger` afterwards."""
    lay_out(root / "in", chunks * _ROWS)
    with pytest.MonkeyPatch.context() as patch, slow_s3(root, latency) as server:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "1")
        made = urllib.request.Request(f"http://127.0.0.1:{server.port}/bulk", method="PUT")
        urllib.request.urlopen(made, timeout=60).close()
        where = f"endpoint_override=127.0.0.1:{server.port}&scheme=http&region=us-east-1"
        settings = CorruptSettings(input=str(root / "in"), output=f"s3://bulk/out?{where}")

        def lap(what: str, do: Callable[[], T]) -> T:
            server.counts.clear()
            began = time.perf_counter()
            result = do()
            seconds = round(time.perf_counter() - began, 1)
            figures.append({"what": what, "seconds": seconds, **dict(sorted(server.counts.items()))})
            return result

        figures: list[dict[str, Any]] = []
        for name in ("first pass", "resumes after a kill", "nothing is left"):
            output = Output.create(settings.output, settle_seconds=0.0)
            source = open_source(settings.input, settings.read)
            step = Corrupt(settings)
            begin = partial(Pass.begin, step, source, output, {}, "corrupt", lambda line: None)
            begun = lap(f"{name}: begins", begin)
            if name == "first pass":
                plan = Plan(output.store, 1, range(0, begun.inputs + 1, _ROWS))
                for index in range(len(plan)):
                    chunk = chunk_name(1, index)
                    output.attempts.end(chunk, output.attempts.begin(chunk))
                    items = [source.completed(each.item) for each in plan.chunk(index)]
                    output.ledger.add(
                        piece_key(chunk, 0, 0), [_row(each.path, each.modified) for each in items]
                    )
                    server.counts.clear()
            else:
                assert begun.inputs == 0
                lap(f"{name}: ends", partial(begun.end, PassRates(0.0, 0.0, 0.0)))
            lap(f"{name}: genray ledger", lambda: read_overview(settings.output))
        yield from figures


def _row(path: str, modified: int) -> LedgerRow:
    return LedgerRow(
        path=path,
        status="done",
        reason="",
        detail="",
        format="jpeg",
        width=512,
        height=512,
        channels=3,
        depth=8,
        bytes_in=0,
        bytes_out=90_000,
        modified=modified,
        noise=12.5,
        change=4.0,
        read_ms=0.1,
        decode_ms=2.0,
        model_ms=80.0,
        encode_ms=1.4,
        write_ms=0.2,
        output=path,
        sha256="0" * 64,
        finished=datetime.now(UTC),
    )


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Measure each count in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--requests", type=int, metavar="CHUNKS", help="count requests to an S3 server")
    parser.add_argument("--latency", type=float, default=0.02, help="delay of each answer, seconds (0.02)")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(work(given.one, given.counts[0])))
        return
    if given.requests:
        with tempfile.TemporaryDirectory(prefix="bench-ledger-") as folder:
            for figures in count_requests(Path(folder), given.requests, given.latency):
                print(json.dumps(figures), flush=True)
        return
    for count in given.counts:
        with tempfile.TemporaryDirectory(prefix="bench-ledger-") as folder:
            lay_out(Path(folder) / "in", count)
            command = [
                sys.executable,
                "-m",
                "tests.benchmarks.bench_ledger",
                "--one",
                folder,
                "--counts",
                str(count),
            ]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True
            )


if __name__ == "__main__":
    main()
