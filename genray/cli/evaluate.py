"""`genray monitor evaluate`: how good the monitor is on annotated records."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from genray.cli.options import CONFIG, JSON, SET, reported
from genray.cli.output import print_json, say
from genray.errors import DataError
from genray.text import aligned, duration

if TYPE_CHECKING:
    from genray.progress import Tick
    from monitors.evaluation.cross_validation import AnnotatedRecords, TrainingPart
    from monitors.patient.scoring import Scorer

_EVERY_S = 15.0  # between lines of progress
_RECIPE = (
    "data.layout=records",
    "data.test_share=0",
    "loop.batch_size=256",
    "loop.epochs=8",
    "loop.validate_every=8",
    "loop.checkpoint_every=8",
    "loop.samples=1",
    "optimizer.learning_rate=0.003",
    "threshold.folds=3",
    "eval.baselines=[]",
    "device.gpu=false",
    "device.threads=1",
)


@click.command()
@click.option(
    "--records", required=True, type=click.Path(path_type=Path), help="Folder of annotated records (WFDB)."
)
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="Judge this; else one is trained for each fold."
)
@click.option("--folds", default=5, show_default=True, type=click.IntRange(2), help="Of the records.")
@click.option("--output", type=click.Path(path_type=Path), help="Keep the folds' runs in this folder.")
@CONFIG
@SET
@JSON
@reported
def evaluate(
    records: Path,
    bundle: Path | None,
    folds: int,
    output: Path | None,
    config: Path | None,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure the monitor on annotated records, by cross-validation over them: QRS detection, beats, alarms.

    \b
    Example:
      genray monitor evaluate --records mitbih
      genray monitor evaluate --records mitbih --bundle runs/ecg/bundle --json
    """
    from genray.bundle import load_bundle
    from genray.io.files import write_json
    from genray.settings.load import load
    from monitors.evaluation.cross_validation import cross_validate, open_annotated
    from monitors.evaluation.evaluate import evaluate as judge
    from monitors.evaluation.totals import totals
    from monitors.patient.scoring import Scorer
    from monitors.settings import EcgSettings

    settings = load(EcgSettings, target="ecg", config=config, sets=sets)
    scorer = Scorer(load_bundle(bundle)) if bundle is not None else None
    began = time.monotonic()
    found = open_annotated(records, say)
    count = len(found.records)
    _check_enough(count, records, trained=scorer is None)
    folds = min(folds, count)
    say(_plan(count, len(found.left_out), folds, bundle))
    watched = _WatchProgress()
    with ExitStack() as stack:
        runs = output / "folds" if output else Path(stack.enter_context(TemporaryDirectory(prefix="genray-")))
        if scorer:
            judged = judge(
                found.records,
                found.truths,
                scorer,
                settings.ward,
                settings.alarms,
                lambda share: watched(f"{count} records watched", share),
            )
        else:
            judged = cross_validate(
                found,
                folds,
                lambda part: _train(found, part, runs),
                settings.ward,
                settings.alarms,
                lambda fold, some, share: watched(f"fold {fold} of {folds}: {some} records watched", share),
            )
    figures = {
        **totals(sorted(judged, key=lambda each: each.name)),
        "folds": None if scorer else folds,
        "bundle": str(bundle) if bundle else None,
        "left_out": found.left_out,
        "seconds": round(time.monotonic() - began, 1),
    }
    if output:
        write_json(output / "evaluation.json", figures)
    if as_json:
        say(figures_text(figures))
        print_json(figures)
    else:
        print(figures_text(figures))


def _check_enough(count: int, records: Path, *, trained: bool) -> None:
    if count >= (2 if trained else 1):
        return
    raise DataError(
        f"{count} annotated records under {records}: "
        + ("two are needed, to train on the one and judge the other" if trained else "none can be judged"),
        where=str(records),
        hint="give a folder of WFDB records with their .atr files"
        + (", or a --bundle of train-ecg" if trained else ""),
    )


def _plan(records: int, left_out: int, folds: int, bundle: Path | None) -> str:
    without = f", {left_out} left out" if left_out else ""
    how = (
        f"judged by {bundle}; if it was trained on any of them, the figures are too good"
        if bundle
        else f"in {folds} folds, each judged by a detector that was trained on the others"
    )
    return f"{records} annotated records{without}, {how}"


def _train(found: AnnotatedRecords, part: TrainingPart, runs: Path) -> Scorer:
    """The detector of a fold, by train-ecg."""
    from genray.bundle import load_bundle
    from genray.settings.base import flatten, nested
    from genray.settings.load import load
    from genray.targets import Resources, find_target
    from monitors.patient.scoring import Scorer

    title = f"fold {part.fold} of {part.folds}: "
    target: Any = find_target("train-ecg").load()
    recipe = flatten(load(target.settings_class, target="train-ecg", sets=_RECIPE)) | {
        "runs": str(runs.absolute()),
        "data.path": str(found.folder.absolute()),
        "data.records": list(part.records),
        "data.leads": [part.lead],
    }
    settings = target.settings_class.model_validate(nested(recipe))
    say(f"{title}training on {part.beats} normal beats of {part.lead} of {len(part.records)} records")
    prepared = target.prepare(settings, "train-ecg", f"fold-{part.fold}", lambda text: None)
    outcome = prepared.run(_FoldDisplay(title), Resources(1, 0), attached=False)
    return Scorer(load_bundle(outcome.bundle))


