"""What a network of beats takes, as its bundle stores it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from genray.ecg.beats import BeatSettings, normalised
from genray.errors import BundleMismatch


class BeatPreprocessing(BaseModel):
    """What has to be done to a lead of an ECG before the network: which stretch around an R peak is a beat,
    and how its values become those that the network knows."""

    model_config = ConfigDict(frozen=True)
    before: float | None = Field(None, gt=0, le=1, description="seconds of a beat before its R peak")
    after: float | None = Field(
        None, gt=0, le=2, description="seconds of a beat after its R peak; of rows of a table nobody knows"
    )
    samples: int = Field(ge=16, le=1024, description="that a beat is resampled to")
    normalisation: Literal["zscore", "minmax"] = Field(
        description="zscore: each beat has mean 0 and standard deviation 1; minmax: `span` becomes 0 to 1"
    )
    span: tuple[float, float] | None = Field(None, description="the values that become 0 and 1, for minmax")
    leads: tuple[str, ...] = Field((), description="that it was trained on; empty if the data did not say")

    @property
    def window(self) -> tuple[float, float] | None:
        """Seconds before and after the R peak; None if nobody knows where it is."""
        return None if self.before is None or self.after is None else (self.before, self.after)

    @property
    def beat(self) -> BeatSettings:
        """What a beat is, for `genray.ecg.beats.cut_beats`.

        Raises:
            BundleMismatch: nobody knows where its R peak is.
        """
        if self.window is None:
            raise BundleMismatch(
                "the network was trained on rows of a table, which do not say where the R peak of a beat is",
                hint="to cut beats from an ECG train on records: genray submit train-ecg with WFDB or EDF "
                "files as data.path",
            )
        before, after = self.window
        return BeatSettings(before=before, after=after, samples=self.samples)

    def normalised(self, beats: NDArray[np.floating]) -> NDArray[np.float32]:
        """Beats (..., samples) in mV, or whatever unit it was trained on, as the network takes them."""
        if self.span is None:
            return normalised(beats)
        low, high = self.span
        scaled = (beats - low) / (high - low)
        return scaled.clip(-_FARTHEST, _FARTHEST).astype(np.float32)


_FARTHEST = 1e9  # squares of errors are still float32
