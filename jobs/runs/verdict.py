"""Verdict on a trained model: whether it is better than predictors that do nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genray.bundle import Quality
from jobs.runs.formatting import metric_direction

_UNITS = {"psnr": " dB"}


@dataclass(frozen=True)
class Verdict:
    """Verdict on a model.

    Attributes:
        quality: "worse-than-trivial" also if the model is only as good as a trivial predictor.
        text: the comparison in one line, for a person.
        behind: methods that were better, such as pca. They are real competitors: being behind them is
            reported, and is no reason to refuse a model.
    """

    quality: Quality
    text: str
    behind: tuple[str, ...] = ()

    @property
    def is_worse(self) -> bool:
        """Whether the model is no better than a trivial predictor."""
        return self.quality == "worse-than-trivial"


def judge(
    metrics: Mapping[str, float],
    baselines: Mapping[str, Mapping[str, float]],
    *,
    compared_by: Sequence[str],
    trivial: Mapping[str, str],
    advice: str,
) -> Verdict | None:
    """Compare a model with its baselines.

    Args:
        metrics: metrics of the model.
        baselines: metrics of each baseline, by its name.
        compared_by: metrics to compare by; the first that the model and a trivial predictor both have counts.
        trivial: names of the baselines that are trivial, with a phrase for each, such as "leaving the images
            alone". The other baselines are methods.
        advice: what to try with a model that is no better.

    Returns:
        the verdict; None if there is nothing to compare with.
    """
    for metric in compared_by:
        rivals = {name: values[metric] for name, values in baselines.items() if metric in values}
        doing_nothing = {name: value for name, value in rivals.items() if name in trivial}
        if metric in metrics and doing_nothing:
            return _verdict(metric, metrics[metric], rivals, doing_nothing, trivial, advice)
    return None


def _verdict(
    metric: str,
    value: float,
    rivals: Mapping[str, float],
    doing_nothing: Mapping[str, float],
    trivial: Mapping[str, str],
    advice: str,
) -> Verdict:
    sign = metric_direction(metric)
    best = max(doing_nothing, key=lambda name: sign * doing_nothing[name])
    limit = doing_nothing[best]
    unit = _UNITS.get(metric, "")
    figures = f"{metric} {value:.4g}{unit} against {limit:.4g}"
    if math.isfinite(value) and sign * value > sign * limit:
        methods = {name: rival for name, rival in rivals.items() if name not in trivial}
        behind = tuple(name for name, rival in methods.items() if sign * rival > sign * value)
        text = f"better than {trivial[best]}: {figures}"
        if behind:
            text += "; behind " + ", ".join(f"{name} ({methods[name]:.4g})" for name in behind)
        return Verdict("better-than-trivial", text, behind)
    how = "no better than" if value == limit else "worse than"
    behind = tuple(name for name in rivals if name not in trivial and sign * rivals[name] > sign * value)
    return Verdict("worse-than-trivial", f"{how} {trivial[best]}: {figures}; what to try: {advice}", behind)
