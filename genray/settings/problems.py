"""Texts of pydantic's errors on stored values, each by its dotted key."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import ValidationError

_MOST = 5
_LONGEST = 100  # characters of a value in a message


def stored_problems(error: ValidationError, *, prefix: str = "", tags: Collection[str] = ()) -> str:
    """Return the first problems as "preprocessing.size.0: input should be greater than or equal to 1, not -3;
    ...".

    Args:
        prefix: text before each key.
        tags: names of kinds that pydantic inserts into keys, to leave out.
    """
    problems = error.errors(include_url=False)
    lines = []
    for problem in problems[:_MOST]:
        parts = [str(part) for part in problem["loc"] if part not in tags]
        key = prefix + ".".join(parts) if parts else prefix.removesuffix(".")
        key = f"{key}: " if key else ""
        message = str(problem["msg"]).removeprefix("Value error, ")
        line = f"{key}{message[:1].lower()}{message[1:]}"
        if problem["type"] == "missing":
            line = f"{key}is missing"
        elif problem["type"] not in ("json_invalid", "extra_forbidden"):
            line += f", not {repr(problem['input'])[:_LONGEST]}"
        lines.append(line)
    more = f"; and {len(problems) - _MOST} more" if len(problems) > _MOST else ""
    return "; ".join(lines) + more
