"""Between uint8 images in arrays and float images in networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from genray.io.files import atomic_write

ValueRange = tuple[float, float]  # the values of black and white in a network


def to_network(
    images: NDArray[np.uint8], device: torch.device | str = "cpu", span: ValueRange = (-1.0, 1.0)
) -> torch.Tensor:
    """(N, H, W, C) uint8 -> (N, C, H, W) float32 in `span` on `device`, laid out channels last.

    Bytes travel, floats do not; to a GPU from pinned memory, so that nothing waits for them.
    """
    tensor = torch.from_numpy(np.require(images, requirements=["C", "W"]))
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    tensor = tensor.to(device, non_blocking=True).permute(0, 3, 1, 2)
    low, high = span
    return tensor.float().div_(255.0 / (high - low)).add_(low)


def to_unit(images: torch.Tensor, span: ValueRange = (-1.0, 1.0)) -> torch.Tensor:
    """`span` -> [0, 1], clamped; any shape."""
    low, high = span
    return images.float().sub(low).div(high - low).clamp(0.0, 1.0)


def to_pixels(images: torch.Tensor, span: ValueRange = (-1.0, 1.0)) -> NDArray[np.uint8]:
    """(N, C, H, W) in `span` -> (N, H, W, C) uint8, rounded."""
    array = to_unit(images.detach(), span).mul(255.0).round().to(torch.uint8)
    return array.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def grid(
    rows: Sequence[Sequence[NDArray[np.uint8]]], titles: Sequence[str] = (), gap: int = 4
) -> NDArray[np.uint8]:
    """Lay images, (H, W, 1, 3 or 4) uint8 of one height and width, out in rows on white.

    Returns:
        (height, width, 3) uint8, with `titles` over the columns.
    """
    height, width = rows[0][0].shape[:2]
    columns, head = max(len(row) for row in rows), 16 if titles else 0
    shape = (head + len(rows) * (height + gap) + gap, columns * (width + gap) + gap, 3)
    canvas = np.full(shape, 255, dtype=np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            top, left = head + gap + r * (height + gap), gap + c * (width + gap)
            canvas[top : top + height, left : left + width] = image[..., :3]  # gray spreads over RGB
    if not titles:
        return canvas
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for c, title in enumerate(titles):
        draw.text((gap + c * (width + gap), 3), title, fill="black", font=ImageFont.load_default(11))
    return np.array(picture)


def save_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 to `path`, atomically, compressed lightly: a third of the default's time."""
    with atomic_write(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", compress_level=1)
