"""Connections to Ray: a Ray embedded in this process, or the cluster of the job that this process is.

Ray is imported inside the functions, so that `genray --help` does not wait for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.auth import authenticate, ensure_token
from cluster.ray_private import ray_private
from cluster.resources import cluster_resources, local_cpus
from genray.errors import ClusterError
from genray.targets import Resources

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for the entry point of every job
_WORKING_DIRS = "working_dir_files"  # folder of Ray's copies of working directories
_NICENESS = "RAY_worker_niceness"  # spelled as Ray reads it


def inside_job() -> bool:
    """Return whether this process is the entry point of a Ray job, or was started by one: of a job that
    genray submitted, of `ray job submit`, of KubeRay's RayJob, of Airflow's operator."""
    return _JOB in os.environ


def lost_with_job(path: Path | str) -> bool:
    """Return whether `path` is a local one inside the working directory of a Ray job, a copy that Ray deletes
    when the job has ended."""
    text = str(path)
    return "://" not in text and inside_job() and _WORKING_DIRS in Path(text).absolute().parts


@contextmanager
def cluster(*, cpus: int | None = None) -> Iterator[Resources]:
    """Connect this process to Ray for a `with` block, and yield the resources of the cluster.

    Inside a job this is the cluster of the job. Anywhere else it is a Ray of this process only, on the
    loopback interface, which is stopped at the end. A Ray that is already initialised is used and not
    stopped.

    Args:
        cpus: CPUs of the embedded Ray; None: all that this process may use.

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
        # In a job, RAY_ADDRESS is the address of the cluster.
        ray.init(logging_level=logging.WARNING) if inside_job() else _embed(cpus or local_cpus())
    except Exception as error:
        # Ray raises errors of many types here, and may have started in part.
        ray.shutdown()
        raise ClusterError(
            f"Ray did not start ({error})",
            where=os.environ.get("RAY_ADDRESS") if inside_job() else "embedded Ray",
            hint="see its logs in /tmp/ray/session_latest/logs",
        ) from error
    try:
        yield cluster_resources()
    finally:
        ray.shutdown()


def _embed(cpus: int) -> None:
    import ray

    # Ray starts workers with a niceness of 15: beside any other busy process they get next to nothing, and a
    # monitor or a training that runs in them stands still.
    with _loopback(), environment(**{_NICENESS: os.environ.get(_NICENESS, "0")}):
        ray.init(
            # Lines of workers would break the progress display; Ray writes them to files.
            log_to_driver=False,
            # Without an address, Ray would join any other cluster on this machine.
            address="local",
            num_cpus=cpus,
            # Ray Train warns at every step without it.
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1",
            logging_level=logging.WARNING,
        )


@contextmanager
def _loopback() -> Iterator[None]:
    """Let the Ray that starts in this block, and its processes, listen on 127.0.0.1.

    On Linux, Ray replaces this address by that of the network card, and opens a dozen ports to the network;
    on macOS and Windows it does not. The variable set here switches between the two.
    """
    constants = ray_private("_private.ray_constants")
    before = constants.ENABLE_RAY_CLUSTER
    # This process has read the variable already; its children will read it.
    constants.ENABLE_RAY_CLUSTER = False
    try:
        with environment(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0"):
            yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set variables of the environment for a `with` block."""
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
