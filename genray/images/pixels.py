"""The type of images in arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""(H, W, C) uint8; C is 1 (gray), 3 (RGB) or 4 (RGBA)."""
