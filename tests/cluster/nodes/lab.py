"""Real Ray nodes on one machine that share nothing but a network and an S3 server.

Each node has its own network, mounts, processes, host name and shared memory. At the lab's path, which is the
same on all nodes and on the client, each has a folder of its own, and none has the project's code: what is
assumed to be shared is not there.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from cluster.submit import PACKAGES
from tests.s3 import s3_server_at

MARK = "GENRAY_TEST_NAMESPACES"
"""Variable that says "yes" in the namespaces of `python -m tests.cluster.nodes`, else why there are none."""

ROOT = Path(__file__).parents[3]
CLIENT = "10.111.0.1"  # address of the client and of the S3 server; the nodes have the next ones
_BRIDGE = "genray0"
_OBJECT_STORE = 80_000_000  # bytes of each node
_GCS, _DASHBOARD = 6379, 8265
_START_S = 400.0  # seconds in which nodes are there, also on a busy machine

# A node: hides what it must not see, then starts Ray. The first process of its process namespace is this
# shell, with which all others end. Not `ray start --block`: on a busy machine it ends the head because
# Ray's client server, which nothing here uses, has waited 30 s.
_NODE = """
set -e
hostname {name}
ip link set lo up
mount -t tmpfs -o size=1g none /dev/shm
for code in {code}; do mount -t tmpfs none $code; done
mount --bind {folder} {lab}
mkdir -p {lab}/home {lab}/tmp {lab}/work
cd {lab}/work
{ray}
sleep infinity
"""


@dataclass
class Node:
    """One node of a lab: a network namespace with an address, in which Ray can be started and killed.

    Args:
        name, address: its host name and IP address.
        ray: command that starts Ray.
        path, beside, environment: those of the lab.
    """

    name: str
    address: str
    ray: str
    path: Path
    beside: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """The folder that lies at the lab's path on this node."""
        return self.beside / self.name

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start Ray; returns at once."""
        self.folder.mkdir(exist_ok=True)
        script = _NODE.format(
            name=self.name,
            folder=self.folder,
            lab=self.path,
            code=" ".join(str(ROOT / package) for package in PACKAGES),
            ray=self.ray,
        )
        enter = ["nsenter", f"--net=/run/netns/{self.name}", "unshare", "--mount", "--pid", "--fork"]
        enter += ["--mount-proc", "--uts", "--kill-child", "bash", "-c", script]
        environment = {**self.environment, "HOME": f"{self.path}/home", "TMPDIR": f"{self.path}/tmp"}
        with (self.beside / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(enter, env=environment, stdout=log, stderr=log)

    def kill(self) -> None:
        """End all processes of the node at once, as a power cut does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None
        # A machine that starts anew has none of these.
        shutil.rmtree(self.folder, ignore_errors=True)

    def unplug(self, *, plugged: bool = False) -> None:
        """Take the node off the network, without a word to anyone, or put it back."""
        _ip("link", "set", f"to-{self.name}", "up" if plugged else "down")

    def log(self) -> str:
        return (self.beside / f"{self.name}.log").read_text(errors="replace")[-4000:]


@dataclass
class Lab:
    """A head without CPUs, workers, an S3 server, and a client that submits to them.

    Args:
        path: folder that is another one on each node; the client's own lies there as well.
        beside: folder with those of the nodes, and their logs.
        s3: port of the S3 server at `CLIENT`.
    """

    path: Path
    beside: Path
    s3: int
    environment: dict[str, str]
    head: Node
    workers: list[Node]

    @property
    def dashboard(self) -> str:
        return f"http://{self.head.address}:{_DASHBOARD}"

    def uri(self, *parts: str) -> str:
        """A place in the bucket."""
        where = f"endpoint_override={CLIENT}:{self.s3}&scheme=http&region=us-east-1"
        return f"s3://{'/'.join(('lab', *parts))}?{where}"

    def genray(self, *words: str) -> subprocess.Popen[str]:
        """Start the command on the client, with its output in pipes."""
        command = [sys.executable, "-m", "genray", *words]
        return subprocess.Popen(
            command,
            env=self.environment | {"PYTHONPATH": str(ROOT)},
            cwd=self.path,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *words: str, timeout: float = 600) -> Ended:
        """Run the command on the client to its end."""
        return self.ended(self.genray(*words), timeout)

    def submit(self, target: str, *words: str, sets: Sequence[str]) -> subprocess.Popen[str]:
        """Start `genray submit --address`, which follows the job."""
        values = [word for text in sets for word in ("--set", text)]
        return self.genray("submit", target, "--address", self.dashboard, "--json", *words, *values)

    def ended(self, process: subprocess.Popen[str], timeout: float = 600) -> Ended:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"not ended in {timeout:.0f} s:\n{out}\n{err}") from None
        return Ended(process.returncode, out, err)

    def follow(self, process: subprocess.Popen[str]) -> Log:
        """Read what a command that runs prints to its error stream."""
        return Log(process)

    def alive(self) -> set[str]:
        """The addresses of the nodes that the cluster takes for alive."""
        return {row["node_ip"] for row in self._rows("nodes") if row["state"] == "ALIVE"}

    def with_actor(self, name: str) -> list[Node]:
        """The workers on which an actor of the class `name` lives."""
        actors = [row for row in self._rows("actors") if row["class_name"] == name]
        there = {row["node_id"] for row in actors if row["state"] == "ALIVE"}
        addresses = {row["node_ip"] for row in self._rows("nodes") if row["node_id"] in there}
        return [node for node in self.workers if node.address in addresses]

    def _rows(self, kind: str) -> list[dict[str, Any]]:
        """A table of Ray's state; empty while the cluster does not answer."""
        token = self.environment["RAY_AUTH_TOKEN"]
        request = Request(f"{self.dashboard}/api/v0/{kind}", headers={"Authorization": f"Bearer {token}"})
        try:
            with urlopen(request, timeout=10) as answer:
                rows: list[dict[str, Any]] = json.load(answer)["data"]["result"]["result"]
        except OSError:
            return []
        return rows

    def whole(self) -> None:
        """Start the nodes that do not run, and wait until the cluster has all of them."""
        self._started([self.head])
        self._started([self.head, *self.workers])

    def stop(self) -> None:
        """Kill all nodes."""
        for node in (self.head, *self.workers):
            if node.process is not None:
                node.kill()

    def _started(self, nodes: Sequence[Node]) -> None:
        def are_alive() -> bool:
            for node in nodes:
                if not node.runs:  # Ray gives up where a busy machine takes too long
                    node.start()
            return {node.address for node in nodes} <= self.alive()

        until(are_alive, _START_S, lambda: "\n".join(f"--- {node.name}\n{node.log()}" for node in nodes))


