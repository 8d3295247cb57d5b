from pathlib import Path

import pytest

from genray.data.store import Store
from pipelines.plan import FILE_ROWS, Plan, Planned, chunk_size, remove_plans, write_plan
from pipelines.sources import Item


def planned(index: int) -> Planned:
    return Planned(Item(f"a/{index}.jpg", index, 7, "s.tar", index * 512), f"a/{index}.png")


@pytest.mark.parametrize("count", [0, 1, 10, FILE_ROWS, FILE_ROWS + 3])
def test_chunks_hold_every_input_once_and_in_order(tmp_path: Path, count: int) -> None:
    store = Store(str(tmp_path))
    assert write_plan(store, 3, map(planned, range(count))) == count
    plan = Plan(store, 3, count, 77)
    assert [each for index in range(len(plan)) for each in plan.chunk(index)] == [
        planned(i) for i in range(count)
    ]


def test_a_chunk_may_lie_in_two_files(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    count = write_plan(store, 1, map(planned, range(FILE_ROWS + 50)))
    plan = Plan(store, 1, count, 100)
    assert len(list(plan.chunk(FILE_ROWS // 100))) == 100


def test_plans_can_be_removed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write_plan(store, 1, map(planned, range(3)))
    remove_plans(store)
    assert not list(tmp_path.rglob("*.arrow"))


def test_chunks_are_small_enough_for_all_workers_to_end_together() -> None:
    assert chunk_size(10, 4) == 1
    assert chunk_size(10, 1) == 256
    assert chunk_size(480, 2) == 10
    assert chunk_size(10_000_000, 2) == 256
