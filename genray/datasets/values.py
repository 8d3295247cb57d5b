"""Values of training images: data that uses little of its range, and label maps of class numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genray.images.image_file import FilePixels

_LEAST_SHARE = 0.05  # of the range that images should use
_MOST_CLASSES = 64  # numbers below this in gray images are class numbers
_PIXELS = 2**17  # of an image that are looked at
_VOID = 255  # usual number of pixels without a class


def note_labels(inputs: Sequence[FilePixels], targets: Sequence[FilePixels]) -> str:
    """Return a note if the targets look like label maps and the inputs do not; "" otherwise."""
    if inputs and targets and _are_labels(targets) and not _are_labels(inputs):
        return (
            "note: the targets look like label maps, and the inputs do not; to translate from labels, "
            "exchange the sides (data.direction, or data.pairs)"
        )
    return ""


def _are_labels(images: Sequence[FilePixels]) -> bool:
    """Return whether images have as few colours as label maps; flat images have fewer."""
    pixels = (_thinned(image).reshape(-1, image.shape[-1]) for image in images)
    return all(1 < len(np.unique(each, axis=0)) <= _MOST_CLASSES for each in pixels)


def _thinned(image: FilePixels) -> FilePixels:
    """Return every n-th row and column of a large image: sorting all its values would take seconds."""
    step = max(1, round((image.shape[0] * image.shape[1] / _PIXELS) ** 0.5))
    return image[::step, ::step]


def note_values(images: Sequence[FilePixels], side: str, setting: str) -> str:
    """Return a warning on images that use few of their levels, with the setting that fits; "" for others.

    Args:
        images: sample of images (H, W, C), values as stored.
        side: name of the images, in words.
        setting: setting of the window of values.
    """
    if not images:
        return ""
    full = max(np.iinfo(image.dtype).max for image in images)
    ends = [level for image in images for level in (image.min(), image.max())]
    levels = np.unique(np.concatenate([ends, *(np.unique(_thinned(image)) for image in images)])).tolist()
    is_gray = all(image.shape[-1] == 1 for image in images)
    numbers = [level for level in levels if level != _VOID]
    if is_gray and full == _VOID and len(numbers) > 1 and numbers[-1] < _MOST_CLASSES:
        void = f", and {_VOID}" * (len(numbers) < len(levels))
        return (
            f"warning: {side} have {len(numbers)} levels, {numbers[0]} to {numbers[-1]} of {full}{void}: "
            "class numbers, it seems, which are nearly black for the network; "
            f"{setting}=[{numbers[0]}, {numbers[-1]}] spreads them over the range"
        )
    low, high = levels[0], levels[-1]
    if 0 < high - low < _LEAST_SHARE * full:
        return (
            f"warning: {side} use the levels {low} to {high} of {full}, {(high - low) / full:.1%} of the "
            f"range; {setting}=[{low}, {high}] makes them black to white"
        )
    return ""
