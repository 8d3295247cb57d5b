"""Report of a bulk run: one page with results, failures, and images to look at."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from genray.errors import GenrayError
from genray.images.photo import Photo, read_photo
from genray.images.pixels import Pixels
from genray.io.bad_input import BadImage
from genray.io.sources import Item, ItemSource
from genray.report.page import Page, Picture
from genray.text import amount, change_in_bytes, duration, visible
from pipelines.engine.outcome import BulkOutcome, explain_reason, not_kept_table, reasons_table, times_table
from pipelines.settings import BulkSettings
from pipelines.steps.pixels import absolute_difference
from pipelines.storage.ledger import FAILED, STATUSES, LedgerRow, LedgerSummary, path_hashes
from pipelines.storage.output import Output, PassRecord, RunHeader

REPORT = "_genray/report.html"
_SCORES = ("noise", "change", "error", "score")
_COLUMNS = (
    *("path", "status", "reason", "detail", "format", "width", "height", "bytes_in", "bytes_out"),
    *("modified", "container", "position", "output", *_SCORES),
)
_BATCH_ROWS = 2**16  # ledger rows converted to Python objects at once
_MOST_FAILED = 20  # most rows of each reason
_SIDE = 256  # longest side of an image in pixels
_GAP = 6  # pixels between images


def report_location(output: Output) -> str:
    """Return the location of a run's report, a path or URI."""
    location = output.location
    if output.store.is_local:
        return f"{location.rstrip('/')}/{REPORT}"
    root, mark, query = location.partition("?")
    return f"{root.rstrip('/')}/{REPORT}{mark}{query}"


def write_report(
    output: Output, source: ItemSource, settings: BulkSettings, header: RunHeader, outcome: BulkOutcome
) -> None:
    """Write the report of a run to `_genray/report.html` under the output's root.

    Images are read again; images that are missing or broken meanwhile are left out, and so are outputs in
    shards.

    Raises:
        StorageFull: no space.
    """
    prepared = header.prepared or {}
    rows = _ReportRows.find(output, settings, prepared.get("error_limit"))
    began = header.passes[0].started[:10]
    page = Page(header.target, visible(f"{settings.input} to {settings.output}, started {began}"))
    _add_headline(page, outcome, rows)
    _add_prepared(page, prepared)
    _add_examples(page, rows, _PictureMaker(output, source, settings))
    _add_reasons(page, outcome.summary, rows)
    _add_not_kept(page, outcome.summary)
    _add_times(page, outcome.summary)
    _add_settings(page, header.settings, header.passes)
    output.store.write(REPORT, page.html().encode())


@dataclass(frozen=True)
class _RankedRow:
    rank: float
    row: LedgerRow


class _TopRows:
    """The `count` rows of highest rank among those above `least`, and the number of those."""

    def __init__(self, count: int, least: float = 0.0) -> None:
        self._count = count
        self._least = least
        self.ranked: list[_RankedRow] = []
        self.number_above = 0

    def add(self, ranks: NDArray[np.float64], batch: pa.RecordBatch) -> None:
        """Consider the rows of `batch`; rows with rank NaN are ignored."""
        places = np.flatnonzero(ranks > self._least)
        self.number_above += len(places)
        if self.ranked and len(self.ranked) == self._count:
            places = places[ranks[places] > self.ranked[-1].rank]
        if not self._count or not len(places):
            return
        if len(places) > self._count:
            places = places[np.argpartition(ranks[places], -self._count)[-self._count :]]
        rows = batch.take(pa.array(places)).to_pylist()
        for rank, row in zip(ranks[places].tolist(), rows, strict=True):
            self.ranked.append(_RankedRow(rank, LedgerRow(**row)))
        self.ranked = sorted(self.ranked, key=lambda each: (-each.rank, each.row.path))[: self._count]


class _ReportRows:
    """The parts of the ledger that the page shows, found in one pass over its rows."""

    def __init__(self, samples: int, seed: int, error_limit: float | None) -> None:
        self.error_limit = error_limit
        self.random = _TopRows(samples)
        self.extremes = {name: _TopRows(samples) for name in _SCORES}
        self.extremes["error"] = _TopRows(samples, math.inf if error_limit is None else error_limit)
        self.failed: dict[str, list[LedgerRow]] = {}
        """First rows of each reason."""
        self._mask = np.random.default_rng(seed).integers(0, 2**64, dtype=np.uint64)

    @classmethod
    def find(cls, output: Output, settings: BulkSettings, error_limit: float | None) -> _ReportRows:
        """Read the ledger of `output`."""
        rows = cls(settings.report.samples, settings.report.seed, error_limit)
        for table in output.ledger.tables(_COLUMNS):
            for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
                rows.add(batch)
        return rows

    def add(self, batch: pa.RecordBatch) -> None:
        """Consider some rows."""
        failed = pc.equal(batch.column("status"), FAILED)
        self._add_failed(batch.filter(failed))
        batch = batch.filter(pc.invert(failed))
        # The choice depends only on seed and path: runs over the same images show the same ones.
        self.random.add((path_hashes(batch.column("path")) ^ self._mask).astype(np.float64), batch)
        for name, top in self.extremes.items():
            top.add(batch.column(name).to_numpy(zero_copy_only=False).astype(np.float64), batch)

    def _add_failed(self, batch: pa.RecordBatch) -> None:
        for reason in pc.unique(batch.column("reason")).to_pylist():
            rows = self.failed.setdefault(reason, [])
            if len(rows) < _MOST_FAILED:
                matching = batch.filter(pc.equal(batch.column("reason"), reason))
                first = matching.slice(0, _MOST_FAILED - len(rows))
                rows += [LedgerRow(**row) for row in first.to_pylist()]


