"""Anomaly detectors: autoencoders of normal images; what they reconstruct badly is not normal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from torch import nn

from genray.datasets.image_set import Images, ImageSet, ImageSetSettings
from genray.datasets.loader import WorkerShare
from genray.datasets.splits import hold_out
from genray.errors import DataError
from genray.models.autoencoder import ConvSettings
from genray.report.charts import draw_distributions, draw_rates
from genray.report.pictures import draw_reconstructions
from genray.settings.base import Settings
from jobs.recipes.autoencoding import Autoencoding, AutoencodingSettings, Model
from jobs.recipes.latent_space import latent_pictures, spread
from jobs.runs.samples import RunPicture
from jobs.training.recipe import Conclusion, Part, Scored, ToDevice
from jobs.training.target import Training

_NORMAL = ("good", "normal", "ok")  # names of the class of normal images, where none is given


class NormalSetSettings(ImageSetSettings):
    """Settings of a set of images of which some are normal."""

    normal: tuple[Annotated[str, BeforeValidator(str)], ...] = Field(
        (), description="classes that are normal; []: good, normal or ok if there is one, else all images"
    )


class DetectorSettings(Settings):
    """Settings of what is an anomaly."""

    error: Literal["mse", "mae", "ssim"] = Field(
        "mse", description="of an image, by which it is judged; ssim: 1 - SSIM"
    )
    threshold: Literal["quantile", "deviations"] = Field(
        "quantile", description="from held-out normal images: a quantile of their errors, or mean + k std"
    )
    quantile: float = Field(
        0.95, gt=0, lt=1, description="of normal images that are to be below the threshold"
    )
    deviations: float = Field(3.0, gt=0, description="k of mean + k std")


class TrainAnomalySettings(AutoencodingSettings):
    """Settings of train-anomaly."""

    data: NormalSetSettings = Field(
        NormalSetSettings(), description="normal images, and anomalies to judge on"
    )
    model: Model = Field(
        ConvSettings(latent=16), description="the architecture; long codes let anomalies pass"
    )
    detector: DetectorSettings = Field(DetectorSettings(), description="what is an anomaly")


class TrainAnomaly(Autoencoding[TrainAnomalySettings]):
    """An autoencoder of normal images, and the threshold of its error as the bundle's calibration."""

    settings_class = TrainAnomalySettings
    headline = ("auroc", "average_precision", "sensitivity", "specificity", "threshold", "above_threshold")
    kind = "anomaly"

    def select(self, found: ImageSet) -> ImageSet:
        """Normal images to train on and to set the threshold; both kinds to judge on, where known."""
        names = self.settings.data.normal or tuple(c for c in found.classes if c.lower() in _NORMAL)
        if unknown := sorted(set(names) - set(found.classes)):
            raise DataError(
                f"no class is called {', '.join(unknown)}; there are: "
                f"{', '.join(found.classes[:20]) or 'none'}",
                where="data.normal",
                hint="name the classes that are normal",
            )
        if not names:
            self._normal = np.arange(len(found.classes))
            return found
        self._normal = np.array([found.classes.index(name) for name in names])
        train, strange = self._parted(found.train)
        val, more = self._parted(found.val)
        test = found.test
        if found.val.stored is found.train.stored:  # split by the seed: anomalies of both parts are held out
            more = _joined(more, strange) if len(strange) else more
        if test is None and len(more):
            halves = hold_out(range(len(val)), 0.5, self.settings.seed)
            test = _joined(val.select(halves[1]), more)
            val = val.select(halves[0])
        for images, purpose in ((train, "train on"), (val, "set the threshold with"), (test, "judge on")):
            if images is not None and not len(self._parted(images)[0]):
                raise DataError(
                    f"no images of the class {', '.join(names)} to {purpose}",
                    where="data.normal",
                    hint="give more of them, or raise data.val_share",
                )
        split = f"{found.split}; normal: {', '.join(names)}"
        return replace(found, train=train, val=val, test=test, split=split)

    def _parted(self, images: Images) -> tuple[Images, Images]:
        if images.labels is None:
            return images, images.select([])
        normal = np.isin(images.labels, self._normal)
        return images.select(np.flatnonzero(normal)), images.select(np.flatnonzero(~normal))

    def conclude(
        self, networks: Mapping[str, nn.Module], part: Part, scored: Sequence[Scored], place: ToDevice
    ) -> Conclusion:
        """The threshold, from held-out normal images; how well it tells anomalies from them; pictures."""
        held_out = scored if part == "val" else self.validate(networks, "val", WorkerShare(), place)
        calibration = self._calibration(self._errors(held_out))
        threshold, errors = calibration["threshold"], self._errors(scored)
        anomalous = self._anomalous(part)
        normal = np.ones(len(errors), bool) if anomalous is None else ~anomalous
        groups = (
            {"images": errors}
            if anomalous is None
            else {"normal": errors[normal], "anomalies": errors[~normal]}
        )
        metrics = {name: float(np.mean([s[name] for i, s in scored if normal[i]])) for name in scored[0][1]}
        metrics |= {"threshold": threshold, "above_threshold": float(np.mean(errors > threshold))}
        pictures = [
            RunPicture(
                "errors",
                "Errors and the threshold",
                draw_distributions({n: e for n, e in groups.items() if len(e)}, threshold, self._label),
                f"What lies above the threshold is an anomaly: {metrics['above_threshold']:.1%} of these.",
            )
        ]
        if anomalous is not None and anomalous.any():
            metrics |= _rates(anomalous, errors)
            metrics["sensitivity"] = float(np.mean(errors[anomalous] > threshold))
            metrics["specificity"] = float(np.mean(errors[normal] <= threshold))
            pictures.append(
                RunPicture("rates", "Telling anomalies from normal images", draw_rates(anomalous, errors))
            )
        pictures += self._mistakes(networks, part, errors, normal, threshold, place)
        some = spread(len(errors), 2000)
        codes = self.codes(networks, [self.held_out[part][i][0] for i in some], place)
        labels = None if anomalous is None else anomalous[some].astype(np.int64)
        names, projection = ("normal", "anomalies"), self.settings.eval.projection
        pictures += latent_pictures(codes, labels, names, projection, self.settings.seed)[:1]
        return Conclusion(metrics=metrics, calibration=calibration, pictures=pictures)

    @property
    def _label(self) -> str:
        return "1 - SSIM" if self.settings.detector.error == "ssim" else self.settings.detector.error.upper()

    def _errors(self, scored: Sequence[Scored]) -> NDArray[np.float64]:
        """The error of each image, by which it is judged."""
        kind = self.settings.detector.error
        if kind == "ssim":
            return np.array([1 - scores["ssim"] for _, scores in scored])
        return np.array([scores["l1" if kind == "mae" else kind] for _, scores in scored])

    def _anomalous(self, part: Part) -> NDArray[np.bool_] | None:
        """Which images are anomalies; None if nobody says. Those that are held out by choice are normal."""
        labels = self.labels[part]
        if labels is None:
            return None if part == "test" else np.zeros(len(self.held_out[part]), bool)
        return ~np.isin(labels, self._normal)

    def _calibration(self, errors: NDArray[np.float64]) -> dict[str, Any]:
        detector = self.settings.detector
        if detector.threshold == "quantile":
            threshold = float(np.quantile(errors, detector.quantile, method="higher"))
        else:
            threshold = float(errors.mean() + detector.deviations * errors.std())
        points = (0.5, 0.9, 0.95, 0.99, 1.0)
        return {
            **detector.model_dump(mode="json"),
            "method": detector.threshold,
            "threshold": threshold,
            "normal_images": len(errors),
            "mean": float(errors.mean()),
            "std": float(errors.std()),
            "quantiles": {f"{point:g}": float(np.quantile(errors, point)) for point in points},
        }

    def _mistakes(
        self,
        networks: Mapping[str, nn.Module],
        part: Part,
        errors: NDArray[np.float64],
        normal: NDArray[np.bool_],
        threshold: float,
        place: ToDevice,
    ) -> list[RunPicture]:
        """What was found, what was missed, and what was suspected for nothing."""
        wanted = {
            "found": ("Anomalies that were found", ~normal & (errors > threshold), -errors),
            "missed": ("Anomalies that were missed", ~normal & (errors <= threshold), errors),
            "suspected": ("Normal images above the threshold", ~~normal & (errors > threshold), -errors),
        }
        pictures = []
        for name, (title, those, order) in wanted.items():
            chosen = [int(i) for i in np.argsort(order, kind="stable") if those[i]][
                : self.settings.loop.samples
            ]
            if chosen:
                originals = [self.held_out[part][i][0] for i in chosen]
                made = self.reconstructed(networks, originals, place)
                captions = [f"{self._label} {errors[i]:.4f}, threshold {threshold:.4f}" for i in chosen]
                pictures.append(RunPicture(name, title, draw_reconstructions(originals, made, captions)))
        return pictures

    def baselines(self) -> dict[str, dict[str, float]]:
        """What principal components do: their error of normal images, and how well it tells anomalies."""
        anomalous, results = self._anomalous(self.judging), {}
        for name, errors in self.baseline_errors().items():
            normal = errors if anomalous is None else errors[~anomalous]
            results[name] = {"mse": float(normal.mean())}
            if anomalous is not None and anomalous.any():
                results[name] |= _rates(anomalous, errors)
        return results


def _rates(anomalous: NDArray[np.bool_], errors: NDArray[np.float64]) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    return {
        "auroc": float(roc_auc_score(anomalous, errors)),
        "average_precision": float(average_precision_score(anomalous, errors)),
    }


def _joined(first: Images, second: Images) -> Images:
    """Both, which are of one origin and labelled."""
    assert first.labels is not None
    assert second.labels is not None
    indices = np.concatenate([first.indices, second.indices])
    return Images(first.stored, indices, np.concatenate([first.labels, second.labels]))


TARGET = Training(TrainAnomaly)
