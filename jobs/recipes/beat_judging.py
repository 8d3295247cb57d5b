"""How well detectors tell abnormal beats from normal ones, each at its own threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.training.recipe import Table

Truth = NDArray[np.bool_]
"""Which beats are abnormal, (N,)."""


@dataclass(frozen=True)
class Method:
    """A detector: what it is called, its errors of the beats that judge (N,), and its threshold."""

    name: str
    errors: NDArray[np.float64]
    threshold: float


def judge(method: Method, abnormal: Truth | None) -> dict[str, float]:
    """The threshold and the share of beats above it; where both kinds of beats are known also areas and
    rates. What is to be found are abnormal beats; `normal_precision` is the share of normal beats among
    those below the threshold (with `specificity` their recall: what TensorFlow's tutorial reports)."""
    above = method.errors > method.threshold
    said = {"threshold": method.threshold, "above_threshold": float(above.mean())}
    if abnormal is None or abnormal.all() or not abnormal.any():
        return said
    from sklearn.metrics import average_precision_score, roc_auc_score

    found, missed = float((above & abnormal).sum()), float((~above & abnormal).sum())
    false, passed = float((above & ~abnormal).sum()), float((~above & ~abnormal).sum())
    return {
        "auc": float(roc_auc_score(abnormal, method.errors)),
        "average_precision": float(average_precision_score(abnormal, method.errors)),
        "accuracy": (found + passed) / len(above),
        "sensitivity": found / (found + missed),
        "specificity": passed / (false + passed),
        "precision": found / max(found + false, 1.0),
        "f1": 2 * found / (2 * found + false + missed),
        "normal_precision": passed / max(passed + missed, 1.0),
        **said,
    }


def class_table(
    methods: Sequence[Method], labels: NDArray[np.int64], classes: Sequence[str], normal: Sequence[int]
) -> Table:
    """Of each class how many beats there are, and what share of them each method puts on the right side of
    its threshold: the recall of the class."""
    rows: list[list[str | float]] = []
    for label in np.unique(labels[labels >= 0]).tolist():
        those, good = labels == label, label in normal
        shares = [float(np.mean((m.errors[those] > m.threshold) != good)) for m in methods]
        kind = "normal" if good else "abnormal"
        rows.append([classes[label], kind, int(those.sum()), *shares])
    return Table("Recall of each class", ["class", "kind", "beats", *(m.name for m in methods)], rows)
