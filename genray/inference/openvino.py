"""Networks as OpenVINO models: converted from PyTorch, quantised to int8, stored in a folder or the cache.

OpenVINO is imported when it is needed, and has one core per process.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import secrets
import shutil
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from genray.bundle import ImageSpec
from genray.errors import ResourceError, SettingsError, StorageFull
from genray.inference.sizes import InputSizes, input_sizes, mirror
from genray.io import user_cache
from genray.io.files import storage_errors, write_json
from genray.models.restorer import Restorer

Array = NDArray[Any]

_SAMPLES = 32
_SIDE = 256  # side of the crops that ranges are measured on, in pixels
_MOST_CONVERTED = 2  # converted models that are kept
_MAX_MODEL, _MAX_TEXT = 4 * 2**30, 64 * 2**20
_WEIGHTED = {"Convolution": (0,), "ConvolutionBackpropData": (1,), "GroupConvolution": (0, 1)}
"""Operations that are quantised, and the axes of the output channels in their weights."""

_MODEL, _WEIGHTS, _MANIFEST = "network.xml", "network.bin", "network.json"


class _WithoutPadding(nn.Module):
    """A network without its padding, whose code differs for each size."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = (
            self.network.restore(x) if isinstance(self.network, Restorer) else self.network(x)
        )
        return result


_converted: OrderedDict[tuple[str, str, ImageSpec | None, InputSizes], Any] = OrderedDict()
"""The last converted models: the workers of a process use the same, and converting takes seconds."""
_converting = threading.Lock()


def convert(network: nn.Module, takes: ImageSpec | None, sizes: InputSizes) -> Any:
    """Convert `network` to an `openvino.Model`: (N, C, H, W) or (N, d) float32 in, float32 out, with dynamic
    N, and dynamic H and W unless they are fixed. A network of the same modules and weights is converted
    once on a machine: the user's cache keeps the models, see `user_cache`."""
    key = (str(network), _fingerprint(network), takes, sizes)
    with _converting:
        if key not in _converted:
            _converted[key] = _cached(network, takes, sizes, key)
            if len(_converted) > _MOST_CONVERTED:
                _converted.popitem(last=False)
        return _converted[key].clone()


def _cached(network: nn.Module, takes: ImageSpec | None, sizes: InputSizes, key: object) -> Any:
    """Return the model of the user's cache, or convert the network and keep its model there."""
    folder = user_cache.folder_of(f"{key} {torch.__version__} {openvino().__version__}")
    if folder is not None and folder.is_dir():
        with suppress(SettingsError):  # damaged: it is made again
            model = load_model(folder, network)
            user_cache.mark_used(folder)
            return model
    model = _convert(network, takes, sizes)
    if folder is not None:
        with suppress(OSError, StorageFull):  # a cache that cannot be written is no cache
            save_model(folder, model, network)
            user_cache.remove_oldest(folder)
    return model


def _convert(network: nn.Module, takes: ImageSpec | None, sizes: InputSizes) -> Any:
    from torch.export import Dim, export  # takes most of a second

    ov = openvino()
    fixed = sizes.fixed is not None
    shape = ([takes.channels] if takes else []) + list(sizes.example)
    open_sizes = {0: Dim.DYNAMIC} if fixed else {0: Dim.DYNAMIC, 2: Dim.AUTO, 3: Dim.AUTO}
    with torch.no_grad():
        program = export(_WithoutPadding(network), (torch.zeros(2, *shape),), dynamic_shapes=(open_sizes,))
    model = ov.convert_model(program)
    model.reshape([-1, *shape] if fixed else [-1, shape[0], -1, -1])
    return model


def quantize(
    network: nn.Module,
    takes: ImageSpec | None,
    samples: Sequence[Array],
    size: tuple[int, int] | None = None,
) -> Any:
    """Convert `network` to an `openvino.Model` whose convolutions compute with 8 bits.

    Static quantisation after training (Jacob et al. 2018, section 3; Krishnamoorthi 2018): weights per output
    channel, symmetric, to their largest value; features per tensor, to their extremes in the samples (0.9999
    quantiles were 0.002 dB better on more images of the same kind, and 8 dB worse on hard edges). Sums
    between layers are not quantised, nor are the first and the last of more than four layers, which would
    lose most quality, nor linear maps: OpenVINO 2026.4 gives wrong results for two in a row at some batch
    sizes.

    Args:
        network: in evaluation mode, on the CPU.
        takes: format of the input images; None: vectors.
        samples: typical inputs, of which at most 32 are used: images (H, W, C) uint8 or uint16, cropped to a
            middle part, or vectors (d,) float32.
        size: see `Runner.open`.

    Raises:
        SettingsError: no samples, or unknown input sizes of the network.
        ResourceError: OpenVINO is not installed.
    """
    if not len(samples):
        raise SettingsError("there are no samples to quantise the network with", where="inference.precision")
    sizes = input_sizes(network, takes, size)
    if sizes is None:
        raise SettingsError(f"the input sizes of {type(network).__name__} are unknown", where="size")
    model = convert(network, takes, sizes)
    layers = _weighted_layers(model)
    if len(layers) > 4:
        layers = layers[1:-1]
    sources = {_key(layer.input_value(0)): layer.input_value(0) for layer in layers}
    batches = [_as_batch(sample, takes, sizes) for sample in samples[:_SAMPLES]]
    ranges = _measure_ranges(model, list(sources), batches)
    from openvino import opset13

    rounded = {}
    for key, source in sources.items():
        low, high = (np.float32(end) for end in ranges[key])
        rounded[key] = opset13.fake_quantize(source, low, high, low, high, 256).output(0)
    for layer in layers:
        values = layer.input_value(1).get_node().data
        others = tuple(axis for axis in range(values.ndim) if axis not in _WEIGHTED[layer.get_type_name()])
        most = np.maximum(np.abs(values).max(axis=others, keepdims=True), 1e-12).astype(np.float32)
        weights = opset13.fake_quantize(layer.input_value(1), -most, most, -most, most, 255)
        layer.input(0).replace_source_output(rounded[_key(layer.input_value(0))])
        layer.input(1).replace_source_output(weights.output(0))
    model.validate_nodes_and_infer_types()
    return model


