"""Bulk runs on several nodes, of which some are lost."""

import io
import subprocess
from collections import Counter

import pyarrow.parquet as pq

from genray.io.store import open_store
from pipelines.storage.ledger.ledger import Ledger
from tests.cluster.nodes.inputs import put_images
from tests.cluster.nodes.lab import Ended, Lab, until

_IMAGES = 320


def submit(lab: Lab, target: str, output: str, *more: str) -> subprocess.Popen[str]:
    """A run over images that take a while, so that a node can be lost in the middle of it."""
    given = [f"input={put_images(lab, 'photos', _IMAGES, size=400)}", f"output={lab.uri(output)}"]
    return lab.submit(target, sets=[*given, "work.gpu=false", "report.samples=0", *more])


def recorded(lab: Lab, output: str) -> list[tuple[str, str]]:
    """Path and status of each row of the ledger."""
    try:
        tables = list(Ledger(open_store(lab.uri(output))).tables(["path", "status"]))
    except FileNotFoundError:  # files are merged between the listing and its reads
        return []
    return [(row["path"], row["status"]) for table in tables for row in table.to_pylist()]


def test_a_node_killed_under_a_bulk_run_costs_no_image(lab: Lab) -> None:
    process = submit(lab, "corrupt", "noisy")
    until(lambda: len(recorded(lab, "noisy")) > 0, 300)
    lab.workers[0].kill()
    assert len(recorded(lab, "noisy")) < _IMAGES, "all was done before the node was killed"
    ended = lab.ended(process)
    assert ended.code == 0, ended
    names = {f"{index:04}.png" for index in range(_IMAGES)}
    assert Counter(recorded(lab, "noisy")) == Counter((name, "done") for name in names)
    written = [entry.path for entry in open_store(lab.uri("noisy")).walk([""])]
    assert Counter(path for path in written if path.endswith(".png")) == Counter(names)
    assert "Traceback" not in ended.err
    assert ended.err.count("Ray has lost the node") == 1, ended


def test_a_node_killed_under_embed_costs_no_vector(lab: Lab, undisturbed: Ended) -> None:
    sets = [f"bundle={undisturbed.outcome['bundle']}", "work.commit_seconds=0.2"]
    process = submit(lab, "embed", "vectors", *sets)
    until(lambda: len(recorded(lab, "vectors")) > 0, 300)
    lab.workers[1].kill()
    assert len(recorded(lab, "vectors")) < _IMAGES, "all was done before the node was killed"
    ended = lab.ended(process)
    assert ended.code == 0, ended
    names = {f"{index:04}.png" for index in range(_IMAGES)}
    assert Counter(recorded(lab, "vectors")) == Counter((name, "done") for name in names)
    store = open_store(lab.uri("vectors"))
    parts = [store.read(entry.path) for entry in store.walk([".parquet"], "embeddings")]
    rows = [row for part in parts for row in pq.read_table(io.BytesIO(part)).to_pylist()]
    assert Counter(row["path"] for row in rows) == Counter(names)
    assert "Traceback" not in ended.err
