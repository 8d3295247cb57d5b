"""`genray bundle`: shows trained models, and makes them smaller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import click

from genray.cli.terminal.options import JSON, reported
from genray.cli.terminal.output import print_json
from genray.text import aligned

_FEW = 16  # a longer list of numbers is summed up


@click.group()
def bundle() -> None:
    """Show trained models, and make them smaller."""


@bundle.command()
@click.argument("path")
@JSON
@reported
def show(path: str, as_json: bool) -> None:
    """Print the manifest of the bundle at PATH, a folder or URI: model, data, metrics.

    \b
    Example:
      genray bundle show runs/first/bundle
    """
    from genray.bundle import read_manifest

    manifest = read_manifest(path).model_dump(mode="json")
    if as_json:
        print_json(manifest)
    else:
        print(_manifest_text(manifest))


@bundle.command()
@click.argument("path")
@JSON
@reported
def layers(path: str, as_json: bool) -> None:
    """Print the layers of the bundle at PATH, with shapes and parameters.

    \b
    Example:
      genray bundle layers runs/first/bundle
    """
    from dataclasses import asdict

    from genray.bundle import summarise

    summary = summarise(path)
    if as_json:
        print_json(asdict(summary))
        return
    rows = [(layer.name, layer.kind, layer.output_text, f"{layer.parameters:,}") for layer in summary.layers]
    heading = ("layer", "kind", "output of a sample", "parameters")
    print(aligned([heading, *rows, ("all", "", "", f"{summary.parameters:,}")]))


@bundle.command()
@click.argument("path")
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--about",
    type=click.Path(path_type=Path),
    help="JSON file of purpose, licence, trained_on, cost and figures, for the copy.",
)
@JSON
@reported
def shrink(path: str, output: Path, about: Path | None, as_json: bool) -> None:
    """Copy the bundle at PATH to OUTPUT with weights of half the size (float16).

    The results of both are compared first; a bundle whose results change visibly is not written.

    \b
    Example:
      genray bundle shrink runs/photo/bundle small
    """
    from genray.ready.export import read_about, shrink

    difference = shrink(path, output, read_about(about) if about else None)
    if as_json:
        print_json({"bundle": str(output), "difference": asdict(difference)})
    else:
        click.echo(f"{output}: its results differ from those of {path} by {difference}")


def _manifest_text(manifest: Mapping[str, Any]) -> str:
    from genray.settings.base import flatten

    return aligned([(key, _value_text(value)) for key, value in flatten(manifest).items()])


def _value_text(value: Any) -> str:
    """Return a value as text; a long list of numbers as count, minimum, median and maximum (--json has
    all)."""
    numbers = isinstance(value, list) and all(isinstance(each, int | float) for each in value)
    if not numbers or len(value) <= _FEW:
        return str(value)
    return f"{len(value)} numbers: min {min(value):.4g}  median {median(value):.4g}  max {max(value):.4g}"
