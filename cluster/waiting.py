"""Waiting for room on a cluster: for other jobs to end, or for its autoscaler to start nodes.

Ray waits silently and without end. So the resources are asked for before a target starts, by a placement
group, which also tells the autoscaler of them; it is given back when there is room.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from cluster.resources import described, worker_text
from genray.errors import ClusterError
from genray.targets import Demand, Resources

_READY = "CREATED"  # state of a placement group that has its resources
_POLL_S = 0.1
_AT_ONCE_S = 3.0  # seconds in which free resources are there
_NOTE_S = 60.0  # seconds between lines that say what is waited for


def wait_for_room(
    demand: Demand, have: Resources, note: Callable[[str], None], *, at_once_s: float = _AT_ONCE_S
) -> None:
    """Wait until the workers that `demand` needs to begin fit on the nodes that run. Ray must be initialised.

    Args:
        demand: workers, of which the fewest have to fit, or one if they need not start together.
        have: resources of the cluster.
        note: shows lines that say what is waited for.
        at_once_s: seconds to wait without a word.

    Raises:
        ClusterError: there was no room for the time that `demand` says.
    """
    workers = demand.workers[0] if demand.together else 1
    bundles = [_bundle(demand.cpus_per_worker, demand.gpus_per_worker)] * workers
    bundles += [_bundle(demand.data_cpus, 0.0)]
    bundles = [bundle for bundle in bundles if bundle]
    if not bundles:
        return
    groups: Any = import_module("ray.util.placement_group")
    group = groups.placement_group(bundles, strategy="PACK")
    wanted = worker_text(workers, demand)
    most = float("inf") if demand.wait_minutes is None else demand.wait_minutes * 60
    began = time.monotonic()
    due = at_once_s
    try:
        # `PlacementGroup.wait` takes whole seconds.
        while groups.placement_group_table(group)["state"] != _READY:
            passed = time.monotonic() - began
            if passed >= most:
                raise ClusterError(
                    f"there was no room for {wanted} in {demand.wait_minutes:g} minutes: {_free_text()}; "
                    f"the cluster has {described(have.shapes)}",
                    where=f"{demand.where}.wait_minutes",
                    hint="see what runs there with `ray status`; wait longer (null: without end), or ask for "
                    "fewer workers or CPUs of each",
                )
            if passed >= due:
                due = passed + _NOTE_S
                until = "" if demand.wait_minutes is None else f" of {demand.wait_minutes:g} min at most"
                note(f"waiting for room for {wanted} ({passed / 60:.0f} min{until}): {_free_text()}")
            time.sleep(_POLL_S)
    finally:
        groups.remove_placement_group(group)


def _bundle(cpus: float, gpus: float) -> dict[str, float]:
    return {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}


def _free_text() -> str:
    ray: Any = import_module("ray")
    free, total = ray.available_resources(), ray.cluster_resources()
    parts = [
        f"{free.get(name, 0):g} of {total[name]:g} {name}s" for name in ("CPU", "GPU") if total.get(name)
    ]
    return f"{' and '.join(parts) or 'nothing'} free on the nodes that run"
