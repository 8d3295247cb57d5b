"""What `genray jobs` does: looks at jobs on a cluster, and stops them."""

from __future__ import annotations

from typing import Any

import click

from genray.cli.output import aligned, print_json, say
from genray.progress import duration


def show_jobs(address: str, *, job: str | None = None, as_json: bool) -> None:
    """Print one job, or all of genray's, newest first."""
    from cluster.submit import Jobs

    jobs = Jobs(address)
    found = jobs.list() if job is None else [jobs.status(job)]
    if as_json:
        print_json({"jobs": [_plain(j) for j in found]} if job is None else _plain(found[0]))
        return
    rows = [("JOB", "TARGET", "RUN", "STATUS", "STARTED", "TOOK")]
    for j in found:
        began = f"{j.started.astimezone():%Y-%m-%d %H:%M:%S}" if j.started else ""
        took = duration((j.ended - j.started).total_seconds()) if j.started and j.ended else ""
        rows.append((j.id, j.target, j.run, j.status, began, took))
    click.echo(aligned(rows))
    if job is not None and found[0].message:
        click.echo(found[0].message)


def show_logs(address: str, job: str, *, follow: bool) -> int:
    """Print a job's log; followed, to its end, and returning its exit code."""
    from cluster.submit import Jobs

    jobs = Jobs(address)
    if follow:
        code: int = jobs.follow(job, lambda text: click.echo(text, nl=False))
        return code
    click.echo(jobs.logs(job), nl=False)
    return 0


def stop_job(address: str, job: str) -> None:
    """Stop a job and wait for it."""
    from cluster.submit import Jobs

    stopped = Jobs(address).stop(job, wait=90.0)
    say(f"{stopped.id}: {stopped.status.lower()}")


def _plain(job: Any) -> dict[str, Any]:
    return {
        "job": job.id,
        "target": job.target,
        "run": job.run,
        "status": job.status,
        "started": job.started.isoformat() if job.started else None,
        "ended": job.ended.isoformat() if job.ended else None,
        "exit_code": job.exit_code,
    }
