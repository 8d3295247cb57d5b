"""The one training loop: any recipe, one process or many, resumable to the bit.

A step is a function of the settings and of (seed, epoch, position, rank), from which the order of the data,
the jitter and the random numbers of the networks (dropout) are drawn. So a checkpoint stores no random state,
and a resumed run takes the same steps as a run that was never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from genray.datasets.loader import Batch, Loader
from genray.errors import Diverged, Interrupted
from genray.io.bad_input import BadInput
from genray.progress import Display, Tick
from genray.settings.base import flatten
from jobs.runs.history import TrainingLog, epoch_line
from jobs.runs.metrics import TrainingMetrics
from jobs.runs.outcome import FinalMetrics
from jobs.runs.run import Run
from jobs.runs.samples import epochs_film, write_networks, write_pictures
from jobs.runs.trackers.base import TrackedRun
from jobs.runs.trackers.opening import open_trackers
from jobs.training import checkpoint as checkpoints
from jobs.training.device import Device
from jobs.training.evaluation import Evaluator, Scores
from jobs.training.follow_up import FollowUp
from jobs.training.optimisation.update import GradientUpdater
from jobs.training.recipe import DataSummary, Part, Recipe
from jobs.training.settings import TICK_SECONDS, LoopSettings, TrainSettings
from jobs.training.state import Position, TrainingState
from jobs.training.validations import Validations, concerns
from jobs.training.workers import TrainingWorker

_ASK_GPU_EVERY = 20  # steps
_SUMMED_SAMPLES = 2  # batch of the summary of the networks; batch normalisation needs two
_DRAW_SECONDS = 20.0  # seconds between drawings of the curves


@dataclass(frozen=True)
class EpochSize:
    """Samples of a batch, a step and an epoch, of all workers together."""

    batch: int
    step: int
    steps: int
    """Optimizer steps of an epoch."""

    @classmethod
    def of(cls, settings: LoopSettings, summary: DataSummary, workers: int) -> EpochSize:
        """Return the sizes for this many workers; samples after the last whole step of an epoch are left
        out."""
        batch = settings.batch_size * workers
        step = batch * settings.accumulate
        return cls(batch, step, summary.train // step)

    @property
    def samples(self) -> int:
        """Samples of an epoch."""
        return self.steps * self.step

    def total_steps(self, position: Position, epochs: int) -> int:
        """Return the steps of the whole training, of which `position.step` are done. After an elastic change
        steps have another size: the sum is of the steps that were taken and of those still to come."""
        to_come = (self.samples - position.taken) // self.step
        to_come += (epochs - position.epoch - 1) * self.steps
        return position.step + max(0, to_come)


class Loop:
    """Trains a recipe in this process, as one of a group of workers; `Loop.begin` makes one.

    Responsible for: the steps, and after each the checks for a finite loss and a requested stop; checkpoints,
    log and progress; validation and the best weights; at the end the final scores and the bundle. Networks,
    losses and pictures are the recipe's, placement and restarts are `launch.py`'s.

    Args:
        recipe: recipe to train, with its data open.
        run: the folder that everything is written to (by rank 0).
        display: where progress is shown (by rank 0).
        state: state of the training, restored from the last checkpoint.
        evaluator: evaluates the networks.
        loader: loads the training batches.
        size: sizes of batch, step and epoch.
        set_aside: inputs that the loader of this worker set aside, and that the run does not list yet.
        log: log of the training, on rank 0.
        tick_seconds: seconds between updates of the progress line.
    """

    def __init__(
        self,
        recipe: Recipe[Any],
        run: Run,
        display: Display,
        *,
        state: TrainingState,
        evaluator: Evaluator,
        loader: Loader,
        size: EpochSize,
        set_aside: list[BadInput],
        log: TrainingLog | None,
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        self.state = state
        self._recipe = recipe
        self._run = run
        self._display = display
        self._evaluator = evaluator
        self._loader = loader
        self._size = size
        self._set_aside = set_aside
        self._log = log
        self._tick_seconds = tick_seconds

        self._settings: LoopSettings = recipe.settings.loop
        self._device = evaluator.device
        self._worker = evaluator.worker
        self._judging: Part = "test" if recipe.summary.test else "val"
        self._updater = GradientUpdater(
            state.networks,
            state.optimizers,
            accumulate=self._settings.accumulate,
            clip=self._settings.clip,
        )
        self._total_steps = size.total_steps(state.position, self._settings.epochs)
        self._bad_step = torch.tensor(0, device=self._device.where)
        self._validations = Validations(recipe, run, display, state, evaluator, log)
        self._last_tick = 0.0
        self._last_drawing = time.monotonic()
        self._told: set[str] = set()  # kinds of health problems

    @classmethod
    def begin(
        cls,
        recipe: Recipe[Any],
        run: Run,
        device: Device,
        display: Display,
        *,
        wrap: Callable[[nn.Module], nn.Module] = lambda network: network,
        tick_seconds: float = TICK_SECONDS,
    ) -> Loop:
        """Make the networks, restore the last checkpoint if there is one, and open the log.

        Args:
            recipe: recipe to train, with its data open.
            run: the folder that everything is written to (by rank 0).
            device: device to train on.
            display: where progress is shown (by rank 0).
            wrap: puts a network into its wrapper for distribution.
            tick_seconds: seconds between updates of the progress line.

        Raises:
            TrainingError: the checkpoint is damaged or of other networks, or the workers see different data.
        """
        worker = TrainingWorker(device.where)
        run.fetch(run.last_checkpoint)
        state = TrainingState.initialise(recipe, device, wrap, resumes=run.last_checkpoint.exists())
        set_aside: list[BadInput] = []
        loader = recipe.loader(set_aside.append)
        restored = state.restore(run.last_checkpoint)
        position = state.position
        epochs = recipe.settings.loop.epochs
        is_extended = position.epoch >= state.schedule.end and epochs > position.epoch
        state.schedule = state.schedule.until(epochs, position.epoch, recipe.settings.loop)
        worker.check_same((dict(recipe.summary.data), position.epoch, position.taken, position.step))
        if restored and worker.is_leader:
            display.note(f"resuming at epoch {position.epoch + 1}, step {position.step}")
            if is_extended:
                display.note(state.schedule.text(recipe.settings.loop))
        return cls(
            recipe,
            run,
            display,
            state=state,
            evaluator=Evaluator(recipe, device, worker),
            loader=loader,
            size=EpochSize.of(recipe.settings.loop, recipe.summary, worker.world),
            set_aside=set_aside,
            log=_open_log(recipe.settings, run, position.step, display) if worker.is_leader else None,
            tick_seconds=tick_seconds,
        )

    def train(self) -> FinalMetrics:
        """Train to the end and write the bundle; returns the metrics of its weights. On ranks other than 0
        they lack the metrics that only rank 0 computes.

        Raises:
            Interrupted: a stop was requested; a checkpoint was written.
            Diverged: a loss or weight is not finite, or a loss is above the limit.
            StorageFull: an output could not be written; the last checkpoint is intact.
        """
        finished = False
        try:
            while self.state.position.epoch < self._settings.epochs and not self._validations.end_early:
                self._train_epoch()
            metrics = self._finish()
            finished = True
            return metrics
        finally:
            if self._log is not None:
                self._log.close(finished=finished)

    def _train_epoch(self) -> None:
        position = self.state.position
        settings = self._settings
        began = time.monotonic()
        seconds_before = position.seconds
        taken_before = position.taken
        window: list[torch.Tensor] = []  # losses since the last log entry
        batches = self._loader.batches(
            position.epoch, settings.batch_size, self._worker.share, position.taken
        )
        self.state.set_training()
        while not self._epoch_is_over():
            losses = self._step(batches)
            window.append(losses)
            passed = time.monotonic() - began
            position.seconds = seconds_before + passed
            stop = self._check_step(losses)
            if self._is_validation_step():
                self._validations.inside_epoch()
                self.state.set_training()
                began += time.monotonic() - began - passed
            if _is_power_of_ten(position.step):
                self._check_health()
                self.state.set_training()
            self._tick(window, (position.taken - taken_before) / passed)
            if position.step % settings.log_every == 0:
                self._log_losses(window)
                window.clear()
            if stop:
                self._write_checkpoint()
                raise Interrupted(
                    f"stopped at epoch {position.epoch + 1}, step {position.step} of {self._total_steps}, "
                    "with a checkpoint",
                    where=self._run.location,
                    hint=f"the same command with --name {self._run.name} resumes from there",
                )
            if self._is_checkpoint_step() and not self._epoch_is_over():
                self._write_checkpoint()
        self._log_losses(window)
        self._end_epoch()

    def _epoch_is_over(self) -> bool:
        return self.state.position.taken + self._size.step > self._size.samples

    def _is_checkpoint_step(self) -> bool:
        every = self._settings.checkpoint_steps
        return every is not None and self.state.position.step % every == 0

    def _is_validation_step(self) -> bool:
        """Return whether to validate inside the epoch now: not where its end, which is validated, follows
        within half as many steps."""
        every = self._settings.validate_steps
        taken = self.state.position.taken
        if every is None or taken // self._size.step % every:
            return False
        left = (self._size.samples - taken) // self._size.step
        return left >= (every / 2 if self._is_validated(self.state.position.epoch + 1) else 1)

    def _is_validated(self, epoch: int) -> bool:
        """Return whether the end of this epoch, from 1 on, is validated."""
        return epoch % self._settings.validate_every == 0 or epoch == self._settings.epochs

    def _step(self, batches: Iterator[Batch]) -> torch.Tensor:
        """Take one optimizer step; returns its losses as one tensor on the device."""
        position = self.state.position
        self.state.scale_learning_rates(self._learning_rate_factor(position.taken))
        self._updater.step = position.step
        self._updater.progress = self.state.schedule.progress(self._epoch(position.taken))
        losses_of_batches: list[torch.Tensor] = []
        for index in range(self._settings.accumulate):
            batch = [self._evaluator.place(part) for part in next(batches)]
            words = [self._recipe.settings.seed, position.epoch, position.taken, self._worker.rank]
            torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1))
            with self._updater.batch(index), self._device.autocast():
                losses = self._recipe.step(self.state.networks, batch, self._updater)
            self.state.loss_names = list(losses)
            losses_of_batches.append(torch.stack([value.detach().float() for value in losses.values()]))
            position.taken += self._size.batch
        mean = losses_of_batches[0]
        if len(losses_of_batches) > 1:
            mean = torch.stack(losses_of_batches).mean(dim=0)
        self.state.record_step(mean)
        return mean

    def _learning_rate_factor(self, taken: int) -> float:
        """Return the factor for the step of this epoch that begins after `taken` samples. It is taken at the
        middle of the step, so that neither the first nor the last step has a rate of 0."""
        return self.state.schedule.factor(self._epoch(taken + self._size.step / 2), self._settings)

    def _epoch(self, taken: float) -> float:
        """Return the point of the training, in epochs, after `taken` samples of this epoch."""
        return self.state.position.epoch + taken / self._size.samples

    def _check_step(self, losses: torch.Tensor) -> bool:
        """Return whether a stop was requested; raises if a loss is NaN, infinite or above the limit.

        The first bad step is stored on the device: reading it from a GPU waits for all queued work.
        """
        position = self.state.position
        # Created on the device: there is no transfer to wait for.
        step = torch.full((), position.step, device=self._device.where)
        fine = (losses.abs() <= self._settings.loss_limit).all()  # NaN compares false
        self._bad_step = torch.where(fine | (self._bad_step > 0), self._bad_step, step)
        every = 1 if self._device.where.type == "cpu" else _ASK_GPU_EVERY
        if not (position.step % every == 0 or self._is_checkpoint_step() or self._epoch_is_over()):
            return False
        bad_step, stop = self._worker.max(int(self._bad_step), int(self._is_asked_to_stop()))
        if bad_step:
            values = ", ".join(f"{name} {value:.3g}" for name, value in self._named(losses).items())
            raise self._diverged(
                f"a loss became NaN, infinite or too large at step {bad_step} (now, on this worker: {values})"
            )
        return bool(stop)

    def _is_asked_to_stop(self) -> bool:
        # One worker looks, and all learn of it: a look at a store takes a request.
        return self._worker.is_leader and self._run.stop_requested()

    def _check_health(self) -> Mapping[str, str]:
        """Show what keeps the networks from learning, each kind of problem once; returns all of it, by
        kind."""
        if not self._worker.is_leader:
            return {}
        health = self._evaluator.health(self.state.evaluated_networks(), "val")
        problems = health.problems(self.state.learning_rate) if health else {}
        for kind in problems.keys() - self._told:
            self._display.note(f"step {self.state.position.step}: {problems[kind]}")
        self._told |= problems.keys()
        return problems

    def _diverged(self, what: str) -> Diverged:
        last = self._run.last_checkpoint
        checkpoint = self._run.place(last) if last.exists() else "none yet"
        return Diverged(
            f"{what}; loop.loss_limit is {self._settings.loss_limit:g}",
            where=f"last good checkpoint: {checkpoint}",
            hint=(
                "try a lower optimizer.learning_rate, loop.warmup=0.05, loop.clip=1.0 or "
                "device.precision=fp32, with another --name"
            ),
        )

    def _end_epoch(self) -> None:
        position = self.state.position
        settings = self._settings
        row = self._epoch_row()
        position.epoch += 1
        position.taken = 0
        position.seconds = 0.0
        position.summed = 0
        self.state.loss_sums = None
        is_last = position.epoch == settings.epochs
        if self._is_validated(position.epoch):
            self._validations.end_epoch(row)
            self._check_health()
        if self.state.inside:
            row["validations"] = self.state.inside
            self.state.inside = []
        self.state.rows.append(row)
        if position.epoch % settings.checkpoint_every == 0 or is_last or self._validations.end_early:
            self._write_checkpoint()
        self._worker.on_leader(self._log_epoch)
        if self._worker.is_leader:
            self._display.row(row, epoch_line(row, settings.epochs))

    def _epoch_row(self) -> dict[str, Any]:
        """Return the numbers of the finished epoch, over all workers."""
        position = self.state.position
        assert self.state.loss_sums is not None
        means = self._worker.sum(self.state.loss_sums) / (position.summed * self._worker.world)
        last_step = self._size.samples - self._size.step
        return {
            "epoch": position.epoch + 1,
            "step": position.step,
            **self._named(means),
            "learning_rate": self.state.scale_learning_rates(self._learning_rate_factor(last_step)),
            "seconds": round(position.seconds, 3),
            "images_per_second": round(self._size.samples / max(position.seconds, 1e-9), 3),
        }

    def _log_epoch(self) -> None:
        assert self._log is not None
        row = self.state.rows[-1]
        step = self.state.position.step
        validated = {key: value for key, value in row.items() if key.startswith("val_")}
        self._log.scalars(step, {"learning_rate": row["learning_rate"], **validated})
        # It takes up to a second. `_write_bundle` draws all when the training is over.
        is_last = self.state.position.epoch == self._settings.epochs
        draw = not is_last and time.monotonic() - self._last_drawing > _DRAW_SECONDS
        if draw:
            self._last_drawing = time.monotonic()
        self._log.write(self.state.rows, draw=draw)
        if validated:
            self._validations.draw(f"epoch_{row['epoch']:04d}")
        self._run.publish()

    def _write_checkpoint(self) -> None:
        if not self.state.is_finite():
            raise self._diverged(f"a weight is not finite after step {self.state.position.step}")
        sums = self.state.loss_sums
        if sums is not None:
            sums = self._worker.sum(sums.clone()) / self._worker.world
        snapshot = self.state.snapshot(sums)
        self._list_set_aside()

        def write() -> None:
            checkpoints.write(self._run.last_checkpoint, snapshot)
            self._run.publish()

        self._worker.on_leader(write)

    def _list_set_aside(self) -> None:
        """List in the run the inputs that any worker set aside since the last call."""
        fresh = self._set_aside[:]  # a thread of the loader may add more
        del self._set_aside[: len(fresh)]
        found = self._worker.gather(fresh)

        def write() -> None:
            for bad in found:
                self._run.add_set_aside(bad)

        self._worker.on_leader(write)

    def _finish(self) -> FinalMetrics:
        """Score the chosen weights, draw their outputs, and write the bundle."""
        epoch, step = self.state.position.epoch, self.state.position.step
        if self._settings.weights == "best":
            if not (self._worker.is_leader and self._run.best_checkpoint.exists()):
                self._run.fetch(self._run.best_checkpoint)
            epoch, step = self.state.load_best(self._run.best_checkpoint)
        samples = f"{self._recipe.sample}s"
        follow_up = FollowUp(self._run, self._device, self._display, epoch, samples, self._tick_seconds)
        follow_up.run_on_leader(self._worker, self._recipe.follow_up)
        scores = self._validations.scores
        if scores is None or step != self.state.position.step or self._judging == "test":
            scores = self._evaluator.score(self.state.evaluated_networks(), self._judging)
        written: list[FinalMetrics] = []
        self._list_set_aside()
        self._worker.on_leader(lambda: written.append(self._write_bundle(scores, epoch)))
        return written[0] if written else FinalMetrics({**scores.means, "epoch": epoch})

    def _write_bundle(self, scores: Scores, epoch: int) -> FinalMetrics:
        assert self._log is not None
        self._log.write(self.state.rows, draw=True)  # the run may have been killed before its last row
        networks = self.state.evaluated_networks()
        conclusion = self._evaluator.conclude(networks, self._judging, scores.samples, self._settings.samples)
        write_networks(self._run, self._recipe.summaries(_SUMMED_SAMPLES))
        pictures = conclusion.pictures
        if self._recipe.filmed and (film := epochs_film(self._run)):
            pictures = [*pictures[:1], film, *pictures[1:]]
        files = write_pictures(self._run, pictures, conclusion.tables)
        values = {**scores.means, "epoch": epoch, **conclusion.metrics}
        baselines = self._recipe.baselines()
        verdict = self._recipe.verdict(values, baselines)
        warnings = (*conclusion.warnings, *self._check_health().values(), *concerns(self.state.rows))
        metrics = FinalMetrics(values, baselines, verdict, warnings)
        self._recipe.save_bundle(
            self._run.bundle,
            networks,
            metrics=metrics.as_json(),
            samples=files,
            calibration=conclusion.calibration,
            verdict=verdict,
            started_from=self.state.started_from,
        )
        self._run.publish_bundle()
        return metrics

    def _named(self, losses: torch.Tensor) -> dict[str, float]:
        return dict(zip(self.state.loss_names, losses.tolist(), strict=True))

    def _log_losses(self, window: Sequence[torch.Tensor]) -> None:
        if self._log is not None and window:
            means = self._named(torch.stack(list(window)).mean(dim=0))
            self._log.scalars(self.state.position.step, means)

    def _tick(self, window: Sequence[torch.Tensor], samples_per_second: float) -> None:
        position = self.state.position
        now = time.monotonic()
        is_due = now - self._last_tick >= self._tick_seconds or position.step >= self._total_steps
        if not (self._worker.is_leader and is_due):
            return
        self._last_tick = now
        losses = self._named(torch.stack(list(window)).mean(dim=0))
        tick = Tick(
            epoch=position.epoch + 1,
            epochs=self._settings.epochs,
            step=position.step,
            steps=self._total_steps,
            images_per_second=samples_per_second,
            seconds_left=(self._total_steps - position.step) * self._size.step / samples_per_second,
            values=losses,
            samples=f"{self._recipe.sample}s",
        )
        assert self._log is not None
        self._log.progress(tick)
        shown = self._recipe.progress_losses or losses
        self._display.tick(replace(tick, values={name: losses[name] for name in losses if name in shown}))


def _open_log(settings: TrainSettings, run: Run, step: int, display: Display) -> TrainingLog:
    tracked = TrackedRun(run.folder, step, flatten(settings))
    metrics = None
    if (server := settings.loop.metrics_server) is not None:
        metrics = TrainingMetrics.serve(run.name, server)
        display.note(f"metrics: {server.address(metrics.port)}")
    return TrainingLog(run, open_trackers(settings.track, tracked, display.note), metrics)


def _is_power_of_ten(number: int) -> bool:
    return number >= 10 and str(number).strip("0") == "1"
