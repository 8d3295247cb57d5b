"""Shares of CPUs and GPUs for the trials of a sweep."""

from __future__ import annotations

import math
from dataclasses import dataclass

from genray.errors import ResourceError
from genray.targets import Resources

_ROUNDING = 1e-6  # so that three trials of 1/3 fit


@dataclass(frozen=True)
class TrialResources:
    """Number of trials at a time, and the resources of each."""

    trials: int
    each: Resources


def share_out(have: Resources, most: int, cpus: float | None, gpus: float) -> TrialResources:
    """Return how many trials fit side by side, without promising more CPUs than there are.

    Args:
        have: available resources.
        most: largest number of trials.
        cpus: CPUs of each trial; None: an equal share of a node's, whole CPUs, at least one.
        gpus: GPUs of each trial: a fraction of one, or whole ones.

    Raises:
        ResourceError: not even one trial fits.
    """
    cpus_per_node = have.cpus / have.nodes
    gpus_per_node = math.ceil(have.gpus / have.nodes)  # per node that has GPUs: not every node may
    _check_trial_fits(cpus, gpus, cpus_per_node, gpus_per_node)
    if gpus >= 1:  # a trial's GPUs are on one node
        most = min(most, int(min(have.gpus // gpus, gpus_per_node // gpus * have.nodes)))
    elif gpus:  # a fraction is of one GPU
        most = min(most, int(math.floor(1 / gpus + _ROUNDING) * have.gpus))
    trials_per_node = max(1, -(-most // have.nodes))
    cpus = cpus or max(min(1.0, cpus_per_node), math.floor(cpus_per_node / trials_per_node))
    trials = min(most, math.floor(cpus_per_node / cpus + _ROUNDING) * have.nodes)
    return TrialResources(trials, Resources(cpus=cpus, gpus=gpus))


def _check_trial_fits(cpus: float | None, gpus: float, cpus_per_node: float, gpus_per_node: int) -> None:
    if gpus > gpus_per_node:
        raise ResourceError(
            f"a trial needs {gpus:g} GPUs, but a machine has {gpus_per_node}",
            where="sweep.gpus_per_trial",
            hint="to train on CPUs, set sweep.gpus_per_trial=0 and sweep.settings.device.gpu=false",
        )
    if cpus is not None and cpus > cpus_per_node:
        raise ResourceError(
            f"a trial needs {cpus:g} CPUs, but a machine has {cpus_per_node:g}",
            where="sweep.cpus_per_trial",
            hint=f"set it to at most {cpus_per_node:g}, or leave it out",
        )
