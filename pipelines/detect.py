"""The target detect: images that an anomaly bundle reconstructs badly, and heat maps of their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from genray.errors import SettingsError
from genray.images.metrics import image_metrics
from genray.images.photo import Photo
from genray.images.tensors import to_network
from genray.report.pictures import draw_heat_map
from genray.settings.base import Settings
from pipelines.engine.target import Bulk
from pipelines.steps.autoencoder import AutoencoderStep, AutoencoderStepSettings, error_limit
from pipelines.steps.base import ImageScores, StepInput, StepResult
from pipelines.steps.pixels import PixelArray, without_metadata


class DetectionSettings(Settings):
    """Settings of the threshold and the heat maps."""

    heat_maps: Literal["anomalies", "all", "none"] = Field(
        "anomalies", description="heat maps of the error to write, as files beside the table"
    )
    threshold: float | None = Field(
        None,
        gt=0,
        description="error above which an image is an anomaly (null: the bundle's calibrated threshold)",
    )


class DetectSettings(AutoencoderStepSettings):
    """Settings of detect."""

    detect: DetectionSettings = Field(DetectionSettings(), description="threshold and heat maps")


class Detect(AutoencoderStep[DetectSettings]):
    """Writes `detections/part-*.parquet` (path, error, score = error / threshold, anomaly), heat maps to
    `heat/`."""

    settings_class = DetectSettings
    bundle_kinds = ("anomaly",)
    table = "detections"

    def check(self) -> Sequence[str]:
        """See `Step`."""
        lines = super().check()
        if "threshold" not in self.manifest.calibration and self.settings.detect.threshold is None:
            raise SettingsError(
                "the bundle has no calibrated threshold",
                where=f"bundle: {self.settings.bundle}",
                hint="give a bundle made by train-anomaly, or set detect.threshold",
            )
        return [
            *lines,
            f"anomalies are images with an error ({self._error_kind}) above {self._threshold:.6g}",
        ]

    @property
    def draws(self) -> bool:
        """See `AutoencoderStep`."""
        return self.settings.detect.heat_maps != "none"

    @property
    def keeps_samples(self) -> bool:
        """See `Step`: heat maps replace no image."""
        return False

    def schema(self) -> pa.Schema:
        """See `Step`."""
        return pa.schema([("error", pa.float32()), ("score", pa.float32()), ("anomaly", pa.bool_())])

    def prepare(self, sample: Sequence[Photo], model_folder: Path) -> Mapping[str, Any]:
        """See `Step`."""
        return error_limit(self.manifest.calibration)

    def output_path(self, path: str) -> str:
        """Return the name of the heat map; see `Step`."""
        return f"heat/{path}"

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        before = self.network_batch(inputs)
        after = self.decode(self.encode(before))
        return [
            self._detected(each.photo, original, decoded)
            for each, original, decoded in zip(inputs, before, after, strict=True)
        ]

    def _detected(self, photo: Photo, before: PixelArray, after: PixelArray) -> StepResult:
        error = image_error(before, after, self._error_kind)
        score = error / self._threshold
        is_anomaly = score > 1
        wanted = self.settings.detect.heat_maps
        is_drawn = wanted == "all" or (wanted == "anomalies" and is_anomaly)
        return StepResult(
            photo=without_metadata(photo, draw_heat_map(before, after)) if is_drawn else None,
            row={"error": error, "score": score, "anomaly": is_anomaly},
            scores=ImageScores(error=error, score=score),
        )

    @property
    def _error_kind(self) -> str:
        return str(self.manifest.calibration.get("error", "mse"))

    @property
    def _threshold(self) -> float:
        return float(self.settings.detect.threshold or self.manifest.calibration["threshold"])


def image_error(before: PixelArray, after: PixelArray, kind: str) -> float:
    """Return the error of a reconstruction, (H, W, C) uint8 each, as in `train-anomaly`: mse, mae or ssim."""
    if kind == "ssim":
        pair = [to_network(image[None], span=(0.0, 1.0)) for image in (after, before)]
        with torch.inference_mode():
            return 1 - float(image_metrics(*pair)["ssim"][0])
    difference = (before.astype(np.float32) - after) / 255
    return float(np.mean(np.abs(difference) if kind == "mae" else np.square(difference)))


TARGET = Bulk(Detect)
