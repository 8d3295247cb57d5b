"""What `genray plan` and `genray ledger` do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genray.cli.output import aligned, print_json, say
from genray.errors import UsageError
from genray.progress import duration
from genray.settings.base import absolute


def plan_target(
    target: str, *, config: Path | None, sets: tuple[str, ...], sample: int, hours: float, as_json: bool
) -> int:
    """Measure a sample and say how long the whole would take; returns the exit code."""
    from cluster.resources import local_resources
    from genray.settings.load import load
    from genray.targets import find_target
    from pipelines.engine.estimate import estimate
    from pipelines.engine.target import Bulk

    bulk: Any = find_target(target).load()
    if not isinstance(bulk, Bulk):
        raise UsageError(f"{target} is not a bulk target", hint="`genray targets` lists them all")
    settings = absolute(load(bulk.settings_class, target=target, config=config, sets=sets))
    found = estimate(bulk.step(settings), local_resources(), images=sample, hours=hours, note=say)
    if as_json:
        print_json({"target": target, **found})
    else:
        print(aligned(_rows(found, hours)))
    return 0


def show_ledger(location: str, *, as_json: bool, status: str | None, limit: int) -> int:
    """Print what the ledger of the output at `location` says; returns the exit code."""
    from pipelines.tables import show_ledger as show

    return show(location, as_json, status, limit)


def _rows(found: dict[str, Any], hours: float) -> list[tuple[str, str]]:
    stages = "  ".join(f"{name} {1e3 * each:.1f}" for name, each in found["stage_seconds"].items())
    broken = found["sample"]["failed"]
    return [
        (
            "images",
            f"{found['images']}, {found['gigabytes']:.3g} GB, listed in {found['listing_seconds']:.1f} s",
        ),
        (
            "sample",
            f"{found['sample']['images']} of {found['sample']['megapixels']:.2g} megapixels, {broken} failed",
        ),
        ("ms an image", stages),
        ("one worker", f"{found['images_per_second']:.3g} images/s"),
        (f"{found['workers']} here", duration(found["hours"] * 3600)),
        (
            f"in {hours:g} h",
            f"{found['workers_needed']} workers ({duration(found['hours_with_them'] * 3600)})",
        ),
    ]
