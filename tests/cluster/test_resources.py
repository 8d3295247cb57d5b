import os
import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from cluster import resources
from cluster.resources import add_shapes, check_request, described, local_cpus, local_resources
from genray.errors import ResourceError
from genray.targets import Demand, Resources


def ask(have: Resources, **changes: Any) -> None:
    demand = Demand(workers=(2, 2), cpus_per_worker=1.0, gpus_per_worker=0.0, data_cpus=0.0)
    check_request(replace(demand, **changes), have)


def refusal(have: Resources, **changes: Any) -> ResourceError:
    with pytest.raises(ResourceError) as caught:
        ask(have, **changes)
    assert caught.value.exit_code == 2
    return caught.value


def fits(have: Resources, **changes: Any) -> bool:
    try:
        ask(have, **changes)
    except ResourceError:
        return False
    return True


def machine(cpus: float, gpus: float = 0) -> Resources:
    return Resources(cpus=cpus, gpus=gpus, nodes=1)


def test_workers_must_fit_into_nodes_and_not_only_into_their_sum() -> None:
    small = add_shapes({(2.0, 0.0): 4}, [])
    assert (small.cpus, small.nodes) == (8, 4)
    assert fits(small, workers=(4, 4), cpus_per_worker=2)
    error = refusal(small, workers=(2, 2), cpus_per_worker=4)
    assert error.what == "2 workers with 4 CPUs each do not fit on the nodes: 4 nodes with 2 CPUs"
    assert error.hint is not None
    assert error.hint.startswith("set loop.cpus_per_worker to at most 2")
    assert fits(small, workers=(2, 2), cpus_per_worker=2)
    error = refusal(add_shapes({(3.0, 0.0): 2}, []), workers=(3, 3), cpus_per_worker=2)
    assert error.hint is not None
    assert error.hint.startswith("set loop.workers to at most 2")
    mixed = add_shapes({(0.0, 0.0): 1, (8.0, 0.0): 1, (2.0, 2.0): 1}, [])
    assert fits(mixed, workers=(2, 2), gpus_per_worker=1.0)
    error = refusal(mixed, workers=(2, 2), gpus_per_worker=1.0, cpus_per_worker=2)
    assert "2 workers with 2 CPUs and 1 GPU each do not fit" in error.what
    assert "1 node with 8 CPUs, 1 node with 2 CPUs and 2 GPUs" in error.what


def test_nodes_that_an_autoscaler_can_start_count_also_from_zero() -> None:
    zero = add_shapes({(0.0, 0.0): 1}, [((0.0, 0.0), 1), ((8.0, 0.0), 4), ((8.0, 1.0), 2)])
    assert (zero.cpus, zero.gpus, zero.nodes) == (48, 2, 6)
    assert fits(zero, workers=(4, 4), cpus_per_worker=8)
    assert not fits(zero, workers=(1, 1), cpus_per_worker=9)
    assert described(zero.shapes) == (
        "0 nodes with 8 CPUs and 1 GPU (2 more can be started), 0 nodes with 8 CPUs (4 more can be started)"
    )
    assert (zero.places(8, 0), zero.places(8, 1), zero.places(8, 0, coming=False)) == (6, 2, 0)
    partly = add_shapes({(8.0, 0.0): 3}, [((8.0, 0.0), 4)])
    assert (partly.places(3, 0), partly.places(3, 0, coming=False)) == (8, 6)
    assert partly.cpus == 32
    assert add_shapes({(8.0, 0.0): 5}, [((8.0, 0.0), 4)]).cpus == 40, "more run than the group allows"
    assert add_shapes({}, [((8.0, 0.0), -1)]).nodes == 1000, "a group without a limit"


def test_a_request_that_fits_is_let_through() -> None:
    assert fits(machine(2))
    assert fits(machine(3), data_cpus=1.0)
    assert fits(machine(2), cpus_per_worker=0.5, data_cpus=1.0)
    assert fits(machine(4, gpus=2), gpus_per_worker=1.0, data_cpus=2.0)
    assert fits(machine(1), workers=(0, 0), data_cpus=1.0)
    # 3 x 0.1 is a little more than 0.3.
    assert fits(machine(0.3), workers=(3, 3), cpus_per_worker=0.1)


