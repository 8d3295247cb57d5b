"""Resources of this machine or of a cluster, and checks that a request fits.

Ray does not refuse a request that is too large, but waits silently and without end for a bigger cluster. So
every target calls `check_request` before it starts anything. Nodes that an autoscaler can start count like
those that run.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from cluster.ray_private import ray_private
from genray.errors import ResourceError
from genray.targets import Demand, NodeShape, Resources, times

_Size = tuple[float, float]  # CPUs and GPUs of a node

_MOST_NODES = 1000  # that a group without a limit counts for
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
    """Return the resources of the connected cluster, used or free, and of nodes that it can start.

    Ray must be initialised.
    """
    # Ray ships no types for these functions.
    ray: Any = import_module("ray")
    running = Counter(_size(node["Resources"]) for node in ray.nodes() if node["Alive"])
    config = ray_private("_private.state").state.get_cluster_config()
    groups = config.node_group_configs if config else ()
    return add_shapes(running, [(_size(group.resources), group.max_count) for group in groups])


def add_shapes(running: Mapping[_Size, int], groups: Iterable[tuple[_Size, int]]) -> Resources:
    """Return the resources of a cluster.

    Args:
        running: number of running nodes by their CPUs and GPUs.
        groups: CPUs and GPUs of a node of each group of the autoscaler, and the most nodes of the group
            (negative: any number).
    """
    most: Counter[_Size] = Counter()
    for size, nodes in groups:
        most[size] += min(nodes, _MOST_NODES) if nodes >= 0 else _MOST_NODES
    shapes = tuple(
        NodeShape(*size, running.get(size, 0), max(0, most[size] - running.get(size, 0)))
        for size in sorted({*running, *most}, reverse=True)
        if any(size)  # a head without CPUs takes no work
    )
    counts = [shape.nodes + shape.coming for shape in shapes]
    return Resources(
        cpus=sum(shape.cpus * count for shape, count in zip(shapes, counts, strict=True)),
        gpus=sum(shape.gpus * count for shape, count in zip(shapes, counts, strict=True)),
        nodes=max(1, sum(counts)),
        shapes=shapes,
    )


def _size(resources: Mapping[str, float]) -> _Size:
    return float(resources.get("CPU", 0)), float(resources.get("GPU", 0))


def check_request(demand: Demand, have: Resources) -> None:
    """Refuse a request that can never be placed, or that leaves no CPU for the tasks that feed its workers.

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
    started = math.floor(min(most, times(have.cpus, cpus_per_worker), times(have.gpus, gpus_per_worker)))
    each = _some(cpus_per_worker, "CPU")
    data = f"reading the data takes {_some(data_cpus, 'CPU')}"
    hint = _cpu_hint(where, fewest, most, started, cpus_per_worker, data_cpus, have)

    if _more(fewest * gpus_per_worker, have.gpus):
        raise ResourceError(
            f"{_some(fewest, 'worker')} with {_some(gpus_per_worker, 'GPU')} each are asked for, but "
            f"there are {have.gpus:g}",
            where=f"{where}.workers" if have.gpus else "device.gpu",
            hint=_gpu_hint(where, math.floor(times(have.gpus, gpus_per_worker))),
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
    if have.shapes:
        _check_shapes(demand, have)


def _check_shapes(demand: Demand, have: Resources) -> None:
    """Refuse workers that fit into the cluster as a whole, but not into its nodes."""
    cpus, gpus, fewest = demand.cpus_per_worker, demand.gpus_per_worker, demand.workers[0]
    places = have.places(cpus, gpus)
    if places >= fewest:
        return
    if places:
        hint = f"set {demand.where}.workers to at most {places}"
    else:
        fitting = [shape.cpus for shape in have.shapes if shape.gpus >= gpus]
        largest = max(fitting or [shape.cpus for shape in have.shapes])
        hint = f"set {demand.where}.cpus_per_worker to at most {largest:g}"
    raise ResourceError(
        f"{worker_text(fewest, demand)} do not fit on the nodes: {described(have.shapes)}",
        where=f"{demand.where}.workers",
        hint=f"{hint}, or use a cluster with larger nodes",
    )


def worker_text(workers: int, demand: Demand) -> str:
    """Describe workers, such as "2 workers with 4 CPUs and 1 GPU each"."""
    cpus, gpus = demand.cpus_per_worker, demand.gpus_per_worker
    each = _some(cpus, "CPU") + (f" and {_some(gpus, 'GPU')}" if gpus else "")
    return f"{_some(workers, 'worker')} with {each}" + (" each" if workers != 1 else "")


def described(shapes: Sequence[NodeShape]) -> str:
    """Describe nodes, such as "2 nodes with 8 CPUs and 1 GPU (4 more can be started)"."""
    texts = []
    for shape in shapes:
        size = _some(shape.cpus, "CPU") + (f" and {_some(shape.gpus, 'GPU')}" if shape.gpus else "")
        more = f" ({shape.coming} more can be started)" if shape.coming else ""
        texts.append(f"{_some(shape.nodes, 'node')} with {size}{more}")
    return ", ".join(texts) or "no nodes for work"


def _cpu_hint(
    where: str, fewest: int, most: int, started: int, each: float, data: float, have: Resources
) -> str:
    """Return changes, each of which would make the request fit."""
    hints = []
    free = have.cpus - data
    if free > 0 and (fitting := math.floor(times(free, each))):
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


def _more(wanted: float, have: float) -> bool:
    # Ray counts in units of 0.0001.
    return wanted > have + 1e-6


def _some(count: float, noun: str) -> str:
    return f"{count:g} {noun}" if count == 1 else f"{count:g} {noun}s"
