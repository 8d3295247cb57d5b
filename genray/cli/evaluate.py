"""`genray monitor evaluate`: measures the monitor on annotated records."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from genray.cli.terminal.options import CONFIG, JSON, SET, reported
from genray.cli.terminal.output import print_json, say
from genray.errors import DataError
from genray.text import duration

if TYPE_CHECKING:
    from genray.ecg.noisy_records import NoisePlan
    from genray.progress import Tick
    from monitors.evaluation.choice import NestedChoice
    from monitors.evaluation.cross_validation import TrainingPart
    from monitors.evaluation.evaluate import RecordResult, RhythmResults
    from monitors.evaluation.rhythms import RhythmJudgement
    from monitors.patient.scoring import BeatModel
    from monitors.settings import EcgSettings

_READY = "ready:ecg"
_EVERY_S = 15.0  # seconds between lines of progress
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
    "--records",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of WFDB records with annotated beats or rhythms, or with bedside alarms (challenge 2015).",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="Evaluate this bundle (default: train one per fold; ready:ecg for records without annotated beats).",
)
@click.option(
    "--rhythm-folds",
    type=click.Path(path_type=Path),
    help="Judge each record by a rhythm model of this folder that was not trained on its patient: RUN/folds "
    "of train-rhythm.",
)
@click.option(
    "--folds", default=5, show_default=True, type=click.IntRange(2), help="Number of cross-validation folds."
)
@click.option(
    "--noise",
    "noises",
    multiple=True,
    metavar="KIND:SNR",
    help="Add noise to the records: wander, motion or muscle, or the path of a record of noise, at this "
    "signal-to-noise ratio in dB (may be repeated, or a list with commas; noises add up).",
)
@click.option(
    "--noise-plan",
    default="nst",
    show_default=True,
    type=click.Choice(["nst", "always"]),
    help="Time of the noise: from minute 5 on two of four minutes, as nst of WFDB does it, or always.",
)
@click.option("--noise-seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the noise.")
@click.option(
    "--nested",
    is_flag=True,
    help="Choose the weights of the score by nested cross-validation, and measure that choice too.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page to this HTML file: figures, a time line of each record, and the ECG around missed "
    "episodes and false alarms.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Write the figures and the training runs of the folds to this folder.",
)
@CONFIG
@SET
@JSON
@reported
def evaluate(
    records: Path,
    bundle: Path | None,
    rhythm_folds: Path | None,
    folds: int,
    noises: tuple[str, ...],
    noise_plan: NoisePlan,
    noise_seed: int,
    nested: bool,
    report: Path | None,
    output: Path | None,
    config: Path | None,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure the monitor on annotated records.

    Annotated beats judge QRS detection, beat scores and alarms, by cross-validation over the records or with
    one bundle. Annotated rhythms, and experts' verdicts on bedside alarms, judge the alarms for
    life-threatening rhythms.

    \b
    Example:
      genray monitor evaluate --records mitbih
      genray monitor evaluate --records mitbih --bundle runs/ecg/bundle --json
      genray monitor evaluate --records vfdb --rhythm-folds runs/rhythm/folds --report vfdb.html
      genray monitor evaluate --records mitbih --bundle runs/ecg/bundle --noise muscle:12
    """
    from genray.bundle import load_bundle
    from genray.ecg.noisy_records import NoiseTest, parse_noises
    from genray.io.files import write_json
    from genray.settings.load import load
    from monitors.evaluation.cross_validation import cross_validate, open_annotated
    from monitors.evaluation.evaluate import evaluate as judge
    from monitors.evaluation.evaluate import evaluate_rhythms
    from monitors.evaluation.page import write_report
    from monitors.evaluation.rhythm_models import RhythmModels
    from monitors.evaluation.tables import nested_text, rhythm_tables, total_tables
    from monitors.evaluation.totals import Totals
    from monitors.patient.rhythm.ventricular import RhythmModel
    from monitors.patient.scoring import BeatModel
    from monitors.settings import EcgSettings

    settings = load(EcgSettings, target="ecg", config=config, sets=sets)
    model = BeatModel.from_bundle(load_bundle(bundle)) if bundle is not None else None
    if rhythm_folds is not None:
        rhythm = RhythmModels.of_folds(rhythm_folds)
    else:
        rhythm = RhythmModels.one(RhythmModel.from_bundle(load_bundle(settings.rhythm)))
    began = time.monotonic()
    noise = NoiseTest(parse_noises(noises), noise_plan, noise_seed) if noises else None
    if noise is not None:
        noise.check()
        say(f"noise added: {noise.text}; bundles are trained without it")
    annotated = open_annotated(records, say, noise)
    count = len(annotated.records)
    if count or not annotated.rhythms:
        _check_enough(count, records, trained=model is None)
    folds = min(folds, count)
    progress = _Throttled()
    of_rhythms = None
    if others := len(annotated.rhythms):
        left_out = 0 if count else len(annotated.left_out)
        say(_rhythm_plan(others, left_out, settings.rhythm, rhythm_folds, bundle))
        of_rhythms = evaluate_rhythms(
            annotated.rhythms,
            model or BeatModel.from_bundle(load_bundle(_READY)),
            settings.ward,
            settings.alarms,
            rhythm,
            lambda share: progress.say(f"evaluating {others} records: {share:.0%}"),
        )
    if count:
        say(_plan(count, len(annotated.left_out), folds, bundle))
    with ExitStack() as stack:
        runs = output / "folds" if output else Path(stack.enter_context(TemporaryDirectory(prefix="genray-")))
        if not count:
            results = []
        elif model is not None:
            results = judge(
                annotated.records,
                model,
                settings.ward,
                settings.alarms,
                rhythm,
                lambda share: progress.say(f"evaluating {count} records: {share:.0%}"),
            )
        else:
            results = cross_validate(
                annotated.records,
                folds,
                lambda part: _train(records, part, runs),
                settings.ward,
                settings.alarms,
                rhythm,
                lambda fold, judged, share: progress.say(
                    f"fold {fold} of {folds}: evaluating {judged} records: {share:.0%}"
                ),
            )
    totals = Totals.of(sorted(results, key=lambda result: result.name)) if count else None
    choice = _choose(results, folds, settings) if nested else None
    judged = {result.name: result.rhythms for result in results if result.rhythms is not None}
    judged |= of_rhythms.rhythms if of_rhythms else {}
    seconds = round(time.monotonic() - began, 1)
    figures = {
        **(totals.as_json() if totals else {"records": len(annotated.rhythms)}),
        **_rhythm_figures(judged, of_rhythms),
        "folds": None if model is not None or not count else folds,
        "bundle": str(bundle) if bundle else None,
        "rhythm": str(rhythm_folds or settings.rhythm),
        "noise": noise.as_json() if noise else None,
        **({"nested": choice.as_json()} if choice else {}),
        "left_out": annotated.left_out,
        **({"notes": annotated.notes} if annotated.notes else {}),
        "seconds": seconds,
    }
    if output:
        write_json(output / "evaluation.json", figures)
    tables = total_tables(totals, seconds) if totals else []
    parts = [table.text for table in tables]
    parts += [nested_text(choice)] if choice else []
    of_alarms = rhythm_tables(figures)
    text = "\n\n".join(parts + [table.text for table in of_alarms])
    if report:
        lines = {result.name: result.line for result in results}
        lines |= of_rhythms.lines if of_rhythms else {}
        opened = {name: each.record for name, each in annotated.records.items()} | annotated.rhythms
        about = f"{records}, {duration(seconds)}" + (f", {noise.text}" if noise else "")
        write_report(report, about, [*of_alarms, *reversed(tables)], opened, lines)
        say(f"report: {report.absolute()}")
    if as_json:
        say(text)
        print_json(figures)
    else:
        print(text)


