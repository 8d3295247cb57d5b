"""`genray monitor`: watches ECG live (`ecg`), evaluates the monitor on annotated records (`evaluate`), and
shows what was recorded (`alarms`, `strip`, `names`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from genray.cli.alarms import alarms, names, strip
from genray.cli.evaluate import evaluate
from genray.cli.terminal.options import CONFIG, JSON, SET, reported
from genray.cli.terminal.output import print_json, say, show_outcome

_DEMO = Path("runs/ecg-demo")
# Training data of the demo's bundle.
_DEMO_PATIENTS = 6
_DEMO_MINUTES = 3


@click.group()
def monitor() -> None:
    """Watch signals live, measure the monitor on records, list recorded alarms.

    Not a medical device: for research and engineering, not for the care of patients.
    """


for _command in (evaluate, alarms, strip, names):
    monitor.add_command(_command)


@monitor.command()
@CONFIG
@SET
@click.option("--demo", is_flag=True, help="Watch generated patients; trains a bundle first, needs no data.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Stop after this many seconds.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Port of the metrics (0 picks a free one).",
)
@click.option(
    "--page-port", type=click.IntRange(0, 65535), help="Port of the live page (0 picks a free one)."
)
@JSON
@reported
def ecg(
    config: Path | None,
    sets: tuple[str, ...],
    demo: bool,
    seconds: float | None,
    metrics_port: int | None,
    page_port: int | None,
    as_json: bool,
) -> None:
    """Watch ECG streams and raise alarms.

    It shows heart rate, signal quality and beats that are anomalous for the patient. Not a medical device:
    for research and engineering, not for the care of patients.

    By default metrics and page are served on 127.0.0.1 only. Ctrl-C stops the monitor and saves its state;
    the same command resumes with its alarms and the patients' references. With `shards` it runs on Ray;
    `genray submit ecg` runs it on a cluster.

    \b
    Example:
      genray monitor ecg --demo
      genray monitor ecg --set source.path=records
      genray monitor ecg --set source.path=records --set bundle=runs/ecg/bundle
      genray monitor ecg --set source.kind=mqtt --set 'alertmanager.urls=[http://127.0.0.1:9093]'
    """
    from genray.cli.submit import run_here
    from genray.settings.base import absolute
    from genray.settings.load import load
    from genray.targets import find_target

    target: Any = find_target("ecg").load()
    demo_sets = _demo_settings() if demo else []
    options = {"seconds": seconds, "metrics.port": metrics_port, "page.port": page_port}
    option_sets = [f"{key}={value}" for key, value in options.items() if value is not None]
    all_sets = (*demo_sets, *sets, *option_sets)
    settings = absolute(load(target.settings_class, target="ecg", config=config, sets=all_sets))
    outcome = run_here("ecg", target, settings, None, dry_run=False)
    show_outcome(outcome)
    if as_json:
        print_json(outcome.as_json())


def _demo_settings() -> list[str]:
    """Return the settings of the demo; train its bundle on generated patients first if there is none."""
    bundle = _DEMO / "train" / "bundle"
    if not (bundle / "bundle.json").exists():
        _train_demo_bundle()
    return [
        f"bundle={bundle}",
        f"state={_DEMO}/monitor",
        "source.kind=demo",
        "source.speed=4",
        "source.calm_seconds=120",
        "ward.reference.minutes=1.5",
    ]


def _train_demo_bundle() -> None:
    from genray.cli.submit import run_here
    from genray.ecg.synthesis import write_records
    from genray.settings.base import absolute
    from genray.settings.load import load
    from genray.targets import find_target

    say("no bundle for the demo yet: generating patients and training on their normal beats, only this once")
    records = _DEMO / "records"
    if not records.exists():
        partial = _DEMO / ".records.new"
        write_records(partial, _DEMO_PATIENTS, 60 * _DEMO_MINUTES)
        partial.rename(records)
    training: Any = find_target("train-ecg").load()
    sets = (
        f"data.path={records}",
        f"runs={_DEMO}",
        # A short training is enough for generated beats, and the user is waiting.
        *("loop.epochs=8", "threshold.folds=0", "device.gpu=false", "device.threads=1"),
    )
    settings = absolute(load(training.settings_class, target="train-ecg", sets=sets))
    run_here("train-ecg", training, settings, "train", dry_run=False)
