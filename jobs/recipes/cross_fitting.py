"""Cross-fitting: errors of samples by networks that were not trained on them, for valid thresholds.

A network's errors on its own training samples are too small, and a threshold from them gives false alarms. So
the samples are split into folds, and each fold is scored by a network that was trained on all others, with
the recipe of the final network (as in the jackknife+ of Barber et al. 2021).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import AveragedModel

from genray.datasets.loader import epoch_order
from genray.errors import Diverged, TrainingError
from jobs.runs.run import Run
from jobs.training import checkpoint as checkpoints
from jobs.training.follow_up import FollowUp
from jobs.training.optimisation.optimizer import OptimizerSettings
from jobs.training.optimisation.update import is_averaging_step, moving_average
from jobs.training.schedule import learning_rate_factor
from jobs.training.settings import LoopSettings

_SAMPLES_AT_ONCE = 8192  # samples in a batch when scoring

SampleLosses = Callable[[nn.Module, torch.Tensor], torch.Tensor]
"""From a network and a batch (N, ...) to the losses of its samples, (N,)."""


def folds_of(
    groups: NDArray[np.int64], folds: int, seed: int, likeness: NDArray[np.floating]
) -> list[NDArray[np.int64]]:
    """Split the indices 0 to len(groups) - 1 into `folds` parts of about equal size, each group in one part;
    at most as many parts as groups. A single group is split by its samples.

    Args:
        groups: group of each sample; samples of a group are alike, so that one network must not see both
            sides.
        folds: number of parts.
        seed: seed of the draw.
        likeness: a number for each sample, close for samples that are alike. If every sample is a group of
            its
            own, or all are in one, neighbours go into different parts: otherwise the few rare samples could
            all be in one part, and the quantiles would depend on the draw.
    """
    rng = np.random.default_rng([seed, 0xF01D])
    _, group_of, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(counts) in (1, len(groups)):
        return _folds_of_samples(min(folds, len(groups)), rng, likeness)
    folds = min(folds, len(counts))
    sizes = np.zeros(folds)
    fold_of = np.zeros(len(counts), np.int64)  # number of samples of each group
    order = rng.permutation(len(counts))
    for group in order[
        np.argsort(-counts[order], kind="stable")
    ]:  # the largest group first, into the smallest fold
        fold_of[group] = np.argmin(sizes)
        sizes[fold_of[group]] += counts[group]
    return [np.flatnonzero(fold_of[group_of] == fold) for fold in range(folds)]


def _folds_of_samples(
    folds: int, rng: np.random.Generator, likeness: NDArray[np.floating]
) -> list[NDArray[np.int64]]:
    """Split by likeness: each run of `folds` neighbours goes into as many different folds."""
    count = len(likeness)
    rounds = [rng.permutation(folds) for _ in range(-(-count // folds))]
    fold_of = np.concatenate(rounds)[:count]
    order = np.argsort(likeness, kind="stable")
    return [np.sort(order[fold_of == fold]) for fold in range(folds)]


def first_component(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the first principal component of each of `samples` (N, ...), (N,)."""
    flat = samples.reshape(len(samples), -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    place: NDArray[np.float64] = flat @ np.linalg.eigh(flat.T @ flat)[1][:, -1]
    return place


@dataclass(frozen=True, kw_only=True)
class CrossFit:
    """Trains a network for each fold, in the way the loop trains the final one.

    Attributes:
        make_network: makes a new network; torch's generator is seeded before.
        loss: loss that training minimises.
        error: error to compute.
        optimizer: settings of each network's optimizer.
        fused: whether to use the fused optimizer kernel.
        loop: settings of the loop.
        repeats: times that an epoch repeats each sample.
        seed: seed of weights, order and noise.
        settings: further settings that the errors depend on; errors stored with others are discarded.
    """

    make_network: Callable[[], nn.Module]
    loss: SampleLosses
    error: SampleLosses
    optimizer: OptimizerSettings
    fused: bool
    loop: LoopSettings
    repeats: int
    seed: int
    settings: Mapping[str, Any]

    def errors(
        self,
        samples: NDArray[np.float32],
        folds: Sequence[NDArray[np.int64]],
        work: FollowUp,
        save: Callable[[int, nn.Module], None] = lambda fold, network: None,
    ) -> NDArray[np.float64]:
        """Return the errors of `samples` (N, ...), (N,), each by the network of its fold. The run stores the
        errors of each fold: it is not trained again after a stop, nor for another kind of threshold. `save`
        gets the network of each fold that is trained.

        Raises:
            Interrupted: a stop was requested.
            Diverged: an error is NaN or infinite.
        """
        kept = _FoldErrors.read(work.run, self._fingerprint(samples, folds, work))
        placed = torch.from_numpy(samples).to(work.device.where)
        missing = [number for number in range(len(folds)) if number not in kept.errors]
        steps = {n: work.epoch * self._steps_per_epoch(len(samples) - len(folds[n])) for n in missing}
        progress = _Progress(work, sum(steps.values()))
        for number in missing:
            fold = folds[number]
            rest = np.setdiff1d(np.arange(len(samples)), fold)
            network = self._train(_take(placed, rest), number, progress)
            save(number, network)
            kept.add(number, self._score(network, _take(placed, fold), work))
        errors = np.empty(len(samples))
        for number, fold in enumerate(folds):
            errors[fold] = kept.errors[number]
        if not np.isfinite(errors).all():
            raise Diverged(
                "the networks of the threshold (threshold.folds) gave errors that are NaN or infinite",
                where=work.run.location,
                hint="try a lower optimizer.learning_rate with another --name, or threshold.folds=0",
            )
        return errors

    def _fingerprint(
        self, samples: NDArray[np.float32], folds: Sequence[NDArray[np.int64]], work: FollowUp
    ) -> str:
        """Return a fingerprint of everything that the errors depend on."""
        chosen = [work.epoch, self.seed, self.repeats, self.loop.model_dump(mode="json"), self.settings]
        digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode())
        arrays: list[NDArray[Any]] = [samples, *folds]
        for array in arrays:
            digest.update(f"{array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def _batch_size(self, count: int) -> int:
        """Return the samples of a step: as many as all workers of the loop take together, at most `count`."""
        together = self.loop.batch_size * self.loop.accumulate * self.loop.worker_range[1]
        return min(together, count * self.repeats)

    def _steps_per_epoch(self, count: int) -> int:
        return count * self.repeats // self._batch_size(count)

    def _train(self, samples: torch.Tensor, number: int, progress: _Progress) -> nn.Module:
        """Train the network of fold `number` on the samples of all others."""
        work = progress.work
        torch.manual_seed(int(np.random.SeedSequence([self.seed, number, 0xF01D]).generate_state(1)[0]))
        network = work.device.place(self.make_network()).train()
        optimizer = self.optimizer.make(network, fused=self.fused)
        loop = self.loop
        average = AveragedModel(network, multi_avg_fn=moving_average(loop.ema)) if loop.ema else None
        batch = self._batch_size(len(samples))
        per_epoch = self._steps_per_epoch(len(samples))
        step = 0
        for epoch in range(work.epoch):
            order = epoch_order(len(samples) * self.repeats, self.seed + number + 1, epoch) % len(samples)
            places = torch.from_numpy(order).to(work.device.where)
            for i in range(per_epoch):
                factor = learning_rate_factor((epoch + (i + 0.5) / per_epoch) / loop.epochs, loop)
                for group in optimizer.param_groups:
                    group["lr"] = self.optimizer.learning_rate * factor
                with work.device.autocast():
                    loss = self.loss(network, samples[places[i * batch : (i + 1) * batch]]).mean()
                loss.backward()  # type: ignore[no-untyped-call]
                if loop.clip is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), loop.clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                step += 1
                if average is not None and is_averaging_step(step):
                    average.update_parameters(network)
                progress.report_step(batch)
        return (average.module if average is not None else network).eval()

    def _score(self, network: nn.Module, samples: torch.Tensor, work: FollowUp) -> NDArray[np.float64]:
        with torch.inference_mode(), work.device.autocast():
            parts = torch.split(samples, _SAMPLES_AT_ONCE)
            errors = [self.error(network, part).float().cpu() for part in parts]
        return torch.cat(errors).numpy().astype(np.float64)


