"""One worker on one chunk, over a real store; steps are small, so that it is seen what reaches them."""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from genray.errors import DataError
from genray.images.photo import Photo, PhotoFile
from genray.io.bad_input import BadImage
from pipelines.engine.worker import Batcher
from pipelines.steps.base import StepInput, StepResult
from pipelines.storage.attempts import Attempt
from tests.pipelines.conftest import rows_of, write_photos
from tests.pipelines.worker_bench import Bench, Copying, go_on, paths_of


def test_a_chunk_comes_to_its_end_with_a_row_for_each_input(bench: Bench) -> None:
    write_photos(bench.photos, 7)
    (bench.photos / "broken.png").write_bytes(b"\x89PNG")
    counts: Counter[str] = Counter()
    assert bench.worker().work(bench.plan, 0, lambda more: counts.update(more) or False)
    assert bench.statuses() == dict.fromkeys(paths_of(bench.photos), "") | {"broken.png": "truncated"}
    for row in rows_of(bench.out)[:-1]:
        assert (row["status"], row["reason"]) == ("skipped", "clean")
        assert (bench.out / row["output"]).read_bytes() == (bench.photos / row["path"]).read_bytes()
    assert (counts["skipped"], counts["failed"]) == (7, 1)
    assert counts["bytes_in"] == sum(file.stat().st_size for file in bench.photos.rglob("*.*"))
    assert counts["bytes_out"] == counts["bytes_in"] - 4


def test_a_chunk_that_is_done_is_not_worked_on_again(bench: Bench) -> None:
    write_photos(bench.photos, 4)
    assert bench.worker().work(bench.plan, 0, go_on)
    assert bench.marker() == Attempt(0, done=True)
    keys = bench.ledger.keys()
    seen = list[str]()
    assert bench.worker(lambda inputs: seen.extend(each.path for each in inputs)).work(bench.plan, 0, go_on)
    assert (seen, bench.ledger.keys(), len(rows_of(bench.out))) == ([], keys, 4)


def test_an_error_over_one_image_of_a_batch_fails_that_one_only(bench: Bench) -> None:
    write_photos(bench.photos, 6)
    sizes = []

    def look(inputs: Sequence[StepInput]) -> None:
        sizes.append(len(inputs))
        if "1/0001.png" in [each.path for each in inputs]:
            raise ZeroDivisionError("on purpose\nand more")
        if "1/0005.png" in [each.path for each in inputs]:
            raise BadImage("odd-shape", "on purpose")

    assert bench.worker(look).work(bench.plan, 0, go_on)
    bad = {"1/0001.png": "step-error", "1/0005.png": "odd-shape"}
    assert bench.statuses() == dict.fromkeys(paths_of(bench.photos), "") | bad
    assert sizes == [6, *[1] * 6]
    details = {row["path"]: row["detail"] for row in rows_of(bench.out)}
    assert details["1/0001.png"] == "ZeroDivisionError: on purpose"


class OddResult(Copying):
    """Gives a result that no format can hold, for one image."""

    def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
        odd = [each.path == "1/0001.png" for each in inputs]
        kinds = [np.complex128 if is_odd else np.uint8 for is_odd in odd]
        return [
            StepResult(photo=replace(each.photo, pixels=(255 - each.photo.pixels).astype(kind)))
            for each, kind in zip(inputs, kinds, strict=True)
        ]


def test_a_result_that_cannot_be_encoded_fails_its_image_only(bench: Bench) -> None:
    write_photos(bench.photos, 4)
    assert bench.worker(step=OddResult).work(bench.plan, 0, go_on)
    assert bench.statuses() == dict.fromkeys(paths_of(bench.photos), "") | {"1/0001.png": "step-error"}
    details = {row["path"]: row["detail"] for row in rows_of(bench.out)}
    assert details["1/0001.png"].startswith("its result cannot be encoded: ")


def test_what_concerns_every_image_ends_the_worker(bench: Bench) -> None:
    write_photos(bench.photos, 3)

    def look(inputs: Sequence[StepInput]) -> None:
        raise DataError("the model is gone")

    with pytest.raises(DataError, match="the model is gone"):
        bench.worker(look).work(bench.plan, 0, go_on)
    assert bench.ledger.keys() == set()