def _choose(results: Sequence[RecordResult], folds: int, settings: EcgSettings) -> NestedChoice:
    """Choose the weights of the score on the records that have scored beats.

    Raises:
        DataError: there are fewer than two.
    """
    from monitors.evaluation.choice import choose_nested

    records = sorted(
        (result.scored for result in results if result.scored is not None), key=lambda record: record.name
    )
    if len(records) < 2:
        raise DataError(
            f"{len(records)} records without pacing, but at least 2 needed to choose weights on",
            hint="give more --records with annotated beats, or leave --nested out",
        )
    say(f"choosing the weights of the score on {len(records)} records")
    return choose_nested(records, max(2, folds), settings.alarms, settings.ward.burden_beats)


def _check_enough(count: int, records: Path, *, trained: bool) -> None:
    least = 2 if trained else 1
    if count >= least:
        return
    raise DataError(
        f"{count} annotated records found, but at least {least} needed"
        + (" (to train on one and evaluate the other)" if trained else ""),
        where=str(records),
        hint="set --records to a folder of WFDB records with annotated beats or rhythms (.atr files beside "
        "the headers), or with bedside alarms in their headers"
        + (", or evaluate a --bundle of train-ecg" if trained else ""),
    )


def _plan(records: int, left_out: int, folds: int, bundle: Path | None) -> str:
    without = f", {left_out} left out" if left_out else ""
    how = (
        f"evaluated with {bundle}; if it was trained on any of these records, the figures are too good"
        if bundle
        else f"in {folds} folds, each evaluated with a model trained on the others"
    )
    return f"{records} annotated records{without}, {how}"


