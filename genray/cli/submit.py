"""`genray submit`: checks a target, then runs it here or sends it to a cluster."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genray.cli.terminal.job_log import JobLog
from genray.cli.terminal.options import ADDRESS, CONFIG, JSON, SET, reported
from genray.cli.terminal.output import print_json, say, show_outcome
from genray.errors import UsageError

if TYPE_CHECKING:
    from cluster.job_options import JobOptions
    from cluster.submit import Jobs
    from genray.settings.base import Settings
    from genray.targets import Outcome

_SENT = "submitted.yaml"  # the settings of a job, in its working directory


@click.command()
@click.argument("target")
@CONFIG
@SET
@click.option(
    "--name", "run", metavar="RUN", help="Name of the run; the name of an unfinished run resumes it."
)
@click.option(
    "--retry",
    type=click.Choice(["failed", "all"]),
    help="Images of a bulk run to process again: those that failed, or all.",
)
@click.option("--limit", metavar="N", help="Largest number of inputs of a bulk run: the first ones.")
@click.option("--random", metavar="N", help="Number of inputs of a bulk run, drawn at random.")
@click.option(
    "--shard",
    metavar="K/N",
    help="Part K of N of the inputs of a bulk run, such as 3/16; each process takes one part.",
)
@ADDRESS
@click.option(
    "--detach", is_flag=True, help="Submit the job and exit without following it (needs --address)."
)
@click.option(
    "--env",
    "env",
    metavar="KEY=VALUE",
    multiple=True,
    help="Environment variable of the job and its workers (repeatable; needs --address).",
)
@click.option(
    "--runtime-env",
    type=click.Path(dir_okay=False, path_type=Path),
    help="YAML or JSON file with further fields of Ray's runtime environment, such as pip (needs --address).",
)
@click.option(
    "--entrypoint-cpus", type=click.FloatRange(min=0), help="CPUs reserved for the job's own process (0)."
)
@click.option(
    "--entrypoint-gpus", type=click.FloatRange(min=0), help="GPUs reserved for the job's own process (0)."
)
@click.option(
    "--entrypoint-memory",
    metavar="BYTES",
    type=click.IntRange(min=1),
    help="Memory reserved for the job's own process (none).",
)
@click.option("--dry-run", is_flag=True, help="Check everything, print what would be done, and exit.")
@JSON
@reported
def submit(
    target: str,
    config: Path | None,
    sets: tuple[str, ...],
    run: str | None,
    retry: str | None,
    limit: str | None,
    random: str | None,
    shard: str | None,
    address: str | None,
    detach: bool,
    env: tuple[str, ...],
    runtime_env: Path | None,
    entrypoint_cpus: float | None,
    entrypoint_gpus: float | None,
    entrypoint_memory: int | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Run TARGET here, or as a job on a cluster.

    Without --address it runs on this machine. Ctrl-C stops it with its work saved; the same command (of a
    training: with the same --name) resumes it.
    Exit codes: 0 done (a bulk run also if some images failed), 1 failed, 2 wrong usage or input, 130
    stopped by Ctrl-C.

    \b
    Example:
      genray submit train-pix2pix --set data.path=facades --name first
      genray submit train-pix2pix --config my.yaml --address http://head:8265 --detach
      genray submit denoise --set input=photos --set output=clean
      genray submit generate --set bundle=runs/first/bundle --set output=drawn --set generate.count=10000
    """
    from cluster.job_options import JobOptions, parse_env, read_runtime_env
    from genray.settings.base import absolute
    from genray.settings.load import load
    from genray.targets import CompositeTarget, find_target

    for option, value in (("--address", address), ("--name", run)):
        if value == "":
            raise UsageError(
                f"{option} is empty", hint="if it comes from a shell variable, check that the variable is set"
            )
    if detach and not address:
        raise UsageError(
            "--detach needs --address",
            hint="a run without --address ends with this command; leave out --detach, or name a cluster",
        )
    options = JobOptions(
        env=parse_env(env),
        runtime_env={} if runtime_env is None else read_runtime_env(runtime_env),
        cpus=entrypoint_cpus,
        gpus=entrypoint_gpus,
        memory=entrypoint_memory,
    )
    if options != JobOptions() and not address:
        raise UsageError(
            "--env, --runtime-env and --entrypoint-... are for jobs on a cluster, and need --address",
            hint="without --address the command runs in this shell's environment",
        )
    implementation = find_target(target).load()
    for option, key, value in (
        ("--retry", "retry", retry),
        ("--limit", "read.limit", limit),
        ("--random", "read.random", random),
        ("--shard", "read.shard", shard),
    ):
        if value is None:
            continue
        if "retry" not in implementation.settings_class.model_fields:
            raise UsageError(
                f"{option} is for bulk runs, and {target} is not one",
                hint="leave it out; the same command with the same --name resumes a training",
            )
        sets = (*sets, f"{key}={value}")
    settings = absolute(load(implementation.settings_class, target=target, config=config, sets=sets))
    if isinstance(implementation, CompositeTarget):
        implementation, settings = implementation.compose(settings, load)
    if address:
        run = run or f"{target}-{datetime.now():%Y%m%d-%H%M%S}"
        return _send(target, settings, run, address, options, detach=detach, dry_run=dry_run, as_json=as_json)
    outcome = run_here(target, implementation, settings, run, dry_run=dry_run)
    if not dry_run:
        show_outcome(outcome)
    if as_json:
        print_json(outcome.as_json())
    return 0


