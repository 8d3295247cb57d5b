"""Sweeps of tiny trainings, prepared as `genray submit` would."""

from pathlib import Path

from genray.settings.base import absolute
from genray.settings.load import load
from jobs.sweep import TARGET
from jobs.sweeping.run import PreparedSweep, SweepSettings


def sweep_settings(folder: Path, shared: list[str], *sets: str) -> SweepSettings:
    """Settings of a sweep of train-pix2pix; `shared` are those of all trials."""
    own = [f"sweep.settings.{text}" for text in shared if not text.startswith("runs=")]
    sure = [f"runs={folder / 'runs'}", "sweep.target=train-pix2pix", *own]
    return absolute(load(SweepSettings, target="sweep", sets=[*sure, *sets]))


def prepare_sweep(folder: Path, shared: list[str], *sets: str, name: str = "a") -> PreparedSweep:
    sweep, settings = TARGET.compose(sweep_settings(folder, shared, *sets), load)
    return sweep.prepare(settings, "sweep", name, lambda text: None)
