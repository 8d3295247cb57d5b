"""Seconds from the command to the first step, embedded, and what they are made of.

    python -m tests.benchmarks.bench_startup [--size 256] [--count 64] [--rounds 3]

Every part is timed in a fresh process, after one that warms the disk cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from genray.datasets.demo_fronts import write_fronts


def seconds(code: str) -> float:
    """Of a fresh interpreter that runs `code`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - began


def first_step(data: Path, runs: Path, size: int, name: str) -> tuple[float, float, int]:
    """Seconds until the first step is reported, and to the end of a one-step run; peak memory in MB."""
    command = [sys.executable, "-m", "genray", "submit", "train-pix2pix", "--name", name]
    sets = [f"data.path={data}", f"runs={runs}", f"data.size={size}", "loop.epochs=1", "device.gpu=false"]
    command += [word for text in sets for word in ("--set", text)]
    began = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "step 1/" in line:
                break
        first = time.perf_counter() - began
        process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
    assert status == 0
    return first, time.perf_counter() - began, usage.ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "fronts"
        write_fronts(data, count=given.count, size=given.size)
        check = (
            "from genray.settings.load import load; from jobs.train_pix2pix import *; "
            f"TARGET.prepare(load(TrainPix2PixSettings, target='train-pix2pix', sets=['data.path={data}', "
            f"'data.size={given.size}']), 'train-pix2pix', None, print)"
        )
        parts: dict[str, Callable[[], float]] = {
            "genray --help": lambda: seconds("from genray.cli.main import main; main(['--help'])"),
            "import torch": lambda: seconds("import torch"),
            "import torch, Ray Train": lambda: seconds("import torch, ray.train.torch"),
            "the same, settings, data": lambda: seconds(check),
        }
        for name, part in parts.items():
            part()
            print(f"{name:<28} {statistics.median(part() for _ in range(given.rounds)):6.2f} s")
        runs = [
            first_step(data, Path(folder) / "runs", given.size, f"run{i}") for i in range(given.rounds + 1)
        ]
        print(f"{'command to first step':<28} {statistics.median(r[0] for r in runs[1:]):6.2f} s")
        print(f"{'peak memory of the run':<28} {max(r[2] for r in runs):6d} MB")


if __name__ == "__main__":
    main()
