import base64
import io
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genray.io.file_types import FileCounts
from genray.io.sources import open_source
from pipelines.engine.reporting.crops import CROP
from pipelines.engine.reporting.outcome import BulkOutcome, PassOutcome, PassRates, explain_reason
from pipelines.engine.reporting.report import REPORT, report_location, write_report
from pipelines.settings import BulkSettings
from pipelines.storage.ledger.rows import LedgerRow
from pipelines.storage.output import Output, PassRecord, RunHeader
from tests.page_reader import PageReader, is_drawn

HOSTILE = '<script>alert("1")\n\N{DOG FACE}.png'
RANDOM = "Random images"
NOISIEST = "Noisiest images"
NEARLY_NOISY = "Copied as clean, nearest to the limit"
CHANGED = "Most changed images"
ANOMALOUS = "Most anomalous images"
UNLIKE = "Images unlike those of the training"
SECTIONS = (
    RANDOM,
    NOISIEST,
    NEARLY_NOISY,
    CHANGED,
    ANOMALOUS,
    UNLIKE,
    "Inputs by type",
    "Not kept",
    "Salvaged",
    "Skipped and failed images",
    "Time by stage",
    "Made with",
)


def image(seed: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


class EndedRun:
    """A bulk run's input, output and ledger as they are when it has ended."""

    def __init__(self, root: Path, location: str = "") -> None:
        self.inputs = root / "in"
        self.outputs = root / "out"
        self.inputs.mkdir()
        self.output = Output.create(location or str(self.outputs))
        self.prepared: dict[str, Any] | None = {}

    def images(self, names: Iterable[str]) -> None:
        """Inputs, and outputs that are a little brighter."""
        for seed, name in enumerate(names):
            pixels = image(seed)
            for root, file in ((self.inputs, pixels), (self.outputs, pixels // 2 + 128)):
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(file))

    def rows(self, rows: list[dict[str, Any]], chunk: int = 0) -> None:
        basis = {"status": "done", "reason": "", "detail": "", "format": "png", "width": 60, "height": 40}
        basis |= {"bytes_in": 2000, "bytes_out": 1000, "modified": 1, "container": "", "position": 0}
        basis |= {"read_ms": 1.0, "decode_ms": 3.0, "finished": datetime.now(UTC)}
        self.output.ledger.add(
            f"00001-{chunk:06}-0-0",
            [LedgerRow(**basis | {"output": row["path"]} | row) for row in rows],
        )

    def report(self, **report: Any) -> PageReader:
        settings = BulkSettings.model_validate(
            {"input": str(self.inputs), "output": str(self.outputs), "report": report}
        )
        header = RunHeader(
            target="denoise",
            settings={"input": "photos", "seed": 3},
            prepared=self.prepared,
            passes=[PassRecord(1, "2025-03-01T12:00:00+00:00", listed=9, left=7)],
        )
        location = report_location(self.output)
        assert location == f"{self.output.location}/{REPORT}"
        this_pass = PassOutcome(
            7, 0, 0, 0, FileCounts(unread=Counter({".psd": 24})), (), PassRates(12.5, 1.0, 0.0)
        )
        summary = self.output.ledger.summary()
        outcome = BulkOutcome("denoise", self.output.location, summary, this_pass, 62, location)
        source = open_source(str(self.inputs), settings.read)
        write_report(self.output, source, settings, header, outcome)
        return PageReader(self.output.store.read(REPORT).decode())


@pytest.fixture
def bulk(tmp_path: Path) -> EndedRun:
    return EndedRun(tmp_path)


def section(page: PageReader, title: str) -> str:
    """The text between a section's title and the next."""
    if title not in page.text:
        return ""
    text = page.text.split(title, 1)[1]
    return text[: min(text.find(other) % (len(text) + 1) for other in SECTIONS)]


def shown(page: PageReader, title: str, names: Iterable[str]) -> list[str]:
    """Which of the names a section shows, in its order."""
    text = section(page, title)
    return sorted((name for name in names if name in text), key=text.index)


def test_it_says_what_was_done_and_where_the_time_went(bulk: EndedRun) -> None:
    bulk.images(["a.png", "b.png", "c.png"])
    failed = {"status": "failed", "reason": "truncated", "detail": "at byte 9", "bytes_out": 0}
    skipped = {"path": "b.png", "status": "skipped", "reason": "clean"}
    bulk.rows([{"path": "a.png"}, skipped, {"path": "c.png"}, {"path": "d.png", **failed}])
    page = bulk.report()
    for words in ("denoise", "2025-03-01", "12.5", "7 images in 1 min 2 s", "8 kB", "3 kB", "-62.5 %"):
        assert words in page.text
    assert ["truncated", "failed", "1", "25 %", explain_reason("truncated")] in page.rows
    assert any(row[:3] == ["clean", "skipped", "1"] for row in page.rows)
    assert ["d.png", "truncated", "at byte 9"] in page.rows
    assert ["decode", "0.012 s", "75.0 %", "3 ms"] in page.rows
    assert ["1", "2025-03-01T12:00:00+00:00", "-", "9", "7", "-"] in page.rows
    assert ["seed", "3"] in page.rows


def test_what_outputs_lack_is_counted(bulk: EndedRun) -> None:
    bulk.images(["a.png", "b.png"])
    bulk.rows([{"path": "a.png", "not_kept": ["XMP", "16 bits"]}, {"path": "b.png", "not_kept": ["XMP"]}])
    page = bulk.report()
    assert ["XMP", "2", "a.png"] in page.rows
    assert ["16 bits", "1", "a.png"] in page.rows


def test_pictures_are_the_input_beside_the_output(bulk: EndedRun) -> None:
    bulk.images(["a.png"])
    bulk.rows([{"path": "a.png", "noise": 12.25}])
    page = bulk.report()
    (picture,) = page.pictures
    assert is_drawn(picture)
    first = picture[:80, :120]
    second = picture[:80, 126:246]
    assert np.array_equal(first[::2, ::2], image(0)), "small images are enlarged by whole pixels"
    assert np.array_equal(second, first // 2 + 128)
    assert "input | output: 60 x 40 png, 2 kB to 1 kB, noise 12.25" in page.text


def test_images_copied_as_clean_are_shown_by_their_nearness_to_the_limit(bulk: EndedRun) -> None:
    names = [f"{i:02}.png" for i in range(24)]
    bulk.images(names)
    clean = {"status": "skipped", "reason": "clean"}
    rows = [{"path": name, "noise": i / 10, **(clean if i < 20 else {})} for i, name in enumerate(names)]
    bulk.rows(rows)
    page = bulk.report(samples=3)
    assert "Estimated noise of the images" in page.text
    assert shown(page, NEARLY_NOISY, names) == ["19.png", "18.png", "17.png"]


def test_an_image_is_drawn_once_and_named_wherever_it_belongs(bulk: EndedRun) -> None:
    names = ["a.png", "b.png", "c.png"]
    bulk.images(names)
    bulk.rows([{"path": name, "noise": 9.5 - i, "change": float(i)} for i, name in enumerate(names)])
    page = bulk.report(samples=3)
    assert len(page.pictures) == 3
    assert shown(page, NOISIEST, names) == names
    assert shown(page, CHANGED, names) == ["c.png", "b.png"]
    assert ["b.png", "8.5"] in page.rows


def test_of_large_images_two_places_are_shown_one_for_one(bulk: EndedRun) -> None:
    pixels = image(0, 500, 700)
    pixels[100:300, 200:420] = 90 + image(1, 200, 220) // 200
    (bulk.inputs / "a.png").write_bytes(png(pixels))
    (bulk.outputs / "a.png").write_bytes(png(255 - pixels))
    bulk.rows([{"path": "a.png", "width": 700, "height": 500}])
    page = bulk.report()
    (picture,) = page.pictures
    assert picture.shape == (2 * CROP + 6, 2 * CROP + 6, 3)
    assert abs(picture[:CROP, :CROP].astype(float) - 90).max() < 8, "the flattest place is above"
    assert abs(picture[:CROP, CROP + 6 :].astype(float) - 165).max() < 8
    assert picture[CROP + 6 :, :CROP].std() > 60
    assert "(flattest at " in page.text


def test_sixteen_noisy_photos_make_a_page_of_less_than_two_megabytes(bulk: EndedRun) -> None:
    names = [f"{i:02}.png" for i in range(16)]
    for seed, name in enumerate(names):
        for root in (bulk.inputs, bulk.outputs):
            (root / name).write_bytes(png(image(seed, 400, 500)))
    bulk.rows([{"path": name, "noise": 70.0 + i, "change": 5.0 + i} for i, name in enumerate(names)])
    page = bulk.report(samples=16)
    assert len(page.pictures) == 16
    assert len(bulk.output.store.read(REPORT)) < 2_000_000


def test_inputs_are_counted_by_type(bulk: EndedRun) -> None:
    bulk.images(["a.png"])
    gray = {"channels": 1, "depth": 16}
    colour = {"channels": 3, "depth": 8, "format": "jpeg"}
    failed = {"status": "failed", "reason": "truncated", "format": None}
    for chunk in range(2):
        bulk.rows(
            [
                {"path": f"{chunk}-a.png", **gray},
                {"path": f"{chunk}-b.jpg", **colour, "status": "skipped", "reason": "clean"},
                {"path": f"{chunk}-c.jpg", **colour},
                {"path": f"{chunk}-d.JPG", **failed},
            ],
            chunk,
        )
    rows = bulk.report(samples=0).rows
    assert ["JPEG, colour, 8 bits", "4", "2", "2", "0"] in rows
    assert ["PNG, gray, 16 bits", "2", "2", "0", "0"] in rows
    assert ["not decoded (.jpg)", "2", "0", "0", "2"] in rows


def test_the_extremes_are_found_wherever_in_the_ledger_they_are(bulk: EndedRun) -> None:
    names = [f"{i:03}.png" for i in range(60)]
    bulk.images(names)
    order = np.random.default_rng(1).permutation(60)
    rows = [{"path": names[i], "noise": float(i), "change": float((i * 7) % 60)} for i in order]
    rows[5] |= {"noise": float("nan"), "change": None}
    absent = int(order[5])
    for chunk in range(4):
        bulk.rows(rows[chunk::4], chunk)
    page = bulk.report(samples=3)
    by_noise = [n for n in names[::-1] if n != names[absent]][:3]
    by_change = [names[i] for i in sorted(set(range(60)) - {absent}, key=lambda i: -((i * 7) % 60))][:3]
    assert shown(page, NOISIEST, names) == by_noise
    assert shown(page, CHANGED, names) == by_change
    assert len(shown(page, RANDOM, names)) == 3
    assert not section(page, ANOMALOUS)
    assert not section(page, UNLIKE)


def test_the_same_images_are_drawn_in_whatever_order_they_were_done(bulk: EndedRun, tmp_path: Path) -> None:
    names = [f"{i:03}.png" for i in range(40)]
    (tmp_path / "other").mkdir()
    other = EndedRun(tmp_path / "other")
    for run in (bulk, other):
        run.images(names)
    bulk.rows([{"path": name} for name in names])
    for chunk in range(2):
        other.rows([{"path": name} for name in names[::-1][chunk::2]], chunk)
    drawn = shown(bulk.report(samples=5), RANDOM, names)
    assert len(drawn) == 5
    assert shown(other.report(samples=5), RANDOM, names) == drawn
    assert shown(bulk.report(samples=5, seed=1), RANDOM, names) != drawn


def test_what_is_unlike_the_training_is_what_exceeds_its_largest_error(bulk: EndedRun) -> None:
    names = [f"{i}.png" for i in range(5)]
    bulk.images(names)
    bulk.rows([{"path": name, "error": 0.1 * i, "score": 0.3 * i} for i, name in enumerate(names)])
    assert not section(bulk.report(), UNLIKE), "no limit is known"
    bulk.prepared = {"error_limit": 0.25}
    page = bulk.report()
    assert shown(page, UNLIKE, names) == ["4.png", "3.png"]
    assert "error above 0.25" in page.text
    assert shown(page, ANOMALOUS, names) == ["4.png", "3.png", "2.png", "1.png"]


def test_what_is_gone_or_broken_meanwhile_is_passed_over(bulk: EndedRun) -> None:
    names = ["gone.png", "broken.png", "folder.png", "no-output.png", "whole.png"]
    bulk.images(names)
    (bulk.inputs / "gone.png").unlink()
    (bulk.inputs / "broken.png").write_bytes((bulk.inputs / "broken.png").read_bytes()[:500])
    (bulk.inputs / "folder.png").unlink()
    (bulk.inputs / "folder.png").mkdir()
    (bulk.outputs / "no-output.png").unlink()
    bulk.rows([{"path": name} for name in names] + [{"path": "../../outside.png"}])
    page = bulk.report(samples=10)
    assert sorted(shown(page, RANDOM, names)) == ["no-output.png", "whole.png"]
    assert sorted(picture.shape[1] // 120 for picture in page.pictures) == [1, 2]


def test_all_kinds_of_images_are_shown(bulk: EndedRun) -> None:
    bulk.inputs.joinpath("plain.png").write_bytes(png(image(0)))
    gray = image(1)[..., 0]
    bulk.inputs.joinpath("gray.png").write_bytes(png(gray))
    bulk.inputs.joinpath("deep.png").write_bytes(png(gray.astype(np.uint16) * 257))
    clear = np.dstack([np.zeros((40, 60, 3), np.uint8), np.full((40, 60), 51, np.uint8)])
    bulk.inputs.joinpath("clear.png").write_bytes(png(clear))
    names = ["gray.png", "deep.png", "clear.png"]
    bulk.rows([{"path": name, "output": "", "noise": 9.0 - i} for i, name in enumerate(names)])
    page = bulk.report(samples=3)
    drawn = shown(page, RANDOM, names)
    pictures = [page.pictures[drawn.index(name)] for name in names]
    seen = [picture[:80:2, :120:2] for picture in pictures]
    assert np.array_equal(seen[0], np.repeat(gray[..., None], 3, axis=-1))
    assert np.array_equal(seen[1], seen[0])
    assert set(np.unique(seen[2])) == {163, 204}, "what is transparent is laid over squares"


def test_names_are_text_and_never_markup(bulk: EndedRun) -> None:
    bulk.images([HOSTILE])
    failed = {"status": "failed", "reason": "empty", "detail": "</td><img src=x>"}
    bulk.rows([{"path": HOSTILE}, {"path": f"in/{HOSTILE}", **failed}])
    page = bulk.report()
    assert page.tags.count("script") == 1, "the page's own"
    assert page.tags.count("img") == len(page.pictures) == 1
    visible = '<script>alert("1")\\n\N{DOG FACE}.png'
    assert visible in section(page, RANDOM)
    assert [f"in/{visible}", "empty", "</td><img src=x>"] in page.rows


def test_of_many_failures_some_are_listed(bulk: EndedRun) -> None:
    bulk.images(["a.png"])
    for chunk in range(3):
        paths = [f"{chunk}-{i}.png" for i in range(500)]
        bulk.rows([{"path": path, "status": "failed", "reason": "empty"} for path in paths], chunk)
    rows = bulk.report().rows
    assert sum(row[1:2] == ["empty"] and row[0].endswith(".png") for row in rows) == 20
    assert ["1,480 more: genray ledger --list failed", "empty", ""] in rows


def test_what_the_step_found_before_is_shown(bulk: EndedRun) -> None:
    bulk.images(["a.png"])
    bulk.rows([{"path": "a.png"}])
    table = {
        "title": "Rate and distortion",
        "columns": ["bits", "PSNR"],
        "rows": [[4, 31.23456]],
        "note": "of 8",
    }
    table["note"] = "of 8"
    good = base64.b64encode(png(image(5))).decode()
    pictures = [{"title": "One", "png_base64": good, "caption": "c"}, {"title": "Bad", "png_base64": "AAAA"}]
    bulk.prepared = {"tables": [table], "pictures": pictures, "notes": ["int8: 2.1 times as fast"]}
    page = bulk.report(samples=0)
    assert ["4", "31.23"] in page.rows
    for words in ("Rate and distortion", "of 8", "int8: 2.1 times as fast"):
        assert words in page.text
    (picture,) = page.pictures
    assert np.array_equal(picture, image(5))


def test_without_samples_it_reads_no_image(bulk: EndedRun) -> None:
    bulk.images(["a.png"])
    bulk.rows([{"path": "a.png", "noise": 3.0, "change": 2.0}])
    bulk.prepared = None
    page = bulk.report(samples=0)
    assert page.pictures == []
    assert "Made with" in page.text


def test_it_goes_where_the_output_is(tmp_path: Path) -> None:
    bulk = EndedRun(tmp_path, "memory://report/out")
    bulk.images(["a.png"])
    bulk.output.store.write("a.png", png(image(3)))
    bulk.rows([{"path": "a.png"}])
    (picture,) = bulk.report().pictures
    assert np.array_equal(picture[:80:2, 126:246:2], image(3))
