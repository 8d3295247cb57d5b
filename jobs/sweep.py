"""A sweep: one training target with many settings, which are found to be right before any trial starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from genray.errors import SettingsError
from genray.settings.base import Settings, absolute, flatten, nested
from jobs.runs.run import Run
from jobs.sweeping.run import PreparedSweep, SweepSettings, prepare_sweep
from jobs.sweeping.space import Point, find_points, point_names
from jobs.sweeping.trials import Trial, find_training
from jobs.training.settings import TrainSettings
from jobs.training.target import Training

# Settings beside those of the data that say whether the data can be trained on.
_DATA_DEPENDS_ON = {"model.kind", "loop.batch_size", "loop.accumulate"}


class SweepTarget:
    """What the command needs of the sweep."""

    settings_class = SweepSettings

    def compose(self, settings: SweepSettings, load: Callable[..., Any]) -> tuple[Sweep, SweepSettings]:
        """The sweep of one target, and `settings` with the paths in it made absolute.

        Raises:
            UsageError: there is no such target, nothing to sweep, or a trial's settings are wrong.
        """
        sweep = Sweep(find_training(settings.sweep.target), load)
        return sweep, sweep.absolute(settings)


class Sweep:
    """The sweep of one target.

    Args:
        training: the target.
        load: makes its settings, see `genray.settings.load.load`.
    """

    settings_class: type[Settings] = SweepSettings

    def __init__(self, training: Training[Any], load: Callable[..., Any]) -> None:
        self.training = training
        self._load = load

    def absolute(self, settings: SweepSettings) -> SweepSettings:
        """`settings` with every path in those of the trials made absolute; for this all are checked."""
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
        """Open the data of the trials and find everything that is wrong with it and the settings.

        Raises:
            UsageError: the sweep, or one of its trials, cannot work.
        """
        run = Run.named(settings.runs, name, target)
        trials = self.find_trials(settings, run)
        lines = self._check_data(trials, settings.sweep.target, note)
        return prepare_sweep(settings, self.training, run, trials, lines)

    def find_trials(self, settings: SweepSettings, run: Run) -> list[Trial]:
        """The trials, with their runs inside that of the sweep.

        Raises:
            SettingsError: a trial's settings are wrong.
        """
        runs = str(run.folder / "trials")
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
        """The points of the space, with the settings that each makes of the target's."""
        sweep = settings.sweep
        points = find_points(sweep.space, sweep.samples, settings.seed)
        if "runs" in sweep.settings or "runs" in points[0]:
            raise SettingsError(
                "the runs of the trials are inside the sweep's", where="sweep.settings.runs", hint="give runs"
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
                "a trial trains in one process; trials run side by side",
                where=f"loop.workers of trial {name}",
                hint="leave out loop.workers; sweep.cpus_per_trial says how much each takes",
            )
        return loaded

    def _check_data(self, trials: Sequence[Trial], target: str, note: Callable[[str], None]) -> Sequence[str]:
        """Open the data as the trials will, once for all that read the same; returns what the first reads."""
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
                    "the data would be streamed by Ray Data, for which trials leave no room",
                    where="sweep.settings.data",
                    hint="set sweep.settings.data.loader=memory, or take less data",
                )
            lines.append(prepared.lines)
        return lines[0]


TARGET = SweepTarget()
