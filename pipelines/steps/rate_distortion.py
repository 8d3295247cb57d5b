"""Rate and distortion of compressed codes, compared with JPEG and WebP of the same sizes."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from PIL import Image

from genray.images.metrics import image_metrics
from genray.images.pixels import Pixels
from genray.report.charts import draw_tradeoff

LATENTS = "latents"
COLUMNS = ("point", "codec", "bytes", "bits per pixel", "PSNR", "SSIM", "larger", "decoder bytes")
_SMALLEST_SIDE = 8  # shortest side in pixels, for the window of SSIM
_EQUAL_DB = 0.05  # dB below which codecs count as equal
_HIGHEST_QUALITY = 100
_BATCH = 8


@dataclass(frozen=True)
class CodedImage:
    """An image encoded and decoded by a codec."""

    size: int
    """Encoded bytes."""
    image: Pixels
    """Decoded image, in the shape of the original."""


@dataclass(frozen=True)
class RatePoint:
    """Quality of one codec at one size."""

    point: str
    """Label of the codes whose sizes were the limit."""
    codec: str
    """Name of the codec: `LATENTS`, or JPEG, JPEG without headers, WebP, and the latter two shrunk."""
    size: float
    """Mean bytes of an image, without the decoder."""
    bits_per_pixel: float
    psnr: float
    """Mean PSNR of the images, in dB."""
    ssim: float
    larger: int
    """Images that need more bytes than the code even at the lowest quality; they count with those bytes."""
    images: int
    decoder: int
    """Bytes of the decoder, needed once for all images."""


def rate_distortion(
    originals: Sequence[Pixels], points: Mapping[str, Sequence[CodedImage]], *, decoder: int
) -> list[RatePoint]:
    """Return for every point a row of the codes, and one of each old codec at the same sizes: each image has
    the quality whose size is closest to its code's from below.

    JPEG counts twice: as a file, with Huffman tables optimised for the image, and as its scan without
    headers, with the standard's tables, as many images could share the headers. WebP uses its slowest method
    (6). Both subsample colour (4:2:0), which is best at few bytes, and are also tried on the image shrunk 2,
    4 or 8 times, whichever is best, as is usual at very few bytes.

    Args:
        originals: images (H, W, 1 or 3), H and W at least 8.
        points: coded images by label, such as one label for each step of a `LatentCodec`.
        decoder: bytes of the decoder, such as a bundle's.

    Raises:
        ValueError: no images or points, images too small, or codes that do not match the originals.
    """
    _check(originals, points)
    by_codec: dict[str, Mapping[str, Sequence[CodedImage]]] = {LATENTS: points}
    for name, codec in _OLD_CODECS.items():
        by_codec[name] = codec.encode_within(originals, points)
    pixels = sum(image.shape[0] * image.shape[1] for image in originals)
    rows = []
    for label, codes in points.items():
        for name, coded_points in by_codec.items():
            coded = coded_points[label]
            size = sum(each.size for each in coded)
            psnr, ssim = _quality(originals, [each.image for each in coded])
            rows.append(
                RatePoint(
                    point=label,
                    codec=name,
                    size=size / len(coded),
                    bits_per_pixel=8 * size / pixels,
                    psnr=psnr,
                    ssim=ssim,
                    larger=sum(each.size > code.size for each, code in zip(coded, codes, strict=True)),
                    images=len(originals),
                    decoder=decoder if name == LATENTS else 0,
                )
            )
    return rows


def table_rows(rows: Sequence[RatePoint]) -> list[list[str | float]]:
    """Return the rows of a table with `COLUMNS`."""
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


def describe(rows: Sequence[RatePoint]) -> list[str]:
    """Return sentences on the rows: how often the codes lose, one for each point, and one about the decoder.

    The better codec is the one of higher PSNR among those that can be as small as the codes; the others are
    named with their smallest sizes.
    """
    labels = list(dict.fromkeys(row.point for row in rows))
    sentences = []
    lost = 0
    for label in labels:
        latents, *old = [row for row in rows if row.point == label]
        parts = [_describe_larger(row, latents) for row in old if row.larger]
        fitting = [row for row in old if not row.larger]
        if fitting:
            best = max(fitting, key=lambda row: row.psnr)
            gain = best.psnr - latents.psnr
            lost += gain >= _EQUAL_DB
            parts.insert(0, _describe_gain(best.codec, gain))
        sentences.append(f"{label}, {latents.size:.0f} bytes: {'; '.join(parts)}.")
    first = rows[0]
    return [
        f"JPEG or WebP is better than the codes at {lost} of {len(labels)} sizes, not counting the decoder.",
        *sentences,
        f"The decoder takes {first.decoder:,} bytes once, as many as the codes of "
        f"{first.decoder / max(1.0, first.size):,.0f} images ({first.point}).",
    ]


def draw_rate_distortion(rows: Sequence[RatePoint]) -> Pixels:
    """Draw PSNR over bits per pixel, a curve for each codec, (H, W, 3). Decoders are not counted."""
    curves: dict[str, list[tuple[float | str, float]]] = defaultdict(list)
    for row in rows:
        curves[row.codec].append((row.bits_per_pixel, row.psnr))
    return draw_tradeoff(curves, "bits per pixel, without the decoder", "PSNR in dB", joined=True)


@dataclass(frozen=True)
class _OldCodec:
    lowest: int
    """Quality of the codec; the highest is 100."""
    encode: Callable[[Pixels, int], bytes]
    charged_bytes: Callable[[bytes], int]
    """Number of bytes that count, of those from `encode`."""
    factors: tuple[int, ...] = (1,)
    """Factors by which the image may be shrunk before encoding, and enlarged after decoding."""

    def encode_within(
        self, originals: Sequence[Pixels], points: Mapping[str, Sequence[CodedImage]]
    ) -> dict[str, list[CodedImage]]:
        """Return the best encoding of each image within its bytes at each point."""
        best: dict[str, list[CodedImage]] = {label: [] for label in points}
        for number, original in enumerate(originals):
            ladders = [self._ladder(original, factor) for factor in self.factors]
            for label, codes in points.items():
                best[label].append(self._best_within(ladders, original, codes[number].size))
        return best

    def _ladder(self, original: Pixels, factor: int) -> Callable[[int], bytes]:
        """Return a function from quality to the encoded, shrunk image; each quality is encoded once."""
        return cache(partial(self.encode, _shrunk(original, factor)))

    def _best_within(
        self, ladders: Sequence[Callable[[int], bytes]], original: Pixels, budget: int
    ) -> CodedImage:
        """Return the encoding of least error within the budget; of fewest bytes if none fits."""
        tried = []
        for ladder in ladders:
            data = self._closest(ladder, budget)
            tried.append(CodedImage(self.charged_bytes(data), _decoded(data, original)))
        fitting = [each for each in tried if each.size <= budget]
        if not fitting:
            return min(tried, key=lambda each: each.size)
        return min(fitting, key=lambda each: _squared_error(each.image, original))

    def _closest(self, ladder: Callable[[int], bytes], budget: int) -> bytes:
        """Return the encoding of the highest quality within `budget`, by bisection; of the lowest if none
        fits."""
        fits = self.lowest
        above = _HIGHEST_QUALITY + 1
        if self.charged_bytes(ladder(fits)) > budget:
            return ladder(fits)
        while above - fits > 1:
            middle = (fits + above) // 2
            if self.charged_bytes(ladder(middle)) <= budget:
                fits = middle
            else:
                above = middle
        return ladder(fits)


def _describe_gain(codec: str, gain: float) -> str:
    if abs(gain) < _EQUAL_DB:
        return f"{codec} is as good as the codes"
    if gain > 0:
        return f"{codec} beats the codes by {gain:.1f} dB"
    return f"the codes beat {codec}, the best of the others, by {-gain:.1f} dB"


def _describe_larger(row: RatePoint, latents: RatePoint) -> str:
    which = "" if row.larger == row.images else f" for {row.larger} of {row.images} images"
    gain = row.psnr - latents.psnr
    better = f"{abs(gain):.1f} dB {'better' if gain > 0 else 'worse'}"
    return f"{row.codec} cannot be as small{which}: {row.size:.0f} bytes, {better}"


def _encoded(image: Pixels, kind: str, **options: int | bool | str) -> bytes:
    buffer = io.BytesIO()
    _picture(image).save(buffer, kind, **options)
    return buffer.getvalue()


def _decoded(data: bytes, original: Pixels) -> Pixels:
    """Return the decoded image at the size of the original."""
    height, width, channels = original.shape
    with Image.open(io.BytesIO(data)) as image:
        converted = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(converted.resize((width, height), Image.Resampling.BICUBIC)).reshape(original.shape)


def _shrunk(image: Pixels, factor: int) -> Pixels:
    height, width, channels = image.shape
    size = max(1, width // factor), max(1, height // factor)
    return np.asarray(_picture(image).resize(size, Image.Resampling.LANCZOS)).reshape(*size[::-1], channels)


def _picture(image: Pixels) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _squared_error(image: Pixels, original: Pixels) -> float:
    return float(np.square(image.astype(np.int32) - original).mean())


def _scan_bytes(data: bytes) -> int:
    """Return the bytes of a JPEG's entropy-coded data, without the segments before it and the two bytes at
    its end."""
    position = 2
    while data[position + 1] != 0xDA:
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return len(data) - position - 2 - int.from_bytes(data[position + 2 : position + 4], "big") - 2


def _jpeg(image: Pixels, quality: int) -> bytes:
    return _encoded(image, "JPEG", quality=quality, subsampling=2)


def _webp(image: Pixels, quality: int) -> bytes:
    return _encoded(image, "WEBP", quality=quality, method=6)


_OLD_CODECS = {
    "JPEG": _OldCodec(
        1, lambda image, q: _encoded(image, "JPEG", quality=q, optimize=True, subsampling=2), len
    ),
    "JPEG without headers": _OldCodec(1, _jpeg, _scan_bytes),
    "WebP": _OldCodec(0, _webp, len),
    "JPEG without headers, shrunk": _OldCodec(1, _jpeg, _scan_bytes, (2, 4, 8)),
    "WebP, shrunk": _OldCodec(0, _webp, len, (2, 4, 8)),
}


def _quality(originals: Sequence[Pixels], images: Sequence[Pixels]) -> tuple[float, float]:
    """Return mean PSNR and SSIM, in small batches of one shape."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, image in enumerate(originals):
        groups[image.shape].append(number)
    psnr = ssim = 0.0
    for group in groups.values():
        for start in range(0, len(group), _BATCH):
            numbers = group[start : start + _BATCH]
            metrics = image_metrics(
                _tensor([images[number] for number in numbers]),
                _tensor([originals[number] for number in numbers]),
            )
            psnr += float(metrics["psnr"].sum())
            ssim += float(metrics["ssim"].sum())
    return psnr / len(originals), ssim / len(originals)


def _tensor(images: Sequence[Pixels]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(255)


def _check(originals: Sequence[Pixels], points: Mapping[str, Sequence[CodedImage]]) -> None:
    if not originals or not points:
        raise ValueError("a comparison needs images and points")
    for image in originals:
        fits = image.ndim == 3 and image.shape[2] in (1, 3) and min(image.shape[:2]) >= _SMALLEST_SIDE
        if not fits or image.dtype != np.uint8:
            raise ValueError(
                f"images must be (H, W, 1 or 3) uint8, H and W at least {_SMALLEST_SIDE}, not {image.shape}"
            )
    for label, coded in points.items():
        if [each.image.shape for each in coded] != [image.shape for image in originals]:
            raise ValueError(f"{label}: each original needs a size and a decoded image of the same shape")
