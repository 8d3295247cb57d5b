"""How far the reconstruction of a beat is from it."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from genray.settings.base import Settings


class BeatLossSettings(Settings):
    """Settings of the loss."""

    kind: Literal["mse", "mae"] = Field("mse", description="what is minimised, and what beats are judged by")
    noise: float = Field(
        0.0, ge=0, le=10, description="deviation of noise that the network has to take away while it learns"
    )


def beat_errors(kind: Literal["mse", "mae"], made: torch.Tensor, beats: torch.Tensor) -> torch.Tensor:
    """The mean squared or absolute error of each beat, (N,) float32.

    Args:
        kind: which.
        made: (N, 1, samples), or (members, N, 1, samples) of several networks: then the mean of their errors.
        beats: (N, 1, samples).
    """
    difference = made.float() - beats
    errors = (difference.square() if kind == "mse" else difference.abs()).mean(dim=(-2, -1))
    return errors.mean(dim=0) if errors.ndim == 2 else errors
