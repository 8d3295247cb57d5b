"""What `genray submit` and `genray jobs` do, joining configs, cluster and targets."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genray.errors import UsageError
from genray.terminal import print_json, show_outcome


def submit_target(
    target: str,
    *,
    config: Path | None,
    sets: tuple[str, ...],
    address: str | None,
    detach: bool,
    dry_run: bool,
    as_json: bool,
    run: str | None,
) -> int:
    """Run a target here or on a cluster; returns the exit code."""
    from cluster.targets import find_target
    from configs.loading import load
    from genray.settings import absolute

    if detach and not address:
        raise UsageError("--detach needs --address", hint="a run in this process cannot outlive it")
    implementation = find_target(target).load()
    settings = absolute(load(implementation.settings_class, target=target, config=config, sets=sets))
    outcome = run_here(target, implementation, settings, run, dry_run=dry_run)
    if outcome is not None:
        show_outcome(outcome)
        if as_json:
            print_json(outcome)
    return 0


def run_here(
    target: str, implementation: Any, settings: Any, name: str | None, *, dry_run: bool
) -> Mapping[str, Any] | None:
    """Check, then run in this process (or in Ray workers of its own, or of the job that it is)."""
    from cluster.connect import cluster, inside_job
    from cluster.resources import check_request, local_resources
    from genray.progress import display

    attached = inside_job()
    shown = display()
    try:
        prepared = implementation.prepare(settings, target, shown.note)
        for line in prepared.lines:
            shown.note(line)
        have = local_resources()
        with ExitStack() as stack:
            if not attached:
                check_request(**asdict(prepared.demand(have)), have=have)
            if dry_run:
                return None
            if prepared.needs_ray(attached):
                have = stack.enter_context(cluster())
                check_request(**asdict(prepared.demand(have)), have=have)
            outcome: Mapping[str, Any] = prepared.run(name, shown, have, attached)
            return outcome
    finally:
        shown.close()
