"""Results of a sweep: a table of its trials, the best first, and quality against the swept settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genray.images.pixels import save_png
from genray.io.files import write_json, write_text
from genray.report.charts import draw_tradeoff
from genray.report.page import Page, Picture
from genray.text import duration
from jobs.runs.formatting import exact_text, is_finite_number, short_text, text_or_dash
from jobs.runs.outcome import output_rows
from jobs.runs.run import Run
from jobs.sweeping.space import is_number, short_names
from jobs.sweeping.trials import Mode, TrialResult

Curve = list[tuple[Any, float]]

_MOST_CURVES = 10
_MOST_LEVELS = 4  # longest text of a setting's value in the table of settings


@dataclass(frozen=True)
class SweepOutcome:
    """Outcome of a sweep: its trials, the best first, and the best trial with a bundle."""

    name: str
    run: str
    metric: str
    mode: Mode
    best: TrialResult | None
    trials: Sequence[TrialResult]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        best = self.best
        return {
            "target": "sweep",
            "name": self.name,
            "run": self.run,
            "metric": self.metric,
            "mode": self.mode,
            "best": None
            if best is None
            else {
                "settings": best.settings,
                "run": best.run,
                "bundle": best.bundle,
                "metric": best.value,
            },
            "trials": [trial.as_json() for trial in self.trials],
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """Return names and values for the terminal: the best trial, and where the results are."""
        if self.best is not None:
            yield "best", "  ".join(f"{key} {value}" for key, value in self.best.settings.items())
            yield f"  {self.metric}", f"{self.best.value:.4g}"
            yield "bundle", str(self.best.bundle)
        yield from output_rows(self.run)


@dataclass(frozen=True)
class _Point:
    """A trial in the picture: its place on the axis, its other swept settings, and its quality."""

    x: Any
    others: str
    y: float


class SweepResults:
    """Trials of a sweep, ordered by the metric; trials without it come last.

    Args:
        trials: in any order.
        metric: name of the metric, a column of history.jsonl such as val_mse.
        mode: whether a smaller or a larger value is better.
    """

    def __init__(self, trials: Sequence[TrialResult], metric: str, mode: Mode) -> None:
        sign = 1.0 if mode == "min" else -1.0
        self.trials = sorted(trials, key=lambda t: (t.value is None, sign * (t.value or 0.0)))
        self.metric = metric
        self._mode = mode
        self._final_metric = metric.removeprefix(
            "val_"
        )  # name of the metric among those of the final weights

    @property
    def best(self) -> TrialResult | None:
        """The best finished trial, which has a bundle."""
        return next((t for t in self.trials if t.status == "finished" and t.value is not None), None)

    def outcome(self, run: Run) -> SweepOutcome:
        """Return the outcome of the sweep whose folder is `run`."""
        return SweepOutcome(run.name, run.location, self.metric, self._mode, self.best, self.trials)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return columns and rows: the swept settings, the metric, the final weights' metrics beside the
        baselines', epochs, time, status."""
        keys = list(dict.fromkeys(key for trial in self.trials for key in trial.settings))
        shorts = short_names(keys)
        name = self._final_metric
        final = [name] if any(name in trial.metrics for trial in self.trials) else []
        baselines = self._baselines()
        columns = [*(shorts[key] for key in keys), self.metric, *final]
        columns += [*(f"{baseline} {name}" for baseline in baselines), "epochs", "time", "status"]
        rows = []
        for trial in self.trials:
            cells = [exact_text(trial.settings.get(key)) for key in keys]
            cells.append(text_or_dash(trial.value))
            cells += [text_or_dash(trial.metrics.get(metric)) for metric in final]
            cells += [text_or_dash(trial.baselines.get(baseline, {}).get(name)) for baseline in baselines]
            rows.append([*cells, str(trial.epochs), duration(trial.seconds), trial.status])
        return columns, rows

    def write(self, run: Run, settings: Mapping[str, Any]) -> None:
        """Write `sweep.json`, `quality.png` (once a trial has finished) and `report.html` of the sweep.

        Raises:
            StorageFull: no space.
        """
        write_json(run.folder / "sweep.json", self.outcome(run).as_json())
        page = Page(run.name, f"sweep of {settings['sweep.target']}, {self._counts()}")
        if best := self.best:
            words = ", ".join(f"{key} {exact_text(value)}" for key, value in best.settings.items())
            page.headline([(f"best {self.metric}", short_text(best.value), words)])
            page.paragraph(f"Bundle of the best trial: {best.bundle}")
        columns, rows = self.table()
        page.table(columns, rows, "Trials, the best first")
        if picture := self._draw_quality(run):
            page.section("Quality")
            page.picture(picture)
        failed = [trial for trial in self.trials if trial.reason is not None]
        if failed:
            page.section("Failed")
            page.table(["trial", "reason"], [[trial.name, str(trial.reason)] for trial in failed])
        page.section("Settings")
        rows = [[key, short_text(value, _MOST_LEVELS)] for key, value in settings.items()]
        page.table(["setting", "value"], rows)
        write_text(run.folder / "report.html", page.html())

    def _counts(self) -> str:
        statuses = [trial.status for trial in self.trials]
        return ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))

    def _baselines(self) -> list[str]:
        """Return the baselines that have the metric, in any trial."""
        name = self._final_metric
        baselines = (b for t in self.trials for b, metrics in t.baselines.items() if name in metrics)
        return list(dict.fromkeys(baselines))

    def _draw_quality(self, run: Run) -> Picture | None:
        """Draw quality against the swept settings, as `quality.png`; None if there is nothing to draw."""
        name = self._final_metric
        measured = [(trial, trial.metrics[name]) for trial in self.trials if name in trial.metrics]
        if not measured:  # only epochs have the metric
            name = self.metric
            finished = [trial for trial in self.trials if trial.status == "finished"]
            measured = [(trial, trial.value) for trial in finished if trial.value is not None]
        if not any(is_finite_number(value) for _, value in measured):
            return None
        trials = [trial for trial, _ in measured]
        key = _axis(trials)
        numeric = all(is_number(trial.settings[key]) for trial in trials)
        clouds = {"trials": [_point(trial, key, value, numeric=numeric) for trial, value in measured]}
        for baseline in self._baselines():
            clouds[baseline] = [
                _point(trial, key, trial.baselines[baseline][self._final_metric], numeric=numeric)
                for trial in trials
                if self._final_metric in trial.baselines.get(baseline, {})
            ]
        curves = _curves(clouds)
        joined = len(curves) <= _MOST_CURVES
        if not joined:  # such as when several settings were drawn from ranges
            curves = {cloud: [(point.x, point.y) for point in points] for cloud, points in clouds.items()}
        image = draw_tradeoff(curves, key, name, joined=joined)
        save_png(run.folder / "quality.png", image)
        return Picture(image, f"{name} against {key}", "Quality of the trials' final weights.")


