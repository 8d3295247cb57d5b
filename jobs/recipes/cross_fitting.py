"""Errors of samples by networks that did not learn them (cross-fitting), for thresholds that hold.

The errors of the samples that a network learned are too small, and a threshold from them gives false alarms
from the first day. So the samples are parted into folds; each fold is scored by a network that was trained
on all others with the recipe of the network that is kept (as in the jackknife+ of Barber et al. 2021).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from genray.datasets.loader import epoch_order
from genray.errors import Diverged, TrainingError
from jobs.runs.run import Run
from jobs.training import checkpoint as checkpoints
from jobs.training.recipe import FollowUp
from jobs.training.settings import LoopSettings
from jobs.training.update import averages_now, moving_average, rate_factor

Loss = Callable[[nn.Module, torch.Tensor], torch.Tensor]
"""A network and a batch (N, ...) to the losses of its samples, (N,)."""


def folds_of(
    groups: NDArray[np.int64], folds: int, seed: int, likeness: NDArray[np.floating]
) -> list[NDArray[np.int64]]:
    """The places 0 to len(groups) - 1 in `folds` parts of about one size, each group in one part; at most as
    many parts as groups. Of a single group the samples are parted.

    Args:
        groups: of each sample; those of a group are alike: a network that learned some knows the others.
        folds: how many parts.
        seed: of the draw.
        likeness: of each sample a number that is near for samples that are alike. Where every sample is a
            group of its own, or all are of one, neighbours go into different parts: few rare samples
            would else be all in one, and the quantiles depend on the draw.
    """
    rng = np.random.default_rng([seed, 0xF01D])
    names, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) in (1, len(groups)):
        folds = min(folds, len(groups))
        part = np.concatenate([rng.permutation(folds) for _ in range(-(-len(groups) // folds))])[
            : len(groups)
        ]
        order = np.argsort(likeness, kind="stable")
        return [np.sort(order[part == i]) for i in range(folds)]
    folds = min(folds, len(names))
    sizes, part_of = np.zeros(folds), np.zeros(len(names), np.int64)
    order = rng.permutation(len(names))
    for name in order[np.argsort(-counts[order], kind="stable")]:  # the largest first, to the smallest part
        part_of[name] = np.argmin(sizes)
        sizes[part_of[name]] += counts[name]
    return [np.flatnonzero(part_of[inverse] == i) for i in range(folds)]


def first_component(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """The place of each of `samples` (N, ...) along the direction in which they differ most, (N,)."""
    flat = samples.reshape(len(samples), -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    place: NDArray[np.float64] = flat @ np.linalg.eigh(flat.T @ flat)[1][:, -1]
    return place


class CrossFit:
    """Trains a network for each fold, as the loop trains the one that is kept.

    Args:
        make: a new network; torch's generator has been seeded.
        optimizer: makes the optimizer of a network, and says its learning rate.
        learn: the losses that are minimised.
        score: the errors that are wanted.
        loop: settings of the loop.
        repeats: how often an epoch comes to each sample.
        seed: of weights, order and noise.
        settings: what else the errors depend on; those of folds that were done with others are not kept.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        optimizer: tuple[Callable[[nn.Module], Optimizer], float],
        learn: Loss,
        score: Loss,
        *,
        loop: LoopSettings,
        repeats: int,
        seed: int,
        settings: Mapping[str, Any],
    ) -> None:
        self._make, self._optimizer, self._rate = make, *optimizer
        self._learn, self._score = learn, score
        self._loop, self._repeats, self._seed = loop, repeats, seed
        self._settings = settings

    def errors(
        self, samples: NDArray[np.float32], folds: Sequence[NDArray[np.int64]], work: FollowUp
    ) -> NDArray[np.float64]:
        """The errors of `samples` (N, ...), (N,), each by the network of its fold. Those of a fold are kept
        in the run: it is not trained again after a stop, nor for another kind of threshold.

        Raises:
            Interrupted: a stop was requested.
            Diverged: a network gives no numbers.
        """
        kept = _Kept(work.run, self._key(samples, folds, work))
        whole = torch.from_numpy(samples).to(work.where)
        missing = [number for number in range(len(folds)) if number not in kept.errors]
        steps = {n: work.epoch * self._per_epoch(len(samples) - len(folds[n])) for n in missing}
        done = 0
        for number in missing:
            fold = folds[number]
            rest = np.setdiff1d(np.arange(len(samples)), fold)
            network = self._trained(
                whole[torch.from_numpy(rest).to(work.where)], number, done, sum(steps.values()), work
            )
            kept.add(number, self._scored(network, whole[torch.from_numpy(fold).to(work.where)], work))
            done += steps[number]
        errors = np.empty(len(samples))
        for number, fold in enumerate(folds):
            errors[fold] = kept.errors[number]
        if not np.isfinite(errors).all():
            raise Diverged(
                "the networks that set the threshold gave errors that are no numbers",
                where=str(work.run.folder),
                hint="try a lower learning rate under another --name, or threshold.folds=0",
            )
        return errors

    def _key(self, samples: NDArray[np.float32], folds: Sequence[NDArray[np.int64]], work: FollowUp) -> str:
        chosen = [work.epoch, self._seed, self._repeats, self._loop.model_dump(mode="json"), self._settings]
        digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode())
        arrays: list[NDArray[Any]] = [samples, *folds]
        for array in arrays:
            digest.update(f"{array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def _batch(self, count: int) -> int:
        together = self._loop.batch_size * self._loop.accumulate * self._loop.worker_range[1]
        return min(together, count * self._repeats)

    def _per_epoch(self, count: int) -> int:
        return count * self._repeats // self._batch(count)

    def _trained(
        self, samples: torch.Tensor, number: int, done: int, steps: int, work: FollowUp
    ) -> nn.Module:
        torch.manual_seed(int(np.random.SeedSequence([self._seed, number, 0xF01D]).generate_state(1)[0]))
        network = work.device.place(self._make()).train()
        optimizer, loop = self._optimizer(network), self._loop
        average = AveragedModel(network, multi_avg_fn=moving_average(loop.ema)) if loop.ema else None
        batch, per_epoch = self._batch(len(samples)), self._per_epoch(len(samples))
        step = 0
        for epoch in range(work.epoch):
            order = epoch_order(len(samples) * self._repeats, self._seed + number + 1, epoch) % len(samples)
            places = torch.from_numpy(order).to(work.where)
            for i in range(per_epoch):
                factor = rate_factor((epoch + (i + 0.5) / per_epoch) / loop.epochs, loop)
                for group in optimizer.param_groups:
                    group["lr"] = self._rate * factor
                with work.device.autocast():
                    loss = self._learn(network, samples[places[i * batch : (i + 1) * batch]]).mean()
                loss.backward()  # type: ignore[no-untyped-call]
                if loop.clip is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), loop.clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                step += 1
                if average is not None and averages_now(step):
                    average.update_parameters(network)
                work.step(done + step, steps, batch, "calibration step")
        return (average.module if average is not None else network).eval()

    def _scored(self, network: nn.Module, samples: torch.Tensor, work: FollowUp) -> NDArray[np.float64]:
        with torch.inference_mode(), work.device.autocast():
            errors = [self._score(network, part).float().cpu() for part in torch.split(samples, _AT_ONCE)]
        return torch.cat(errors).numpy().astype(np.float64)


class _Kept:
    """The errors of folds, in a file of the run; those of another `key` are forgotten."""

    def __init__(self, run: Run, key: str) -> None:
        self._path, self._key = run.checkpoints / "folds.safetensors", key
        self.errors: dict[int, NDArray[np.float64]] = {}
        try:
            found = checkpoints.read(self._path)
        except TrainingError:  # damaged: they are made again
            found = None
        if found is not None and found.state.get("key") == key:
            self.errors = {int(name): tensor.numpy() for name, tensor in found.tensors.items()}

    def add(self, number: int, errors: NDArray[np.float64]) -> None:
        self.errors[number] = errors
        self._path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {str(n): torch.from_numpy(kept) for n, kept in self.errors.items()}
        checkpoints.write(self._path, checkpoints.Checkpoint(tensors, {"key": self._key}))


_AT_ONCE = 8192