def _weighted_layers(model: Any) -> list[Any]:
    """Return the operations with constant weights, in their order."""
    return [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() in _WEIGHTED and node.input_value(1).get_node().get_type_name() == "Constant"
    ]


def _key(output: Any) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()


def _measure_ranges(
    model: Any, keys: Sequence[tuple[str, int]], batches: Sequence[Array]
) -> dict[tuple[str, int], tuple[float, float]]:
    """Measure the lowest and the highest value of the outputs `keys` of nodes of `model`."""
    openvino()  # before its parts are used, as this prepares it for inference
    from openvino import opset13

    probe = model.clone()
    nodes = {node.get_friendly_name(): node for node in probe.get_ordered_ops()}
    own_outputs = len(probe.outputs)
    probe.add_results([opset13.result(nodes[name].output(index)) for name, index in keys])
    config = {
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = core().compile_model(probe, "CPU", config).create_infer_request()
    extremes = [(0.0, 0.0)] * len(keys)
    for batch in batches:
        outputs = request.infer([batch], share_outputs=True)
        for k, (low, high) in enumerate(extremes):
            values = outputs[own_outputs + k]
            extremes[k] = min(low, float(values.min())), max(high, float(values.max()))
    ranges = {}
    for key, (low, high) in zip(keys, extremes, strict=True):
        most = max(-low, high, 1e-6)
        # With values below zero: symmetric, with 256 levels like int8, the lowest one step further out.
        ranges[key] = (0.0, most) if low >= 0 else (-most, most * 127 / 128)
    return ranges


def _as_batch(sample: Array, takes: ImageSpec | None, sizes: InputSizes) -> Array:
    """Return a sample as the network takes it: (1, C, H, W) or (1, d) float32."""
    if takes is None:
        return np.asarray(sample[None], np.float32)
    step = sizes.multiple
    if sizes.fixed is None:
        side = max(step, _SIDE // step * step)
        top, left = (max(0, (have - side) // 2) for have in sample.shape[:2])
        sample = sample[top : top + side, left : left + side]
    image = mirror(sample[None], step)
    low, high = takes.range
    scaled = image.transpose(0, 3, 1, 2).astype(np.float32) * ((high - low) / np.iinfo(image.dtype).max) + low
    return np.ascontiguousarray(scaled, np.float32)


def save_model(folder: Path, model: Any, network: nn.Module) -> Path:
    """Write a model of `network`, converted or quantised, to `folder`, atomically."""
    ov = openvino()
    new = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.new")  # another process may do the same
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        with storage_errors(new):
            ov.save_model(model, new / _MODEL, compress_to_fp16=False)
        write_json(
            new / _MANIFEST, {"network_sha256": _fingerprint(network), "model_sha256": _model_digest(new)}
        )
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def load_model(folder: Path, network: nn.Module) -> Any:
    """Load the `openvino.Model` in `folder`.

    Raises:
        SettingsError: the model is missing, damaged, implausibly large, or not of `network`.
    """
    limits = {_MODEL: _MAX_TEXT, _WEIGHTS: _MAX_MODEL, _MANIFEST: 4096}
    hint = "delete the folder: the model is then made again"
    try:
        for name, limit in limits.items():
            if (folder / name).stat().st_size > limit:
                raise SettingsError(f"{name} is larger than {limit} bytes", where=str(folder), hint=hint)
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        if manifest != {"network_sha256": _fingerprint(network), "model_sha256": _model_digest(folder)}:
            raise SettingsError(
                "the stored model is damaged, or of another network", where=str(folder), hint=hint
            )
        return core().read_model(folder / _MODEL, folder / _WEIGHTS)
    except (OSError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"the stored model cannot be read ({error})", where=str(folder), hint=hint
        ) from error


def _fingerprint(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def _model_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (_MODEL, _WEIGHTS):
        with open(folder / name, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def openvino() -> Any:
    """Import the module openvino.

    Raises:
        ResourceError: it is not installed.
    """
    # OpenVINO reports its use over the network unless this package is missing.
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise ResourceError(
            "OpenVINO is not installed",
            hint=(
                "install it with pip install openvino, or set inference.backend=torch and a "
                "precision other than int8"
            ),
        ) from error


@cache
def core() -> Any:
    """Return OpenVINO's core, which lives as long as this process.

    On a CPU with AMX a core gives its first thread a stack for signals, and frees it when the core is
    destroyed, in any thread; the next signal, such as Ctrl-C, would then end the process.
    """
    return openvino().Core()
