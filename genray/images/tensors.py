"""Conversion between uint8 images in arrays and float images in networks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

ValueRange = tuple[float, float]
"""The values of black and of white in a network."""


def to_network(
    images: NDArray[np.uint8], device: torch.device | str = "cpu", span: ValueRange = (-1.0, 1.0)
) -> torch.Tensor:
    """Convert (N, H, W, C) uint8 to (N, C, H, W) float32 in `span` on `device`, in the channels-last layout.

    The images are copied to the device as bytes, a quarter of the size of floats; to a GPU from pinned
    memory, so that the copy does not block the CPU.
    """
    tensor = torch.from_numpy(np.require(images, requirements=["C", "W"]))
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    tensor = tensor.to(device, non_blocking=True).permute(0, 3, 1, 2)
    low, high = span
    return tensor.float().div_(255.0 / (high - low)).add_(low)


def to_unit(images: torch.Tensor, span: ValueRange = (-1.0, 1.0)) -> torch.Tensor:
    """Scale values from `span` to [0, 1], and clamp them; any shape."""
    low, high = span
    return images.float().sub(low).div(high - low).clamp(0.0, 1.0)


def to_pixels(images: torch.Tensor, span: ValueRange = (-1.0, 1.0)) -> NDArray[np.uint8]:
    """Convert (N, C, H, W) in `span` to (N, H, W, C) uint8, rounded."""
    levels = to_unit(images.detach(), span).mul(255.0).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
