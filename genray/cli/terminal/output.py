"""Output of the commands: lines, the one JSON line, outcomes and errors."""

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
    """Print a line to standard error, unchanged. Work continues when nobody reads it any more."""
    with suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)


def fail(error: GenrayError, *, as_json: bool = False) -> int:
    """Print `error`, with `as_json` also as the one JSON line; returns the exit code."""
    from rich.console import Console

    Console(stderr=True).print("error:", style="bold red", end=" ")
    say(str(error))
    if as_json:
        said = {"what": error.what, "where": error.where, "next": error.hint}
        print_json({"error": said, "exit_code": error.exit_code})
    return error.exit_code


def show_outcome(outcome: Outcome) -> None:
    """Print where the results are and how good they are."""
    say(aligned(list(outcome.rows())))


def print_json(values: Mapping[str, Any]) -> None:
    """Print the one JSON line at the end of standard output."""
    print(json.dumps(dict(values)), flush=True)


def print_encodable(text: str) -> None:
    """Print `text` to standard output; a terminal without Unicode gets escapes for the characters that it
    lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
