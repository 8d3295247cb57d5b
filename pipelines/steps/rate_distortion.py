"""How many bytes for how good an image: compressed codes beside JPEG and WebP of the same sizes."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from genray.images.metrics import image_metrics
from genray.images.pixels import Pixels
from genray.report.charts import draw_tradeoff

Coded = tuple[Sequence[int], Sequence[Pixels]]
"""Of each image the bytes that it takes, and what comes back, in the shape of the original."""

LATENTS = "latents"
COLUMNS = ("point", "codec", "bytes", "bits per pixel", "PSNR", "SSIM", "larger", "decoder bytes")
_SMALLEST = 8  # pixels of a side, for SSIM
_EQUAL = 0.05  # dB that are no difference
_HIGHEST = 100  # quality
_BATCH = 8


@dataclass(frozen=True)
class RatePoint:
    """How good one codec is at one size."""

    point: str
    """The label of the codes to whose sizes it was held."""
    codec: str
    """`LATENTS`, or one of the old: JPEG, JPEG without headers, WebP and the latter two shrunk."""
    size: float
    """Mean bytes of an image, without the decoder."""
    bits_per_pixel: float
    psnr: float
    """Mean over the images, in dB."""
    ssim: float
    larger: int
    """Images whose lowest quality takes more bytes than the code does; they count with those bytes."""
    images: int
    decoder: int
    """Bytes of the decoder, once for all images."""


def rate_distortion(
    originals: Sequence[Pixels], points: Mapping[str, Coded], *, decoder: int
) -> list[RatePoint]:
    """For every point a row of the codes, and one of each old codec at the same bytes: of each image that
    quality whose size comes closest to its code's from below.

    JPEG counts twice: as a file, with Huffman tables made for the image, and by its scan alone, with the
    standard's tables, because many such images could share all the rest. WebP is given all the time that it
    can use (method 6). Both have colour at half the size (4:2:0), which is best at few bytes, and are tried
    too on the image shrunk 2, 4 or 8 times, whichever is best: at very few bytes nobody would do otherwise.

    Args:
        originals: each (H, W, 1 or 3), H and W at least 8.
        points: by label, such as one for each step of a `LatentCodec`.
        decoder: bytes of what turns codes into images, such as a bundle's.

    Raises:
        ValueError: no images or points, images too small, or codes that do not go with the originals.
    """
    _check(originals, points)
    rows = []
    coded = {LATENTS: points} | {name: codec.match(originals, points) for name, codec in _OLD.items()}
    pixels = sum(image.shape[0] * image.shape[1] for image in originals)
    for label, (budgets, _) in points.items():
        for name, found in coded.items():
            sizes, images = found[label]
            psnr, ssim = _quality(originals, images)
            rows.append(
                RatePoint(
                    point=label,
                    codec=name,
                    size=sum(sizes) / len(sizes),
                    bits_per_pixel=8 * sum(sizes) / pixels,
                    psnr=psnr,
                    ssim=ssim,
                    larger=sum(size > budget for size, budget in zip(sizes, budgets, strict=True)),
                    images=len(originals),
                    decoder=decoder if name == LATENTS else 0,
                )
            )
    return rows


def cells(rows: Sequence[RatePoint]) -> list[list[str | float]]:
    """The rows for a table with `COLUMNS`."""
    return [
        [
            row.point,
            row.codec,
            round(row.size, 1),
            round(row.bits_per_pixel, 3),
            round(row.psnr, 2),
            round(row.ssim, 4),
            f"{row.larger} of {row.images}" if row.larger else "",
            row.decoder,
        ]
        for row in rows
    ]


def verdict(rows: Sequence[RatePoint]) -> list[str]:
    """What the rows say: how often the codes lose, a sentence for each point, and one about the decoder.

    The better codec is that of higher PSNR among those that can be as small as the codes; the others are
    named with their smallest sizes.
    """
    labels = list(dict.fromkeys(row.point for row in rows))
    sentences, lost = [], 0
    for label in labels:
        ours, *old = [row for row in rows if row.point == label]
        parts = [_larger(row, ours) for row in old if row.larger]
        fitting = [row for row in old if not row.larger]
        if fitting:
            best = max(fitting, key=lambda row: row.psnr)
            gain = best.psnr - ours.psnr
            lost += gain >= _EQUAL
            parts.insert(0, _compared(best.codec, gain))
        sentences.append(f"{label}, {ours.size:.0f} bytes: {'; '.join(parts)}.")
    ours = rows[0]
    return [
        f"An old codec is better than the codes at {lost} of {len(labels)} sizes, the decoder not counted.",
        *sentences,
        f"The decoder takes {ours.decoder:,} bytes once, as many as the codes of "
        f"{ours.decoder / max(1.0, ours.size):,.0f} images ({ours.point}).",
    ]


def draw_rate_distortion(rows: Sequence[RatePoint]) -> Pixels:
    """PSNR over bits per pixel, a curve for each codec, (H, W, 3). Decoders are not counted."""
    curves: dict[str, list[tuple[float | str, float]]] = defaultdict(list)
    for row in rows:
        curves[row.codec].append((row.bits_per_pixel, row.psnr))
    return draw_tradeoff(curves, "bits per pixel, without the decoder", "PSNR in dB", joined=True)


@dataclass(frozen=True)
class _Codec:
    lowest: int
    """Quality; the highest is 100."""
    encode: Callable[[Pixels, int], bytes]
    charge: Callable[[bytes], int]
    """The bytes that count, of those that `encode` gives."""
    shrunk: tuple[int, ...] = (1,)
    """By how much the image may be made smaller before it is encoded, and larger afterwards."""

    def match(self, originals: Sequence[Pixels], points: Mapping[str, Coded]) -> dict[str, Coded]:
        found: dict[str, tuple[list[int], list[Pixels]]] = {label: ([], []) for label in points}
        for number, image in enumerate(originals):
            small = {times: _shrunk(image, times) for times in self.shrunk}
            known: dict[tuple[int, int], bytes] = {}
            for label, (budgets, _) in points.items():
                budget = budgets[number]
                tried = []
                for times in self.shrunk:
                    data = self._closest(small[times], times, budget, known)
                    tried.append((self.charge(data), _decoded(data, image)))
                fitting = [one for one in tried if one[0] <= budget] or [min(tried, key=lambda one: one[0])]
                size, back = min(fitting, key=lambda one: _squared_error(one[1], image))
                found[label][0].append(size)
                found[label][1].append(back)
        return dict(found)

    def _closest(self, image: Pixels, times: int, budget: int, known: dict[tuple[int, int], bytes]) -> bytes:
        """By bisection; `known` keeps what was encoded for other budgets."""

        def encoded(quality: int) -> bytes:
            if (times, quality) not in known:
                known[times, quality] = self.encode(image, quality)
            return known[times, quality]

        fits, above = self.lowest, _HIGHEST + 1
        if self.charge(encoded(fits)) > budget:
            return encoded(fits)
        while above - fits > 1:
            middle = (fits + above) // 2
            if self.charge(encoded(middle)) <= budget:
                fits = middle
            else:
                above = middle
        return encoded(fits)


def _compared(codec: str, gain: float) -> str:
    if abs(gain) < _EQUAL:
        return f"{codec} is as good as the codes"
    if gain > 0:
        return f"{codec} beats the codes by {gain:.1f} dB"
    return f"the codes beat {codec}, the best of the others, by {-gain:.1f} dB"


def _larger(row: RatePoint, ours: RatePoint) -> str:
    which = "" if row.larger == row.images else f" for {row.larger} of {row.images} images"
    gain = row.psnr - ours.psnr
    better = f"{abs(gain):.1f} dB {'better' if gain > 0 else 'worse'}"
    return f"{row.codec} cannot be as small{which}: {row.size:.0f} bytes, {better}"


def _saved(image: Pixels, kind: str, **how: int | bool | str) -> bytes:
    buffer = io.BytesIO()
    _picture(image).save(buffer, kind, **how)
    return buffer.getvalue()


def _decoded(data: bytes, original: Pixels) -> Pixels:
    """At the size of the original."""
    height, width, channels = original.shape
    with Image.open(io.BytesIO(data)) as image:
        plain = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(plain.resize((width, height), Image.Resampling.BICUBIC)).reshape(original.shape)


def _shrunk(image: Pixels, times: int) -> Pixels:
    height, width, channels = image.shape
    size = max(1, width // times), max(1, height // times)
    return np.asarray(_picture(image).resize(size, Image.Resampling.LANCZOS)).reshape(*size[::-1], channels)


def _picture(image: Pixels) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _squared_error(image: Pixels, original: Pixels) -> float:
    return float(np.square(image.astype(np.int32) - original).mean())


def _scan(data: bytes) -> int:
    """Bytes of a JPEG's entropy-coded data, without the segments before it and the two bytes that end it."""
    place = 2
    while data[place + 1] != 0xDA:
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return len(data) - place - 2 - int.from_bytes(data[place + 2 : place + 4], "big") - 2


