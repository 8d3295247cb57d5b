"""What `genray monitor ecg` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genray.cli.output import print_json, say, show_outcome
from genray.settings.base import absolute

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