class _PictureMaker:
    """Draws inputs beside their outputs."""

    def __init__(self, output: Output, source: ItemSource, settings: BulkSettings) -> None:
        self._output = output
        self._source = source
        self._settings = settings
        self._pictures: dict[str, Picture | None] = {}

    def picture(self, row: LedgerRow) -> Picture | None:
        """Draw input, output and their difference, as far as they exist; None if the input cannot be read."""
        if row.path not in self._pictures:
            self._pictures[row.path] = self._make(row)
        return self._pictures[row.path]

    def _make(self, row: LedgerRow) -> Picture | None:
        before = self._input(row)
        if before is None:
            return None
        panels = {"input": _panel(before)}
        after = self._output_photo(row)
        if after is not None:
            panels["output"] = _panel(after)
            # An output with a score is a heat map.
            if before.pixels.shape == after.pixels.shape and row.score is None:
                difference, factor = _difference(_eight_bit(before.pixels), _eight_bit(after.pixels))
                panels[f"difference x {factor}"] = _thumbnail(difference)
        caption = f"{' | '.join(panels)}: {_caption(row)}"
        return Picture(_png_row(list(panels.values())), visible(row.path), caption)

    def _input(self, row: LedgerRow) -> Photo | None:
        item = Item(row.path, row.bytes_in or 0, row.modified or 0, row.container or "", row.position or 0)
        return self._photo(lambda: self._source.read(item, self._settings.read.max_bytes))

    def _output_photo(self, row: LedgerRow) -> Photo | None:
        output = row.output
        if not output or self._settings.write.container != "files":
            return None
        return self._photo(lambda: self._output.store.read(output, self._settings.read.max_bytes))

    def _photo(self, read: Callable[[], bytes]) -> Photo | None:
        # The file may have changed, and libraries raise many errors: the page does without the picture.
        with suppress(BadImage, GenrayError, OSError, ValueError, LookupError, MemoryError):
            return read_photo(read(), self._settings.read)
        return None


def _add_headline(page: Page, outcome: BulkOutcome, rows: _ReportRows) -> None:
    summary = outcome.summary
    cards = []
    for name in STATUSES:
        count = summary.status[name]
        cards.append((name, f"{count:,}", f"{100 * count / max(1, summary.total):.3g} %"))
    cards.append(("read", amount(summary.bytes_in), ""))
    change = change_in_bytes(summary.bytes_in, summary.bytes_out)
    cards.append(("written", amount(summary.bytes_out), change))
    this_pass = outcome.this_pass
    if this_pass.images:
        spent = f"{this_pass.images:,} images in {duration(outcome.seconds)}"
        cards.append(("images per second", f"{this_pass.rates.images_per_second:,.1f}", spent))
    if rows.error_limit is not None:
        beyond = f"{rows.extremes['error'].number_above:,}"
        cards.append(("unlike the training images", beyond, f"error above {rows.error_limit:.4g}"))
    page.headline(cards)
    if this_pass.counts.unread_text:
        page.paragraph(f"Of the input {this_pass.counts.unread_text}.")


def _add_prepared(page: Page, prepared: Mapping[str, Any]) -> None:
    """Add the results of the step's `prepare`, such as rates and distortions."""
    for note in prepared.get("notes", ()):
        page.paragraph(visible(note))
    for table in prepared.get("tables", ()):
        page.section(visible(table["title"]))
        page.table(table["columns"], [[_cell(value) for value in row] for row in table["rows"]])
        if table.get("note"):
            page.paragraph(table["note"])
    for picture in prepared.get("pictures", ()):
        with suppress(ValueError):  # an incomplete PNG file
            data = base64.b64decode(picture["png_base64"], validate=True)
            page.picture(Picture(data, picture["title"], picture.get("caption", "")))