def test_decoded_images_stay_within_the_memory_and_one_larger_still_passes(bench: Bench) -> None:
    Image.new("RGB", (1500, 1500), "navy").save(bench.photos / "00.png")
    for index in range(1, 12):
        os.link(bench.photos / "00.png", bench.photos / f"{index:02}.png")
    Image.new("L", (4000, 3000)).save(bench.photos / "06-large.png")
    alive = [0]
    most = [0]
    held = []
    lock = threading.Lock()

    def counted(file: PhotoFile) -> Photo:
        photo = file.decode()
        with lock:
            alive.append(photo.pixels.nbytes)
            most[0] = max(most[0], sum(alive))
        weakref.finalize(photo.pixels, alive.append, -photo.pixels.nbytes)
        return photo

    def look(inputs: Sequence[StepInput]) -> None:
        held.append(worker.held_bytes)
        threading.Event().wait(0.03)  # long enough to decode all of them ahead

    worker = bench.worker(look, decode=counted, memory_mb=64)
    assert worker.work(bench.plan, 0, go_on)
    assert set(bench.statuses().values()) == {""}
    large = 2 * 4 * 4000 * 3000
    assert 64 * 2**20 < max(held) <= large
    assert max(size for size in held if size < large) <= 64 * 2**20
    # 64 MiB are three of them with what is made of them; one more may just have been let go.
    assert most[0] <= max(4 * 1500 * 1500 * 3, 1500 * 1500 * 3 + 4000 * 3000)
    assert worker.held_bytes == 0


def test_further_images_are_written_beside_the_first(bench: Bench) -> None:
    class Doubling(Copying):
        def process(self, inputs: Sequence[StepInput]) -> Sequence[StepResult]:
            return [StepResult(photo=each.photo, also={"-mask": each.photo}) for each in inputs]

    write_photos(bench.photos, 2)
    assert bench.worker(step=Doubling).work(bench.plan, 0, go_on)
    for row in rows_of(bench.out):
        first = bench.out / row["output"]
        also = first.with_name(f"{first.name}-mask{first.suffix}")
        assert row["bytes_out"] == first.stat().st_size + also.stat().st_size
        assert np.asarray(Image.open(also)).shape == (48, 64, 3)


def test_an_image_that_stays_as_it_is_is_encoded_only_if_another_format_was_asked_for(bench: Bench) -> None:
    write_photos(bench.photos, 4)
    assert bench.worker(format="png").work(bench.plan, 0, go_on)
    for row in rows_of(bench.out):
        before = bench.photos / row["path"]
        after = bench.out / row["output"]
        assert row["status"] == "skipped"
        if before.suffix == ".png":
            assert row["output"] == row["path"]
            assert after.read_bytes() == before.read_bytes()
        else:
            assert row["output"] == f"{row['path']}.png"
            with Image.open(before) as old, Image.open(after) as new:
                assert new.format == "PNG"
                assert (np.asarray(new) == np.asarray(old)).all()


def fill(batcher: Batcher[str], *things: tuple[str, str, float]) -> list[list[str]]:
    return [batch for key, thing, weight in things for batch in batcher.add(key, thing, weight)]


def test_a_batch_is_full_when_one_more_of_its_kind_would_not_fit() -> None:
    batcher: Batcher[str] = Batcher(10)
    assert fill(batcher, ("k", "a", 4), ("k", "b", 4), ("k", "c", 4)) == [["a", "b"]]
    assert list(batcher.rest()) == [["c"]]
    assert len(batcher) == 0


def test_keys_are_never_mixed() -> None:
    batcher: Batcher[str] = Batcher(10)
    assert fill(batcher, ("k", "a", 4), ("m", "b", 4)) == []
    assert sorted(batcher.rest()) == [["a"], ["b"]]


def test_what_is_heavier_than_a_batch_goes_alone() -> None:
    batcher: Batcher[str] = Batcher(10)
    assert fill(batcher, ("k", "a", 3), ("k", "b", 30), ("k", "c", 3)) == [["a"], ["b"]]
    assert list(batcher.rest()) == [["c"]]
