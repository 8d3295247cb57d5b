"""The bulk engine: bundle + store -> store, for any step, from a few images to millions.

A run is as many passes as it takes: each lists the inputs, leaves out what the ledger has, and hands the rest
to workers in chunks. Killed anywhere, the same command goes on.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from genray.errors import BulkError, DataError, Interrupted
from genray.progress import Display
from genray.resources import Demand, Resources
from genray.settings import flatten
from genray.stopping import stoppable
from pipelines.assignment import Assignment, keep_model, step_name
from pipelines.ledger import FAILED, Summary
from pipelines.listing import Listing
from pipelines.output import Output, now
from pipelines.plan import chunk_size, remove_plans, write_plan
from pipelines.pool import Here, OnRay, Pool
from pipelines.report import write_report
from pipelines.sample import Sample
from pipelines.settings import BulkSettings
from pipelines.sinks import Sink, TableSink, open_sink
from pipelines.sources import Source, open_source
from pipelines.step import Step
from pipelines.watching import Watcher

_FEW = 128  # inputs that one process has done before Ray's workers are up


class Bulk:
    """What the command needs of a bulk target."""

    def __init__(self, step: type[Step[Any]]) -> None:
        self.step = step
        self.settings_class = step.settings_class

    def prepare(
        self, settings: BulkSettings, target: str, name: str | None, note: Callable[[str], None]
    ) -> PreparedBulk:
        """Find what is wrong with the settings, the bundle, the input and the output. `name` is not used:
        a bulk run is known by its output.

        Raises:
            UsageError, BundleError: the run cannot work.
        """
        return PreparedBulk(self.step(settings), target)


class PreparedBulk:
    """A bulk run that was checked."""

    def __init__(self, step: Step[Any], target: str) -> None:
        self._step, self._target = step, target
        self._settings: BulkSettings = step.settings
        _apart(self._settings)
        self._said = list(step.check())
        self._source: Source = open_source(self._settings.input, self._settings.read)
        self._few = _at_most(self._source, _FEW)
        self._output = Output(self._settings.output)
        self._record = flatten(self._settings)
        self._identity = dict(step.identity())
        if self._settings.retry != "all":
            self._output.check(target, self._record, self._identity)

    @property
    def lines(self) -> Sequence[str]:
        """What will be done, for a person."""
        return [*self._said, f"from {self._settings.input}", f"to {self._settings.output}"]

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self._settings.output)

    def needs_ray(self, attached: bool) -> bool:
        """Whether Ray has to run: not for a few images, which are done before it has started."""
        workers = self._settings.work.workers
        return attached or (not self._few if workers is None else workers > 0)

    def demand(self, have: Resources) -> Demand:
        """What it asks for, where there is `have`."""
        if not self.needs_ray(False):
            return Demand((1, 1), 1.0, float(self._gpu(have)), 0.0, "work")
        work, gpu = self._settings.work, self._gpu(have)
        each = work.cpus_per_worker or 1
        fit = int(have.gpus) if gpu else max(1, int(have.cpus) // each)
        # A pool that takes every CPU leaves none to what Ray runs beside it, and hangs without a word.
        return Demand((work.workers or fit,) * 2, each * 0.9, float(gpu), 0.0, "work")

    def run(self, display: Display, have: Resources, attached: bool) -> dict[str, Any]:
        """Do what is left, to the end.

        Returns:
            The outcome: target, run (the output), what the ledger says altogether, and of this pass: left,
            images_per_second, seconds.

        Raises:
            Interrupted: it was asked to stop.
            BulkError: most images fail, or some were lost.
            StorageFull: there is no room.
        """
        began = time.monotonic()
        with self._output.locked():
            header = self._begin()
            sink = open_sink(self._output.store, self._settings.write)
            schema = self._step.schema()
            table = None if schema is None else TableSink(self._output.store, self._step.table, schema)
            sinks: list[Sink | TableSink] = [sink] if table is None else [sink, table]
            inputs, listing = self._list(header, sinks, display.note)
            watcher = Watcher(inputs, self._settings.work, display)
            if inputs:
                header = self._prepare(header, listing, display.note)
                gone = self._work(header, inputs, watcher, have, attached, display.note)
            else:
                gone = False
                display.note("nothing is left to do")
            summary = self._end(header, sinks)
            if gone:
                raise Interrupted(
                    f"stopped: {inputs - watcher.finished} images are left, {summary.total} are recorded",
                    where=self._output.location,
                    hint="the same command goes on from there",
                )
            if watcher.finished < inputs:
                raise BulkError(
                    f"{inputs - watcher.finished} images were not recorded",
                    where=self._output.location,
                    hint="give the same command again: it does them",
                )
            outcome = {
                "target": self._target,
                "run": self._output.location,
                **summary.as_json(),
                "this_pass": {"images": inputs, **watcher.figures()},
                "seconds": round(time.monotonic() - began, 2),
            }
            report = write_report(self._output, self._source, self._settings, header, outcome)
            return outcome | {"report": report}

    def _gpu(self, have: Resources) -> bool:
        wanted = self._settings.work.gpu
        return self._step.can_use_gpu and (have.gpus >= 1 if wanted is None else wanted)

    def _begin(self) -> dict[str, Any]:
        """Take the output over from whoever wrote to it before, and write its header."""
        output = self._output
        output.attempts.clear()
        if self._settings.retry == "all":
            output.ledger.clear()
            header: dict[str, Any] = {}
        else:
            header = output.check(self._target, self._record, self._identity)
        passes = header.get("passes", [])
        header |= {
            "target": self._target,
            "settings": self._record,
            "identity": self._identity,
            "prepared": header.get("prepared"),
            "passes": [*passes, {"number": len(passes) + 1, "started": now()}],
        }
        header.pop("format", None)
        output.write_header(header)
        return header

    def _list(
        self, header: dict[str, Any], sinks: Sequence[Sink | TableSink], note: Callable[[str], None]
    ) -> tuple[int, Listing]:
        """Write the plan of this pass; returns how many inputs it has."""
        store, ledger = self._output.store, self._output.ledger
        number = header["passes"][-1]["number"]
        remove_plans(store)
        keys = ledger.keys()
        for sink in sinks:
            sink.remove_orphans(keys)
        ledger.drop_problems()
        listing = Listing(self._source, self._step, ledger.known(), note)
        inputs = write_plan(store, number, listing.left())
        again = {*listing.changed, *listing.retried}
        for sink in sinks:
            sink.drop(again)
        ledger.drop(again)
        if listing.problems:
            ledger.add_problems(number, listing.problems)
        note(f"{listing.listed} images, {inputs} to do")
        if listing.changed:
            note(f"{len(listing.changed)} have changed since they were done: done again")
        if listing.retried:
            note(f"{len(listing.retried)} failed before: tried again")
        for bad in listing.problems[:5]:
            note(f"not listed: {bad.path}: {bad.detail}")
        header["passes"][-1] |= {"listed": listing.listed, "left": inputs}
        return inputs, listing

    def _prepare(
        self, header: dict[str, Any], listing: Listing, note: Callable[[str], None]
    ) -> dict[str, Any]:
        """Let the step fit itself to a sample of the inputs, once for an output."""
        if header["prepared"] is None:
            with tempfile.TemporaryDirectory(prefix="genray-model-") as folder:
                header["prepared"] = dict(
                    self._step.prepare(Sample(self._source, listing.sample, self._settings), Path(folder))
                )
                keep_model(self._output.store, Path(folder))
        for line in header["prepared"].get("notes", ()):
            note(line)
        self._output.write_header(header)
        return header

    def _work(
        self,
        header: Mapping[str, Any],
        inputs: int,
        watcher: Watcher,
        have: Resources,
        attached: bool,
        note: Callable[[str], None],
    ) -> bool:
        """Let workers do the plan; returns whether it was asked to stop before its end."""
        demand, ray = self.demand(have), self.needs_ray(attached)
        workers = demand.workers[0]
        chunk = chunk_size(inputs, workers if ray else 0)
        each = self._settings.work.cpus_per_worker or (1 if ray else max(1, int(have.cpus)))
        assignment = Assignment(
            step=step_name(type(self._step)),
            settings=self._settings.model_dump(mode="json"),
            number=header["passes"][-1]["number"],
            inputs=inputs,
            chunk=chunk,
            threads=each,
            gpu=self._gpu(have),
            header=header["prepared"],
        )
        pool: Pool = OnRay(workers, demand.cpus_per_worker) if ray else Here()
        with watcher, stoppable(lambda: watcher.stopping, partial(_stop, watcher, note)):
            pool.run(assignment, -(-inputs // chunk), watcher.watch, note)
        if watcher.failing:
            raise watcher.failing
        return watcher.stopping and watcher.finished < inputs

    def _end(self, header: dict[str, Any], sinks: Sequence[Sink | TableSink]) -> Summary:
        """Tidy up; returns what the ledger says altogether."""
        ledger = self._output.ledger
        ledger.compact(header["passes"][-1]["number"])
        keys = ledger.keys()
        for sink in sinks:
            sink.remove_orphans(keys)
        remove_plans(self._output.store)
        self._output.attempts.clear()
        summary = ledger.summary()
        header["passes"][-1] |= {"ended": now(), FAILED: summary.status[FAILED]}
        self._output.write_header(header)
        return summary


def _apart(settings: BulkSettings) -> None:
    """The output must not be listed as input the next time."""
    inside = f"{settings.output.rstrip('/')}/".startswith(f"{settings.input.rstrip('/')}/")
    if inside:
        raise DataError(
            f"the output {settings.output} is inside of the input",
            where="output",
            hint="give another folder: the results would be taken for inputs the next time",
        )


def _at_most(source: Source, count: int) -> bool:
    """Whether `source` has at most `count` inputs; more are not listed.

    Raises:
        DataError: it has none.
    """
    found = 0
    for found, _ in enumerate(source.items(lambda bad: None), start=1):
        if found > count:
            return False
    if not found:
        raise DataError(
            "no images there", where="input", hint="give a folder with PNG, JPEG, WebP or TIFF files"
        )
    return True


def _stop(watcher: Watcher, note: Callable[[str], None]) -> None:
    watcher.stopping = True
    note("stopping after what is in hand (once more: stop at once)")
