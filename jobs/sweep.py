"""A sweep: one training target with many settings, which are found to be right before any trial starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from genray.errors import SettingsError
from genray.settings.base import Settings, absolute, flatten, nested
from jobs.runs.run import Run
from jobs.sweeping.run import PreparedSweep, SweepSettings
from jobs.sweeping.space import Point, find_points, point_names
from jobs.sweeping.trials import Trial, find_training
from jobs.training.settings import TrainSettings
from jobs.training.target import Training


class Sweeping:
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
        self._training = training
        self._load = load

    def absolute(self, settings: SweepSettings) -> SweepSettings:
        """`settings` with every path in those of the trials made absolute; for this all are checked."""
        shared, space = flatten(settings.sweep.settings), flatten(settings.sweep.space)
        for point, loaded in self._points(settings):
            before, after = flatten(loaded), flatten(absolute(loaded))
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
        points, loaded = zip(*self._points(settings), strict=True)
        runs = str(run.folder / "trials")
        trials = [
            Trial(point, each.model_copy(update={"runs": runs}), Run.named(runs, name, settings.sweep.target))
            for point, each, name in zip(points, loaded, point_names(points), strict=True)
        ]
        return PreparedSweep(settings, self._training, run, trials, self._check_data(trials, settings, note))

    def _points(self, settings: SweepSettings) -> Iterable[tuple[Point, TrainSettings]]:
        """The points of the space, with the settings that each makes of the target's."""
        sweep = settings.sweep
        points = find_points(sweep.space, sweep.samples, settings.seed)
        if "runs" in sweep.settings or "runs" in points[0]:
            raise SettingsError(
                "the runs of the trials are inside the sweep's", where="sweep.settings.runs", hint="give runs"
            )
        for point, name in zip(points, point_names(points), strict=True):
            values = {"seed": settings.seed, **flatten(sweep.settings), **point}
            sets = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
            try:
                loaded: TrainSettings = self._load(
                    self._training.settings_class, target=sweep.target, sets=sets
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
            yield point, loaded

    def _check_data(
        self, trials: Sequence[Trial], settings: SweepSettings, note: Callable[[str], None]
    ) -> Sequence[str]:
        """Open the data as the trials will, once for all that read the same; returns what it is."""
        lines: list[Sequence[str]] = []
        seen = set()
        for trial in trials:
            values = flatten(trial.settings)
            kind = {k: v for k, v in values.items() if k.startswith("data.") or k in _DATA_DEPENDS_ON}
            if (key := json.dumps(kind, sort_keys=True)) in seen:
                continue
            seen.add(key)
            prepared = self._training.prepare(trial.settings, settings.sweep.target, trial.run.name, note)
            if prepared.needs_ray(attached=False):
                raise SettingsError(
                    "the data would be streamed by Ray Data, for which trials leave no room",
                    where="sweep.settings.data",
                    hint="set sweep.settings.data.loader=memory, or take less data",
                )
            lines.append(prepared.lines)
        return lines[0]


_DATA_DEPENDS_ON = {"model.kind", "loop.batch_size", "loop.accumulate"}

TARGET = Sweeping()
