"""Sweeps of tiny trainings, prepared as `genray submit` would, and what trials leave in their runs."""

import json
from pathlib import Path

from genray.io.files import write_text
from genray.settings.base import absolute
from genray.settings.load import load
from jobs.runs.run import Run
from jobs.sweep import TARGET
from jobs.sweeping.run import PreparedSweep, SweepSettings
from jobs.sweeping.run import prepare_sweep as prepare

METRIC = "val_l1"


def sweep_settings(folder: Path, shared: list[str], *sets: str) -> SweepSettings:
    """Settings of a sweep of train-pix2pix; `shared` are those of all trials."""
    own = [f"sweep.settings.{text}" for text in shared if not text.startswith("runs=")]
    sure = [f"runs={folder / 'runs'}", "sweep.target=train-pix2pix", *own]
    return absolute(load(SweepSettings, target="sweep", sets=[*sure, *sets]))


def prepare_sweep(folder: Path, shared: list[str], *sets: str, name: str = "a") -> PreparedSweep:
    sweep, settings = TARGET.compose(sweep_settings(folder, shared, *sets), load)
    return sweep.prepare(settings, "sweep", name, lambda text: None)


def prepare_without_data(folder: Path, shared: list[str], *sets: str) -> PreparedSweep:
    """As `prepare_sweep`, without a look at the data of the trials."""
    sweep, settings = TARGET.compose(sweep_settings(folder, shared, *sets), load)
    run = Run.named(settings.runs, "a", "sweep")
    return prepare(settings, sweep.training, run, sweep.find_trials(settings, run), ["no data"])


def write_rows(run: Run, *values: float) -> None:
    """A history with these values of `METRIC`."""
    rows = [{"epoch": i + 1, METRIC: value, "seconds": 2.0} for i, value in enumerate(values)]
    run.folder.mkdir(parents=True, exist_ok=True)
    write_text(run.history, "".join(json.dumps(row) + "\n" for row in rows))
