"""The bulk engine: bundle + store -> store, for any step, from a few images to millions.

A run is as many passes as it takes: each lists the inputs, leaves out what the ledger has, and hands the rest
to workers in chunks. Killed anywhere, the same command goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from genray.errors import BulkError, DataError, Interrupted
from genray.interrupts import stoppable
from genray.io.sources import ItemSource, open_source
from genray.progress import Display
from genray.settings.base import flatten
from genray.targets import Demand, Resources
from pipelines.engine.bulk_pass import Pass
from pipelines.engine.plan import chunks
from pipelines.engine.pool import Assignment, LocalPool, RayPool, WorkerPool, step_name
from pipelines.engine.progress_metrics import Watcher
from pipelines.engine.report import write_report
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step
from pipelines.storage.ledger import FAILED, LedgerSummary
from pipelines.storage.output import Output, check_apart

_ONE_PROCESS = 8  # CPUs
_EACH = 16  # inputs that another worker is worth
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
        return PreparedBulk(self.step.load(settings), target)


class PreparedBulk:
    """A bulk run that was checked."""

    def __init__(self, step: Step[Any], target: str) -> None:
        self._step, self._target = step, target
        self._settings: BulkSettings = step.settings
        check_apart(self._settings.input, self._settings.output)
        self._said = list(step.check())
        self._source: ItemSource = open_source(self._settings.input, self._settings.read)
        self._few = _at_most(self._source, _FEW)
        self._output = Output(self._settings.output)
        self._record = flatten(self._settings)
        if self._settings.retry != "all":
            self._output.check(target, self._record, step.identity())
        begun = self._output.header() or self._output.ledger.keys()
        if not begun and not self._settings.overwrite:
            self._output.check_unused()

    @property
    def lines(self) -> Sequence[str]:
        """What will be done, for a person."""
        return [*self._said, f"from {self._settings.input}", f"to {self._settings.output}"]

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self._settings.output)

    def needs_ray(self, attached: bool) -> bool:
        """Whether Ray has to run: not for a few images, which are done before it has started, nor on a
        machine that the threads of one process keep busy."""
        workers = self._settings.work.workers
        if attached or workers is not None:
            return attached or workers != 0
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return not self._few and (cpus > _ONE_PROCESS or torch.cuda.device_count() > 1)

    def demand(self, have: Resources) -> Demand:
        """What it asks for, where there is `have`."""
        if not self.needs_ray(False):
            return Demand((1, 1), 1.0, float(self._gpu(have)), 0.0, "work")
        work, gpu = self._settings.work, self._gpu(have)
        each = work.cpus_per_worker or 1
        fit = int(have.gpus) if gpu else max(1, int(have.cpus) // each)
        return Demand((work.workers or fit,) * 2, each, float(gpu), 0.0, "work")

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
            this = Pass(self._step, self._source, self._output, self._record, self._target, display.note)
            watcher = Watcher(this.inputs, self._settings.work, display)
            if this.inputs:
                this.prepare()
                self._work(this, watcher, have, attached, display.note)
            else:
                display.note("nothing is left to do")
            summary = this.end(watcher.figures())
            self._judge(this, watcher, summary)
            outcome = {
                "target": self._target,
                "run": self._output.location,
                **summary.as_json(),
                "this_pass": {
                    "images": this.inputs,
                    "changed": len(this.listing.changed),
                    "retried": len(this.listing.retried),
                    "gone": this.gone,
                    "notes": list(watcher.notes),
                    **watcher.figures(),
                },
                "seconds": round(time.monotonic() - began, 2),
            }
            report = write_report(self._output, self._source, self._settings, this.header, outcome)
            return outcome | {"report": report}

    def _judge(self, this: Pass, watcher: Watcher, summary: LedgerSummary) -> None:
        """Whether the pass came to a good end."""
        left = this.inputs - this.recorded
        if watcher.failing:
            raise watcher.failing
        if left and self._output.lost:
            raise BulkError("another run took this output over", where=self._output.location)
        if left and watcher.stopping:
            raise Interrupted(
                f"stopped: {left} images are left, {this.recorded} were done",
                where=self._output.location,
                hint="the same command goes on from there",
            )
        if left:
            raise BulkError(
                f"{left} images were not recorded",
                where=self._output.location,
                hint="give the same command again: it does them",
            )
        if this.inputs and summary.status[FAILED] == summary.total:
            raise BulkError(
                f"all {summary.total} images failed",
                where=self._output.location,
                hint=f"see why with `genray ledger {self._output.location} --list failed`",
            )

    def _gpu(self, have: Resources) -> bool:
        wanted = self._settings.work.gpu
        return self._step.can_use_gpu and (have.gpus >= 1 if wanted is None else wanted)

    def _work(
        self, this: Pass, watcher: Watcher, have: Resources, attached: bool, note: Callable[[str], None]
    ) -> None:
        """Let workers do the plan."""
        ray, each = self.needs_ray(attached), self._settings.work.cpus_per_worker or 1
        workers = self.demand(have).workers[0]
        if not ray:  # each takes a while to get ready
            here = 1 if self._gpu(have) else max(1, int(have.cpus) // each)
            workers = min(here, max(1, this.inputs // _EACH))
        assignment = Assignment(
            step=step_name(type(self._step)),
            settings=self._settings.model_dump(mode="json"),
            number=this.number,
            inputs=this.inputs,
            workers=workers,
            threads=each,
            gpu=self._gpu(have),
            header=this.header["prepared"],
            crashed=this.crashed,
        )
        pool: WorkerPool = RayPool(workers, each) if ray else LocalPool(workers)
        said = partial(_say, watcher, note)

        def watch(counts: Mapping[str, float]) -> bool:
            return watcher.watch(counts) or self._output.lost

        with watcher, stoppable(lambda: watcher.stopping, partial(_stop, watcher, note)):
            pool.run(assignment, len(chunks(this.inputs, assignment.workers)) - 1, watch, said)


def _at_most(source: ItemSource, count: int) -> bool:
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


def _say(watcher: Watcher, note: Callable[[str], None], line: str) -> None:
    if line not in watcher.notes:  # all workers say the same
        watcher.notes.append(line)
        note(line)


def _stop(watcher: Watcher, note: Callable[[str], None]) -> None:
    watcher.stopping = True
    note("stopping after what is in hand (once more: stop at once)")
