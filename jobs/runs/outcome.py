"""Outcome of a finished training, which its run stores and the command prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from genray.text import duration
from genray.uris import below, is_uri, last_name
from jobs.runs.verdict import Verdict

_REPORT = "report"
_OUTPUTS = {
    _REPORT: "report.html",
    "loss curves": "loss_curves.png",
    "pictures": "samples/validation.png",
    "quality": "quality.png",
}
"""Files in the folder of a run or a sweep that the terminal lists."""


def output_rows(location: str) -> Iterator[tuple[str, str]]:
    """Return names and paths for the terminal: the files to look at in the folder of a run or a sweep. Of
    one in a store it is the report, which contains the others."""
    for name, file in _OUTPUTS.items():
        if name == _REPORT if is_uri(location) else Path(location, file).exists():
            yield name, below(location, file)


@dataclass(frozen=True)
class FinalMetrics:
    """Metrics of the bundle's weights, and of trivial predictors and other methods.

    Attributes:
        values: metrics by name, and `epoch`, the epoch of the weights.
        baselines: metrics of each trivial predictor and method.
        verdict: comparison of the two; None: there was nothing to compare with.
        warnings: what limits the trust in the results.
    """

    values: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    verdict: Verdict | None = None
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return one mapping of the metrics for the bundle and the outcome, with the baselines in it by
        name."""
        return {**self.values, "baselines": {name: dict(values) for name, values in self.baselines.items()}}

    @property
    def quality_json(self) -> dict[str, Any]:
        """The verdict and the warnings, for the outcome."""
        verdict = self.verdict
        return {
            "quality": verdict.quality if verdict else None,
            "verdict": verdict.text if verdict else "",
            "behind": list(verdict.behind) if verdict else [],
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, outcome: Mapping[str, Any]) -> Self:
        """Return the metrics, the verdict and the warnings of an outcome's plain values."""
        values = dict(outcome.get("metrics", {}))
        baselines = values.pop("baselines", {})
        quality = outcome.get("quality")
        verdict = Verdict(quality, outcome["verdict"], tuple(outcome["behind"])) if quality else None
        return cls(values, baselines, verdict, tuple(outcome.get("warnings", ())))


@dataclass(frozen=True)
class TrainingOutcome:
    """Outcome of a finished training.

    Attributes:
        target: name of the target.
        name: name of the run.
        run: folder or URI of the run.
        bundle: folder or URI of the bundle.
        metrics: metrics of the weights.
        headline: metrics that a report shows first.
        sample: name of a sample.
        seconds: time that this process trained.
        set_aside: number of inputs that were set aside.
        epochs: requested number of epochs.
        not_read: files in the data folder that are not read, for a person ("": none).
    """

    target: str
    name: str
    run: str
    bundle: str
    metrics: FinalMetrics
    headline: Sequence[str]
    sample: str
    seconds: float
    set_aside: int
    epochs: int
    not_read: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "target": self.target,
            "name": self.name,
            "run": self.run,
            "bundle": self.bundle,
            "metrics": self.metrics.as_json(),
            **self.metrics.quality_json,
            "headline": list(self.headline),
            "sample": self.sample,
            "seconds": self.seconds,
            "set_aside": self.set_aside,
            "not_read": self.not_read,
            "epochs": self.epochs,
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """Return names and values for the terminal: metrics beside those of the baselines,
        the verdict, and paths."""
        if self.metrics.values:
            yield "metrics", _metrics_text(self.metrics.values)
        for name, values in self.metrics.baselines.items():
            yield f"  {name}", _metrics_text(values)
        if self.metrics.verdict is not None:
            yield "verdict", self.metrics.verdict.text
        for warning in self.metrics.warnings:
            yield "warning", warning
        if self.not_read:
            yield "not read", self.not_read
        if self.set_aside:
            yield "set aside", f"{self.set_aside} inputs, listed in {below(self.run, 'set_aside.jsonl')}"
        yield "bundle", self.bundle
        yield from output_rows(self.run)
        yield "time", duration(self.seconds)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], run: str) -> Self:
        """Return the outcome that `as_json` wrote, of the run that is at `run` now: it may have been moved.

        Raises:
            KeyError, TypeError, ValueError: the values are not of `as_json`.
        """
        return cls(
            target=str(values.get("target", "")),
            name=last_name(run),
            run=run,
            bundle=below(run, "bundle"),
            metrics=FinalMetrics.from_json(values),
            headline=list(values.get("headline", ())),
            sample=str(values.get("sample", "image")),
            seconds=values.get("seconds", 0.0),
            set_aside=int(values.get("set_aside", 0)),
            not_read=str(values.get("not_read", "")),
            epochs=int(values["epochs"]),
        )


def _metrics_text(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