def _take(samples: torch.Tensor, places: NDArray[np.int64]) -> torch.Tensor:
    return samples[torch.from_numpy(places).to(samples.device)]


@dataclass
class _Progress:
    """Counts the steps of all folds that are still trained."""

    work: FollowUp
    steps: int
    done: int = 0

    def report_step(self, samples: int) -> None:
        self.done += 1
        self.work.report_step(self.done, self.steps, samples, "calibration step")


@dataclass
class _FoldErrors:
    """Errors of the finished folds, by number, in a file of the run."""

    run: Run
    fingerprint: str
    errors: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def read(cls, run: Run, fingerprint: str) -> _FoldErrors:
        """Read the errors of the file; none if they have another fingerprint or are damaged."""
        run.fetch(_file_of(run))
        try:
            saved = checkpoints.read(_file_of(run))
        except TrainingError:
            saved = None
        if saved is None or saved.state.get("key") != fingerprint:
            return cls(run, fingerprint)
        return cls(run, fingerprint, {int(n): tensor.numpy() for n, tensor in saved.tensors.items()})

    def add(self, number: int, errors: NDArray[np.float64]) -> None:
        self.errors[number] = errors
        file = _file_of(self.run)
        file.parent.mkdir(parents=True, exist_ok=True)
        tensors = {str(n): torch.from_numpy(array) for n, array in self.errors.items()}
        checkpoints.write(file, checkpoints.Checkpoint(tensors, {"key": self.fingerprint}))
        self.run.send(file)


def _file_of(run: Run) -> Path:
    return run.checkpoints / "folds.safetensors"
