"""Targets, which can be submitted, and the resources that a target needs.

A target is a YAML file in `configs/` and a module of the same stem in `jobs`, `pipelines` or `monitors` that
defines `TARGET`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from genray.errors import UsageError
from genray.progress import Display
from genray.settings.base import Settings
from genray.settings.shipped import shipped_place, shipped_targets, shipped_text

_PACKAGES = ("jobs", "pipelines", "monitors")

WAIT_MINUTES = 60.0
"""Default of the minutes that a target waits for room on a cluster."""


@dataclass(frozen=True)
class NodeShape:
    """Nodes of the same size.

    Attributes:
        cpus, gpus: CPUs and GPUs of each node.
        nodes: number of nodes that run.
        coming: number of nodes that an autoscaler can start beside them.
    """

    cpus: float
    gpus: float
    nodes: int
    coming: int = 0


@dataclass(frozen=True)
class Resources:
    """CPUs, GPUs and nodes of a machine or a cluster.

    Attributes:
        cpus, gpus: of all nodes together, with those that an autoscaler can start.
        nodes: number of nodes that work can run on, with those that an autoscaler can start.
        shapes: the nodes by size; empty for one machine.
    """

    cpus: float
    gpus: float
    nodes: int = 1
    shapes: tuple[NodeShape, ...] = ()

    def places(self, cpus: float, gpus: float, *, coming: bool = True) -> int:
        """Return how many workers with these CPUs and GPUs each fit on the nodes, or on those that run."""
        shapes = self.shapes or (NodeShape(self.cpus, self.gpus, 1),)
        return sum(
            (shape.nodes + shape.coming * coming)
            * math.floor(min(times(shape.cpus, cpus), times(shape.gpus, gpus)))
            for shape in shapes
        )


def times(have: float, each: float) -> float:
    """Return how often `each` fits into `have`, without losing one to a rounding error as in 0.1 + 0.2."""
    return (have + 1e-6) / each if each else 10**9


@dataclass(frozen=True)
class Demand:
    """Resources that a target needs.

    Attributes:
        workers: fewest and most workers.
        cpus_per_worker, gpus_per_worker: those of each worker.
        data_cpus: CPUs for Ray Data.
        where: group of settings that determines them.
        together: whether the fewest workers start together, so that all must fit; else one can begin.
        wait_minutes: minutes to wait for room on a cluster (None: without end).
    """

    workers: tuple[int, int]
    cpus_per_worker: float
    gpus_per_worker: float
    data_cpus: float
    where: str = "loop"
    together: bool = True
    wait_minutes: float | None = WAIT_MINUTES


class Outcome(Protocol):
    """The result of a run."""

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values, for programs."""

    def rows(self) -> Iterable[tuple[str, str]]:
        """Return names and values, for the terminal."""


class PreparedTarget(Protocol):
    """A target whose settings and inputs were checked."""

    @property
    def lines(self) -> Sequence[str]:
        """Lines that say what will be done."""

    def examine(self) -> Sequence[str]:
        """Examine the inputs for a dry run, and return its further lines."""

    def needs_ray(self, attached: bool) -> bool:
        """Return whether Ray has to run; `attached`: this process is the driver of a job on a cluster."""

    def demand(self, have: Resources) -> Demand:
        """Return the resources that the target needs, of the available ones `have`."""

    @property
    def folder(self) -> Path | str:
        """The folder or URI that the results are written to."""

    def run(self, display: Display, have: Resources, attached: bool) -> Outcome:
        """Run the target; returns the outcome."""


class TargetImplementation(Protocol):
    """A target's code: the `TARGET` of its module."""

    @property
    def settings_class(self) -> type[Settings]:
        """The class of its settings."""

    def prepare(
        self, settings: Any, target: str, name: str | None, note: Callable[[str], None]
    ) -> PreparedTarget:
        """Check settings and inputs before anything starts; `name` is the name of the run."""


@runtime_checkable
class CompositeTarget(Protocol):
    """A target that runs other targets: the `TARGET` of its module."""

    @property
    def settings_class(self) -> type[Settings]:
        """The class of its settings."""

    def compose(self, settings: Any, load: Callable[..., Any]) -> tuple[TargetImplementation, Any]:
        """Return the target to prepare, and `settings` with the paths of the other targets made absolute.

        Args:
            settings: an instance of `settings_class`.
            load: loads the other targets' settings, see `genray.settings.load.load`.
        """


@dataclass(frozen=True)
class Target:
    """A target: its name, a one-line summary, and its module."""

    name: str
    summary: str
    module: str

    def load(self) -> TargetImplementation | CompositeTarget:
        """Import the module, and with it torch and other large packages."""
        implementation: TargetImplementation | CompositeTarget = importlib.import_module(self.module).TARGET
        return implementation


def all_targets() -> list[Target]:
    """Return every target, sorted by name; imports none of their modules."""
    return [_target(name) for name in shipped_targets()]


def find_target(name: str) -> Target:
    """Return the target `name`.

    Raises:
        UsageError: there is none; the message names the nearest, the hint all.
    """
    targets = {target.name: target for target in all_targets()}
    if name in targets:
        return targets[name]
    near = difflib.get_close_matches(name, targets, n=1)
    raise UsageError(
        f"no target is called {name!r}" + (f"; did you mean {near[0]}?" if near else ""),
        hint=f"targets: {', '.join(targets)}",
    )


def _target(name: str) -> Target:
    # The first line of the YAML is the summary of the target, which is read without importing its module.
    summary = shipped_text(name).partition("\n")[0].lstrip("# ").strip()
    stem = name.replace("-", "_")
    for package in _PACKAGES:
        if importlib.util.find_spec(f"{package}.{stem}"):
            return Target(name, summary, f"{package}.{stem}")
    raise UsageError(f"{shipped_place(name)} has no module {stem}.py in {', '.join(_PACKAGES)}")
