"""Network of the rhythm model: two small classifiers, one of windows and one of beats."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from genray.settings.base import Settings

WINDOW_CLASSES = ("other", "ventricular-tachycardia", "ventricular-fibrillation")
"""Rhythms of a window; ventricular flutter counts as fibrillation."""
FARTHEST = 4.0
"""Standard deviations beyond which a feature counts no more."""


class RhythmSettings(Settings):
    """Settings of the rhythm network."""

    kind: Literal["rhythm"] = Field("rhythm", description="a classifier of windows and one of beats")
    units: int = Field(16, ge=1, le=1024, description="units of the hidden layer of each classifier")


class Classifier(nn.Module):
    """Features (N, features) -> logits (N, classes), with one hidden layer.

    Args:
        features: number of features.
        units: units of the hidden layer.
        classes: number of classes.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, features: int, units: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.hidden = nn.Linear(features, units)
        self.output = nn.Linear(units, classes)

    def normalise_as(self, features: NDArray[np.floating]) -> None:
        """Take mean and standard deviation of `features` (N, features) for the normalisation."""
        self.mean.copy_(torch.from_numpy(features.mean(axis=0)))
        self.scale.copy_(torch.from_numpy(features.std(axis=0) + 1e-4))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        scaled = ((features - self.mean) / self.scale).clamp(-FARTHEST, FARTHEST)
        logits: torch.Tensor = self.output(torch.tanh(self.hidden(scaled)))
        return logits


class RhythmNetwork(nn.Module):
    """Classifier of windows (see `genray.ecg.rhythm`) and of beats (see `genray.ecg.ventricular`).

    Args:
        windows: features of a window.
        beats: features of a beat.
        settings: sizes.
    """

    def __init__(self, windows: int, beats: int, settings: RhythmSettings) -> None:
        super().__init__()
        self.features = (windows, beats)
        self.windows = Classifier(windows, settings.units, len(WINDOW_CLASSES))
        self.beats = Classifier(beats, settings.units, 1)

    def forward(self, windows: torch.Tensor, beats: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits of windows (N, 3) and of beats (M, 1)."""
        return self.windows(windows), self.beats(beats)