class _WatchProgress:
    """Says from time to time how much is watched."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, title: str, share: float) -> None:
        now = time.monotonic()
        if now - self._said >= _EVERY_S:
            self._said = now
            say(f"{title}: {share:.0%}")


class _FoldDisplay:
    """The progress of a training among others: what it is doing, not what it learns."""

    def __init__(self, title: str) -> None:
        self._title, self._said = title, time.monotonic()

    def tick(self, tick: Tick) -> None:
        now = time.monotonic()
        if now - self._said >= _EVERY_S:
            self._said = now
            place = tick.place or f"{tick.unit} {tick.step}/{tick.steps}"
            say(f"{self._title}training, {place}, {duration(tick.seconds_left)} left")

    def note(self, text: str) -> None:
        if not text.startswith("run: "):
            say(f"{self._title}{text}")

    def row(self, row: Mapping[str, Any], text: str) -> None:
        pass  # a line for each epoch of each fold would hide the rest

    def close(self) -> None:
        pass  # nothing to restore


def figures_text(figures: Mapping[str, Any]) -> str:
    """What `monitors.evaluation.totals.totals` found, readable."""
    rows = [
        ("RECORD", "MIN", "BEATS", "ABNORMAL", "AUC", "CALIBRATED", "SE", "P+", "EPISODES", "FALSE", "RHYTHM")
    ]
    for row in figures["per_record"]:
        rows.append(
            (
                row["record"],
                f"{row['minutes']:.0f}",
                str(row["beats"]),
                "paced" if row["paced"] else str(row["abnormal"]),
                _number(row["auc_without"]),
                _number(row["auc_with"]),
                _percent(row["sensitivity"]),
                _percent(row["positive_predictivity"]),
                f"{row['alarmed']}/{row['episodes']}",
                str(row["false_anomaly_alarms"]),
                f"{row['false_rhythm_alarms']}/{row['rhythm_alarms']}",
            )
        )
    return f"{aligned(rows)}\n\n{aligned(list(_totals(figures)))}"


def _totals(figures: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    auc, qrs, alarms, goals = (figures[key] for key in ("beat_auc", "qrs", "alarms", "goals"))
    mean, delay, rhythm = auc["mean"], alarms["delay"], alarms["rhythm"]
    yield f"beat AUC of {auc['beats']} beats, {auc['abnormal']} abnormal", "", ""
    for key, title in (("without", "  new patient"), ("with", "  with his own reference")):
        beside = f"goal {goals[f'beat_auc.{key}']:g}; mean over records {_number(mean[key])}"
        yield title, _number(auc[key]), beside
    yield "  new patient, all beats", _number(auc["without_all_beats"]), ""
    yield f"QRS detection, {qrs['beats']} beats, within 150 ms", "", "Se / P+"
    goal = " / ".join(_percent(goals[f"qrs.{key}"]) for key in ("sensitivity", "positive_predictivity"))
    yield "  all leads, whole records", _both(qrs), f"goal {goal}"
    yield "  all leads, after the first 5 minutes (EC57)", _both(qrs["after_5_minutes"]), ""
    yield "  one lead, whole records", _both(qrs["one_lead"]), ""
    yield "  one lead, after the first 5 minutes (EC57)", _both(qrs["one_lead"]["after_5_minutes"]), ""
    yield f"alarms in {figures['hours']:.1f} h, end to end", "", ""
    found = f"{alarms['alarmed']} of {alarms['episodes']}, goal {_percent(goals['alarms.share'])}"
    yield "  episodes of abnormal beats alarmed", _percent(alarms["share"]), found
    false = f"of {alarms['alarms']} alarms {alarms['false']}, goal at most {goals['alarms.false_per_hour']:g}"
    yield "  anomaly: false an hour", _number(alarms["false_per_hour"], 1), false
    of_all = alarms["physiological"]
    kinds = ", ".join(f"{kind} {each['false']} of {each['alarms']}" for kind, each in rhythm.items())
    yield "  all physiological: false an hour", _number(of_all["false_per_hour"], 1), f"false {kinds}"
    waited = f"90 % within {_number(delay['p90'], 0)} s"
    yield "  from episode to alarm, median", f"{_number(delay['median'], 0)} s", waited
    day = alarms["per_bed_and_day"]
    technical = f"technical {_number(day['technical'], 0)}"
    yield "  alarms per bed and day", _number(day["physiological"], 0), technical
    yield "time", duration(figures["seconds"]), ""


def _both(rates: Mapping[str, Any]) -> str:
    return f"{_percent(rates['sensitivity'])} / {_percent(rates['positive_predictivity'])}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
