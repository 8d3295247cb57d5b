"""Validations of a training while it runs: metrics, the best weights, what is wrong, and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genray.images.pixels import save_png
from genray.progress import Display
from jobs.runs.history import TrainingLog, metrics_text
from jobs.runs.run import Run
from jobs.training import checkpoint as checkpoints
from jobs.training.evaluation import Evaluator, Scores
from jobs.training.recipe import Recipe
from jobs.training.state import TrainingState

Row = dict[str, Any]


class Validations:
    """Validates the networks of a training, at the end of epochs and inside them.

    Responsible for: the metrics of a validation in the history and the log, the best weights, what the recipe
    finds wrong in the metrics so far, and pictures. When to validate is the loop's.

    Args:
        recipe: recipe that is trained.
        run: folder of the run.
        display: where what is new is shown.
        state: state of the training.
        evaluator: evaluates the networks.
        log: log of the training, on rank 0.
    """

    def __init__(
        self,
        recipe: Recipe[Any],
        run: Run,
        display: Display,
        state: TrainingState,
        evaluator: Evaluator,
        log: TrainingLog | None,
    ) -> None:
        self._recipe = recipe
        self._run = run
        self._display = display
        self._state = state
        self._evaluator = evaluator
        self._log = log
        self.scores: Scores | None = None
        """Of the last validation."""

    def end_epoch(self, row: Row) -> None:
        """Validate after an epoch, and add the metrics to its row."""
        row |= self._score(self._state.position.epoch)
        self._tell_concern(row)

    def inside_epoch(self) -> None:
        """Validate inside an epoch; the metrics become a part of its row later."""
        position = self._state.position
        row: Row = {"step": position.step, **self._score(position.epoch + 1)}
        self._tell_concern(row)
        self._state.inside.append(row)
        self._evaluator.worker.on_leader(lambda: self._record_inside(row))

    def draw(self, name: str) -> None:
        """Draw held-out samples as `samples/NAME.png` and into the log."""
        assert self._log is not None
        indices = range(min(self._recipe.settings.loop.samples, self._recipe.summary.val))
        image = self._evaluator.picture(self._state.evaluated_networks(), "val", indices)
        save_png(self._run.samples / f"{name}.png", image)
        self._log.picture(self._state.position.step, "samples", image)

    @property
    def end_early(self) -> bool:
        """Whether the validations so far end the training before its last epoch."""
        patience = self._recipe.settings.loop.patience
        if patience is not None and self._state.position.stale >= patience:
            return True
        concern = self._recipe.concern(list(validated(self._state.rows)))
        return concern is not None and concern.stops

    def _score(self, epoch: int) -> Row:
        """Score the held-out samples, and write the weights, which are of `epoch`, if they are the best so
        far; returns the metrics for the history."""
        self.scores = self._evaluator.score(self._state.evaluated_networks(), "val")
        means = self.scores.means
        position = self._state.position
        if means[self._recipe.metric] < position.best:
            position.best = means[self._recipe.metric]
            position.best_epoch = epoch
            position.stale = 0
            best = self._state.best_snapshot(epoch, means)
            self._evaluator.worker.on_leader(lambda: checkpoints.write(self._run.best_checkpoint, best))
        else:
            position.stale += 1
        return {f"val_{name}": value for name, value in means.items()} | self.scores.details

    def _tell_concern(self, row: Row) -> None:
        """Add to `row`, that of the last validation, what is wrong; shows it where it is new."""
        history = [*validated(self._state.rows), *self._state.inside, row]
        concern = self._recipe.concern(history)
        if concern is not None:
            row["concern"] = concern.text
            is_new = len(history) < 2 or history[-2].get("concern") != concern.text
            if is_new and self._log is not None:
                self._display.note(f"step {self._state.position.step}: {concern.text}")
                self._log.text(self._state.position.step, "concern", concern.text)
        if self._log is not None:
            self._log.validated(row)

    def _record_inside(self, row: Row) -> None:
        assert self._log is not None
        position = self._state.position
        values = {name: value for name, value in row.items() if name.startswith("val_")}
        self._log.scalars(position.step, values)
        self._display.note(f"epoch {position.epoch + 1}, step {position.step}  {metrics_text(values)}")
        if self._recipe.filmed:
            self.draw(f"epoch_{position.epoch:04d}_step_{position.step:08d}")


def validated(rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the validations in rows of the history, in order: those inside an epoch, then that of its end."""
    for row in rows:
        yield from row.get("validations", ())
        if any(name.startswith("val_") for name in row):
            yield row


def concerns(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what the validations in rows of the history showed to be wrong, with the step of the first."""
    before = None
    for row in validated(rows):
        concern = row.get("concern")
        if concern and concern != before:
            yield f"step {row['step']}: {concern}"
        before = concern
