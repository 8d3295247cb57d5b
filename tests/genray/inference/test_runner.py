"""What a network gives is the same by every way of running it."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from genray.bundle import ImageSpec
from genray.errors import ResourceError, SettingsError
from genray.images.tensors import to_network, to_pixels
from genray.inference.accuracy import ImageDifference, compare
from genray.inference.runner import InferenceSettings, Runner
from genray.models.autoencoder import ConvAutoencoder, ConvSettings
from genray.models.nafnet import NAFNet, NAFNetSettings
from genray.models.numpy_dense import NumpyAutoencoder, NumpySettings
from genray.models.pix2pix import UNet, UNetSettings
from genray.models.residual_unet import ResidualUNet, ResidualUNetSettings
from genray.models.restorer import ConvRestorer, ConvRestorerSettings

UNIT, SIGNED = ImageSpec(channels=3, range=(0.0, 1.0)), ImageSpec(channels=3, range=(-1.0, 1.0))
SMALL = {"widths": (6, 8), "blocks": 1, "middle": 1}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], ImageSpec]] = {
    "unet": (lambda: ResidualUNet(3, ResidualUNetSettings.model_validate(SMALL)), UNIT),
    "gate": (lambda: ResidualUNet(3, ResidualUNetSettings.model_validate({**SMALL, "gate": True})), UNIT),
    "nafnet": (lambda: NAFNet(3, NAFNetSettings.model_validate(SMALL)), UNIT),
    "conv": (lambda: ConvRestorer(3, ConvRestorerSettings(filters=(6, 8))), UNIT),
    "pix2pix": (lambda: UNet(3, 3, size=64, settings=UNetSettings(filters=4)), SIGNED),
    "autoencoder": (lambda: ConvAutoencoder((3, 20, 28), ConvSettings(latent=8, filters=(4, 8))), UNIT),
}
SIZES = {"pix2pix": [(64, 64), (128, 192)], "autoencoder": [(20, 28)]}
every_network = pytest.mark.parametrize("name", NETWORKS)


class Encoder(nn.Module):
    def __init__(self, network: ConvAutoencoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.encode(x)


class Decoder(Encoder):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.decode(x)


def drawn(name: str) -> tuple[nn.Module, ImageSpec]:
    """A network that does something, which a new residual one does not."""
    torch.manual_seed(0)
    build, spec = NETWORKS[name]
    network = build().eval()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, 0.0, 0.1)
    return network, spec


@cache
def opened(name: str, backend: str) -> tuple[nn.Module, ImageSpec, Runner]:
    """A network and its runner: converting takes seconds, so that tests share it."""
    network, spec = drawn(name)
    settings = InferenceSettings.model_validate({"backend": backend})
    return network, spec, Runner.open(network, spec, spec, settings)


def images(number: int, height: int, width: int, dtype: type = np.uint8) -> NDArray[np.uint8]:
    top = np.iinfo(dtype).max
    return np.random.default_rng(1).integers(0, top, (number, height, width, 3), dtype, endpoint=True)


def run_plainly(network: nn.Module, batch: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.uint8]:
    with torch.inference_mode():
        return to_pixels(network(to_network(batch, span=spec.range)), span=spec.range)


def levels(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    assert first.shape == second.shape
    return float(np.abs(first.astype(np.float64) - second.astype(np.float64)).max())


@every_network
def test_openvino_gives_what_pytorch_gives_at_every_size(name: str) -> None:
    network, spec, runner = opened(name, "openvino")
    assert runner.backend == "openvino"
    assert isinstance(runner.check, ImageDifference)
    assert runner.check.levels <= 1
    for size in SIZES.get(name, [(1, 1), (2, 3), (8, 8), (33, 47)]):
        batch = images(2, *size)
        made = runner(batch)
        assert made.dtype == np.uint8
        assert made.flags.c_contiguous
        assert levels(made, run_plainly(network, batch, spec)) <= 1


@every_network
def test_pytorch_gives_what_the_network_gives(name: str) -> None:
    network, spec, runner = opened(name, "torch")
    batch = images(2, *SIZES.get(name, [(9, 14)])[0])
    assert levels(runner(batch), run_plainly(network, batch, spec)) <= 1


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_sixteen_bits_stay_sixteen_bits(backend: str) -> None:
    network, _, runner = opened("unet", backend)
    batch = images(1, 9, 14, np.uint16)
    made = runner(batch)
    with torch.inference_mode():
        x = torch.from_numpy(batch.astype(np.float32) / 65535).permute(0, 3, 1, 2)
        expected = network(x).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert made.dtype == np.uint16
    assert levels(made, expected * 65535) <= 2
    assert len(np.unique(made // 257 * 257 - made)) > 50  # more than bytes can tell apart


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_images_become_vectors_and_vectors_images(backend: str) -> None:
    settings = InferenceSettings.model_validate({"backend": backend})
    network, spec = drawn("autoencoder")
    assert isinstance(network, ConvAutoencoder)
    batch = images(3, 20, 28)
    codes = Runner.open(Encoder(network), spec, None, settings)(batch)
    with torch.inference_mode():
        expected = network.encode(to_network(batch, span=spec.range)).numpy()
    assert codes.shape == (3, 8)
    assert codes.dtype == np.float32
    assert compare(expected, codes).is_close("fp32"), "what the runner promises of vectors"
    made = Runner.open(Decoder(network), None, spec, settings)(codes)
    assert levels(made, run_plainly(network, batch, spec)) <= 1


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_what_shares_a_batch_changes_no_image(backend: str) -> None:
    _, _, runner = opened("pix2pix", backend)
    batch = images(3, 64, 64)
    batch[1] //= 8
    assert levels(runner(batch), np.concatenate([runner(one[None]) for one in batch])) <= 1


def test_a_size_that_comes_often_gives_the_same_as_at_first() -> None:
    _, _, runner = opened("unet", "openvino")
    batch = images(1, 21, 16)
    first = runner(batch)
    assert all(levels(runner(batch), first) <= 1 for _ in range(20))
    for side in range(8, 20):
        assert runner(images(1, side, 8)).shape == (1, side, 8, 3)


def test_bf16_says_how_far_off_it_is() -> None:
    network, spec = drawn("conv")
    runner = Runner.open(network, spec, spec, InferenceSettings(precision="bf16", backend="openvino"))
    assert isinstance(runner.check, ImageDifference)
    assert runner.check.psnr > 35
    assert "PSNR" in runner.notes[-1]
    by_torch = Runner.open(network, spec, spec, InferenceSettings(precision="bf16", backend="torch"))
    batch = images(1, 16, 16)
    # bf16 rounds what goes into a layer, its weights and what comes out, by 2^-9 each. In five layers that
    # is 3 % of the last sums, which are about 1, and a quarter of that after the sigmoid: 2 levels; some sums
    # are three times as large.
    assert levels(by_torch(batch), run_plainly(network, batch, spec)) <= 6


def test_a_network_that_openvino_refuses_runs_by_pytorch_and_says_so() -> None:
    network = NumpyAutoencoder((3, 6, 6), NumpySettings(latent=4)).eval()
    runner = Runner.open(network, UNIT, UNIT, InferenceSettings())
    assert runner.backend == "torch"
    assert "OpenVINO does not take the network" in runner.notes[0]
    assert levels(runner(images(2, 6, 6)), run_plainly(network, images(2, 6, 6), UNIT)) <= 1
    with pytest.raises(ResourceError, match="does not take the network"):
        Runner.open(network, UNIT, UNIT, InferenceSettings(backend="openvino"))


def test_a_network_of_unknown_sizes_runs_by_pytorch_unless_told_its_size() -> None:
    network = nn.Conv2d(3, 3, 3, padding=1).eval()
    runner = Runner.open(network, UNIT, UNIT, InferenceSettings())
    assert runner.backend == "torch"
    assert "the input sizes of Conv2d are unknown" in runner.notes[0]
    assert Runner.open(network, UNIT, UNIT, InferenceSettings(), size=(7, 9)).backend == "openvino"


class Wrong(ConvRestorer):
    """A network that other ways of running it get wrong, as far as PyTorch can tell."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) + 0.02


