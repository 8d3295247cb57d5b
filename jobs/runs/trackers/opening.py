"""Trackers by name: checked before a training, opened when it begins."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec

from genray.errors import SettingsError
from jobs.runs.trackers.base import Expendable, TrackedRun, Tracker, TrackerName
from jobs.runs.trackers.mlflow_server import MlflowServer
from jobs.runs.trackers.tensorboard import TensorBoard
from jobs.runs.trackers.wandb_files import WandbFiles

_OPTIONAL: Mapping[TrackerName, Callable[[TrackedRun], Tracker]] = {
    "mlflow": MlflowServer.open,
    "wandb": WandbFiles.open,
}
"""Trackers that need an extra of the same name."""


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Check that the trackers can be opened.

    Raises:
        SettingsError: a library is not installed, or the address of MLflow's server is missing.
    """
    for name in names:
        if name in _OPTIONAL and find_spec(name) is None:
            raise SettingsError(
                f"{name} is not installed", where="track", hint=f"pip install 'genray[{name}]'"
            )
    if "mlflow" in names and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise SettingsError(
            "mlflow needs the address of its server in the environment variable MLFLOW_TRACKING_URI",
            where="track",
            hint="export MLFLOW_TRACKING_URI=http://localhost:5000",
        )


def open_trackers(
    names: Sequence[TrackerName], run: TrackedRun, note: Callable[[str], None]
) -> list[Tracker]:
    """Open the trackers. An error of TensorBoard's files is that of a full disk, and raised; those of the
    others are shown, and end only that tracker.

    Raises:
        StorageFull: no space.
    """
    return [
        Expendable.begin(name, partial(_OPTIONAL[name], run), note)
        if name in _OPTIONAL
        else TensorBoard.open(run)
        for name in dict.fromkeys(names)
    ]
