from itertools import pairwise
from pathlib import Path, PurePosixPath

import pytest

from genray.images.photo_writer import WriteSettings
from genray.io.kinds import READ_SUFFIXES
from genray.io.sources import Item
from genray.io.store import open_store
from pipelines.engine.plan import (
    FILE_ROWS,
    Plan,
    PlannedInput,
    chunk_bounds,
    output_name,
    remove_plans,
    write_plan,
)


def planned(index: int) -> PlannedInput:
    return PlannedInput(Item(f"a/{index}.jpg", index, 7, "s.tar", index * 512), f"a/{index}.png")


@pytest.mark.parametrize("count", [0, 1, 10, FILE_ROWS, FILE_ROWS + 3])
def test_chunks_hold_every_input_once_and_in_order(tmp_path: Path, count: int) -> None:
    store = open_store(str(tmp_path))
    assert write_plan(store, 3, map(planned, range(count))) == count
    plan = Plan(store, 3, chunk_bounds(count, 5))
    assert [each for index in range(len(plan)) for each in plan.chunk(index)] == [
        planned(i) for i in range(count)
    ]


def test_a_chunk_may_lie_in_two_files(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    count = write_plan(store, 1, map(planned, range(FILE_ROWS + 50)))
    bounds = chunk_bounds(count, 2)
    across = next(index for index, (a, b) in enumerate(pairwise(bounds)) if a < FILE_ROWS < b)
    assert [each.item.size for each in Plan(store, 1, bounds).chunk(across)] == list(
        range(bounds[across], bounds[across + 1])
    )


def test_plans_can_be_removed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_plan(store, 1, map(planned, range(3)))
    remove_plans(store)
    assert not list(tmp_path.rglob("*.arrow"))


def test_suffixes_of_outputs_are_those_that_pathlib_sees() -> None:
    names = [
        "a.jpg",
        "a.b.jpg",
        ".jpg",
        "..jpg",
        "a.",
        "a",
        "a.jpg.png",
        "a.png.",
        "a.JPG",
        ".png.jpg",
        "a b.tar.gz",
    ]
    for name in names:
        for folder in ("", "x.png/", "x/y.jpg/"):
            path = folder + name
            is_png = PurePosixPath(path).suffix.lower() == ".png"
            was_made = PurePosixPath(path).with_suffix("").suffix.lower() in READ_SUFFIXES
            expected = path if is_png and not was_made else f"{path}.png"
            assert output_name(path, WriteSettings(format="png")) == expected
            assert output_name(path, WriteSettings()) == path


@pytest.mark.parametrize("inputs", [0, 1, 7, 480, 1_000_003])
@pytest.mark.parametrize("workers", [1, 2, 64])
def test_chunks_are_large_first_and_small_at_the_end(inputs: int, workers: int) -> None:
    bounds = chunk_bounds(inputs, workers)
    sizes = [b - a for a, b in pairwise(bounds)]
    assert (bounds[0], bounds[-1], sum(sizes)) == (0, inputs, inputs)
    assert sizes == sorted(sizes, reverse=True)
    assert all(0 < size <= 512 for size in sizes)
    if workers > 1 and inputs > 400:
        assert sizes[-1] <= 4
        assert max(sizes) * workers <= max(inputs, 512 * workers)
