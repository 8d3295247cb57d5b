"""A real Ray head for the tests of `cluster`: with a token, on ports of its own, in a folder of its own."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from cluster.job_options import JobOptions
from cluster.submit import Jobs

_MARK = "GENRAY_TEST_HEAD"


@dataclass(frozen=True)
class Head:
    """A running head: its dashboard, its GCS, and the environment of a client that may use it."""

    address: str
    gcs: str
    env: Mapping[str, str]


@pytest.fixture(scope="package")  # an idle Ray takes an eighth of a CPU from the other tests
def head() -> Iterator[Head]:
    # Ray puts sockets below this folder, and their paths may have 107 bytes: pytest's own are too long.
    folder = Path(tempfile.mkdtemp(prefix="gr", dir="/tmp"))
    mark, secret = secrets.token_hex(8), secrets.token_hex(16)
    (folder / "token").write_text(secret)
    port, dashboard, client, agent, agent_grpc, runtime_env, metrics, own1, own2 = _free_ports(9)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "GENRAY_"))}
    env |= {
        _MARK: mark,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        # Two more ports, which have no option, and 127.0.0.1 taken for an answer (see cluster.connect).
        "AUTOSCALER_METRIC_PORT": str(own1),
        "DASHBOARD_METRIC_PORT": str(own2),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_worker_niceness": "0",  # beside other tests, workers of Ray's own niceness take minutes to start
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += [f"--temp-dir={folder / 'ray'}", "--disable-usage-stats", "--log-style=record"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--num-cpus=2", "--num-gpus=0"]
    command += [f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}"]
    command += [f"--runtime-env-agent-port={runtime_env}", f"--metrics-export-port={metrics}"]
    command += ["--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000"]

    head = Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}", env)
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            command, env=env, cwd=folder, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_for(head.address, secret, process, folder / "out")
        yield head
    finally:
        _stop(process, mark)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def client_env(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process have the head's token, and no other address or token than the test's own."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", head.env["RAY_AUTH_TOKEN_PATH"])


@pytest.fixture
def jobs(head: Head, client_env: None) -> Jobs:
    return Jobs.connect(head.address)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_for(address: str, secret: str, process: subprocess.Popen[Any], out: Path) -> None:
    request = Request(f"{address}/api/version", headers={"Authorization": f"Bearer {secret}"})
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(request, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the head did not start:\n{out.read_text()}")


def _stop(process: subprocess.Popen[Any], mark: str) -> None:
    """Stop the head, and fail if any process of it, or of one of its jobs, outlives it."""
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 20
    while (left := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"processes outlived the head: {left}"


def _marked(mark: str) -> dict[int, str]:
    """The processes whose environment has our mark: children inherit it, wherever they move to."""
    wanted = f"{_MARK}={mark}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it ended, or is not ours to read
    return found


def start(jobs: Jobs, code: str, *, run: str = "test", env: Mapping[str, str] | None = None) -> str:
    entrypoint = ["python", "-c", "import os; exec(os.environ['CODE'])"]
    return jobs.submit(
        entrypoint, target="train-pix2pix", run=run, options=JobOptions({"CODE": code, **(env or {})})
    )


def until(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def printed(log: str) -> list[str]:
    """The lines of the job itself, without the two that Ray puts there, before or just after the first."""
    rays = ("Running entrypoint for job", "Runtime env is setting up.")
    return [line for line in log.splitlines() if not any(text in line for text in rays)]


def python(code: str, env: dict[str, str], **more: Any) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own: what Ray read from the environment stays in a process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "GENRAY_"))}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=clean | env, capture_output=True, text=True, timeout=90, **more)
