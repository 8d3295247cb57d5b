"""Advice on commands that are typed wrong: what to type instead, which click does not know."""

from __future__ import annotations

import difflib
from typing import Any

import click


class Advising(click.Group):
    """The group of all commands. Adds to click's errors of usage a line that says what to type next, as
    genray's own errors have it."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors of usage leave it with advice."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            advice = _advice(error)
            if advice is None:
                raise
            # An option that was no slip gets the advice in place of click's guess at another option.
            what = error.message if isinstance(error, click.NoSuchOption) else error.format_message()
            raise click.UsageError(f"{what.rstrip('.')}\n  next:  {advice}", error.ctx) from None


def _advice(error: click.UsageError) -> str | None:
    """Return what to type instead, as far as the error tells it."""
    if isinstance(error, click.NoSuchCommand):
        # click itself says which command is like the word
        name = error.command_name
        return f"{name} is a target: genray submit {name}" if _is_target(name) else None
    if error.ctx is None:
        return None
    command = error.ctx.command
    has_settings = any(option.name == "sets" for option in command.params)
    if isinstance(error, click.NoSuchOption):
        if not has_settings or _close(error.option_name, error.possibilities or []):
            return None
        return f"settings are given as --set KEY=VALUE; {_lists_settings(command)} lists them"
    if isinstance(error, click.MissingParameter):
        if error.param is not None and error.param.name == "target":
            return "name a target; `genray targets` lists them"
        return None
    if has_settings and "unexpected extra argument" in error.message:
        return "write --set KEY=VALUE without spaces around =, in quotes if the value has spaces"
    return None


def _is_target(name: str) -> bool:
    from genray.targets import all_targets

    return name in {target.name for target in all_targets()}


def _close(option: str, possibilities: list[str]) -> bool:
    """Return whether an option is a slip of the keys away (click's own guesses are looser)."""
    return bool(difflib.get_close_matches(option, possibilities, n=1, cutoff=0.75))


def _lists_settings(command: click.Command) -> str:
    return "`genray config ecg`" if command.name == "ecg" else "`genray config TARGET`"
