"""`genray jobs`: lists, follows and stops jobs on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from genray.cli.terminal.job_log import JobLog
from genray.cli.terminal.options import ADDRESS, JSON, reported
from genray.cli.terminal.output import print_json, say
from genray.text import aligned, duration

if TYPE_CHECKING:
    from cluster.submit import Job

_STOP_S = 90.0  # longest wait for a job to stop


@click.group()
def jobs() -> None:
    """List, follow and stop jobs on a cluster.

    Without --address they are those of the Ray cluster on this machine.

    \b
    Example:
      genray jobs list --address http://head:8265
    """


@jobs.command("list")
@ADDRESS
@JSON
@reported
def list_jobs(address: str | None, as_json: bool) -> None:
    """List the jobs that genray submitted, newest first.

    \b
    Example:
      genray jobs list --address http://head:8265
    """
    from cluster.submit import Jobs

    found = Jobs.connect(address or "auto").list()
    if as_json:
        print_json({"jobs": [_job_values(job) for job in found]})
    else:
        click.echo(_jobs_table(found))


@jobs.command()
@click.argument("job")
@ADDRESS
@JSON
@reported
def status(job: str, address: str | None, as_json: bool) -> None:
    """Print the status of JOB.

    \b
    Example:
      genray jobs status genray-train-pix2pix-first-1a2b3c --address http://head:8265
    """
    from cluster.submit import Jobs

    found = Jobs.connect(address or "auto").status(job)
    if as_json:
        print_json(_job_values(found))
        return
    click.echo(_jobs_table([found]))
    if found.message:
        click.echo(found.message)


@jobs.command()
@click.argument("job")
@click.option(
    "--follow", is_flag=True, help="Follow the log until the job ends, and exit with its exit code."
)
@click.option("--all", "everything", is_flag=True, help="Print Ray's own lines too.")
@ADDRESS
@reported
def logs(job: str, follow: bool, everything: bool, address: str | None) -> int:
    """Print the log of JOB, without the lines of Ray's own that have no consequence.

    \b
    Example:
      genray jobs logs genray-train-pix2pix-first-1a2b3c --follow --address http://head:8265
    """
    from cluster.submit import Jobs

    cluster_jobs = Jobs.connect(address or "auto")
    log = JobLog(click.echo, everything=everything)
    code = 0
    if follow:
        code = cluster_jobs.follow(job, log.write)
    else:
        log.write(cluster_jobs.logs(job))
    log.close()
    return code


@jobs.command()
@click.argument("job")
@ADDRESS
@reported
def stop(job: str, address: str | None) -> None:
    """Stop JOB (a training writes a checkpoint first).

    \b
    Example:
      genray jobs stop genray-train-pix2pix-first-1a2b3c --address http://head:8265
    """
    from cluster.submit import Jobs

    stopped = Jobs.connect(address or "auto").stop(job, wait=_STOP_S)
    say(f"{stopped.id}: {stopped.status.lower()}")


def _jobs_table(found: list[Job]) -> str:
    rows = [("JOB", "TARGET", "RUN", "STATUS", "STARTED", "TOOK")]
    for job in found:
        began = f"{job.started.astimezone():%Y-%m-%d %H:%M:%S}" if job.started else ""
        took = duration((job.ended - job.started).total_seconds()) if job.started and job.ended else ""
        rows.append((job.id, job.target, job.run, job.status, began, took))
    return aligned(rows)


def _job_values(job: Job) -> dict[str, Any]:
    return {
        "job": job.id,
        "target": job.target,
        "run": job.run,
        "status": job.status,
        "started": job.started.isoformat() if job.started else None,
        "ended": job.ended.isoformat() if job.ended else None,
        "exit_code": job.exit_code,
    }
