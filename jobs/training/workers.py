"""One worker of a training: its rank, and collective operations with the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from genray.datasets.loader import WorkerShare
from genray.errors import GenrayError, TrainingError

T = TypeVar("T")


class TrainingWorker:
    """Rank and size of the group, and its collective operations, which are free with one worker."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.distributed = distributed.is_initialized()
        self.rank = distributed.get_rank() if self.distributed else 0
        self.world = distributed.get_world_size() if self.distributed else 1
        self.is_leader = self.rank == 0
        self.share = WorkerShare(self.rank, self.world)

    def max(self, *values: int) -> list[int]:
        """Return the largest of each of `values` over the workers."""
        if not self.distributed:
            return list(values)
        tensor = torch.tensor(values, device=self._device)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return [int(value) for value in tensor]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum `values` over the workers, in place."""
        if self.distributed:
            distributed.all_reduce(values)
        return values

    def gather(self, items: list[T]) -> list[T]:
        """Return the items of all workers, in the order of their ranks."""
        if not self.distributed:
            return items
        lists: list[list[T]] = [[] for _ in range(self.world)]
        distributed.all_gather_object(lists, items)
        return [item for part in lists for item in part]

    def on_leader(self, work: Callable[[], Any]) -> None:
        """Do `work` on rank 0 while the others wait. If it fails, all ranks raise its error: a rank that
        continued would wait for the others without end."""
        shared: list[GenrayError | None] = [None]
        if self.is_leader:
            try:
                work()
            except GenrayError as problem:
                shared[0] = problem
        if self.distributed:
            distributed.broadcast_object_list(shared, src=0)
        error = shared[0]
        if error is not None:
            error.agreed = True
            raise error

    def check_same(self, value: object) -> None:
        """Raise on all workers if their `value` is not the same.

        Raises:
            TrainingError: the values differ, so that the workers would not take the same steps.
        """
        values = self.gather([value])
        if any(other != values[0] for other in values):
            error = TrainingError(
                f"the workers do not see the same data and checkpoint: {values}",
                hint="data.path and runs must be the same, readable and up to date on every node",
            )
            error.agreed = True
            raise error

    def share_buffers(self, network: nn.Module) -> None:
        """Copy rank 0's buffers (running averages) to every worker, as the bundle gets those."""
        if self.distributed:
            for buffer in network.buffers():
                distributed.broadcast(buffer, src=0)
