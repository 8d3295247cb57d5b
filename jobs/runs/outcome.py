"""What a finished training came to, as its run keeps it and the command prints it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from genray.text import duration

_OUTPUTS = {
    "report": "report.html",
    "loss curves": "loss_curves.png",
    "pictures": "samples/validation.png",
    "quality": "quality.png",
}
"""Files in the folder of a run or a sweep that the terminal names."""


def output_rows(folder: Path) -> Iterator[tuple[str, str]]:
    """For the terminal: what there is to look at in the folder of a run or a sweep."""
    for name, file in _OUTPUTS.items():
        if (folder / file).exists():
            yield name, str(folder / file)


@dataclass(frozen=True)
class FinalMetrics:
    """How good the weights of the bundle are, beside trivial predictors.

    Attributes:
        values: metrics by name, and `epoch`, the one that the weights are of.
        baselines: metrics of each trivial predictor.
    """

    values: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As the bundle and the outcome have them: one mapping, the baselines in it under their name."""
        return {**self.values, "baselines": {name: dict(values) for name, values in self.baselines.items()}}

    @classmethod
    def from_json(cls, metrics: Mapping[str, Any]) -> Self:
        """What `as_json` wrote."""
        values = dict(metrics)
        return cls(baselines=values.pop("baselines", {}), values=values)


@dataclass(frozen=True)
class TrainingOutcome:
    """What a finished training came to.

    Attributes:
        target: what was trained.
        name: of the run.
        run: its folder.
        bundle: the folder of the bundle.
        metrics: how good the weights are.
        headline: the metrics that a report shows first.
        sample: what a sample is called.
        seconds: how long this process trained.
        set_aside: how many inputs could not be used.
        epochs: how many were asked for.
        not_read: the files where the data lies that are not read, for a person; "" if there are none.
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
        """Plain JSON values."""
        return {
            "target": self.target,
            "name": self.name,
            "run": self.run,
            "bundle": self.bundle,
            "metrics": self.metrics.as_json(),
            "headline": list(self.headline),
            "sample": self.sample,
            "seconds": self.seconds,
            "set_aside": self.set_aside,
            "not_read": self.not_read,
            "epochs": self.epochs,
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """For the terminal: how good the weights are beside trivial predictors, and where everything is."""
        if self.metrics.values:
            yield "metrics", _metrics_text(self.metrics.values)
        for name, values in self.metrics.baselines.items():
            yield f"  {name}", _metrics_text(values)
        folder = Path(self.run)
        if self.not_read:
            yield "not read", self.not_read
        if self.set_aside:
            yield "set aside", f"{self.set_aside} broken inputs, listed in {folder / 'set_aside.jsonl'}"
        yield "bundle", self.bundle
        yield from output_rows(folder)
        yield "time", duration(self.seconds)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path) -> Self:
        """What `as_json` wrote, of the run that lies in `folder` now: it may have been moved since.

        Raises:
            KeyError, TypeError, ValueError: it is not what `as_json` wrote.
        """
        return cls(
            target=str(values.get("target", "")),
            name=folder.name,
            run=str(folder),
            bundle=str(folder / "bundle"),
            metrics=FinalMetrics.from_json(values.get("metrics", {})),
            headline=list(values.get("headline", ())),
            sample=str(values.get("sample", "image")),
            seconds=values.get("seconds", 0.0),
            set_aside=int(values.get("set_aside", 0)),
            not_read=str(values.get("not_read", "")),
            epochs=int(values["epochs"]),
        )


def _metrics_text(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
