from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest

from cluster.resources import cluster_resources
from cluster.waiting import wait_for_room
from genray.errors import ClusterError
from genray.targets import Demand

DEMAND = Demand((2, 4), 2.0, 0.0, 0.0, wait_minutes=0.01)


@pytest.mark.usefixtures("embedded_ray")
def test_room_that_is_there_is_not_waited_for() -> None:
    notes: list[str] = []
    wait_for_room(replace(DEMAND, wait_minutes=1.0), cluster_resources(), notes.append, at_once_s=30.0)
    assert not notes


@pytest.mark.usefixtures("embedded_ray")
def test_what_waits_says_for_what_and_ends() -> None:
    groups: Any = import_module("ray.util.placement_group")
    other = groups.placement_group([{"CPU": 3.0}])
    assert other.wait(20)
    notes: list[str] = []
    try:
        with pytest.raises(
            ClusterError, match=r"no room for 2 workers with 2 CPUs each in 0\.01 minutes"
        ) as no:
            wait_for_room(DEMAND, cluster_resources(), notes.append, at_once_s=0.1)
        one = replace(DEMAND, workers=(1, 4), cpus_per_worker=1.0, together=False, wait_minutes=1.0)
        wait_for_room(one, cluster_resources(), notes.append, at_once_s=30.0)
    finally:
        groups.remove_placement_group(other)
    (note,) = notes
    assert "waiting for room for 2 workers with 2 CPUs each (0 min of 0.01 min at most)" in note
    assert "of 4 CPUs free" in note
    assert no.value.where == "loop.wait_minutes"