def test_another_result_than_pytorchs_is_not_used() -> None:
    runner = Runner.open(Wrong(3, ConvRestorerSettings(filters=(6,))).eval(), UNIT, UNIT, InferenceSettings())
    assert runner.backend == "torch"
    assert "differs from PyTorch's" in runner.notes[0]


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_what_the_network_does_not_take_is_refused(backend: str) -> None:
    _, _, runner = opened("pix2pix", backend)
    with pytest.raises(ValueError, match="takes multiples of 64, not"):
        runner(images(1, 60, 64))
    with pytest.raises(ValueError, match=r"\(N, H, W, 3\) uint8 or uint16"):
        runner(images(1, 64, 64).astype(np.float32))
    with pytest.raises(ValueError, match=r"\(N, H, W, 3\)"):
        runner(images(1, 64, 64)[..., :1])
    with pytest.raises(ValueError, match="takes only "):
        opened("autoencoder", backend)[2](images(1, 28, 20))


def test_int8_needs_a_quantised_network_and_openvino() -> None:
    network, spec = drawn("conv")
    with pytest.raises(SettingsError, match="needs a quantised network"):
        Runner.open(network, spec, spec, InferenceSettings(precision="int8"))
    with pytest.raises(ValidationError, match="needs backend openvino"):
        InferenceSettings(precision="int8", backend="torch")
