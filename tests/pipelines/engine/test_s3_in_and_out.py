from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from genray.cli.main import main
from genray.io.store import open_store
from tests.pipelines.bulk_runs import Bundles, png
from tests.pipelines.conftest import Bulk


@pytest.fixture
def remote(s3_root: str) -> Callable[[str], str]:
    """The URI of a folder in the test's own bucket."""
    root, _, query = s3_root.partition("?")
    return lambda folder: f"{root}/{folder}?{query}"


def upload(uri: str, count: int) -> None:
    store = open_store(uri)
    for index in range(count):
        store.write(f"{index % 2}/ü {index}.png", png(index))
    store.write("broken.jpg", b"\xff\xd8\xff")


def test_a_run_from_and_to_s3_ends_and_has_nothing_left_to_do(
    bulk: Bulk, remote: Callable[[str], str], tmp_path: Path
) -> None:
    upload(remote("in"), 9)
    sets = (f"input={remote('in')}", f"output={remote('out')}")
    outcome = bulk("corrupt", *sets)
    assert (outcome["done"], outcome["reasons"]) == (9, {"truncated": 1})
    out = open_store(remote("out"))
    names = {f"{index % 2}/ü {index}.png" for index in range(9)}
    assert {entry.path for entry in out.list([".png"])} == names
    before = {name: out.read(name) for name in names}
    again = bulk("corrupt", *sets)
    assert (again["this_pass"]["images"], again["total"]) == (0, 10)
    open_store(remote("in")).write("0/ü 0.png", png(77, 20, 20))
    changed = bulk("corrupt", *sets)
    assert (changed["this_pass"]["images"], changed["total"]) == (1, 10)
    assert {name for name in names if out.read(name) != before[name]} == {"0/ü 0.png"}
    assert not out.exists("_genray/lease.json")
    result = CliRunner().invoke(main, ["ledger", remote("out"), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    overview = json.loads(result.stdout)
    assert (overview["total"], overview["done"], overview["failed"]) == (10, 9, 1)
    failed = CliRunner().invoke(main, ["ledger", remote("out"), "--list", "failed"], catch_exceptions=False)
    assert "broken.jpg" in failed.stdout


def test_images_in_s3_are_embedded_into_s3(
    bulk: Bulk, bundle_of: Bundles, remote: Callable[[str], str]
) -> None:
    upload(remote("in"), 5)
    sets = (f"input={remote('in')}", f"output={remote('out')}", f"bundle={bundle_of('autoencoder')}")
    assert bulk("embed", *sets)["done"] == 5
    assert bulk("embed", *sets)["this_pass"]["images"] == 0
    out = open_store(remote("out"))
    (part,) = out.list([".parquet"], "embeddings")
    assert len(pq.read_table(io.BytesIO(out.read(part.path)))) == 5


def test_a_dry_run_names_the_uri_that_it_would_write_to(remote: Callable[[str], str]) -> None:
    upload(remote("in"), 2)
    words = ["--set", f"input={remote('in')}", "--set", f"output={remote('out')}", "--dry-run", "--json"]
    result = CliRunner().invoke(main, ["submit", "corrupt", *words], catch_exceptions=False)
    assert json.loads(result.stdout)["run"] == remote("out")
    assert f"written to {remote('out')}" in result.stderr
