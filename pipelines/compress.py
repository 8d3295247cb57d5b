"""Compress: every image as the entropy-coded latents of an autoencoder, beside what JPEG and WebP need."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from genray.images.photo import Photo
from genray.inference.latents import LatentCodec, LatentSettings
from genray.report.page import png
from pipelines.engine.target import Bulk
from pipelines.reconstruct import mse
from pipelines.steps.autoencoder import AutoencoderStep, AutoencoderStepSettings
from pipelines.steps.base import StepInput, StepPlace, StepResult
from pipelines.steps.bundle import PixelArray
from pipelines.steps.rate_distortion import COLUMNS, cells, draw_rate_distortion, rate_distortion, verdict

_STEPS = (0.1, 0.25, 0.5, 1.0)  # of the table


class CompressSettings(AutoencoderStepSettings):
    """Settings of compress."""

    compress: LatentSettings = Field(LatentSettings(), description="the code")


class Compress(AutoencoderStep[CompressSettings]):
    """`codes/part-*.parquet` with `path`, `code` (bytes), `width` and `height` of the original.

    The codec is fitted to a sample of the inputs, once for an output, and kept in the run's header with a
    table of what the same bytes are worth as JPEG and WebP. `decompress` reads both.
    """

    settings_class = CompressSettings
    table = "codes"

    def schema(self) -> pa.Schema:
        """See `Step`."""
        return pa.schema([("code", pa.binary()), ("width", pa.int32()), ("height", pa.int32())])

    def prepare(self, sample: Sequence[Photo], model: Path) -> Mapping[str, Any]:
        """See `Step`: fit the codec, and compare it with the old ones."""
        super().open(StepPlace(1, False, model), {})
        images = np.stack([self.fitted(photo) for photo in sample])
        codes = self.codes(images)
        chosen = LatentCodec.fit(codes, self.settings.compress)
        points = {}
        for step in sorted({*_STEPS, self.settings.compress.step}):
            codec = LatentCodec.fit(codes, LatentSettings(step=step))
            blobs = codec.encode(codes)
            points[f"step {step:g}"] = [len(blob) for blob in blobs], list(self.decoded(codec.decode(blobs)))
        weights = Path(self.settings.bundle) / self.manifest.weights
        rows = rate_distortion(list(images), points, decoder=weights.stat().st_size)
        said = verdict(rows)
        table = {
            "title": "What the same bytes are worth",
            "columns": list(COLUMNS),
            "rows": [[str(cell) for cell in row] for row in cells(rows)],
            "note": " ".join(said),
        }
        picture = base64.b64encode(png(draw_rate_distortion(rows))).decode()
        drawn = {
            "title": "Rate and distortion",
            "png_base64": picture,
            "caption": f"{len(images)} of the images",
        }
        return {"codec": chosen.to_json(), "tables": [table], "pictures": [drawn], "notes": said[:1]}

    def open(self, place: StepPlace, header: Mapping[str, Any]) -> Sequence[str]:
        """See `Step`."""
        self._codec = LatentCodec.from_json(header["codec"])
        return super().open(place, header)

    def make(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        seen = self.seen_by(inputs)
        blobs = self._codec.encode(self.codes(seen))
        made = self.decoded(self._codec.decode(blobs))
        return [
            StepResult(row={"code": blob, **_size(each.photo.pixels)}, values={"error": mse(before, after)})
            for each, blob, before, after in zip(inputs, blobs, seen, made, strict=True)
        ]


def _size(pixels: PixelArray) -> dict[str, int]:
    return {"width": pixels.shape[1], "height": pixels.shape[0]}


TARGET = Bulk(Compress)