def _jpeg(image: Pixels, quality: int) -> bytes:
    return _saved(image, "JPEG", quality=quality, subsampling=2)


def _webp(image: Pixels, quality: int) -> bytes:
    return _saved(image, "WEBP", quality=quality, method=6)


_OLD = {
    "JPEG": _Codec(1, lambda image, q: _saved(image, "JPEG", quality=q, optimize=True, subsampling=2), len),
    "JPEG without headers": _Codec(1, _jpeg, _scan),
    "WebP": _Codec(0, _webp, len),
    "JPEG without headers, shrunk": _Codec(1, _jpeg, _scan, (2, 4, 8)),
    "WebP, shrunk": _Codec(0, _webp, len, (2, 4, 8)),
}


def _quality(originals: Sequence[Pixels], images: Sequence[Pixels]) -> tuple[float, float]:
    """Mean PSNR and SSIM, in small batches of one shape."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, image in enumerate(originals):
        groups[image.shape].append(number)
    psnr = ssim = 0.0
    for same in groups.values():
        for start in range(0, len(same), _BATCH):
            numbers = same[start : start + _BATCH]
            metrics = image_metrics(*(_tensor([side[n] for n in numbers]) for side in (images, originals)))
            psnr += float(metrics["psnr"].sum())
            ssim += float(metrics["ssim"].sum())
    return psnr / len(originals), ssim / len(originals)


def _tensor(images: Sequence[Pixels]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(255)


def _check(originals: Sequence[Pixels], points: Mapping[str, Coded]) -> None:
    if not originals or not points:
        raise ValueError("a comparison needs images and points")
    for image in originals:
        fits = image.ndim == 3 and image.shape[2] in (1, 3) and min(image.shape[:2]) >= _SMALLEST
        if not fits or image.dtype != np.uint8:
            raise ValueError(
                f"images must be (H, W, 1 or 3) uint8, H and W at least {_SMALLEST}, not {image.shape}"
            )
    for label, (sizes, images) in points.items():
        shapes = [image.shape for image in images]
        if len(sizes) != len(originals) or shapes != [image.shape for image in originals]:
            raise ValueError(f"{label}: a size and an image of the same shape is needed for each original")
