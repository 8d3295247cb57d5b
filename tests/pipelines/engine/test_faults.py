"""Drivers, workers and nodes that are killed: nothing is lost, nothing is there twice."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.pipelines.conftest import Bulk, leftovers, rows_of, write_photos

ROOT = Path(__file__).parents[3]


def outputs(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*.png") if not file.name.startswith(".")]


def assert_whole(photos: Path, out: Path, count: int) -> None:
    """Every input is in the ledger once and is done, and every output decodes."""
    rows = rows_of(out)
    assert {row["path"] for row in rows} == {str(f.relative_to(photos)) for f in photos.rglob("*.*g")}
    assert len(rows) == count
    assert {row["status"] for row in rows} == {"done"}
    for row in rows:
        with Image.open(out / row["output"]) as image:
            image.load()
    assert len(outputs(out)) == count
    assert not leftovers(out)


def start(photos: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "genray", "submit", "corrupt", "--set", f"input={photos}"]
    for text in (
        f"output={out}",
        f"work.workers={workers}",
        "work.commit_seconds=0.2",
        "work.cpus_per_worker=1",
    ):
        command += ["--set", text]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    """SIGKILL the driver as soon as `ready`, or let it end."""
    end = time.monotonic() + 90
    while process.poll() is None and not ready():
        assert time.monotonic() < end, "the run made no progress"
        time.sleep(0.01)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait(60)


def test_a_driver_that_is_killed_four_times_ends_with_every_input_once(tmp_path: Path) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    count = 300
    write_photos(photos, count, size=(160, 200))
    rng = random.Random(4)
    kills = 0
    for turn in range(4):
        done = len(outputs(out)) if out.exists() else 0
        target = done + rng.randint(0, (count - done) // 8)
        # One of the four with Ray and its workers, the others in one process: starts are what costs time.
        process = start(photos, out, workers=2 if turn == 2 else 0)
        moment = time.monotonic() + 40
        kill_when(process, lambda t=target, m=moment: time.monotonic() > m or len(outputs(out)) > t)  # type: ignore[misc]
        kills += process.returncode == -signal.SIGKILL
    assert kills == 4
    last = start(photos, out, workers=0)
    assert last.wait(120) == 0
    assert_whole(photos, out, count)


def test_a_killed_worker_is_replaced_and_its_images_are_done(
    embedded_ray: None, bulk: Bulk, tmp_path: Path
) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    write_photos(photos, 300, size=(160, 200))
    killed: list[int] = []
    ended = threading.Event()
    watching = threading.Thread(target=kill_a_worker, args=(out, killed, ended))
    watching.start()
    try:
        outcome = bulk("corrupt", f"input={photos}", "work.commit_seconds=0.2", workers=2)
    finally:
        ended.set()
        watching.join()
    assert killed, "no worker was found to kill"
    assert outcome["total"] == 300
    assert_whole(photos, out, 300)


def kill_a_worker(out: Path, killed: list[int], ended: threading.Event) -> None:
    from importlib import import_module

    ray: Any = import_module("ray")
    state: Any = import_module("ray.util.state")
    address = ray.get_runtime_context().gcs_address  # other tests' Ray may be running, too
    while not killed and not ended.is_set():
        if out.exists() and len(outputs(out)) > 20:
            for actor in state.list_actors(address, filters=[("state", "=", "ALIVE")]):
                if "MapWorker" in actor.class_name and actor.pid:
                    os.kill(actor.pid, signal.SIGKILL)
                    killed.append(actor.pid)
                    return
        time.sleep(0.05)


_CLUSTER = """
import os, sys, threading, time
os.environ["RAY_worker_niceness"] = "0"  # as in cluster.connect
from pathlib import Path
from cluster.auth import authenticate, ensure_token
ensure_token(); authenticate()
import ray
from ray.cluster_utils import Cluster
from genray.targets import find_target
from genray.settings.load import load
from genray.progress import LineDisplay
from genray.targets import Resources

photos, out, temporary = sys.argv[1:]
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "temp_dir": temporary})
others = [nodes.add_node(num_cpus=2) for _ in range(2)]
ray.init(address=nodes.address, log_to_driver=False)

def kill():
    while sum(1 for _ in Path(out).rglob("*.png")) < 30:
        time.sleep(0.02)
    nodes.remove_node(others[0], allow_graceful=False)
    print("killed", flush=True)

target = find_target("corrupt").load()
sets = [f"input={photos}", f"output={out}", "work.workers=3", "work.commit_seconds=0.2", "report.samples=0"]
prepared = target.prepare(load(target.settings_class, target="corrupt", sets=sets), "corrupt", None, print)
threading.Thread(target=kill, daemon=True).start()
outcome = prepared.run(LineDisplay(), Resources(5, 0, 3), attached=True)
print("total", outcome.summary.total, flush=True)
ray.shutdown()
nodes.shutdown()
"""


def test_a_killed_node_of_three_costs_nothing(tmp_path: Path, short_folder: Path) -> None:
    photos = tmp_path / "in"
    out = tmp_path / "out"
    write_photos(photos, 600, size=(160, 200))
    done = subprocess.run(
        [sys.executable, "-c", _CLUSTER, str(photos), str(out), str(short_folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "killed" in done.stdout
    assert "total 600" in done.stdout
    assert_whole(photos, out, 600)


@pytest.fixture
def short_folder() -> Any:
    """Ray's sockets lie under it: their paths may have 107 bytes."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="gr", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