@dataclass(frozen=True)
class _DryRun:
    """Outcome of a dry run: the target, and the folder or URI that it would be written to."""

    target: str
    folder: Path | str

    def as_json(self) -> dict[str, Any]:
        return {"target": self.target, "run": str(self.folder), "dry_run": True}

    def rows(self) -> Iterable[tuple[str, str]]:
        return ()


def run_here(
    target: str, implementation: Any, settings: Settings, run: str | None, *, dry_run: bool
) -> Outcome:
    """Check the target, then run it in this process, in new Ray workers, or in those of the current job."""
    from cluster.connect import cluster, inside_job, lost_with_job
    from cluster.resources import check_request, local_resources
    from cluster.waiting import wait_for_room
    from genray.progress import default_display

    attached = inside_job()
    shown = default_display()
    try:
        prepared = implementation.prepare(settings, target, run, shown.note)
        for line in prepared.lines:
            shown.note(line)
        if lost_with_job(prepared.folder):
            raise UsageError(
                "the results would be lost: Ray deletes the working directory of a job when it has ended",
                where=str(prepared.folder),
                hint="give an absolute path that all nodes share, or a URI, for runs or output",
            )
        have = local_resources()
        if not attached:  # before Ray starts, which takes seconds
            check_request(prepared.demand(have), have)
        if dry_run:
            for line in prepared.examine():
                shown.note(line)
            shown.note(f"dry run: nothing was started; the results would be written to {prepared.folder}")
            return _DryRun(target, prepared.folder)
        with ExitStack() as stack:
            if prepared.needs_ray(attached):
                have = stack.enter_context(cluster())
                demand = prepared.demand(have)
                check_request(demand, have)
                wait_for_room(demand, have, shown.note)
            outcome: Outcome = prepared.run(shown, have, attached)
            return outcome
    finally:
        shown.close()


def _send(
    target: str,
    settings: Settings,
    run: str,
    address: str,
    options: JobOptions,
    *,
    detach: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Submit a job that runs the same command on the cluster, and follow it; returns its exit code.

    The job checks the data and the cluster's resources there, before it starts.
    """
    from cluster.submit import Jobs
    from genray.settings.load import changes_yaml

    command = ["python", "-m", "genray", "submit", target, "--name", run, "--config", _SENT, "--json"]
    sent = changes_yaml(settings, target=target)
    jobs = Jobs.connect(address)
    if dry_run:
        say(f"dry run: would submit to {address}: {shlex.join(command)}")
        say(f"with {_SENT}:\n{sent.rstrip()}")
        return 0
    job = jobs.submit(command, target=target, run=run, options=options, files={_SENT: sent})
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


def follow(jobs: Jobs, job: str, address: str, log: _Log) -> int:
    """Print the log of `job` until the job ends; Ctrl-C asks whether to stop it. Returns the exit code."""
    while True:
        try:
            code = jobs.follow(job, log.write)
            log.close()
            return code
        except KeyboardInterrupt:
            say("")
            choice = _ask() if sys.stdin.isatty() else "d"
            if choice == "s":
                say("stopping the job; a training writes a checkpoint first")
                jobs.stop(job)
            elif choice == "d":
                say(
                    f"the job keeps running; follow it with: genray jobs logs {job} --follow --address "
                    f"{address}"
                )
                return 130
            log.again()


def _ask() -> str:
    text = "stop the job (s), leave it running and detach (d), or keep watching (w)?"
    try:
        choice: str = click.prompt(text, type=click.Choice(["s", "d", "w"]), default="d", err=True)
    except click.Abort:  # Ctrl-C once more, or the end of input
        return "d"
    return choice


class _Log(JobLog):
    """Log of a job whose outcome line is stored, not printed."""

    def __init__(self) -> None:
        super().__init__()
        self.outcome: Mapping[str, Any] | None = None

    def line(self, line: str) -> None:
        if line.startswith(('{"target": ', '{"error": ')):
            try:
                self.outcome = json.loads(line)
                return
            except ValueError:
                pass  # an incomplete line
        super().line(line)
