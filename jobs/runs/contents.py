"""Contents of a run's folder, for reports: whatever is present and intact.

A run may be unfinished, older than this version of genray, damaged, or from an unknown source: what cannot be
used is left out with a note, and nothing outside the folder or of implausible size is read.
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
from genray.models.summary import Layer, NetworkSummary
from genray.report.page import Picture, picture_size
from genray.settings.base import flatten, nested
from genray.settings.shipped import shipped_targets, shipped_values
from genray.settings.yaml_reader import parse_yaml
from genray.targets import find_target
from genray.text import duration
from jobs.runs.formatting import is_finite_number, short_text
from jobs.runs.run import Run
from jobs.runs.samples import RunTable

_MAX_TEXT = 16 * 2**20  # largest text file in bytes: a history of 20,000 epochs
_MAX_SETTINGS = 2**20
_MAX_PICTURE = 16 * 2**20
_MAX_ALL_PICTURES = 48 * 2**20
_MAX_PICTURES = 64
_MAX_TABLES = 16
_MAX_COLUMNS = 32
_MAX_NETWORKS = 8
_MAX_LAYERS = 2000
_MOST_HEADLINES = 4
# Counters of batch normalisation, which are not learned.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

Row = dict[str, Any]


@dataclass(frozen=True)
class RunMetrics:
    """Metrics of a run's weights: those of its bundle, or of the last validation while there is none.

    Attributes:
        values: metrics by name, and the `epoch` of the weights.
        baselines: metrics of trivial predictors.
        final: whether they are the bundle's.
    """

    values: dict[str, float]
    baselines: dict[str, dict[str, float]]
    final: bool


@dataclass
class RunContents:
    """Everything that a report shows of a run.

    Attributes:
        run: its folder.
        target: name of the target; "" if unknown.
        finished: whether the run has an outcome.
        metrics: metrics by name, with the `epoch` of the weights.
        baselines: metrics of trivial predictors and other methods.
        verdict: comparison with them in a line; "" if there is none.
        warnings: what limits the trust in the results.
        judged_finally: whether the metrics are the bundle's.
        headline: the outcome's value of the metrics to show first, unchecked.
        sample: the outcome's name of a sample, unchecked.
        history: a row for each epoch.
        settings: settings, flat.
        defaults: the target's defaults, flat; empty if the target is unknown.
        data: facts of the data, such as its fingerprint.
        set_aside: the inputs that were set aside.
        manifest: manifest of the bundle.
        parameters: number of trained parameters.
        curves: picture of all numbers over the epochs.
        pictures: pictures by file name.
        tables: tables of the report.
        networks: layers of the networks, by name.
        notes: parts that were left out, and why.
    """

    run: Run
    target: str
    finished: bool
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    verdict: str
    warnings: list[str]
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
    networks: dict[str, NetworkSummary] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def changed(self) -> dict[str, Any]:
        """Settings that differ from the target's defaults; all settings if the defaults are unknown."""
        return {k: v for k, v in self.settings.items() if k not in self.defaults or self.defaults[k] != v}

    @property
    def metric_names(self) -> list[str]:
        """Names of the metrics of the weights."""
        return [name for name in self.metrics if name != "epoch"]

    @property
    def headlines(self) -> list[str]:
        """Metrics to show first: those that the recipe names, else the first few."""
        names = self.metric_names
        wanted = self.headline if isinstance(self.headline, list) else []
        return list(dict.fromkeys(name for name in wanted if name in names)) or names[:_MOST_HEADLINES]

    @property
    def subtitle(self) -> str:
        """One line with target, progress and time of the run."""
        return ", ".join(filter(None, [self.target, self.progress, self.created]))

    @property
    def progress(self) -> str:
        """Text of the finished epochs."""
        done = max((row["epoch"] for row in self.history), default=0)
        planned = self.settings.get("loop.epochs", "?")
        if not self.finished:
            return f"not finished: {done} of {short_text(planned)} epochs"
        if done != planned:
            return f"{done} of {short_text(planned)} epochs"
        return f"{done} epoch{'s' if done != 1 else ''}"

    @property
    def created(self) -> str:
        """Time of the bundle, or else of the run's folder."""
        if created := self.manifest.get("created"):
            return f"{short_text(created)[:16].replace('T', ' ')} UTC"
        return f"{datetime.fromtimestamp(self.run.settings.stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC"

    @property
    def training_time(self) -> str:
        """Time of the training, summed over interruptions; "" if unknown."""
        seconds = sum(row["seconds"] for row in self.history if is_finite_number(row.get("seconds")))
        return duration(seconds) if seconds and is_finite_number(seconds) else ""

    @property
    def judged_on(self) -> str:
        """Samples that the metrics are of. A test part judges only the final weights; before that, the
        held-out samples do."""
        test = self._sample_count("test")
        if test and self.judged_finally:
            return f"the {test:,} test {short_text(self.sample)}{'s' if test > 1 else ''}"
        val = self._sample_count("val")
        return f"the {val:,} held-out sample{'s' if val > 1 else ''}" if val else "the held-out samples"

    def _sample_count(self, part: str) -> int:
        count = self.data.get(part)
        return count if isinstance(count, int) and count > 0 else 0


