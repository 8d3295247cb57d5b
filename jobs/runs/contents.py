"""What a run left in its folder, as far as it is there and whole: what a report is made of.

A run may be unfinished, older than this genray, damaged, or a stranger's: whatever cannot be used is left
out with a note, nothing outside the folder is read, and nothing of absurd size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genray.errors import RunError, SettingsError
from genray.report.page import Picture, png_size
from genray.settings.base import flatten, nested
from genray.settings.shipped import shipped_targets, shipped_values
from genray.settings.yaml_reader import parse_yaml
from genray.targets import find_target
from genray.text import duration
from jobs.runs.formatting import is_finite_number, short_text
from jobs.runs.run import Run
from jobs.runs.samples import RunTable

_MAX_TEXT = 16 * 2**20  # bytes of a text file: a history of 20,000 epochs
_MAX_SETTINGS = 2**20
_MAX_PICTURE = 16 * 2**20
_MAX_ALL_PICTURES = 48 * 2**20
_MAX_PICTURES = 64
_MAX_TABLES = 16
_MAX_COLUMNS = 32
_MOST_HEADLINES = 4
# Counted by batch normalisation, not learned.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

Row = dict[str, Any]


@dataclass(frozen=True)
class RunMetrics:
    """How good a run's weights are: those of its bundle, or before there is one those of the last validation.

    Attributes:
        values: by name, and the `epoch` that they are of.
        baselines: of trivial predictors.
        final: whether they are those of the bundle.
    """

    values: dict[str, float]
    baselines: dict[str, dict[str, float]]
    final: bool


@dataclass
class RunContents:
    """Everything that a run can tell.

    Attributes:
        run: its folder.
        target: what was trained, "" if nothing says it.
        finished: whether there is an outcome.
        metrics: by name, with the `epoch` that they are of.
        baselines: metrics of trivial predictors.
        judged_finally: whether the metrics are those of the bundle.
        headline: what the outcome names as the metrics to look at first: anything.
        sample: what the outcome calls a sample: anything.
        history: a row for each epoch.
        settings: flat.
        defaults: those of the target, flat; empty if it is not known.
        data: facts of the data, such as its fingerprint.
        set_aside: the inputs that could not be used.
        manifest: of the bundle.
        parameters: how many numbers training chose.
        curves: all numbers over the epochs.
        pictures: by the name of the file.
        tables: of the report.
        notes: what was left out, and why.
    """

    run: Run
    target: str
    finished: bool
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    judged_finally: bool
    headline: Any
    sample: Any
    history: list[Row]
    settings: dict[str, Any]
    defaults: dict[str, Any]
    data: Row
    set_aside: list[Row]
    manifest: Row
    parameters: int | None
    curves: Picture | None = None
    pictures: dict[str, Picture] = field(default_factory=dict)
    tables: list[RunTable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that are not the target's defaults; all, if those are not known."""
        return {k: v for k, v in self.settings.items() if k not in self.defaults or self.defaults[k] != v}

    @property
    def metric_names(self) -> list[str]:
        """The metrics that say how good the weights are."""
        return [name for name in self.metrics if name != "epoch"]

    @property
    def headlines(self) -> list[str]:
        """The metrics that are looked at first: those that the recipe names, or else the first few."""
        names = self.metric_names
        wanted = self.headline if isinstance(self.headline, list) else []
        return list(dict.fromkeys(name for name in wanted if name in names)) or names[:_MOST_HEADLINES]

    @property
    def subtitle(self) -> str:
        """What the run is, how far it came, and when, in a line."""
        return ", ".join(filter(None, [self.target, self.progress, self.created]))

    @property
    def progress(self) -> str:
        """How many epochs the run has done."""
        done = max((row["epoch"] for row in self.history), default=0)
        planned = self.settings.get("loop.epochs", "?")
        if not self.finished:
            return f"not finished: {done} of {short_text(planned)} epochs"
        if done != planned:
            return f"{done} of {short_text(planned)} epochs"
        return f"{done} epoch{'s' if done != 1 else ''}"

    @property
    def created(self) -> str:
        """When the bundle was made, or else the folder of the run."""
        if created := self.manifest.get("created"):
            return f"{short_text(created)[:16].replace('T', ' ')} UTC"
        return f"{datetime.fromtimestamp(self.run.settings.stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC"

    @property
    def training_time(self) -> str:
        """How long training took, of a run that was interrupted all parts together; "" if nothing says it."""
        seconds = sum(row["seconds"] for row in self.history if is_finite_number(row.get("seconds")))
        return duration(seconds) if seconds and is_finite_number(seconds) else ""

    @property
    def judged_on(self) -> str:
        """What the metrics were taken on. A test part judges the final weights alone; till then it is the
        samples that were held out."""
        test = self._sample_count("test")
        if test and self.judged_finally:
            return f"the {test:,} test {short_text(self.sample)}{'s' if test > 1 else ''}"
        val = self._sample_count("val")
        return f"the {val:,} held-out sample{'s' if val > 1 else ''}" if val else "the held-out samples"

    def _sample_count(self, part: str) -> int:
        count = self.data.get(part)
        return count if isinstance(count, int) and count > 0 else 0


