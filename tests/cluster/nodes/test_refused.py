"""What cannot work on nodes that share nothing is refused, with the way out."""

import time

from tests.cluster.nodes.inputs import put_images
from tests.cluster.nodes.lab import Lab


def test_a_training_into_a_folder_that_nodes_do_not_share(lab: Lab) -> None:
    for node in lab.workers:
        (node.folder / "runs").mkdir(exist_ok=True)
    sets = [f"data.path={put_images(lab, 'training', 400)}", f"runs={lab.path}/runs", "loop.workers=2"]
    ended = lab.ended(lab.submit("train-autoencoder", "--name", "private", sets=sets))
    assert ended.code == 2, ended
    assert "node worker-1" in ended.err
    assert "such as runs=s3://BUCKET/runs" in ended.err
    assert ended.outcome["exit_code"] == 2
    assert "epoch" not in ended.err


def test_a_bulk_run_into_a_folder_that_nodes_do_not_share(lab: Lab) -> None:
    sets = [f"input={put_images(lab, 'training', 400)}", f"output={lab.path}/out"]
    ended = lab.ended(lab.submit("corrupt", sets=[*sets, "report.samples=0"]))
    assert ended.code == 2, ended
    assert "such as output=s3://BUCKET/output" in ended.err
    assert ended.outcome["exit_code"] == 2
    assert "Traceback" not in ended.err


def test_inputs_that_only_the_head_has(lab: Lab) -> None:
    import shutil

    from genray.io.store import open_store

    folder = lab.head.folder / "only-here"
    store = open_store(put_images(lab, "training", 400))
    folder.mkdir(exist_ok=True)
    for entry in store.list([".png"])[:10]:
        (folder / entry.path).write_bytes(store.read(entry.path))
    for node in lab.workers:
        (node.folder / "only-here").mkdir(exist_ok=True)
    sets = [f"input={lab.path}/only-here", f"output={lab.uri('from-head')}"]
    ended = lab.ended(lab.submit("corrupt", sets=[*sets, "report.samples=0"]))
    print(ended)
