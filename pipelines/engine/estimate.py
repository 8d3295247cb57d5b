"""Estimate of the duration of a bulk run, from a sample of its own images."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genray.errors import DataError
from genray.io.file_types import FileCounts
from genray.io.sources import ItemSource
from genray.io.store import open_store
from genray.targets import Resources
from genray.text import counted, duration
from pipelines.engine.assignment import Assignment, keep_model, step_name
from pipelines.engine.plan import InputListing, Plan, PlannedInput, check_listing, chunk_bounds, write_plan
from pipelines.engine.sample import PhotoSample
from pipelines.engine.target import uses_gpu
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step
from pipelines.storage.ledger.index import LedgerIndex
from pipelines.storage.ledger.ledger import Ledger
from pipelines.storage.ledger.rows import FAILED, TIMES, LedgerRow


@dataclass(frozen=True)
class SampleFigures:
    """Number of measured images, of failed ones, and the megapixels of an image."""

    images: int
    failed: int
    megapixels: float


@dataclass(frozen=True)
class Estimate:
    """Estimated duration of a bulk run.

    Args:
        images, gigabytes: size of the input; listing it took `listing_seconds`.
        counts: files at the input, by type.
        sample: figures of the sample.
        stage_seconds: seconds of an image in each stage.
        start_seconds: seconds until a worker is ready.
        images_per_second: speed of one worker.
        workers: workers on this machine, and their `hours`.
        workers_needed: workers for the time limit, and their `hours_with_them`.
    """

    images: int
    gigabytes: float
    counts: FileCounts
    listing_seconds: float
    sample: SampleFigures
    stage_seconds: Mapping[str, float]
    start_seconds: float
    images_per_second: float
    workers: int
    hours: float
    workers_needed: int
    hours_with_them: float

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = asdict(self)
        del values["counts"]
        return values | {"not_read": self.counts.as_json()}

    def rows(self, hours: float) -> Iterator[tuple[str, str]]:
        """Return names and values for the terminal; `hours` is the time limit."""
        size = f"{self.images}, {self.gigabytes:.3g} GB"
        yield "images", f"{size}, listed in {self.listing_seconds:.1f} s"
        if self.counts.unread_text:
            yield "not read", self.counts.unread_text
        sample = self.sample
        measured = f"{sample.images} of {sample.megapixels:.2g} megapixels"
        yield "sample", f"{measured}, {sample.failed} failed"
        stages = (f"{stage} {1e3 * seconds:.1f}" for stage, seconds in self.stage_seconds.items())
        yield "ms per image", "  ".join(stages)
        yield "one worker", f"{self.images_per_second:.3g} images/s"
        yield f"{self.workers} here", duration(self.hours * 3600)
        needed = f"{counted(self.workers_needed, 'worker')} ({duration(self.hours_with_them * 3600)})"
        yield f"in {hours:g} h", needed


def estimate(
    step: Step[Any], have: Resources, *, images: int, hours: float, note: Callable[[str], None]
) -> Estimate:
    """List the whole input, process a sample of it into a temporary folder with one worker, and extrapolate.

    Args:
        step: step to estimate; nothing is written to its output.
        have: available resources.
        images: number of images of the sample, at most 64.
        hours: time limit.

    Raises:
        DataError: no image could be measured.
    """
    settings: BulkSettings = step.settings
    note(step.check()[0])
    listed = _list_inputs(step, images, note)
    unread = listed.source.counts.unread_text
    note(
        f"{counted(listed.images, 'image')} listed; measuring {len(listed.sample)}"
        + f"; {unread}" * bool(unread)
    )
    gpu = uses_gpu(step, have)
    with tempfile.TemporaryDirectory(prefix="genray-plan-") as folder:
        measured = _measure(step, listed, Path(folder), settings.work.cpus_per_worker or 1, gpu=gpu)
    done = [row for row in measured.rows if row.status != FAILED]
    if not done:
        first = measured.rows[0]
        raise DataError(
            f"none of {len(measured.rows)} images could be processed; the first failed with "
            f"{first.reason}: {first.detail}",
            where=settings.input,
            hint="check that the input contains images that the bundle takes",
        )
    seconds_per_image = measured.work_seconds / len(measured.rows)
    workers = _count_workers(settings, have, gpu=gpu)
    workers_needed = max(1, math.ceil(listed.images * seconds_per_image / 3600 / hours))
    pixels = sum((row.width or 0) * (row.height or 0) for row in done)
    return Estimate(
        images=listed.images,
        gigabytes=round(listed.bytes / 1e9, 3),
        counts=listed.source.counts,
        listing_seconds=round(listed.seconds, 2),
        sample=SampleFigures(
            images=len(measured.rows),
            failed=len(measured.rows) - len(done),
            megapixels=round(pixels / len(done) / 1e6, 4),
        ),
        stage_seconds={name.removesuffix("_ms"): _mean_seconds(done, name) for name in TIMES},
        start_seconds=round(measured.start_seconds, 2),
        images_per_second=round(1 / seconds_per_image, 3),
        workers=workers,
        hours=round(listed.images * seconds_per_image / 3600 / workers, 6),
        workers_needed=workers_needed,
        hours_with_them=round(listed.images * seconds_per_image / 3600 / workers_needed, 6),
    )


@dataclass(frozen=True)
class _ListedInputs:
    images: int
    bytes: int
    source: ItemSource
    seconds: float
    sample: Sequence[PlannedInput]


@dataclass(frozen=True)
class _SampleTimes:
    """Ledger rows of the sample, and the seconds to start a worker and, after a warm-up, to process them."""

    rows: Sequence[LedgerRow]
    start_seconds: float
    work_seconds: float


def _list_inputs(step: Step[Any], sample: int, note: Callable[[str], None]) -> _ListedInputs:
    source = step.open_source()
    began = time.monotonic()
    listing = InputListing(source, step, LedgerIndex.empty(), note)
    images = 0
    size = 0
    for planned in listing.remaining():
        images += 1
        size += source.completed(planned.item).size
    seconds = time.monotonic() - began
    check_listing(source, listing.found, listing.problems)
    if not images:
        raise DataError(f"no input is in the selection ({listing.selection.text})", where="read")
    drawn = listing.sample.items[:sample]
    inputs = [PlannedInput(item, f"{index}/{Path(item.path).name}") for index, item in enumerate(drawn)]
    return _ListedInputs(images, size, source, seconds, inputs)


def _measure(
    step: Step[Any], listed: _ListedInputs, folder: Path, threads: int, *, gpu: bool
) -> _SampleTimes:
    """Process the sample with one worker, into `folder`."""
    sample = listed.sample
    read = step.settings.read.model_copy(update={"container": listed.source.container})
    settings = step.settings.model_copy(update={"output": str(folder), "read": read})
    store = open_store(str(folder))
    step = type(step).load(settings)  # nothing is written to the user's output
    with tempfile.TemporaryDirectory(prefix="genray-model-") as model_folder:
        items = [planned.item for planned in sample]
        photos = PhotoSample(listed.source, items, settings.read, levels=step.reads_levels)
        prepared = dict(step.prepare(photos, Path(model_folder)))
        keep_model(store, Path(model_folder))
    # The first images fill caches and compile: some are processed before the measurement.
    warm_up = sample[: max(1, len(sample) // 8)]
    write_plan(store, 1, warm_up)
    write_plan(store, 2, sample)
    began = time.monotonic()
    assignment = Assignment(
        step=step_name(type(step)),
        settings=settings.model_dump(mode="json"),
        number=1,
        inputs=len(warm_up),
        workers=1,
        threads=threads,
        gpu=gpu,
        prepared=prepared,
    )
    worker = assignment.open_worker()
    started = time.monotonic()
    worker.work(0, lambda counts: False)
    Ledger(store).clear()
    plan = Plan(store, 2, chunk_bounds(len(sample), 1))
    warm = time.monotonic()
    worker.worker.work(plan, 0, lambda counts: False)
    ended = time.monotonic()
    worker.close()
    rows = [LedgerRow(**row) for table in Ledger(store).tables() for row in table.to_pylist()]
    return _SampleTimes(rows, start_seconds=started - began, work_seconds=ended - warm)


def _mean_seconds(rows: Sequence[LedgerRow], name: str) -> float:
    return round(sum(getattr(row, name) or 0.0 for row in rows) / len(rows) / 1e3, 5)


def _count_workers(settings: BulkSettings, have: Resources, *, gpu: bool) -> int:
    workers = settings.work.workers
    if workers is not None:
        return workers[1] if isinstance(workers, tuple) else max(1, workers)
    return max(1, have.places(settings.work.cpus_per_worker or 1, float(gpu)))
