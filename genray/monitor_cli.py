"""The `genray monitor` commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from genray.options import CONFIG, JSON, SET, reported


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
    from genray.monitor_commands import monitor_ecg

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
    from genray.evaluate_commands import evaluate_records

    return evaluate_records(**options)
