"""What there is to run on, and whether a request fits.

Ray does not refuse a request that is too large: it waits for a bigger cluster, for ever and in silence.
So every target calls `check_request` before it starts anything.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from genray.errors import ResourceError

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Resources:
    """The CPUs, GPUs and nodes of a machine or a cluster."""

    cpus: float
    gpus: float
    nodes: int

    def __str__(self) -> str:
        return ", ".join([_some(self.cpus, "CPU"), _some(self.gpus, "GPU"), _some(self.nodes, "node")])


def local_resources() -> Resources:
    """What this process may use of this machine. Ray is not needed."""
    import torch

    return Resources(cpus=local_cpus(), gpus=torch.cuda.device_count(), nodes=1)


def local_cpus() -> int:
    """The CPUs that this process may use: the machine's, less what taskset or a container withholds."""
    # macOS has no affinity to ask for.
    given = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(given, _cgroup_cpus())))


def _cgroup_cpus(file: Path = _CGROUP_QUOTA) -> float:
    # The file holds "quota period" in microseconds, or "max period" where there is no limit.
    try:
        quota, period = file.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return float("inf")


def cluster_resources() -> Resources:
    """What the cluster has that this process is connected to, in use or not. Ray must be initialised."""
    # Ray ships types for only a part of itself, and not for these.
    ray: Any = import_module("ray")
    total = ray.cluster_resources()
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    return Resources(cpus=float(total.get("CPU", 0)), gpus=float(total.get("GPU", 0)), nodes=nodes)


def check_request(
    *,
    workers: tuple[int, int],
    cpus_per_worker: float,
    gpus_per_worker: float,
    data_cpus: float,
    have: Resources,
    where: str = "loop",
) -> None:
    """Refuse a request that can never be placed, or that leaves no CPU to the tasks that feed its workers.

    Only totals are compared: a worker that is larger than any single node is not noticed.

    Args:
        workers: the fewest and the most workers. Ray starts as many as fit, up to the most.
        cpus_per_worker: CPUs that each worker reserves.
        gpus_per_worker: GPUs that each worker reserves.
        data_cpus: CPUs that Ray Data needs beside the workers; 0 when nothing is read through it.
        have: what the machine or the cluster has.
        where: the settings group that the request came from, for the message.

    Raises:
        ResourceError: naming the setting to change, and a value that would fit.
    """
    fewest, most = workers
    if _more(fewest * gpus_per_worker, have.gpus):
        raise ResourceError(
            f"{_workers(fewest)} with {_some(gpus_per_worker, 'GPU')} each: there are {have.gpus:g}",
            where=f"{where}.workers" if have.gpus else f"{where}.gpus_per_worker",
            hint=_gpu_hint(where, math.floor(_fit(have.gpus, gpus_per_worker))),
        )
    if _more(data_cpus, have.cpus):
        raise ResourceError(
            f"reading the data takes {_some(data_cpus, 'CPU')}: there are only {have.cpus:g}",
            where=f"{where}.data_cpus",
            hint=f"set {where}.data_cpus to at most {have.cpus:g}, or use a larger machine or cluster",
        )

    free = have.cpus - data_cpus
    beside = f" beside the {_some(data_cpus, 'CPU')} that reading the data takes" if data_cpus else ""
    if _more(fewest * cpus_per_worker, free):
        raise ResourceError(
            f"{_workers(fewest)} with {_some(cpus_per_worker, 'CPU')} each do not fit{beside}: "
            f"there are only {have.cpus:g} CPUs",
            where=f"{where}.workers",
            hint=_cpu_hint(where, fewest, cpus_per_worker, free),
        )
    # An elastic group grows for as long as Ray has CPUs left, and so into those that the data needs.
    started = min(
        most, math.floor(_fit(have.cpus, cpus_per_worker)), math.floor(_fit(have.gpus, gpus_per_worker))
    )
    if _more(started * cpus_per_worker, free):
        raise ResourceError(
            f"up to {_workers(most)} with {_some(cpus_per_worker, 'CPU')} each: {started} would take "
            f"what reading the data needs; of {have.cpus:g} CPUs {data_cpus:g} must stay free",
            where=f"{where}.workers",
            hint=_cpu_hint(where, most, cpus_per_worker, free),
        )


def _cpu_hint(where: str, workers: int, each: float, free: float) -> str:
    hints = []
    if fitting := math.floor(_fit(free, each)):
        hints.append(f"set {where}.workers to at most {fitting}")
    # Rounded down to tenths, which Ray takes and people write.
    if share := math.floor(free / workers * 10 + 1e-6) / 10:
        hints.append(f"set {where}.cpus_per_worker to at most {share:g}")
    return ", or ".join([*hints, "use a larger machine or cluster"])


def _gpu_hint(where: str, fitting: int) -> str:
    if fitting:
        return f"set {where}.workers to at most {fitting}, or use a machine or cluster with more GPUs"
    return f"set {where}.gpus_per_worker to 0 to run on CPUs, or use a machine or cluster with GPUs"


def _fit(have: float, each: float) -> float:
    """How often `each` fits into `have`; a rounding error of a sum such as 0.1 + 0.2 costs no worker."""
    return (have + 1e-6) / each if each else 10**9


def _more(wanted: float, have: float) -> bool:
    # Ray itself counts in units of 0.0001.
    return wanted > have + 1e-6


def _some(count: float, noun: str) -> str:
    return f"{count:g} {noun}" if count == 1 else f"{count:g} {noun}s"


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
