"""Networks in use: arrays in, arrays out, by the fastest way whose result is that of PyTorch."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn

from genray.bundle import ImageSpec
from genray.errors import ResourceError, SettingsError
from genray.inference.openvino import converted, core, difference, load_quantized, said
from genray.inference.tiling import Sizes, mirrored, sizes
from genray.settings.base import Settings

Array = NDArray[Any]

_STATIC_AFTER, _STATIC_MODELS = 16, 4  # after so many batches of a shape compiling for it pays


class InferenceSettings(Settings):
    """Settings of how a network is run."""

    backend: Literal["auto", "torch", "openvino"] = Field(
        "auto", description="auto: OpenVINO on a CPU if it is installed and gives what PyTorch gives"
    )
    precision: Literal["fp32", "bf16", "int8"] = Field(
        "fp32",
        description="bf16: for CPUs with AMX and for GPUs; int8: for CPUs, from a sample of the images",
    )
    compile: bool = Field(False, description="torch.compile, for GPUs; it pays after thousands of images")

    @model_validator(mode="after")
    def _int8_is_openvino(self) -> InferenceSettings:
        if self.precision == "int8" and self.backend == "torch":
            raise ValueError("precision int8 needs backend openvino")
        return self


class Runner:
    """A network for batches of images or vectors.

    Images are (N, H, W, C) uint8 or uint16, of any size that the network takes; vectors (N, d) float32.
    Restorers get other sizes than multiples of theirs mirrored, as they do it themselves.

    With OpenVINO all from bytes to bytes is one graph, for every size; a size that comes often gets one of
    its own. int8 compiles one for each size: OpenVINO 2026.4 gives wrong results for some quantised
    convolutions of open sizes. No graph is used whose result is not PyTorch's, to one level of 255 (bf16 and
    int8: to 30 dB): the first is judged by a made-up image, those of a size by the first batch that they get.

    `notes` says what was chosen and why; `check` how far off the made-up image was: `levels`, the largest
    difference of 255, and `psnr` in dB; for vectors `error`, relative to the largest value.

    Not thread-safe: a runner for each thread. On the CPU `threads` is set for all of PyTorch.

    Args:
        network: in evaluation mode, on the CPU; it is laid out anew, or moved to the GPU.
        takes, gives: the images that go in and come out; None: vectors.
        settings: how to run it.
        gpu: run on the current GPU, by PyTorch.
        threads: threads of the CPU.
        size: height and width, of a network that takes these alone and does not say so itself.
        quantized: folder that `genray.inference.openvino.save_quantized` wrote of this network, for int8.

    Raises:
        SettingsError: int8 without, or with another network's, `quantized`, or on a GPU.
        ResourceError: OpenVINO was asked for, and is missing or does not take the network.
    """

    def __init__(
        self,
        network: nn.Module,
        takes: ImageSpec | None,
        gives: ImageSpec | None,
        settings: InferenceSettings,
        *,
        gpu: bool = False,
        threads: int = 1,
        size: tuple[int, int] | None = None,
        quantized: Path | None = None,
    ) -> None:
        self.notes: list[str] = []
        self.check: Mapping[str, float] = {}
        self.backend: Literal["torch", "openvino"] = "torch"
        self._takes, self._gives, self._settings = takes, gives, settings
        self._sizes = sizes(network, takes, size)
        self._device = torch.device("cuda" if gpu else "cpu")
        if settings.precision == "int8" and (quantized is None or gpu):
            why = "int8 is for CPUs" if gpu else "int8 needs a quantised network"
            raise SettingsError(why, where="inference.precision")
        if not gpu:
            torch.set_num_threads(threads)
        network = network.to(self._device).to(memory_format=torch.channels_last).eval()
        self._network = torch.compile(network) if settings.compile and gpu else network
        self._graphs: dict[tuple[type[np.generic], bool], _Graph] = {}
        if not gpu and settings.backend != "torch":
            self._open(network, threads, quantized)

    def __call__(self, batch: Array) -> Array:
        """Images of the type of `batch` (uint8 for vectors), rounded; or vectors."""
        return self._run(batch, unit=False)

    def unit(self, batch: Array) -> NDArray[np.float32]:
        """Images (N, H, W, C) float32, from black 0 to white 1, not rounded; or vectors."""
        return self._run(batch, unit=True)

    def _run(self, batch: Array, *, unit: bool) -> Array:
        takes, taken = self._takes, self._sizes
        if takes is None:
            if batch.ndim != 2 or batch.dtype != np.float32:
                raise ValueError(f"vectors must be (N, d) float32, not {batch.shape} {batch.dtype}")
        elif batch.ndim != 4 or batch.shape[3] != takes.channels or batch.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"images must be (N, H, W, {takes.channels}) uint8 or uint16, not {batch.shape} {batch.dtype}"
            )
        if taken is not None and not taken.takes(batch.shape[1:3]):
            raise ValueError(f"the network takes {taken}, not {batch.shape[1:3]}")
        if self.backend == "torch":
            return self._by_torch(batch, unit, self._settings.precision)
        padded = mirrored(batch, taken.multiple) if taken and taken.mirrored else batch
        made = self._graph(batch.dtype, unit)(padded)
        if made is None:
            return self._by_torch(batch, unit, "fp32")
        if padded is batch:
            return made
        (height, width), (high, wide) = batch.shape[1:3], padded.shape[1:3]
        top, left = (high - height) // 2, (wide - width) // 2
        return np.ascontiguousarray(made[:, top : top + height, left : left + width])

    def _by_torch(self, batch: Array, unit: bool, precision: str) -> Array:
        top = np.iinfo(batch.dtype).max if self._takes else 255
        tensor = torch.from_numpy(np.require(batch, requirements=["C", "W"]))
        if self._device.type == "cuda":  # bytes travel, not floats; from pinned memory nothing waits for them
            tensor = tensor.pin_memory().to(self._device, non_blocking=True)
        bf16 = torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bf16")
        with torch.inference_mode(), bf16:
            if self._takes is not None:
                low, high = self._takes.range
                tensor = tensor.permute(0, 3, 1, 2).float().div_(top / (high - low)).add_(low)
            made = self._network(tensor).float()
            if self._gives is not None:
                low, high = self._gives.range
                made = made.sub(low).div_(high - low).clamp_(0.0, 1.0).permute(0, 2, 3, 1)
                if not unit:
                    made = made.mul(top).round_().to(torch.uint8 if top == 255 else torch.uint16)
            return cast(Array, made.contiguous().cpu().numpy())

    def _graph(self, dtype: np.dtype[Any], unit: bool) -> _Graph:
        key = (dtype.type, unit)
        if key not in self._graphs:
            model = _with_pixels(self._model, self._takes, self._gives, dtype, unit)

            def judge(batch: Array, made: Array) -> bool:
                return self._agrees(self._by_torch(batch, unit, "fp32"), made, batch.shape)

            self._graphs[key] = _Graph(model, self._config, judge, self._settings.precision != "int8")
        return self._graphs[key]

    def _agrees(self, exact: Array, made: Array, shape: tuple[int, ...]) -> bool:
        """Whether `made` is close enough to what PyTorch gives, by the precision that was asked for."""
        off = difference(exact, made)
        if self._settings.precision == "fp32":
            close = off.get("levels", 0.0) <= 1 and off.get("error", 0.0) <= 1e-3
        else:
            close = off.get("psnr", 100.0) >= 30 and off.get("error", 0.0) <= 0.1
        if not close and len(self.notes) < 20:
            self.notes.append(f"OpenVINO's result is not PyTorch's for {shape}, and not used: {said(off)}")
        return close

    def _open(self, network: nn.Module, threads: int, quantized: Path | None) -> None:
        """Use OpenVINO if it is there, takes the network and gives what PyTorch gives."""
        precision, taken = self._settings.precision, self._sizes
        try:
            core()
        except ResourceError as error:
            return self._refuse(error.what)
        if taken is None:
            return self._refuse(f"it is not known which sizes {type(network).__name__} takes")
        fast = "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and not fast:
            self.notes.append("this CPU computes bf16 slower than fp32: fp32 is used")
        self._config = {
            # Left alone it is bf16 on some CPUs.
            "INFERENCE_PRECISION_HINT": "bf16" if fast and precision != "fp32" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # it pins every process to the same cores
        }
        try:
            if quantized is not None and precision == "int8":
                self._model = load_quantized(quantized, network)
            else:
                self._model = converted(network, self._takes, taken)
            sample = self._sample(taken)
            exact = self._by_torch(sample, unit=False, precision="fp32")
            self.backend = "openvino"
            made = self(sample)
            self.check = difference(exact, made)
            agrees = self._agrees(exact, made, sample.shape)
        except SettingsError:
            raise
        except Exception as error:  # exporters and compilers refuse in many ways
            why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            return self._refuse(f"OpenVINO does not take the network: {why[:200]}")
        if not agrees:
            return self._refuse(f"OpenVINO's result is not PyTorch's: {said(self.check)}")
        # Of int8 a made-up image says too little: what it costs is measured on the user's own.
        apart = "" if precision == "int8" else f"; apart from PyTorch's fp32 on noise: {said(self.check)}"
        self.notes.append(f"OpenVINO {precision}{apart}")

    def _refuse(self, why: str) -> None:
        if self._settings.backend == "openvino" or self._settings.precision == "int8":
            raise ResourceError(why, where="inference.backend", hint="set it to auto, with fp32 or bf16")
        self.backend = "torch"
        self.notes.append(f"PyTorch: {why}")

    def _sample(self, taken: Sizes) -> Array:
        """A made-up batch: noise on random squares, or random vectors. Sizes are odd where they are free, so
        that mirroring is checked too."""
        rng = np.random.default_rng(0)
        if self._takes is None:
            return rng.standard_normal((2, *taken.example), np.float32)
        high, wide = (61, 53) if taken.mirrored else taken.fixed or (taken.multiple,) * 2
        squares = rng.uniform(20, 235, (2, high // 8 + 1, wide // 8 + 1, self._takes.channels))
        image = squares.repeat(8, axis=1).repeat(8, axis=2)[:, :high, :wide]
        return (image + rng.normal(0, 10, image.shape)).clip(0, 255).astype(np.uint8)


def _with_pixels(
    model: Any, takes: ImageSpec | None, gives: ImageSpec | None, dtype: np.dtype[Any], unit: bool
) -> Any:
    """`model` from (N, H, W, C) of `dtype` to the same, or float32 in [0, 1] (`unit`)."""
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

        def whole(x: Any) -> Any:
            x = opset13.multiply(opset13.subtract(x, np.float32(black)), np.float32(1 / (white - black)))
            x = opset13.clamp(x, 0.0, 1.0)
            if not unit:
                x = opset13.round(opset13.multiply(x, np.float32(top)), "half_to_even")
            return x.output(0)

        steps.output().model().set_layout(Layout("NCHW"))
        after = steps.output().postprocess().custom(whole).convert_layout(Layout("NHWC"))
        if not unit:
            after.convert_element_type(kind)
    return steps.build()


class _Graph:
    """A model for every shape; compiled for one alone it is up to 1.3 times as fast, which costs the time of
    some batches. Shapes that come often get one, which `judge` is asked about; without `open_shapes` all."""

    def __init__(
        self, model: Any, config: Mapping[str, Any], judge: Callable[[Array, Array], bool], open_shapes: bool
    ) -> None:
        self._model, self._config, self._judge, self._core = model, config, judge, core()
        self._any = self._request(model) if open_shapes else None
        self._seen: Counter[tuple[int, ...]] = Counter()
        self._static: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def __call__(self, batch: Array) -> Array | None:
        """The result, or None: there is no right model of this shape."""
        shape = batch.shape
        self._seen[shape] += 1
        if shape in self._static:
            self._static.move_to_end(shape)
        elif self._any is None or self._seen[shape] >= _STATIC_AFTER:
            model = self._model.clone()
            model.reshape(list(shape))
            request = self._request(model)
            right = self._judge(batch, request.infer([batch], share_inputs=True)[0])
            self._static[shape] = request if right else self._any
            if len(self._static) > _STATIC_MODELS:
                del self._seen[self._static.popitem(last=False)[0]]
        request = self._static.get(shape, self._any)
        return None if request is None else cast(Array, request.infer([batch], share_inputs=True)[0])

    def _request(self, model: Any) -> Any:
        return self._core.compile_model(model, "CPU", dict(self._config)).create_infer_request()
