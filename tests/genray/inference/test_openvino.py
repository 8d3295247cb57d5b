"""int8 networks: close to what they were made of, the same in every worker, and of a known loss."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from genray.bundle import ImageSpec
from genray.errors import SettingsError
from genray.images.tensors import to_network, to_pixels
from genray.inference import openvino
from genray.inference.accuracy import ImageDifference, measure_loss
from genray.inference.openvino import convert, core, load_model, quantize, save_model
from genray.inference.runner import InferenceSettings, Runner
from genray.inference.sizes import input_sizes
from genray.models.autoencoder import ConvAutoencoder, ConvSettings
from genray.models.residual_unet import ResidualUNet, ResidualUNetSettings

SPEC = ImageSpec(channels=3, range=(0.0, 1.0))
INT8 = InferenceSettings(precision="int8")


def network(seed: int = 0) -> ResidualUNet:
    torch.manual_seed(seed)
    made = ResidualUNet(3, ResidualUNetSettings(widths=(16, 24), blocks=1, middle=1)).eval()
    nn.init.normal_(made.tail.weight, 0.0, 0.05)
    return made


def photos(number: int, height: int = 40, width: int = 56) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    ramp = np.linspace(30, 220, width)[None, :, None] * np.ones((height, 1, 3))
    return [
        np.clip(ramp[:, :: rng.choice([-1, 1])] + rng.normal(0, 12, ramp.shape), 0, 255).astype(np.uint8)
        for _ in range(number)
    ]


def test_a_network_that_was_converted_before_gives_a_model_of_its_own() -> None:
    sizes = input_sizes(network(), SPEC)
    assert sizes is not None
    batch = np.random.default_rng(0).random((1, 3, 16, 24), dtype=np.float32)
    first = convert(network(), SPEC, sizes)
    first.reshape([1, 3, 8, 8])
    results = []
    for seed in (0, 0, 1):
        made = network(seed)
        model = core().compile_model(convert(made, SPEC, sizes), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        results.append(model(batch)[0])
        with torch.inference_mode():
            assert np.allclose(results[-1], made(torch.from_numpy(batch)).numpy(), atol=1e-4)
    assert np.array_equal(results[0], results[1])
    assert not np.allclose(results[0], results[2], atol=1e-2)


def test_a_converted_network_is_kept_for_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENRAY_MODEL_CACHE", str(tmp_path / "cache"))
    sizes = input_sizes(network(), SPEC)
    assert sizes is not None
    batch = np.random.default_rng(0).random((1, 3, 16, 24), dtype=np.float32)

    def result(seed: int) -> NDArray[np.float32]:
        openvino._converted.clear()  # as in a process that has just started
        model = core().compile_model(
            convert(network(seed), SPEC, sizes), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        return np.array(model(batch)[0])

    first = result(5)
    monkeypatch.setattr(openvino, "_convert", None)
    assert np.array_equal(result(5), first), "read, not converted"
    monkeypatch.undo()
    monkeypatch.setenv("GENRAY_MODEL_CACHE", str(tmp_path / "cache"))
    (kept,) = (tmp_path / "cache").iterdir()
    weights = bytearray((kept / "network.bin").read_bytes())
    weights[7] ^= 1
    (kept / "network.bin").write_bytes(weights)
    assert np.array_equal(result(5), first), "a damaged one is made again"
    assert (kept / "network.bin").read_bytes() != weights
    for seed in range(6, 9):
        result(seed)
    assert len(list((tmp_path / "cache").iterdir())) == 4


@pytest.mark.parametrize("place", ["", "/proc/nowhere"])
def test_a_cache_that_cannot_be_written_is_done_without(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENRAY_MODEL_CACHE", place)
    sizes = input_sizes(network(), SPEC)
    assert sizes is not None
    assert convert(network(seed=9), SPEC, sizes) is not None


def test_int8_is_close_to_fp32_at_every_size(tmp_path: Path) -> None:
    exact = network()
    folder = save_model(tmp_path / "int8", quantize(exact, SPEC, photos(4)), exact)
    fast, slow = (
        Runner.open(exact, SPEC, SPEC, INT8, quantized=folder),
        Runner.open(exact, SPEC, SPEC, InferenceSettings()),
    )
    assert isinstance(fast.check, ImageDifference)
    assert fast.check.psnr > 35
    assert "int8" in fast.notes[-1]
    for size in [(40, 56), (33, 21), (5, 9)]:
        image = photos(1, *size)[0][None]
        apart = np.abs(fast(image).astype(int) - slow(image))
        assert apart.mean() < 2
        assert apart.max() < 30
    assert fast(np.stack(photos(3))).shape == (3, 40, 56, 3)


def test_the_heavy_layers_compute_with_eight_bits() -> None:
    model = quantize(network(), SPEC, photos(2))
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    model.reshape([1, 3, 40, 56])
    compiled = core().compile_model(model, "CPU", config).get_runtime_model()
    types = [
        node.get_rt_info()["runtimePrecision"].astype(str)
        for node in compiled.get_ordered_ops()
        if node.get_rt_info()["layerType"].astype(str) in ("Convolution", "Deconvolution")
    ]
    eight = [kind for kind in types if kind in ("u8", "i8")]
    assert len(types) > 6
    assert len(eight) >= len(types) - 3


def test_ranges_come_from_the_samples() -> None:
    dark = quantize(network(), SPEC, [photo // 16 for photo in photos(2)])
    light = quantize(network(), SPEC, photos(2))
    image = photos(1)[0]
    noise = {}
    for name, model in (("dark", dark), ("light", light)):
        model.reshape([1, 3, 40, 56])
        x = (image / 255).astype(np.float32).transpose(2, 0, 1)[None]
        made = core().compile_model(model, "CPU")(np.ascontiguousarray(x))[0]
        with torch.inference_mode():
            noise[name] = float(np.abs(made - network()(torch.from_numpy(x)).numpy()).mean())
    assert noise["dark"] > 2 * noise["light"]


def test_a_result_far_from_fp32_is_not_used(tmp_path: Path) -> None:
    exact = network()
    nn.init.normal_(exact.tail.weight, 0.0, 0.5)
    model = quantize(exact, SPEC, [np.zeros_like(photo) + 2 for photo in photos(2)])
    folder = save_model(tmp_path / "int8", model, exact)
    runner = Runner.open(exact, SPEC, SPEC, INT8, quantized=folder)
    batch = np.stack(photos(2))
    with torch.inference_mode():
        expected = to_pixels(exact(to_network(batch, span=SPEC.range)), span=SPEC.range)
    assert np.abs(runner(batch).astype(int) - expected).max() <= 1
    assert any("OpenVINO is not used for (2, 40, 56, 3)" in note for note in runner.notes)


def test_an_autoencoder_s_codes_survive(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = ConvAutoencoder((3, 16, 16), ConvSettings(latent=8, filters=(8, 16))).eval()
    folder = save_model(tmp_path / "int8", quantize(whole, SPEC, photos(4, 16, 16)), whole)
    batch = np.stack(photos(4, 16, 16))  # four: two quantised linear maps in a row would go wrong
    fast, slow = (
        Runner.open(whole, SPEC, SPEC, INT8, quantized=folder),
        Runner.open(whole, SPEC, SPEC, InferenceSettings()),
    )
    assert np.abs(fast(batch).astype(int) - slow(batch)).mean() < 3


def test_another_networks_or_a_damaged_model_is_refused(tmp_path: Path) -> None:
    exact = network()
    folder = save_model(tmp_path / "int8", quantize(exact, SPEC, photos(2)), exact)
    with pytest.raises(SettingsError, match="of another network"):
        load_model(folder, network(seed=1))
    with pytest.raises(SettingsError, match="of another network"):
        Runner.open(network(seed=1), SPEC, SPEC, INT8, quantized=folder)
    weights = bytearray((folder / "network.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (folder / "network.bin").write_bytes(weights)
    with pytest.raises(SettingsError, match="damaged"):
        load_model(folder, exact)
    (folder / "network.json").unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        load_model(folder, exact)


def test_a_model_is_replaced_whole(tmp_path: Path) -> None:
    first, second = network(), network(seed=1)
    for one in (first, second):
        save_model(tmp_path / "int8", quantize(one, SPEC, photos(1)), one)
    load_model(tmp_path / "int8", second)
    assert [path.name for path in tmp_path.iterdir()] == ["int8"]


def test_nothing_is_quantised_without_samples() -> None:
    with pytest.raises(SettingsError, match="no samples"):
        quantize(network(), SPEC, [])


def test_the_loss_is_that_of_the_worse_denoiser() -> None:
    def blur(batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        padded = np.pad(batch.astype(float), ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
        return np.rint(windows.mean(axis=(-2, -1))).astype(np.uint8)

    def coarse(batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return blur(batch) // 16 * 16 + 8

    loss = measure_loss(blur, coarse, photos(3), sigma=25)
    assert loss.psnr_exact is not None
    assert loss.psnr_fast is not None
    assert loss.psnr_drop == pytest.approx(loss.psnr_exact - loss.psnr_fast)
    assert loss.psnr_drop > 1
    assert 33 < loss.psnr_between < 37  # an error spread evenly over 16 levels: 34.9 dB
    same = measure_loss(blur, blur, photos(2), sigma=25)
    assert same.psnr_drop == 0
    assert same.psnr_between == 100
    assert set(same.as_json()) == {"psnr_between", "psnr_exact", "psnr_fast", "psnr_drop"}
    assert set(measure_loss(blur, coarse, photos(1)).as_json()) == {"psnr_between"}
