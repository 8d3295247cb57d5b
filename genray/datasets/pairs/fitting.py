"""A look at the values, sizes and classes of a few image pairs before a training."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from genray.datasets.finding.finder import Pair
from genray.datasets.pairs.pair_set import CHECKED, Pairs
from genray.datasets.pairs.samples import read_levels_of
from genray.datasets.pairs.settings import PairedSettings
from genray.datasets.values import check_numbers, note_labels, note_values, note_window, window_of
from genray.errors import DataError
from genray.images.image_file import Levels
from genray.images.labels import MOST_CLASSES, Classes, count_classes
from genray.images.pixels import Window
from genray.io.bad_input import BadImage
from genray.io.store import Store

_ENLARGED = 1.5  # factor above which enlarging is warned of; the paper's is 286 / 256
_COUNTED = 2000  # label maps whose classes are counted
_SHOWN_CLASSES = 12


@dataclass(frozen=True)
class FittedPairs:
    """Pairs after a look at their images.

    Attributes:
        pairs: the pairs, with what was noticed.
        settings: the settings with the layout and the windows that were found.
        classes: classes of the inputs, if they are label maps.
    """

    pairs: Pairs
    settings: PairedSettings
    classes: Classes | None


def fit_pairs(pairs: Pairs, store: Store, settings: PairedSettings) -> FittedPairs:
    """Look at a few pairs, and count the classes of label maps.

    Raises:
        DataError: numbers of which black and white are not known, channels other than those of the
            settings, or label maps without classes.
    """
    sides: tuple[list[Levels], list[Levels]] = ([], [])
    for pair in pairs.train[:CHECKED]:
        try:
            for side, levels in zip(sides, read_levels_of(store, pair, pairs.layout, settings), strict=True):
                side.append(levels)
        except BadImage:
            continue
    notes = [note_labels(*sides), *_notes_on_sizes(*sides, settings)]
    classes = None
    if settings.labels == "one-hot":
        classes, note = _count_classes(pairs, store, settings)
        notes.append(note)
        source = _FittedSide(None)
    else:
        source = _fit_side(sides[0], "input", settings.input_window, settings.input_channels)
    target = _fit_side(sides[1], "target", settings.target_window, settings.target_channels)
    updates = {"layout": pairs.layout, "input_window": source.window, "target_window": target.window}
    notes += [*source.notes, *target.notes]
    noted = replace(pairs, notes=(*pairs.notes, *filter(None, notes)))
    return FittedPairs(noted, settings.model_copy(update=updates), classes)


def _count_classes(pairs: Pairs, store: Store, settings: PairedSettings) -> tuple[Classes, str]:
    """Return the classes of the training inputs, and a note that counts them."""
    step = max(1, len(pairs.train) // _COUNTED)

    def levels_of(pair: Pair) -> Levels | None:
        try:
            return read_levels_of(store, pair, pairs.layout, settings)[0]
        except BadImage:
            return None

    with ThreadPoolExecutor() as pool:
        maps = [each for each in pool.map(levels_of, pairs.train[::step]) if each is not None]
    classes = count_classes(maps)
    if classes is None or len(classes) < 2:
        few = f"one class, {classes[0]}" if classes else f"more than {MOST_CLASSES} different colours"
        raise DataError(
            f"{len(maps)} inputs are no label maps: they have {few}",
            where="data.labels",
            hint="label maps are stored without loss (PNG, not JPEG), a level or colour for each class; "
            "set data.labels=values for other images",
        )
    shown = ", ".join(map(_class_name, classes[:_SHOWN_CLASSES]))
    more = f" and {len(classes) - _SHOWN_CLASSES} more" if len(classes) > _SHOWN_CLASSES else ""
    return classes, f"classes: {len(classes)} in {len(maps)} label maps ({shown}{more})"


@dataclass(frozen=True)
class _FittedSide:
    """Window of one side of the pairs, and notes on its values."""

    window: Window | None
    notes: tuple[str, ...] = ()


def _fit_side(
    levels: Sequence[Levels], side: str, setting: Window | Literal["percentiles"] | None, channels: int
) -> _FittedSide:
    """Return the window of a side from the levels of some images."""
    name = f"data.{side}_window"
    one_hot = "data.labels=one-hot" if side == "input" else ""
    odd = [each for each in (image.shape[-1] for image in levels) if each not in (1, 3, channels)]
    if odd:
        raise DataError(
            f"{len(odd)} of {len(levels)} {side}s have {odd[0]} channels, not {channels}",
            where=f"data.{side}_channels",
            hint=f"set data.{side}_channels={odd[0]}",
        )
    if setting is None:
        check_numbers(levels, f"the {side}s", name)
        return _FittedSide(None, (note_values(levels, f"the {side}s", name, one_hot=one_hot),))
    window = window_of(setting, levels, name)
    return _FittedSide(window, (note_window(setting, window, name),))


def _class_name(colour: Sequence[int]) -> str:
    return str(colour[0]) if len(colour) == 1 else "#" + "".join(f"{level:02x}" for level in colour)


def _notes_on_sizes(
    inputs: Sequence[Levels], targets: Sequence[Levels], settings: PairedSettings
) -> list[str]:
    """Return warnings on pairs of unequal sizes, and on images that are much enlarged."""
    size = settings.load_size
    if size is None or not inputs:
        return []
    notes = []
    sizes = [
        (f"{a.shape[1]}x{a.shape[0]}", f"{b.shape[1]}x{b.shape[0]}")
        for a, b in zip(inputs, targets, strict=True)
    ]
    unequal = [pair for pair in sizes if pair[0] != pair[1]]
    if unequal:
        notes.append(
            f"warning: {len(unequal)} of {len(sizes)} pairs have images of unequal sizes, such as "
            f"{' and '.join(unequal[0])}: both are resized to {size} pixels"
        )
    shorter = min(min(image.shape[:2]) for image in (*inputs, *targets))
    if size > _ENLARGED * shorter:
        notes.append(
            f"warning: images of {shorter} pixels are enlarged to {size}; "
            f"data.size={max(64, shorter // 32 * 32)} is nearer to their own size"
        )
    return notes
