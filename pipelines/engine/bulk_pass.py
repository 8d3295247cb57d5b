"""A pass: once over all inputs, doing what the ledger does not have. A run takes as many as it needs.

A sample of the inputs, for what a step fits to the user's own images.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genray.images.photo import Photo, read_photo
from genray.io.bad_input import BadImage
from genray.io.sources import Item, ItemSource
from genray.text import visible
from pipelines.engine.plan import Listing, remove_plans, write_plan
from pipelines.engine.pool import keep_model
from pipelines.settings import BulkSettings, may_change
from pipelines.steps.base import Step
from pipelines.storage.attempts import Attempt
from pipelines.storage.ledger import FAILED, LedgerSummary
from pipelines.storage.output import Output, now
from pipelines.storage.sinks import Sink, TableSink, open_sink

Note = Callable[[str], None]


class Pass:
    """The newest pass of an output, which this process holds.

    Args:
        step: what is done.
        source: the inputs.
        output: where the results go.
        record: the settings, flat.
        target: of the command.
        note: takes lines for a person.
    """

    def __init__(
        self,
        step: Step[Any],
        source: ItemSource,
        output: Output,
        record: Mapping[str, Any],
        target: str,
        note: Note,
    ) -> None:
        self._step, self._source, self._output, self._note = step, source, output, note
        self._settings: BulkSettings = step.settings
        schema = step.schema()
        self._sinks: list[Sink | TableSink] = [open_sink(output.store, self._settings.write)]
        self._sinks += [] if schema is None else [TableSink(output.store, step.table, schema)]
        self.inputs = 0
        """How many it has to do."""
        self._begin(target, record)
        self._list()

    def _begin(self, target: str, record: Mapping[str, Any]) -> None:
        """Take the output over from whoever wrote to it before, and write its header."""
        output, identity = self._output, dict(self._step.identity())
        left = output.attempts.clear()
        before = output.header()
        again = self._settings.retry == "all"
        # Interrupted, it goes on: it would never end where something fails now and then.
        lasting = {key: value for key, value in record.items() if not may_change(key)}
        going_on = again and before.get("again") == lasting
        if again and not going_on:
            keys = output.ledger.keys()
            if before.get("settings", {}).get("write.container") == "files":
                self._delete(output.ledger.outputs())
            output.ledger.clear()
        else:
            keys = output.ledger.keys()
            if not going_on:
                output.check(target, record, identity)
        last = before.get("passes", [{}])[-1:] or [{}]
        number = 1 + max([0, *(each["number"] for each in before.get("passes", ())), *map(_number, keys)])
        died = 0 if "ended" in last[0] or left is None else last[0].get("died", 0) + 1
        self.number = number
        self.crashed = Attempt(died, left.suspect, left.times) if left is not None and died else None
        """What is known of the passes before that died as a whole: their driver was killed."""
        first = not before.get("passes")
        self.header: dict[str, Any] = {
            "target": target,
            "settings": dict(record),
            "identity": identity,
            "prepared": None if again and not going_on else before.get("prepared"),
            "again": lasting if again else before.get("again"),
            "passes": [*before.get("passes", ()), {"number": number, "started": now(), "died": died}],
        }
        output.write_header(self.header)
        if not first:
            for sink in self._sinks:
                sink.remove_orphans(output.ledger.keys())

    def _list(self) -> None:
        """Write the plan: what is left to do."""
        store, ledger, note = self._output.store, self._output.ledger, self._note
        remove_plans(store)
        ledger.drop_problems()
        self.listing = listing = Listing(self._source, self._step, ledger.known(), note)
        self.inputs = write_plan(store, self.number, listing.left())
        redone = {*listing.changed, *listing.retried}
        if self._settings.write.container == "files":  # of others the sinks forget their parts
            self._delete(ledger.outputs(redone))
        for sink in self._sinks:
            sink.drop(redone)
        ledger.drop(redone)
        if listing.problems:
            ledger.add_problems(self.number, listing.problems)
        self._keys, self._kept = ledger.keys(), ledger.summary().total
        self.gone = len(listing.known) - listing.seen
        """Inputs that the ledger has, and the store no more."""
        note(f"{listing.listed} images, {self.inputs} to do")
        if listing.changed:
            note(f"{len(listing.changed)} have changed since they were done: done again")
        if listing.retried:
            note(f"{len(listing.retried)} failed before: tried again")
        if self.gone:
            note(f"{self.gone} of the ledger are no longer in the input: their outputs are kept")
        for bad in listing.problems[:5]:
            note(f"not listed: {visible(bad.path)}: {visible(bad.detail)}")
        self.header["passes"][-1] |= {"listed": listing.listed, "left": self.inputs}

    def _delete(self, outputs: Iterable[str]) -> None:
        """Delete images that are to be made again: it may not come to that."""
        for path in outputs:
            self._output.store.delete(path)

    def prepare(self) -> None:
        """Let the step fit itself to a sample of the inputs, once for an output."""
        if self.header["prepared"] is None:
            with tempfile.TemporaryDirectory(prefix="genray-model-") as folder:
                sample = InputSample(self._source, self.listing.sample, self._settings)
                self.header["prepared"] = dict(self._step.prepare(sample, Path(folder)))
                keep_model(self._output.store, Path(folder))
        for line in self.header["prepared"].get("notes", ()):
            self._note(line)
        self._output.write_header(self.header)

    def end(self, figures: Mapping[str, float]) -> LedgerSummary:
        """Tidy up, and write the header; returns what the ledger says altogether."""
        ledger, output = self._output.ledger, self._output
        output.attempts.clear()
        # What a worker of an earlier pass still wrote, after this one had listed, is done twice.
        for key in ledger.keys() - self._keys:
            if _number(key) < self.number:
                ledger.remove(key)
        ledger.compact(self.number)
        for sink in self._sinks:
            sink.remove_orphans(ledger.keys())
        remove_plans(output.store)
        summary = ledger.summary()
        self.recorded = summary.total - self._kept
        """Inputs of this pass that are in the ledger now."""
        self.header["passes"][-1] |= {"ended": now(), FAILED: summary.status[FAILED], **figures}
        if self.recorded >= self.inputs:
            self.header["again"] = None
        output.write_header(self.header)
        return summary


def _number(key: str) -> int:
    """Of the pass that a key of the ledger, or the name of a merged file, is of."""
    return int(key.removeprefix("merged-")[:5])


class InputSample(Sequence[Photo]):
    """Photos of some inputs, read when they are asked for; those that cannot be read are not in it."""

    def __init__(self, source: ItemSource, items: Sequence[Item], settings: BulkSettings) -> None:
        self._source, self._settings = source, settings
        self._items = list(items)
        self._photos: list[Photo] = []

    def __len__(self) -> int:
        self._fill(len(self._items))
        return len(self._photos)

    def __getitem__(self, index: Any) -> Any:
        self._fill(len(self._items) if isinstance(index, slice) or index < 0 else index + 1)
        return self._photos[index]

    def _fill(self, count: int) -> None:
        while self._items and len(self._photos) < count:
            item = self._items.pop(0)
            try:
                data = self._source.read(item, self._settings.read.max_bytes)
                self._photos.append(read_photo(data, self._settings.read))
            except BadImage:
                continue
