"""The `genray` command. Commands import what they need when they run, so that --help is instant."""

from __future__ import annotations

import click

from genray import __version__
from genray.cli.bundle import bundle
from genray.cli.fronts import fronts
from genray.cli.jobs import jobs
from genray.cli.ledger import ledger
from genray.cli.models import models
from genray.cli.monitor import monitor
from genray.cli.plan import plan
from genray.cli.report import report
from genray.cli.submit import submit
from genray.cli.targets import config, targets
from genray.cli.terminal.usage import Advising
from genray.cli.version import show_version


@click.group(cls=Advising, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Train generative image models on Ray and run them over image stores, from a laptop to a cluster.

    \b
    Example:
      genray submit train-pix2pix --set data.path=facades --set loop.epochs=20
    """


for _command in (
    *(submit, targets, config, fronts, report, plan, ledger, monitor, bundle, models),
    *(jobs, show_version),
):
    main.add_command(_command)
