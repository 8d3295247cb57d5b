"""What is normal in a set of images with defects: by the names of folders, or by masks of the defects.

Masks are never images to train or judge on. They lie in folders called masks, labels or ground truth (MVTec
AD, BTAD, VisA, DAGM), or beside the images under their names with an ending (KolektorSDD).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from genray.datasets.finding.split_words import split_word
from genray.images.decode import read_image, read_levels
from genray.images.labels import resize_indices
from genray.images.limits import ReadLimits
from genray.images.pixels import crop_middle
from genray.io.bad_input import BadImage
from genray.io.store import Entry, Store

NORMAL_NAMES = ("good", "normal", "ok")
"""Usual names of the class of normal images."""

_NORMAL, _DEFECT = "normal", "defect"  # classes of images by their masks
_MASK_FOLDERS = frozenset(
    [
        "mask",
        "masks",
        "label",
        "labels",
        "groundtruth",
        "gt",
        "annotation",
        "annotations",
        "segmentation",
        "segmentations",
    ]
)
_IMAGE_FOLDERS = frozenset(["image", "images", "img", "imgs"])
_MASK_ENDING = re.compile(r"[_\-. ](mask|label|gt|groundtruth|ground_truth|seg)$", re.IGNORECASE)


@dataclass(frozen=True)
class DefectFiles:
    """Image files of a set, without the masks.

    Attributes:
        images: image files.
        masks: mask of each image that has one, by the path of the image.
        count: number of mask files.
    """

    images: list[Entry]
    masks: Mapping[str, str] = field(default_factory=dict)
    count: int = 0


@dataclass(frozen=True)
class DefectMasks:
    """Masks of the defects in images of a store.

    Attributes:
        store: store of the masks.
        by_image: path of the mask of each image that has one, by the path of the image.
    """

    store: Store
    by_image: Mapping[str, str]

    def read(
        self, image: str, size: tuple[int, int], fit: Literal["crop", "stretch"] | None
    ) -> NDArray[np.bool_] | None:
        """Return the pixels of the defects in an image, (H, W); None if it has no mask that can be read.

        Args:
            image: path of the image.
            size: height and width that the image has after it was fitted.
            fit: way in which it was fitted.
        """
        if image not in self.by_image:
            return None
        try:
            levels = read_levels(self.store, self.by_image[image], ReadLimits())
        except BadImage:
            return None
        marked = (levels != 0).any(axis=-1, keepdims=True)
        if fit == "crop" and size[0] == size[1]:
            marked = crop_middle(marked.astype(np.uint8), min(marked.shape[:2])) > 0
        fitted: NDArray[np.bool_] = resize_indices(marked.astype(np.uint8), *size)[..., 0] > 0
        return fitted


def is_normal_name(name: str) -> bool:
    """Return whether a class is called good, normal or ok, in any case."""
    return name.lower() in NORMAL_NAMES


def separate_masks(entries: Sequence[Entry]) -> DefectFiles:
    """Return the images among `entries`, and the masks that belong to them."""
    stems = {_without_ending(entry.path): entry.path for entry in entries}
    images: list[Entry] = []
    masks: list[tuple[str, str]] = []  # path of a mask, and of its image without the ending
    for entry in entries:
        folder, _, name = entry.path.rpartition("/")
        parts = folder.split("/") if folder else []
        outside = [part for part in parts if not _is_mask_folder(part)]
        stem = _without_ending(name)
        bare = _MASK_ENDING.sub("", stem)
        if len(outside) < len(parts):
            masks.append((entry.path, "/".join([*outside, bare])))
        elif bare != stem and "/".join([*parts, bare]) in stems:
            masks.append((entry.path, "/".join([*parts, bare])))
        else:
            images.append(entry)
    by_stem = {_without_ending(entry.path): entry.path for entry in images}
    by_rest: dict[str, list[str]] = defaultdict(list)  # by what remains without splits and folders of images
    for stem, path in by_stem.items():
        by_rest[_rest_of(stem)].append(path)
    known = {}
    for mask, place in masks:
        alike = [by_stem[place]] if place in by_stem else by_rest.get(_rest_of(place), [])
        if len(alike) == 1:
            known[alike[0]] = mask
    return DefectFiles(images, known, len(masks))


def classes_by_masks(store: Store, paths: Iterable[str], masks: Mapping[str, str]) -> list[str]:
    """Return normal or defect for each image: defect if it has a mask that is not black all over.

    A mask that cannot be read counts as one of a defect, so that its image is not trained on.
    """
    listed = list(paths)

    def is_marked(path: str) -> bool:
        try:
            return path in masks and bool(
                read_image(store, masks[path], channels=3, limits=ReadLimits()).any()
            )
        except BadImage:
            return True

    with ThreadPoolExecutor() as pool:
        return [_DEFECT if marked else _NORMAL for marked in pool.map(is_marked, listed)]


def _rest_of(path: str) -> str:
    """Return a path without the folders that say the split, or that it is an image: Data/Images/Anomaly/1 and
    Data/Anomaly/1 are alike, as are test/hole/1 and hole/1."""
    *folders, name = path.split("/")
    return "/".join([*(f for f in folders if not split_word(f) and f.lower() not in _IMAGE_FOLDERS), name])


def _is_mask_folder(name: str) -> bool:
    return re.sub(r"[_\-. ]", "", name).lower() in _MASK_FOLDERS


def _without_ending(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)
