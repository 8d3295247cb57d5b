"""The bulk engine: bundle + store -> store, for any step, from a few images to millions.

A run is as many passes as it takes: each lists the inputs, leaves out what the ledger has, and hands the rest
to workers in chunks. Killed anywhere, the same command goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genray.errors import BulkError, Interrupted
from genray.interrupts import stop_on_signals
from genray.io.bad_input import BadInput
from genray.io.sources import ItemSource, open_source
from genray.progress import Display
from genray.settings.base import flatten
from genray.targets import Demand, Resources
from genray.text import visible
from pipelines.engine.bulk_pass import Pass, PassEnd
from pipelines.engine.outcome import BulkOutcome, PassOutcome
from pipelines.engine.plan import check_listing
from pipelines.engine.pool import Assignment, LocalPool, RayPool, WorkerPool, step_name
from pipelines.engine.progress_metrics import PassProgress
from pipelines.engine.report import report_location, write_report
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step
from pipelines.storage.ledger import FAILED
from pipelines.storage.output import Output, check_apart

_CPUS_OF_ONE_PROCESS = 8
_INPUTS_OF_A_THREAD = 16  # that another worker is worth
_FEW_INPUTS = 128  # that one process has done before Ray's workers are up


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
        step = self.step.load(settings)
        check_apart(settings.input, settings.output)
        lines = [*step.check(), f"from {settings.input}", f"to {settings.output}"]
        source = open_source(settings.input, settings.read)
        is_small = _has_few_inputs(source)
        output = Output.create(settings.output)
        flat_settings = flatten(settings)
        if settings.retry != "all":
            output.check_same_run(target, flat_settings, step.identity())
        was_begun = output.read_header() is not None or output.ledger.keys()
        if not was_begun and not settings.overwrite:
            output.check_unused()
        return PreparedBulk(target, step, source, output, flat_settings, lines, is_small)


@dataclass(frozen=True)
class PreparedBulk:
    """A bulk run that was checked.

    Args:
        target: of the command.
        step: what is done.
        source: the inputs.
        output: where the results go.
        flat_settings: of the run, as its header has them.
        lines: what will be done, for a person.
        is_small: whether there are few inputs.
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
        """Of the run."""
        settings: BulkSettings = self.step.settings
        return settings

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self.settings.output)

    def needs_ray(self, attached: bool) -> bool:
        """Whether Ray has to run: not for a few images, which are done before it has started, nor on a
        machine that the threads of one process keep busy."""
        if attached:
            return True
        if self.settings.work.workers is not None:
            return self.settings.work.workers != 0
        return not self.is_small and (_cpus() > _CPUS_OF_ONE_PROCESS or torch.cuda.device_count() > 1)

    def demand(self, have: Resources) -> Demand:
        """What it asks for, where there is `have`."""
        gpu = self._uses_gpu(have)
        if not self.needs_ray(False):
            return Demand((1, 1), 1.0, float(gpu), 0.0, "work")
        fit = int(have.gpus) if gpu else max(1, int(have.cpus) // self._cpus_per_worker)
        workers = self.settings.work.workers or fit
        return Demand((workers, workers), self._cpus_per_worker, float(gpu), 0.0, "work")

    def examine(self) -> Sequence[str]:
        """List all inputs, for a dry run; says what was found."""
        problems: list[BadInput] = []
        count = sum(1 for _ in self.source.items(problems.append))
        unread = self.source.counts.unread_text
        lines = [f"{count} images" + f"; {unread}" * bool(unread)]
        return lines + [f"not listed: {visible(bad.path)}: {visible(bad.detail)}" for bad in problems[:5]]

    def run(self, display: Display, have: Resources, attached: bool) -> BulkOutcome:
        """Do what is left, to the end.

        Raises:
            Interrupted: it was asked to stop.
            BulkError: most images fail, or some were lost.
            StorageFull: there is no room.
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
                display.note("nothing is left to do")
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
        """Let workers do the plan."""
        with_ray = self.needs_ray(attached)
        workers = self._count_workers(this_pass.inputs, have, with_ray=with_ray)
        assignment = Assignment(
            step=step_name(type(self.step)),
            settings=self._worker_settings().model_dump(mode="json"),
            number=this_pass.number,
            inputs=this_pass.inputs,
            workers=workers,
            threads=self._cpus_per_worker,
            gpu=self._uses_gpu(have),
            prepared=this_pass.header.prepared or {},
            crashed=this_pass.crashed,
        )
        pool: WorkerPool = RayPool(workers, self._cpus_per_worker) if with_ray else LocalPool(workers)

        def watch(counts: Mapping[str, float]) -> bool:
            return progress.update(counts) or self.output.lost

        with progress, stop_on_signals(lambda: progress.stop_requested, progress.request_stop):
            pool.run(assignment, watch, progress.note_once)

    def _worker_settings(self) -> BulkSettings:
        """Those of the run, and what the inputs lie in: so that no worker has to look through all of them."""
        read = self.settings.read.model_copy(update={"container": self.source.container})
        return self.settings.model_copy(update={"read": read})

    def _count_workers(self, inputs: int, have: Resources, *, with_ray: bool) -> int:
        if with_ray:
            return self.demand(have).workers[0]
        if self._uses_gpu(have):
            return 1
        fit = max(1, int(have.cpus) // self._cpus_per_worker)
        return min(fit, max(1, inputs // _INPUTS_OF_A_THREAD))  # each takes a while to get ready

    def _check_end(self, this_pass: Pass, progress: PassProgress, end: PassEnd) -> None:
        """Check that the pass came to a good end."""
        left = this_pass.inputs - end.recorded
        location = self.output.location
        if progress.failure is not None:
            raise progress.failure
        if left and self.output.lost:
            raise BulkError("another run took this output over", where=location)
        if left and progress.stop_requested:
            raise Interrupted(
                f"stopped: {left} images are left, {end.recorded} were done",
                where=location,
                hint="the same command goes on from there",
            )
        if left:
            raise BulkError(
                f"{left} images were not recorded",
                where=location,
                hint="give the same command again: it does them",
            )
        total = end.summary.total
        if this_pass.inputs and end.summary.status[FAILED] == total:
            raise BulkError(
                f"all {total} images failed",
                where=location,
                hint=f"see why with `genray ledger {location} --list failed`",
            )

    @property
    def _cpus_per_worker(self) -> int:
        return self.settings.work.cpus_per_worker or 1

    def _uses_gpu(self, have: Resources) -> bool:
        return uses_gpu(self.step, have)


def uses_gpu(step: Step[Any], have: Resources) -> bool:
    """Whether the model of `step` runs on a GPU, where there is `have`."""
    wanted = step.settings.work.gpu
    return step.can_use_gpu and (have.gpus >= 1 if wanted is None else bool(wanted))


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _has_few_inputs(source: ItemSource) -> bool:
    """Whether `source` has at most `_FEW_INPUTS` inputs; more are not listed.

    Raises:
        DataError: it has none, or it is not known which column of Parquet files they are.
    """
    count = 0
    problems: list[BadInput] = []
    for count, _ in enumerate(source.items(problems.append), start=1):
        if count > _FEW_INPUTS:
            break
    check_listing(source, count, problems)
    return count <= _FEW_INPUTS