def read_contents(run: Run, *, max_text: int = _MAX_TEXT) -> RunContents:
    """Read the contents of a run.

    Args:
        run: its folder.
        max_text: largest text file in bytes; larger ones are left out.

    Raises:
        RunError: the folder is not that of a run.
    """
    if not run.settings.is_file():
        missing = "has no settings.yaml" if run.folder.is_dir() else "does not exist"
        raise RunError(
            f"{run.location} is not a run: it {missing}",
            hint=(
                "give the folder of a training, such as runs/first (the report of a bulk run is "
                "_genray/report.html in its output)"
            ),
        )
    folder = _Folder(run.folder, max_text)
    settings = {str(k): v for k, v in folder.structure(run.settings, _yaml, dict, _MAX_SETTINGS).items()}
    outcome = folder.structure(run.outcome, _json, dict)
    data = folder.structure(run.folder / "data.json", _json, dict)
    history = [row for row in folder.lines(run.history) if isinstance(row.get("epoch"), int)]
    manifest = folder.structure(run.bundle / "bundle.json", _json, dict)
    target = str(outcome.get("target") or data.get("target") or "")
    metrics = _metrics(outcome, history)
    return RunContents(
        run=run,
        target=target,
        finished="epochs" in outcome,
        metrics=metrics.values,
        baselines=metrics.baselines,
        verdict=short_text(outcome.get("verdict", "")),
        warnings=[short_text(warning) for warning in _list(outcome.get("warnings"))],
        judged_finally=metrics.final,
        headline=outcome.get("headline"),
        sample=outcome.get("sample", "image"),
        history=history,
        settings=settings,
        defaults=_defaults(target, settings),
        data=data,
        set_aside=folder.lines(run.set_aside),
        manifest=manifest,
        parameters=_count_parameters(folder, run.bundle / _weights_name(manifest)),
        curves=folder.picture(run.curves, "All numbers over the epochs"),
        pictures=_pictures(folder, run),
        tables=_tables(folder, run),
        networks=_networks(folder, run),
        notes=folder.notes,
    )


