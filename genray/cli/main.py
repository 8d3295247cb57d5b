"""The `genray` command: thin; everything is imported where it is used, so that --help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from genray import __version__
from genray.cli.monitor import monitor
from genray.cli.options import ADDRESS, CONFIG, JSON, SET, reported


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Train generative image models on Ray and run them over image stores, from a laptop to a cluster.

    \b
    Example:
      genray submit train-pix2pix --set data.path=facades --set loop.epochs=20
    """


@main.command()
@click.argument("target")
@CONFIG
@SET
@click.option(
    "--name", "run", metavar="RUN", help="Name of the run; the name of an unfinished run goes on with it."
)
@click.option("--retry", type=click.Choice(["failed", "all"]), help="Of a bulk run: do these again.")
@ADDRESS
@click.option("--detach", is_flag=True, help="With --address: do not wait for the job.")
@click.option("--dry-run", is_flag=True, help="Check everything, say what would be done, and stop.")
@JSON
@reported
def submit(target: str, retry: str | None, sets: tuple[str, ...], **options: Any) -> int:
    """Run TARGET here, or as a job on a cluster.

    Without --address it runs on this machine. Ctrl-C stops well; the same command (of a training: the same
    --name) goes on from there.
    Exit codes: 0 done (of a bulk run also if some images failed), 1 failed, 2 wrong usage or input, 130
    stopped by Ctrl-C.

    \b
    Example:
      genray submit train-pix2pix --set data.path=facades --name first
      genray submit train-pix2pix --config my.yaml --address http://head:8265 --detach
      genray submit denoise --set input=photos --set output=clean --set bundle=runs/denoiser/bundle
    """
    from genray.cli.submit import submit_target

    return submit_target(target, sets=(*sets, f"retry={retry}") if retry else sets, **options)


@main.command()
@reported
def targets() -> None:
    """List what can be submitted."""
    from genray.targets import all_targets

    for target in all_targets():
        click.echo(f"{target.name:<20} {target.summary}")


@main.command()
@click.argument("target")
@CONFIG
@SET
@click.option("--schema", is_flag=True, help="Print the JSON schema instead.")
@reported
def config(target: str, config: Path | None, sets: tuple[str, ...], schema: bool) -> None:
    """Print the effective settings of TARGET as YAML, with a comment for each.

    \b
    Example:
      genray config train-pix2pix > my.yaml
    """
    import json

    from genray.settings.load import load
    from genray.settings.render import annotated_yaml
    from genray.targets import find_target

    settings_class = find_target(target).load().settings_class
    settings = load(settings_class, target=target, config=config, sets=sets)
    shown = json.dumps(settings_class.model_json_schema(), indent=2) if schema else annotated_yaml(settings)
    click.echo(shown.rstrip("\n"))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--count", default=400, show_default=True, help="Number of pairs.")
@click.option("--size", default=256, show_default=True, help="Height and width in pixels.")
@click.option("--seed", default=0, show_default=True, help="Other seeds give other buildings.")
@reported
def fronts(folder: Path, count: int, size: int, seed: int) -> None:
    """Make a data set to try train-pix2pix on: drawn building fronts, photo|labels, in FOLDER.

    \b
    Example:
      genray fronts data/fronts --count 400 --size 128
    """
    from genray.datasets.demo_fronts import write_fronts

    write_fronts(folder, count=count, size=size, seed=seed)
    click.echo(f"{count} pairs of building fronts: {folder}", err=True)


@main.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="The HTML file to write.")
@JSON
@reported
def report(runs: tuple[Path, ...], output: Path | None, as_json: bool) -> None:
    """Write RUN/report.html again; of several runs comparison.html, with the runs side by side.

    \b
    Example:
      genray report runs/first
      genray report runs/dense runs/conv --output both.html
    """
    from genray.cli.output import print_json
    from genray.cli.submit import report_runs

    path = report_runs(runs, output)
    print_json({"report": str(path), "runs": [str(r) for r in runs]}) if as_json else click.echo(path)


@main.command()
@click.argument("target")
@CONFIG
@SET
@click.option(
    "--sample", default=48, show_default=True, type=click.IntRange(1, 64), help="Images to measure."
)
@click.option(
    "--hours", default=24.0, show_default=True, type=click.FloatRange(min=0.01), help="Time to do it in."
)
@JSON
@reported
def plan(target: str, as_json: bool, **options: Any) -> int:
    """Say how long the bulk TARGET would take, and how many workers it needs, from a sample of its images.

    Nothing is written to its output.

    \b
    Example:
      genray plan denoise --set input=photos --set bundle=runs/denoiser/bundle --hours 8
    """
    from genray.cli.bulk import plan_target

    return plan_target(target, as_json=as_json, **options)


@main.command()
@click.argument("output")
@click.option(
    "--list",
    "status",
    type=click.Choice(["failed", "skipped", "done"]),
    help="List the images of this status.",
)
@click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(1), help="With --list: at most so many."
)
@JSON
@reported
def ledger(output: str, status: str | None, limit: int, as_json: bool) -> int:
    """Print what became of the images of a bulk run, by the ledger in its OUTPUT.

    \b
    Example:
      genray ledger data/denoised
      genray ledger data/denoised --list failed
    """
    from genray.cli.bulk import show_ledger

    return show_ledger(output, as_json=as_json, status=status, limit=limit)


main.add_command(monitor)


@main.group()
def bundle() -> None:
    """Look at trained models."""


@bundle.command()
@click.argument("path", type=click.Path(path_type=Path))
@JSON
@reported
def show(path: Path, as_json: bool) -> None:
    """Print what the bundle at PATH is: model, data, metrics.

    \b
    Example:
      genray bundle show runs/first/bundle
    """
    from genray.bundle import read_manifest
    from genray.cli.output import print_json, show_manifest

    manifest = read_manifest(path).model_dump(mode="json")
    print_json(manifest) if as_json else show_manifest(manifest)


@main.group()
def jobs() -> None:
    """List, follow and stop jobs on a cluster."""


@jobs.command("list")
@ADDRESS
@JSON
@reported
def list_jobs(address: str | None, as_json: bool) -> None:
    """List genray's jobs, newest first.

    \b
    Example:
      genray jobs list --address http://head:8265
    """
    from genray.cli.jobs import show_jobs

    show_jobs(address or "auto", as_json=as_json)


@jobs.command()
@click.argument("job")
@ADDRESS
@JSON
@reported
def status(job: str, address: str | None, as_json: bool) -> None:
    """Print how JOB is doing."""
    from genray.cli.jobs import show_jobs

    show_jobs(address or "auto", job=job, as_json=as_json)


@jobs.command()
@click.argument("job")
@click.option("--follow", is_flag=True, help="Wait for its end; exit with its exit code.")
@ADDRESS
@reported
def logs(job: str, follow: bool, address: str | None) -> int:
    """Print the log of JOB."""
    from genray.cli.jobs import show_logs

    return show_logs(address or "auto", job, follow=follow)


@jobs.command()
@click.argument("job")
@ADDRESS
@reported
def stop(job: str, address: str | None) -> None:
    """Stop JOB; a training writes a checkpoint first."""
    from genray.cli.jobs import stop_job

    stop_job(address or "auto", job)
