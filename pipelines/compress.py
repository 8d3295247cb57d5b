"""The target compress: every image as entropy-coded latents of an autoencoder, compared with JPEG and
WebP."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from genray.bundle_places import bundle_folder
from genray.images.photo import Photo
from genray.inference.latents import LatentCodec, LatentSettings
from genray.report.page import png
from pipelines.engine.target import Bulk
from pipelines.steps.autoencoder import AutoencoderStep, AutoencoderStepSettings
from pipelines.steps.base import ImageScores, StepInput, StepPlace, StepResult
from pipelines.steps.pixels import PixelArray, mean_squared_error
from pipelines.steps.rate_distortion import (
    COLUMNS,
    CodedImage,
    describe,
    draw_rate_distortion,
    rate_distortion,
    table_rows,
)

_TABLE_STEPS = (0.1, 0.25, 0.5, 1.0)  # quantisation steps at which JPEG and WebP are compared


class CompressSettings(AutoencoderStepSettings):
    """Settings of compress."""

    compress: LatentSettings = Field(LatentSettings(), description="quantisation of the codes")


class Compress(AutoencoderStep[CompressSettings]):
    """Writes `codes/part-*.parquet` with `path`, `code` (bytes), `width` and `height` of the original.

    The codec is fitted to a sample of the inputs, once for an output, and stored in the run's header with a
    table of the quality of JPEG and WebP at the same sizes. `decompress` reads the codec from there.
    """

    settings_class = CompressSettings
    table = "codes"
    writes_images = False

    def schema(self) -> pa.Schema:
        """See `Step`."""
        return pa.schema([("code", pa.binary()), ("width", pa.int32()), ("height", pa.int32())])

    def prepare(self, sample: Sequence[Photo], model_folder: Path) -> Mapping[str, Any]:
        """Fit the codec, and compare it with JPEG and WebP; see `Step`."""
        super().open(StepPlace(1, False, model_folder), {})
        images = np.stack([self.fitted(photo) for photo in sample])
        codes = self.encode(images)
        codec = LatentCodec.fit(codes, self.settings.compress)
        points = rate_distortion(list(images), self._coded_images(codes), decoder=self._decoder_bytes())
        verdict = describe(points)
        table = {
            "title": "Quality at the same size",
            "columns": list(COLUMNS),
            "rows": [[str(cell) for cell in row] for row in table_rows(points)],
            "note": " ".join(verdict),
        }
        picture = {
            "title": "Rate and distortion",
            "png_base64": base64.b64encode(png(draw_rate_distortion(points))).decode(),
            "caption": f"a sample of {len(images)} images",
        }
        return {"codec": codec.to_json(), "tables": [table], "pictures": [picture], "notes": verdict[:1]}

    def open(self, place: StepPlace, prepared: Mapping[str, Any]) -> Sequence[str]:
        """See `Step`."""
        self._codec = LatentCodec.from_json(prepared["codec"])
        return super().open(place, prepared)

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        before = self.network_batch(inputs)
        blobs = self._codec.encode(self.encode(before))
        after = self.decode(self._codec.decode(blobs))
        return [
            StepResult(
                row={"code": blob, **_size_columns(each.photo.pixels)},
                scores=ImageScores(error=mean_squared_error(original, decoded)),
            )
            for each, blob, original, decoded in zip(inputs, blobs, before, after, strict=True)
        ]

    def _coded_images(self, codes: NDArray[np.float32]) -> dict[str, list[CodedImage]]:
        """Return the coded sample at each quantisation step of the table, and at the chosen one."""
        coded = {}
        for step in sorted({*_TABLE_STEPS, self.settings.compress.step}):
            codec = LatentCodec.fit(codes, LatentSettings(step=step))
            blobs = codec.encode(codes)
            images = self.decode(codec.decode(blobs))
            coded[f"step {step:g}"] = [
                CodedImage(len(blob), image) for blob, image in zip(blobs, images, strict=True)
            ]
        return coded

    def _decoder_bytes(self) -> int:
        return (bundle_folder(self.settings.bundle) / self.manifest.weights).stat().st_size


def _size_columns(pixels: PixelArray) -> dict[str, int]:
    return {"width": pixels.shape[1], "height": pixels.shape[0]}


TARGET = Bulk(Compress)
