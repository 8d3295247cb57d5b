from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genray.bundle import load_bundle
from genray.images.pixels import fit_square
from genray.images.tensors import to_network, to_pixels
from tests.pipelines.conftest import Bulk, rows_of, write_photos


@pytest.mark.parametrize("size", [(32, 32), (50, 70), (61, 33)])
def test_images_are_seen_as_in_training_and_their_error_is_recorded(
    bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path, size: tuple[int, int]
) -> None:
    write_photos(tmp_path / "in", 4, size=size, noise=0)
    bulk("reconstruct", f"input={tmp_path / 'in'}", f"bundle={bundle_of('autoencoder')}", "write.format=png")
    network = load_bundle(bundle_of("autoencoder")).network
    for row in rows_of(tmp_path / "out"):
        image = np.asarray(Image.open(tmp_path / "in" / row["path"]))
        seen = fit_square(image, 32, "crop")
        with torch.inference_mode():
            want = to_pixels(network(to_network(seen[None], span=(0, 1))), (0, 1))[0]
        made = np.asarray(Image.open(tmp_path / "out" / row["output"]))
        assert np.abs(made.astype(int) - want).max() <= 1
        assert row["error"] == pytest.approx(np.mean((made.astype(float) - seen) ** 2) / 255**2, rel=1e-3)
