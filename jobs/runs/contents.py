"""What a run left in its folder, as far as it is there and whole: what a report is made of.

A run may be unfinished, older than this genray, damaged, or a stranger's: whatever cannot be used is left
out with a note, nothing outside the folder is read, and nothing of absurd size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from genray.errors import RunError
from genray.report.page import Picture, png_size
from genray.settings.base import flatten, nested
from genray.settings.shipped import shipped_targets, shipped_values
from genray.targets import find_target
from jobs.runs.run import Run
from jobs.runs.samples import RunTable

_MAX_TEXT = 16 * 2**20  # bytes of a text file: a history of 20,000 epochs
_MAX_SETTINGS = 2**20
_MAX_PICTURE, _MAX_ALL_PICTURES = 16 * 2**20, 48 * 2**20
_MAX_PICTURES, _MAX_TABLES, _MAX_COLUMNS = 64, 16, 32
_COUNTED = ("running_mean", "running_var", "num_batches_tracked")  # by batch normalisation, not learned

Row = dict[str, Any]


@dataclass
class RunContents:
    """Everything that a run can tell."""

    run: Run
    target: str
    finished: bool
    outcome: Row
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    history: list[Row]
    settings: dict[str, Any]
    defaults: dict[str, Any]
    data: Row
    set_aside: list[Row]
    manifest: Row
    parameters: int | None
    pictures: dict[str, Picture] = field(default_factory=dict)
    """By the name of the file."""
    curves: Picture | None = None
    tables: list[RunTable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that are not the target's defaults; all, if those are not known."""
        return {k: v for k, v in self.settings.items() if k not in self.defaults or self.defaults[k] != v}


def read_contents(run: Run) -> RunContents:
    """Read the run.

    Raises:
        RunError: its folder is not that of a run.
    """
    if not run.settings.is_file():
        missing = "has no settings.yaml" if run.folder.is_dir() else "does not exist"
        raise RunError(
            f"{run.folder} is not a run: it {missing}",
            hint="give a training such as runs/first; a bulk run has its page in _genray/report.html",
        )
    folder = _Folder(run.folder)
    settings = {str(k): v for k, v in folder.structure(run.settings, _yaml, dict, _MAX_SETTINGS).items()}
    outcome = folder.structure(run.outcome, _json, dict)
    data = folder.structure(run.folder / "data.json", _json, dict)
    history = [row for row in folder.lines(run.history) if isinstance(row.get("epoch"), int)]
    metrics, baselines = _metrics(outcome, history)
    target = str(outcome.get("target") or data.get("target") or "")
    found = RunContents(
        run=run,
        target=target,
        finished="epochs" in outcome,
        outcome=outcome,
        metrics=metrics,
        baselines=baselines,
        history=history,
        settings=settings,
        defaults=_defaults(target, settings),
        data=data,
        set_aside=folder.lines(run.set_aside),
        manifest=folder.structure(run.bundle / "bundle.json", _json, dict),
        parameters=_parameters(folder, run.bundle / "weights.safetensors"),
        notes=folder.notes,
    )
    found.curves = folder.picture(run.curves, "Every number over the epochs")
    found.pictures = _pictures(folder, run)
    found.tables = _tables(folder, run)
    return found


class _Folder:
    """Reads files of one folder, whatever they turn out to be; notes what it had to leave out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
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
        self, path: Path, parse: Callable[[str], Any], kind: type[Any], limit: int = _MAX_TEXT
    ) -> Any:
        """The file's content, parsed, if it is a `kind`; an empty one if not."""
        data = self.bytes(path, limit)
        if data is None:
            return kind()
        try:
            content = parse(data.decode("utf-8"))
            if isinstance(content, kind):
                return content
        except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError):
            pass
        self._leave_out(path, "it is damaged")
        return kind()

    def lines(self, path: Path) -> list[Row]:
        """The JSON objects of a file of lines; one that a kill cut short is passed over."""
        rows = []
        for line in (self.bytes(path, _MAX_TEXT) or b"").splitlines():
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


def _metrics(outcome: Row, history: Sequence[Row]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Of the outcome; before there is one, those of the last validation."""
    metrics = outcome.get("metrics")
    if isinstance(metrics, dict):
        baselines = metrics.get("baselines")
        baselines = baselines if isinstance(baselines, dict) else {}
        beside = {name: _numbers(values) for name, values in baselines.items() if isinstance(values, dict)}
        return _numbers(metrics), beside
    for row in reversed(history):
        if validated := {k.removeprefix("val_"): v for k, v in row.items() if k.startswith("val_")}:
            return _numbers({**validated, "epoch": row["epoch"]}), {}
    return {}, {}


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
    plain = flatten(cls.model_validate(shipped))
    try:
        chosen = flatten(cls.model_validate(nested({**flatten(shipped), **choices})))
    except (ValueError, TypeError, AttributeError):  # what is shipped goes with another kind
        chosen = {}
    return {**plain, **chosen, **{key: plain[key] for key in choices if key in plain}}


def _json(text: str | bytes) -> Any:
    # A whole number that no float can hold would fail wherever it is drawn or compared.
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 19 else float(digits))


def _yaml(text: str) -> Any:
    # A few references to references in it make a value that takes for ever to compare or to write.
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
        raise ValueError("a reference")
    return yaml.safe_load(text)


def _parameters(folder: _Folder, weights: Path) -> int | None:
    """How many numbers of the bundle training chose, from the header of its weights."""
    from safetensors import SafetensorError, safe_open

    if not weights.is_file() or not folder.holds(weights):
        return None
    try:
        with safe_open(weights, framework="pt") as file:
            names = [name for name in file.keys() if not name.endswith(_COUNTED)]  # noqa: SIM118
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
    found, total = {}, 0
    for row in rows[:_MAX_PICTURES]:
        title, room = str(row.get("title") or row["file"]), min(_MAX_PICTURE, _MAX_ALL_PICTURES - total)
        picture = folder.picture(run.samples / row["file"], title, str(row.get("caption") or ""), room)
        if picture is not None:
            found[row["file"]] = picture
            total += len(picture.image)
    return found


def _tables(folder: _Folder, run: Run) -> list[RunTable]:
    tables = []
    for row in folder.structure(run.samples / "tables.json", _json, list)[:_MAX_TABLES]:
        columns, rows = (row.get("columns"), row.get("rows")) if isinstance(row, dict) else (None, None)
        if isinstance(columns, list) and isinstance(rows, list) and all(isinstance(r, list) for r in rows):
            columns = columns[:_MAX_COLUMNS]
            tables.append(RunTable(str(row.get("title", "")), columns, [r[: len(columns)] for r in rows]))
    return tables
