"""The listing: every input of a store, streamed, beside what the ledger has of it."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from genray.data.images import BadInput
from genray.data.photo_writer import output_path
from pipelines.known import Known
from pipelines.ledger import FAILED
from pipelines.plan import Planned
from pipelines.sources import Item, Source
from pipelines.step import Step

_SAMPLE = 64
_SAY_S = 5.0


@dataclass
class Listing:
    """Lists `source`, and remembers what it saw.

    Args:
        source: the inputs.
        step: what is to be done; names the outputs.
        known: what the ledger has.
        note: takes a line now and then.
    """

    source: Source
    step: Step[Any]
    known: Known
    note: Callable[[str], None]
    listed: int = 0
    changed: list[str] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)
    problems: list[BadInput] = field(default_factory=list)
    sample: list[Item] = field(default_factory=list)

    def left(self) -> Iterator[Planned]:
        """The inputs that are left to do, each with the name of its output."""
        drawn, said = random.Random(self.step.settings.report.seed), time.monotonic()
        for items in _folders(self._items()):
            names = self._outputs(items)
            for item, output in zip(items, names, strict=True):
                self.listed += 1
                if time.monotonic() - said > _SAY_S:
                    said = time.monotonic()
                    self.note(f"listing: {self.listed} images so far")
                found = self.known.find(item.path, item.size, item.modified)
                if found == "changed":
                    self.changed.append(item.path)
                elif found == FAILED and self.step.settings.retry != "none":
                    self.retried.append(item.path)
                elif found != "new":
                    continue
                self._draw(item, drawn)
                yield Planned(item, output)

    def _items(self) -> Iterator[Item]:
        for item in self.source.items(self.problems.append):
            try:
                item.path.encode()
            except UnicodeEncodeError:
                shown = item.path.encode("utf-8", "backslashreplace").decode()
                self.problems.append(BadInput(shown, "bad-name", "its name is not UTF-8"))
                continue
            yield item

    def _outputs(self, items: list[Item]) -> list[str]:
        """Names of the outputs: the inputs' own, with the suffix of the output's format.

        Inputs that differ in their suffix alone would be one output then: each of those keeps its suffix too.
        """
        inputs = [self.step.named(item.path) for item in items]
        names = [output_path(path, self.step.settings.write) for path in inputs]
        counts = Counter(names)
        return [
            name if counts[name] == 1 else path + PurePosixPath(name).suffix
            for path, name in zip(inputs, names, strict=True)
        ]

    def _draw(self, item: Item, drawn: random.Random) -> None:
        """Keep a uniform sample of those that are left (reservoir sampling, Vitter 1985, algorithm R)."""
        if len(self.sample) < _SAMPLE:
            self.sample.append(item)
        elif (at := drawn.randrange(self.listed)) < _SAMPLE:
            self.sample[at] = item


def _folders(items: Iterator[Item]) -> Iterator[list[Item]]:
    """`items`, which come folder by folder, so grouped; a large folder in several, never within a stem."""
    group: list[Item] = []
    for item in items:
        if group and (
            _folder(group[-1]) != _folder(item) or (len(group) >= 4096 and _first(group[-1]) != _first(item))
        ):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _folder(item: Item) -> str:
    return item.path.rpartition("/")[0]


def _first(item: Item) -> str:
    # All names that begin with it and a dot follow one another in a sorted folder.
    return item.path.rpartition("/")[2].partition(".")[0]