def _axis(trials: Sequence[TrialResult]) -> str:
    """Return the setting that quality is drawn against: the size of the code, else a numeric one."""
    keys = list(trials[0].settings)
    numbers = [key for key in keys if all(is_number(trial.settings[key]) for trial in trials)]
    sizes = [key for key in numbers if key.endswith(".latent")]
    return [*sizes, *numbers, *keys][0]  # values that are no numbers stand side by side


def _point(trial: TrialResult, key: str, value: float, *, numeric: bool) -> _Point:
    x = trial.settings[key]
    others = [f"{k.rpartition('.')[2]} {exact_text(v)}" for k, v in trial.settings.items() if k != key]
    return _Point(x if numeric else exact_text(x), ", ".join(others), value)


def _curves(clouds: Mapping[str, Sequence[_Point]]) -> dict[str, Curve]:
    """Group points into curves by the other swept settings, which make no difference to some baselines."""
    curves: dict[str, Curve] = {}
    for cloud, points in clouds.items():
        different = list(dict.fromkeys((point.x, point.y) for point in points))
        if cloud != "trials" and len({x for x, _ in different}) == len(different):
            curves[cloud] = different
            continue
        for point in points:
            if cloud == "trials":
                title = point.others or cloud
            else:
                title = f"{cloud}, {point.others}" if point.others else cloud
            curves.setdefault(title, []).append((point.x, point.y))
    return curves
