"""What a bulk run is measured against: the ways that people write one, over the same files and model.

Each prints a line of JSON for every image that is through: its time. Start-up is what comes before the first.
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

_BATCH = 8


def through(count: int = 1) -> None:
    """Say that images are through."""
    for _ in range(count):
        print(time.time())


def _network(bundle: str, case: str) -> tuple[Any, Any]:
    """A function from (N, H, W, C) uint8 to outputs (uint8 images or vectors), and the bundle's size."""
    import torch

    from genray.bundle import load_bundle
    from genray.images.tensors import to_network, to_pixels

    loaded = load_bundle(bundle)
    network, size = loaded.network, loaded.manifest.preprocessing.size

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            # As it is done without thinking of layouts: contiguous NCHW.
            images = to_network(batch, span=(0.0, 1.0)).contiguous()
            if case == "embed":
                return network.encode(images).numpy()
            return to_pixels(network(images), (0.0, 1.0))

    return run, size


def _decoded(data: bytes, case: str, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    image = Image.open(io.BytesIO(data)).convert("RGB")
    if case == "embed":
        image = image.resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(image)


def _save(array: np.ndarray, path: Path) -> None:
    from PIL import Image

    Image.fromarray(array).save(path, quality=90)


def loop(case: str, bundle: str, images: Path, out: Path) -> None:
    """Pillow, torch, one image at a time, torch on all cores."""
    run, size = _network(bundle, case)
    vectors = []
    for file in sorted(images.glob("*.jpg")):
        made = run(_decoded(file.read_bytes(), case, size)[None])
        vectors.append(made) if case == "embed" else _save(made[0], out / file.name)
        through()
    if case == "embed":
        np.save(out / "vectors.npy", np.concatenate(vectors))


def dataloader(case: str, bundle: str, images: Path, out: Path) -> None:
    """A torch DataLoader that decodes in two processes, batches, the model here, files saved here."""
    import torch

    files = sorted(images.glob("*.jpg"))
    run, size = _network(bundle, case)

    class Files(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
            return index, _decoded(files[index].read_bytes(), case, size)

    loader = torch.utils.data.DataLoader(Files(), batch_size=_BATCH, num_workers=2)
    vectors = []
    for indices, batch in loader:
        made = run(batch.numpy())
        if case == "embed":
            vectors.append(made)
        else:
            for index, image in zip(indices.tolist(), made, strict=True):
                _save(image, out / files[index].name)
        through(len(made))
    if case == "embed":
        np.save(out / "vectors.npy", np.concatenate(vectors))


def ray_data(case: str, bundle: str, images: Path, out: Path) -> None:
    """Ray Data as its guide has it: read_images, map_batches, write_images or write_parquet."""
    import ray

    ray.init(num_cpus=2, log_to_driver=False, address="local")
    ray.data.DataContext.get_current().enable_progress_bars = False
    size = None
    if case == "embed":
        from genray.bundle import read_manifest

        size = read_manifest(Path(bundle)).preprocessing.size

    class Model:
        def __init__(self) -> None:
            self.run, _ = _network(bundle, case)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            # What a batch holds is of one shape here.
            made = self.run(np.stack(list(batch["image"])))
            with (out / f"times-{id(self)}.jsonl").open("a") as file:
                file.write(f"{time.time()}\n" * len(made))
            return {"vector": made} if case == "embed" else {"image": made}

    dataset = ray.data.read_images(str(images), mode="RGB", size=size).map_batches(
        Model, batch_size=_BATCH, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=1
    )
    if case == "embed":
        dataset.write_parquet(str(out / "vectors"))
    else:
        dataset.write_images(str(out / "images"), column="image", file_format="jpeg")
    for file in out.glob("times-*.jsonl"):
        sys.stdout.write(file.read_text())
    ray.shutdown()


if __name__ == "__main__":
    name, case, bundle, images, out = sys.argv[1:]
    {"loop": loop, "dataloader": dataloader, "ray-data": ray_data}[name](
        case, bundle, Path(images), Path(out)
    )
