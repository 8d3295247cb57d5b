"""Texts of reports: values of a run's files for a person, and the best of several metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

_MOST_ITEMS = 50  # most items of a list in a cell
_MOST_CHARACTERS = 2000
_LARGER_IS_BETTER = {
    "psnr",
    "ssim",
    "auroc",
    "aupro",
    "auc",
    "ap",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "sensitivity",
    "specificity",
    "modes",
    "coverage",
    "as_asked",
}
_SMALLER_IS_BETTER = {
    "l1",
    "l2",
    "mse",
    "mae",
    "rmse",
    "bce",
    "loss",
    "error",
    "lpips",
    "fid",
    "frechet",
    "duplicates",
    "kl",
    "nll",
    "objective",
}


def short_text(value: Any, depth: int = 2) -> str:
    """Return any JSON value as a short text; lists and mappings down to `depth` levels."""
    match value:
        case True:
            return "true"
        case False:
            return "false"
        case None:
            return "null"
        case float():
            return f"{value:.4g}"
        case int():
            return str(value) if abs(value) < 10_000 else f"{value:,}"
        case list() | tuple() if depth:
            return f"[{_joined([short_text(item, depth - 1) for item in value[:_MOST_ITEMS]], len(value))}]"
        case dict() if depth:
            pairs = list(value.items())[:_MOST_ITEMS]
            items = [f"{short_text(key, 0)}: {short_text(item, depth - 1)}" for key, item in pairs]
            return f"{{{_joined(items, len(value))}}}"
        case list() | tuple() | dict():
            return "..."
    return str(value)[:_MOST_CHARACTERS]


def _joined(items: list[str], count: int) -> str:
    if count > len(items):
        items.append("...")
    return ", ".join(items)


def exact_text(value: Any) -> str:
    """Return a setting as a short text: like `short_text`, but numbers keep all digits."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return short_text(value)


def text_or_dash(value: Any) -> str:
    """Return the value like `short_text`; a dash for None."""
    return "-" if value is None else short_text(value)


def is_finite_number(value: Any) -> TypeGuard[float]:
    """Return whether it is a finite number, which can be drawn and compared."""
    return isinstance(value, int | float) and math.isfinite(value)


def metric_direction(metric: str) -> int:
    """Return 1 if a larger value of the metric is better, -1 if a smaller one is, 0 if its name does not
    tell."""
    words = set(metric.lower().replace(".", "_").replace("-", "_").split("_"))
    if "before" in words:
        return 0  # metrics of the damaged input
    if words & _SMALLER_IS_BETTER:
        return -1
    return 1 if words & _LARGER_IS_BETTER else 0


def best_places(metric: str, values: Sequence[float | None]) -> set[int]:
    """Return the indices of the best of `values`; none if they are equal, or if the metric's direction is
    unknown."""
    sign = metric_direction(metric)
    finite = {i: sign * value for i, value in enumerate(values) if is_finite_number(value)}
    if not sign or len(set(finite.values())) < 2:
        return set()
    return {i for i, value in finite.items() if value == max(finite.values())}
