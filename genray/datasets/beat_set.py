"""A set of heartbeats, normalised and split into train, val and test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.datasets.beats import BeatSetSettings, FoundBeats, read_beats
from genray.datasets.splits import hold_out
from genray.ecg.beats import normalised
from genray.ecg.preprocessing import BeatPreprocessing
from genray.ecg.record_beats import AAMI, UNKNOWN
from genray.errors import DataError
from genray.images.decode import BadInput

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

    def joined(self, more: Beats) -> Beats:
        """These and then `more`."""
        return Beats(
            np.concatenate([self.values, more.values]),
            np.concatenate([self.labels, more.labels]),
            np.concatenate([self.groups, more.groups]),
        )


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
        left_out: how many beats of which kinds are not used, in words.
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
    left_out: str

    def described(self) -> dict[str, Any]:
        """For the bundle: fingerprint, split and counts."""
        return {
            "fingerprint": self.fingerprint,
            "split": self.split,
            "train": len(self.train),
            "val": len(self.val),
            "test": len(self.test),
            "classes": list(self.classes),
            "normal": [self.classes[i] for i in self.normal],
            "records": self.records,
            "set_aside": len(self.bad),
        }


def open_beat_set(settings: BeatSetSettings, seed: int, note: Callable[[str], None]) -> BeatSet:
    """Read the beats that `settings` name, all of them into memory, and split them.

    Raises:
        DataError: no beats, none that are normal, or too much that is broken.
    """
    found = read_beats(settings, seed, note)
    classes, labels, normal = _labelled(found, settings)
    every = Beats(np.concatenate(found.values)[:, None], labels, np.array(found.groups, np.int64))
    known = (labels >= 0).any()  # if nobody says what is normal, all is taken for it
    good = np.isin(labels, normal) if known else np.ones(len(labels), bool)
    parts, split = _parted(found, labels, good, settings, seed)
    train, val, test = (every.take(parts == part) for part in ("train", "val", "test"))
    strange = int(((parts == "") & (labels >= 0)).sum())
    counts = {"abnormal": strange, "without a class": int((parts == "").sum()) - strange}
    left_out = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    if len(train) < _LEAST:
        raise DataError(
            f"{len(train)} normal beats to train on: at least {_LEAST} are needed"
            + f" (left out: {left_out})" * bool(left_out),
            where="data.normal",
            hint=_VALUES
            if _are_values(found, classes)
            else "give more of them, or say which classes are "
            "normal; a beat without a class is not taken for normal where others have one",
        )
    digest = hashlib.sha256(every.values.tobytes() + "\n".join(found.classes).encode())
    preprocessing = _preprocessing(settings, train.joined(val).values, found)
    train, val, test = (
        Beats(preprocessing.normalised(beats.values), beats.labels, beats.groups)
        for beats in (train, val, test)
    )
    if not len(val):
        # Beats of a record are alike: those of whole records are held out, if there are several.
        names = np.unique(train.groups)
        places = train.groups if len(names) > 1 else np.arange(len(train))
        held_out = np.isin(places, hold_out(np.unique(places).tolist(), settings.val_share, seed)[1])
        train, val = train.take(~held_out), train.take(held_out)
        what = "records" if found.records > 1 else "beats"
        split = f"{split}; {settings.val_share:g} of the normal {what} held out by seed {seed}"
    return BeatSet(
        train=train,
        val=val,
        test=test,
        classes=classes,
        normal=normal,
        preprocessing=preprocessing,
        records=found.records,
        bad=tuple(found.bad),
        fingerprint=f"sha256:{digest.hexdigest()}",
        split=split,
        left_out=left_out,
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
            hint=_VALUES if _are_values(found, names) else "name the classes that are normal",
        )
    labels = np.array([number.get(name, -1) for name in found.classes], np.int64)
    return names, labels, tuple(number[name] for name in wanted if name in number)


def _parted(
    found: FoundBeats,
    labels: NDArray[np.int64],
    good: NDArray[np.bool_],
    settings: BeatSetSettings,
    seed: int,
) -> tuple[NDArray[np.str_], str]:
    """Of each beat train, val, test, or "" where it is left out; and how that was chosen."""
    said = found.split or "by files"
    parts = np.array(found.parts, "<U5")
    strange = ~good & (labels >= 0)
    nothing_said = (parts == "").all()
    parts[parts == ""] = "train"
    if "test" not in parts and settings.test_share and (nothing_said or strange.any()):
        # Of a table without parts a share is put aside as it is: the protocol of TensorFlow's tutorial.
        some = np.flatnonzero(nothing_said | (good & (parts == "train")))
        parts[hold_out(some.tolist(), settings.test_share, seed)[1]] = "test"
        said = f"{settings.test_share:g} of the {'' if nothing_said else 'normal '}beats to judge on"
        said += f", chosen by seed {seed}"
        if not nothing_said:
            parts[strange] = "test"
            said += ", and all abnormal ones"
    judges = parts == "test"
    if (labels[judges] >= 0).any():
        parts[judges & (labels < 0)] = ""  # what nobody knows can judge nothing
    parts[~judges & ~good] = ""
    return parts, said


def _preprocessing(
    settings: BeatSetSettings, values: NDArray[np.float32], found: FoundBeats
) -> BeatPreprocessing:
    if not normalised(values).any():
        raise DataError(
            "all normal beats are flat lines", where=settings.path, hint="look at the data, and at data.leads"
        )
    span = (float(values.min()), float(values.max())) if settings.normalisation == "minmax" else None
    known = settings.beat.model_dump() if found.recordings else {"samples": settings.beat.samples}
    return BeatPreprocessing(
        **known,
        normalisation=settings.normalisation,
        span=span,
        leads=tuple(found.leads),
    )


def _are_values(found: FoundBeats, classes: Sequence[str]) -> bool:
    """Whether the classes of a table look like values of beats: classes are whole numbers."""
    return not found.recordings and any(not name.lstrip("-").isdigit() for name in classes)


_VALUES = "these look like values, not classes: say with data.label=first or last where the class stands"
