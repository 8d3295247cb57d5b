"""What cannot work on nodes that share nothing is refused, with the way out."""

from genray.io.store import open_store
from tests.cluster.nodes.inputs import put_images
from tests.cluster.nodes.lab import Lab


def test_a_training_into_a_folder_that_nodes_do_not_share(lab: Lab) -> None:
    for node in lab.workers:
        (node.folder / "runs").mkdir(exist_ok=True)
    sets = [f"data.path={put_images(lab, 'ten', 10)}", f"runs={lab.path}/runs", "loop.workers=2"]
    ended = lab.ended(lab.submit("train-autoencoder", "--name", "private", sets=sets))
    assert ended.code == 2, ended
    assert "node worker-1" in ended.err
    assert "such as runs=s3://BUCKET/runs" in ended.err
    assert ended.outcome["exit_code"] == 2
    assert "epoch 1/" not in ended.err


def test_a_bulk_run_into_a_folder_that_nodes_do_not_share(lab: Lab) -> None:
    sets = [f"input={put_images(lab, 'ten', 10)}", f"output={lab.path}/out"]
    ended = lab.ended(lab.submit("corrupt", sets=[*sets, "report.samples=0"]))
    assert ended.code == 2, ended
    assert "such as output=s3://BUCKET/output" in ended.err
    assert ended.outcome["exit_code"] == 2
    assert "Traceback" not in ended.err


def test_a_bulk_run_over_a_folder_that_nodes_do_not_share(lab: Lab) -> None:
    """Each image would be recorded as unreadable."""
    for node in (lab.head, *lab.workers):
        (node.folder / "photos").mkdir(exist_ok=True)
    photos = open_store(put_images(lab, "four-hundred", 400))
    for entry in photos.list([".png"]):
        photos.download(entry.path, lab.head.folder / "photos" / entry.path)
    sets = [f"input={lab.path}/photos", f"output={lab.uri('of-the-head')}", "report.samples=0"]
    ended = lab.ended(lab.submit("corrupt", sets=sets))
    assert ended.code == 2, ended
    assert "it does not have the driver's 0000.png" in ended.err
    assert "such as input=s3://BUCKET/input" in ended.err
