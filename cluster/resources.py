"""Resources of this machine or of a cluster, and checks that a request fits.

Ray does not refuse a request that is too large, but waits silently and without end for a bigger cluster. So
every target calls `check_request` before it starts anything.
"""

from __future__ import annotations

import math
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from genray.errors import ResourceError
from genray.targets import Demand, Resources

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def local_resources() -> Resources:
    """Return the resources of this machine that this process may use; works without Ray."""
    import torch

    return Resources(cpus=local_cpus(), gpus=torch.cuda.device_count(), nodes=1)


def local_cpus() -> int:
    """Return the CPUs that this process may use, with the limits of taskset and containers."""
    # macOS has no CPU affinity.
    given = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(given, _cgroup_cpus())))


def _cgroup_cpus(file: Path = _CGROUP_QUOTA) -> float:
    # The file contains "quota period" in microseconds, or "max period" where there is no limit.
    try:
        quota, period = file.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return float("inf")


def cluster_resources() -> Resources:
    """Return the resources of the connected cluster, used or free. Ray must be initialised."""
    # Ray ships no types for these functions.
    ray: Any = import_module("ray")
    total = ray.cluster_resources()
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    return Resources(cpus=float(total.get("CPU", 0)), gpus=float(total.get("GPU", 0)), nodes=nodes)


def check_request(demand: Demand, have: Resources) -> None:
    """Refuse a request that can never be placed, or that leaves no CPU for the tasks that feed its workers.

    Only totals are compared: a worker that is larger than every single node is not detected.

    Args:
        demand: fewest and most workers, of which Ray starts as many as fit, and the resources of each.
        have: resources of the machine or the cluster.

    Raises:
        ResourceError: the request does not fit; the hint names a setting and a value that would.
    """
    fewest, most = demand.workers
    cpus_per_worker, gpus_per_worker = demand.cpus_per_worker, demand.gpus_per_worker
    data_cpus, where = demand.data_cpus, demand.where
    # Ray starts as many workers as fit: an elastic group would take the CPUs that the data needs.
    started = math.floor(min(most, _fit(have.cpus, cpus_per_worker), _fit(have.gpus, gpus_per_worker)))
    each = _some(cpus_per_worker, "CPU")
    data = f"reading the data takes {_some(data_cpus, 'CPU')}"
    hint = _cpu_hint(where, fewest, most, started, cpus_per_worker, data_cpus, have)

    if _more(fewest * gpus_per_worker, have.gpus):
        raise ResourceError(
            f"{_some(fewest, 'worker')} with {_some(gpus_per_worker, 'GPU')} each are asked for, but "
            f"there are {have.gpus:g}",
            where=f"{where}.workers" if have.gpus else "device.gpu",
            hint=_gpu_hint(where, math.floor(_fit(have.gpus, gpus_per_worker))),
        )
    if _more(data_cpus, have.cpus):
        raise ResourceError(f"{data}, but there are {have.cpus:g}", where="data.loader", hint=hint)
    if _more(fewest * cpus_per_worker + data_cpus, have.cpus):
        raise ResourceError(
            f"{_some(fewest, 'worker')} with {each} each do not fit, as there are {have.cpus:g}"
            + (f", and {data}" if data_cpus else ""),
            where=f"{where}.workers",
            hint=hint,
        )
    if _more(started * cpus_per_worker + data_cpus, have.cpus):
        raise ResourceError(
            f"up to {_some(most, 'worker')} with {each} each leave too few for the data: of {have.cpus:g}, "
            f"{started} workers would take {started * cpus_per_worker:g}, and {data}",
            where=f"{where}.workers",
            hint=hint,
        )


def _cpu_hint(
    where: str, fewest: int, most: int, started: int, each: float, data: float, have: Resources
) -> str:
    """Return changes, each of which would make the request fit."""
    hints = []
    free = have.cpus - data
    if free > 0 and (fitting := math.floor(_fit(free, each))):
        hints.append(f"set {where}.workers to at most {fitting}")
    # More of smaller workers start, and together they must leave enough CPUs for the data.
    if (number := most if data else fewest) and (share := _tenths(free / number)) > 0:
        hints.append(f"set {where}.cpus_per_worker to at most {share:g}")
    if data:
        hints.append("set data.loader to memory")
    return ", or ".join([*hints, "use a larger machine or cluster"])


def _gpu_hint(where: str, fitting: int) -> str:
    if fitting:
        return f"set {where}.workers to at most {fitting}, or use a machine or cluster with more GPUs"
    return "set device.gpu to false to run on CPUs, or use a machine or cluster with GPUs"


def _tenths(number: float) -> float:
    # Rounded down to tenths, which are readable and which Ray takes.
    return math.floor(number * 10 + 1e-6) / 10


def _fit(have: float, each: float) -> float:
    """Return how often `each` fits into `have`, without losing one to a rounding error as in 0.1 + 0.2."""
    return (have + 1e-6) / each if each else 10**9


def _more(wanted: float, have: float) -> bool:
    # Ray counts in units of 0.0001.
    return wanted > have + 1e-6


def _some(count: float, noun: str) -> str:
    return f"{count:g} {noun}" if count == 1 else f"{count:g} {noun}s"
