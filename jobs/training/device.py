"""What a network runs on and in which form: device, precision, memory layout, threads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field

from genray.settings.base import Settings


class DeviceSettings(Settings):
    """Settings of the device. `auto` is the choice that was measured fastest, or is known safe, there."""

    gpu: Literal["auto", True, False] = Field("auto", description="auto: if there is one")
    precision: Literal["auto", "fp32", "tf32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast on a GPU that has it, else tf32; fp32 on a CPU"
    )
    channels_last: Literal["auto", True, False] = Field(
        "auto", description="memory layout; auto: on a GPU, and on a CPU for networks that are faster so"
    )
    fused: bool = Field(True, description="the fused optimizer kernel: 1.2 times faster steps on a CPU")
    # Modes with CUDA graphs are left out: one network's graph would overwrite what another still needs.
    compile: Literal["none", "default", "max-autotune-no-cudagraphs"] = Field(
        "none", description="torch.compile mode; pays off after minutes"
    )
    deterministic: bool = Field(True, description="same seed, same weights; on a GPU costs some speed")
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads per worker; null: the worker's CPUs"
    )


@dataclass(frozen=True)
class Device:
    """A resolved device."""

    where: torch.device
    bf16: bool
    memory_format: torch.memory_format
    compile: str | None

    def autocast(self) -> torch.autocast:
        """The precision of the forward passes."""
        return torch.autocast(self.where.type, dtype=torch.bfloat16, enabled=self.bf16)

    def place(self, network: torch.nn.Module) -> torch.nn.Module:
        """Move `network` here, in the chosen layout."""
        return network.to(self.where).to(memory_format=self.memory_format)


def use_gpu(settings: DeviceSettings, gpus: float) -> bool:
    """Whether to train on a GPU where there are `gpus` of them."""
    return gpus > 0 if settings.gpu == "auto" else settings.gpu


def open_device(
    settings: DeviceSettings,
    *,
    gpu: bool,
    index: int = 0,
    cpus: float | None = None,
    last_on_cpu: bool = False,
) -> Device:
    """Set this process up for its device and describe it.

    Args:
        settings: the choices.
        gpu: whether to use a GPU.
        index: which of the visible ones.
        cpus: CPUs that this worker may use; None: all of the machine's.
        last_on_cpu: whether the recipe's networks are faster channels last on a CPU.
    """
    if settings.threads or cpus:
        torch.set_num_threads(settings.threads or max(1, int(cpus or 1)))
    device = torch.device("cuda", index) if gpu else torch.device("cpu")
    bf16 = settings.precision == "bf16"
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
            # Costs, and nothing here reads memory that was not written. (torch ships no type for it.)
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
