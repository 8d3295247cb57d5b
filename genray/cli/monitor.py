"""The `genray monitor` commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from genray.cli.options import CONFIG, JSON, SET, reported

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
    from genray.cli.monitor_commands import monitor_ecg

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