def read_contents(run: Run, *, max_text: int = _MAX_TEXT) -> RunContents:
    """Read the run.

    Args:
        run: its folder.
        max_text: bytes of a text file; a larger one is left out.

    Raises:
        RunError: its folder is not that of a run.
    """
    if not run.settings.is_file():
        missing = "has no settings.yaml" if run.folder.is_dir() else "does not exist"
        raise RunError(
            f"{run.folder} is not a run: it {missing}",
            hint="give a training such as runs/first; a bulk run has its page in _genray/report.html",
        )
    folder = _Folder(run.folder, max_text)
    settings = {str(k): v for k, v in folder.structure(run.settings, _yaml, dict, _MAX_SETTINGS).items()}
    outcome = folder.structure(run.outcome, _json, dict)
    data = folder.structure(run.folder / "data.json", _json, dict)
    history = [row for row in folder.lines(run.history) if isinstance(row.get("epoch"), int)]
    target = str(outcome.get("target") or data.get("target") or "")
    metrics = _metrics(outcome, history)
    return RunContents(
        run=run,
        target=target,
        finished="epochs" in outcome,
        metrics=metrics.values,
        baselines=metrics.baselines,
        judged_finally=metrics.final,
        headline=outcome.get("headline"),
        sample=outcome.get("sample", "image"),
        history=history,
        settings=settings,
        defaults=_defaults(target, settings),
        data=data,
        set_aside=folder.lines(run.set_aside),
        manifest=folder.structure(run.bundle / "bundle.json", _json, dict),
        parameters=_count_parameters(folder, run.bundle / "weights.safetensors"),
        curves=folder.picture(run.curves, "Every number over the epochs"),
        pictures=_pictures(folder, run),
        tables=_tables(folder, run),
        notes=folder.notes,
    )


