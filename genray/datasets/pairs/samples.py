"""Image pairs as samples of a loader, resized and jittered as in the pix2pix paper (Isola et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from genray.datasets.finding.finder import Pair, PairLayout
from genray.datasets.loader import Sample
from genray.datasets.pairs.settings import PairedSettings
from genray.images.decode import read_image, read_levels, to_channels
from genray.images.image_file import Levels
from genray.images.labels import Classes, class_map, resize_indices
from genray.images.pixels import Pixels, Window, resize
from genray.io.bad_input import BadImage
from genray.io.store import Store


@dataclass(frozen=True)
class PairSource:
    """Pairs of a store as a loader's samples: (input, target).

    Args:
        store: where they lie.
        inputs: the path of each input, an Arrow array, see `SampleSource`.
        targets: that of each target; null where it is the other half of the input's file.
        settings: how they are decoded, resized and jittered.
        classes: classes of the inputs, which are then maps of their indices (None: no label maps).
    """

    store: Store
    inputs: Any
    targets: Any
    settings: PairedSettings
    classes: Classes | None = None

    @classmethod
    def of_pairs(
        cls,
        store: Store,
        pairs: Sequence[Pair],
        settings: PairedSettings,
        classes: Classes | None = None,
    ) -> PairSource:
        """The samples that `pairs` of `store` are."""
        import pyarrow as pa

        inputs = pa.array([pair.input for pair in pairs], pa.string())
        targets = pa.array([pair.target for pair in pairs], pa.string())
        return cls(store, inputs, targets, settings, classes)

    def __len__(self) -> int:
        return len(self.inputs)

    def name(self, index: int) -> str:
        return str(self.inputs[index])

    def load(self, index: int) -> Sample:
        pair = Pair(self.inputs[index].as_py(), self.targets[index].as_py())
        return load_pair(self.store, pair, self.settings, self.classes)

    def vary(self, images: Sample, key: Sequence[int]) -> Sample:
        first, second = images
        return jitter((first, second), self.settings.size, key, flip=self.settings.flip)


def load_pair(
    store: Store, pair: Pair, settings: PairedSettings, classes: Classes | None = None
) -> tuple[Pixels, Pixels]:
    """Read and decode one pair: (input, target), each (H, W, C) uint8, resized to `load_size` if set.

    Resizing is bicubic and ignores the aspect ratio, as the pix2pix paper's code does. With `classes` the
    input is a map of their indices (H, W, 1), resized to the nearest pixel.

    Raises:
        BadImage: with its reason; the pair is to be set aside.
    """
    if classes is not None:
        first = class_map(read_levels_of(store, pair, settings.layout, settings)[0], classes)
        second = _load_target(store, pair, settings)
    elif pair.target is None:
        first, second = _load_halves(store, pair.input, settings)
    else:
        first = read_image(
            store,
            pair.input,
            channels=settings.input_channels,
            limits=settings,
            window=measured(settings.input_window),
        )
        second = _load_target(store, pair, settings)
    if first.shape[:2] != second.shape[:2] and settings.load_size is None:
        raise BadImage(
            "odd-shape", f"{first.shape[1]}x{first.shape[0]} and {second.shape[1]}x{second.shape[0]}"
        )
    size = settings.load_size
    if size is not None:
        resized = resize(first, size) if classes is None else resize_indices(first, size, size)
        return resized, resize(second, size)
    if min(first.shape[:2]) < settings.size:
        raise BadImage(
            "odd-shape", f"{first.shape[1]}x{first.shape[0]} is smaller than the crop {settings.size}"
        )
    return first, second


def _load_target(store: Store, pair: Pair, settings: PairedSettings) -> Pixels:
    if pair.target is None:
        return _load_halves(store, pair.input, settings)[1]
    window = measured(settings.target_window)
    return read_image(store, pair.target, channels=settings.target_channels, limits=settings, window=window)


def jitter(
    pair: tuple[Pixels, Pixels], size: int, key: Sequence[int], *, flip: bool
) -> tuple[Pixels, Pixels]:
    """The paper's random jitter: the same random crop of `size` and mirroring for both images.

    `key` seeds it; the loaders use (seed, epoch, index), so a sample is the same whichever loader,
    worker or attempt makes it.
    """
    rng = np.random.default_rng(key)
    height, width = pair[0].shape[:2]
    top = rng.integers(height - size + 1)
    left = rng.integers(width - size + 1)
    step = -1 if flip and rng.random() < 0.5 else 1
    first, second = (image[top : top + size, left : left + size][:, ::step] for image in pair)
    return first, second


def _load_halves(store: Store, path: str, settings: PairedSettings) -> tuple[Pixels, Pixels]:
    """Return input and target of the file `path`, which contains A|B, or A over B."""
    channels = max(settings.input_channels, settings.target_channels)
    windows = dict.fromkeys(map(measured, (settings.input_window, settings.target_window)))
    files = [read_image(store, path, channels=channels, limits=settings, window=each) for each in windows]
    axis = 0 if settings.layout == "above-below" else 1
    if files[0].shape[axis] % 2:
        side, place = ("high", "one above the other") if axis == 0 else ("wide", "side by side")
        raise BadImage(
            "odd-shape", f"{files[0].shape[axis]} pixels {side}: two halves {place} need an even number"
        )
    source = 1 if settings.direction == "BtoA" else 0
    first = np.split(files[0], 2, axis=axis)[source]
    second = np.split(files[-1], 2, axis=axis)[1 - source]
    return to_channels(first, settings.input_channels), to_channels(second, settings.target_channels)


def measured(window: Window | Literal["percentiles"] | None) -> Window | None:
    """Return the window of settings that `fit_pairs` returned."""
    if window == "percentiles":
        raise ValueError("percentiles are not measured yet")
    return window


def read_levels_of(
    store: Store, pair: Pair, layout: Literal["auto"] | PairLayout, settings: PairedSettings
) -> tuple[Levels, Levels]:
    """Return the levels of input and target as they are stored."""
    source = read_levels(store, pair.input, settings)
    if pair.target is not None:
        return source, read_levels(store, pair.target, settings)
    middle = source.shape[0 if layout == "above-below" else 1] // 2
    first, second = (
        (source[:middle], source[middle:])
        if layout == "above-below"
        else (source[:, :middle], source[:, middle:])
    )
    return (second, first) if settings.direction == "BtoA" else (first, second)