def test_more_workers_than_cpus_are_refused_with_the_numbers_that_fit() -> None:
    error = refusal(machine(4), workers=(5, 5))
    assert error.what == "5 workers with 1 CPU each do not fit, as there are 4"
    assert error.where == "loop.workers"
    assert error.hint is not None
    assert error.hint.startswith("set loop.workers to at most 4, or set loop.cpus_per_worker to at most 0.8")


def test_workers_that_leave_no_cpu_for_the_data_are_refused() -> None:
    # Ray would wait for ever here, without a word.
    error = refusal(machine(2), data_cpus=1.0)
    assert (
        error.what == "2 workers with 1 CPU each do not fit, as there are 2, and reading the data takes 1 CPU"
    )
    assert error.hint is not None
    assert "loop.workers to at most 1" in error.hint
    assert "loop.cpus_per_worker to at most 0.5" in error.hint


def test_an_elastic_group_that_would_grow_into_the_data_s_cpus_is_refused() -> None:
    ask(machine(4), workers=(1, 3), data_cpus=1.0)
    error = refusal(machine(4), workers=(1, 8), data_cpus=1.0)
    assert "4 workers would take 4, and reading the data takes 1 CPU" in error.what
    assert error.hint is not None
    assert "loop.workers to at most 3" in error.hint
    # The GPUs keep it from growing that far.
    ask(machine(4, gpus=2), workers=(1, 8), gpus_per_worker=1.0, data_cpus=1.0)
    # Without data to feed it, it may have all.
    ask(machine(4), workers=(1, 8))


def test_only_the_fewest_workers_must_have_room() -> None:
    assert fits(machine(2), workers=(1, 8))
    assert fits(machine(8, gpus=1), workers=(1, 4), gpus_per_worker=1.0)
    refusal(machine(2), workers=(3, 8))


@pytest.mark.parametrize(
    ("gpus", "where", "hint"),
    [
        (0, "device.gpu", "set device.gpu to false to run on CPUs"),
        (3, "loop.workers", "set loop.workers to at most 3"),
    ],
)
def test_more_gpus_than_there_are_are_refused(gpus: float, where: str, hint: str) -> None:
    error = refusal(machine(64, gpus), workers=(4, 4), gpus_per_worker=1.0)
    assert error.where == where
    assert error.hint is not None
    assert error.hint.startswith(hint)


def test_data_that_wants_more_than_the_machine_has_is_refused_by_its_own_name() -> None:
    error = refusal(machine(2), workers=(0, 0), data_cpus=3.0)
    assert error.where == "data.loader"
    assert error.hint == "set data.loader to memory, or use a larger machine or cluster"


def test_the_message_names_the_settings_group_that_asked() -> None:
    error = refusal(machine(1), where="engine")
    assert error.where == "engine.workers"
    assert error.hint is not None
    assert "engine.cpus_per_worker" in error.hint


def test_every_number_that_a_refusal_suggests_fits() -> None:
    suggested = 0
    for cpus, each, data, workers in product(
        [1, 2, 3, 8, 10.5], [0.5, 1.0, 3.0], [0.0, 0.5, 1.0, 2.0], [(1, 1), (4, 4), (12, 12), (1, 12)]
    ):
        have, request = machine(cpus), {"workers": workers, "cpus_per_worker": each, "data_cpus": data}
        try:
            ask(have, **request)
        except ResourceError as error:
            for name, number in re.findall(r"loop\.(\w+) to at most ([\d.]+)", error.hint or ""):
                suggested += 1
                if name == "workers":
                    ask(have, **request | {name: (int(number), int(number))})
                    refusal(have, **request | {name: (int(number) + 1, int(number) + 1)})
                else:
                    ask(have, **request | {name: float(number)})
    assert suggested > 100


def test_the_machine_has_as_many_cpus_as_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no CPU affinity")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert local_cpus() == 1
        assert local_resources() == Resources(1, local_resources().gpus, 1)
    finally:
        os.sched_setaffinity(0, allowed)
    monkeypatch.setattr(resources, "_cgroup_cpus", lambda: 0.5)
    assert local_cpus() == 1, "half a CPU is still one worker's worth"


@pytest.mark.parametrize(
    ("text", "cpus"), [("150000 100000\n", 1.5), ("max 100000\n", float("inf")), ("", float("inf"))]
)
def test_a_container_s_quota_counts(tmp_path: Path, text: str, cpus: float) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert resources._cgroup_cpus(tmp_path / "cpu.max") == cpus
    assert resources._cgroup_cpus(tmp_path / "absent") == float("inf")
