"""How the CPUs and GPUs are shared out among the trials of a sweep."""

from __future__ import annotations

import math
from dataclasses import dataclass

from genray.errors import ResourceError
from genray.targets import Resources

_ROUNDING = 1e-6  # so that three trials of 1/3 fit


@dataclass(frozen=True)
class TrialResources:
    """How many trials run at a time, and what each of them has."""

    trials: int
    each: Resources


def share_out(have: Resources, most: int, cpus: float | None, gpus: float) -> TrialResources:
    """As many trials side by side as there is room for, and no more CPUs promised than there are.

    Args:
        have: what there is.
        most: no more trials than this.
        cpus: of each; None: an equal part of a node's, whole ones, at least one.
        gpus: of each; a part of one, or whole ones.

    Raises:
        ResourceError: not even one fits.
    """
    cpus_per_node = have.cpus / have.nodes
    gpus_per_node = math.ceil(have.gpus / have.nodes)  # of a node that has any: not every one may
    _check_trial_fits(cpus, gpus, cpus_per_node, gpus_per_node)
    if gpus >= 1:  # those of a trial are of one node
        most = min(most, int(min(have.gpus // gpus, gpus_per_node // gpus * have.nodes)))
    elif gpus:  # a part is one of the same GPU
        most = min(most, int(math.floor(1 / gpus + _ROUNDING) * have.gpus))
    trials_per_node = max(1, -(-most // have.nodes))
    cpus = cpus or max(min(1.0, cpus_per_node), math.floor(cpus_per_node / trials_per_node))
    trials = min(most, math.floor(cpus_per_node / cpus + _ROUNDING) * have.nodes)
    return TrialResources(trials, Resources(cpus=cpus, gpus=gpus))


def _check_trial_fits(cpus: float | None, gpus: float, cpus_per_node: float, gpus_per_node: int) -> None:
    if gpus > gpus_per_node:
        raise ResourceError(
            f"a trial with {gpus:g} GPUs: a machine has {gpus_per_node}",
            where="sweep.gpus_per_trial",
            hint="set sweep.gpus_per_trial=0 and sweep.settings.device.gpu=false to train on CPUs",
        )
    if cpus is not None and cpus > cpus_per_node:
        raise ResourceError(
            f"a trial with {cpus:g} CPUs: a machine has {cpus_per_node:g}",
            where="sweep.cpus_per_trial",
            hint=f"set it to at most {cpus_per_node:g}, or leave it out",
        )
