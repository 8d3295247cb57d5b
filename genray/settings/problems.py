"""What pydantic finds wrong with values that a file stores, for a person: each by its dotted key."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import ValidationError

_MOST = 5
_LONGEST = 100  # characters of a value


def stored_problems(error: ValidationError, *, prefix: str = "", tags: Collection[str] = ()) -> str:
    """The first problems: "preprocessing.size.0: input should be greater than or equal to 1, not -3; ...".

    Args:
        prefix: of each key.
        tags: the names of kinds that pydantic puts into keys, which are left out.
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
