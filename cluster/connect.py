"""Where a target runs: on a Ray that is embedded in this process, or on the cluster that it was sent to.

Ray is imported inside the functions: `genray --help` must not wait for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from cluster.auth import authenticate, ensure_token
from cluster.resources import cluster_resources, local_cpus
from genray.errors import ClusterError
from genray.targets import Resources

IN_JOB = "GENRAY_IN_JOB"
"""Set in the environment of every job that `cluster.submit` starts."""


def inside_job() -> bool:
    """Whether this process was started as a Ray job by `cluster.submit`."""
    return os.environ.get(IN_JOB) == "1"


@contextmanager
def cluster(*, cpus: int | None = None) -> Iterator[Resources]:
    """Connect this process to Ray for the length of a `with` block, and yield what the cluster has.

    Inside a job that is the cluster which runs the job. Anywhere else it is a Ray of this process alone: on
    the loopback interface only, and gone at the end. A Ray already initialised is used and left alone.

    Args:
        cpus: CPUs of the embedded Ray; None takes all that this process may use.

    Raises:
        ClusterError: Ray did not start.
    """
    authenticate()
    import ray

    if ray.is_initialized():
        yield cluster_resources()
        return
    if not inside_job():
        ensure_token()
    try:
        # In a job RAY_ADDRESS says which cluster this is.
        ray.init(logging_level=logging.WARNING) if inside_job() else _embed(cpus or local_cpus())
    except Exception as error:
        # Ray raises anything from ValueError to RuntimeError here, and may be half up.
        ray.shutdown()
        raise ClusterError(
            f"Ray did not start: {error}",
            where=os.environ.get("RAY_ADDRESS") if inside_job() else "embedded Ray",
            hint="its logs are in /tmp/ray/session_latest/logs",
        ) from error
    try:
        yield cluster_resources()
    finally:
        ray.shutdown()


def _embed(cpus: int) -> None:
    import ray

    with _loopback():
        ray.init(
            # Workers' own lines would tear the progress display; Ray keeps them in files.
            log_to_driver=False,
            # Without this, Ray joins any other cluster that was started on this machine.
            address="local",
            num_cpus=cpus,
            # Ray Train complains at every step without it.
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1",
            logging_level=logging.WARNING,
        )


@contextmanager
def _loopback() -> Iterator[None]:
    """Let the Ray that starts in this block, and its processes, take 127.0.0.1 for an answer.

    On Linux Ray replaces that by the address of the network card, and opens a dozen ports to the network;
    on macOS and Windows it does not. This is the switch between the two.
    """
    constants = ray_private("_private.ray_constants")
    before = constants.ENABLE_RAY_CLUSTER
    # This process has read the variable already; its children are yet to.
    constants.ENABLE_RAY_CLUSTER = False
    try:
        with environment(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0"):
            yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set variables of the environment for the length of a `with` block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def ray_private(name: str) -> Any:
    """A module of Ray's for which there is no public or typed name.

    The tests hold each use to what it is for, and pyproject.toml holds Ray to one minor version.
    """
    return import_module(f"ray.{name}")
