"""A real S3 server for tests: moto, in a process of its own, on a free port of this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The server's port; pyarrow's credentials are in the environment meanwhile."""
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with s3_server_at("127.0.0.1", tmp_path_factory.mktemp("s3")) as port:
            yield port


@contextmanager
def s3_server_at(host: str, folder: Path) -> Iterator[int]:
    """Run a server at the address `host` for a `with` block, with its log in `folder`; yields its port."""
    with socket.socket() as free:
        free.bind((host, 0))
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            _wait(host, port, server, folder / "log")
            yield port
        finally:
            server.terminate()
            server.wait(60)


@pytest.fixture
def s3_root(s3_server: int, request: pytest.FixtureRequest) -> str:
    """The URI of a prefix in a bucket of the test's own."""
    bucket = f"bucket-{abs(hash(request.node.nodeid)):x}"
    made = urllib.request.Request(f"http://127.0.0.1:{s3_server}/{bucket}", method="PUT")
    urllib.request.urlopen(made, timeout=10).close()
    where = f"endpoint_override=127.0.0.1:{s3_server}&scheme=http&region=us-east-1"
    return f"s3://{bucket}/some/prefix?{where}"


def _wait(host: str, port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://{host}:{port}/moto-api/", timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"no S3 server: {log.read_text()}")
