"""Log for Weights & Biases: files in the run's folder, which `wandb sync` uploads; with WANDB_MODE=online its
server."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from jobs.runs.trackers.base import TrackedRun

# No account and no connection unless the user asks for them.
_ENVIRONMENT = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


class WandbFiles:
    """Logs to one run of a project: that of WANDB_PROJECT, else "genray". Nothing about the machine, its user
    or the repository is logged.

    Args:
        run: run of the library.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    @classmethod
    def open(cls, run: TrackedRun) -> Self:
        """Begin the run, or continue it."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import wandb

        logged = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "genray"),
            name=run.name,
            id=run.identity("wandb", lambda: secrets.token_hex(8)),
            resume="allow",
            dir=run.folder,
            config=dict(run.settings),
            settings=wandb.Settings(
                console="off",
                disable_git=True,
                save_code=False,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        # Steps of our own: a resumed run repeats some, which the library's counter does not allow.
        logged.define_metric("*", step_metric="step")
        return cls(logged)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        import wandb

        self._run.log({name: wandb.Image(image), "step": step})

    def text(self, step: int, name: str, text: str) -> None:
        import wandb

        table = wandb.Table(columns=["step", name], data=[[step, text]])
        self._run.log({name: table, "step": step})

    def close(self, *, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)