def _add_examples(page: Page, rows: _ReportRows, maker: _PictureMaker) -> None:
    for title, top in (
        ("Random images", rows.random),
        ("Noisiest images", rows.extremes["noise"]),
        ("Most changed images", rows.extremes["change"]),
        ("Most anomalous images", rows.extremes["score"]),
        ("Images unlike those of the training", rows.extremes["error"]),
    ):
        pictures = [picture for each in top.ranked if (picture := maker.picture(each.row))]
        if pictures:
            page.section(title)
            page.pictures(pictures)


def _add_reasons(page: Page, summary: LedgerSummary, rows: _ReportRows) -> None:
    if summary.reasons:
        page.section("Skipped and failed images")
        columns, *cells = reasons_table(dict(summary.reasons.most_common()), summary.total)
        page.table(columns, cells)
    if rows.failed:
        lines = []
        for reason, failed in sorted(rows.failed.items()):
            lines += [[visible(row.path), reason, visible(row.detail or "")] for row in failed]
            more = summary.reasons[reason] - len(failed)
            if more > 0:
                lines.append([f"{more:,} more: genray ledger --list failed", reason, ""])
        with page.details("Failed images"):
            page.table(["path", "reason", "detail"], lines)


def _add_not_kept(page: Page, summary: LedgerSummary) -> None:
    if summary.not_kept:
        page.section("Not kept")
        columns, *cells = not_kept_table(summary.not_kept, summary.total)
        page.table(columns, cells, "What images carry and the format of their outputs has no place for")


def _add_times(page: Page, summary: LedgerSummary) -> None:
    if any(summary.seconds.values()):
        page.section("Time by stage")
        columns, *cells = times_table(summary.seconds, summary.total)
        page.table(columns, cells, "Sum over all workers, whose stages overlap")


def _add_settings(page: Page, settings: Mapping[str, Any], passes: Sequence[PassRecord]) -> None:
    page.section("Made with")
    columns = ["pass", "started", "ended", "images listed", "to process", "failed at the end"]
    cells = []
    for each in passes:
        values = (each.number, each.started, each.ended, each.listed, each.left, each.failed)
        cells.append([_cell(value) for value in values])
    page.table(columns, cells)
    with page.details(f"All {len(settings)} settings"):
        page.table(["setting", "value"], [[key, visible(_cell(value))] for key, value in settings.items()])


def _panel(photo: Photo) -> Pixels:
    """Return (h, w, 3) uint8 to look at, with transparency over white."""
    thumbnail = _thumbnail(_eight_bit(photo.pixels))
    if photo.alpha is None:
        return thumbnail
    opacity = _thumbnail(_eight_bit(photo.alpha)[..., None]) / 255
    return np.rint(255 - (255 - thumbnail) * opacity).astype(np.uint8)


def _eight_bit(pixels: NDArray[Any]) -> Pixels:
    """Return 8 bits per value; much larger images are thinned to every second, third ... pixel."""
    step = max(1, max(pixels.shape[:2]) // (8 * _SIDE))
    pixels = pixels[::step, ::step]
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def _thumbnail(pixels: Pixels) -> Pixels:
    """Resize (H, W, 1 or 3) to (h, w, 3) of at most 256 pixels per side; small images grow by a whole
    factor."""
    image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    factor = max(1, _SIDE // 2 // max(image.size))
    return np.asarray(image).repeat(factor, axis=0).repeat(factor, axis=1)


def _difference(first: Pixels, second: Pixels) -> tuple[Pixels, int]:
    """Return |first - second|, amplified as far as nearly all of it stays in range, and the factor, 1 to
    16."""
    difference = absolute_difference(first, second)
    sample = difference.reshape(-1)[:: max(1, difference.size // 100_000)]
    high = np.quantile(sample, 0.99)
    factor = max(factor for factor in (1, 2, 4, 8, 16) if factor * high <= 255)
    return np.minimum(difference, 255 // factor) * np.uint8(factor), factor


def _png_row(panels: Sequence[Pixels]) -> bytes:
    """Return a PNG file with `panels` in a row, on white, with gaps."""
    height = max(len(panel) for panel in panels)
    padded = [
        np.pad(panel, ((0, height - len(panel)), (0, _GAP), (0, 0)), constant_values=255) for panel in panels
    ]
    stream = io.BytesIO()
    Image.fromarray(np.concatenate(padded, axis=1)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _caption(row: LedgerRow) -> str:
    size = f"{row.width} x {row.height} {row.format}, {amount(row.bytes_in or 0)}"
    if row.bytes_out:
        size += f" to {amount(row.bytes_out)}"
    parts = [size]
    for name in _SCORES:
        value = getattr(row, name)
        if value is not None:
            parts.append(f"{name} {value:.4g}")
    if row.reason:
        parts.append(explain_reason(row.reason))
    return ", ".join(parts)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
