"""The target train-rhythm: classifiers of ventricular rhythms (windows of 5 s) and of ventricular beats."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from genray.bundle import save_bundle
from genray.datasets.loader import ArrayLoader, Loader, WorkerShare
from genray.datasets.rhythms import (
    OTHER,
    RhythmDataSettings,
    RhythmSet,
    group_of,
    open_rhythm_set,
    summary_line,
)
from genray.ecg.rhythm import WINDOW_FEATURES, RhythmPreprocessing
from genray.ecg.ventricular import BEAT_FEATURES
from genray.io.bad_input import BadInput
from genray.models.registry import NetworkSpec
from genray.models.rhythm import WINDOW_CLASSES, RhythmNetwork, RhythmSettings
from genray.report.charts import draw_distributions
from genray.settings.base import Settings
from jobs.recipes.cross_fitting import CrossFit
from jobs.runs.samples import RunPicture
from jobs.training.follow_up import FollowUp
from jobs.training.optimisation.optimizer import AdamSettings, OptimizerSettings
from jobs.training.recipe import (
    BundleSpec,
    Conclusion,
    DataSummary,
    EvaluationContext,
    Losses,
    Networks,
    Recipe,
    SampleScores,
    TensorBatch,
    Updater,
)
from jobs.training.settings import TrainSettings
from jobs.training.target import Training

FOLDS = "folds"
"""Folder of a run with the bundles of its folds, each trained without some of the records."""

_BEAT, _LABEL, _WEIGHT, _FEATURES = 0, 1, 2, 3  # columns of a sample
_SMOOTHING = 0.02  # of the labels, as annotations are not always right
_LIMIT = 0.8  # probability from which a window or a beat counts as ventricular in the figures
_VALIDATED_EVERY = 20  # every this many samples shows how the training goes


class CrossSettings(Settings):
    """Settings of the figures: each record is judged by networks that were trained on other records."""

    folds: int = Field(
        10, ge=2, le=1000, description="groups of records (as many as patients: leave one record out)"
    )


class TrainRhythmSettings(TrainSettings):
    """Settings of train-rhythm."""

    data: RhythmDataSettings = Field(RhythmDataSettings(), description="records to train on")
    model: RhythmSettings = Field(RhythmSettings(), description="sizes of the classifiers")
    optimizer: AdamSettings = Field(AdamSettings(learning_rate=0.01), description="optimizer of the network")
    cross: CrossSettings = Field(CrossSettings(), description="figures on records that were not trained on")


@dataclass(frozen=True)
class _Judged:
    """Samples of one kind with the probability that each is ventricular, by networks trained on other
    records."""

    ventricular: NDArray[np.bool_]
    scores: NDArray[np.float64]

    def rates(self, prefix: str) -> dict[str, float]:
        """Return area under the ROC curve, sensitivity and specificity."""
        from sklearn.metrics import roc_auc_score

        found = self.scores >= _LIMIT
        return {
            f"{prefix}_auc": float(roc_auc_score(self.ventricular, self.scores)),
            f"{prefix}_sensitivity": float(found[self.ventricular].mean()),
            f"{prefix}_specificity": float(1 - found[~self.ventricular].mean()),
        }


class TrainRhythm(Recipe[TrainRhythmSettings]):
    """Trains both classifiers of the rhythm network. Its metrics are cross-fitted: each record is judged by a
    network that was trained on other patients' records."""

    settings_class = TrainRhythmSettings
    headline = ("window_auc", "window_sensitivity", "window_specificity", "beat_auc", "beat_sensitivity")
    sample = "sample"
    name = "classifiers"
    averaged = (name,)
    compared_by = ("window_auc",)
    trivial: ClassVar[Mapping[str, str]] = {"guessing": "guessing"}

    _set: RhythmSet
    """The records. This attribute and the next ones are set by `open`."""
    _samples: NDArray[np.float32]
    _validated: NDArray[np.intp]

    def __init__(self, settings: TrainRhythmSettings) -> None:
        super().__init__(settings)
        self._scores: NDArray[np.float64] | None = None

    @property
    def metric(self) -> str:
        return "loss"

    @property
    def can_use_gpu(self) -> bool:
        return False  # a thousand weights

    def open_data(self, note: Callable[[str], None]) -> DataSummary:
        self._set = open_rhythm_set(self.settings.data, note)
        samples = self._set.samples
        columns = [samples.beat, samples.labels, self._set.weights, samples.features]
        self._samples = np.column_stack([np.asarray(each, np.float32) for each in columns])
        self._validated = np.arange(0, len(self._samples), _VALIDATED_EVERY)
        groups = {group_of(name) for name in self._set.names}
        folds = min(self.settings.cross.folds, len(groups))
        return DataSummary(
            train=len(self._samples),
            val=len(self._validated),
            bad=(),
            data={
                "fingerprint": self._set.fingerprint,
                "records": list(self._set.names),
                "left_out": self._set.left_out,
                **self._set.counts,
            },
            lines=[
                summary_line(self._set),
                f"figures from {folds} networks, each judging the records of patients it was not trained on",
            ],
        )

    def loader(self, report: Callable[[BadInput], None]) -> Loader:
        return ArrayLoader(self._samples, self.settings.seed)

    def place(self, batch: NDArray[Any], where: torch.device) -> torch.Tensor:
        """Return the samples unchanged, (N, columns) float32."""
        return torch.from_numpy(np.ascontiguousarray(batch)).to(where)

    def _spec(self) -> NetworkSpec:
        model = self.settings.model.model_dump(mode="json")
        return NetworkSpec("rhythm", {"windows": WINDOW_FEATURES, "beats": BEAT_FEATURES, "settings": model})

    def _network(self) -> RhythmNetwork:
        network = self._spec().build()
        assert isinstance(network, RhythmNetwork)
        is_beat = self._samples[:, _BEAT] > 0
        features = self._samples[:, _FEATURES:]
        network.windows.normalise_as(features[~is_beat, :WINDOW_FEATURES])
        network.beats.normalise_as(features[is_beat, :BEAT_FEATURES])
        return network

    def networks(self) -> dict[str, nn.Module]:
        return {self.name: self._network()}

    def example_inputs(self, samples: int) -> Mapping[str, Sequence[torch.Tensor]]:
        return {self.name: [torch.empty(samples, WINDOW_FEATURES), torch.empty(samples, BEAT_FEATURES)]}

    def optimizer(self, network: str) -> OptimizerSettings:
        return self.settings.optimizer

    def step(self, networks: Networks, batch: TensorBatch, updater: Updater) -> Losses:
        """Take one step; returns `loss`."""
        loss = self._losses(networks[self.name], batch[0]).mean()
        updater.update(self.name, loss)
        return {"loss": loss.detach()}

    def _losses(self, network: nn.Module, samples: torch.Tensor) -> torch.Tensor:
        """Return the weighted loss of each sample, (N,)."""
        windows, beats = _logits(network, samples)
        labels = samples[:, _LABEL]
        of_windows = F.cross_entropy(windows, labels.long(), reduction="none", label_smoothing=_SMOOTHING)
        smooth = labels.clamp(max=1) * (1 - 2 * _SMOOTHING) + _SMOOTHING
        of_beats = F.binary_cross_entropy_with_logits(beats[:, 0], smooth, reduction="none")
        losses: torch.Tensor = torch.where(samples[:, _BEAT] > 0, of_beats, of_windows) * samples[:, _WEIGHT]
        return losses

    def _ventricular(self, network: nn.Module, samples: torch.Tensor) -> torch.Tensor:
        """Return the probability that each sample is ventricular, (N,)."""
        windows, beats = _logits(network, samples)
        of_windows = 1 - torch.softmax(windows, dim=1)[:, OTHER]
        return torch.where(samples[:, _BEAT] > 0, torch.sigmoid(beats[:, 0]), of_windows)

    def validate(self, context: EvaluationContext, share: WorkerShare) -> list[SampleScores]:
        """Return the losses of some of the training samples, which show whether the network learns."""
        places = np.arange(share.rank, len(self._validated), share.world)
        samples = context.place(self._samples[self._validated[places]])
        losses = self._losses(context.networks[self.name], samples).tolist()
        return [SampleScores(int(n), {"loss": loss}) for n, loss in zip(places, losses, strict=True)]

    def picture(self, context: EvaluationContext, indices: Sequence[int], title: str) -> NDArray[np.uint8]:
        """Draw the probabilities of the validated windows and beats, by their class."""
        samples = self._samples[self._validated]
        scores = self._ventricular(context.networks[self.name], context.place(samples)).numpy()
        return _draw(samples, scores)

    def follow_up(self, work: FollowUp) -> None:
        """Judge each record by a network that was trained on the records of other patients, and write these
        networks as bundles, for the evaluation of the monitor on the same records."""
        samples = self._set.samples
        names = [group_of(name) for name in self._set.names]
        fold_of = {name: n % self.settings.cross.folds for n, name in enumerate(sorted(set(names)))}
        of_samples = np.array([fold_of[name] for name in names])[samples.records]
        settings = self.settings
        fit = CrossFit(
            make_network=self._network,
            loss=self._losses,
            error=self._ventricular,
            optimizer=settings.optimizer,
            fused=settings.device.fused,
            loop=settings.loop,
            repeats=1,
            seed=settings.seed,
            settings=settings.model_dump(mode="json", include={"model", "optimizer", "device"}),
        )
        folds = [np.flatnonzero(of_samples == fold) for fold in np.unique(of_samples)]

        def save(fold: int, network: nn.Module) -> None:
            judged = {self._set.names[record] for record in samples.records[folds[fold]]}
            self._save_fold(work.run.folder / FOLDS / f"fold-{fold + 1}", network, judged)

        self._scores = fit.errors(self._samples, folds, work, save)

    def _save_fold(self, path: Path, network: nn.Module, judged: Collection[str]) -> None:
        """Write the bundle of a network that was trained without the records `judged`."""
        left_out = dict.fromkeys(sorted(judged), "judged by this model")
        trained_on = [name for name in self._set.names if name not in judged]
        save_bundle(
            path,
            network,
            self._spec(),
            kind="rhythm",
            preprocessing=RhythmPreprocessing(),
            metrics={},
            seed=self.settings.seed,
            data={**self.summary.record, "records": trained_on, "left_out": left_out},
        )

    def conclude(self, context: EvaluationContext, scores: Sequence[SampleScores]) -> Conclusion:
        """Return the rates on records of patients that were not trained on."""
        assert self._scores is not None, "the follow-up comes first"
        samples = self._set.samples
        ventricular = samples.labels > 0
        windows = _Judged(ventricular[~samples.beat], self._scores[~samples.beat])
        beats = _Judged(ventricular[samples.beat], self._scores[samples.beat])
        loss = float(np.mean([sample.metrics["loss"] for sample in scores]))
        return Conclusion(
            metrics={"loss": loss, **windows.rates("window"), **beats.rates("beat")},
            pictures=[
                RunPicture(
                    "probabilities",
                    "Probability of a ventricular rhythm or beat, on records that were not trained on",
                    _draw(self._samples, self._scores),
                )
            ],
        )

    def baselines(self) -> dict[str, dict[str, float]]:
        """Return the rates of guessing."""
        return {"guessing": {"window_auc": 0.5, "beat_auc": 0.5}}

    def bundle_spec(self) -> BundleSpec:
        return BundleSpec("rhythm", self.name, self._spec(), RhythmPreprocessing())


def _logits(network: nn.Module, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of both classifiers for all samples; those of the other kind mean nothing."""
    features = samples[:, _FEATURES:]
    windows, beats = network(features[:, :WINDOW_FEATURES], features[:, :BEAT_FEATURES])
    return windows, beats


def _draw(samples: NDArray[np.float32], scores: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Draw the distributions of the scores of samples, by class."""
    is_beat, labels = samples[:, _BEAT] > 0, samples[:, _LABEL]
    groups = {f"window: {name}": ~is_beat & (labels == n) for n, name in enumerate(WINDOW_CLASSES)}
    groups |= {"other beat": is_beat & (labels == 0), "ventricular beat": is_beat & (labels == 1)}
    values = {name: scores[chosen] for name, chosen in groups.items()}
    return draw_distributions(values, _LIMIT, "probability")


TARGET = Training(TrainRhythm)
