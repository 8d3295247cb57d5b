"""Tiles are what the whole image is, without a seam and in little memory."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from genray.bundle import ImageSpec
from genray.inference.runner import InferenceSettings, Runner
from genray.inference.sizes import mirror
from genray.inference.tiling import run_in_tiles
from genray.models.nafnet import NAFNet, NAFNetSettings
from genray.models.pix2pix import UNet, UNetSettings
from genray.models.residual_unet import ResidualUNet, ResidualUNetSettings
from genray.models.restorer import ConvRestorer, ConvRestorerSettings, Restorer, mirror_to_multiple
from tests.genray.inference.receptive_radius import receptive_radius

Array = NDArray[Any]
SPEC = ImageSpec(channels=3, range=(0.0, 1.0))
SMALL = {"widths": (6, 8), "blocks": 1, "middle": 1}
LOCAL: dict[str, Callable[[], Restorer]] = {
    "unet": lambda: ResidualUNet(3, ResidualUNetSettings.model_validate(SMALL)),
    "conv": lambda: ConvRestorer(3, ConvRestorerSettings(filters=(6, 8))),
}


def drawn(network: Restorer) -> Restorer:
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    return network.eval()


def image(height: int, width: int, channels: int = 3, dtype: type = np.uint8) -> Array:
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, (height, width, channels), dtype, endpoint=True)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 30), (17, 47), (64, 16)])
def test_pixels_are_mirrored_as_a_restorer_does_it(size: tuple[int, int]) -> None:
    batch = np.stack([image(*size)] * 2)
    tensor = torch.from_numpy(batch.astype(np.float32)).permute(0, 3, 1, 2)
    expected = mirror_to_multiple(tensor, 16).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(mirror(batch, 16), expected)


@pytest.mark.parametrize("kind", LOCAL)
@pytest.mark.parametrize("size", [(150, 203), (96, 97), (47, 300)])
@pytest.mark.parametrize("blend", [False, True])
def test_tiles_of_a_local_network_are_the_whole_image(kind: str, size: tuple[int, int], blend: bool) -> None:
    network = drawn(LOCAL[kind]())
    runner = Runner.open(network, SPEC, SPEC, InferenceSettings(backend="torch"))
    radius = receptive_radius(network, 3, network.multiple)
    assert radius is not None
    picture = image(*size)
    made = run_in_tiles(
        runner, picture, tile=96, overlap=2 * radius, multiple=network.multiple, batch=2, blend=blend
    )
    whole = runner(picture[None])[0]
    assert np.ptp(whole) > 50
    if blend:  # the outer part of a tile counts a little
        assert np.abs(made.astype(int) - whole).mean() < 2
    else:
        assert np.abs(made.astype(int) - whole).max() <= 1


def test_too_small_an_overlap_is_seen() -> None:
    network = drawn(LOCAL["unet"]())
    runner = Runner.open(network, SPEC, SPEC, InferenceSettings(backend="torch"))
    picture = image(150, 203)
    made = run_in_tiles(runner, picture, tile=64, overlap=0, multiple=network.multiple)
    assert np.abs(made.astype(int) - runner(picture[None])[0]).max() > 3


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (64, 64), (65, 64), (200, 333)])
@pytest.mark.parametrize(("tile", "overlap", "multiple"), [(64, 16, 8), (64, 56, 8), (50, 0, 1), (70, 33, 4)])
@pytest.mark.parametrize("blend", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_pixel_is_filled_whatever_the_grid(
    size: tuple[int, int], tile: int, overlap: int, multiple: int, blend: bool, dtype: type
) -> None:
    shapes = set()

    def run(tiles: Array) -> Array:
        shapes.add(tiles.shape[1:3])
        return tiles[..., :2].copy()

    picture = image(*size, dtype=dtype)
    made = run_in_tiles(run, picture, tile, overlap, multiple, batch=3, blend=blend)
    assert np.array_equal(made, picture[..., :2])
    assert made.dtype == dtype
    ((height, width),) = shapes
    assert height <= tile
    assert width <= tile
    assert height % multiple == width % multiple == 0


def test_blended_tiles_of_different_tone_show_no_seam() -> None:
    tones = iter(range(0, 250, 25))

    def run(tiles: Array) -> Array:
        return np.full_like(tiles, next(tones))

    flat = np.zeros((64, 300, 1), np.uint8)
    made = run_in_tiles(run, flat, tile=100, overlap=50, blend=True)[0, :, 0].astype(int)
    assert made[0] == 0
    assert made[-1] >= 100
    assert np.abs(np.diff(made)).max() <= 2
    tones = iter(range(0, 250, 25))
    assert np.abs(np.diff(run_in_tiles(run, flat, tile=100, overlap=50)[0, :, 0].astype(int))).max() == 25


def test_fifty_megapixels_need_the_input_the_output_and_a_few_tiles() -> None:
    picture = np.zeros((6000, 8400, 3), np.uint8)
    picture[::7] = 200
    for blend, more in ((False, 0.1), (True, 0.9)):
        tracemalloc.start()
        try:
            made = run_in_tiles(lambda tiles: tiles, picture, tile=1024, overlap=64, multiple=8, blend=blend)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert np.array_equal(made[::501], picture[::501])
        assert peak < (1 + more) * picture.nbytes


def test_the_radius_is_how_far_a_network_sees() -> None:
    def plain(*kernels: int) -> nn.Module:
        return nn.Sequential(*(nn.Conv2d(1, 1, side, padding=side // 2) for side in kernels))

    torch.manual_seed(0)
    assert receptive_radius(plain(3, 3, 5), 1) == 4
    assert receptive_radius(nn.Identity(), 3) == 0
    far = nn.Conv2d(1, 1, 3, padding=100, dilation=100)  # with nothing in between
    assert receptive_radius(far, 1) == 100


def test_a_network_that_looks_at_the_whole_image_has_no_radius() -> None:
    assert receptive_radius(drawn(NAFNet(3, NAFNetSettings.model_validate(SMALL))), 3, 4) is None
    local = NAFNetSettings.model_validate({**SMALL, "attention": False})
    assert receptive_radius(drawn(NAFNet(3, local)), 3, 4) is not None
    assert receptive_radius(UNet(3, 3, size=64, settings=UNetSettings(filters=2)).eval(), 3, 64) is None


def test_what_cannot_be_tiled_is_refused() -> None:
    with pytest.raises(ValueError, match="can overlap by 0 to 56 pixels, not 60"):
        run_in_tiles(lambda tiles: tiles, image(100, 100), tile=64, overlap=60, multiple=8)
    with pytest.raises(ValueError, match="cannot be tiled"):
        run_in_tiles(lambda tiles: tiles[:, ::2], image(100, 100), tile=64, overlap=0)
