"""Runners of networks: arrays in, arrays out, by the fastest way whose result equals PyTorch's."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn

from genray.bundle import ImageSpec
from genray.errors import ResourceError, SettingsError
from genray.inference.accuracy import ImageDifference, Precision, VectorDifference, compare
from genray.inference.openvino import convert, core, load_model
from genray.inference.sizes import InputSizes, input_sizes, mirror
from genray.settings.base import Settings

Array = NDArray[Any]

_STATIC_AFTER, _STATIC_MODELS = 16, 4  # batches of a shape after which compiling for it is worthwhile
_MOST_NOTES = 20


class InferenceSettings(Settings):
    """Settings of engine and precision."""

    backend: Literal["auto", "torch", "openvino"] = Field(
        "auto",
        description=(
            "engine that runs the network (auto: OpenVINO on a CPU if it is installed and its "
            "result is that of PyTorch, else PyTorch)"
        ),
    )
    precision: Precision = Field(
        "fp32",
        description=(
            "number format of the computation (bf16: for CPUs with AMX and for GPUs; int8: for "
            "CPUs, quantised on a sample of the images)"
        ),
    )
    compile: bool = Field(
        False,
        description="compile the network by torch.compile, on a GPU; worth it from thousands of images on",
    )

    @model_validator(mode="after")
    def _int8_is_openvino(self) -> InferenceSettings:
        if self.precision == "int8" and self.backend == "torch":
            raise ValueError("precision int8 needs backend openvino or auto")
        return self


@dataclass(eq=False)
class Runner:
    """Runs a network on batches of images or vectors.

    Images are (N, H, W, C) uint8 or uint16, of any size that the network takes; vectors (N, d) float32.
    For restorers, images of sizes that are not multiples of theirs are mirrored, as they do it themselves.

    With OpenVINO one graph goes from bytes to bytes for every size; frequent sizes get their own. int8
    compiles one graph for each size, as OpenVINO 2026.4 gives wrong results for some quantised convolutions
    of dynamic size. A graph is only used if its result equals PyTorch's, to one level of 255 (bf16 and int8:
    to 30 dB): the first is checked with a made-up image, those of one size with their first batch.

    Not thread-safe: use one runner per thread.

    Attributes:
        notes: what was chosen, and why.
        check: difference of OpenVINO's result for the made-up image from PyTorch's; None: not tried.
    """

    torch_network: _TorchNetwork
    precision: Precision
    sizes: InputSizes | None
    openvino_network: _OpenVinoNetwork | None = None
    notes: list[str] = field(default_factory=list)
    check: ImageDifference | VectorDifference | None = None

    @classmethod
    def open(
        cls,
        network: nn.Module,
        takes: ImageSpec | None,
        gives: ImageSpec | None,
        settings: InferenceSettings,
        *,
        gpu: bool = False,
        threads: int = 1,
        size: tuple[int, int] | None = None,
        quantized: Path | None = None,
    ) -> Runner:
        """Choose the engine for a network, and compile it. On a CPU, `threads` is set for all of PyTorch.

        Args:
            network: network in evaluation mode, on the CPU; its memory layout is changed, or it moves to the
                GPU.
            takes, gives: formats of the input and output images; None: vectors.
            settings: engine and precision.
            gpu: run on the current GPU, by PyTorch.
            threads: CPU threads.
            size: height and width, for a network that takes only these and does not declare them.
            quantized: folder that `genray.inference.openvino.save_model` wrote for this network, for
                int8.

        Raises:
            SettingsError: int8 without `quantized`, with that of another network, or on a GPU.
            ResourceError: OpenVINO was requested, but is missing or does not take the network.
        """
        if settings.precision == "int8" and (quantized is None or gpu):
            why = "precision int8 is only for CPUs" if gpu else "precision int8 needs a quantised network"
            raise SettingsError(why, where="inference.precision")
        if not gpu:
            torch.set_num_threads(threads)
        device = torch.device("cuda" if gpu else "cpu")
        network = network.to(device).to(memory_format=torch.channels_last).eval()
        compiled: Any = torch.compile(network) if settings.compile and gpu else network
        runner = cls(
            _TorchNetwork(compiled, device, takes, gives),
            settings.precision,
            input_sizes(network, takes, size),
        )
        if gpu or settings.backend == "torch":
            return runner
        problem = runner._try_openvino(network, threads, quantized)
        if problem is not None:
            if settings.backend == "openvino" or settings.precision == "int8":
                hint = "set inference.backend=auto, with precision fp32 or bf16"
                raise ResourceError(problem, where="inference.backend", hint=hint)
            runner.openvino_network = None
            runner.notes.append(f"PyTorch: {problem}")
        return runner

    @property
    def backend(self) -> Literal["torch", "openvino"]:
        """Name of the engine that runs the network."""
        return "torch" if self.openvino_network is None else "openvino"

    def __call__(self, batch: Array) -> Array:
        """Run the network on `batch`; returns images of its type (uint8 for vectors), rounded, or vectors."""
        self._check_batch(batch)
        if self.openvino_network is None:
            return self.torch_network.run(batch, self.precision)
        sizes = self.sizes
        padded = mirror(batch, sizes.multiple) if sizes and sizes.mirrored else batch
        result = self.openvino_network.run(padded)
        if result is None:
            return self.torch_network.run(batch, "fp32")
        if padded is batch:
            return result
        (height, width), (padded_height, padded_width) = batch.shape[1:3], padded.shape[1:3]
        top, left = (padded_height - height) // 2, (padded_width - width) // 2
        return np.ascontiguousarray(result[:, top : top + height, left : left + width])

    def _check_batch(self, batch: Array) -> None:
        """Raise a ValueError unless the network takes `batch`."""
        takes = self.torch_network.takes
        if takes is None:
            if batch.ndim != 2 or batch.dtype != np.float32:
                raise ValueError(f"vectors must be (N, d) float32, not {batch.shape} {batch.dtype}")
        elif batch.ndim != 4 or batch.shape[3] != takes.channels or batch.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"images must be (N, H, W, {takes.channels}) uint8 or uint16, not {batch.shape} {batch.dtype}"
            )
        if self.sizes is not None and not self.sizes.takes(batch.shape[1:3]):
            raise ValueError(f"the network takes {self.sizes}, not {batch.shape[1:3]}")

    def _try_openvino(self, network: nn.Module, threads: int, quantized: Path | None) -> str | None:
        """Use OpenVINO if it is installed, takes the network and gives PyTorch's result; else return the
        reason."""
        precision = self.precision
        takes, gives = self.torch_network.takes, self.torch_network.gives
        try:
            core()
        except ResourceError as error:
            return error.what
        if self.sizes is None:
            return f"the input sizes of {type(network).__name__} are unknown"
        has_bf16 = "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and not has_bf16:
            self.notes.append("fp32 is used, as this CPU computes bf16 slower")
        config = {
            # By default the precision is bf16 on some CPUs.
            "INFERENCE_PRECISION_HINT": "bf16" if has_bf16 and precision != "fp32" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # otherwise every process is pinned to the same cores
        }
        try:
            if quantized is not None and precision == "int8":
                model = load_model(quantized, network)
            else:
                model = convert(network, takes, self.sizes)
            sample = _made_up_batch(takes, self.sizes)
            exact = self.torch_network.run(sample, "fp32")
            self.openvino_network = _OpenVinoNetwork(
                model, takes, gives, config, open_sizes=precision != "int8", judge=self._judge
            )
            result = self(sample)
            self.check = compare(exact, result)
            agrees = self._agrees(exact, result, sample.shape)
        except SettingsError:
            raise
        except Exception as error:  # exporters and compilers raise many types of errors
            why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            return f"OpenVINO does not take the network ({why[:200]})"
        if not agrees:
            return f"OpenVINO's result differs from PyTorch's by {self.check}"
        # A made-up image tells too little about int8: its loss is measured on the user's images.
        apart = "" if precision == "int8" else f"; random pixels: differs from PyTorch's fp32 by {self.check}"
        self.notes.append(f"OpenVINO {precision}{apart}")
        return None

    def _judge(self, batch: Array, result: Array) -> bool:
        """Return whether OpenVINO's result for a batch is close enough to PyTorch's."""
        return self._agrees(self.torch_network.run(batch, "fp32"), result, batch.shape)

    def _agrees(self, exact: Array, result: Array, shape: tuple[int, ...]) -> bool:
        difference = compare(exact, result)
        close = difference.is_close(self.precision)
        if not close and len(self.notes) < _MOST_NOTES:
            self.notes.append(
                f"OpenVINO is not used for {shape}, as its result differs from PyTorch's: {difference}"
            )
        return close


@dataclass(frozen=True)
class _TorchNetwork:
    """Runs a network by PyTorch, from images (N, H, W, C) uint8 or uint16 to the same, or vectors on either
    side."""

    network: Callable[[torch.Tensor], torch.Tensor]
    device: torch.device
    takes: ImageSpec | None
    gives: ImageSpec | None

    def run(self, batch: Array, precision: Precision) -> Array:
        top = np.iinfo(batch.dtype).max if self.takes else 255
        tensor = torch.from_numpy(np.require(batch, requirements=["C", "W"]))
        if (
            self.device.type == "cuda"
        ):  # bytes are transferred, not floats, and asynchronously from pinned memory
            tensor = tensor.pin_memory().to(self.device, non_blocking=True)
        bf16 = torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")
        with torch.inference_mode(), bf16:
            if self.takes is not None:
                low, high = self.takes.range
                tensor = tensor.permute(0, 3, 1, 2).float().div_(top / (high - low)).add_(low)
            result = self.network(tensor).float()
            if self.gives is not None:
                low, high = self.gives.range
                result = result.sub(low).div_(high - low).clamp_(0.0, 1.0).permute(0, 2, 3, 1)
                result = result.mul(top).round_().to(torch.uint8 if top == 255 else torch.uint16)
            return result.contiguous().cpu().numpy()


@dataclass(eq=False)
class _OpenVinoNetwork:
    """Runs a network by OpenVINO, as graphs from bytes to bytes, one for each type of pixels."""

    model: Any
    takes: ImageSpec | None
    gives: ImageSpec | None
    config: Mapping[str, Any]
    open_sizes: bool
    judge: Callable[[Array, Array], bool]
    graphs: dict[type[np.generic], _Graph] = field(default_factory=dict)

    def run(self, batch: Array) -> Array | None:
        """Return the result; None if there is no valid graph for this shape."""
        kind = batch.dtype.type
        if kind not in self.graphs:
            model = _with_pixels(self.model, self.takes, self.gives, batch.dtype)
            self.graphs[kind] = _Graph.open(model, self.config, self.judge, open_sizes=self.open_sizes)
        return self.graphs[kind].run(batch)


@dataclass(eq=False)
class _Graph:
    """A model compiled for every shape; compiled for one shape it is up to 1.3 times as fast, which costs
    the time of some batches. Frequent shapes get their own model, checked by `judge`; without one for every
    shape, all shapes do."""

    model: Any
    config: Mapping[str, Any]
    judge: Callable[[Array, Array], bool]
    open_request: Any = None  # for every shape
    batches: Counter[tuple[int, ...]] = field(default_factory=Counter)  # by shape
    requests: OrderedDict[tuple[int, ...], Any] = field(default_factory=OrderedDict)  # for one shape each

    @classmethod
    def open(
        cls,
        model: Any,
        config: Mapping[str, Any],
        judge: Callable[[Array, Array], bool],
        *,
        open_sizes: bool,
    ) -> _Graph:
        """Compile `model` for every shape, if it is valid with `open_sizes`."""
        return cls(model, config, judge, _compile(model, config) if open_sizes else None)

    def run(self, batch: Array) -> Array | None:
        """Return the result; None if there is no valid model of this shape."""
        shape = batch.shape
        self.batches[shape] += 1
        if shape in self.requests:
            self.requests.move_to_end(shape)
        elif self.open_request is None or self.batches[shape] >= _STATIC_AFTER:
            model = self.model.clone()
            model.reshape(list(shape))
            request = _compile(model, self.config)
            is_right = self.judge(batch, request.infer([batch], share_inputs=True)[0])
            self.requests[shape] = request if is_right else self.open_request
            if len(self.requests) > _STATIC_MODELS:
                del self.batches[self.requests.popitem(last=False)[0]]
        request = self.requests.get(shape, self.open_request)
        return None if request is None else cast(Array, request.infer([batch], share_inputs=True)[0])


def _compile(model: Any, config: Mapping[str, Any]) -> Any:
    return core().compile_model(model, "CPU", dict(config)).create_infer_request()


def _made_up_batch(takes: ImageSpec | None, sizes: InputSizes) -> Array:
    """Return noise on random squares, or random vectors. Free sizes are odd, so that mirroring is checked,
    too."""
    rng = np.random.default_rng(0)
    if takes is None:
        return rng.standard_normal((2, *sizes.example), np.float32)
    height, width = (61, 53) if sizes.mirrored else sizes.fixed or (sizes.multiple,) * 2
    squares = rng.uniform(20, 235, (2, height // 8 + 1, width // 8 + 1, takes.channels))
    image = squares.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return (image + rng.normal(0, 10, image.shape)).clip(0, 255).astype(np.uint8)


def _with_pixels(model: Any, takes: ImageSpec | None, gives: ImageSpec | None, dtype: np.dtype[Any]) -> Any:
    """Return `model` from (N, H, W, C) of `dtype` to the same."""
    from openvino import Layout, Type, opset13
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(model.clone())
    kind, top = (Type(dtype), float(np.iinfo(dtype).max)) if takes else (Type.u8, 255.0)
    if takes is not None:
        low, high = takes.range
        scale, shift = np.float32((high - low) / top), np.float32(low)
        steps.input().tensor().set_element_type(kind).set_layout(Layout("NHWC"))
        steps.input().model().set_layout(Layout("NCHW"))
        before = steps.input().preprocess().convert_element_type(Type.f32)
        before.custom(lambda x: opset13.add(opset13.multiply(x, scale), shift).output(0))
    if gives is not None:
        black, white = gives.range

        def to_levels(x: Any) -> Any:
            x = opset13.multiply(opset13.subtract(x, np.float32(black)), np.float32(1 / (white - black)))
            x = opset13.clamp(x, 0.0, 1.0)
            x = opset13.round(opset13.multiply(x, np.float32(top)), "half_to_even")
            return x.output(0)

        steps.output().model().set_layout(Layout("NCHW"))
        after = steps.output().postprocess().custom(to_levels).convert_layout(Layout("NHWC"))
        after.convert_element_type(kind)
    return steps.build()
