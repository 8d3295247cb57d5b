"""What `genray submit` does: checks a target, then runs it here or sends it to a cluster."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from genray.cli.output import print_json, say, show_outcome
from genray.errors import UsageError
from genray.settings.base import Settings, absolute


def submit_target(
    target: str,
    *,
    config: Path | None,
    sets: tuple[str, ...],
    run: str | None,
    address: str | None,
    detach: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Run `target` here or, with an address, on a cluster; returns the exit code."""
    from genray.settings.load import load
    from genray.targets import Composite, find_target

    for option, value in (("--address", address), ("--name", run)):
        if value == "":
            raise UsageError(f"{option} is empty", hint="is the variable that it comes from set?")
    if detach and not address:
        raise UsageError("--detach needs --address", hint="a run in this process cannot outlive it")
    implementation = find_target(target).load()
    settings = absolute(load(implementation.settings_class, target=target, config=config, sets=sets))
    if isinstance(implementation, Composite):
        implementation, settings = implementation.compose(settings, load)
    if address:
        return send(target, settings, run, address, detach=detach, dry_run=dry_run, as_json=as_json)
    outcome = run_here(target, implementation, settings, run, dry_run=dry_run)
    if not dry_run:
        show_outcome(outcome)
    if as_json:
        print_json(outcome)
    return 0


def run_here(
    target: str, implementation: Any, settings: Settings, run: str | None, *, dry_run: bool
) -> Mapping[str, Any]:
    """Check, then run in this process, in Ray workers of its own, or in those of the job that it is."""
    from cluster.connect import cluster, inside_job
    from cluster.resources import check_request, local_resources
    from genray.progress import display

    attached = inside_job()
    shown = display()
    try:
        prepared = implementation.prepare(settings, target, run, shown.note)
        for line in prepared.lines:
            shown.note(line)
        have = local_resources()
        if not attached:  # before Ray starts, because that takes seconds
            check_request(**asdict(prepared.demand(have)), have=have)
        if dry_run:
            shown.note(f"dry run: nothing was started; it would go into {prepared.folder}")
            return {"target": target, "run": str(prepared.folder), "dry_run": True}
        with ExitStack() as stack:
            if prepared.needs_ray(attached):
                have = stack.enter_context(cluster())
                check_request(**asdict(prepared.demand(have)), have=have)
            outcome: Mapping[str, Any] = prepared.run(shown, have, attached)
            return outcome
    finally:
        shown.close()


def send(
    target: str,
    settings: Settings,
    run: str | None,
    address: str,
    *,
    detach: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Submit a job that gives the same command on the cluster, and follow it; returns its exit code.

    The data and the cluster's resources are checked there, by the job, before it trains.
    """
    from cluster.submit import Jobs
    from genray.settings.load import as_sets

    run = run or f"{target}-{datetime.now():%Y%m%d-%H%M%S}"
    command = ["python", "-m", "genray", "submit", target, "--name", run, "--json"]
    for text in as_sets(settings, target=target):
        command += ["--set", text]
    jobs = Jobs(address)
    if dry_run:
        say(f"dry run: would submit to {address}: {shlex.join(command)}")
        return 0
    job = jobs.submit(command, target=target, run=run)
    say(f"job: {job}")
    if detach:
        say(f"follow it with: genray jobs logs {job} --follow --address {address}")
        if as_json:
            print_json({"target": target, "name": run, "job": job})
        return 0
    log = _Log()
    code = follow(jobs, job, address, log)
    if as_json and log.outcome is not None:
        print_json(log.outcome)
    return code


def report_runs(runs: Sequence[Path], output: Path | None) -> Path:
    """Write the report of a run, or the comparison of several; returns the file."""
    from jobs.runs.comparison import compare
    from jobs.runs.report import write_report
    from jobs.runs.run import Run

    if len(runs) > 1:
        return compare(runs, output or Path("comparison.html")).absolute()
    return write_report(Run(runs[0].resolve()), output).absolute()


def follow(jobs: Any, job: str, address: str, log: _Log) -> int:
    """Pass the log of `job` on until it ends; Ctrl-C asks whether to stop it. Returns the exit code."""
    while True:
        try:
            code: int = jobs.follow(job, log.write)
            log.close()
            return code
        except KeyboardInterrupt:
            say("")
            choice = _ask() if sys.stdin.isatty() else "d"
            if choice == "s":
                say("stopping, after a checkpoint")
                jobs.stop(job)
            elif choice == "d":
                say(f"it goes on: genray jobs logs {job} --follow --address {address}")
                return 130
            log.again()


def _ask() -> str:
    text = "stop the job (s), leave it running and detach (d), or go on watching (w)?"
    try:
        choice: str = click.prompt(text, type=click.Choice(["s", "d", "w"]), default="d", err=True)
    except click.Abort:  # Ctrl-C once more, or the end of input
        return "d"
    return choice


class _Log:
    """Passes a job's log on to standard error in whole lines, and keeps its outcome line for itself."""

    def __init__(self) -> None:
        self.outcome: Mapping[str, Any] | None = None
        self._rest = ""
        self._seen = self._skip = 0

    def again(self) -> None:
        """The log is about to come once more from its beginning: pass over what was seen."""
        self._skip, self._seen = self._seen, 0

    def write(self, text: str) -> None:
        self._seen += len(text)
        text, self._skip = text[self._skip :], max(0, self._skip - len(text))
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line)

    def close(self) -> None:
        if self._rest:
            self._line(self._rest)
        self._rest = ""

    def _line(self, line: str) -> None:
        if line.startswith(('{"target": ', '{"error": ')):
            try:
                self.outcome = json.loads(line)
                return
            except ValueError:
                pass  # cut off
        say(line)
