"""State of a training: networks, optimizers, averages and position; saved and restored as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from genray.errors import TrainingError
from jobs.training import checkpoint as checkpoints
from jobs.training.checkpoint import Checkpoint
from jobs.training.device import Device
from jobs.training.optimisation.update import is_averaging_step, moving_average, unwrapped
from jobs.training.recipe import Recipe
from jobs.training.schedule import Schedule
from jobs.training.start import StartingWeights


@dataclass
class Position:
    """Position of a run in its training."""

    epoch: int = 0  # finished epochs
    taken: int = 0  # samples of the current epoch that are done, of all workers
    step: int = 0  # optimizer steps done
    best: float = math.inf  # the best validation metric so far
    best_epoch: int = 0
    stale: int = 0  # validations since then
    seconds: float = 0.0  # seconds spent on the current epoch
    summed: int = 0  # steps of the epoch whose losses are in the sums


@dataclass
class TrainingState:
    """Networks of a training and everything else that changes from step to step.

    Attributes:
        networks: networks by name, wrapped for distribution if there are several workers.
        optimizers: one per network.
        averages: moving averages of networks, if there are any.
        evaluated: names of the networks that are validated and bundled.
        learning_rates: learning rate of each network, before warm-up and decay.
        device: device of the networks.
        position: position of the run.
        loss_names: names of the losses of a step.
        loss_sums: sums of the losses in this epoch, in the order of their names.
        schedule: schedule of the learning rate.
        frozen: modules that keep their weights.
        started_from: what the bundle of `init.bundle` gave; empty without one.
        rows: one for each finished epoch.
        inside: metrics of the validations inside the current epoch.
    """

    networks: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    averages: dict[str, AveragedModel]
    evaluated: Sequence[str]
    learning_rates: dict[str, float]
    device: Device
    schedule: Schedule
    frozen: Sequence[nn.Module] = ()
    started_from: Mapping[str, Any] = field(default_factory=dict)
    position: Position = field(default_factory=Position)
    loss_names: list[str] = field(default_factory=list)
    loss_sums: torch.Tensor | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    inside: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def initialise(
        cls,
        recipe: Recipe[Any],
        device: Device,
        wrap: Callable[[nn.Module], nn.Module],
        *,
        resumes: bool = False,
    ) -> TrainingState:
        """Make the state before the first step: weights drawn from the seed, or those of `init.bundle`.

        Args:
            recipe: recipe of the networks.
            device: device of the networks.
            wrap: puts a network into its wrapper for distribution.
            resumes: whether a checkpoint will be restored, so that the weights of `init.bundle` are not
                needed.

        Raises:
            BundleError: the bundle cannot be read.
            SettingsError: none of its weights fit, or there is no module to freeze of that name.
        """
        torch.manual_seed(recipe.settings.seed)
        networks = recipe.networks()
        if not resumes:
            recipe.initialise(networks)
        start = StartingWeights.of(recipe, networks)
        started_from = start.load() if start is not None and not resumes else {}
        frozen = start.freeze() if start is not None else ()
        networks = {name: device.place(network) for name, network in networks.items()}
        optimizers = {name: recipe.make_optimizer(name, network) for name, network in networks.items()}
        averages: dict[str, AveragedModel] = {}
        if recipe.settings.loop.ema:
            average = moving_average(recipe.settings.loop.ema)
            averages = {n: AveragedModel(networks[n], multi_avg_fn=average) for n in recipe.averaged}
        if device.compile:
            for network in networks.values():
                network.compile(mode=device.compile)
        return cls(
            networks={name: wrap(network) for name, network in networks.items()},
            optimizers=optimizers,
            averages=averages,
            evaluated=recipe.averaged,
            learning_rates={name: recipe.optimizer(name).learning_rate for name in networks},
            device=device,
            schedule=Schedule(0, recipe.settings.loop.epochs),
            frozen=frozen,
            started_from=started_from,
        )

    def set_training(self) -> None:
        """Put the networks into training mode, except for frozen modules: their batch statistics stay."""
        for network in self.networks.values():
            network.train()
        for module in self.frozen:
            module.eval()

    def scale_learning_rates(self, factor: float) -> float:
        """Set every learning rate to its base value times `factor` and the scale of its group; returns the
        first, without its scale."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rates[name] * factor * group["scale"]
        return self.learning_rate * factor

    @property
    def learning_rate(self) -> float:
        """Learning rate of the first network, before warm-up and decay."""
        return next(iter(self.learning_rates.values()))

    def record_step(self, losses: torch.Tensor) -> None:
        """Count a step with these losses, and update the averages."""
        self.position.step += 1
        self.position.summed += 1
        if is_averaging_step(self.position.step):
            for name, average in self.averages.items():
                average.update_parameters(unwrapped(self.networks[name]))
        self.loss_sums = losses.double() if self.loss_sums is None else self.loss_sums + losses

    def evaluated_networks(self) -> dict[str, nn.Module]:
        """Return the networks that are validated and bundled, averaged if there is an average."""
        return {
            name: self.averages[name].module if name in self.averages else unwrapped(self.networks[name])
            for name in self.evaluated
        }

    def is_finite(self) -> bool:
        """Return whether every weight is a finite number."""
        checks = [torch.isfinite(p).all() for net in self.networks.values() for p in net.parameters()]
        return bool(torch.stack(checks).all())

    def snapshot(self, sums: torch.Tensor | None) -> Checkpoint:
        """Return the state as a checkpoint; `sums` are the losses of this epoch so far, over all workers."""
        networks = {name: unwrapped(network) for name, network in self.networks.items()}
        state = {
            "position": asdict(self.position),
            "names": self.loss_names,
            "sums": None if sums is None else sums.tolist(),
            "rows": self.rows,
            "inside": self.inside,
            "schedule": asdict(self.schedule),
            "started_from": dict(self.started_from),
        }
        return checkpoints.collect(networks, self.averages, self.optimizers, state)

    def best_snapshot(self, epoch: int, metrics: dict[str, float]) -> Checkpoint:
        """Return only the evaluated networks, as a checkpoint, with the epoch they are of."""
        state = {**metrics, "epoch": epoch, "step": self.position.step}
        return checkpoints.collect(self.evaluated_networks(), {}, {}, state)

    def restore(self, path: Path) -> bool:
        """Restore the checkpoint at `path`; returns whether there is one."""
        saved = checkpoints.read(path)
        if saved is None:
            return False
        try:
            for name, net in self.networks.items():
                unwrapped(net).load_state_dict(saved.part("net", name))
                checkpoints.restore_optimizer(self.optimizers[name], saved.part("opt", name))
            for name, average in self.averages.items():
                average.load_state_dict(saved.part("ema", name))
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                "the checkpoint does not fit the networks of these settings",
                where=str(path),
                hint="give another --name, or move the folder of the run away",
            ) from error
        self.position = Position(**saved.state["position"])
        self.loss_names = saved.state["names"]
        self.rows = saved.state["rows"]
        self.inside = saved.state.get("inside", [])
        if "schedule" in saved.state:
            self.schedule = Schedule(**saved.state["schedule"])
        self.started_from = saved.state.get("started_from", {})
        if saved.state["sums"]:
            self.loss_sums = torch.tensor(saved.state["sums"], dtype=torch.float64, device=self.device.where)
        return True

    def load_best(self, path: Path) -> tuple[int, int]:
        """Load the weights of `best_snapshot` into the evaluated networks; returns their epoch and step.

        Raises:
            TrainingError: nothing has been validated.
        """
        best = checkpoints.read(path)
        if best is None:
            raise TrainingError(
                "there are no best weights: no epoch was validated",
                hint="set loop.weights=last, or loop.validate_every to at most loop.epochs",
            )
        for name, network in self.evaluated_networks().items():
            network.load_state_dict(best.part("net", name))
        return int(best.state["epoch"]), int(best.state.get("step", -1))
