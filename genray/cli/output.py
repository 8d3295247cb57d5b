"""What commands print: lines, the one JSON line, outcomes, and errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from genray.errors import GenrayError
from genray.text import aligned

if TYPE_CHECKING:
    from genray.targets import Outcome


def say(text: str) -> None:
    """A line to standard error, as it is. If nobody reads it any more, work goes on."""
    with suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)


def fail(error: GenrayError, *, as_json: bool = False) -> int:
    """Print `error`, and as the one JSON line if that was asked for; returns the exit code."""
    from rich.console import Console

    Console(stderr=True).print("error:", style="bold red", end=" ")
    say(str(error))
    if as_json:
        said = {"what": error.what, "where": error.where, "next": error.hint}
        print_json({"error": said, "exit_code": error.exit_code})
    return error.exit_code


def show_outcome(outcome: Outcome) -> None:
    """Where everything is, and how good it is."""
    say(aligned(list(outcome.rows())))


def print_json(values: Mapping[str, Any]) -> None:
    """The one JSON line that ends standard output."""
    print(json.dumps(dict(values)), flush=True)


def print_encodable(text: str) -> None:
    """`text` to standard output. A terminal without Unicode still shows names, with escapes for what it
    lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
