"""Bulk runs against the ways that people write one, over the same images and model, in turns.

    python -m tests.benchmarks.bench_bulk [--case denoise|embed] [--count 96] [--rounds 2] [--images FOLDER]

Contenders: `loop` (Pillow and torch, one image at a time), `dataloader` (torch's, two processes), `ray-data`
(read_images, map_batches, write_images or write_parquet), and `genray submit` as a user gives it, for denoise
also with int8. Each runs as a process of its own and is measured from outside: seconds of the whole command,
of its start (until the first image is through), images per second at steady state (from when a tenth is
through until nine tenths are), and the largest sum of its processes' memory (PSS: shared pages count once).

The bound is what the CPUs could do if nothing else cost anything: the measured time of decoding, model and
encoding of one image on one thread while all CPUs do the same, over the number of CPUs; the median of seven
passes. `stolen` is the share of a CPU that the host of a virtual machine gave to others meanwhile. Quote
ratios: absolute figures drift. Without AMX: ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI in the environment.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from genray.bundle import ImageSpec, Preprocessing, load_bundle, save_bundle
from genray.images.limits import ReadLimits
from genray.images.photo import read_photo
from genray.images.photo_writer import WriteSettings, write_photo
from genray.inference.runner import InferenceSettings, Runner
from genray.models.registry import NetworkSpec

_SIZE = 512
_PASSES = 7
_FEATURES = ("avx", "amx", "fma", "f16c")


def cpu() -> str:
    """Number, model and vector extensions of the CPUs: figures of one kind say little about another."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    features = [each for each in fields.get("flags", "").split() if each.startswith(_FEATURES)]
    return f"{os.cpu_count()} x {fields.get('model name', 'unknown')}; {' '.join(sorted(features))}"


def draw(folder: Path, count: int) -> None:
    """Photos of a kind: overlapping discs of soft colours and noise of sigma 15, JPEG of quality 90."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:_SIZE, :_SIZE]
    for index in range(count):
        image = np.full((_SIZE, _SIZE, 3), 128.0)
        for _ in range(60):
            top, left, radius = *rng.uniform(0, _SIZE, 2).tolist(), float(rng.pareto(1.5) * 12 + 8)
            disc = (rows - top) ** 2 + (columns - left) ** 2 < radius**2
            image[disc] = rng.uniform(20, 235, 3)
        image += rng.normal(0, 15, image.shape)
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / f"{index:05}.jpg", quality=90)


def make_bundle(case: str, path: Path) -> Path:
    """A network of the default size for the case, with drawn weights: speed does not depend on them."""
    torch.manual_seed(0)
    if case == "denoise":
        spec = NetworkSpec("restorer-unet", {"channels": 3, "settings": {"kind": "unet"}})
        kind, size = "denoiser", 64
    else:
        settings = {"latent": 256, "filters": [16, 32, 64]}
        spec = NetworkSpec("autoencoder-conv", {"shape": [3, 128, 128], "settings": settings})
        kind, size = "autoencoder", 128
    images = ImageSpec(channels=3, range=(0.0, 1.0))
    fixed = case == "embed"
    preprocessing = Preprocessing(
        input=images, output=images, size=(size, size), fixed=fixed, fit="stretch" if fixed else None
    )
    return save_bundle(
        path, spec.build(), spec, kind=kind,
        preprocessing=preprocessing, metrics={}, seed=0, data={},
    )  # fmt: skip


def bound(case: str, bundle: Path, images: Path) -> dict[str, float]:
    """Milliseconds of one image by stage, on one thread of each CPU at once, and images per second that they
    allow: the CPUs share caches and memory, so one alone would promise too much."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_bulk", "--costs", case, str(bundle), str(images)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(os.cpu_count() or 1)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    results = [json.loads(process.communicate()[0]) for process in _released(processes)]
    costs = {stage: float(np.mean([result[stage] for result in results])) for stage in results[0]}
    return costs | {"images_per_second": len(processes) * 1e3 / sum(costs.values())}


