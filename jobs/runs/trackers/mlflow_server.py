"""Log on an MLflow server, whose address is in MLFLOW_TRACKING_URI; its user and password are in MLflow's own
variables."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from jobs.runs.trackers.base import TrackedRun

# MLflow's own values make a training wait for hours for a server that is gone.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
_MOST_PARAMS = 100  # parameters of one request
_LONGEST = 6000  # characters of a parameter


class MlflowServer:
    """Logs to one run of an experiment: that of MLFLOW_EXPERIMENT_NAME, else "genray".

    Args:
        client: client of the server.
        run_id: the run's identity there.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self._client = client
        self._run_id = run_id

    @classmethod
    def open(cls, run: TrackedRun) -> Self:
        """Make the run on the server, or continue it."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "genray")
        experiment = client.get_experiment_by_name(name)

        def make() -> str:
            where = experiment.experiment_id if experiment else client.create_experiment(name)
            run_id = str(client.create_run(where, run_name=run.name).info.run_id)
            params = [Param(key, str(value)[:_LONGEST]) for key, value in run.settings.items()]
            for at in range(0, len(params), _MOST_PARAMS):
                client.log_batch(run_id, params=params[at : at + _MOST_PARAMS])
            return run_id

        run_id = run.identity("mlflow", make)
        client.set_terminated(run_id, "RUNNING")
        return cls(client, run_id)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run_id, metrics=[Metric(name, value, now, step) for name, value in values.items()]
        )

    def picture(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        self._client.log_image(self._run_id, image, artifact_file=f"{name}/step_{step:08d}.png")

    def text(self, step: int, name: str, text: str) -> None:
        self._client.log_text(self._run_id, text, artifact_file=f"{name}/step_{step:08d}.txt")

    def close(self, *, finished: bool) -> None:
        self._client.set_terminated(self._run_id, "FINISHED" if finished else "KILLED")
