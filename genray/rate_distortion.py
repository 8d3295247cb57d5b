"""How many bytes for how good an image: compressed codes beside JPEG and WebP of the same sizes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image

from genray.charts import draw_tradeoff
from genray.metrics import image_metrics

Pixels = NDArray[np.uint8]
Coded = tuple[Sequence[int], Sequence[Pixels]]
"""Of each image the bytes it takes, and what comes back, in the shape of the original."""

_SMALLEST = 8  # pixels of a side, for SSIM
_EQUAL = 0.05  # dB that are no difference


@dataclass(frozen=True)
class Row:
    """How one codec does at one size."""

    point: str
    """The label of the codes whose sizes it was held to."""
    codec: str
    """"latents", or a key of the old codecs."""
    size: float
    """Mean bytes of an image, without the decoder."""
    bits_per_pixel: float
    psnr: float
    """Mean over the images, dB."""
    ssim: float
    too_large: int
    """Images for which its lowest quality takes more bytes than the codes. They count with that size."""
    images: int
    decoder: int
    """Bytes of the decoder, once for all images."""


@dataclass(frozen=True)
class _Codec:
    lowest: int
    encode: Callable[[Pixels, int], bytes]
    """Of a quality up to 100."""
    count: Callable[[bytes], int]
    """The bytes that it is charged for."""


def rate_distortion(
    originals: Sequence[Pixels], points: Mapping[str, Coded], *, decoder: int
) -> list[Row]:
    """Rows for every point: the codes, and each old codec at the quality, chosen for each image, whose size comes
    closest to that of the image's code from below.

    JPEG counts twice: as a file, with Huffman tables made for the image, and by its scan alone, with the tables
    of the standard: those, and the rest of the header, a store of many such images would keep once. WebP's
    encoder takes all the time that it can (method 6). Both keep colour at half the size (4:2:0), which is
    best at few bytes.

    Args:
        originals: (H, W, 1 or 3) each, H and W at least 8.
        points: by label, such as one for each step of a `LatentCodec`.
        decoder: bytes of what turns codes into images, such as those of a bundle.

    Raises:
        ValueError: no images, too small ones, or sizes and images that do not go with the originals.
    """
    _check(originals, points)
    pixels = sum(image.shape[0] * image.shape[1] for image in originals)
    rows: dict[str, list[Row]] = {label: [] for label in points}

    def add(point: str, codec: str, coded: Coded, too_large: int, decoder: int) -> None:
        sizes, images = coded
        psnr, ssim = _quality(originals, images)
        total = sum(sizes)
        rows[point].append(
            Row(
                point,
                codec,
                total / len(sizes),
                8 * total / pixels,
                psnr,
                ssim,
                too_large,
                len(sizes),
                decoder,
            )
        )

    for label, coded in points.items():
        add(label, "latents", coded, 0, decoder)
    for name, codec in _CODECS.items():
        found: dict[str, list[tuple[int, Pixels]]] = {label: [] for label in points}
        for number, image in enumerate(originals):
            encode = cache(lambda quality, image=image, codec=codec: codec.encode(image, quality))
            for label, (sizes, _) in points.items():
                data = encode(_best(codec, encode, sizes[number]))
                found[label].append((codec.count(data), _decoded(data, image.shape[2])))
        for label, (budgets, _) in points.items():
            sizes, images = zip(*found[label], strict=True)
            over = sum(size > budget for size, budget in zip(sizes, budgets, strict=True))
            add(label, name, (sizes, images), over, 0)
    return [row for label in points for row in rows[label]]
