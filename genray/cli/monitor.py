"""The `genray monitor` commands.

What `genray monitor ecg` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from genray.cli.options import CONFIG, JSON, SET, reported
from genray.cli.output import print_json, say, show_outcome
from genray.settings.base import absolute

_STATE = click.option(
    "--state", type=click.Path(path_type=Path, file_okay=False), help="Folder of the monitor; else the usual."
)


@click.group()
def monitor() -> None:
    """Watch signals live, or see how well that works on records.

    Not a medical device: for research and engineering, not for the care of patients.
    """


@monitor.command()
@CONFIG
@SET
@click.option("--demo", is_flag=True, help="Generated patients, who are trained on first: needs no data.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="End after so long.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Of Prometheus' /metrics; 0: a free one.")
@click.option("--page-port", type=click.IntRange(0, 65535), help="Of the live page; 0: a free one.")
@JSON
@reported
def ecg(**options: Any) -> int:
    """Watch streams of ECG: heart rate, beats that are not normal for the patient, alarms.

    Not a medical device: for research and engineering, not for the care of patients. Everything listens on
    127.0.0.1 only. Ctrl-C ends it well; given again, the same command goes on with the alarms and the
    patients' references that it had. With `shards` it runs on Ray; `genray submit ecg` sends it to a cluster.

    \b
    Example:
      genray monitor ecg --demo
      genray monitor ecg --set source.path=records --set bundle=runs/ecg/bundle
      genray monitor ecg --set source.kind=mqtt --set 'alertmanager.urls=[http://127.0.0.1:9093]'
    """

    return monitor_ecg(**options)


@monitor.command()
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
def evaluate(**options: Any) -> int:
    """Measure the monitor on annotated records, by cross-validation over them: QRS detection, beats, alarms.

    \b
    Example:
      genray monitor evaluate --records mitbih
      genray monitor evaluate --records mitbih --bundle runs/ecg/bundle --json
    """
    from genray.cli.evaluate import evaluate_records

    return evaluate_records(**options)


@monitor.command()
@_STATE
@click.option("--since", metavar="TIME", help="Leave out what had ended so long ago: 30m, 8h, 2d.")
@click.option("--stream", metavar="NAME", help="Of this stream alone: its name or its pseudonym.")
@click.option("--kind", metavar="KIND", help="Of this kind alone, such as asystole or lead-off.")
@click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(1, 100_000), help="Show the newest."
)
@click.option("--csv", "as_csv", is_flag=True, help="CSV to standard output.")
@JSON
@reported
def alarms(**options: Any) -> int:
    """List the alarms that a monitor recorded, newest first; it may be running.

    \b
    Example:
      genray monitor alarms --since 8h
      genray monitor alarms --state runs/ecg-demo/monitor --stream bed-7 --csv > alarms.csv
    """
    from genray.cli.alarms import show_alarms

    return show_alarms(**options)


@monitor.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_STATE
@click.option("--known", is_flag=True, help="Also which stream of the journal has which of these names.")
@JSON
@reported
def names(names: tuple[str, ...], **options: Any) -> int:
    """Print the pseudonyms under which a monitor shows the streams called NAME.

    \b
    Example:
      genray monitor names bed-7 bed-8 --known
    """
    from genray.cli.alarms import show_names

    return show_names(names, **options)


_DEMO = Path("runs/ecg-demo")
_PATIENTS, _MINUTES = 6, 3  # that the demo's bundle is trained on


def monitor_ecg(
    *,
    config: Path | None,
    sets: tuple[str, ...],
    demo: bool,
    seconds: float | None,
    metrics_port: int | None,
    page_port: int | None,
    as_json: bool,
) -> int:
    """Run the monitor in this process, or with Ray; returns the exit code."""
    from genray.cli.submit import run_here
    from genray.settings.load import load
    from genray.targets import find_target

    target: Any = find_target("ecg").load()
    first = _demo_settings() if demo else []
    last = {"seconds": seconds, "metrics.port": metrics_port, "page.port": page_port}
    given = [f"{key}={value}" for key, value in last.items() if value is not None]
    settings = absolute(
        load(target.settings_class, target="ecg", config=config, sets=(*first, *sets, *given))
    )
    outcome = run_here("ecg", target, settings, None, dry_run=False)
    show_outcome(outcome)
    if as_json:
        print_json(outcome)
    return 0


def _demo_settings() -> list[str]:
    """Settings of the demo. Its bundle is trained on generated patients first, if it is not there."""
    bundle = _DEMO / "train" / "bundle"
    if not (bundle / "bundle.json").exists():
        _train()
    return [
        f"bundle={bundle}",
        f"state={_DEMO}/monitor",
        "source.kind=demo",
        "source.speed=4",
        "source.calm_seconds=120",
        "ward.reference.minutes=1.5",
    ]


def _train() -> None:
    from genray.cli.submit import run_here
    from genray.ecg.synthesis import write_records
    from genray.settings.load import load
    from genray.targets import find_target

    say("the demo's bundle: generating patients and training on their normal beats, once")
    records = _DEMO / "records"
    if not records.exists():
        partial = _DEMO / ".records.new"
        write_records(partial, _PATIENTS, 60 * _MINUTES)
        partial.rename(records)
    training: Any = find_target("train-ecg").load()
    # Small: what it has to tell apart is drawn, and somebody is waiting.
    small = ("loop.epochs=8", "threshold.folds=0", "device.gpu=false", "device.threads=1")
    sets = (f"data.path={records}", f"runs={_DEMO}", *small)
    settings = absolute(load(training.settings_class, target="train-ecg", sets=sets))
    run_here("train-ecg", training, settings, "train", dry_run=False)
