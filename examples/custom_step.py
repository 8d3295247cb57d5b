"""Run a step of your own over a store; the engine reads, decodes, encodes, writes and records.

python examples/custom_step.py photos gray
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from cluster.resources import local_resources
from genray.progress import LineDisplay
from genray.settings.base import Settings
from pipelines.engine.target import Bulk
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step, StepInput, StepPlace, StepResult
from pipelines.steps.pixels import with_pixels


class InvertSettings(Settings):
    """Settings of the inversion."""

    below: int = Field(255, ge=0, le=255, description="largest value that is inverted")


class InvertImagesSettings(BulkSettings):
    """Settings of the target."""

    invert: InvertSettings = Field(InvertSettings(), description="settings of the inversion")


class Invert(Step[InvertImagesSettings]):
    """Turns black into white."""

    settings_class = InvertImagesSettings
    can_use_gpu = False

    def check(self) -> Sequence[str]:
        """Say what will be done."""
        return [f"inverts values up to {self.settings.invert.below}"]

    def open(self, place: StepPlace, prepared: Mapping[str, Any]) -> Sequence[str]:
        """There is no model to load."""
        return []

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        """Invert images, which come in groups of one shape."""
        return [StepResult(photo=with_pixels(image.photo, self._inverted(image))) for image in inputs]

    def _inverted(self, image: StepInput) -> np.ndarray:
        pixels = image.photo.pixels
        white = np.iinfo(pixels.dtype).max
        return np.where(pixels <= self.settings.invert.below / 255 * white, white - pixels, pixels)


def main(source: str, output: str) -> None:
    """Invert the images of the store `source`."""
    settings = InvertImagesSettings(input=source, output=output)
    prepared = Bulk(Invert).prepare(settings, "invert", None, print)
    outcome = prepared.run(LineDisplay(), local_resources(), attached=False)
    for name, value in outcome.rows():
        print(f"{name}: {value}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
