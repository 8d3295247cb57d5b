"""The targets: what can be submitted, and what a target asks of the machine or cluster that it runs on.

A target is a YAML file in `configs/` and a module of the same stem in `jobs`, `pipelines` or `monitors` that
holds a `TARGET`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from genray.errors import UsageError
from genray.progress import Display
from genray.settings.base import Settings
from genray.settings.shipped import shipped_place, shipped_targets, shipped_text

_PACKAGES = ("jobs", "pipelines", "monitors")


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


class Outcome(Protocol):
    """What came of a run."""

    def as_json(self) -> dict[str, Any]:
        """For programs: plain JSON values."""

    def rows(self) -> Iterable[tuple[str, str]]:
        """For the terminal: names and values."""


class PreparedTarget(Protocol):
    """A target whose settings and inputs were found to be right."""

    @property
    def lines(self) -> Sequence[str]:
        """What will be done, for a person."""

    def examine(self) -> Sequence[str]:
        """What a dry run says beyond `lines`, and looks at its inputs for."""

    def needs_ray(self, attached: bool) -> bool:
        """Whether Ray has to run; `attached`: this process is the driver of a job on a cluster."""

    def demand(self, have: Resources) -> Demand:
        """What it asks for, where there is `have`."""

    @property
    def folder(self) -> Path:
        """Where it will be written."""

    def run(self, display: Display, have: Resources, attached: bool) -> Outcome:
        """Do it; returns the outcome."""


class TargetImplementation(Protocol):
    """What a target's module calls `TARGET`."""

    @property
    def settings_class(self) -> type[Settings]:
        """The settings that it takes."""

    def prepare(
        self, settings: Any, target: str, name: str | None, note: Callable[[str], None]
    ) -> PreparedTarget:
        """Find everything that is wrong before anything starts; `name` is that of the run."""


@runtime_checkable
class CompositeTarget(Protocol):
    """What the module of a target that runs other targets calls `TARGET`."""

    @property
    def settings_class(self) -> type[Settings]:
        """The settings that it takes."""

    def compose(self, settings: Any, load: Callable[..., Any]) -> tuple[TargetImplementation, Any]:
        """What to prepare, and `settings` with the paths of the other targets made absolute.

        Args:
            settings: an instance of `settings_class`.
            load: makes the other targets' settings, see `genray.settings.load.load`.
        """


@dataclass(frozen=True)
class Target:
    """A target's name, what it does in one line, and the module that does it."""

    name: str
    summary: str
    module: str

    def load(self) -> TargetImplementation | CompositeTarget:
        """Import the module: this is where torch and the rest are first imported."""
        implementation: TargetImplementation | CompositeTarget = importlib.import_module(self.module).TARGET
        return implementation


def all_targets() -> list[Target]:
    """Every target, by name. Imports none of them."""
    return [_target(name) for name in shipped_targets()]


def find_target(name: str) -> Target:
    """The target of that name.

    Raises:
        UsageError: there is none; names the nearest, or all.
    """
    targets = {target.name: target for target in all_targets()}
    if name in targets:
        return targets[name]
    near = difflib.get_close_matches(name, targets, n=1)
    raise UsageError(
        f"no target is called {name!r}" + (f"; did you mean {near[0]}?" if near else ""),
        hint=f"there are: {', '.join(targets)}",
    )


def _target(name: str) -> Target:
    # The first line of the YAML is the target's summary: one place to write it, readable without imports.
    summary = shipped_text(name).partition("\n")[0].lstrip("# ").strip()
    stem = name.replace("-", "_")
    for package in _PACKAGES:
        if importlib.util.find_spec(f"{package}.{stem}"):
            return Target(name, summary, f"{package}.{stem}")
    raise UsageError(f"{shipped_place(name)} has no module {stem}.py in {', '.join(_PACKAGES)}")
