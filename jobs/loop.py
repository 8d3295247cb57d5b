"""The one training loop: any recipe, one process or many, resumable to the bit.

What a step does is a function of the settings and of (seed, epoch, position, rank): the order of the
data, the jitter and the random numbers of the networks (dropout) are all drawn from it, so a checkpoint
holds no random state and a resumed run takes the same steps as one that was never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from genray.data.paired import BadPair
from genray.errors import DataError, Diverged, Interrupted
from genray.pixels import save_png, to_network
from genray.progress import Display, Tick, duration
from jobs import checkpoint as checkpoints
from jobs.device import Device
from jobs.recipe import Recipe, Scored, Summary
from jobs.record import Record
from jobs.run import Run
from jobs.schedule import rate_factor
from jobs.update import Update, bare
from jobs.worker import Worker


@dataclass
class Position:
    """How far the run is. Goes into the checkpoint as it is."""

    epoch: int = 0  # whole epochs done
    taken: int = 0  # samples of the next one done, all workers together
    step: int = 0  # optimizer steps done
    best: float = math.inf  # the best validation metric so far
    best_epoch: int = 0
    stale: int = 0  # validations since then
    seconds: float = 0.0  # spent on the epoch in progress


class Loop:
    """Trains a recipe in this process, as one of a group of workers.

    Args:
        recipe: what to train; its data must be open.
        summary: what opening it found.
        run: the folder that everything is written to (by rank 0).
        device: what to train on.
        display: where progress is shown (by rank 0).
        wrap: puts a network into its wrapper for distribution.
    """

    def __init__(
        self,
        recipe: Recipe[Any],
        summary: Summary,
        run: Run,
        device: Device,
        display: Display,
        wrap: Callable[[nn.Module], nn.Module] = lambda network: network,
    ) -> None:
        self.recipe, self.run, self.device, self.display = recipe, run, device, display
        self.settings = recipe.settings.loop
        self.seed = recipe.settings.seed
        self.worker = Worker(device.where)
        self.together = self.settings.batch_size * self.worker.world  # samples per batch, all workers
        self.steps_per_epoch = summary.train // (self.together * self.settings.accumulate)
        if not self.steps_per_epoch:
            raise DataError(
                f"{summary.train} training samples do not fill one step of "
                f"{self.together * self.settings.accumulate}",
                where="loop.batch_size",
                hint="lower loop.batch_size, loop.accumulate or loop.workers",
            )
        self.per_epoch = self.steps_per_epoch * self.together * self.settings.accumulate
        self.steps = self.steps_per_epoch * self.settings.epochs
        self.summary = summary
        self.loader = recipe.loader(self._set_aside)
        self._build(wrap)
        self._bad_step = torch.tensor(0, device=device.where)
        self._scored: tuple[dict[str, float], list[Scored]] | None = None
        self._shown = 0.0
        self._resume()

    def _build(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        torch.manual_seed(self.seed)
        plain = {name: self.device.place(net) for name, net in self.recipe.networks().items()}
        self.optimizers = {
            name: self.recipe.optimizer(name).make(net, fused=self.recipe.settings.device.fused)
            for name, net in plain.items()
        }
        self.rates = {name: self.recipe.optimizer(name).learning_rate for name in plain}
        self.averages: dict[str, AveragedModel] = {}
        if self.settings.ema:
            average = get_ema_multi_avg_fn(self.settings.ema)  # type: ignore[no-untyped-call]
            self.averages = {n: AveragedModel(plain[n], multi_avg_fn=average) for n in self.recipe.averaged}
        if self.device.compile:
            for net in plain.values():
                net.compile(mode=self.device.compile)
        self.networks = {name: wrap(net) for name, net in plain.items()}
        self.update = Update(
            self.networks, self.optimizers, accumulate=self.settings.accumulate, clip=self.settings.clip
        )

    def _resume(self) -> None:
        self.position = Position()
        self.names: list[str] = []
        self.sums: torch.Tensor | None = None
        rows: list[dict[str, Any]] = []
        saved = checkpoints.read(self.run.checkpoints / "last.safetensors")
        if saved is not None:
            for name, net in self.networks.items():
                bare(net).load_state_dict(saved.part("net", name))
                checkpoints.restore_optimizer(self.optimizers[name], saved.part("opt", name))
            for name, average in self.averages.items():
                average.load_state_dict(saved.part("ema", name))
            self.position = Position(**saved.state["position"])
            self.names, rows = saved.state["names"], saved.state["rows"]
            if saved.state["sums"]:
                self.sums = torch.tensor(saved.state["sums"], dtype=torch.float64, device=self.device.where)
            self._resize_group(int(saved.state["together"]))
            self.note(f"going on from epoch {self.position.epoch}, step {self.position.step}")
        self.record = Record(self.run, rows, self.position.step) if self.worker.leads else None
        self.rows = rows

    def _resize_group(self, before: int) -> None:
        """After an elastic change the steps are of another size: count them as if they always had been."""
        if before != self.together:
            self.position.step = self.position.epoch * self.steps_per_epoch + self.position.taken // (
                self.together * self.settings.accumulate
            )

    def train(self) -> dict[str, Any]:
        """Train to the end, write the bundle, and return the metrics.

        Raises:
            Interrupted: a stop was requested; a checkpoint was written.
            Diverged: a loss or weight is not finite any more, or above the limit.
            StorageFull: an output could not be written; the last checkpoint is whole.
        """
        try:
            while self.position.epoch < self.settings.epochs and not self._stale():
                self._epoch()
            return self._finish()
        finally:
            if self.record is not None:
                self.record.close()

    def _epoch(self) -> None:
        position, settings = self.position, self.settings
        began, spent = time.monotonic(), position.seconds
        window, window_steps, done = None, 0, position.taken
        batches = self.loader.batches(position.epoch, settings.batch_size, self.worker.share, position.taken)
        for network in self.networks.values():
            network.train()
        while position.taken < self.per_epoch:
            losses = self._step(batches)
            window = losses if window is None else window + losses
            window_steps += 1
            position.seconds = spent + time.monotonic() - began
            stop = self._agree(losses)
            self._tick(window, window_steps, (position.taken - done) / (time.monotonic() - began))
            if position.step % settings.log_every == 0:
                self._log(window / window_steps)
                window, window_steps = None, 0
            if stop:
                self._checkpoint()
                raise Interrupted(
                    f"stopped at epoch {position.epoch + 1}, step {position.step} of {self.steps}, "
                    "with a checkpoint",
                    where=str(self.run.folder),
                    hint=f"the same command with --name {self.run.name} goes on from there",
                )
            inside = settings.checkpoint_steps and position.step % settings.checkpoint_steps == 0
            if inside and position.taken < self.per_epoch:
                self._checkpoint()
        self._end_epoch()

    def _step(self, batches: Any) -> torch.Tensor:
        """One optimizer step; returns its losses, one tensor on the device."""
        position = self.position
        halfway = position.epoch + (position.taken + self.together / 2) / self.per_epoch
        factor = rate_factor(halfway / self.settings.epochs, self.settings)
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[name] * factor
        total: torch.Tensor | None = None
        for index in range(self.settings.accumulate):
            batch = [self._place(images) for images in next(batches)]
            seed = np.random.SeedSequence([self.seed, position.epoch, position.taken, self.worker.rank])
            torch.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
            with self.update.batch(index), self.device.autocast():
                losses = self.recipe.step(self.networks, batch, self.update)
            self.names = list(losses)
            values = torch.stack([value.detach().float() for value in losses.values()])
            total = values if total is None else total + values
            position.taken += self.together
        assert total is not None
        for name, average in self.averages.items():
            average.update_parameters(bare(self.networks[name]))
        position.step += 1
        mean: torch.Tensor = total / self.settings.accumulate
        self.sums = mean.double() if self.sums is None else self.sums + mean
        return mean

    def _agree(self, losses: torch.Tensor) -> bool:
        """Whether a stop was requested; raises if a loss is NaN, infinite or above the limit.

        The first bad step is kept on the device: a GPU is asked for it only now and then, because
        asking waits for all work in its queue.
        """
        step = torch.tensor(self.position.step, device=self.device.where)
        fine = (losses.abs() <= self.settings.loss_limit).all()  # NaN compares false
        self._bad_step = torch.where(fine | (self._bad_step > 0), self._bad_step, step)
        every = 1 if self.device.where.type == "cpu" else _ASK_GPU_EVERY
        if self.position.step % every and self.position.taken < self.per_epoch:
            return False
        bad, stop = self.worker.max(int(self._bad_step), int(self.run.stop_requested()))
        if bad:
            said = ", ".join(f"{n} {v:.3g}" for n, v in zip(self.names, losses.tolist(), strict=True))
            raise self._diverged(f"the loss exploded at step {bad} (now, on this worker: {said})")
        return bool(stop)

    def _diverged(self, what: str) -> Diverged:
        last = self.run.checkpoints / "last.safetensors"
        return Diverged(
            f"{what} (loop.loss_limit is {self.settings.loss_limit:g})",
            where=f"last good checkpoint: {last if last.exists() else 'none yet'}",
            hint="try a lower learning rate, loop.warmup=0.05, loop.clip=1.0 or device.precision=fp32, under "
            "another --name",
        )

    def _end_epoch(self) -> None:
        position, settings = self.position, self.settings
        assert self.sums is not None
        means = (self.worker.sum(self.sums) / (self.steps_per_epoch * self.worker.world)).tolist()
        row: dict[str, Any] = {"epoch": position.epoch + 1, "step": position.step}
        row |= dict(zip(self.names, means, strict=True))
        row["learning_rate"] = next(iter(self.optimizers.values())).param_groups[0]["lr"]
        row["seconds"] = round(position.seconds, 3)
        row["images_per_second"] = round(self.per_epoch / max(position.seconds, 1e-9), 3)
        position.epoch, position.taken, position.seconds, self.sums = position.epoch + 1, 0, 0.0, None
        last = position.epoch == settings.epochs
        if position.epoch % settings.validate_every == 0 or last:
            row |= self._validate()
        self.rows.append(row)
        if self.record is not None:
            self.record.rows = self.rows
        if position.epoch % settings.checkpoint_every == 0 or last or self._stale():
            self._checkpoint()
        self.worker.on_leader(self._write_record)
        self.note(_row_line(row, settings.epochs))

    def _write_record(self) -> None:
        assert self.record is not None
        row, step = self.rows[-1], self.position.step
        self.record.scalars(
            step, {k: v for k, v in row.items() if k.startswith("val_") or k == "learning_rate"}
        )
        self.record.write()
        if f"val_{self.recipe.metric}" in row:
            image = self._picture(range(min(self.settings.samples, self.summary.val)))
            save_png(self.run.samples / f"epoch_{self.position.epoch:04d}.png", image)
            self.record.picture(step, "samples", image)

    def _validate(self) -> dict[str, float]:
        self._scored = self._score()
        means = self._scored[0]
        value = means[self.recipe.metric]
        if value < self.position.best:
            self.position.best, self.position.best_epoch, self.position.stale = value, self.position.epoch, 0
            nets = {name: bare(net) for name, net in self.evaluated().items()}
            best = checkpoints.collect(
                nets, {}, {}, {"epoch": self.position.epoch, self.recipe.metric: value}
            )
            self.worker.on_leader(lambda: checkpoints.write(self.run.checkpoints / "best.safetensors", best))
        else:
            self.position.stale += 1
        return {f"val_{name}": value for name, value in means.items()}

    def _score(self) -> tuple[dict[str, float], list[Scored]]:
        """Mean metrics over the held-out samples, and each one's, by index."""
        networks = self.evaluated()
        for network in networks.values():
            network.eval()
        with torch.inference_mode(), self.device.autocast():
            scored = self.recipe.validate(networks, self.worker.share, self._place)
        scored = sorted(self.worker.gather(scored), key=lambda item: item[0])
        return {k: float(np.mean([s[k] for _, s in scored])) for k in scored[0][1]}, scored

    def evaluated(self) -> dict[str, nn.Module]:
        """The networks that are judged and bundled: averaged ones where there is an average."""
        return {
            name: self.averages[name].module if name in self.averages else bare(self.networks[name])
            for name in self.recipe.averaged
        }

    def _picture(self, indices: Sequence[int], title: str = "") -> NDArray[np.uint8]:
        networks = self.evaluated()
        for network in networks.values():
            network.eval()
        with torch.inference_mode(), self.device.autocast():
            return self.recipe.picture(networks, indices, self._place, title)

    def _checkpoint(self) -> None:
        if not all(bool(torch.isfinite(p).all()) for net in self.networks.values() for p in net.parameters()):
            raise self._diverged(f"a weight is not finite after step {self.position.step}")
        sums = None if self.sums is None else self.worker.sum(self.sums.clone()) / self.worker.world
        state = {
            "position": asdict(self.position),
            "names": self.names,
            "sums": None if sums is None else sums.tolist(),
            "rows": self.rows,
            "together": self.together,
        }
        nets = {name: bare(net) for name, net in self.networks.items()}
        whole = checkpoints.collect(nets, self.averages, self.optimizers, state)
        self.worker.on_leader(lambda: checkpoints.write(self.run.checkpoints / "last.safetensors", whole))

    def _finish(self) -> dict[str, Any]:
        """Score the chosen weights, draw the worst and the best, write the bundle."""
        epoch = self.position.epoch
        if self.settings.weights == "best":
            best = checkpoints.read(self.run.checkpoints / "best.safetensors")
            assert best is not None  # the last epoch is always validated
            for name, network in self.evaluated().items():
                network.load_state_dict(best.part("net", name))
            epoch = best.state["epoch"]
        if self._scored is None or epoch != self.position.epoch:
            self._scored = self._score()
        means, scored = self._scored
        metrics: dict[str, Any] = {**means, "epoch": epoch, "baselines": self.recipe.baselines()}
        self.worker.on_leader(lambda: self._write_bundle(metrics, scored))
        return metrics

    def _write_bundle(self, metrics: Mapping[str, Any], scored: Sequence[Scored]) -> None:
        order = [index for index, _ in sorted(scored, key=lambda item: -item[1][self.recipe.metric])]
        count = max(1, min(self.settings.samples, len(order) // 2))
        pictures = [self._picture(order[:count], "worst "), self._picture(order[::-1][:count], "best ")]
        save_png(self.run.samples / "validation.png", np.concatenate(pictures, axis=1))
        networks = self.evaluated()
        self.recipe.save_bundle(self.run.bundle, networks, metrics, self.run.samples)

    def note(self, text: str) -> None:
        """Show a line, once for all workers."""
        if self.worker.leads:
            self.display.note(text)

    def _place(self, images: NDArray[np.uint8]) -> torch.Tensor:
        return to_network(images, self.device.where).contiguous(memory_format=self.device.memory_format)

    def _stale(self) -> bool:
        return self.settings.patience is not None and self.position.stale >= self.settings.patience

    def _log(self, losses: torch.Tensor) -> None:
        if self.record is not None:
            self.record.scalars(self.position.step, dict(zip(self.names, losses.tolist(), strict=True)))

    def _tick(self, window: torch.Tensor, count: int, speed: float) -> None:
        position = self.position
        now = time.monotonic()
        if not self.worker.leads or (now - self._shown < 0.3 and position.step < self.steps):
            return
        self._shown = now
        values = dict(zip(self.names, (window / count).tolist(), strict=True))
        left = (self.steps - position.step) * self.together * self.settings.accumulate / speed
        shown = {k: v for k, v in values.items() if not self.recipe.shown or k in self.recipe.shown}
        epoch, epochs = position.epoch + 1, self.settings.epochs
        self.display.tick(Tick(epoch, epochs, position.step, self.steps, speed, left, shown))

    def _set_aside(self, bad: BadPair) -> None:
        self.run.add_set_aside(bad.path, bad.reason, bad.detail)


_ASK_GPU_EVERY = 20  # steps


def _row_line(row: Mapping[str, Any], epochs: int) -> str:
    numbers = "  ".join(f"{k} {v:.4g}" for k, v in row.items() if isinstance(v, float) and k not in _UNSHOWN)
    return f"epoch {row['epoch']}/{epochs}  {numbers}  {duration(row['seconds'])}"


_UNSHOWN = {"learning_rate", "seconds", "images_per_second"}
