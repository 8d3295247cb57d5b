"""The one training loop: any recipe, one process or many, resumable to the bit.

What a step does is a function of the settings and of (seed, epoch, position, rank): the order of the
data, the jitter and the random numbers of the networks (dropout) are all drawn from it, so a checkpoint
holds no random state and a resumed run takes the same steps as one that was never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from genray.datasets.loader import Batch
from genray.errors import Diverged, Interrupted
from genray.images.pixels import save_png
from genray.progress import Display, Tick
from jobs.runs.history import TrainingLog, row_line
from jobs.runs.run import Run
from jobs.runs.samples import write_pictures
from jobs.training import checkpoint as checkpoints
from jobs.training.device import Device
from jobs.training.evaluation import Evaluation
from jobs.training.recipe import DataSummary, FollowUp, Part, Recipe, Scored
from jobs.training.settings import LoopSettings
from jobs.training.state import TrainingState
from jobs.training.update import Update, rate_factor
from jobs.training.workers import TrainingWorker


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
        summary: DataSummary,
        run: Run,
        device: Device,
        display: Display,
        wrap: Callable[[nn.Module], nn.Module] = lambda network: network,
    ) -> None:
        self._recipe, self._run, self._device, self._display = recipe, run, device, display
        self._settings: LoopSettings = recipe.settings.loop
        self._val_count = summary.val
        self._judging: Part = "test" if summary.test else "val"
        self._worker = TrainingWorker(device.where)
        self._together = self._settings.batch_size * self._worker.world  # samples per batch, all workers
        self._per_step = self._together * self._settings.accumulate
        self._steps_per_epoch = summary.train // self._per_step
        self._per_epoch = self._steps_per_epoch * self._per_step

        self._state = TrainingState(recipe, device, wrap)
        self._evaluation = Evaluation(recipe, device, self._worker)
        self._update = Update(
            self._state.networks,
            self._state.optimizers,
            accumulate=self._settings.accumulate,
            clip=self._settings.clip,
        )
        self._loader = recipe.loader(run.add_set_aside)
        self._last, self._best = (run.checkpoints / f"{name}.safetensors" for name in ("last", "best"))
        restored, position = self._state.restore(self._last), self._state.position
        self._worker.check_same((dict(summary.data), position.epoch, position.taken, position.step))
        if restored and self._worker.leads:
            display.note(f"going on from epoch {position.epoch + 1}, step {position.step}")
        # After an elastic change steps are of another size: those to come are counted, not those done.
        to_come = (self._per_epoch - position.taken) // self._per_step
        to_come += (self._settings.epochs - position.epoch - 1) * self._steps_per_epoch
        self._steps = position.step + max(0, to_come)
        self._record = TrainingLog(run, position.step) if self._worker.leads else None
        self._bad_step = torch.tensor(0, device=device.where)
        self._scored: tuple[dict[str, float], list[Scored]] | None = None
        self._shown = self._drawn = 0.0

    def train(self) -> dict[str, Any]:
        """Train to the end, write the bundle, and return the metrics.

        Raises:
            Interrupted: a stop was requested; a checkpoint was written.
            Diverged: a loss or weight is not finite any more, or above the limit.
            StorageFull: an output could not be written; the last checkpoint is whole.
        """
        try:
            while self._state.position.epoch < self._settings.epochs and not self._stale():
                self._epoch()
            return self._finish()
        finally:
            if self._record is not None:
                self._record.close()

    def _epoch(self) -> None:
        position, settings = self._state.position, self._settings
        began, spent, done = time.monotonic(), position.seconds, position.taken
        window: list[torch.Tensor] = []
        batches = self._loader.batches(position.epoch, settings.batch_size, self._worker.share, done)
        for network in self._state.networks.values():
            network.train()
        while not self._epoch_over():
            losses = self._step(batches)
            window.append(losses)
            passed = time.monotonic() - began
            position.seconds = spent + passed
            stop = self._agree(losses)
            self._tick(window, (position.taken - done) / passed)
            if position.step % settings.log_every == 0:
                self._log(window)
                window.clear()
            if stop:
                self._checkpoint()
                raise Interrupted(
                    f"stopped at epoch {position.epoch + 1}, step {position.step} of {self._steps}, "
                    "with a checkpoint",
                    where=str(self._run.folder),
                    hint=f"the same command with --name {self._run.name} goes on from there",
                )
            inside = settings.checkpoint_steps and position.step % settings.checkpoint_steps == 0
            if inside and not self._epoch_over():
                self._checkpoint()
        self._log(window)
        self._end_epoch()

    def _epoch_over(self) -> bool:
        over: bool = self._state.position.taken + self._per_step > self._per_epoch
        return over

    def _step(self, batches: Iterator[Batch]) -> torch.Tensor:
        """One optimizer step; returns its losses, one tensor on the device."""
        position, seed = self._state.position, self._recipe.settings.seed
        self._state.set_rate(self._rate_factor(position.taken))
        self._update.done = self._done(position.taken)
        sums: list[torch.Tensor] = []
        for index in range(self._settings.accumulate):
            batch = [self._evaluation.place(images) for images in next(batches)]
            words = np.random.SeedSequence([seed, position.epoch, position.taken, self._worker.rank])
            torch.manual_seed(int(words.generate_state(1, np.uint64)[0] >> 1))
            with self._update.batch(index), self._device.autocast():
                losses = self._recipe.step(self._state.networks, batch, self._update)
            self._state.names = list(losses)
            sums.append(torch.stack([value.detach().float() for value in losses.values()]))
            position.taken += self._together
        mean = torch.stack(sums).mean(dim=0) if len(sums) > 1 else sums[0]
        self._state.stepped(mean)
        return mean

    def _rate_factor(self, taken: int) -> float:
        """Of the learning rate in this epoch, for the step that begins when `taken` samples are done;
        taken at the step's middle, so that neither the first nor the last step is for nothing."""
        return rate_factor(self._done(taken + self._per_step / 2), self._settings)

    def _done(self, taken: float) -> float:
        """The share of the training that is over when `taken` samples of this epoch are done."""
        done: float = (self._state.position.epoch + taken / self._per_epoch) / self._settings.epochs
        return done

    def _agree(self, losses: torch.Tensor) -> bool:
        """Whether a stop was requested; raises if a loss is NaN, infinite or above the limit.

        The first bad step is kept on the device: asking a GPU for it waits for all work in its queue.
        """
        position = self._state.position
        step = torch.full((), position.step, device=self._device.where)  # made there: nothing waits
        fine = (losses.abs() <= self._settings.loss_limit).all()  # NaN compares false
        self._bad_step = torch.where(fine | (self._bad_step > 0), self._bad_step, step)
        every = 1 if self._device.where.type == "cpu" else _ASK_GPU_EVERY
        inside = self._settings.checkpoint_steps
        due = position.step % every == 0 or (inside and position.step % inside == 0)
        if not due and not self._epoch_over():
            return False
        bad, stop = self._worker.max(int(self._bad_step), int(self._run.stop_requested()))
        if bad:
            said = ", ".join(f"{k} {v:.3g}" for k, v in self._named(losses).items())
            raise self._diverged(f"the loss exploded at step {bad} (now, on this worker: {said})")
        return bool(stop)

    def _diverged(self, what: str) -> Diverged:
        return Diverged(
            f"{what}; loop.loss_limit is {self._settings.loss_limit:g}",
            where=f"last good checkpoint: {self._last if self._last.exists() else 'none yet'}",
            hint="try a lower learning rate, loop.warmup=0.05, loop.clip=1.0 or device.precision=fp32, under "
            "another --name",
        )

    def _end_epoch(self) -> None:
        state, position, settings = self._state, self._state.position, self._settings
        assert state.sums is not None
        means = self._worker.sum(state.sums) / (position.summed * self._worker.world)
        row: dict[str, Any] = {"epoch": position.epoch + 1, "step": position.step, **self._named(means)}
        row["learning_rate"] = state.set_rate(self._rate_factor(self._per_epoch - self._per_step))
        row["seconds"] = round(position.seconds, 3)
        row["images_per_second"] = round(self._per_epoch / max(position.seconds, 1e-9), 3)
        position.epoch, position.taken, position.seconds = position.epoch + 1, 0, 0.0
        state.sums, position.summed = None, 0
        last = position.epoch == settings.epochs
        if position.epoch % settings.validate_every == 0 or last:
            row |= self._validate()
        state.rows.append(row)
        if position.epoch % settings.checkpoint_every == 0 or last or self._stale():
            self._checkpoint()
        self._worker.on_leader(self._write_record)
        if self._worker.leads:
            self._display.row(row, row_line(row, settings.epochs))

    def _write_record(self) -> None:
        assert self._record is not None
        row, step = self._state.rows[-1], self._state.position.step
        validated = {k: v for k, v in row.items() if k.startswith("val_")}
        self._record.scalars(step, {"learning_rate": row["learning_rate"], **validated})
        draw = time.monotonic() - self._drawn > _DRAW_SECONDS  # it takes a third of a second
        self._drawn = time.monotonic() if draw else self._drawn
        self._record.write(self._state.rows, draw=draw)
        if validated:
            shown = range(min(self._settings.samples, self._val_count))
            image = self._evaluation.picture(self._state.judged(), "val", shown)
            save_png(self._run.samples / f"epoch_{row['epoch']:04d}.png", image)
            self._record.picture(step, "samples", image)

    def _validate(self) -> dict[str, float]:
        self._scored = self._evaluation.score(self._state.judged(), "val")
        means, position = self._scored[0], self._state.position
        if means[self._recipe.metric] < position.best:
            position.best, position.best_epoch, position.stale = means[self._recipe.metric], position.epoch, 0
            best = self._state.best_snapshot(means)
            self._worker.on_leader(lambda: checkpoints.write(self._best, best))
        else:
            position.stale += 1
        return {f"val_{name}": value for name, value in means.items()}

    def _checkpoint(self) -> None:
        if not self._state.finite():
            raise self._diverged(f"a weight is not finite after step {self._state.position.step}")
        sums = self._state.sums
        if sums is not None:
            sums = self._worker.sum(sums.clone()) / self._worker.world
        whole = self._state.snapshot(sums)
        self._worker.on_leader(lambda: checkpoints.write(self._last, whole))

    def _finish(self) -> dict[str, Any]:
        """Score the chosen weights, draw what they do, write the bundle."""
        epoch = self._state.position.epoch
        if self._settings.weights == "best":
            epoch = self._state.load_best(self._best)
        work = FollowUp(self._run, self._device, self._display, epoch, f"{self._recipe.sample}s")
        work.lead(self._worker, self._recipe.follow_up)
        if self._scored is None or epoch != self._state.position.epoch or self._judging == "test":
            self._scored = self._evaluation.score(self._state.judged(), self._judging)
        means, scored = self._scored
        metrics: dict[str, Any] = {**means, "epoch": epoch}
        self._worker.on_leader(lambda: self._write_bundle(metrics, scored))
        return metrics

    def _write_bundle(self, metrics: dict[str, Any], scored: Sequence[Scored]) -> None:
        assert self._record is not None
        self._record.write(self._state.rows, draw=True)  # it may have been killed before its last row
        judged = self._state.judged()
        said = self._evaluation.conclude(judged, self._judging, scored, self._settings.samples)
        files = write_pictures(self._run, said.pictures, said.tables)
        metrics |= {**said.metrics, "baselines": self._recipe.baselines()}
        self._recipe.save_bundle(self._run.bundle, judged, metrics, files, said.calibration)

    def _stale(self) -> bool:
        return self._settings.patience is not None and self._state.position.stale >= self._settings.patience

    def _named(self, losses: torch.Tensor) -> dict[str, float]:
        return dict(zip(self._state.names, losses.tolist(), strict=True))

    def _log(self, window: Sequence[torch.Tensor]) -> None:
        if self._record is not None and window:
            means = self._named(torch.stack(list(window)).mean(dim=0))
            self._record.scalars(self._state.position.step, means)

    def _tick(self, window: Sequence[torch.Tensor], speed: float) -> None:
        position, now = self._state.position, time.monotonic()
        if not self._worker.leads or (now - self._shown < _TICK_SECONDS and position.step < self._steps):
            return
        self._shown = now
        values = self._named(torch.stack(list(window)).mean(dim=0))
        left = (self._steps - position.step) * self._per_step / speed
        shown = {k: v for k, v in values.items() if not self._recipe.shown or k in self._recipe.shown}
        epoch, epochs, said = position.epoch + 1, self._settings.epochs, f"{self._recipe.sample}s"
        self._display.tick(Tick(epoch, epochs, position.step, self._steps, speed, left, shown, samples=said))


_ASK_GPU_EVERY = 20  # steps
_DRAW_SECONDS = 20.0  # between drawings of the curves
_TICK_SECONDS = 0.3  # between updates of the progress line
