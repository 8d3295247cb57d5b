"""The target sweep: one training target with many settings, all checked before any trial starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from genray.errors import SettingsError
from genray.settings.base import Settings, absolute, flatten, nested
from genray.uris import below
from jobs.runs.run import Run
from jobs.sweeping.run import PreparedSweep, SweepSettings, prepare_sweep
from jobs.sweeping.space import Point, find_points, point_names
from jobs.sweeping.trials import Trial, find_training
from jobs.training.settings import TrainSettings
from jobs.training.target import Training

# Settings outside of the group data that the check of the data depends on.
_DATA_DEPENDS_ON = {"model.kind", "loop.batch_size", "loop.accumulate"}


class SweepTarget:
    """The target sweep, as the command uses it."""

    settings_class = SweepSettings

    def compose(self, settings: SweepSettings, load: Callable[..., Any]) -> tuple[Sweep, SweepSettings]:
        """Return the sweep of one target, and `settings` with their paths made absolute.

        Raises:
            UsageError: no such target, nothing to sweep over, or wrong settings of a trial.
        """
        sweep = Sweep(find_training(settings.sweep.target), load)
        return sweep, sweep.absolute(settings)


class Sweep:
    """The sweep of one target.

    Args:
        training: the training target.
        load: loads its settings, see `genray.settings.load.load`.
    """

    settings_class: type[Settings] = SweepSettings

    def __init__(self, training: Training[Any], load: Callable[..., Any]) -> None:
        self.training = training
        self._load = load

    def absolute(self, settings: SweepSettings) -> SweepSettings:
        """Return `settings` with every path of the trials made absolute, after checking them all."""
        shared = flatten(settings.sweep.settings)
        space = flatten(settings.sweep.space)
        for point, loaded in self._settings_of_points(settings):
            before = flatten(loaded)
            after = flatten(absolute(loaded))
            for key in (key for key in after if after[key] != before[key] and key != "runs"):
                if key not in point:
                    shared[key] = after[key]
                elif isinstance(space.get(key), list):
                    space[key] = [after[key] if value == point[key] else value for value in space[key]]
        trials = settings.sweep.model_copy(update={"settings": nested(shared), "space": nested(space)})
        return settings.model_copy(update={"sweep": trials})

    def prepare(
        self, settings: SweepSettings, target: str, name: str | None, note: Callable[[str], None]
    ) -> PreparedSweep:
        """Open the data of the trials, and check it and the settings.

        Raises:
            UsageError: the settings or the data of a trial cannot be used.
        """
        run = Run.named(settings.runs, name, target)
        trials = self.find_trials(settings, run)
        lines = self._check_data(trials, settings.sweep.target, note)
        return prepare_sweep(settings, self.training, run, trials, lines)

    def find_trials(self, settings: SweepSettings, run: Run) -> list[Trial]:
        """Return the trials, whose runs lie inside the run of the sweep.

        Raises:
            SettingsError: wrong settings of a trial.
        """
        runs = below(run.location, "trials")
        pairs = list(self._settings_of_points(settings))
        names = point_names([point for point, _ in pairs])
        return [
            Trial(
                point,
                loaded.model_copy(update={"runs": runs}),
                Run.named(runs, name, settings.sweep.target),
            )
            for (point, loaded), name in zip(pairs, names, strict=True)
        ]

    def _settings_of_points(self, settings: SweepSettings) -> Iterator[tuple[Point, TrainSettings]]:
        """Return the points of the space, each with the target's settings at it."""
        sweep = settings.sweep
        points = find_points(sweep.space, sweep.samples, settings.seed)
        if "runs" in sweep.settings or "runs" in points[0]:
            raise SettingsError(
                "trials cannot have a setting runs: their runs lie inside the sweep's",
                where="sweep.settings.runs",
                hint="set runs of the sweep instead",
            )
        for point, name in zip(points, point_names(points), strict=True):
            yield point, self._load_trial(settings, point, name)

    def _load_trial(self, settings: SweepSettings, point: Point, name: str) -> TrainSettings:
        values = {"seed": settings.seed, **flatten(settings.sweep.settings), **point}
        sets = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
        try:
            loaded: TrainSettings = self._load(
                self.training.settings_class, target=settings.sweep.target, sets=sets
            )
        except SettingsError as error:
            where = f"sweep.settings with sweep.space, trial {name}: {error.where or 'see above'}"
            raise SettingsError(error.what, where=where, hint=error.hint) from None
        if loaded.loop.worker_range != (1, 1):
            raise SettingsError(
                "a trial trains in one process; parallel trials share the machine",
                where=f"loop.workers of trial {name}",
                hint="leave out loop.workers, and set sweep.cpus_per_trial instead",
            )
        return loaded

    def _check_data(self, trials: Sequence[Trial], target: str, note: Callable[[str], None]) -> Sequence[str]:
        """Open the data of the trials, once for all trials that read the same; returns the first trial's."""
        different: dict[str, Trial] = {}
        for trial in trials:
            values = flatten(trial.settings)
            data = {k: v for k, v in values.items() if k.startswith("data.") or k in _DATA_DEPENDS_ON}
            different.setdefault(json.dumps(data, sort_keys=True), trial)
        lines = []
        for trial in different.values():
            prepared = self.training.prepare(trial.settings, target, trial.run.name, note)
            if prepared.needs_ray(attached=False):
                raise SettingsError(
                    ("the data is too large for memory, and trials leave no CPUs to stream it with Ray Data"),
                    where="sweep.settings.data",
                    hint="set sweep.settings.data.loader=memory, or give less data",
                )
            lines.append(prepared.lines)
        return lines[0]


TARGET = SweepTarget()
