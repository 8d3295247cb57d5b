"""A checkpoint: everything that a run needs to go on exactly, in one safetensors file.

One file, so that renaming it into place is one atomic act. Tensors are named "net/<network>/<key>",
"ema/<network>/<key>" and "opt/<network>/<parameter>/<key>"; the rest is JSON in the file's header.
There is no random state in it: what is random in a step is a function of (seed, step, rank).
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
    """A checkpoint in memory: tensors by name, and the loop's own state as plain JSON values."""

    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]

    def part(self, kind: str, network: str) -> dict[str, torch.Tensor]:
        """The tensors of one network: `kind` is net, ema or opt."""
        prefix = f"{kind}/{network}/"
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def collect(
    networks: Mapping[str, nn.Module],
    averages: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    state: Mapping[str, Any],
) -> Checkpoint:
    """Gather a checkpoint. The tensors are the live ones: write it before the next step."""
    tensors = {f"net/{n}/{k}": v for n, net in networks.items() for k, v in net.state_dict().items()}
    tensors |= {f"ema/{n}/{k}": v for n, net in averages.items() for k, v in net.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, entry in optimizer.state_dict()["state"].items():
            tensors |= {f"opt/{name}/{index}/{k}": v for k, v in entry.items() if isinstance(v, torch.Tensor)}
    return Checkpoint(tensors, dict(state))


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path` atomically.

    Raises:
        StorageFull: no room; the checkpoint that was there is untouched.
    """
    tensors = {k: v.detach().contiguous() for k, v in checkpoint.tensors.items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"state": json.dumps(checkpoint.state)})


def read(path: Path) -> Checkpoint | None:
    """The checkpoint at `path`, on the CPU; None if there is none.

    Raises:
        TrainingError: there is one, but it is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, state)  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"the checkpoint is damaged: {error}",
            where=str(path),
            hint="move it away to start the run again from its beginning, or give another --name",
        ) from error


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put the tensors of `Checkpoint.part("opt", ...)` back into a freshly made optimizer."""
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split("/", 1)
        entries.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, entry in optimizer.state.items():
        for key, value in entry.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                # Files hold plain layouts; fused kernels walk memory and need that of the parameter.
                entry[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