def _rhythm_plan(
    records: int, left_out: int, rhythm: str, rhythm_folds: Path | None, bundle: Path | None
) -> str:
    without = f", {left_out} left out" if left_out else ""
    plan = f"{records} records with annotated rhythms or bedside alarms{without}, evaluated with"
    if rhythm_folds:
        return f"{plan} {bundle or _READY} and rhythm models of {rhythm_folds}, trained on other patients"
    return (
        f"{plan} {bundle or _READY} and {rhythm}; if these were trained on any of these records, the figures "
        "are too good"
    )


def _rhythm_figures(judged: Mapping[str, RhythmJudgement], others: RhythmResults | None) -> dict[str, Any]:
    """Return the figures of annotated rhythms and bedside alarms, as far as there are any."""
    from monitors.evaluation.rhythm_totals import bedside_json, rhythms_json

    figures: dict[str, Any] = {}
    if judged:
        figures["rhythms"] = rhythms_json(judged)
    if others and others.bedside:
        figures["bedside_alarms"] = bedside_json(others.bedside)
    if others and others.bedside_without_pulse:
        figures["bedside_alarms"]["ecg_only"] = bedside_json(others.bedside_without_pulse)
    return figures


def _train(folder: Path, part: TrainingPart, runs: Path) -> BeatModel:
    """Train the model of a fold of the records in `folder` with train-ecg."""
    from genray.bundle import load_bundle
    from genray.settings.base import flatten, nested
    from genray.settings.load import load
    from genray.targets import Resources, find_target
    from monitors.patient.scoring import BeatModel

    title = f"fold {part.fold} of {part.folds}: "
    target: Any = find_target("train-ecg").load()
    recipe = flatten(load(target.settings_class, target="train-ecg", sets=_RECIPE)) | {
        "runs": str(runs.absolute()),
        "data.path": str(folder.absolute()),
        "data.records": list(part.records),
        "data.leads": [part.lead],
    }
    settings = target.settings_class.model_validate(nested(recipe))
    say(f"{title}training on {part.beats} normal beats of lead {part.lead} from {len(part.records)} records")
    prepared = target.prepare(settings, "train-ecg", f"fold-{part.fold}", lambda text: None)
    outcome = prepared.run(_FoldDisplay(title), Resources(1, 0), attached=False)
    return BeatModel.from_bundle(load_bundle(outcome.bundle))


class _Throttled:
    """Prints at most one line every 15 seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last >= _EVERY_S:
            self._last = now
            say(text)


class _FoldDisplay:
    """Display of the training of one fold: its progress, without losses."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._progress = _Throttled()

    def tick(self, tick: Tick) -> None:
        place = tick.place or f"{tick.unit} {tick.step}/{tick.steps}"
        self._progress.say(f"{self._title}training, {place}, {duration(tick.seconds_left)} left")

    def note(self, text: str) -> None:
        if not text.startswith("run: "):
            say(f"{self._title}{text}")

    def row(self, row: Mapping[str, Any], text: str) -> None:
        pass  # a line for each epoch of each fold would be too many

    def close(self) -> None:
        pass  # nothing to restore