class Log:
    """Lines that a command has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line.rstrip("\n"))

    def end(self, seconds: float) -> int:
        """Wait for the end of the command; returns its exit code."""
        code = self._process.wait(seconds)
        self._reader.join(seconds)
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()
        return code

    def count(self, line: str) -> int:
        return self._lines.count(line)

    def text(self) -> str:
        return "\n".join(self._lines)

    def job(self) -> str:
        """The id of the job that the command has submitted."""
        return next(line for line in self._lines if line.startswith("job: ")).removeprefix("job: ")


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def outcome(self) -> dict[str, Any]:
        """The line that `--json` prints."""
        lines = self.out.splitlines()
        assert len(lines) == 1, f"{self.out}\n{self.err}"
        value: dict[str, Any] = json.loads(lines[0])
        return value

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


@contextmanager
def lab(*, workers: int = 2, cpus: int = 2) -> Iterator[Lab]:
    """Start the nodes of a lab for a `with` block."""
    # Ray puts sockets below this folder, and their paths may have 107 bytes: pytest's own are too long.
    path = Path(tempfile.mkdtemp(prefix="gr", dir="/tmp"))
    beside = Path(tempfile.mkdtemp(prefix="gr-nodes-", dir="/tmp"))
    names = ["head", *(f"worker-{number}" for number in range(1, workers + 1))]
    _network(names)
    ray = f"{sys.executable} -m ray.scripts.scripts start --disable-usage-stats"
    ray += f" --log-style=record --object-store-memory={_OBJECT_STORE} --temp-dir={path}/ray"
    try:
        with s3_server_at(CLIENT, beside) as port:
            place = f"http://{CLIENT}:{port}/lab"
            urlopen(Request(place, method="PUT"), timeout=10).close()
            addresses = [f"10.111.0.{number + 2}" for number in range(len(names))]
            gcs = f"{addresses[0]}:{_GCS}"
            environment = _environment(path)
            here = f"--node-ip-address={addresses[0]} --dashboard-host=0.0.0.0 --dashboard-port={_DASHBOARD}"
            commands = [f"{ray} --head --num-cpus=0 --port={_GCS} {here}"]
            ray += f" --address={gcs} --num-cpus={cpus}"
            commands += [f"{ray} --node-ip-address={address}" for address in addresses[1:]]
            nodes = [
                Node(*each, path, beside, environment)
                for each in zip(names, addresses, commands, strict=True)
            ]
            made = Lab(path, beside, port, environment, nodes[0], nodes[1:])
            try:
                made.whole()
                yield made
            finally:
                made.stop()
    finally:
        _no_network(names)
        shutil.rmtree(path, ignore_errors=True)
        if os.environ.get("GENRAY_KEEP_LAB") is None:
            shutil.rmtree(beside, ignore_errors=True)


def until(condition: Callable[[], bool], seconds: float, what: Callable[[], str] = lambda: "") -> None:
    """Wait until `condition` holds; fails with `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not happen in {seconds:.0f} s: {what()}"
        time.sleep(0.3)


def _environment(path: Path) -> dict[str, str]:
    kept = ("PATH", "LANG", "LC_ALL", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(path),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_worker_niceness": "0",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "1",
        "OMP_NUM_THREADS": "1",
        "GENRAY_MODEL_CACHE": "",
    }


def _network(names: Sequence[str]) -> None:
    """Make a network namespace for each name, all on one bridge with the client."""
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)  # where `ip` keeps its names
    _ip("link", "set", "lo", "up")
    _ip("link", "add", _BRIDGE, "type", "bridge")
    _ip("addr", "add", f"{CLIENT}/24", "dev", _BRIDGE)
    _ip("link", "set", _BRIDGE, "up")
    for number, name in enumerate(names, start=2):
        _ip("netns", "add", name)
        _ip("link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", f"to-{name}", "master", _BRIDGE, "up")
        _ip("-n", name, "addr", "add", f"10.111.0.{number}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "route", "add", "default", "via", CLIENT)


def _no_network(names: Sequence[str]) -> None:
    for name in names:
        _ip("netns", "del", name)
    _ip("link", "del", _BRIDGE)
    subprocess.run(["umount", "--lazy", "/run"], check=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
