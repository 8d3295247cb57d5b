"""What the jobs of a lab read and write: images in its bucket, a training on them, and what is left there."""

from __future__ import annotations

import io
import json
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from genray.bundle import load_bundle
from genray.io.store import create_store
from tests.cluster.nodes.lab import Ended, Lab

EPOCHS = 4
_IMAGES = 1200


def image(index: int, size: int = 24) -> bytes:
    """A gray image of `size` x `size` pixels as a PNG file: a disc on a ramp, for each index another."""
    rows, columns = np.mgrid[:size, :size]
    top, left, radius = np.random.default_rng(index).uniform(0.25, 0.75, 3) * (size, size, size / 3)
    inside = np.hypot(rows - top, columns - left) < radius
    stream = io.BytesIO()
    Image.fromarray(np.where(inside, 230, 20 + 80 * columns / size).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def put_images(lab: Lab, folder: str, count: int, *, size: int = 24) -> str:
    """Write images to a folder of the bucket, once; returns its URI."""
    store = create_store(lab.uri(folder))
    for index in range(count):
        if not store.exists(path := f"{index:04}.png"):
            store.write(path, image(index, size))
    return store.root


def put_table(lab: Lab, folder: str, count: int) -> str:
    """Write images to a Parquet file in the bucket, which workers read at once; returns the URI of its
    folder."""
    store = create_store(lab.uri(folder))
    if not store.exists("images.parquet"):
        stream = io.BytesIO()
        pq.write_table(pa.table({"image": [image(index) for index in range(count)]}), stream)
        store.write("images.parquet", stream.getvalue())
    return store.root


def epochs(lab: Lab, run: str) -> list[int]:
    """The epochs that the history of a run in the bucket has."""
    store = create_store(lab.uri("runs", run))
    if not store.exists("history.jsonl"):
        return []
    return [json.loads(line)["epoch"] for line in store.read("history.jsonl").splitlines()]


def position(lab: Lab, run: str) -> float:
    """The epochs, also in part, that a run in the bucket says it has trained; 0: unknown."""
    store = create_store(lab.uri("runs", run))
    try:
        tick = json.loads(store.read("progress.json"))
    except FileNotFoundError:
        return 0.0
    epochs: float = tick["epochs"] * tick["step"] / tick["steps"]
    return epochs


def train(lab: Lab, name: str, *more: str) -> subprocess.Popen[str]:
    """A training whose epochs take some seconds, so that a node can be lost in the middle of one."""
    sets = [
        f"data.path={put_table(lab, 'training', _IMAGES)}",
        f"runs={lab.uri('runs')}",
        f"loop.epochs={EPOCHS}",
    ]
    sets += ["model.kind=conv", "model.filters=[4,4]", "model.latent=4", "loop.batch_size=1"]
    sets += ["eval.projection=none", "eval.baselines=[]", "loop.weights=last", "device.threads=1"]
    return lab.submit("train-autoencoder", "--name", name, sets=[*sets, "loop.workers=2", *more])


def weights(ended: Ended) -> dict[str, np.ndarray]:
    assert ended.code == 0, ended
    network = load_bundle(ended.outcome["bundle"]).network
    return {name: value.numpy() for name, value in network.state_dict().items()}
