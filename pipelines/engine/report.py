"""The report of a bulk run: one page with what was done, what went wrong, and images to look at."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
from pipelines.engine.outcome import meaning, reasons_table, times_table
from pipelines.settings import BulkSettings
from pipelines.storage.ledger import DONE, FAILED, SKIPPED, TIMES, path_hashes
from pipelines.storage.output import Output

LedgerRow = dict[str, Any]

REPORT = "_genray/report.html"
_VALUES = ("noise", "change", "error", "score")
_COLUMNS = (
    *("path", "status", "reason", "detail", "format", "width", "height", "bytes_in", "bytes_out"),
    *("modified", "container", "position", "output", *_VALUES, *TIMES),
)
_AT_ONCE = 2**16  # rows of the ledger whose paths are Python objects
_MOST_FAILED = 20  # of each reason
_SIDE = 256  # most pixels of an image


def write_report(
    output: Output,
    source: ItemSource,
    settings: BulkSettings,
    header: Mapping[str, Any],
    outcome: Mapping[str, Any],
) -> str:
    """Write the report of a run, to `_genray/report.html` under the output's root.

    Images are read again: what is gone or broken meanwhile is passed over, and so are outputs in shards.

    Args:
        header: of the run, see `Output.header`.
        outcome: what the ledger says altogether (`Summary.as_json`), `this_pass` and `seconds`.

    Returns:
        Where it is: a path or URI.

    Raises:
        StorageFull: no room.
    """
    prepared = header["prepared"] or {}
    survey = _Survey(settings.report.samples, settings.report.seed, prepared.get("error_limit"))
    for table in output.ledger.tables(_COLUMNS):
        for batch in table.to_batches(max_chunksize=_AT_ONCE):
            survey.add(batch)
    began = header["passes"][0]["started"][:10]
    page = Page(header["target"], visible(f"{settings.input} to {settings.output}, begun {began}"))
    _add_summary(page, outcome, survey)
    _add_prepared(page, prepared)
    _add_examples(page, survey, _Camera(output, source, settings))
    _add_reasons(page, outcome, survey)
    _add_times(page, outcome, survey)
    _add_settings(page, header["settings"], header["passes"])
    output.store.write(REPORT, page.html().encode())
    location = output.location
    root, mark, query = (location, "", "") if output.store.is_local else location.partition("?")
    return f"{root.rstrip('/')}/{REPORT}{mark}{query}"


class _Best:
    """The `count` rows with the largest keys above `above`, and how many rows have such a key."""

    def __init__(self, count: int, above: float = 0.0) -> None:
        self._count, self._above = count, above
        self.found: list[tuple[float, LedgerRow]] = []
        self.eligible = 0

    def add(self, keys: NDArray[np.float64], batch: pa.RecordBatch) -> None:
        """Look at the rows of `batch`; a key that is NaN is none."""
        at = np.flatnonzero(keys > self._above)
        self.eligible += len(at)
        if self.found and len(self.found) == self._count:
            at = at[keys[at] > self.found[-1][0]]
        if not self._count or not len(at):
            return
        if len(at) > self._count:
            at = at[np.argpartition(keys[at], -self._count)[-self._count :]]
        rows = batch.take(pa.array(at)).to_pylist()
        found = [*self.found, *zip(keys[at].tolist(), rows, strict=True)]
        self.found = sorted(found, key=lambda pair: (-pair[0], pair[1]["path"]))[: self._count]


class _Survey:
    """What the page shows of the ledger, found in one pass over its rows."""

    def __init__(self, samples: int, seed: int, error_limit: float | None) -> None:
        self.limit = error_limit
        self.random = _Best(samples)
        least = {"error": float("inf") if error_limit is None else error_limit}
        self.best = {name: _Best(samples, least.get(name, 0.0)) for name in _VALUES}
        self.failed: dict[str, list[LedgerRow]] = {}
        self.seconds = {name.removesuffix("_ms"): 0.0 for name in TIMES}
        self._mask = np.random.default_rng(seed).integers(0, 2**64, dtype=np.uint64)

    def add(self, batch: pa.RecordBatch) -> None:
        """Look at some rows."""
        for name in TIMES:
            self.seconds[name.removesuffix("_ms")] += (pc.sum(batch.column(name)).as_py() or 0.0) / 1e3
        failed = pc.equal(batch.column("status"), FAILED)
        self._add_failed(batch.filter(failed))
        batch = batch.filter(pc.invert(failed))
        # Which are drawn depends on seed and path alone: runs over the same images show the same ones.
        self.random.add((path_hashes(batch.column("path")) ^ self._mask).astype(np.float64), batch)
        for name, best in self.best.items():
            best.add(batch.column(name).to_numpy(zero_copy_only=False).astype(np.float64), batch)

    def _add_failed(self, batch: pa.RecordBatch) -> None:
        for reason in pc.unique(batch.column("reason")).to_pylist():
            rows = self.failed.setdefault(reason, [])
            if len(rows) < _MOST_FAILED:
                more = batch.filter(pc.equal(batch.column("reason"), reason))
                rows += more.slice(0, _MOST_FAILED - len(rows)).to_pylist()


class _Camera:
    """Takes pictures of inputs and outputs."""

    def __init__(self, output: Output, source: ItemSource, settings: BulkSettings) -> None:
        self._output, self._source, self._settings = output, source, settings
        self._taken: dict[str, Picture | None] = {}

    def picture(self, row: LedgerRow) -> Picture | None:
        """Input, output and their difference, of those what there is; None if the input cannot be read."""
        if row["path"] not in self._taken:
            self._taken[row["path"]] = self._take(row)
        return self._taken[row["path"]]

    def _take(self, row: LedgerRow) -> Picture | None:
        item = Item(row["path"], row["bytes_in"], row["modified"], row["container"], row["position"])
        limit, after = self._settings.read.max_bytes, None
        before = self._photo(lambda: self._source.read(item, limit))
        if before is None:
            return None
        panels, names = [_panel(before)], ["input"]
        if row["output"] and self._settings.write.container == "files":
            after = self._photo(lambda: self._output.store.read(row["output"], limit))
        if after is not None:
            panels, names = [*panels, _panel(after)], [*names, "output"]
            # With a score the output is a heat map.
            if before.pixels.shape == after.pixels.shape and row["score"] is None:
                difference, factor = _difference(_eight(before.pixels), _eight(after.pixels))
                panels.append(_thumbnail(difference))
                names.append(f"difference x {factor}")
        return Picture(_beside(panels), visible(row["path"]), f"{' | '.join(names)}: {_caption(row)}")

    def _photo(self, read: Callable[[], bytes]) -> Photo | None:
        # Whatever became of it since, and whatever a library says to that: the page can do without.
        with suppress(BadImage, GenrayError, OSError, ValueError, LookupError, MemoryError):
            return read_photo(read(), self._settings.read)
        return None


def _panel(photo: Photo) -> Pixels:
    """(h, w, 3) uint8 to look at, transparency over white."""
    shown = _thumbnail(_eight(photo.pixels))
    if photo.alpha is None:
        return shown
    share = _thumbnail(_eight(photo.alpha)[..., None]) / 255
    return np.rint(255 - (255 - shown) * share).astype(np.uint8)


def _eight(pixels: NDArray[Any]) -> Pixels:
    """8 bits a value; of an image that is much larger than what is shown every second, third ... pixel."""
    step = max(1, max(pixels.shape[:2]) // (8 * _SIDE))
    pixels = pixels[::step, ::step]
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def _thumbnail(pixels: Pixels) -> Pixels:
    """(H, W, 1 or 3) -> (h, w, 3) of at most 256 a side; small images grow by a whole factor."""
    image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    factor = max(1, _SIDE // 2 // max(image.size))
    return np.asarray(image).repeat(factor, axis=0).repeat(factor, axis=1)


def _difference(first: Pixels, second: Pixels) -> tuple[Pixels, int]:
    """|first - second|, multiplied so far that nearly all of it stays in range, and by how much: 1 to 16."""
    difference = np.maximum(first, second) - np.minimum(first, second)
    most = np.quantile(difference.reshape(-1)[:: max(1, difference.size // 100_000)], 0.99)
    factor = max(f for f in (1, 2, 4, 8, 16) if f * most <= 255)
    return np.minimum(difference, 255 // factor) * np.uint8(factor), factor


def _beside(panels: Sequence[Pixels]) -> bytes:
    """A PNG file with `panels` in a row, on white, a little apart."""
    high = max(len(panel) for panel in panels)
    padded = [np.pad(p, ((0, high - len(p)), (0, 6), (0, 0)), constant_values=255) for p in panels]
    Image.fromarray(np.concatenate(padded, axis=1)).save(stream := io.BytesIO(), "PNG", compress_level=1)
    return stream.getvalue()


def _caption(row: LedgerRow) -> str:
    size = f"{row['width']} x {row['height']} {row['format']}, {amount(row['bytes_in'])}"
    words = [size + (f" to {amount(row['bytes_out'])}" if row["bytes_out"] else "")]
    words += [f"{name} {row[name]:.4g}" for name in _VALUES if row[name] is not None]
    return ", ".join([*words, meaning(row["reason"])] if row["reason"] else words)


def _add_summary(page: Page, outcome: Mapping[str, Any], survey: _Survey) -> None:
    total, before, after = (outcome[name] for name in ("total", "bytes_in", "bytes_out"))
    counts = ((name, outcome[name]) for name in (DONE, SKIPPED, FAILED))
    cards = [(name, f"{n:,}", f"{100 * n / max(1, total):.3g} %") for name, n in counts]
    cards += [("read", amount(before), ""), ("written", amount(after), change_in_bytes(before, after))]
    this = outcome["this_pass"]
    if this["images"]:
        spent = f"{this['images']:,} images in {duration(outcome['seconds'])}"
        cards.append(("images a second", f"{this['images_per_second']:,.1f}", spent))
    if survey.limit is not None:
        beyond = f"{survey.best['error'].eligible:,}"
        cards.append(("unlike the training's", beyond, f"error above {survey.limit:.4g}"))
    page.headline(cards)


def _add_prepared(page: Page, prepared: Mapping[str, Any]) -> None:
    """What the step found out before it began, such as rates and distortions."""
    for note in prepared.get("notes", ()):
        page.paragraph(visible(note))
    for table in prepared.get("tables", ()):
        page.section(visible(table["title"]))
        page.table(table["columns"], [[_plain(cell) for cell in row] for row in table["rows"]])
        if table.get("note"):
            page.paragraph(table["note"])
    for picture in prepared.get("pictures", ()):
        with suppress(ValueError):  # not a whole PNG file
            data = base64.b64decode(picture["png_base64"], validate=True)
            page.picture(Picture(data, picture["title"], picture.get("caption", "")))


def _add_examples(page: Page, survey: _Survey, camera: _Camera) -> None:
    for title, best in (
        ("At random", survey.random),
        ("The noisiest", survey.best["noise"]),
        ("The most changed", survey.best["change"]),
        ("The most anomalous", survey.best["score"]),
        ("Unlike anything that the model was trained on", survey.best["error"]),
    ):
        pictures = [picture for _, row in best.found if (picture := camera.picture(row))]
        if pictures:
            page.section(title)
            page.pictures(pictures)


def _add_reasons(page: Page, outcome: Mapping[str, Any], survey: _Survey) -> None:
    reasons = outcome["reasons"]
    if reasons:
        page.section("Skipped and failed")
        columns, *rows = reasons_table(reasons, outcome["total"])
        page.table(columns, rows)
    if survey.failed:
        lines = []
        for reason, failed in sorted(survey.failed.items()):
            more = reasons.get(reason, 0) - len(failed)
            lines += [[visible(row["path"]), reason, visible(row["detail"] or "")] for row in failed]
            lines += [[f"{more:,} more: genray ledger --list failed", reason, ""]] * (more > 0)
        with page.details("What failed"):
            page.table(["path", "reason", "detail"], lines)


def _add_times(page: Page, outcome: Mapping[str, Any], survey: _Survey) -> None:
    if any(survey.seconds.values()):
        page.section("Time by stage")
        columns, *rows = times_table(survey.seconds, outcome["total"])
        page.table(columns, rows, "Added up over all workers, whose stages overlap")


def _add_settings(page: Page, settings: Mapping[str, Any], passes: Sequence[Mapping[str, Any]]) -> None:
    page.section("Made with")
    columns = ("number", "started", "ended", "listed", "left", "failed")
    rows = [[_plain(each.get(name)) for name in columns] for each in passes]
    page.table(["pass", "started", "ended", "images listed", "to do", "failed at its end"], rows)
    with page.details(f"All {len(settings)} settings"):
        page.table(["setting", "value"], [[key, visible(_plain(value))] for key, value in settings.items()])


def _plain(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
