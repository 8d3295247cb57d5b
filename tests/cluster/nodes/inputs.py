"""What the jobs of a lab read and write: images in its bucket, and what is left there."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image

from genray.io.store import create_store
from tests.cluster.nodes.lab import Lab


def put_images(lab: Lab, folder: str, count: int, *, size: int = 24) -> str:
    """Write gray images of `size` x `size` pixels, each a disc on a ramp, to a folder of the bucket once;
    returns its URI."""
    uri = lab.uri(folder)
    store = create_store(uri)
    rows, columns = np.mgrid[:size, :size]
    for index in range(count):
        path = f"{index:04}.png"
        if store.exists(path):
            continue
        top, left, radius = np.random.default_rng(index).uniform(0.25, 0.75, 3) * (size, size, size / 3)
        inside = np.hypot(rows - top, columns - left) < radius
        stream = io.BytesIO()
        Image.fromarray(np.where(inside, 230, 20 + 80 * columns / size).astype(np.uint8)).save(stream, "PNG")
        store.write(path, stream.getvalue())
    return uri


def epochs(lab: Lab, run: str) -> list[int]:
    """The epochs that the history of a run in the bucket has."""
    store = create_store(lab.uri("runs", run))
    if not store.exists("history.jsonl"):
        return []
    return [json.loads(line)["epoch"] for line in store.read("history.jsonl").splitlines()]


def position(lab: Lab, run: str) -> float:
    """The epochs, with the part of the current one, that a run in the bucket says it has trained; 0: unknown."""
    store = create_store(lab.uri("runs", run))
    try:
        tick = json.loads(store.read("progress.json"))
    except FileNotFoundError:
        return 0.0
    epochs: float = tick["epochs"] * tick["step"] / tick["steps"]
    return epochs
