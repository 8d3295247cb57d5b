"""A set of heartbeats, normalised and split into train, val and test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genray.data.beat_source import BeatSetSettings, FoundBeats, read_beats
from genray.data.images import BadInput
from genray.data.splits import hold_out
from genray.ecg.preprocessing import BeatPreprocessing
from genray.ecg.record_beats import AAMI, UNKNOWN
from genray.errors import DataError

_LEAST = 8  # normal beats that can be trained on


@dataclass(frozen=True)
class Beats:
    """Some beats.

    Attributes:
        values: (N, 1, samples) float32.
        labels: (N,) indices of the set's classes; -1: nobody says.
        groups: (N,) the record that each is of; of a table each row is a group of its own.
    """

    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, where: NDArray[np.bool_] | NDArray[np.int64] | Sequence[int]) -> Beats:
        """Those at `where`."""
        chosen = np.asarray(where) if len(where) else np.empty(0, np.int64)
        return Beats(self.values[chosen], self.labels[chosen], self.groups[chosen])


@dataclass(frozen=True)
class BeatSet:
    """A set of beats, split.

    Attributes:
        train: normal beats, to train on.
        val: normal beats that are held out.
        test: beats to judge on, of all classes; there may be none.
        classes: their names.
        normal: which of these are normal.
        preprocessing: what was done to them.
        records: that they are of; 0 for tables.
        bad: rows or records that were set aside.
        fingerprint: of all beats and classes.
        split: how they were split, for the bundle.
    """

    train: Beats
    val: Beats
    test: Beats
    classes: tuple[str, ...]
    normal: tuple[int, ...]
    preprocessing: BeatPreprocessing
    records: int
    bad: tuple[BadInput, ...]
    fingerprint: str
    split: str


def open_beat_set(settings: BeatSetSettings, seed: int, note: Callable[[str], None]) -> BeatSet:
    """Read the beats that `settings` name, all of them into memory, and split them.

    Raises:
        DataError: no beats, none that are normal, or too much that is broken.
    """
    found = read_beats(settings, seed, note)
    classes, labels, normal = _labelled(found, settings)
    groups = np.array(found.groups, np.int64)
    every = Beats(np.concatenate(found.values)[:, None], labels, groups)
    train, test, split = _parted(every, np.array(found.parts), found.split or "by files", settings, seed)
    train = train.take(np.isin(train.labels, normal) | (train.labels < 0))
    if (test.labels >= 0).any():
        test = test.take(test.labels >= 0)  # what nobody knows can judge nothing
    if len(train) < _LEAST:
        raise DataError(
            f"{len(train)} normal beats to train on: at least {_LEAST} are needed",
            where="data.normal",
            hint="give more of them, or say which classes are normal",
        )
    digest = hashlib.sha256(every.values.tobytes() + "\n".join(found.classes).encode())
    preprocessing = _preprocessing(settings, train.values, found.leads)
    train, test = (
        Beats(preprocessing.normalised(beats.values), beats.labels, beats.groups) for beats in (train, test)
    )
    # Beats of a record are alike: those of whole records are held out, if there are several.
    names = np.unique(train.groups)
    places = train.groups if len(names) > 1 else np.arange(len(train))
    held_out = np.isin(places, hold_out(np.unique(places).tolist(), settings.val_share, seed)[1])
    what = "records" if found.records > 1 else "beats"
    return BeatSet(
        train=train.take(~held_out),
        val=train.take(held_out),
        test=test,
        classes=classes,
        normal=normal,
        preprocessing=preprocessing,
        records=found.records,
        bad=tuple(found.bad),
        fingerprint=f"sha256:{digest.hexdigest()}",
        split=f"{split}; {settings.val_share:g} of the normal {what} held out by seed {seed}",
    )


def _labelled(
    found: FoundBeats, settings: BeatSetSettings
) -> tuple[tuple[str, ...], NDArray[np.int64], tuple[int, ...]]:
    """The names of the classes, the label of each beat, and the labels of the normal classes."""
    known = set(found.classes) - {UNKNOWN}
    order = (
        list(dict.fromkeys(AAMI.values())) if found.recordings else sorted(known, key=lambda n: (len(n), n))
    )
    names = tuple(name for name in order if name in known)
    number = {name: i for i, name in enumerate(names)}
    wanted = settings.normal or (("N",) if found.recordings else ("1",))
    if names and (unknown := sorted(set(wanted) - known)):
        raise DataError(
            f"no class is called {', '.join(unknown)}; there are: {', '.join(names[:20])}",
            where="data.normal",
            hint="name the classes that are normal",
        )
    labels = np.array([number.get(name, -1) for name in found.classes], np.int64)
    return names, labels, tuple(number[name] for name in wanted if name in number)


def _parted(
    every: Beats, parts: NDArray[np.str_], split: str, settings: BeatSetSettings, seed: int
) -> tuple[Beats, Beats, str]:
    """What is trained on, what judges, and how that was chosen."""
    test = every.take(parts == "test")
    if "train" in parts:
        return every.take(parts == "train"), test, split
    rest = every.take(parts == "")
    if len(test) or not settings.test_share:
        return rest, test, split
    kept, held = hold_out(range(len(rest)), settings.test_share, seed)
    said = f"{settings.test_share:g} of the beats to judge on, chosen by seed {seed}"
    return rest.take(kept), rest.take(held), said


def _preprocessing(
    settings: BeatSetSettings, values: NDArray[np.float32], leads: Sequence[str]
) -> BeatPreprocessing:
    span = None
    if settings.normalisation == "minmax":
        span = (float(values.min()), float(values.max()))
        if span[0] >= span[1]:
            raise DataError("all normal beats are one flat line", where=settings.path)
    return BeatPreprocessing(
        **settings.beat.model_dump(), normalisation=settings.normalisation, span=span, leads=tuple(leads)
    )
