"""The target train-ecg: an autoencoder of normal heartbeats, and the threshold of its error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from genray.datasets.beats import Beats, BeatSet, BeatSetSettings, open_beat_set
from genray.datasets.loader import ArrayLoader, Loader, WorkerShare
from genray.io.bad_input import BadInput
from genray.models.beats import ConvBeatSettings, DenseBeatSettings
from genray.models.parts.layers import parameter_count
from genray.models.registry import NetworkSpec
from genray.report.pictures import BeatExample, draw_beats
from jobs.recipes.beats import (
    MEAN_BEAT,
    BeatEvalSettings,
    BeatGallery,
    BeatLossSettings,
    BeatRow,
    Detector,
    beat_errors,
    class_table,
    plain_detectors,
    rate,
)
from jobs.recipes.cross_fitting import CrossFit, first_component, folds_of
from jobs.recipes.threshold import (
    ThresholdSettings,
    calibration_of,
    few_samples_warning,
    threshold_interval,
)
from jobs.training.follow_up import FollowUp
from jobs.training.optimisation.optimizer import AdamSettings, OptimizerSettings
from jobs.training.recipe import (
    BundleSpec,
    Conclusion,
    DataSummary,
    EvaluationContext,
    Losses,
    Networks,
    Part,
    Recipe,
    SampleScores,
    TensorBatch,
    Updater,
)
from jobs.training.settings import TrainSettings
from jobs.training.target import Training

_BEATS_PER_ROW = 3
_MOST_NOTES = 5  # notes on records that are printed before the training
_BEATS_AT_ONCE = 4096  # beats in a batch of an evaluation

Model = Annotated[DenseBeatSettings | ConvBeatSettings, Field(discriminator="kind")]


class TrainEcgSettings(TrainSettings):
    """Settings of train-ecg."""

    data: BeatSetSettings = Field(BeatSetSettings(), description="beats to train and judge on")
    model: Model = Field(
        DenseBeatSettings(), description="network architecture; each kind has its own settings"
    )
    loss: BeatLossSettings = Field(BeatLossSettings(), description="loss that training minimises")
    optimizer: AdamSettings = Field(AdamSettings(), description="optimizer of the network")
    threshold: ThresholdSettings = Field(
        ThresholdSettings(), description="threshold of the error above which a beat is abnormal"
    )
    eval: BeatEvalSettings = Field(BeatEvalSettings(), description="evaluation of the final weights")


class TrainEcg(Recipe[TrainEcgSettings]):
    """Trains an autoencoder of normal beats; the bundle's calibration is the threshold of its error."""

    settings_class = TrainEcgSettings
    headline = ("auc", "average_precision", "accuracy", "sensitivity", "specificity")
    sample = "beat"
    name = "autoencoder"
    averaged = (name,)
    compared_by = ("auc", "mse")
    trivial: ClassVar[Mapping[str, str]] = {MEAN_BEAT: "the mean normal beat", "guessing": "guessing"}

    _set: BeatSet
    """The beats. This attribute and the following ones are set by `open`."""
    _parts: dict[Part, Beats]
    _normal: Beats
    """All normal beats but those that judge."""
    _folds: list[NDArray[np.int64]]
    """Indices of normal beats per fold, for cross-fitting; empty if the held-out beats set the threshold."""
    _repeats: int

    def __init__(self, settings: TrainEcgSettings) -> None:
        super().__init__(settings)
        self._cross_fitted: NDArray[np.float64] | None = None
        self._baselines: dict[str, dict[str, float]] = {}

    @property
    def metric(self) -> str:
        return self.settings.loss.kind

    def open_data(self, note: Callable[[str], None]) -> DataSummary:
        self._set = open_beat_set(self.settings.data, self.settings.seed, note)
        self._parts = {"val": self._set.val, "test": self._set.test}
        self._repeats = -(-self.settings.data.epoch_beats // len(self._set.train))
        self._normal = self._set.train.joined(self._set.val)
        threshold = self.settings.threshold
        cross_fit = threshold.folds > 1 and len(self._normal) <= threshold.cross_fit_most
        self._folds = self._fold(self._normal, threshold.folds) if cross_fit else []
        return DataSummary(
            train=len(self._set.train) * self._repeats,
            val=len(self._set.val),
            test=len(self._set.test),
            bad=self._set.bad,
            data=self._set.as_json(),
            lines=self._lines(),
        )

    def _lines(self) -> list[str]:
        """Return lines that say what will be trained on which beats."""
        with torch.device("meta"):  # the meta device counts parameters without drawing weights
            parameters = parameter_count(self._network())
        beats = self._set
        model = self.settings.model
        preprocessing = beats.preprocessing
        passes = f", {self._repeats} times an epoch" if self._repeats > 1 else ""
        leads = f" of {', '.join(preprocessing.leads)}" if preprocessing.leads else ""
        threshold = f"threshold from {len(beats.val)} held-out beats"
        if self._folds:
            threshold = (
                f"threshold from {len(self._normal)} normal beats, "
                f"scored by {len(self._folds)} networks not trained on them"
            )
        return [
            f"{len(beats.train)} normal beats{leads} to train on{passes}, {len(beats.val)} held out, "
            f"{len(beats.test) or 'no others'} to judge on, {len(beats.bad)} set aside",
            f"split {beats.split}",
            *([f"left out of the training beats: {beats.left_out}"] if beats.left_out else []),
            *beats.notes[:_MOST_NOTES],
            *([f"and {len(beats.notes) - _MOST_NOTES} more notes"] if len(beats.notes) > _MOST_NOTES else []),
            f"ecg-beats, {model.kind}, {model.latent} numbers for {preprocessing.samples}: "
            f"{parameters:,} parameters",
            threshold,
        ]

    def _fold(self, beats: Beats, folds: int) -> list[NDArray[np.int64]]:
        return folds_of(beats.groups, folds, self.settings.seed, first_component(beats.values))

    def loader(self, report: Callable[[BadInput], None]) -> Loader:
        return ArrayLoader(self._set.train.values, self.settings.seed, self._repeats)

    def place(self, batch: NDArray[Any], where: torch.device) -> torch.Tensor:
        """Return the beats unchanged, (N, 1, samples) float32."""
        return torch.from_numpy(np.ascontiguousarray(batch)).to(where)

    def _network_spec(self) -> NetworkSpec:
        model = self.settings.model
        samples = self._set.preprocessing.samples
        arguments = {"samples": samples, "settings": model.model_dump(mode="json")}
        return NetworkSpec(f"beats-{model.kind}", arguments)

    def _network(self) -> nn.Module:
        return self._network_spec().build()

    def networks(self) -> dict[str, nn.Module]:
        return {self.name: self._network()}

    def example_inputs(self, samples: int) -> Mapping[str, Sequence[torch.Tensor]]:
        return {self.name: [torch.empty(samples, 1, self._set.preprocessing.samples)]}

    def optimizer(self, network: str) -> OptimizerSettings:
        return self.settings.optimizer

    def step(self, networks: Networks, batch: TensorBatch, updater: Updater) -> Losses:
        """Take one step; returns `loss`."""
        loss = self._losses(networks[self.name], batch[0]).mean()
        updater.update(self.name, loss)
        return {"loss": loss.detach()}

    def _losses(self, network: nn.Module, beats: torch.Tensor) -> torch.Tensor:
        """Return the loss of each beat, (N,)."""
        noise = self.settings.loss.noise
        noisy = beats + noise * torch.randn_like(beats) if noise else beats
        return beat_errors(self.settings.loss.kind, network(noisy, by_member=True), beats)

    def _errors(self, network: nn.Module, beats: torch.Tensor) -> torch.Tensor:
        """Return the error by which each beat is judged, (N,)."""
        return beat_errors(self.settings.loss.kind, network(beats), beats)

    def validate(self, context: EvaluationContext, share: WorkerShare) -> list[SampleScores]:
        """Return MSE and MAE of the reconstructions, in the units of the network's beats."""
        values = self._parts[context.part].values
        indices = np.arange(share.rank, len(values), share.world)
        scores: list[SampleScores] = []
        for start in range(0, len(indices), _BEATS_AT_ONCE):
            chosen = indices[start : start + _BEATS_AT_ONCE]
            beats = context.place(values[chosen])
            reconstructions = context.networks[self.name](beats)
            squared = beat_errors("mse", reconstructions, beats).tolist()
            absolute = beat_errors("mae", reconstructions, beats).tolist()
            scores += [
                SampleScores(int(index), {"mse": mse, "mae": mae})
                for index, mse, mae in zip(chosen, squared, absolute, strict=True)
            ]
        return scores

    def picture(self, context: EvaluationContext, indices: Sequence[int], title: str) -> NDArray[np.uint8]:
        """Draw beats, their reconstructions and the error between them, three side by side."""
        places = list(indices)
        rows = [places[i : i + _BEATS_PER_ROW] for i in range(0, len(places), _BEATS_PER_ROW)]
        return self._draw(context, [BeatRow(title.strip(), row, [""] * len(row)) for row in rows])

    def follow_up(self, work: FollowUp) -> None:
        """Score the normal beats by networks that were not trained on them; see `CrossFit`."""
        if not self._folds:
            return
        settings = self.settings
        fit = CrossFit(
            make_network=self._network,
            loss=self._losses,
            error=self._errors,
            optimizer=settings.optimizer,
            fused=settings.device.fused,
            loop=settings.loop,
            repeats=self._repeats,
            seed=settings.seed,
            settings=settings.model_dump(mode="json", include={"model", "loss", "optimizer", "device"}),
        )
        self._cross_fitted = fit.errors(self._normal.values, self._folds, work)

    def conclude(self, context: EvaluationContext, scores: Sequence[SampleScores]) -> Conclusion:
        """Return the threshold from normal beats, its rates on abnormal beats beside those of other
        detectors, and pictures."""
        kind = self.settings.loss.kind
        normal_errors = self._cross_fitted
        if normal_errors is None:
            held_out = scores if context.part == "val" else self._validate_held_out(context)
            normal_errors = np.array([sample.metrics[kind] for sample in held_out])
        calibration = calibration_of(normal_errors, self.settings.threshold, len(self._folds))
        errors = np.array([sample.metrics[kind] for sample in scores])
        detector = Detector("genray", errors, calibration["threshold"])
        plain = self._plain_detectors(context.part)
        abnormal = self._abnormal(context.part)
        self._baselines = self._rate_baselines(plain, abnormal)
        labels = self._parts[context.part].labels
        classes = self._set.classes
        gallery = BeatGallery(
            detector,
            abnormal,
            labels,
            classes,
            draw=partial(self._draw, context),
            most=self.settings.loop.samples,
            error=kind.upper(),
        )
        tables = [class_table([detector, *plain], labels, classes, self._set.normal)] if classes else []
        return Conclusion(
            metrics=self._mean_errors(context, scores, abnormal) | rate(detector, abnormal),
            calibration={"error": kind, **calibration},
            pictures=gallery.pictures(),
            tables=tables,
            warnings=few_samples_warning(
                len(normal_errors), "beats", threshold_interval(normal_errors, self.settings.threshold)
            ),
        )

    def _rate_baselines(
        self, detectors: Sequence[Detector], abnormal: NDArray[np.bool_] | None
    ) -> dict[str, dict[str, float]]:
        """Return the rates of the plain detectors and of guessing; of the mean beat also its MSE of the
        normal beats."""
        rates = {detector.name: rate(detector, abnormal) for detector in detectors}
        mean_beat = next(detector for detector in detectors if detector.name == MEAN_BEAT)
        normal = mean_beat.errors if abnormal is None else mean_beat.errors[~abnormal]
        if len(normal):
            rates[MEAN_BEAT]["mse"] = float(normal.mean())
        if "auc" in rates[MEAN_BEAT]:
            assert abnormal is not None
            rates["guessing"] = {"auc": 0.5, "average_precision": float(abnormal.mean())}
        return rates

    def _validate_held_out(self, context: EvaluationContext) -> list[SampleScores]:
        return self.validate(replace(context, part="val"), WorkerShare())

    def _mean_errors(
        self,
        context: EvaluationContext,
        scores: Sequence[SampleScores],
        abnormal: NDArray[np.bool_] | None,
    ) -> dict[str, float]:
        """Return the mean errors of the reconstructions of normal beats."""
        normal = [s.metrics for s in scores if abnormal is None or not abnormal[s.index]]
        if not normal:  # only abnormal beats judge
            normal = [sample.metrics for sample in self._validate_held_out(context)]
        return {name: float(np.mean([metrics[name] for metrics in normal])) for name in ("mse", "mae")}

    def _plain_detectors(self, part: Part) -> list[Detector]:
        """Return the plain detectors, fitted neither to judging beats nor to those that set their
        threshold."""
        settings = self.settings
        normal = self._normal
        folds = self._folds
        if part == "val":
            normal = self._set.train
            folds = self._fold(normal, max(2, settings.threshold.folds))
        return plain_detectors(
            settings.eval,
            settings.threshold,
            latent=settings.model.latent,
            seed=settings.seed,
            normal=normal.values[:, 0],
            folds=folds or [np.arange(len(self._set.train), len(normal))],
            judged=self._parts[part].values[:, 0],
        )

    def _abnormal(self, part: Part) -> NDArray[np.bool_] | None:
        """Return which judging beats are abnormal; None if unknown. The beats of val are normal."""
        labels = self._parts[part].labels
        if (labels < 0).any():
            return None  # a test part has labels for all beats or for none
        return ~np.isin(labels, self._set.normal)

    def _draw(self, context: EvaluationContext, rows: Sequence[BeatRow]) -> NDArray[np.uint8]:
        values = self._parts[context.part].values
        drawn = []
        for row in rows:
            beats = values[list(row.places)]
            reconstructions = context.networks[self.name](context.place(beats)).float().cpu().numpy()
            columns = zip(row.captions, beats[:, 0], reconstructions[:, 0], strict=True)
            drawn.append((row.title, [BeatExample(*column) for column in columns]))
        preprocessing = self._set.preprocessing
        unit = "deviations" if preprocessing.normalisation == "zscore" else "share of the range"
        return draw_beats(drawn, preprocessing.window, unit)

    def baselines(self) -> dict[str, dict[str, float]]:
        """Return the metrics of the plain detectors, each at its own threshold, and of guessing; after
        `conclude`."""
        return self._baselines

    def bundle_spec(self) -> BundleSpec:
        return BundleSpec("ecg-beats", self.name, self._network_spec(), self._set.preprocessing)


TARGET = Training(TrainEcg)
