"""`genray models`: lists the models that come with genray."""

from __future__ import annotations

from typing import Any

import click

from genray.cli.terminal.options import JSON, reported
from genray.cli.terminal.output import print_json


@click.command()
@JSON
@reported
def models(as_json: bool) -> None:
    """List the models that come with genray, with what was measured of each.

    \b
    Example:
      genray models
      genray bundle show ready:ecg
    """
    from genray.ready.catalog import ready_models

    found = ready_models()
    if as_json:
        print_json({"models": [model.as_json() for model in found]})
    else:
        click.echo("\n\n".join(_text(model) for model in found) or "this installation has no ready models")


def _text(model: Any) -> str:
    from genray.text import aligned, amount

    lines = [f"{model.location}  {model.about.purpose} ({model.kind}, {amount(model.bytes)})"]
    rows = [(f"  {name}", f"{value:g}") for name, value in model.about.figures.items()]
    if rows:
        lines.append(aligned(rows))
    lines.append(f"  licence: {model.about.licence}")
    return "\n".join(lines)