class _Folder:
    """Reads files of one folder, whatever they turn out to be; notes what it had to leave out."""

    def __init__(self, folder: Path, max_text: int) -> None:
        self._folder = folder.resolve()
        self._max_text = max_text
        self.notes: list[str] = []

    def holds(self, path: Path) -> bool:
        """Whether the file that `path` leads to is in the folder."""
        return path.resolve().is_relative_to(self._folder)

    def bytes(self, path: Path, limit: int) -> bytes | None:
        """What the file holds; None if there is none, or it is larger than `limit`, or lies elsewhere."""
        try:
            if not path.exists():
                return None
            if not self.holds(path):
                raise ValueError("it is outside the run's folder")
            if not path.is_file():
                raise ValueError("it is no file")
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except (OSError, ValueError, RuntimeError) as error:  # a name with a NUL, a link to itself
            self._leave_out(path, str(error))
            return None
        if len(data) > limit:
            self._leave_out(path, f"it is larger than {limit / 2**20:.3g} MB")
            return None
        return data

    def structure(
        self, path: Path, parse: Callable[[str], Any], kind: type[Any], limit: int | None = None
    ) -> Any:
        """The file's content, parsed, if it is a `kind`; an empty one if not."""
        data = self.bytes(path, limit or self._max_text)
        if data is None:
            return kind()
        try:
            content = parse(data.decode("utf-8"))
            if isinstance(content, kind):
                return content
        except (SettingsError, ValueError, TypeError, AttributeError, RecursionError):
            pass
        self._leave_out(path, "it is damaged")
        return kind()

    def lines(self, path: Path) -> list[Row]:
        """The JSON objects of a file of lines; one that a kill cut short is passed over."""
        rows = []
        for line in (self.bytes(path, self._max_text) or b"").splitlines():
            try:
                row = _json(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                rows.append(row)
        return rows

    def picture(self, path: Path, title: str, caption: str = "", limit: int = _MAX_PICTURE) -> Picture | None:
        """A PNG file that is whole."""
        data = self.bytes(path, limit)
        if data is None:
            return None
        try:
            png_size(data)
        except ValueError as error:
            self._leave_out(path, str(error))
            return None
        return Picture(data, title, caption)

    def _leave_out(self, path: Path, why: str) -> None:
        self.notes.append(f"{path.name} was left out: {why}")


def _metrics(outcome: Row, history: Sequence[Row]) -> RunMetrics:
    """Of the outcome; before there is one, those of the last validation."""
    metrics = outcome.get("metrics")
    if isinstance(metrics, dict):
        baselines = metrics.get("baselines")
        if not isinstance(baselines, dict):
            baselines = {}
        numbers = {name: _numbers(values) for name, values in baselines.items() if isinstance(values, dict)}
        return RunMetrics(_numbers(metrics), numbers, final=True)
    for row in reversed(history):
        if validated := {k.removeprefix("val_"): v for k, v in row.items() if k.startswith("val_")}:
            return RunMetrics(_numbers({**validated, "epoch": row["epoch"]}), {}, final=False)
    return RunMetrics({}, {}, final=False)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _defaults(target: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The target's settings as they are without a choice of the user's: `configs/` over those in the code.

    Where one choice brings others along, such as `model.kind` or `preset`, those are as the choice has them.
    """
    # The name comes from a file: it leads to a module only if it is that of a target.
    if target not in shipped_targets():
        return {}
    cls = find_target(target).load().settings_class
    shipped = shipped_values(target)
    choices = {key: value for key, value in settings.items() if key.endswith(".kind") or key == "preset"}
    unchosen = flatten(cls.model_validate(shipped))
    try:
        chosen = flatten(cls.model_validate(nested({**flatten(shipped), **choices})))
    except (ValueError, TypeError, AttributeError):  # what is shipped goes with another kind
        chosen = {}
    return {**unchosen, **chosen, **{key: unchosen[key] for key in choices if key in unchosen}}


def _json(text: str | bytes) -> Any:
    # A whole number that no float can hold would fail wherever it is drawn or compared.
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 19 else float(digits))


def _yaml(text: str) -> Any:
    return parse_yaml(text, "settings.yaml")


def _count_parameters(folder: _Folder, weights: Path) -> int | None:
    """How many numbers of the bundle training chose, from the header of its weights."""
    from safetensors import SafetensorError, safe_open

    if not weights.is_file() or not folder.holds(weights):
        return None
    try:
        with safe_open(weights, framework="pt") as file:
            names = [name for name in file.keys() if not name.endswith(_STATISTICS)]  # noqa: SIM118
            return sum(int(math.prod(file.get_slice(name).get_shape())) for name in names)
    except (SafetensorError, OSError):
        return None


def _pictures(folder: _Folder, run: Run) -> dict[str, Picture]:
    """Those that the run lists, in their order; without a list, held-out samples as far as there are any."""
    listed = folder.structure(run.samples / "pictures.json", _json, list)
    rows = [row for row in listed if isinstance(row, dict) and isinstance(row.get("file"), str)]
    if not rows:
        last = max(run.samples.glob("epoch_*.png"), default=None)
        rows = [{"file": "validation.png", "title": "Held-out samples: the worst and the best"}]
        if last is not None and not (run.samples / "validation.png").exists():
            rows = [{"file": last.name, "title": f"Held-out samples ({last.stem.replace('_', ' ')})"}]
    if len(rows) > _MAX_PICTURES:
        folder.notes.append(f"{len(rows) - _MAX_PICTURES} more pictures were left out")
    pictures: dict[str, Picture] = {}
    total = 0
    for row in rows[:_MAX_PICTURES]:
        title = str(row.get("title") or row["file"])
        caption = str(row.get("caption") or "")
        limit = min(_MAX_PICTURE, _MAX_ALL_PICTURES - total)
        picture = folder.picture(run.samples / row["file"], title, caption, limit)
        if picture is not None:
            pictures[row["file"]] = picture
            total += len(picture.image)
    return pictures


def _tables(folder: _Folder, run: Run) -> list[RunTable]:
    tables = []
    for table in folder.structure(run.samples / "tables.json", _json, list)[:_MAX_TABLES]:
        if not isinstance(table, dict):
            continue
        columns = table.get("columns")
        rows = table.get("rows")
        if isinstance(columns, list) and isinstance(rows, list) and all(isinstance(r, list) for r in rows):
            columns = columns[:_MAX_COLUMNS]
            tables.append(RunTable(str(table.get("title", "")), columns, [r[: len(columns)] for r in rows]))
    return tables
