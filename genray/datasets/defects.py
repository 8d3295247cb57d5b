"""What is normal in a set of images with defects: by the names of folders, or by masks of the defects.

Masks are never images to train or judge on. They lie in folders called masks, labels or ground truth (MVTec
AD, BTAD, VisA, DAGM), or beside the images under their names with an ending (KolektorSDD).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from genray.images.decode import read_image
from genray.images.limits import ReadLimits
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
    known = {by_stem[place]: mask for mask, place in masks if place in by_stem}
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


def _is_mask_folder(name: str) -> bool:
    return re.sub(r"[_\-. ]", "", name).lower() in _MASK_FOLDERS


def _without_ending(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)
