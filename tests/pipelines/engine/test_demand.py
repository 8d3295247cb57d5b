"""How many workers of Ray a bulk run asks for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genray.errors import SettingsError
from genray.settings.load import load
from genray.targets import Demand, NodeShape, Resources, find_target
from tests.pipelines.conftest import write_photos

GROWING = Resources(30, 2, 5, (NodeShape(8, 1, 1, 1), NodeShape(7, 0, 2, 0)))
"""A cluster of three nodes, which can start another one with a GPU."""


@pytest.fixture
def demand(tmp_path: Path) -> Callable[..., Demand]:
    write_photos(tmp_path / "in", 2)

    def of(have: Resources, *sets: str) -> Demand:
        implementation: Any = find_target("corrupt").load()
        given = [f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", *sets]
        settings = load(implementation.settings_class, target="corrupt", sets=given)
        prepared = implementation.prepare(settings, "corrupt", None, lambda text: None)
        found: Demand = replace(prepared, is_small=False).demand(have)
        return found

    return of


def test_workers_may_be_a_number_or_a_range(demand: Callable[..., Demand]) -> None:
    assert demand(GROWING, "work.workers=3").workers == (3, 3)
    elastic = demand(GROWING, "work.workers=[2, 16]", "work.wait_minutes=5")
    assert (elastic.workers, elastic.together, elastic.wait_minutes) == ((2, 16), False, 5)
    with pytest.raises(SettingsError, match="fewest up to most"):
        demand(GROWING, "work.workers=[4, 2]")


def test_without_a_number_a_pool_fills_the_nodes_and_grows_with_the_cluster(
    demand: Callable[..., Demand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.engine.target._cpus", lambda: 64)  # so that this machine starts Ray
    assert demand(GROWING).workers == (22, 30)
    assert demand(GROWING, "work.cpus_per_worker=4").workers == (4, 6), "whole workers on each node"
    assert demand(Resources(6, 0), "work.cpus_per_worker=4").workers == (1, 1)
