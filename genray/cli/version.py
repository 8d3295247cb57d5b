"""`genray version`: prints the versions and the hardware that a bug report has to name."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from genray import __version__
from genray.cli.terminal.options import JSON, reported
from genray.cli.terminal.output import print_json
from genray.text import aligned

_PACKAGES = ("ray", "torch", "torchvision", "numpy", "pyarrow")


@click.command("version")
@JSON
@reported
def show_version(as_json: bool) -> None:
    """Print the versions of genray and its packages, CPUs and GPUs.

    \b
    Example:
      genray version --json
    """
    facts = _facts()
    if as_json:
        print_json(facts)
    else:
        click.echo(aligned([(name, _text(value)) for name, value in facts.items()]))


def _facts() -> dict[str, Any]:
    from cluster.resources import local_cpus

    return {
        "genray": __version__,
        "python": platform.python_version(),
        **{name: _version_of(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpus": local_cpus(),
        "gpus": _gpu_names(),
    }


def _version_of(package: str) -> str | None:
    """Return the installed version of a package; None if it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpu_names() -> list[str]:
    # A broken installation of torch is a reason to ask for versions: it must not hide them.
    try:
        import torch

        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    except (ImportError, OSError, RuntimeError):
        return []


def _text(value: Any) -> str:
    """Return a fact for a person."""
    if value is None:
        return "not installed"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return str(value)
