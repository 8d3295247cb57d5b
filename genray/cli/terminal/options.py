"""Options that the commands share, and their error reports."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from genray.cli.terminal.output import fail
from genray.errors import GenrayError
from genray.interrupts import end_despite_threads

ADDRESS = click.option(
    "--address",
    metavar="ADDR",
    help="Address of a Ray cluster: http://host:8265, or auto for one on this machine.",
)
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON line at the end of standard output."
)
CONFIG = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="YAML file of settings."
)
SET = click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override one setting (may be repeated)."
)


def reported(command: Callable[..., Any]) -> Callable[..., None]:
    """Print genray's own errors without a traceback and exit with their code."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            code = command(*args, **kwargs)
        except GenrayError as error:
            code = fail(error, as_json=kwargs.get("as_json", False))
        except BrokenPipeError:
            raise  # click exits quietly when nobody reads the output
        except OSError as error:
            hint = "check that the file exists, its permissions and the free space"
            where = str(error.filename) if error.filename else None
            what = f"a file or folder could not be used: {error.strerror or error}"
            code = fail(GenrayError(what, where=where, hint=hint))
        except KeyboardInterrupt:
            end_despite_threads(130)
            code = 130
        click.get_current_context().exit(code or 0)

    return wrapper
