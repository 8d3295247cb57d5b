"""Report of a bulk run: one page with results, failures, and images to look at."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from genray.errors import GenrayError
from genray.images.photo import Photo, read_photo
from genray.io.bad_input import BadImage
from genray.io.sources import Item, ItemSource
from genray.report.charts import draw_distributions
from genray.report.page import Page, Picture
from genray.text import amount, change_in_bytes, duration, visible
from pipelines.engine.reporting.crops import CROP, draw_crops, encode_picture, find_places, hottest_place
from pipelines.engine.reporting.outcome import BulkOutcome, explain_reason, reasons_table, times_table
from pipelines.engine.reporting.rows import SCORES, ReportRows
from pipelines.settings import BulkSettings
from pipelines.storage.ledger.rows import STATUSES, LedgerRow
from pipelines.storage.ledger.summary import LedgerSummary
from pipelines.storage.output import Output, PassRecord, RunHeader

REPORT = "_genray/report.html"
_FEWEST_LEVELS = 20  # levels of noise that a histogram is drawn from
_ABOUT_PICTURES = (
    f"Pictures are crops of at most {CROP} x {CROP} pixels, one for one: the flattest place of an image, and "
    "below it the busiest, in the input (left) and the output (right). Small images are whole and enlarged."
)


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
    rows = ReportRows.find(output, settings, prepared.get("error_limit"))
    began = header.passes[0].started[:10]
    page = Page(header.target, visible(f"{settings.input} to {settings.output}, started {began}"))
    _add_headline(page, outcome, rows)
    _add_prepared(page, prepared, output)
    _add_noise(page, rows, prepared.get("noise_limit"))
    _add_examples(page, rows, _PictureMaker(output, source, settings))
    _add_types(page, rows)
    _add_mentions(page, rows)
    _add_reasons(page, outcome.summary, rows)
    _add_times(page, outcome.summary)
    _add_settings(page, header.settings, header.passes)
    output.store.write(REPORT, page.html().encode())


class _PictureMaker:
    """Draws inputs beside their outputs: each once, however often the page names it."""

    def __init__(self, output: Output, source: ItemSource, settings: BulkSettings) -> None:
        self._output = output
        self._source = source
        self._settings = settings
        self._is_drawn: dict[str, bool] = {}

    def is_drawn(self, row: LedgerRow) -> bool:
        """Return whether the page shows the image already."""
        return self._is_drawn.get(row.path, False)

    def draw(self, row: LedgerRow) -> Picture | None:
        """Draw crops of input and output; None if the input cannot be read, or was drawn before."""
        if row.path in self._is_drawn:
            return None
        before = self._input(row)
        self._is_drawn[row.path] = before is not None
        if before is None:
            return None
        photos = [before]
        after = self._output_photo(row)
        if after is not None:
            photos.append(after)
        is_heat_map = after is not None and row.score is not None
        places = find_places(before, flattest=not is_heat_map)
        if after is not None and is_heat_map and places[0].name != "whole":
            places.insert(0, hottest_place(after))
        names = " | ".join(["input", "output"][: len(photos)])
        height, width = before.pixels.shape[:2]
        where = "; ".join(
            f"{each.name} at {each.column * width:.0f}, {each.row * height:.0f}" for each in places
        )
        caption = f"{names}: {_caption(row)}" + f" ({where})" * (places[0].name != "whole")
        return Picture(encode_picture(draw_crops(photos, places)), visible(row.path), caption)

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


def _add_headline(page: Page, outcome: BulkOutcome, rows: ReportRows) -> None:
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


def _add_prepared(page: Page, prepared: Mapping[str, Any], output: Output) -> None:
    """Add the results of the step's `prepare`, such as rates and distortions."""
    for note in prepared.get("notes", ()):
        page.paragraph(visible(note))
    for table in prepared.get("tables", ()):
        page.section(visible(table["title"]))
        page.table(table["columns"], [[_cell(value) for value in row] for row in table["rows"]])
        if table.get("note"):
            page.paragraph(table["note"])
    for picture in prepared.get("pictures", ()):
        with suppress(ValueError, OSError):  # an incomplete file, or one that is gone
            data = (
                output.store.read(picture["file"])
                if "file" in picture
                else base64.b64decode(picture["png_base64"], validate=True)
            )
            page.picture(Picture(data, picture["title"], picture.get("caption", "")))


def _add_noise(page: Page, rows: ReportRows, limit: float | None) -> None:
    """Add the histogram of the noise, with the limit below which images are copied."""
    levels = rows.noise.by_group()
    if sum(map(len, levels.values())) < _FEWEST_LEVELS:
        return
    page.section("Noise")
    page.paragraph(
        "Estimated noise of the images in levels of 255, by what became of them; the ledger has its parts: "
        "noise_fine, noise_coarse, noise_chroma, and noise_kind."
    )
    title = "Noise of the images"
    page.picture(Picture(encode_picture(draw_distributions(levels, limit, "noise, levels of 255")), title))


def _add_examples(page: Page, rows: ReportRows, maker: _PictureMaker) -> None:
    is_first = True
    for title, score, top in (
        ("Random images", "", rows.random),
        ("Noisiest images", "noise", rows.extremes["noise"]),
        ("Copied as clean, nearest to the limit", "noise", rows.nearly_noisy),
        ("Most changed images", "change", rows.extremes["change"]),
        ("Most anomalous images", "score", rows.extremes["score"]),
        ("Images unlike those of the training", "error", rows.extremes["error"]),
    ):
        shown_above = any(maker.is_drawn(each.row) for each in top.ranked)
        pictures = [picture for each in top.ranked if (picture := maker.draw(each.row))]
        ranked = [each.row for each in top.ranked if maker.is_drawn(each.row)]
        if not ranked:
            continue
        page.section(title)
        if is_first:
            page.paragraph(_ABOUT_PICTURES)
            is_first = False
        if shown_above:
            page.paragraph("In this order (images without a picture here are shown above):")
            page.table(
                ["image", score], [[visible(row.path), f"{getattr(row, score):.4g}"] for row in ranked]
            )
        if pictures:
            page.pictures(pictures)


def _add_types(page: Page, rows: ReportRows) -> None:
    if rows.types.counts:
        page.section("Inputs by type")
        page.table(["type", "images", *STATUSES], rows.types.cells())


def _add_mentions(page: Page, rows: ReportRows) -> None:
    for title, note, mentions in (
        ("Not kept", "What inputs carried and their outputs do not.", rows.not_kept),
        ("Salvaged", "Damage of inputs that cost no pixel.", rows.salvaged),
    ):
        if mentions.counts:
            page.section(title)
            page.paragraph(note)
            page.table(["what", "images", "such as"], mentions.cells())


def _add_reasons(page: Page, summary: LedgerSummary, rows: ReportRows) -> None:
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


def _caption(row: LedgerRow) -> str:
    size = f"{row.width} x {row.height} {row.format}, {amount(row.bytes_in or 0)}"
    if row.bytes_out:
        size += f" to {amount(row.bytes_out)}"
    parts = [size]
    for name in SCORES:
        value = getattr(row, name)
        if value is not None:
            kind = f" ({row.noise_kind})" if name == "noise" and row.noise_kind else ""
            parts.append(f"{name} {value:.4g}{kind}")
    if row.reason:
        parts.append(explain_reason(row.reason))
    return ", ".join(parts)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
