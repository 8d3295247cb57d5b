"""Passes of a bulk run: each goes once over all inputs and processes those that the ledger lacks."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from genray.io.sources import Item, ItemSource
from genray.settings.base import flatten
from genray.text import counted, visible
from pipelines.engine.assignment import keep_model
from pipelines.engine.plan import (
    InputListing,
    Plan,
    SuspectsLast,
    output_name,
    remove_plans,
    rename_repeated,
    write_plan,
)
from pipelines.engine.reporting.outcome import PassRates
from pipelines.engine.sample import PhotoSample
from pipelines.settings import BulkSettings, may_change
from pipelines.steps.base import Step
from pipelines.storage.attempts import CAREFUL_AFTER, Attempt, EarlierKills
from pipelines.storage.ledger.files import pass_of_key
from pipelines.storage.ledger.rows import FAILED
from pipelines.storage.ledger.summary import LedgerSummary
from pipelines.storage.output import Output, PassRecord, RunHeader, timestamp
from pipelines.storage.shards import ShardJoiner, piece_paths
from pipelines.storage.sinks import Sink, TableSink, open_sink

Note = Callable[[str], None]
Settings = Mapping[str, Any]  # flat, as in the header

_MOST_PROBLEMS = 5  # most paths that are named
_MANY_KILLS = 3  # kills of the run at one image from which on a person should look at it


@dataclass
class Pass:
    """The newest pass of an output, which this process holds.

    Responsible for: taking the output over from earlier passes; the plan of the remaining inputs; the step's
    fit to the user's images; the header; cleaning up at the end. The work itself is left to `pool.py`.

    Args:
        step: the step to run.
        source: the inputs.
        output: output of the results.
        sinks: sinks of the output.
        note: takes lines for a person.
        header: header of the run.
        earlier: what is known of earlier passes whose driver was killed.
        listing: result of listing the inputs.
        inputs: number of inputs to process.
        keys_before: keys of the ledger when the plan was made.
        rows_before: rows of the ledger then.
    """

    step: Step[Any]
    source: ItemSource
    output: Output
    sinks: Sequence[Sink | TableSink]
    note: Note
    header: RunHeader
    earlier: EarlierKills
    listing: InputListing
    inputs: int
    keys_before: Set[str]
    rows_before: int

    @classmethod
    def begin(
        cls,
        step: Step[Any],
        source: ItemSource,
        output: Output,
        settings: Settings,
        target: str,
        note: Note,
    ) -> Pass:
        """Take the output over, write the header, list the inputs and write the plan. Outputs that are to be
        made again are deleted, as the pass may stop before it makes them.

        Args:
            step, source, output, note: see the class.
            settings: settings, flat.
            target: name of the target.

        Raises:
            RunError: the output's images were made with other settings.
        """
        sinks = _open_sinks(step, source, output)
        earlier, header = _take_over(step, output, settings, target)
        output.write_header(header)
        if len(header.passes) > 1:
            for sink in sinks:
                sink.remove_orphans(output.ledger.keys())
        number = header.passes[-1].number
        remove_plans(output.store)
        output.ledger.drop_problems()
        index = output.ledger.index()
        output.ledger.drop_older(index.repeated)
        listing = InputListing(source, step, index, note)
        planned = SuspectsLast(listing.remaining(), earlier.suspects)
        inputs = write_plan(output.store, number, planned)
        rename_repeated(output.store, number, inputs, listing)
        earlier = replace(earlier, suspects=planned.found)
        dropped = {*listing.changed, *listing.retried}
        _drop_results(output, sinks, step.settings, dropped)
        problems = output.ledger.add_problems(number, listing.problems)
        new_pass = cls(
            step,
            source,
            output,
            sinks,
            note,
            header,
            earlier,
            listing,
            inputs,
            keys_before=output.ledger.keys(),
            rows_before=listing.known - len(dropped) + problems,
        )
        new_pass._note_listing()
        new_pass.record.listed = listing.listed
        new_pass.record.not_read = source.counts.as_json()
        new_pass.record.left = inputs
        new_pass.record.suspects = earlier.suspects or None
        return new_pass

    @property
    def record(self) -> PassRecord:
        """The header's record of this pass."""
        return self.header.passes[-1]

    @property
    def number(self) -> int:
        """Number of the pass, from 1."""
        return self.record.number

    @property
    def gone(self) -> int:
        """Number of inputs that the ledger has but the store no longer contains."""
        if self.listing.selection.is_partial:
            return 0  # unknown
        return self.listing.known - self.listing.recorded

    def first_item(self) -> Item:
        """Return the first input of the plan, which has one."""
        return next(Plan(self.output.store, self.number, [0, 1]).chunk(0)).item

    def prepare(self) -> None:
        """Let the step fit itself to a sample of the inputs, once for an output."""
        if self.header.prepared is None:
            with tempfile.TemporaryDirectory(prefix="genray-model-") as folder:
                sample = PhotoSample(
                    self.source,
                    self.listing.sample.items,
                    self.step.settings.read,
                    levels=self.step.reads_levels,
                )
                self.header.prepared = dict(self.step.prepare(sample, Path(folder)))
                keep_model(self.output.store, Path(folder))
        for line in self.header.prepared.get("notes", ()):
            self.note(line)
        self.output.write_header(self.header)

    def end(self, rates: PassRates) -> PassEnd:
        """Clean up, and write the header."""
        ledger = self.output.ledger
        self.output.attempts.clear()
        # Rows that a worker of an earlier pass still wrote after this pass had listed are duplicates.
        late = {key for key in ledger.keys() - self.keys_before if pass_of_key(key) < self.number}
        ledger.remove(late)
        ledger.compact(self.number)
        for sink in self.sinks:
            sink.remove_orphans(ledger.keys())
        remove_plans(self.output.store)
        summary = ledger.summary()
        end = PassEnd(summary, recorded=summary.total - self.rows_before)
        if end.recorded >= self.inputs and self.step.joins_shards(self.source.container):
            self._join_shards()
        self.header.passes[-1] = replace(
            self.record, ended=timestamp(), failed=summary.status[FAILED], **asdict(rates)
        )
        if end.recorded >= self.inputs:
            self.header.again = None
        self.output.write_header(self.header)
        return end

    def _join_shards(self) -> None:
        """Write the shards of the output, then delete the pieces that they were made of."""
        settings = self.step.settings
        pieces = piece_paths(self.output.store)
        if not pieces and not self.inputs:
            return
        ShardJoiner(
            self.source,
            self.output.store,
            pieces,
            self.output.ledger.index(),
            lambda path: output_name(self.step.output_path(path), settings.write),
            settings.read.column,
            self.note,
        ).join()
        for piece in pieces:
            self.output.store.delete(piece)

    def _note_listing(self) -> None:
        listing = self.listing
        unread = listing.source.counts.unread_text
        self.note(
            f"{counted(listing.listed, 'image')} listed, {self.inputs:,} to process"
            + f"; {unread}" * bool(unread)
        )
        if listing.changed:
            self.note(f"{len(listing.changed)} changed since they were processed: processed again")
        if listing.retried:
            self.note(f"{len(listing.retried)} failed before: processed again")
        if listing.renamed_text:
            self.note(listing.renamed_text)
        if self.gone:
            self.note(f"{self.gone} images of the ledger are no longer in the input: their outputs remain")
        if self.earlier.attempts >= CAREFUL_AFTER:
            self.note(
                f"the run was killed {self.record.died} times in a row: its next images are processed one at "
                "a time in a process apart, in case one of them is the cause"
            )
        for path, kills in [*self.earlier.suspects.items()][:_MOST_PROBLEMS]:
            self.note(
                f"kills of the run while only {visible(path)} was in progress: {kills}; it is processed "
                "last, in a process apart" + " (leave it out if that goes on)" * (kills >= _MANY_KILLS)
            )
        for bad in listing.problems[:_MOST_PROBLEMS]:
            self.note(f"not listed: {visible(bad.path)} ({visible(bad.detail)})")


