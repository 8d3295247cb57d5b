"""The state of a training: networks, optimizers, averages and how far it is; saved and restored whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from genray.errors import TrainingError
from jobs.training import checkpoint as checkpoints
from jobs.training.checkpoint import Checkpoint
from jobs.training.device import Device
from jobs.training.recipe import Recipe
from jobs.training.update import averages_now, bare, moving_average


@dataclass
class Position:
    """How far a run is."""

    epoch: int = 0  # whole epochs done
    taken: int = 0  # samples of the next one done, all workers together
    step: int = 0  # optimizer steps done
    best: float = math.inf  # the best validation metric so far
    best_epoch: int = 0
    stale: int = 0  # validations since then
    seconds: float = 0.0  # spent on the epoch in progress
    summed: int = 0  # steps of it whose losses are in the sums


class TrainingState:
    """Freshly initialised from the seed; `restore` brings back what `save` wrote.

    Args:
        recipe: whose networks these are.
        device: where they are placed.
        wrap: puts a network into its wrapper for distribution.
    """

    def __init__(self, recipe: Recipe[Any], device: Device, wrap: Callable[[nn.Module], nn.Module]) -> None:
        torch.manual_seed(recipe.settings.seed)
        plain = {name: device.place(net) for name, net in recipe.networks().items()}
        self.optimizers = {name: recipe.make_optimizer(name, net) for name, net in plain.items()}
        self._rates = {name: recipe.optimizer(name).learning_rate for name in plain}
        self._averages: dict[str, AveragedModel] = {}
        if recipe.settings.loop.ema:
            average = moving_average(recipe.settings.loop.ema)
            self._averages = {n: AveragedModel(plain[n], multi_avg_fn=average) for n in recipe.averaged}
        self._judged = tuple(recipe.averaged)
        if device.compile:
            for net in plain.values():
                net.compile(mode=device.compile)
        self.networks = {name: wrap(net) for name, net in plain.items()}
        self._device = device
        self.position = Position()
        self.names: list[str] = []  # of the losses
        self.sums: torch.Tensor | None = None  # of the losses in this epoch, in the order of `names`
        self.rows: list[dict[str, Any]] = []  # one for each epoch that is done

    def set_rate(self, factor: float) -> float:
        """Multiply every learning rate as given with `factor`; returns the first one."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._rates[name] * factor
        return next(iter(self._rates.values())) * factor

    def stepped(self, losses: torch.Tensor) -> None:
        """Count a step that had these losses, and move the averages on."""
        self.position.step += 1
        self.position.summed += 1
        if averages_now(self.position.step):
            for name, average in self._averages.items():
                average.update_parameters(bare(self.networks[name]))
        self.sums = losses.double() if self.sums is None else self.sums + losses

    def judged(self) -> dict[str, nn.Module]:
        """The networks that are validated and bundled, averaged where there is an average."""
        return {
            name: self._averages[name].module if name in self._averages else bare(self.networks[name])
            for name in self._judged
        }

    def finite(self) -> bool:
        """Whether every weight is a number."""
        checks = [torch.isfinite(p).all() for net in self.networks.values() for p in net.parameters()]
        return bool(torch.stack(checks).all())

    def snapshot(self, sums: torch.Tensor | None) -> Checkpoint:
        """All of it as a checkpoint; `sums` are the losses of this epoch so far, over all workers."""
        nets = {name: bare(net) for name, net in self.networks.items()}
        state = {
            "position": asdict(self.position),
            "names": self.names,
            "sums": None if sums is None else sums.tolist(),
            "rows": self.rows,
        }
        return checkpoints.collect(nets, self._averages, self.optimizers, state)

    def best_snapshot(self, metrics: dict[str, float]) -> Checkpoint:
        """The judged networks alone."""
        return checkpoints.collect(self.judged(), {}, {}, {"epoch": self.position.epoch, **metrics})

    def restore(self, path: Path) -> bool:
        """Go back to the checkpoint at `path`; returns whether there is one."""
        saved = checkpoints.read(path)
        if saved is None:
            return False
        try:
            for name, net in self.networks.items():
                bare(net).load_state_dict(saved.part("net", name))
                checkpoints.restore_optimizer(self.optimizers[name], saved.part("opt", name))
            for name, average in self._averages.items():
                average.load_state_dict(saved.part("ema", name))
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                "the checkpoint is of other networks than these settings make",
                where=str(path),
                hint="give another --name, or move the run's folder away",
            ) from error
        self.position = Position(**saved.state["position"])
        self.names, self.rows = saved.state["names"], saved.state["rows"]
        if saved.state["sums"]:
            self.sums = torch.tensor(saved.state["sums"], dtype=torch.float64, device=self._device.where)
        return True

    def load_best(self, path: Path) -> int:
        """Put the weights of `best_snapshot` into the judged networks; returns their epoch.

        Raises:
            TrainingError: nothing has been validated.
        """
        best = checkpoints.read(path)
        if best is None:
            raise TrainingError(
                "no weights are the best: nothing was validated", hint="set loop.weights=last"
            )
        for name, network in self.judged().items():
            network.load_state_dict(best.part("net", name))
        return int(best.state["epoch"])
