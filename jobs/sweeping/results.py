"""What a sweep ends with: a table of its trials, the best first, and quality against what was swept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from genray.images.pixels import save_png
from genray.io.files import write_json, write_text
from genray.report.charts import draw_tradeoff
from genray.report.page import Page, Picture
from genray.text import duration
from jobs.runs.report import exact, finite, optional, plain
from jobs.runs.run import Run
from jobs.sweeping.space import is_number, short_names
from jobs.sweeping.trials import Mode, TrialResult

Spot = tuple[Any, str, float]  # where on the axis, what else was swept, how good
Curve = list[tuple[Any, float]]

_MOST_CURVES = 10


class SweepResults:
    """The trials of a sweep, ordered by the metric; those without it come last.

    Args:
        trials: in any order.
        metric: of the rows of their histories, such as val_mse.
        mode: whether a smaller or a larger one is better.
    """

    def __init__(self, trials: Sequence[TrialResult], metric: str, mode: Mode) -> None:
        sign = 1.0 if mode == "min" else -1.0
        self.trials = sorted(trials, key=lambda t: (t.value is None, sign * (t.value or 0.0)))
        self.metric = metric
        self._mode = mode
        self._judged = metric.removeprefix("val_")  # the final weights' metrics are called so

    @property
    def best(self) -> TrialResult | None:
        """The best of those that finished: they have a bundle."""
        return next((t for t in self.trials if t.status == "finished" and t.value is not None), None)

    def outcome(self, run: Run) -> dict[str, Any]:
        """Of the sweep, as plain JSON values."""
        best = self.best
        return {
            "target": "sweep",
            "name": run.name,
            "run": str(run.folder),
            "metric": self.metric,
            "mode": self._mode,
            "best": best
            and {"settings": best.settings, "run": best.run, "bundle": best.bundle, "metric": best.value},
            "trials": [asdict(trial) for trial in self.trials],
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows: what was swept, the metric, what the final weights come to beside the
        baselines, epochs, time, status."""
        keys = list(dict.fromkeys(key for trial in self.trials for key in trial.settings))
        shorts = short_names(keys)
        judged = [self._judged] if any(self._judged in trial.metrics for trial in self.trials) else []
        baselines = self._baselines()
        columns = [*(shorts[key] for key in keys), self.metric, *judged]
        columns += [*(f"{name} {self._judged}" for name in baselines), "epochs", "time", "status"]
        rows = []
        for trial in self.trials:
            cells = [exact(trial.settings.get(key)) for key in keys]
            cells.append(optional(trial.value))
            cells += [optional(trial.metrics.get(name)) for name in judged]
            cells += [optional(trial.baselines.get(name, {}).get(self._judged)) for name in baselines]
            rows.append([*cells, str(trial.epochs), duration(trial.seconds), trial.status])
        return columns, rows

    def write(self, run: Run, settings: Mapping[str, Any]) -> None:
        """Write `sweep.json`, `quality.png` (once a trial has finished) and `report.html` of the sweep.

        Raises:
            StorageFull: no room.
        """
        write_json(run.folder / "sweep.json", self.outcome(run))
        page = Page(run.name, f"sweep of {settings['sweep.target']}, {self._counts()}")
        if best := self.best:
            words = ", ".join(f"{key} {exact(value)}" for key, value in best.settings.items())
            page.headline([(f"best {self.metric}", plain(best.value), words)])
            page.paragraph(f"Its bundle: {best.bundle}")
        columns, rows = self.table()
        page.table(columns, rows, "The trials, the best first")
        if picture := self._quality(run):
            page.section("Quality")
            page.picture(picture)
        failed = [trial for trial in self.trials if trial.reason is not None]
        if failed:
            page.section("Failed")
            page.table(["trial", "reason"], [[trial.name, str(trial.reason)] for trial in failed])
        page.section("Settings")
        page.table(["setting", "value"], [[key, plain(value, 4)] for key, value in settings.items()])
        write_text(run.folder / "report.html", page.html())

    def _counts(self) -> str:
        statuses = [trial.status for trial in self.trials]
        return ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))

    def _baselines(self) -> list[str]:
        known = (name for t in self.trials for name, values in t.baselines.items() if self._judged in values)
        return list(dict.fromkeys(known))

    def _quality(self, run: Run) -> Picture | None:
        measured = [(t, t.metrics[self._judged]) for t in self.trials if self._judged in t.metrics]
        name = self._judged
        if not measured:  # only the epochs have it
            finished = [t for t in self.trials if t.status == "finished"]
            measured, name = [(t, t.value) for t in finished if t.value is not None], self.metric
        if not any(finite(value) for _, value in measured):
            return None
        key = _axis([trial for trial, _ in measured])
        numeric = all(is_number(trial.settings[key]) for trial, _ in measured)
        clouds = {"trials": [_spot(trial, key, value, numeric) for trial, value in measured]}
        for baseline in self._baselines():
            have = [t for t, _ in measured if self._judged in t.baselines.get(baseline, {})]
            values = [t.baselines[baseline][self._judged] for t in have]
            clouds[baseline] = [_spot(t, key, y, numeric) for t, y in zip(have, values, strict=True)]
        curves = _curves(clouds)
        joined = len(curves) <= _MOST_CURVES
        if not joined:  # such as when several settings were drawn from ranges
            curves = {cloud: [(x, y) for x, _, y in spots] for cloud, spots in clouds.items()}
        image = draw_tradeoff(curves, key, name, joined=joined)
        save_png(run.folder / "quality.png", image)
        return Picture(image, f"{name} against {key}", "Of the trials' final weights.")


def _axis(trials: Sequence[TrialResult]) -> str:
    """The setting that quality is drawn against: the size of the code, else one that is a number."""
    keys = list(trials[0].settings)
    numbers = [key for key in keys if all(is_number(trial.settings[key]) for trial in trials)]
    sizes = [key for key in numbers if key.endswith(".latent")]
    return next(iter([*sizes, *numbers, *keys]))  # without a number, the values stand side by side


def _spot(trial: TrialResult, key: str, value: float, numeric: bool) -> Spot:
    x = trial.settings[key]
    rest = [f"{k.rpartition('.')[2]} {exact(v)}" for k, v in trial.settings.items() if k != key]
    return x if numeric else exact(x), ", ".join(rest), value


def _curves(clouds: Mapping[str, Sequence[Spot]]) -> dict[str, Curve]:
    """Points by what else was swept; those of a baseline together where that makes no difference to it."""
    curves: dict[str, Curve] = {}
    for cloud, spots in clouds.items():
        points = list(dict.fromkeys((x, y) for x, _, y in spots))
        if cloud != "trials" and len({x for x, _ in points}) == len(points):
            curves[cloud] = points
            continue
        for x, rest, y in spots:
            title = f"{cloud}, {rest}" if cloud != "trials" and rest else rest or cloud
            curves.setdefault(title, []).append((x, y))
    return curves
