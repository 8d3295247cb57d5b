"""An estimate: how long a bulk run would take, from a sample of its own images."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genray.errors import DataError
from genray.io.sources import open_source
from genray.io.store import open_store
from genray.targets import Resources
from pipelines.engine.bulk_pass import InputSample
from pipelines.engine.chunk import LedgerRow
from pipelines.engine.plan import Listing, Plan, Planned, write_plan
from pipelines.engine.pool import Assignment, keep_model, step_name
from pipelines.settings import BulkSettings
from pipelines.steps.base import Step
from pipelines.storage.ledger import FAILED, Ledger, LedgerIndex


def estimate(
    step: Step[Any], have: Resources, *, images: int, hours: float, note: Callable[[str], None]
) -> dict[str, Any]:
    """List the whole input, do a sample of it into a temporary folder with one worker, and reckon.

    Args:
        step: what would be run; nothing is written to its output.
        have: what there is to run on.
        images: of the sample, at most 64.
        hours: in which it should be done.

    Returns:
        images, gigabytes, listing_seconds, sample (images, failed, megapixels of each), stage_seconds of an
        image, start_seconds, images_per_second of a worker, workers and hours here, workers_needed and
        their hours; plain JSON values.

    Raises:
        DataError: there is nothing to measure.
    """
    settings: BulkSettings = step.settings
    note(step.check()[0])
    source = open_source(settings.input, settings.read)
    listing, began = Listing(source, step, LedgerIndex.empty(), note), time.monotonic()
    total = total_bytes = 0
    for each in listing.left():
        total, total_bytes = total + 1, total_bytes + each.item.size
    listing_s = time.monotonic() - began
    if not total:
        raise DataError(
            "no images there", where="input", hint="give a folder with PNG, JPEG, WebP or TIFF files"
        )
    sample = [
        Planned(item, f"{index}/{Path(item.path).name}") for index, item in enumerate(listing.sample[:images])
    ]
    note(f"{total} images listed; measuring {len(sample)}")
    gpu = step.can_use_gpu and (have.gpus >= 1 if settings.work.gpu is None else settings.work.gpu)
    with tempfile.TemporaryDirectory(prefix="genray-plan-") as folder:
        rows, start_s, work_s = _measured(step, sample, Path(folder), settings.work.cpus_per_worker or 1, gpu)
    done = [row for row in rows if row["status"] != FAILED]
    if not done:
        raise DataError(
            f"none of {len(rows)} images could be done: {rows[0]['reason']}: {rows[0]['detail']}",
            where=settings.input,
            hint="see that these are images that the bundle takes",
        )
    each_s = work_s / len(rows)
    here = _workers(settings, have, gpu)
    needed = max(1, math.ceil(total * each_s / 3600 / hours))
    return {
        "images": total,
        "gigabytes": round(total_bytes / 1e9, 3),
        "listing_seconds": round(listing_s, 2),
        "sample": {
            "images": len(rows),
            FAILED: len(rows) - len(done),
            "megapixels": round(
                sum((r["width"] or 0) * (r["height"] or 0) for r in done) / len(done) / 1e6, 4
            ),
        },
        "stage_seconds": {
            stage: round(sum(row.get(f"{stage}_ms") or 0.0 for row in done) / len(done) / 1e3, 5)
            for stage in ("read", "decode", "model", "encode", "write")
        },
        "start_seconds": round(start_s, 2),
        "images_per_second": round(1 / each_s, 3),
        "workers": here,
        "hours": round(total * each_s / 3600 / here, 6),
        "workers_needed": needed,
        "hours_with_them": round(total * each_s / 3600 / needed, 6),
    }


def _measured(
    step: Step[Any], sample: list[Planned], folder: Path, threads: int, gpu: bool
) -> tuple[list[LedgerRow], float, float]:
    """The ledger's rows of the sample, and the seconds to start a worker and to do them, once warm."""
    settings = step.settings.model_copy(update={"output": str(folder)})
    store = open_store(str(folder))
    with tempfile.TemporaryDirectory(prefix="genray-model-") as model:
        source = open_source(settings.input, settings.read)
        header = dict(step.prepare(InputSample(source, [p.item for p in sample], settings), Path(model)))
        keep_model(store, Path(model))
    # The first images make caches and compile: some are done before the clock runs.
    warm = sample[: max(1, len(sample) // 8)]
    write_plan(store, 1, warm)
    write_plan(store, 2, sample)
    began = time.monotonic()
    values = settings.model_dump(mode="json")
    assignment = Assignment(step_name(type(step)), values, 1, len(warm), 1, threads, gpu, header)
    worker, _ = assignment.open()
    started = time.monotonic()
    worker.work(0, 1, lambda counts: False)
    Ledger(store).clear()
    worker.plan = Plan(store, 2, len(sample), 1)
    warmed = time.monotonic()
    worker.work(0, 2, lambda counts: False)
    ended = time.monotonic()
    worker.close()
    rows = [row for table in Ledger(store).tables() for row in table.to_pylist()]
    return rows, started - began, ended - warmed


def _workers(settings: BulkSettings, have: Resources, gpu: bool) -> int:
    if settings.work.workers is not None:
        return max(1, settings.work.workers)
    return max(1, int(have.gpus) if gpu else int(have.cpus) // (settings.work.cpus_per_worker or 1))
