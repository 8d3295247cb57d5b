"""Evidence that images are two images joined side by side, or one above the other.

A file name does not show whether a photo of 2:1 is one image or a pair. Two things of the pixels do:

- the seam: at the middle column neighbouring pixels differ more than at other columns, in most images;
- the structure: the edges of one half resemble those of its own other half more than those of other images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genray.images.pixels import Pixels

Gray = NDArray[np.float32]

_SHAPES = (1.25, 3.5)
"""Smallest and largest ratio of width and height of two images side by side."""
_MAP = 24  # height and width of a map of edges
_BLOCK = 8  # columns of a JPEG block, whose borders are compared with each other only
_SEAM = 0.85  # mean rank of the seam among other columns; 0.5 by chance
_STEP = 3.0  # ratio of the seam's step to the median step, for few images
_FEW = 6  # images
_MATCH = 0.9  # mean rank of the own half among other halves that stands for pairs without a seam
_NO_MATCH = 0.6  # mean rank below which a seam is no sign of pairs: book pages have one too


@dataclass(frozen=True)
class HalvesEvidence:
    """Evidence of a sample of images for pairs in halves.

    Attributes:
        images: number of images in the sample.
        shape: true if all widths are even and the halves have a plausible shape.
        exact: true if all images are exactly twice as wide as high.
        seam: mean rank of the middle column's step among other columns, 0 to 1 (None: no steps at all).
        step: median ratio of the middle column's step to the median step.
        match: mean rank of the own other half among all other halves by structure, 0 to 1 (None: no
            structure, or one image).
    """

    images: int
    shape: bool
    exact: bool
    seam: float | None
    step: float
    match: float | None

    @property
    def plausible(self) -> bool:
        """True if the images are pairs in halves, as far as the sample shows."""
        if not self.shape:
            return False
        if self.seam is None and self.match is None:
            return self.exact  # flat images: only the shape speaks
        has_seam = self.seam is not None and self.seam >= _SEAM
        if self.images < _FEW:
            return has_seam and (self.step >= _STEP or (self.match or 0.0) >= _MATCH)
        if self.match is None:
            return has_seam
        return (has_seam and self.match >= _NO_MATCH) or (self.exact and self.match >= _MATCH)

    def describe(self) -> str:
        """Return the evidence in words, for errors."""
        if not self.shape:
            return "their shape is not that of two images"
        if self.seam is None:
            return "they have no seam in the middle"
        texts = [f"the step at the middle is larger than at {self.seam:.0%} of the other places"]
        if self.match is not None:
            texts.append(
                f"the halves of a file resemble each other more than {self.match:.0%} of other halves"
            )
        return f"{', and '.join(texts)} (by chance: 50%)"


def judge_halves(images: Sequence[Pixels]) -> HalvesEvidence:
    """Return the evidence that images (H, W, 3) uint8 are pairs side by side.

    For images one above the other, swap height and width of each.
    """
    ratios = [image.shape[1] / image.shape[0] for image in images]
    even = all(image.shape[1] % 2 == 0 for image in images)
    shape = bool(images) and even and _SHAPES[0] <= min(ratios) and max(ratios) <= _SHAPES[1]
    if not shape:
        return HalvesEvidence(len(images), False, False, None, 0.0, None)
    seams = [seam for image in images if (seam := _seam(image)) is not None]
    return HalvesEvidence(
        images=len(images),
        shape=True,
        exact=all(ratio == 2.0 for ratio in ratios),
        seam=float(np.mean([rank for rank, _ in seams])) if seams else None,
        step=float(np.median([step for _, step in seams])) if seams else 0.0,
        match=_match([_halves(image) for image in images]),
    )


def _seam(image: Pixels) -> tuple[float, float] | None:
    """Return the rank of the step at the middle column among columns at the same place in a JPEG block, and
    its ratio to their median; None if no column has a step."""
    middle = image.shape[1] // 2
    columns = np.arange(middle % _BLOCK or _BLOCK, image.shape[1], _BLOCK)
    if len(columns) < _BLOCK:
        columns = np.arange(1, image.shape[1])
    values = image.astype(np.int16)
    steps = np.abs(values[:, columns] - values[:, columns - 1]).mean(axis=(0, 2))
    if not steps.any():
        return None
    own = steps[columns == middle][0]
    others = steps[columns != middle]
    rank = float(np.mean(others < own) + 0.5 * np.mean(others == own))
    return rank, float(own / max(float(np.median(others)), 0.1))


def _halves(image: Pixels) -> tuple[Gray, Gray]:
    middle = image.shape[1] // 2
    return _edge_map(image[:, :middle]), _edge_map(image[:, middle:])


def _edge_map(image: Pixels) -> Gray:
    """Return the edges of an image as a small map without its row and column means, of length 1 (0: none).

    Without the means a horizon, or an object in the middle, does not make halves alike.
    """
    gray = np.asarray(Image.fromarray(image).convert("L").resize((4 * _MAP, 4 * _MAP)), np.float32)
    edges = np.hypot(*np.gradient(gray)).reshape(_MAP, 4, _MAP, 4).mean(axis=(1, 3))
    edges = edges - edges.mean(axis=0) - edges.mean(axis=1, keepdims=True) + edges.mean()
    length = float(np.linalg.norm(edges))
    flat: Gray = (edges / length if length > 1.0 else np.zeros_like(edges)).astype(np.float32)
    return flat


def _match(halves: Sequence[tuple[Gray, Gray]]) -> float | None:
    """Return the mean rank of each image's own second half among all second halves, by likeness."""
    known = [(first, second) for first, second in halves if first.any() and second.any()]
    if len(known) < 2:
        return None
    first, second = (np.stack(side).reshape(len(known), -1) for side in zip(*known, strict=True))
    likeness = first @ second.T
    own = np.diag(likeness)
    below = (likeness < own[:, None]).sum(axis=1) + 0.5 * ((likeness == own[:, None]).sum(axis=1) - 1)
    return float(np.mean(below / (len(known) - 1)))
