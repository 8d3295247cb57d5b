"""A checkpoint: everything that a run needs to resume exactly, in one safetensors file.

It is one file, so that it is replaced by one atomic rename. Tensors are named "net/<network>/<key>",
"ema/<network>/<key>" and "opt/<network>/<parameter>/<key>"; the rest is JSON in the file's header.
It stores no random state: the random numbers of a step are a function of (seed, step, rank).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim import Optimizer

from genray.errors import TrainingError
from genray.io.files import atomic_write


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: tensors by name, and the loop's state as plain JSON values."""

    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]

    def part(self, kind: str, network: str) -> dict[str, torch.Tensor]:
        """Return the tensors of one network; `kind` is net, ema or opt."""
        prefix = f"{kind}/{network}/"
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def collect(
    networks: Mapping[str, nn.Module],
    averages: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    state: Mapping[str, Any],
) -> Checkpoint:
    """Collect a checkpoint. Its tensors are not copied: write it before the next step."""
    tensors = {f"net/{n}/{k}": v for n, net in networks.items() for k, v in net.state_dict().items()}
    tensors |= {f"ema/{n}/{k}": v for n, net in averages.items() for k, v in net.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, entry in optimizer.state_dict()["state"].items():
            tensors |= {f"opt/{name}/{index}/{k}": v for k, v in entry.items() if isinstance(v, torch.Tensor)}
    return Checkpoint(tensors, dict(state))


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path` atomically.

    Raises:
        StorageFull: no space; the previous checkpoint is unchanged.
    """
    tensors = {k: v.detach().contiguous() for k, v in checkpoint.tensors.items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"state": json.dumps(checkpoint.state)})


def read(path: Path) -> Checkpoint | None:
    """Read the checkpoint at `path` to the CPU; returns None if there is none.

    Raises:
        TrainingError: the checkpoint is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, state)  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"the checkpoint is damaged and cannot be read ({error})",
            where=str(path),
            hint="move the file away to restart the run from the beginning, or give another --name",
        ) from error


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load the tensors of `Checkpoint.part("opt", ...)` into a new optimizer."""
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split("/", 1)
        entries.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, entry in optimizer.state.items():
        for key, value in entry.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                # Files store contiguous tensors; fused kernels need the memory layout of the parameter.
                entry[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
