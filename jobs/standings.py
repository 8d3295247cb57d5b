"""What a sweep ends with: a table of its trials, the best first, and quality against what was swept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.files import write_json, write_text
from genray.page import Page, Picture
from genray.pixels import save_png
from genray.progress import duration
from genray.style import COLOURS, MARKERS, label, render, styled
from jobs.report import exact, optional, plain
from jobs.run import Run
from jobs.space import short_names
from jobs.trial import Mode, Standing

_MOST_CURVES = 10
_MOST_TICKS = 8


class Standings:
    """The trials of a sweep, ordered by the metric; those without it come last.

    Args:
        trials: in any order.
        metric: of the rows of their histories, such as val_mse.
        mode: whether a smaller or a larger one is better.
    """

    def __init__(self, trials: Sequence[Standing], metric: str, mode: Mode) -> None:
        sign = 1.0 if mode == "min" else -1.0
        self.trials = sorted(trials, key=lambda t: (t.value is None, sign * (t.value or 0.0)))
        self.metric = metric
        self._mode = mode
        self._judged = metric.removeprefix("val_")  # the final weights' metrics are called so

    @property
    def best(self) -> Standing | None:
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
        finished = [trial for trial in self.trials if self._judged in trial.metrics]
        if not finished:
            return None
        keys = list(finished[0].settings)
        numbers = [key for key in keys if all(_is_number(trial.settings[key]) for trial in finished)]
        key = next(iter(numbers), keys[0])  # without a number, the values stand side by side
        curves = _curves(finished, key, self._judged)
        joined = len(curves) + len(self._baselines()) <= _MOST_CURVES
        if not joined:  # such as when several settings were drawn from ranges
            curves = {"trials": [point for points in curves.values() for point in points]}
        for name in self._baselines():
            have = [t for t in finished if self._judged in t.baselines.get(name, {})]
            points = {_place(t.settings[key]): t.baselines[name][self._judged] for t in have}
            curves[name] = list(points.items())
        image = draw_quality(curves, key, self._judged, joined=joined)
        save_png(run.folder / "quality.png", image)
        return Picture(image, f"{self._judged} against {key}", "Of the trials' final weights.")


def draw_quality(
    curves: Mapping[str, Sequence[tuple[Any, float]]], xlabel: str, ylabel: str, *, joined: bool
) -> NDArray[np.uint8]:
    """Curves of one number against another or against names, (H, W, 3) uint8. An axis over more than a
    factor of eight of positive numbers is logarithmic.

    Args:
        curves: (x, y) by the name of the curve; x are numbers, or all are names.
        xlabel: what x is.
        ylabel: what y is.
        joined: join a curve's points in the order of their numbers.
    """
    from matplotlib.figure import Figure

    xs = list(dict.fromkeys(x for points in curves.values() for x, _ in points))
    numeric = all(map(_is_number, xs))
    with styled():
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.add_subplot(xlabel=label(xlabel, 60), ylabel=label(ylabel, 60))
        for i, (name, points) in enumerate(curves.items()):
            x = [value if numeric else xs.index(value) for value, _ in points]
            order = np.argsort(np.array(x), kind="stable")
            axes.plot(
                np.array(x)[order],
                np.array([y for _, y in points])[order],
                linestyle="-" if joined and numeric else "",
                color=COLOURS[i % len(COLOURS)],
                marker=MARKERS[i % len(MARKERS)],
                label=label(name),
            )
        if numeric and _is_wide(xs):
            axes.set_xscale("log")
        if not numeric or len(xs) <= _MOST_TICKS:
            places = xs if numeric else range(len(xs))
            axes.set_xticks(places, [label(exact(x), 24) for x in xs])
            axes.set_xticks([], minor=True)
        if _is_wide([y for points in curves.values() for _, y in points]):
            axes.set_yscale("log")
        if len(curves) > 1:
            axes.legend()
        return render(figure)


def _curves(trials: Sequence[Standing], key: str, metric: str) -> dict[str, list[tuple[Any, float]]]:
    """Points by what else was swept."""
    curves: dict[str, list[tuple[Any, float]]] = {}
    for trial in trials:
        rest = [f"{k.rpartition('.')[2]} {exact(v)}" for k, v in trial.settings.items() if k != key]
        point = (_place(trial.settings[key]), trial.metrics[metric])
        curves.setdefault(", ".join(rest) or "trials", []).append(point)
    return curves


def _place(value: Any) -> Any:
    return value if _is_number(value) else exact(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_wide(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) >= 8 * min(values)
