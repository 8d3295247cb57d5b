"""A part of the inputs: the first, some at random, or one shard of several."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from genray.cli.main import main
from genray.errors import GenrayError
from pipelines.engine.planning.selection import Selection
from pipelines.settings import SelectionSettings
from tests.pipelines.bulk_runs import settings_of, submit
from tests.pipelines.conftest import Bulk, rows_of, write_photos

PATHS = [f"{folder}/{index}.png" for folder in "ab" for index in range(100, 600)]


def chosen(paths: list[str], **settings: Any) -> list[str]:
    return list(Selection(SelectionSettings(**settings)).choose(paths, str))


def test_shards_take_each_input_once_and_about_as_many_each() -> None:
    shards = [chosen(PATHS, shard=f"{part}/7") for part in range(1, 8)]
    assert sorted(path for shard in shards for path in shard) == PATHS
    assert all(100 < len(shard) < 190 for shard in shards)


def test_an_input_stays_in_its_shard_whatever_is_added() -> None:
    assert set(chosen(PATHS[::3], shard="2/5")) <= set(chosen(PATHS, shard="2/5"))


def test_a_random_sample_is_the_same_again_and_another_with_another_seed() -> None:
    sample = chosen(PATHS, random=50)
    assert len(sample) == 50
    assert sample == sorted(sample)
    assert sample == chosen(list(PATHS), random=50)
    assert sample != chosen(PATHS, random=50, seed=1)
    assert set(sample) < set(chosen(PATHS, random=80))
    assert chosen(PATHS[:10], random=50) == PATHS[:10]


def test_a_limit_takes_the_first_of_a_shard_without_listing_on() -> None:
    paths = iter(PATHS)
    assert list(Selection(SelectionSettings(limit=3)).choose(paths, str)) == PATHS[:3]
    assert next(paths) == PATHS[3]
    assert chosen(PATHS, limit=3, shard="2/5") == chosen(PATHS, shard="2/5")[:3]


@pytest.mark.parametrize(
    ("sets", "text"),
    [
        (("read.shard=0/4",), "1/4 to 4/4"),
        (("read.shard=5/4",), "1/4 to 4/4"),
        (("read.shard=x",), "read.shard"),
        (("read.limit=3", "read.random=3"), "one of them"),
        (("read.limit=0",), "read.limit"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(sets: tuple[str, ...], text: str) -> None:
    with pytest.raises(GenrayError, match=text):
        settings_of("corrupt", *sets)


def test_a_limited_run_that_is_raised_goes_on_behind_the_first(bulk: Bulk, tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 10)
    first = bulk("corrupt", f"input={tmp_path / 'in'}", "read.limit=4")
    assert (first["this_pass"]["images"], first["total"]) == (4, 4)
    again = bulk("corrupt", f"input={tmp_path / 'in'}", "read.limit=4")
    assert (again["this_pass"]["images"], again["this_pass"]["gone"]) == (0, 0)
    more = bulk("corrupt", f"input={tmp_path / 'in'}", "read.limit=6")
    assert (more["this_pass"]["images"], more["total"]) == (2, 6)
    rest = bulk("corrupt", f"input={tmp_path / 'in'}")
    assert (rest["this_pass"]["images"], rest["total"]) == (4, 10)


def test_the_options_of_submit_select(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 10)
    sets = (f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}")
    done = submit("corrupt", *sets, more=("--random", "3"))
    assert done.exit_code == 0
    assert "(3 inputs at random, seed 0)" in done.stderr
    drawn = {row["path"] for row in rows_of(tmp_path / "out")}
    assert len(drawn) == 3
    submit("corrupt", *sets, more=("--random", "3"))
    assert {row["path"] for row in rows_of(tmp_path / "out")} == drawn
    submit("corrupt", *sets, more=("--limit", "2"))
    wrong = submit("corrupt", *sets, more=("--shard", "9/3"))
    assert wrong.exit_code == 2


def test_the_ledgers_of_shards_join(bulk: Bulk, tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 12)
    (tmp_path / "in/0/broken.png").write_bytes(b"no image")
    outputs = [str(tmp_path / f"out-{part}") for part in (1, 2, 3)]
    for part, output in enumerate(outputs, start=1):
        bulk("corrupt", f"input={tmp_path / 'in'}", f"output={output}", f"read.shard={part}/3")
    ran = CliRunner().invoke(main, ["ledger", *outputs, "--json"], catch_exceptions=False)
    joined = json.loads(ran.stdout)
    assert (joined["done"], joined["failed"], joined["left"]) == (12, 1, 0)
    failed = CliRunner().invoke(main, ["ledger", *outputs, "--list", "failed"], catch_exceptions=False)
    assert "broken.png" in failed.stdout
    assert CliRunner().invoke(main, ["ledger", *outputs]).exit_code == 0
