"""The target train-anomaly: an autoencoder of normal images, which reconstructs anomalies badly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from genray.datasets.defects import NORMAL_NAMES, DefectMasks, is_normal_name
from genray.datasets.image_set import Images, ImageSet, ImageSetSettings
from genray.datasets.loader import WorkerShare
from genray.datasets.splits import hold_out
from genray.errors import DataError
from genray.models.autoencoder import ConvSettings
from genray.report.charts import draw_distributions, draw_rates
from genray.report.pictures import draw_reconstructions
from genray.settings.base import Settings
from jobs.recipes.autoencoding import Autoencoding, AutoencodingSettings, Model
from jobs.recipes.latent_space import latent_pictures, spread_indices
from jobs.recipes.localisation import localise
from jobs.recipes.threshold import Interval, deviations_interval, few_samples_warning, quantile_interval
from jobs.runs.samples import RunPicture
from jobs.training.recipe import Conclusion, EvaluationContext, Part, SampleScores
from jobs.training.target import Training

_FEW_IMAGES = 20
_MOST_PIXELS = 50_000_000  # judged pixels whose errors are compared with masks
_AT_ONCE = 32  # images that are reconstructed at once


class NormalSetSettings(ImageSetSettings):
    """Settings of a set of images of which some are normal."""

    has_defects = True

    normal: tuple[Annotated[str, BeforeValidator(str)], ...] = Field(
        (),
        description=(
            "classes of normal images ([]: the class good, normal or ok; all images if there are no classes)"
        ),
    )


class DetectorSettings(Settings):
    """Settings of the error and the threshold of an anomaly."""

    error: Literal["mse", "mae", "ssim"] = Field(
        "mse", description="error by which an image is judged (ssim: 1 - SSIM)"
    )
    threshold: Literal["quantile", "deviations"] = Field(
        "quantile",
        description=(
            "method of the threshold: a quantile of the held-out normal images' errors, or their "
            "mean + k standard deviations"
        ),
    )
    quantile: float = Field(
        0.95, gt=0, lt=1, description="share of the held-out normal images below the threshold"
    )
    deviations: float = Field(3.0, gt=0, description="k of the threshold mean + k standard deviations")


class TrainAnomalySettings(AutoencodingSettings):
    """Settings of train-anomaly."""

    data: NormalSetSettings = Field(
        NormalSetSettings(), description="normal images to train on, and anomalies to judge on"
    )
    model: Model = Field(
        ConvSettings(latent=16), description="network architecture; long codes let anomalies pass"
    )
    detector: DetectorSettings = Field(DetectorSettings(), description="error and threshold of an anomaly")


class TrainAnomaly(Autoencoding[TrainAnomalySettings]):
    """Trains an autoencoder of normal images; the bundle's calibration is the threshold of its error."""

    settings_class = TrainAnomalySettings
    headline = (
        "auroc",
        "average_precision",
        "pixel_auroc",
        "aupro",
        "sensitivity",
        "specificity",
        "threshold",
        "above_threshold",
    )
    kind = "anomaly"
    compared_by = ("auroc", "mse")
    trivial: ClassVar[Mapping[str, str]] = {"guessing": "guessing", **Autoencoding.trivial}

    _normal: NDArray[np.int64]
    """Classes of normal images, after the images are selected."""
    _defects: DefectMasks | None
    """Masks of the defects in the images that judge, if there are any."""

    def select(self, image_set: ImageSet) -> ImageSet:
        """Select normal images to train on and to set the threshold; both kinds to judge on, if known."""
        classes = image_set.classes
        self._defects = image_set.defects
        names = self.settings.data.normal or tuple(filter(is_normal_name, classes))
        if unknown := sorted(set(names) - set(classes)):
            raise DataError(
                f"no class is called {', '.join(unknown)}; classes: {', '.join(classes[:20]) or 'none'}",
                where="data.normal",
                hint="name the classes of normal images",
            )
        if not names and len(classes) > 1:
            raise DataError(
                f"which classes are normal? None of {', '.join(classes[:20])} is called "
                f"{', '.join(NORMAL_NAMES)}",
                where="data.normal",
                hint=f"name the normal ones, such as data.normal=[{classes[0]}], or all of them",
            )
        if not names:
            self._normal = np.arange(len(classes))
            return replace(image_set, split=f"{image_set.split}; all images count as normal")
        self._normal = np.array([classes.index(name) for name in names])
        train = self._normal_images(image_set.train)
        val = self._normal_images(image_set.val)
        anomalies = self._anomalies(image_set.val)
        if image_set.val.stored is image_set.train.stored:
            # The seed splits the images: the anomalies of both parts are held out.
            of_training = self._anomalies(image_set.train)
            anomalies = _joined(anomalies, of_training) if len(of_training) else anomalies
        notes = []
        test = image_set.test
        if test is not None and test.labels is None and len(anomalies):
            notes.append(f"; {len(test)} test images without a class do not judge, known anomalies do")
            test = None
        is_drawn = image_set.val.stored is image_set.train.stored
        if test is None and len(anomalies) and is_drawn and len(val) < 2 < len(train):
            # One normal image for the threshold, one to judge.
            kept, moved = hold_out(range(len(train)), (2 - len(val)) / len(train), self.settings.seed)
            train, val = train.select(kept), _joined(val, train.select(moved))
        if test is None and len(anomalies):
            halves = hold_out(range(len(val)), 0.5, self.settings.seed)
            test = _joined(val.select(halves[1]), anomalies)
            val = val.select(halves[0])
        for images, purpose in ((train, "train on"), (val, "set the threshold with"), (test, "judge on")):
            if images is not None and not len(self._normal_images(images)):
                raise DataError(
                    f"no images of the class {', '.join(names)} to {purpose}",
                    where="data.normal",
                    hint="give more images of the class, or raise data.val_share",
                )
        split = f"{image_set.split}{''.join(notes)}; normal: {', '.join(names)}"
        return replace(image_set, train=train, val=val, test=test, split=split)

    def _normal_images(self, images: Images) -> Images:
        """Return the images of normal classes; all images if there are no classes."""
        if images.labels is None:
            return images
        return images.select(np.flatnonzero(np.isin(images.labels, self._normal)))

    def _anomalies(self, images: Images) -> Images:
        """Return the images of other classes; none if there are no classes."""
        if images.labels is None:
            return images.select([])
        return images.select(np.flatnonzero(~np.isin(images.labels, self._normal)))

    def conclude(self, context: EvaluationContext, scores: Sequence[SampleScores]) -> Conclusion:
        """Return the threshold from held-out normal images, its rates on anomalies, and pictures."""
        normal_scores = scores
        if context.part != "val":
            normal_scores = self.validate(replace(context, part="val"), WorkerShare())
        normal_errors = self._errors(normal_scores)
        calibration = self._calibration(normal_errors)
        threshold = calibration["threshold"]
        errors = self._errors(scores)
        is_anomaly = self._is_anomaly(context.part)
        is_normal = np.ones(len(errors), bool) if is_anomaly is None else ~is_anomaly
        normal = [sample.metrics for sample in scores if is_normal[sample.index]]
        metrics = {name: float(np.mean([m[name] for m in normal])) for name in scores[0].metrics}
        metrics |= {"threshold": threshold, "above_threshold": float(np.mean(errors > threshold))}
        groups = {"images": errors}
        if is_anomaly is not None:
            groups = {"normal": errors[is_normal], "anomalies": errors[is_anomaly]}
        warnings = list(self._warnings(normal_errors, is_anomaly))
        pictures = [
            RunPicture(
                "errors",
                "Errors and the threshold",
                draw_distributions({n: e for n, e in groups.items() if len(e)}, threshold, self._error_name),
                f"Images above the threshold are anomalies: {metrics['above_threshold']:.1%} of these.",
            )
        ]
        if is_anomaly is not None and is_anomaly.any():
            metrics |= _rates(is_anomaly, errors)
            metrics["sensitivity"] = float(np.mean(errors[is_anomaly] > threshold))
            metrics["specificity"] = float(np.mean(errors[is_normal] <= threshold))
            judged = self._judged_for_places(context.part)
            if places := self._localise(context, is_anomaly, judged):
                metrics |= places
                if len(judged) < len(errors):
                    warnings.append(
                        f"pixel_auroc and aupro are those of {len(judged)} of {len(errors)} judged images, "
                        f"spread over all: they are limited to {_MOST_PIXELS:,} pixels"
                    )
            pictures.append(
                RunPicture("rates", "Telling anomalies from normal images", draw_rates(is_anomaly, errors))
            )
        pictures += self._example_pictures(context, errors, is_normal, threshold)
        pictures += self._latent_pictures(context, is_anomaly)
        return Conclusion(
            metrics=metrics,
            calibration=calibration,
            pictures=pictures,
            warnings=warnings,
        )

    def _judged_for_places(self, part: Part) -> list[int]:
        """Return the indices of the images whose pixels are judged: all, or as many as the limit allows,
        spread over all."""
        count = len(self.held_out[part].samples)
        return spread_indices(count, max(1, _MOST_PIXELS // (self.shape[1] * self.shape[2])))

    def _localise(
        self, context: EvaluationContext, is_anomaly: NDArray[np.bool_], judged: Sequence[int]
    ) -> dict[str, float]:
        """Return pixel AUROC and AUPRO of the images `judged`, if there are masks of their defects.

        Anomalies without a mask do not count. The error of a pixel is the mean over its channels of the
        absolute (`detector.error=mae`) or squared difference.
        """
        if self._defects is None:
            return {}
        held_out = self.held_out[context.part]
        size = (self.shape[1], self.shape[2])
        fit = self.settings.data.fit if self.settings.data.size is not None else None
        errors, masks = [], []
        for start in range(0, len(judged), _AT_ONCE):
            chosen = judged[start : start + _AT_ONCE]
            originals = [held_out.samples[i][0] for i in chosen]
            pairs = zip(chosen, originals, self.reconstruct(context, originals), strict=True)
            for index, original, reconstruction in pairs:
                mask = self._defects.read(held_out.names[index], size, fit)
                if is_anomaly[index] and mask is None:
                    continue
                difference = np.abs(original.astype(np.float32) - reconstruction)
                if self.settings.detector.error != "mae":
                    difference = np.square(difference)
                errors.append(difference.mean(axis=-1))
                masks.append(mask if mask is not None and is_anomaly[index] else np.zeros(size, bool))
        rates = localise(np.stack(errors), np.stack(masks)) if errors else None
        return {} if rates is None else {"pixel_auroc": rates.auroc, "aupro": rates.aupro}

    def _latent_pictures(
        self, context: EvaluationContext, is_anomaly: NDArray[np.bool_] | None
    ) -> list[RunPicture]:
        samples = self.held_out[context.part].samples
        indices = spread_indices(len(samples), 2000)
        return latent_pictures(
            self.encode(context, [samples[i][0] for i in indices]),
            None if is_anomaly is None else is_anomaly[indices].astype(np.int64),
            ("normal", "anomalies"),
            self.settings.eval.projection,
            self.settings.seed,
        )[:1]

    @property
    def _error_name(self) -> str:
        return "1 - SSIM" if self.settings.detector.error == "ssim" else self.settings.detector.error.upper()

    def _errors(self, scores: Sequence[SampleScores]) -> NDArray[np.float64]:
        """Return the error of each image, by which it is judged."""
        kind = self.settings.detector.error
        if kind == "ssim":
            return np.array([1 - sample.metrics["ssim"] for sample in scores])
        name = "l1" if kind == "mae" else kind
        return np.array([sample.metrics[name] for sample in scores])

    def _is_anomaly(self, part: Part) -> NDArray[np.bool_] | None:
        """Return for each judged image whether it is an anomaly; None if unknown. The images of val are
        normal."""
        held_out = self.held_out[part]
        if held_out.labels is None:
            return None if part == "test" else np.zeros(len(held_out.samples), bool)
        return ~np.isin(held_out.labels, self._normal)

    def _calibration(self, errors: NDArray[np.float64]) -> dict[str, Any]:
        detector = self.settings.detector
        if detector.threshold == "quantile":
            threshold = float(np.quantile(errors, detector.quantile, method="higher"))
        else:
            threshold = float(errors.mean() + detector.deviations * errors.std())
        if not (np.isfinite(threshold) and threshold > 0):
            raise DataError(
                f"the threshold is {threshold:g}, from errors of {errors.min():g} to {errors.max():g}",
                where="detector",
                hint="the threshold must be above 0: check that the normal images are not all of one colour",
            )
        points = (0.5, 0.9, 0.95, 0.99, 1.0)
        return {
            **detector.model_dump(mode="json"),
            "method": detector.threshold,
            "threshold": threshold,
            "threshold_interval": self._threshold_interval(errors).as_json(),
            "normal_images": len(errors),
            "mean": float(errors.mean()),
            "std": float(errors.std()),
            "quantiles": {f"{point:g}": float(np.quantile(errors, point)) for point in points},
        }

    def _threshold_interval(self, errors: NDArray[np.float64]) -> Interval:
        detector = self.settings.detector
        if detector.threshold == "quantile":
            return quantile_interval(errors, detector.quantile)
        return deviations_interval(errors, detector.deviations)

    def _warnings(
        self, normal_errors: NDArray[np.float64], is_anomaly: NDArray[np.bool_] | None
    ) -> list[str]:
        warnings = few_samples_warning(len(normal_errors), "images", self._threshold_interval(normal_errors))
        if is_anomaly is not None and is_anomaly.any():
            normal, anomalies = int((~is_anomaly).sum()), int(is_anomaly.sum())
            if min(normal, anomalies) < _FEW_IMAGES:
                warnings.append(
                    f"auroc, sensitivity and specificity are from {normal} normal images and {anomalies} "
                    "anomalies, too few to trust"
                )
        return warnings

    def _example_pictures(
        self,
        context: EvaluationContext,
        errors: NDArray[np.float64],
        is_normal: NDArray[np.bool_],
        threshold: float,
    ) -> list[RunPicture]:
        """Draw found anomalies, missed anomalies and false alarms, the clearest first."""
        is_above = errors > threshold
        groups = {
            "found": ("Anomalies found", ~is_normal & is_above, -errors),
            "missed": ("Anomalies missed", ~is_normal & ~is_above, errors),
            "suspected": ("Normal images above the threshold", is_normal & is_above, -errors),
        }
        samples = self.held_out[context.part].samples
        pictures = []
        for name, (title, members, order) in groups.items():
            ordered = [int(i) for i in np.argsort(order, kind="stable") if members[i]]
            chosen = ordered[: self.settings.loop.samples]
            if chosen:
                originals = [samples[i][0] for i in chosen]
                captions = [f"{self._error_name} {errors[i]:.4f}, threshold {threshold:.4f}" for i in chosen]
                image = draw_reconstructions(originals, self.reconstruct(context, originals), captions)
                pictures.append(RunPicture(name, title, image))
        return pictures

    def baselines(self) -> dict[str, dict[str, float]]:
        """Return the metrics of the baselines of `Autoencoding` (their error of normal images, and their
        rates on anomalies) and of guessing."""
        is_anomaly = self._is_anomaly(self.judging_part)
        results: dict[str, dict[str, float]] = {}
        for name, errors in self.baseline_errors().items():
            normal = errors if is_anomaly is None else errors[~is_anomaly]
            results[name] = {"mse": float(normal.mean())}
            if is_anomaly is not None and is_anomaly.any():
                results[name] |= _rates(is_anomaly, errors)
        if is_anomaly is not None and is_anomaly.any():
            results["guessing"] = {"auroc": 0.5, "average_precision": float(is_anomaly.mean())}
        return results


def _rates(is_anomaly: NDArray[np.bool_], errors: NDArray[np.float64]) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    return {
        "auroc": float(roc_auc_score(is_anomaly, errors)),
        "average_precision": float(average_precision_score(is_anomaly, errors)),
    }


def _joined(first: Images, second: Images) -> Images:
    """Return both sets joined; they have one origin and labels."""
    assert first.labels is not None
    assert second.labels is not None
    indices = np.concatenate([first.indices, second.indices])
    return Images(first.stored, indices, np.concatenate([first.labels, second.labels]))


TARGET = Training(TrainAnomaly)
