"""The device that networks run on, and their precision, memory layout and threads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field

from genray.settings.base import Settings


class DeviceSettings(Settings):
    """Settings of the device. `auto` is the choice measured to be fastest, or known to be safe, on it."""

    gpu: Literal["auto", True, False] = Field("auto", description="train on a GPU (auto: if there is one)")
    precision: Literal["auto", "fp32", "tf32", "bf16"] = Field(
        "auto",
        description=(
            "number format of the computation (auto: bf16 autocast on a GPU that has it, else "
            "tf32; fp32 on a CPU, or bf16 if it has AMX and the networks learn as well with it)"
        ),
    )
    channels_last: Literal["auto", True, False] = Field(
        "auto",
        description=(
            "memory layout channels last (auto: on a GPU, and on a CPU for networks that are faster with it)"
        ),
    )
    fused: bool = Field(True, description="use the fused optimizer kernel, 1.2 times faster steps on a CPU")
    # Modes with CUDA graphs are left out: a network's graph would overwrite outputs that another needs.
    compile: Literal["none", "default", "max-autotune-no-cudagraphs"] = Field(
        "none", description="mode of torch.compile; worth it after minutes of training"
    )
    deterministic: bool = Field(
        True,
        description=(
            "compute deterministically: the same seed gives the same weights; costs some speed on a GPU"
        ),
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads of each worker (null: as many as its CPUs)"
    )


@dataclass(frozen=True)
class Device:
    """A device with precision and memory layout chosen."""

    where: torch.device
    bf16: bool
    memory_format: torch.memory_format
    compile: str | None

    def autocast(self) -> torch.autocast:
        """Return the autocast context of the forward passes."""
        return torch.autocast(self.where.type, dtype=torch.bfloat16, enabled=self.bf16)

    def place(self, network: torch.nn.Module) -> torch.nn.Module:
        """Move `network` to the device, in the chosen memory layout."""
        return network.to(self.where).to(memory_format=self.memory_format)


def use_gpu(settings: DeviceSettings, gpus: float) -> bool:
    """Return whether to train on a GPU if `gpus` of them are available."""
    return gpus > 0 if settings.gpu == "auto" else settings.gpu


def open_device(
    settings: DeviceSettings,
    *,
    gpu: bool,
    index: int = 0,
    cpus: float | None = None,
    last_on_cpu: bool = False,
    bf16_on_cpu: bool = False,
) -> Device:
    """Set up this process for its device, and return the device.

    Args:
        settings: settings of the device.
        gpu: whether to use a GPU.
        index: index of the GPU among the visible ones.
        cpus: CPUs that this worker may use; None: all CPUs of the machine.
        last_on_cpu: whether the recipe's networks are faster in channels-last layout on a CPU.
        bf16_on_cpu: whether they are trained in bf16 on a CPU that multiplies it in hardware.
    """
    if settings.threads or cpus:
        torch.set_num_threads(settings.threads or max(1, int(cpus or 1)))
    device = torch.device("cuda", index) if gpu else torch.device("cpu")
    bf16 = settings.precision == "bf16"
    if not gpu and settings.precision == "auto":
        bf16 = bf16_on_cpu and _has_amx()
    if gpu:
        torch.cuda.set_device(device)
        if settings.precision == "auto":
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        tf32 = settings.precision != "fp32"
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = not settings.deterministic
        if settings.deterministic:
            # cuBLAS reads this when it is first used.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
            # Filling takes time, and no code here reads uninitialised memory. (torch ships no type for it.)
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    channels_last = settings.channels_last
    if channels_last == "auto":
        channels_last = gpu or last_on_cpu
    return Device(
        where=device,
        bf16=bf16,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        compile=None if settings.compile == "none" else settings.compile,
    )


def _has_amx() -> bool:
    """Return whether this CPU multiplies matrices of bf16 in hardware."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
