"""Detectors of abnormal heartbeats: autoencoders of normal beats, and the threshold of their error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from genray.bundle import save_bundle
from genray.datasets.beats import Beats, BeatSetSettings, open_beat_set
from genray.datasets.loader import ArrayLoader, Loader, WorkerShare
from genray.io.bad_input import BadInput
from genray.models.beats import ConvBeatSettings, DenseBeatSettings
from genray.models.layers import parameter_count
from genray.models.registry import NetworkSpec
from genray.report.pictures import BeatExample, draw_beats
from jobs.recipes.beats import (
    BeatEvalSettings,
    BeatLossSettings,
    Method,
    PictureRow,
    beat_errors,
    beat_pictures,
    class_table,
    judge,
    plain_methods,
)
from jobs.recipes.cross_fitting import CrossFit, first_component, folds_of
from jobs.recipes.threshold import ThresholdSettings, calibration_of
from jobs.training.recipe import (
    AdamSettings,
    Conclusion,
    DataSummary,
    FollowUp,
    Learn,
    OptimizerSettings,
    Part,
    Recipe,
    Scored,
    ToDevice,
)
from jobs.training.settings import TrainSettings
from jobs.training.target import Training

Model = Annotated[DenseBeatSettings | ConvBeatSettings, Field(discriminator="kind")]


class TrainEcgSettings(TrainSettings):
    """Settings of train-ecg."""

    data: BeatSetSettings = Field(BeatSetSettings(), description="the beats")
    model: Model = Field(DenseBeatSettings(), description="the architecture; each kind has its own settings")
    loss: BeatLossSettings = Field(BeatLossSettings(), description="what is minimised")
    optimizer: AdamSettings = Field(AdamSettings(), description="how the network is improved")
    threshold: ThresholdSettings = Field(ThresholdSettings(), description="above which a beat is abnormal")
    eval: BeatEvalSettings = Field(BeatEvalSettings(), description="how it is judged")


class TrainEcg(Recipe[TrainEcgSettings]):
    """An autoencoder of normal beats, and the threshold of its error as the bundle's calibration."""

    settings_class = TrainEcgSettings
    headline = ("auc", "average_precision", "accuracy", "sensitivity", "specificity")
    sample = "beat"
    name = "autoencoder"
    averaged = (name,)

    def __init__(self, settings: TrainEcgSettings) -> None:
        super().__init__(settings)
        self.metric = settings.loss.kind
        self._summary: DataSummary | None = None
        self._cross_fitted: NDArray[np.float64] | None = None

    def open(self, note: Callable[[str], None]) -> DataSummary:
        if self._summary is not None:
            return self._summary
        self._set = found = open_beat_set(self.settings.data, self.settings.seed, note)
        self._parts: dict[Part, Beats] = {"val": found.val, "test": found.test}
        self._repeats = -(-self.settings.data.epoch_beats // len(found.train))
        self._normal = normal = found.train.joined(found.val)
        wanted = self.settings.threshold
        cross_fit = wanted.folds > 1 and len(normal) <= wanted.cross_fit_most
        self._folds = self._parted(normal, wanted.folds) if cross_fit else []
        with torch.device("meta"):  # to count, without drawing weights
            parameters = parameter_count(self._network())
        model, preprocessing, test = self.settings.model, found.preprocessing, len(found.test)
        passes = f", {self._repeats} times an epoch" if self._repeats > 1 else ""
        leads = f" of {', '.join(preprocessing.leads)}" if preprocessing.leads else ""
        held = f"{len(found.val)} held-out beats"
        cross = f"{len(self._folds)} networks that did not learn them"
        self._summary = DataSummary(
            train=len(found.train) * self._repeats,
            val=len(found.val),
            test=test,
            bad=found.bad,
            data=found.as_json(),
            lines=[
                f"{len(found.train)} normal beats{leads} to train on{passes}, {len(found.val)} held out, "
                f"{test or 'no more'} to judge on, {len(found.bad)} set aside",
                f"split {found.split}",
                *([f"left out of the training beats: {found.left_out}"] if found.left_out else []),
                f"ecg-beats, {model.kind}, {model.latent} numbers for {preprocessing.samples}: "
                f"{parameters:,} parameters",
                f"threshold from {f'{len(normal)} normal beats, scored by {cross}' if self._folds else held}",
            ],
        )
        return self._summary

    def _parted(self, beats: Beats, folds: int) -> list[NDArray[np.int64]]:
        return folds_of(beats.groups, folds, self.settings.seed, first_component(beats.values))

    def loader(self, report: Callable[[BadInput], None]) -> Loader:
        return ArrayLoader(self._set.train.values, self.settings.seed, self._repeats)

    def place(self, batch: NDArray[Any], where: torch.device) -> torch.Tensor:
        """(N, 1, samples) float32, as it is."""
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

    def optimizer(self, network: str) -> OptimizerSettings:
        return self.settings.optimizer

    def step(
        self, networks: Mapping[str, nn.Module], batch: Sequence[torch.Tensor], learn: Learn
    ) -> dict[str, torch.Tensor]:
        """One update. Returns `loss`."""
        loss = self._losses(networks[self.name], batch[0]).mean()
        learn(self.name, loss)
        return {"loss": loss.detach()}

    def _losses(self, network: nn.Module, beats: torch.Tensor) -> torch.Tensor:
        """What is minimised, (N,)."""
        noise = self.settings.loss.noise
        seen = beats + noise * torch.randn_like(beats) if noise else beats
        return beat_errors(self.settings.loss.kind, network(seen, by_member=True), beats)

    def _score(self, network: nn.Module, beats: torch.Tensor) -> torch.Tensor:
        """What beats are judged by, (N,)."""
        return beat_errors(self.settings.loss.kind, network(beats), beats)

    def validate(
        self, networks: Mapping[str, nn.Module], part: Part, share: WorkerShare, place: ToDevice
    ) -> list[Scored]:
        """MSE and MAE of the reconstructions, in the units of the network's beats."""
        values = self._parts[part].values
        mine = np.arange(share.rank, len(values), share.world)
        scored: list[Scored] = []
        for start in range(0, len(mine), _AT_ONCE):
            chosen = mine[start : start + _AT_ONCE]
            beats = place(values[chosen])
            made = networks[self.name](beats)
            rows = zip(*(beat_errors(kind, made, beats).tolist() for kind in ("mse", "mae")), strict=True)
            scored += [(int(i), {"mse": mse, "mae": mae}) for i, (mse, mae) in zip(chosen, rows, strict=True)]
        return scored

    def picture(
        self,
        networks: Mapping[str, nn.Module],
        part: Part,
        indices: Sequence[int],
        place: ToDevice,
        title: str,
    ) -> NDArray[np.uint8]:
        """The beats, their reconstructions and the error between them, three side by side."""
        places = list(indices)
        rows = [places[i : i + _BESIDE] for i in range(0, len(places), _BESIDE)]
        drawn = [(title.strip(), row, [""] * len(row)) for row in rows]
        return self._drawn(networks, place, part, drawn)

    def follow_up(self, work: FollowUp) -> None:
        """Scores the normal beats by networks that did not learn them; see `CrossFit`."""
        if not self._folds:
            return
        settings = self.settings
        fit = CrossFit(
            self._network,
            (partial(settings.optimizer.make, fused=settings.device.fused), settings.optimizer.learning_rate),
            self._losses,
            self._score,
            loop=settings.loop,
            repeats=self._repeats,
            seed=settings.seed,
            settings=settings.model_dump(mode="json", include={"model", "loss", "optimizer", "device"}),
        )
        self._cross_fitted = fit.errors(self._normal.values, self._folds, work)

    def conclude(
        self, networks: Mapping[str, nn.Module], part: Part, scored: Sequence[Scored], place: ToDevice
    ) -> Conclusion:
        """The threshold from normal beats, how well it tells abnormal ones from them, beside other detectors;
        pictures."""
        kind = self.settings.loss.kind
        errors = np.array([scores[kind] for _, scores in scored])
        normal_errors = self._cross_fitted
        if normal_errors is None:
            held_out = scored if part == "val" else self.validate(networks, "val", WorkerShare(), place)
            normal_errors = np.array([scores[kind] for _, scores in held_out])
        calibration = calibration_of(normal_errors, self.settings.threshold, len(self._folds))
        threshold, abnormal = calibration["threshold"], self._abnormal(part)
        this = Method("genray", errors, threshold)
        others = self._plain(part)
        self._baselines = {other.name: judge(other, abnormal) for other in others}
        normal = np.ones(len(errors), bool) if abnormal is None else ~abnormal
        reconstructed = [s for i, s in scored if normal[i]]
        if not reconstructed:  # abnormal beats alone judge
            reconstructed = [s for _, s in self.validate(networks, "val", WorkerShare(), place)]
        means = {name: float(np.mean([s[name] for s in reconstructed])) for name in ("mse", "mae")}
        labels, classes = self._parts[part].labels, self._set.classes
        draw = partial(self._drawn, networks, place, part)
        most = self.settings.loop.samples
        pictures = beat_pictures(this, abnormal, labels, classes, draw, most=most, error=kind.upper())
        return Conclusion(
            metrics=means | judge(this, abnormal),
            calibration={"error": kind, **calibration},
            pictures=pictures,
            tables=[class_table([this, *others], labels, classes, self._set.normal)] if classes else [],
        )

    def _plain(self, part: Part) -> list[Method]:
        """What plain detectors say; they know no beats that judge, and none that their threshold is from."""
        settings, known, folds = self.settings, self._normal, self._folds
        if part == "val":
            known = self._set.train
            folds = self._parted(known, max(2, settings.threshold.folds))
        return plain_methods(
            settings.eval,
            settings.threshold,
            latent=settings.model.latent,
            seed=settings.seed,
            normal=known.values[:, 0],
            folds=folds or [np.arange(len(self._set.train), len(known))],
            judged=self._parts[part].values[:, 0],
        )

    def _abnormal(self, part: Part) -> NDArray[np.bool_] | None:
        """Which beats are; None if nobody says. Those that are held out are normal."""
        labels = self._parts[part].labels
        if (labels < 0).any():
            return None  # a test part has all labels or none
        return ~np.isin(labels, self._set.normal)

    def _drawn(
        self, networks: Mapping[str, nn.Module], place: ToDevice, part: Part, rows: Sequence[PictureRow]
    ) -> NDArray[np.uint8]:
        values, drawn = self._parts[part].values, []
        for title, places, captions in rows:
            beats = values[list(places)]
            made = networks[self.name](place(beats)).float().cpu().numpy()
            drawn.append(
                (title, [BeatExample(*row) for row in zip(captions, beats[:, 0], made[:, 0], strict=True)])
            )
        preprocessing = self._set.preprocessing
        unit = "deviations" if preprocessing.normalisation == "zscore" else "share of the range"
        return draw_beats(drawn, preprocessing.window, unit)

    def baselines(self) -> dict[str, dict[str, float]]:
        """The metrics of plain detectors, each at its own threshold."""
        return self._baselines

    def save_bundle(
        self,
        path: Path,
        networks: Mapping[str, nn.Module],
        metrics: Mapping[str, Any],
        samples: Sequence[Path],
        calibration: Mapping[str, Any],
    ) -> None:
        assert self._summary is not None
        save_bundle(
            path,
            networks[self.name],
            self._network_spec(),
            kind="ecg-beats",
            preprocessing=self._set.preprocessing,
            metrics=metrics,
            seed=self.settings.seed,
            data=self._summary.data,
            calibration=calibration,
            samples=samples,
        )


_BESIDE = 3  # beats in a row
_AT_ONCE = 4096  # beats of an evaluation
TARGET = Training(TrainEcg)