class _Folder:
    """Reads files of one folder safely, and notes what it left out."""

    def __init__(self, folder: Path, max_text: int) -> None:
        self._folder = folder.resolve()
        self._max_text = max_text
        self.notes: list[str] = []

    def holds(self, path: Path) -> bool:
        """Return whether the file at `path`, with links resolved, is in the folder."""
        return path.resolve().is_relative_to(self._folder)

    def bytes(self, path: Path, limit: int) -> bytes | None:
        """Return the content of the file; None if it is missing, larger than `limit`, or outside of the
        folder."""
        try:
            if not path.exists():
                return None
            if not self.holds(path):
                raise ValueError("it is outside the run's folder")
            if not path.is_file():
                raise ValueError("it is not a file")
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except (OSError, ValueError, RuntimeError) as error:  # such as a name with a NUL, or a link to itself
            self._leave_out(path, str(error))
            return None
        if len(data) > limit:
            self._leave_out(path, f"it is larger than {limit / 2**20:.3g} MB")
            return None
        return data

    def structure(
        self, path: Path, parse: Callable[[str], Any], kind: type[Any], limit: int | None = None
    ) -> Any:
        """Return the parsed content of the file if it is a `kind`, else an empty one."""
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
        """Return the JSON objects of a file of lines; incomplete lines, such as after a kill, are skipped."""
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
        """Return a PNG or WebP file if it is complete."""
        data = self.bytes(path, limit)
        if data is None:
            return None
        try:
            picture_size(data)
        except ValueError as error:
            self._leave_out(path, str(error))
            return None
        return Picture(data, title, caption)

    def _leave_out(self, path: Path, why: str) -> None:
        self.notes.append(f"{path.name} was left out: {why}")


def _list(value: Any) -> list[Any]:
    return value[:_MAX_TABLES] if isinstance(value, list) else []


def _metrics(outcome: Row, history: Sequence[Row]) -> RunMetrics:
    """Return the metrics of the outcome, or of the last validation while there is none."""
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
    """Return the target's default settings: those of `configs/` over those of the code.

    If a choice implies others, such as `model.kind` or `preset`, these have the values of the choice.
    """
    # The name comes from a file: only the name of a target may lead to an import.
    if target not in shipped_targets():
        return {}
    cls = find_target(target).load().settings_class
    shipped = shipped_values(target)
    choices = {key: value for key, value in settings.items() if key.endswith(".kind") or key == "preset"}
    unchosen = flatten(cls.model_validate(shipped))
    try:
        chosen = flatten(cls.model_validate(nested({**flatten(shipped), **choices})))
    except (ValueError, TypeError, AttributeError):  # the shipped values are for another kind
        chosen = {}
    return {**unchosen, **chosen, **{key: unchosen[key] for key in choices if key in unchosen}}


def _json(text: str | bytes) -> Any:
    # A whole number beyond the range of floats would fail when it is drawn or compared.
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 19 else float(digits))


def _yaml(text: str) -> Any:
    return parse_yaml(text, "settings.yaml")


def _weights_name(manifest: Mapping[str, Any]) -> str:
    name = manifest.get("weights")
    return name if isinstance(name, str) and "\0" not in name and len(name) < 200 else "weights.safetensors"


def _count_parameters(folder: _Folder, weights: Path) -> int | None:
    """Count the bundle's trained parameters, from the header of its weights."""
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
    """Return the pictures that the run lists, in their order; without a list, those of held-out samples."""
    listed = folder.structure(run.samples / "pictures.json", _json, list)
    rows = [row for row in listed if isinstance(row, dict) and isinstance(row.get("file"), str)]
    if not rows:
        last = max(run.samples.glob("epoch_*.png"), default=None)
        rows = [{"file": "validation.png", "title": "Held-out samples, the worst and the best"}]
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
            total += picture.size
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


def _networks(folder: _Folder, run: Run) -> dict[str, NetworkSummary]:
    stored = folder.structure(run.samples / "networks.json", _json, dict)
    networks = {}
    for name, network in list(stored.items())[:_MAX_NETWORKS]:
        rows = network.get("layers") if isinstance(network, dict) else None
        if not isinstance(rows, list) or not _is_count(network.get("parameters")):
            continue
        layers = [
            Layer(str(row["name"]), str(row["kind"]), tuple(row["output"]), row["parameters"])
            for row in rows[:_MAX_LAYERS]
            if _is_layer(row)
        ]
        networks[str(name)] = NetworkSummary(layers, network["parameters"])
    return networks


def _is_layer(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and row.keys() >= {"name", "kind", "output", "parameters"}
        and isinstance(row["output"], list)
        and len(row["output"]) < 8
        and all(map(_is_count, [*row["output"], row["parameters"]]))
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**53
