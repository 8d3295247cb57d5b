"""What `genray monitor evaluate` does: trains detectors by cross-validation over records, and has the monitor
judge the records that they have not seen.

The figures of an evaluation of the monitor as a table.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from genray.cli.output import aligned, print_json, say
from genray.errors import DataError, UsageError
from genray.progress import duration

if TYPE_CHECKING:
    from genray.ecg.records.base import Record
    from genray.progress import Tick
    from monitors.evaluation.evaluate import Truth
    from monitors.patient.scoring import Scorer

_EVERY = 15.0  # s between lines of progress
_BEATS = 60_000  # that a network is trained on, about: more of them add little
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


def evaluate_records(
    records: Path,
    *,
    bundle: Path | None,
    folds: int,
    config: Path | None,
    sets: tuple[str, ...],
    as_json: bool,
    output: Path | None,
) -> int:
    """Judge the monitor on the annotated records below `records`; returns the exit code.

    Args:
        bundle: of train-ecg, for all records; None: one is trained for each fold of the records.
        folds: at most; no more than there are records.
        config: settings of the monitor, as `genray monitor ecg` takes them; `sets` on top of it.
        output: folder for what was trained and found; None: nothing is kept.

    Raises:
        UsageError: too few records, or settings that are wrong.
        BundleError: the bundle cannot be used.
    """
    from genray.bundle import load_bundle
    from genray.io.files import write_json
    from genray.settings.load import load
    from monitors.evaluation.evaluate import evaluate
    from monitors.evaluation.totals import totals
    from monitors.patient.scoring import Scorer
    from monitors.settings import EcgSettings

    if folds < 2:
        raise UsageError(f"--folds {folds}: at least 2 are needed", hint="or give --bundle")
    settings = load(EcgSettings, target="ecg", config=config, sets=sets)
    scorer = Scorer(load_bundle(bundle)) if bundle is not None else None
    began = time.monotonic()
    found, truths, left_out = _open(records)
    if len(found) < (1 if scorer else 2):
        raise DataError(
            f"{len(found)} annotated records under {records}: "
            + ("none can be judged" if scorer else "two are needed, to train on the one and judge the other"),
            where=str(records),
            hint="give a folder of WFDB records with their .atr files"
            + ("" if scorer else ", or a --bundle of train-ecg"),
        )
    names = list(found)
    parts = [names] if scorer else [names[i :: min(folds, len(names))] for i in range(min(folds, len(names)))]
    say(_plan(len(names), len(left_out), None if scorer else len(parts), bundle))
    judged = []
    with ExitStack() as stack:
        runs = output / "folds" if output else Path(stack.enter_context(TemporaryDirectory(prefix="genray-")))
        for number, test in enumerate(parts, 1):
            title = "" if scorer else f"fold {number} of {len(parts)}: "
            used = scorer or _trained(records, found, truths, test, runs, f"fold-{number}", title)
            some = {name: found[name] for name in test}
            said = _Watching(f"{title}{len(test)} records watched")
            judged += evaluate(some, truths, used, settings.ward, settings.alarms, said)
    figures = {
        **totals(sorted(judged, key=lambda each: each.name)),
        "folds": None if scorer else len(parts),
        "bundle": str(bundle) if bundle else None,
        "left_out": left_out,
        "seconds": round(time.monotonic() - began, 1),
    }
    if output:
        write_json(output / "evaluation.json", figures)
    if as_json:
        say(table(figures))
        print_json(figures)
    else:
        print(table(figures))
    return 0


def _plan(records: int, left_out: int, folds: int | None, bundle: Path | None) -> str:
    without = f", {left_out} left out" if left_out else ""
    how = (
        f"judged by {bundle}; if it was trained on any of them, the figures are too good"
        if folds is None
        else f"in {folds} folds, each judged by a detector that was trained on the others"
    )
    return f"{records} annotated records{without}, {how}"


def _open(folder: Path) -> tuple[dict[str, Record], dict[str, Truth], dict[str, str]]:
    """The records that can be judged, what their annotations say, and why others cannot, by name."""
    from genray.ecg.records.base import find_records, open_record
    from monitors.evaluation.evaluate import check_readable, truth_of

    records, truths, left_out = {}, {}, {}
    for path in find_records(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        try:
            record = open_record(path)
            truth = truth_of(record)
            if truth is not None:
                check_readable(record)
        except DataError as error:
            left_out[name] = error.what
            say(f"set aside: {name}: {error.what}")
            continue
        if truth is None:
            left_out[name] = "no annotated beats"
            say(f"left out: {name}: no annotated beats")
        else:
            records[name], truths[name] = record, truth
    return records, truths, left_out


def _trained(
    folder: Path,
    records: Mapping[str, Record],
    truths: Mapping[str, Truth],
    test: Sequence[str],
    runs: Path,
    run: str,
    title: str,
) -> Scorer:
    """A detector that has learned on all records but those of `test`."""
    from genray.bundle import load_bundle
    from genray.settings.base import flatten, nested
    from genray.settings.load import load
    from genray.targets import Resources, find_target
    from monitors.patient.scoring import Scorer

    lead = _common_lead([record for name, record in records.items() if name not in test])
    usable = {
        name: int((~truths[name].abnormal).sum())
        for name, record in records.items()
        if name not in test and lead in map(str.upper, record.leads)
    }
    chosen = list(usable)[:: max(1, sum(usable.values()) // _BEATS)]
    beats = sum(usable[name] for name in chosen)
    target: Any = find_target("train-ecg").load()
    recipe = flatten(load(target.settings_class, target="train-ecg", sets=_RECIPE)) | {
        "runs": str(runs.absolute()),
        "data.path": str(folder.absolute()),
        "data.records": chosen,
        "data.leads": [lead],
    }
    settings = target.settings_class.model_validate(nested(recipe))
    say(f"{title}training on {beats} normal beats of {lead} of {len(chosen)} records")
    prepared = target.prepare(settings, "train-ecg", run, lambda text: None)
    outcome = prepared.run(_Training(title), Resources(1, 0), attached=False)
    return Scorer(load_bundle(outcome["bundle"]))


def _common_lead(records: Sequence[Record]) -> str:
    """The lead that the most records have; of several the one that train-ecg prefers."""
    from genray.datasets.beats import BeatSetSettings

    counts = Counter(lead.upper() for record in records for lead in record.leads)
    preferred = {lead: -place for place, lead in enumerate(BeatSetSettings().leads)}
    return max(counts, key=lambda lead: (counts[lead], preferred.get(lead, -len(preferred))))


class _Watching:
    """Says from time to time how much is watched."""

    def __init__(self, title: str) -> None:
        self._title, self._said = title, time.monotonic()

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now - self._said >= _EVERY:
            self._said = now
            say(f"{self._title}: {share:.0%}")


class _Training:
    """The progress of a training among others: what it is doing, not what it learns."""

    def __init__(self, title: str) -> None:
        self._title, self._said = title, time.monotonic()

    def tick(self, tick: Tick) -> None:
        now = time.monotonic()
        if now - self._said >= _EVERY:
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


_HEAD = ("RECORD", "MIN", "BEATS", "ABNORMAL", "NEW", "LEARNED", "SE", "P+", "EPISODES", "FALSE", "RHYTHM")


def table(figures: Mapping[str, Any]) -> str:
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
