"""The bulk engine: bundle + store -> store, for any step, from a few images to millions.

A run takes as many passes as it needs: each lists the inputs, leaves out those in the ledger, and gives the
rest to workers in chunks. After a kill at any moment, the same command resumes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from genray.errors import BulkError, Interrupted
from genray.interrupts import stop_on_signals
from genray.io.bad_input import BadInput
from genray.io.sources import ItemSource, is_list, list_root
from genray.progress import Display
from genray.settings.base import flatten
from genray.targets import Demand, Resources
from genray.text import visible
from pipelines.engine.assignment import Assignment, step_name
from pipelines.engine.bulk_pass import Pass, PassEnd
from pipelines.engine.plan import InputListing, check_listing
from pipelines.engine.planning.names import folded_hash
from pipelines.engine.planning.selection import Selection
from pipelines.engine.pool import LocalPool, RayPool, WorkerPool
from pipelines.engine.progress_metrics import PassProgress
from pipelines.engine.reporting.outcome import BulkOutcome, PassOutcome
from pipelines.engine.reporting.report import report_location, write_report
from pipelines.settings import BulkSettings, SelectionSettings
from pipelines.steps.base import Step
from pipelines.storage.ledger.index import LedgerIndex
from pipelines.storage.ledger.rows import FAILED
from pipelines.storage.output import Output, check_apart, check_not_within

_CPUS_OF_ONE_PROCESS = 8
_INPUTS_OF_A_THREAD = 16  # inputs from which another worker thread is worth it
_INPUTS_OF_PROCESSES = 4096  # inputs from which worker processes are worth it, which start in seconds
_FEW_INPUTS = 128  # inputs that one process finishes before Ray's workers have started


class Bulk:
    """A bulk target, as the command uses it."""

    def __init__(self, step: type[Step[Any]]) -> None:
        self.step = step
        self.settings_class = step.settings_class

    def prepare(
        self, settings: BulkSettings, target: str, name: str | None, note: Callable[[str], None]
    ) -> PreparedBulk:
        """Check the settings, the bundle, the input and the output. `name` is not used: a bulk run is
        identified by its output.

        Raises:
            UsageError, BundleError: settings, bundle, input or output cannot be used.
        """
        step = self.step.load(settings)
        if step.reads_store:
            check_apart(settings.input, settings.output)
            if is_list(settings.input):
                check_not_within(list_root(settings.input, settings.read.root), settings.output)
        selected = Selection(settings.read).text
        place = f"from {settings.input}" + f" ({selected})" * bool(selected)
        lines = [*step.check(), place, f"to {settings.output}"]
        source = step.open_source()
        source.carries = step.joins_shards(source.container)
        if source.carries:
            lines.append(
                "the output has the shards of the input, with all members or columns of their samples"
            )
        is_small = _has_few_inputs(source, settings.read)
        output = Output.create(settings.output)
        flat_settings = flatten(settings)
        if settings.retry != "all":
            output.check_same_run(target, flat_settings, step.identity(), flatten(type(step.settings)()))
        was_begun = output.read_header() is not None or output.ledger.keys()
        if not was_begun and not settings.overwrite:
            output.check_unused()
        return PreparedBulk(target, step, source, output, flat_settings, lines, is_small)


@dataclass(frozen=True)
class PreparedBulk:
    """A bulk run that was checked and can be run.

    Responsible for: the demand for resources, the choice of the worker pool, the passes, and the outcome. The
    work on images is the workers', the results' place is the output's.

    Args:
        target: name of the target.
        step: the step to run.
        source: the inputs.
        output: output of the results.
        flat_settings: settings as in the run's header.
        lines: lines that say what will be done.
        is_small: whether the input has few images.
    """

    target: str
    step: Step[Any]
    source: ItemSource
    output: Output
    flat_settings: Mapping[str, Any]
    lines: Sequence[str]
    is_small: bool

    @property
    def settings(self) -> BulkSettings:
        """Settings of the run."""
        settings: BulkSettings = self.step.settings
        return settings

    @property
    def folder(self) -> str:
        """Folder or URI that the results are written to."""
        return self.settings.output

    def needs_ray(self, attached: bool) -> bool:
        """Return whether Ray has to run: not for a few images, which are finished before Ray has started,
        nor on a machine that the threads of one process keep busy."""
        if attached:
            return True
        if self.settings.work.workers is not None:
            return self.settings.work.workers != 0
        return not self.is_small and (_cpus() > _CPUS_OF_ONE_PROCESS or torch.cuda.device_count() > 1)

    def demand(self, have: Resources) -> Demand:
        """Return the resources that the run needs, of the available ones `have`."""
        gpu = self._uses_gpu(have)
        if not self.needs_ray(False):
            return Demand((1, 1), 1.0, float(gpu), 0.0, "work")
        return Demand(
            self._worker_range(have),
            self._cpus_per_worker,
            float(gpu),
            0.0,
            "work",
            together=False,
            wait_minutes=self.settings.work.wait_minutes,
        )

    def _worker_range(self, have: Resources) -> tuple[int, int]:
        """Return the fewest and most workers of a pool of Ray."""
        workers = self.settings.work.workers
        if isinstance(workers, tuple):
            return workers
        if workers:
            return workers, workers
        each = (self._cpus_per_worker, float(self._uses_gpu(have)))
        return max(1, have.places(*each, coming=False)), max(1, have.places(*each))

    def examine(self) -> Sequence[str]:
        """List all inputs, for a dry run; says what was found."""
        listing = InputListing(self.source, self.step, LedgerIndex.empty(), lambda line: None)
        count = sum(1 for _ in listing.remaining())
        unread = self.source.counts.unread_text
        lines = [f"{count} images" + f"; {unread}" * bool(unread)]
        if repeated := listing.names.repeated():
            again = InputListing(self.source, self.step, LedgerIndex.empty(), lambda line: None)
            for planned in again.remaining():
                if folded_hash(planned.output) in repeated:
                    listing.note_renamed(planned.output)
        lines += filter(None, [listing.renamed_text])
        problems = listing.problems[:5]
        return lines + [f"not listed: {visible(bad.path)}: {visible(bad.detail)}" for bad in problems]

    def run(self, display: Display, have: Resources, attached: bool) -> BulkOutcome:
        """Process the remaining inputs to the end.

        Raises:
            Interrupted: a stop was requested.
            BulkError: too many images failed, or some were not recorded.
            StorageFull: no space.
        """
        began = time.monotonic()
        with self.output.locked():
            this_pass = Pass.begin(
                self.step, self.source, self.output, self.flat_settings, self.target, display.note
            )
            progress = PassProgress(this_pass.inputs, self.settings.work, display)
            if this_pass.inputs:
                this_pass.prepare()
                self._work(this_pass, progress, have, attached)
            else:
                display.note("all images are processed already; give --retry all to process them again")
            end = this_pass.end(progress.rates)
            self._check_end(this_pass, progress, end)
            outcome = BulkOutcome(
                target=self.target,
                run=self.output.location,
                summary=end.summary,
                this_pass=PassOutcome(
                    images=this_pass.inputs,
                    changed=len(this_pass.listing.changed),
                    retried=len(this_pass.listing.retried),
                    gone=this_pass.gone,
                    counts=self.source.counts,
                    notes=tuple(progress.notes),
                    rates=progress.rates,
                ),
                seconds=round(time.monotonic() - began, 2),
                report=report_location(self.output),
            )
            write_report(self.output, self.source, self.settings, this_pass.header, outcome)
            return outcome

    def _work(self, this_pass: Pass, progress: PassProgress, have: Resources, attached: bool) -> None:
        """Let workers process the plan."""
        with_ray = self.needs_ray(attached)
        workers = self._most_workers(this_pass.inputs, have, with_ray=with_ray)
        assignment = Assignment(
            step=step_name(type(self.step)),
            settings=self._worker_settings(workers).model_dump(mode="json"),
            number=this_pass.number,
            inputs=this_pass.inputs,
            workers=workers,
            threads=self._cpus_per_worker,
            gpu=self._uses_gpu(have),
            prepared=this_pass.header.prepared or {},
            earlier=this_pass.earlier,
            witness=self.source.witness(this_pass.first_item()) if with_ray else None,
        )
        pool: WorkerPool = (
            RayPool(self._worker_range(have), self._cpus_per_worker)
            if with_ray
            else LocalPool(workers, processes=this_pass.inputs >= _INPUTS_OF_PROCESSES)
        )

        def watch(counts: Mapping[str, float]) -> bool:
            return progress.update(counts) or self.output.lost

        try:
            with progress, stop_on_signals(lambda: progress.stop_requested, progress.request_stop):
                pool.run(assignment, watch, progress.note_once)
        except BaseException:
            with suppress(OSError):
                self.output.attempts.clear()  # what ends by an error or Ctrl-C was not killed at an image
            raise

    def _worker_settings(self, workers: int) -> BulkSettings:
        """Return the settings of each worker: with the container of the inputs, which would otherwise be
        looked for in all of them, and with its share of the rate of requests."""
        read = self.settings.read
        rate = read.fetch.requests_per_second / max(1, workers)
        fetch = read.fetch.model_copy(update={"requests_per_second": rate})
        read = read.model_copy(update={"container": self.source.container, "fetch": fetch})
        return self.settings.model_copy(update={"read": read})

    def _most_workers(self, inputs: int, have: Resources, *, with_ray: bool) -> int:
        if with_ray:
            return self._worker_range(have)[1]
        if self._uses_gpu(have):
            return 1
        fit = max(1, int(have.cpus) // self._cpus_per_worker)
        return min(fit, max(1, inputs // _INPUTS_OF_A_THREAD))  # each takes seconds to start

    def _check_end(self, this_pass: Pass, progress: PassProgress, end: PassEnd) -> None:
        """Raise if the pass did not finish well."""
        left = this_pass.inputs - end.recorded
        location = self.output.location
        if progress.failure is not None:
            raise progress.failure
        if left and self.output.lost:
            raise BulkError("another run has taken over this output", where=location)
        if left and progress.stop_requested:
            raise Interrupted(
                f"stopped: {end.recorded} images were processed, {left} are left",
                where=location,
                hint="the same command resumes from there",
            )
        if left:
            raise BulkError(
                f"{left} images are missing from the ledger",
                where=location,
                hint="give the same command again to process them",
            )
        total = end.summary.total
        if this_pass.inputs and end.summary.status[FAILED] == total:
            raise BulkError(
                f"all {total} images failed",
                where=location,
                hint=f"see the reasons with `genray ledger {location} --list failed`",
            )

    @property
    def _cpus_per_worker(self) -> int:
        return self.settings.work.cpus_per_worker or 1

    def _uses_gpu(self, have: Resources) -> bool:
        return uses_gpu(self.step, have)


def uses_gpu(step: Step[Any], have: Resources) -> bool:
    """Return whether the model of `step` runs on a GPU, of the available resources `have`."""
    wanted = step.settings.work.gpu
    return step.can_use_gpu and (have.gpus >= 1 if wanted is None else bool(wanted))


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _has_few_inputs(source: ItemSource, settings: SelectionSettings) -> bool:
    """Return whether at most `_FEW_INPUTS` inputs of `source` are processed; more are not listed.

    Raises:
        DataError: it has no inputs, or several columns of Parquet files contain images.
    """
    count = 0
    problems: list[BadInput] = []
    for count, _ in enumerate(source.items(problems.append), start=1):
        if count > _FEW_INPUTS:
            break
    check_listing(source, count, problems)
    return min(count, settings.limit or count, settings.random or count) <= _FEW_INPUTS
