"""How the CPUs and GPUs are shared out among the trials of a sweep."""

from __future__ import annotations

import math
from dataclasses import dataclass

from genray.errors import ResourceError
from genray.resources import Resources


@dataclass(frozen=True)
class Share:
    """How many trials run at a time, and what each of them has."""

    trials: int
    each: Resources


def share_out(have: Resources, most: int, cpus: float | None, gpus: float) -> Share:
    """As many trials side by side as there is room for, and no more CPUs promised than there are.

    Args:
        have: what there is.
        most: no more trials than this.
        cpus: of each; None: an equal part of a node's, whole ones, at least one.
        gpus: of each; a part of one, or whole ones.

    Raises:
        ResourceError: not even one fits.
    """
    node_gpus = math.ceil(have.gpus / have.nodes)  # of a node that has any: not every one may
    if gpus > node_gpus:
        raise ResourceError(
            f"a trial with {gpus:g} GPUs: a machine has {node_gpus}",
            where="sweep.gpus_per_trial",
            hint="set sweep.gpus_per_trial=0 and sweep.settings.device.gpu=false to train on CPUs",
        )
    node = have.cpus / have.nodes
    if cpus is not None and cpus > node:
        raise ResourceError(
            f"a trial with {cpus:g} CPUs: a machine has {node:g}",
            where="sweep.cpus_per_trial",
            hint=f"set it to at most {node:g}, or leave it out",
        )
    if gpus:
        # A trial's GPUs are those of one node; a part is one of the same GPU.
        if gpus < 1:
            fitting = math.floor(1 / gpus + 1e-6) * have.gpus
        else:
            fitting = min(have.gpus // gpus, node_gpus // gpus * have.nodes)
        most = min(most, int(fitting))
    beside = max(1, -(-most // have.nodes))
    each = cpus or max(min(1.0, node), math.floor(node / beside))
    trials = min(most, math.floor(node / each + 1e-6) * have.nodes)
    return Share(trials, Resources(cpus=each, gpus=gpus))
