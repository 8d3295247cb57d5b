"""Real servers for tests: each on a free loopback port, in a folder of its own, stopped by its own handle."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import pytest


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def binary(name: str, *, package: str) -> str:
    """The path of the program `name`; see `missing` if the Debian package `package` is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        missing(f"{name} is not installed: apt-get install {package}, or .ci/servers")
    return found


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it where GENRAY_NEEDS_SERVERS is set, as in CI."""
    if os.environ.get("GENRAY_NEEDS_SERVERS"):
        pytest.fail(what)
    pytest.skip(what)


class Server:
    """A server process, from `with` or `start` until `stop`; it may be started and killed again and again.

    Args:
        command: the program and its arguments.
        port: that answers when it is ready.
        folder: its working folder, and where `log` lies.
        seconds: that it may take until its port answers.
        environment: variables that it gets beside those of the tests.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        port: int,
        folder: Path,
        seconds: float = 20,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self.log = folder / f"{Path(command[0]).name}-{port}.log"
        self._command = list(command)
        self._folder = folder
        self._seconds = seconds
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until its port answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + self._seconds
        while True:
            if self._process.poll() is not None:
                raise AssertionError(f"{self._command[0]} ended at once:\n{self.log.read_text()[-2000:]}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > end:
                    self.stop()
                    raise AssertionError(
                        f"{self._command[0]} does not answer:\n{self.log.read_text()[-2000:]}"
                    ) from None
                time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ask it to end, and see to it that it does."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None


def mosquitto(folder: Path, *, port: int | None = None, certificate: Path | None = None) -> Server:
    """An MQTT broker that lets anybody in; with a certificate (without .pem and .key) by TLS alone."""
    port = port or free_port()
    program = binary("mosquitto", package="mosquitto")
    settings = folder / "mosquitto.conf"
    # As root it would become another user, who may not read the certificates.
    tls = f"user root\ncertfile {certificate}.pem\nkeyfile {certificate}.key\n" if certificate else ""
    settings.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 100000\n"
        f"{tls}"
    )
    return Server([program, "-c", str(settings)], port=port, folder=folder)


def redis_server(
    folder: Path, *, port: int | None = None, certificate: Path | None = None, host: str = "127.0.0.1"
) -> Server:
    """A Redis server that writes everything to disk at once, so that a crash loses nothing; with a
    certificate (without .pem and .key) by TLS alone. It also listens at the address `host`."""
    port = port or free_port()
    program = binary("redis-server", package="redis-server")
    options = ["--bind", *{"127.0.0.1", host}, "--protected-mode", "no", "--dir", str(folder), "--save", ""]
    options += ["--tls-port" if certificate else "--port", str(port)]
    if certificate:
        options += ["--port", "0", "--tls-auth-clients", "no"]
        options += ["--tls-cert-file", f"{certificate}.pem", "--tls-key-file", f"{certificate}.key"]
    return Server(
        [program, *options, "--appendonly", "yes", "--appendfsync", "always"], port=port, folder=folder
    )


def mlflow_server(folder: Path) -> Server:
    """An MLflow server with its database and files in `folder`; see `missing` if libraries of it are."""
    if absent := [name for name in ("mlflow", "alembic", "flask", "sqlalchemy") if not find_spec(name)]:
        missing(f"{', '.join(absent)} not installed: make install")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    # Its jobs are processes that no tracking needs.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return Server(command, port=port, folder=folder, seconds=200, environment=environment)