@dataclass(frozen=True)
class PassEnd:
    """Summary of the ledger after a pass, and the number of the pass's inputs in it."""

    summary: LedgerSummary
    recorded: int


def _open_sinks(step: Step[Any], source: ItemSource, output: Output) -> list[Sink | TableSink]:
    joined = step.joins_shards(source.container)
    sinks: list[Sink | TableSink] = [open_sink(output.store, step.settings.write, joined=joined)]
    schema = step.schema()
    if schema is not None:
        sinks.append(TableSink(output.store, step.table, schema))
    return sinks


def _take_over(
    step: Step[Any], output: Output, settings: Settings, target: str
) -> tuple[EarlierKills, RunHeader]:
    """Take the output over from earlier passes; with --retry all, their results are deleted.

    Returns:
        What is known of killed passes, and the header with the new pass.
    """
    identity = dict(step.identity())
    unfinished = output.attempts.unfinished()
    output.attempts.clear()
    before = output.read_header() or RunHeader(target)
    lasting = {key: value for key, value in settings.items() if not may_change(key)}
    again = step.settings.retry == "all"
    # An interrupted --retry all resumes: if it restarted, it might never finish.
    goes_on = again and before.again == lasting
    keys = output.ledger.keys()
    if again and not goes_on:
        if before.settings.get("write.container") == "files":
            _delete(output, output.ledger.outputs())
        output.ledger.clear()
    elif not goes_on:
        output.check_same_run(target, settings, identity, flatten(type(step.settings)()))
    number = 1 + max([0, *(each.number for each in before.passes), *map(pass_of_key, keys)])
    last = before.passes[-1] if before.passes else PassRecord(0)
    died = 0 if last.ended is not None or not unfinished else (last.died or 0) + 1
    header = RunHeader(
        target=target,
        settings=dict(settings),
        identity=identity,
        prepared=None if again and not goes_on else before.prepared,
        again=lasting if again else before.again,
        passes=[*before.passes, PassRecord(number, timestamp(), died)],
    )
    return _earlier_kills(last, died, unfinished), header


def _earlier_kills(last: PassRecord, died: int, unfinished: Sequence[Attempt]) -> EarlierKills:
    """Return what is known of killed passes.

    Args:
        last: record of the last pass.
        died: passes in a row that were killed.
        unfinished: attempts that they left.
    """
    if last.ended is not None:
        return EarlierKills()
    suspects = Counter(last.suspects or {})
    suspects.update(attempt.suspect for attempt in unfinished if attempt.suspect)
    all_known = all(attempt.suspect for attempt in unfinished)
    return EarlierKills(0 if all_known else min(died, CAREFUL_AFTER), suspects)


def _drop_results(
    output: Output, sinks: Iterable[Sink | TableSink], settings: BulkSettings, paths: Set[str]
) -> None:
    """Delete the results of the inputs `paths`."""
    if settings.write.container == "files":  # the sinks delete the parts of other results
        _delete(output, output.ledger.outputs(paths))
    for sink in sinks:
        sink.drop(paths)
    output.ledger.drop(paths)


def _delete(output: Output, paths: Iterable[str]) -> None:
    for path in paths:
        output.store.delete(path)
