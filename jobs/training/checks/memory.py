"""Memory that a training needs, and what this machine has."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from genray.errors import SettingsError
from genray.models.summary import NetworkSummary
from genray.text import amount

_VALUE = 4  # bytes of a float32
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_MOST_SHARE = 0.9  # share of the memory from which on it is short


@dataclass(frozen=True)
class TrainingMemory:
    """Memory of one worker, in bytes.

    Attributes:
        weights: weights, gradients, the two means of Adam, and the moving averages.
        features: features of one batch that the backward pass needs.
        available: memory of the GPU or the machine that it is trained on.
        where: "GPU" or "machine".
    """

    weights: int
    features: int
    available: int
    where: str

    @classmethod
    def of(
        cls, summaries: Mapping[str, NetworkSummary], averaged: Collection[str], *, gpu: bool
    ) -> TrainingMemory:
        """Return the memory for networks on this machine.

        Args:
            summaries: their layers, called with one batch.
            averaged: names of those with moving averages.
            gpu: whether to train on a GPU if there is one.
        """
        weights = sum(
            summary.parameters * _VALUE * (5 if name in averaged else 4)
            for name, summary in summaries.items()
        )
        features = sum(summary.saved_bytes for summary in summaries.values())
        gpu = gpu and torch.cuda.is_available()
        available = torch.cuda.get_device_properties(0).total_memory if gpu else machine_memory()
        return cls(weights, features, available, "GPU" if gpu else "machine")

    @property
    def text(self) -> str:
        """The need in one line, for a person."""
        short = (
            f"; this {self.where} has {amount(self.available)}: lower loop.batch_size or data.size"
            if self.weights + self.features > _MOST_SHARE * self.available
            else ""
        )
        return (
            f"memory to train: about {amount(self.weights + self.features)} for each worker (weights, "
            f"gradients and optimizer {amount(self.weights)}, features of a batch "
            f"{amount(self.features)}){short}"
        )

    def check(self) -> None:
        """Raise if not even the weights fit.

        Raises:
            SettingsError: they do not.
        """
        if self.weights > self.available:
            raise SettingsError(
                f"the network needs {amount(self.weights)} for weights, gradients and optimizer, and "
                f"this {self.where} has {amount(self.available)}",
                where="data.size",
                hint="lower data.size, or choose a smaller network (model.kind=conv, fewer filters)",
            )


def machine_memory() -> int:
    """Return the memory that this process may use, in bytes: the machine's, or the limit of its container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        return min(total, int(_CGROUP_LIMIT.read_text()))
    return total
