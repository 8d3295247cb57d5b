"""Records played to a ward as if they came live: raw samples, a second at a time, all records at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.base import Record
from monitors.alarms.events import Transition
from monitors.patient.ward import Round, Ward
from monitors.sources.chunk import Chunk

_BEGIN = 1_000_000_000.0  # unix s at which every record begins
_BLOCK = 60  # s that are read at once


@dataclass
class Watched:
    """What the monitor made of a record. Times are seconds from its first sample.

    Attributes:
        complexes: when it detected a QRS.
        beats: time and score of each that was scored.
        transitions: of its alarms, their times like all others here; what was open at the end is ended.
        learned: when the patient's reference was learned; None: never.
    """

    complexes: list[float] = field(default_factory=list)
    beats: list[tuple[float, float]] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    learned: float | None = None


def watch(
    records: Mapping[str, Record],
    ward: Ward,
    columns: Mapping[str, Sequence[int]],
    moved: Callable[[float], None],
) -> dict[str, Watched]:
    """Play `records` to a ward that has no streams yet.

    Args:
        records: by the name that their streams get.
        columns: which leads of each are sent.
        moved: is told the share that was played, each second of it.

    Raises:
        DataError: a record cannot be read any more.
    """
    ward.watched = frozenset(records)
    found = {name: Watched() for name in records}
    playing = {name: _chunks(name, record, columns[name]) for name, record in records.items()}
    longest = max(record.samples / record.rate for record in records.values())
    second = 0
    while playing:
        now = float(second)
        for name in list(playing):
            chunk = next(playing[name], None)
            if chunk is not None:
                ward.push(chunk, now)
                continue
            del playing[name]
            _gather(ward.discharge(name), found)
        _gather(ward.step(now), found)
        while ward.waiting:
            _gather(ward.step(now), found)
        second += 1
        moved(min(1.0, second / longest))
    for each in found.values():
        each.complexes.sort()  # a complex may be found by looking back
        each.beats.sort()
    return found


def _chunks(name: str, record: Record, columns: Sequence[int]) -> Iterator[Chunk]:
    size = max(1, round(record.rate))
    leads = tuple(record.leads[column] for column in columns)
    gains = tuple(record.gains[column] for column in columns)
    for number, samples in enumerate(_seconds(record, size)):
        yield Chunk(
            stream=name,
            sequence=number,
            start=_BEGIN + number * size / record.rate,
            rate=record.rate,
            leads=leads,
            gains=gains,
            samples=samples[:, list(columns)],
            received=float(number),
        )


def _seconds(record: Record, size: int) -> Iterator[NDArray[np.int16]]:
    for start in range(0, record.samples, _BLOCK * size):
        block = record.read(start, start + _BLOCK * size)
        yield from (block[i : i + size] for i in range(0, len(block), size))


def _gather(made: Round, found: Mapping[str, Watched]) -> None:
    for name, times in made.complexes.items():
        found[name].complexes += [time - _BEGIN for time in times]
    for name, beats in made.beats.items():
        found[name].beats += [(beat["time"] - _BEGIN, beat["score"]) for beat in beats]
    for transition in made.transitions:
        at, onset = transition.time - _BEGIN, transition.onset - _BEGIN
        found[transition.stream].transitions.append(replace(transition, time=at, onset=onset))
    for reading in made.readings:
        if reading.learned == 1 and found[reading.stream].learned is None:
            found[reading.stream].learned = reading.time - _BEGIN
