"""What the engine itself costs in a large store: listing, plan, ledger and report of up to a million images.

    python -m tests.benchmarks.bench_ledger [--counts 10000 100000 1000000]

Empty files stand for images and no model is run: rows are written as workers would. Each count is a process
of its own, which prints its seconds for each step and its largest memory over what it had before.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genray.io.sources import open_source
from genray.io.store import create_store
from pipelines.corrupt import Corrupt, CorruptSettings
from pipelines.engine.plan import InputListing, Plan, chunk_bounds, write_plan
from pipelines.storage.ledger import Ledger, LedgerIndex, LedgerRow

_FOLDER = 1000
_CHUNK = 256


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
        ledger.add(
            f"00001-{index:06}-0-0", [_row(each.item.path, each.item.modified) for each in plan.chunk(index)]
        )
    lap("record")
    ledger.compact(1)
    lap("compact")
    again = InputListing(source, step, ledger.index(), lambda line: None)
    assert not list(again.remaining())
    lap("list_again")
    assert ledger.summary().total == count
    lap("summary")
    return {"images": count, "seconds": seconds, "memory_mb": round(_memory() - before, 1)}


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
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(work(given.one, given.counts[0])))
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
