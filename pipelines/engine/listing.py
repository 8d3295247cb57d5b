"""The listing: every input of a store, streamed, beside what the ledger has of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from genray.images.decode import BadInput
from genray.images.photo_writer import WriteSettings, output_path
from genray.io.sources import Item, Source, SourceSettings
from pipelines.engine.plan import Planned
from pipelines.steps.base import Step
from pipelines.storage.known import Known
from pipelines.storage.ledger import FAILED

_SAMPLE = 64
_SAY_S = 5.0
_IMAGES = SourceSettings().suffixes


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
    seen: int = 0
    left_over: int = 0
    changed: list[str] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)
    problems: list[BadInput] = field(default_factory=list)
    sample: list[Item] = field(default_factory=list)

    def left(self) -> Iterator[Planned]:
        """The inputs that are left to do, each with the name of its output."""
        drawn, said = random.Random(self.step.settings.report.seed), time.monotonic()
        for item in self._items():
            self.listed += 1
            if time.monotonic() - said > _SAY_S:
                said = time.monotonic()
                self.note(f"listing: {self.listed} images so far")
            found = self.known.find(item.path, item.size, item.modified)
            self.seen += found != "new"
            if found == "changed":
                self.changed.append(item.path)
            elif found == FAILED and self.step.settings.retry != "none":
                self.retried.append(item.path)
            elif found != "new":
                continue
            self.left_over += 1
            self._draw(item, drawn)
            yield Planned(item, output_name(self.step.named(item.path), self.step.settings.write))

    def _items(self) -> Iterator[Item]:
        for item in self.source.items(self.problems.append):
            try:
                item.path.encode()
            except UnicodeEncodeError:
                shown = item.path.encode("utf-8", "backslashreplace").decode()
                self.problems.append(BadInput(shown, "bad-name", "its name is not UTF-8"))
                continue
            yield item

    def _draw(self, item: Item, drawn: random.Random) -> None:
        """Keep a uniform sample of those that are left (reservoir sampling, Vitter 1985, algorithm R)."""
        if len(self.sample) < _SAMPLE:
            self.sample.append(item)
        elif (at := drawn.randrange(self.left_over)) < _SAMPLE:
            self.sample[at] = item


def output_name(path: str, settings: WriteSettings) -> str:
    """What the output of the input `path` is called: the same, and if it is to be of another format with that
    format's suffix behind it: a.jpg becomes a.jpg.png. No two inputs become one output, whatever is added
    later.
    """
    if settings.format == "same":
        return path
    # A name that looks as if it was made here has to make room for the one that would be.
    made_here = PurePosixPath(path).with_suffix("").suffix.lower() in _IMAGES
    if output_path(path, settings) == path and not made_here:
        return path
    return path + PurePosixPath(output_path("x", settings)).suffix
