"""Values of training images: windows of levels, data that uses little of its range, and class numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from genray.errors import DataError
from genray.images.image_file import Levels
from genray.images.pixels import Window

_LEAST_SHARE = 0.05  # of the range that images should use
_MOST_CLASSES = 64  # numbers below this in gray images are class numbers
_PIXELS = 2**17  # of an image that are looked at
_VOID = 255  # usual number of pixels without a class
_PERCENTILES = (0.1, 99.9)


def _check_window(window: Window | Literal["percentiles"]) -> Window | Literal["percentiles"]:
    if window != "percentiles" and not window[0] < window[1]:
        raise ValueError("the first level must be below the second")
    return window


WindowSetting = Annotated[Window | Literal["percentiles"], AfterValidator(_check_window)]
"""Levels that become black and white, or the word for measured ones."""


def window_of(
    setting: Window | Literal["percentiles"] | None, images: Sequence[Levels], name: str
) -> Window | None:
    """Return the window of `setting`; percentiles are measured on a sample of images.

    Args:
        setting: the setting.
        images: sample of images (H, W, C), values as stored.
        name: name of the setting.

    Raises:
        DataError: all images of the sample are of one level.
    """
    if setting is None or setting != "percentiles":
        return setting
    values = np.concatenate([_thinned(image).ravel() for image in images])
    low, high = (float(f"{level:.6g}") for level in np.percentile(values, _PERCENTILES))
    if not low < high:
        raise DataError(f"the images have one level, {low:g}", where=name, hint=f"set {name}=[low, high]")
    return low, high


def note_window(setting: Window | Literal["percentiles"] | None, window: Window | None, name: str) -> str:
    """Return a note on a window that was measured; "" for others."""
    if setting != "percentiles" or window is None:
        return ""
    low, high = _PERCENTILES
    return (
        f"{name}: levels {window[0]:g} to {window[1]:g} become black to white, the percentiles {low} and "
        f"{high} of a sample of the images"
    )


def check_numbers(images: Sequence[Levels], side: str, setting: str) -> None:
    """Refuse numbers beyond 0 and 1, of which black and white are not known.

    Args:
        images: sample of images (H, W, C), values as stored.
        side: name of the images, in words.
        setting: setting of the window of values.

    Raises:
        DataError: an image of floats has values below 0 or above 1.
    """
    floats = [image for image in images if image.dtype == np.float32]
    if not floats:
        return
    low, high = min(float(i.min()) for i in floats), max(float(i.max()) for i in floats)
    if low < 0 or high > 1:
        raise DataError(
            f"{side} are numbers from {low:g} to {high:g}; which of them are black and white?",
            where=setting,
            hint=f"set {setting}=[{low:g}, {high:g}], or {setting}=percentiles to leave out a few extreme "
            "values",
        )


def note_labels(inputs: Sequence[Levels], targets: Sequence[Levels]) -> str:
    """Return a note if the targets look like label maps and the inputs do not; "" otherwise."""
    if inputs and targets and _are_labels(targets) and not _are_labels(inputs):
        return (
            "note: the targets look like label maps, and the inputs do not; to translate from labels, "
            "exchange the sides (data.direction, or data.pairs)"
        )
    return ""


def _are_labels(images: Sequence[Levels]) -> bool:
    """Return whether images have as few colours as label maps; flat images have fewer."""
    pixels = (_thinned(image).reshape(-1, image.shape[-1]) for image in images)
    return all(1 < len(np.unique(each, axis=0)) <= _MOST_CLASSES for each in pixels)


def _thinned(image: Levels) -> Levels:
    """Return every n-th row and column of a large image: sorting all its values would take seconds."""
    step = max(1, round((image.shape[0] * image.shape[1] / _PIXELS) ** 0.5))
    return image[::step, ::step]


def note_values(images: Sequence[Levels], side: str, setting: str, *, one_hot: str = "") -> str:
    """Return a warning on images that use few of their levels, with the setting that fits; "" for others.

    Args:
        images: sample of images (H, W, C), values as stored.
        side: name of the images, in words.
        setting: setting of the window of values.
        one_hot: setting that makes a channel of each class ("": there is none).
    """
    if not images:
        return ""
    full = max(_white(image) for image in images)
    ends = [level for image in images for level in (image.min(), image.max())]
    levels: NDArray[np.float64] = np.unique(
        np.concatenate([ends, *(np.unique(_thinned(image)) for image in images)])
    )
    is_gray = all(image.shape[-1] == 1 for image in images)
    numbers = levels[levels != _VOID]
    if is_gray and full == _VOID and len(numbers) > 1 and numbers[-1] < _MOST_CLASSES:
        void = f", and {_VOID}" * (len(numbers) < len(levels))
        low, high = f"{numbers[0]:g}", f"{numbers[-1]:g}"
        return (
            f"warning: {side} have {len(numbers)} levels, {low} to {high} of {full:g}{void}: "
            "class numbers, it seems, which are nearly black for the network; "
            + (f"{one_hot} makes a channel of each class, and " if one_hot else "")
            + f"{setting}=[{low}, {high}] spreads them over the range"
        )
    low_level, high_level = float(levels[0]), float(levels[-1])
    if 0 < high_level - low_level < _LEAST_SHARE * full:
        low, high = f"{low_level:g}", f"{high_level:g}"
        return (
            f"warning: {side} use the levels {low} to {high} of {full:g}, "
            f"{(high_level - low_level) / full:.1%} of the range; {setting}=[{low}, {high}] makes them black "
            f"to white, and {setting}=percentiles leaves out a few extreme values"
        )
    return ""


def _white(image: Levels) -> float:
    return 1.0 if image.dtype == np.float32 else float(2 ** (8 * image.dtype.itemsize) - 1)
