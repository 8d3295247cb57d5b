"""`genray targets` and `genray config`: list the targets and their settings."""

from __future__ import annotations

from pathlib import Path

import click

from genray.cli.terminal.options import CONFIG, SET, reported


@click.command()
@reported
def targets() -> None:
    """List the targets that can be submitted."""
    from genray.targets import all_targets

    for target in all_targets():
        click.echo(f"{target.name:<20} {target.summary}")


@click.command()
@click.argument("target")
@CONFIG
@SET
@click.option("--schema", is_flag=True, help="Print the JSON schema of the settings instead.")
@reported
def config(target: str, config: Path | None, sets: tuple[str, ...], schema: bool) -> None:
    """Print the effective settings of TARGET as commented YAML.

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
