"""Compress: every image as the entropy-coded latents of an autoencoder, beside what JPEG and WebP need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from genray.data.photo import Photo
from genray.latents import LatentCodec
from genray.rate_distortion import rate_distortion
from genray.settings import Settings
from pipelines.bundle_step import Pixels
from pipelines.coding import Coding, CodingSettings
from pipelines.engine import Bulk
from pipelines.reconstruct import mse
from pipelines.step import Input, Made, Place

_STEPS = (0.1, 0.25, 0.5, 1.0)  # of the table
_SAMPLE = 48


class CompressionSettings(Settings):
    """Settings of the code."""

    step: float = Field(
        0.25,
        gt=0,
        le=4,
        description="quantisation, in standard deviations of each latent: smaller is finer and longer",
    )


class CompressSettings(CodingSettings):
    """Settings of compress."""

    compress: CompressionSettings = Field(CompressionSettings(), description="the code")


class Compress(Coding[CompressSettings]):
    """`codes/part-*.parquet` with `path`, `code` (bytes), `width` and `height` of the original.

    The codec is fitted to a sample of the inputs, once for an output, and kept in the run's header with a table
    of what the same bytes are worth as JPEG and WebP. `decompress` reads both.
    """

    settings_class = CompressSettings
    table = "codes"

    def schema(self) -> pa.Schema:
        """See `Step`."""
        return pa.schema([("code", pa.binary()), ("width", pa.int32()), ("height", pa.int32())])

    def prepare(self, sample: Sequence[Photo], model: Path) -> Mapping[str, Any]:
        """See `Step`: fit the codec, and compare it with the old ones."""
        super().open(Place(1, False, model), {})
        images = np.stack([self.fitted(photo) for photo in sample])
        codes = self.codes(images)
        chosen = LatentCodec.fit(codes, step=self.settings.compress.step)
        points = {}
        for step in sorted({*_STEPS, self.settings.compress.step}):
            codec = LatentCodec.fit(codes, step=step)
            blobs = codec.encode(codes[:_SAMPLE])
            points[f"latents, step {step:g}"] = (
                [len(blob) for blob in blobs],
                list(self.decoded(codec.decode(blobs))),
            )
        weights = Path(self.settings.bundle) / self.manifest.weights
        table = rate_distortion(list(images[:_SAMPLE]), points, decoder_bytes=weights.stat().st_size)
        return {"codec": chosen.to_json(), "tables": [table], "notes": [table["note"]]}

    def open(self, place: Place, header: Mapping[str, Any]) -> Sequence[str]:
        """See `Step`."""
        self._codec = LatentCodec.from_json(header["codec"])
        return super().open(place, header)

    def make(self, inputs: Sequence[Input]) -> Sequence[Made]:
        """See `Step`."""
        seen = self.seen(inputs)
        blobs = self._codec.encode(self.codes(seen))
        made = self.decoded(self._codec.decode(blobs))
        return [
            Made(row={"code": blob, **_size(each.photo.pixels)}, values={"error": mse(before, after)})
            for each, blob, before, after in zip(inputs, blobs, seen, made, strict=True)
        ]


def _size(pixels: Pixels) -> dict[str, int]:
    return {"width": pixels.shape[1], "height": pixels.shape[0]}


TARGET = Bulk(Compress)
