"""The target decompress: images from the codes that `compress` stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from genray.errors import DataError, GenrayError
from genray.images.photo import Photo
from genray.inference.latents import LatentCodec
from genray.io.bad_input import BadImage
from genray.io.store import open_store
from pipelines.engine.target import Bulk
from pipelines.settings import OutputSettings, ReadSettings
from pipelines.steps.autoencoder import AutoencoderStep, AutoencoderStepSettings
from pipelines.steps.base import StepInput, StepPlace, StepResult
from pipelines.storage.output import read_header


class DecompressSettings(AutoencoderStepSettings):
    """Settings of decompress."""

    read: ReadSettings = Field(
        ReadSettings(container="parquet", column="code"), description="reading of the codes"
    )
    write: OutputSettings = Field(OutputSettings(format="png"), description="writing of the images")


class Decompress(AutoencoderStep[DecompressSettings]):
    """Decodes images of the autoencoder's size, with the bundle that compressed them."""

    settings_class = DecompressSettings
    reads_images = False

    def check(self) -> Sequence[str]:
        """See `Step`."""
        lines = super().check()
        header = read_header(open_store(self.settings.input))
        if header is None or header.target != "compress":
            raise DataError(
                f"{self.settings.input} is not an output of compress",
                where="input",
                hint="give the folder that compress wrote to (its setting output), not one inside of it",
            )
        compressed_by = header.identity["bundle"]
        if compressed_by != self.manifest.weights_sha256:
            raise DataError(
                "the codes were made by another bundle",
                where=self.settings.input,
                hint=f"give the bundle whose weights have the checksum {compressed_by[:12]}…; it was "
                f"{header.settings.get('bundle')}",
            )
        return lines

    def output_path(self, path: str) -> str:
        """Return the name of the compressed image, without the name of the Parquet part."""
        return path.split("/", 2)[-1]

    def open(self, place: StepPlace, prepared: Mapping[str, Any]) -> Sequence[str]:
        """See `Step`."""
        header = read_header(open_store(self.settings.input))
        assert header is not None  # the driver checked that it is there
        assert header.prepared is not None
        self._codec = LatentCodec.from_json(header.prepared["codec"])
        return super().open(place, prepared)

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """See `Step`."""
        try:
            codes = self._codec.decode([each.data for each in inputs])
        except (GenrayError, ValueError) as error:
            raise BadImage("truncated", str(error).split("\n")[0]) from error
        return [
            StepResult(photo=Photo(pixels, None, "", None, None, None, None)) for pixels in self.decode(codes)
        ]


TARGET = Bulk(Decompress)
