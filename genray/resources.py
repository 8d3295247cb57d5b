"""What there is to compute with, and what a target asks of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """CPUs, GPUs and nodes of a machine or a cluster."""

    cpus: float
    gpus: float
    nodes: int = 1


@dataclass(frozen=True)
class Demand:
    """What a target asks for: fewest and most workers, what each holds, and CPUs for Ray Data beside them.

    `where` is the group of settings that the request comes from.
    """

    workers: tuple[int, int]
    cpus_per_worker: float
    gpus_per_worker: float
    data_cpus: float
    where: str = "loop"