def _released(processes: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """Let all processes begin at once."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return processes


def print_costs(case: str, bundle: Path, images: Path) -> None:
    """Measure the costs of the stages, when a line on stdin says so; print them as JSON."""
    torch.set_num_threads(1)
    loaded = load_bundle(bundle)
    preprocessing = loaded.manifest.preprocessing
    files = [file.read_bytes() for file in sorted(images.glob("*.jpg"))[:12]]
    network, gives = loaded.network, preprocessing.output
    if case == "embed":
        from pipelines.steps.autoencoder import EncoderNetwork

        network, gives = EncoderNetwork(network), None  # type: ignore[assignment, arg-type]
    runner = Runner.open(network, preprocessing.input, gives, InferenceSettings(), threads=1)
    photos = [read_photo(data, ReadLimits()) for data in files]
    passes: dict[str, list[float]] = {}

    def clock(stage: str, work: Any) -> None:
        began = time.perf_counter()
        for index in range(len(files)):
            work(index)
        passes.setdefault(stage, []).append((time.perf_counter() - began) / len(files) * 1e3)

    stages: dict[str, Any] = {"decode": lambda i: read_photo(files[i], ReadLimits())}
    if case == "embed":
        from pipelines.steps.autoencoder import resized

        size = preprocessing.size
        small = np.stack([resized(photo.pixels, size, "stretch") for photo in photos])
        stages["resize"] = lambda i: resized(photos[i].pixels, size, "stretch")
        stages["model"] = lambda i: runner(small) if i == 0 else None  # a batch of all
    else:
        stages["model"] = lambda i: runner(photos[i].pixels[None])
        stages["encode"] = lambda i: write_photo(photos[i], WriteSettings(), "a.jpg")
    for work in stages.values():
        for index in range(len(files)):
            work(index)  # warm; the model compiles for the size
    for _ in range(8):
        stages["model"](0)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(_PASSES):
        for stage, work in stages.items():
            clock(stage, work)
    print(json.dumps({stage: float(np.median(each)) for stage, each in passes.items()}))


def stolen() -> float:
    """CPU seconds that the host of a virtual machine gave to others since it began, a CPU's share of them."""
    ticks = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return float(ticks[8]) / os.sysconf("SC_CLK_TCK") / (os.cpu_count() or 1)


def measured(command: list[str], out: Path) -> tuple[list[str], float, float, float]:
    """Run a command; its lines of output, when it began, its seconds, and its largest memory in GB."""
    began = time.time()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    peak = [0.0]

    def watch() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], memory(process.pid))
            time.sleep(1.0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    lines = process.communicate()[0].splitlines()
    watcher.join()
    assert process.returncode == 0, command
    return lines, began, time.time() - began, peak[0]


def memory(session: int) -> float:
    """GB of the processes that a command started, however deep: they share its session."""
    total = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if os.getsid(int(folder.name)) == session or _descends(int(folder.name), session):
                    text = (folder / "smaps_rollup").read_text()
                    total += next(
                        int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")
                    )
            except (OSError, StopIteration, ValueError):
                continue
    return total / 1e6


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def steady(times: list[float]) -> float:
    """Images per second from when a tenth is through until nine tenths are."""
    ordered = sorted(times)
    first, last = len(ordered) // 10, len(ordered) * 9 // 10
    return (last - first) / max(1e-9, ordered[last] - ordered[first])


def contender(name: str, case: str, bundle: Path, images: Path, out: Path) -> dict[str, float]:
    """Run one; its figures."""
    out.mkdir()
    before = stolen()
    if name.startswith("genray"):
        command = [sys.executable, "-m", "genray", "submit", case, "--json", "--set", "report.samples=0"]
        for text in (f"input={images}", f"output={out}", f"bundle={bundle}"):
            command += ["--set", text]
        if name == "genray int8":
            command += ["--set", "inference.precision=int8"]
        if case == "denoise":
            command += ["--set", "denoise.clean_below=0"]
        _, began, seconds, peak = measured(command, out)
        finished = pq.read_table(out / "_genray" / "ledger", columns=["finished"])["finished"]
        times = [each.timestamp() for each in finished.to_pylist()]
    else:
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.bulk_contenders",
            name,
            case,
            str(bundle),
            str(images),
            str(out),
        ]
        lines, began, seconds, peak = measured(command, out)
        times = [float(line) for line in lines if line.replace(".", "", 1).isdigit()]
    figures = {"steady": steady(times), "start_s": min(times) - began, "seconds": seconds, "memory_gb": peak}
    figures["stolen"] = (stolen() - before) / seconds
    print(f"  {case} {name:<12}", "  ".join(f"{k} {v:.3g}" for k, v in figures.items()), flush=True)
    return figures


def main() -> None:
    """Measure and print; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=["denoise", "embed"], action="append")
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--images", type=Path, help="512x512 JPEG files; drawn if not given")
    parser.add_argument("--costs", nargs=3, help="for `bound`: case, bundle and images")
    parser.add_argument("--skip", action="append", default=[], help="a contender to leave out")
    given = parser.parse_args()
    if given.costs:
        print_costs(given.costs[0], Path(given.costs[1]), Path(given.costs[2]))
        return
    print(f"CPU: {cpu()}", flush=True)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-bulk-") as root:
        folder = Path(root)
        images = given.images or folder / "images"
        if given.images is None:
            images.mkdir()
            draw(images, given.count)
        for case in given.case or ["denoise", "embed"]:
            bundle = make_bundle(case, folder / case)
            costs = bound(case, bundle, images)
            print(f"{case}: ms an image", {k: round(v, 2) for k, v in costs.items()}, flush=True)
            names = ["loop", "dataloader", "ray-data", "genray"] + ["genray int8"] * (case == "denoise")
            names = [name for name in names if name not in given.skip]
            rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
            for turn in range(given.rounds):
                for name in names:
                    out = folder / f"{case}-{name}-{turn}".replace(" ", "-")
                    rounds[name].append(contender(name, case, bundle, images, out))
                    shutil.rmtree(out)
            best = {name: max(r["steady"] for r in each) for name, each in rounds.items()}
            results[case] = {
                "bound": costs,
                "of_bound": best["genray"] / costs["images_per_second"],
                "ratios": {name: best["genray"] / each for name, each in best.items()},
                "rounds": rounds,
            }
            print(
                f"{case}: genray at {results[case]['of_bound']:.2f} of the bound; times as fast, steady, as:"
            )
            print(
                "  ", {name: round(ratio, 2) for name, ratio in results[case]["ratios"].items()}, flush=True
            )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
