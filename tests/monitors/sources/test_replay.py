from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from genray.ecg.records.base import MISSING
from genray.ecg.records.open import open_record
from genray.ecg.synthesis import write_records
from genray.errors import DataError
from monitors.sources.base import EndOfSource
from monitors.sources.message import Chunk, decode, encode
from monitors.sources.replay import RecordStream, ReplaySettings, ReplaySource

START = 1_700_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two records of 25.5 s."""
    write_records(tmp_path, 2, 25.5, seed=3)
    return tmp_path


def _settings(path: Path, **more: object) -> ReplaySettings:
    return ReplaySettings.model_validate({"path": str(path), "speed": 0, "start": START} | more)


async def _chunks_until(
    source: ReplaySource, enough: Callable[[list[Chunk]], bool] = lambda _: False
) -> list[Chunk]:
    chunks: list[Chunk] = []
    try:
        while not enough(chunks):
            chunks += await source.next()
    except EndOfSource:
        pass
    return chunks


def _replayed(settings: ReplaySettings, most: int = 10**6) -> list[Chunk]:
    async def run() -> list[Chunk]:
        source = ReplaySource(settings)
        await source.open(None)
        chunks = await _chunks_until(source, lambda chunks: len(chunks) >= most)
        await source.close()
        return chunks

    return asyncio.run(run())


def _of_stream(chunks: list[Chunk], stream: str) -> list[Chunk]:
    return [chunk for chunk in chunks if chunk.stream == stream]


def test_every_sample_of_every_record_comes_once_and_in_order(folder: Path) -> None:
    chunks = _replayed(_settings(folder))
    assert {chunk.stream for chunk in chunks} == {"patient-001", "patient-002"}
    for name in ("patient-001", "patient-002"):
        mine, record = _of_stream(chunks, name), open_record(folder / name)
        np.testing.assert_array_equal(
            np.concatenate([chunk.samples for chunk in mine]), record.read(0, record.samples)
        )
        assert [chunk.sequence for chunk in mine] == list(range(26))
        assert [chunk.start for chunk in mine] == [START + n for n in range(26)]
        assert (mine[0].leads, mine[0].gains, mine[0].rate) == (record.leads, record.gains, record.rate)
        assert mine[-1].end == pytest.approx(START + 25.5)


def test_records_play_at_the_same_time(folder: Path) -> None:
    assert [c.stream[-1] + str(c.sequence) for c in _replayed(_settings(folder), 6)] == [
        "10", "20", "11", "21", "12", "22",
    ]  # fmt: skip


def test_chunks_can_be_sent_as_messages(folder: Path) -> None:
    chunk = _replayed(_settings(folder), 1)[0]
    again = decode(encode(chunk))
    assert (again.stream, again.leads, again.gains) == (chunk.stream, chunk.leads, chunk.gains)
    np.testing.assert_array_equal(again.samples, chunk.samples)


def test_the_times_of_a_record_do_not_depend_on_what_else_is_replayed(folder: Path) -> None:
    alone = _replayed(_settings(folder / "patient-002.hea"))
    beside = _of_stream(_replayed(_settings(folder, streams=7)), "patient-002")
    assert [(c.sequence, c.start, c.samples.tobytes()) for c in alone] == [
        (c.sequence, c.start, c.samples.tobytes()) for c in beside
    ]


def test_records_are_repeated_to_make_so_many_streams(folder: Path) -> None:
    chunks = _replayed(_settings(folder, streams=5))
    names = {"patient-001", "patient-002", "patient-001#2", "patient-002#2", "patient-001#3"}
    assert {chunk.stream for chunk in chunks} == names
    assert [c.samples.tobytes() for c in _of_stream(chunks, "patient-001#3")] == [
        c.samples.tobytes() for c in _of_stream(chunks, "patient-001")
    ]


@pytest.mark.parametrize("seconds", [0.1, 0.37, 1.0, 10.0])
def test_a_loop_goes_on_from_the_end_to_the_beginning_without_a_gap(folder: Path, seconds: float) -> None:
    path = folder / "patient-001"
    chunks = _replayed(_settings(path, loop=True, chunk_seconds=seconds), round(80 / seconds))
    record = open_record(path)
    samples = np.concatenate([chunk.samples for chunk in chunks])
    expected = np.concatenate([record.read(0, record.samples)] * 4)[: len(samples)]
    np.testing.assert_array_equal(samples, expected)
    for before, after in pairwise(chunks):
        assert after.start == pytest.approx(before.end, abs=1e-6)


@pytest.mark.parametrize("after", [1, 2, 3, 30, 49])
def test_a_replay_goes_on_where_its_snapshot_was_taken(folder: Path, after: int) -> None:
    whole = _replayed(_settings(folder, start=None))

    async def run() -> list[Chunk]:
        first = ReplaySource(_settings(folder, start=None))
        await first.open(None)
        chunks = await _chunks_until(first, lambda chunks: len(chunks) >= after)
        place = first.snapshot()
        await first.close()
        second = ReplaySource(_settings(folder, start=None))
        await second.open(place)
        return chunks + await _chunks_until(second)

    resumed = asyncio.run(run())
    assert [(c.stream, c.sequence, c.samples.tobytes()) for c in resumed] == [
        (c.stream, c.sequence, c.samples.tobytes()) for c in whole
    ]
    assert {round(c.start - c.sequence, 3) for c in resumed} == {round(resumed[0].start, 3)}


def test_a_place_names_nobody_and_one_of_other_records_is_none_within_a_chunk(folder: Path) -> None:
    async def run() -> tuple[dict[str, object], list[Chunk]]:
        source = ReplaySource(_settings(folder, start=None))
        await source.open(None)
        place = {**source.snapshot(), "chunk": 1, "stream": 1}
        chunks = []
        for _ in range(2):
            await source.open(place)
            chunks += (await _chunks_until(source, lambda chunks: len(chunks) >= 1))[:1]
            if (folder / "patient-001.hea").exists():
                (folder / "patient-001.hea").rename(folder / "patient-000.hea")
        return place, chunks

    place, chunks = asyncio.run(run())
    assert "patient" not in str(place)
    assert [(chunk.stream, chunk.sequence) for chunk in chunks] == [("patient-002", 1), ("patient-000", 1)]


def test_chunks_come_when_their_samples_are_over_and_streams_are_spread(folder: Path) -> None:
    async def run() -> list[float]:
        source = ReplaySource(_settings(folder, speed=10, start=None))
        await source.open(None)
        began, times = time.monotonic(), []
        while len(times) < 6:
            due = len(await source.next())
            times += [time.monotonic() - began] * due
        return times

    times = asyncio.run(run())
    for came, due in zip(times, (0.1, 0.15, 0.2, 0.25, 0.3, 0.35), strict=False):
        assert due - 0.03 < came < due + 1  # another process may have the CPU


def test_without_a_start_the_samples_are_of_now(folder: Path) -> None:
    before = time.time()
    chunk = _replayed(_settings(folder, start=None), 1)[0]
    assert before <= chunk.start <= time.time()


def test_a_cancelled_wait_loses_nothing(folder: Path) -> None:
    async def run() -> list[Chunk]:
        source = ReplaySource(_settings(folder, speed=100))
        await source.open(None)
        chunks: list[Chunk] = []
        while True:
            try:
                async with asyncio.timeout(0.004):
                    chunks += await source.next()
            except TimeoutError:
                continue
            except EndOfSource:
                return chunks

    chunks = asyncio.run(run())
    assert [(c.stream, c.sequence) for c in chunks] == [
        (c.stream, c.sequence) for c in _replayed(_settings(folder))
    ]


def test_broken_records_are_said_once_and_the_others_play(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.edf").write_bytes(b"nothing")
    (tmp_path / "b.csv").write_text("name,ward\nx,y\n")
    (folder / "patient-001.dat").unlink()

    async def run() -> tuple[set[str], list[DataError]]:
        source = ReplaySource(_settings(folder))
        await source.open(None)
        return {chunk.stream for chunk in await _chunks_until(source)}, source.unreadable

    streams, unreadable = asyncio.run(run())
    assert streams == {"patient-002"}
    assert len(unreadable) == 3
    assert all(fault.where and fault.hint for fault in unreadable)


def test_a_record_that_was_cut_off_plays_as_far_as_it_is_there_and_is_named(folder: Path) -> None:
    data = folder / "patient-001.dat"
    os.truncate(data, data.stat().st_size // 2)

    async def run() -> tuple[list[Chunk], list[str]]:
        source = ReplaySource(_settings(folder))
        await source.open(None)
        return await _chunks_until(source), list(source.left_out)

    chunks, left_out = asyncio.run(run())
    assert (len(_of_stream(chunks, "patient-001")), len(_of_stream(chunks, "patient-002"))) == (13, 26)
    (note,) = left_out
    assert note.startswith(f"{folder / 'patient-001.hea'}: cut off: the header says 9180 samples")


def test_a_record_that_breaks_while_it_plays_ends_alone(folder: Path) -> None:
    async def run() -> tuple[list[Chunk], list[DataError]]:
        source = ReplaySource(_settings(folder))
        await source.open(None)
        chunks = await _chunks_until(source, lambda chunks: len(chunks) >= 4)
        (folder / "patient-001.dat").unlink()
        return chunks + await _chunks_until(source), source.unreadable

    chunks, unreadable = asyncio.run(run())
    assert len(_of_stream(chunks, "patient-002")) == 26
    assert 2 <= len(_of_stream(chunks, "patient-001")) < 26
    assert len(unreadable) == 1


def test_without_any_good_record_it_does_not_open(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.edf", Path("s3://bucket/ecg")):
        with pytest.raises(DataError) as refusal:
            asyncio.run(ReplaySource(_settings(path)).open(None))
        assert refusal.value.hint
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("nothing\n")
    with pytest.raises(DataError, match="and 1 more"):
        asyncio.run(ReplaySource(_settings(tmp_path)).open(None))


def test_records_of_one_name_are_streams_of_their_own(folder: Path) -> None:
    write_records(folder / "ward", 1, 20)
    (folder / "patient-001.csv").write_text("II\n" + "1\n\n" * 300)
    chunks = _replayed(_settings(folder, csv_rate=100))
    streams = {chunk.stream for chunk in chunks}
    assert streams == {"patient-001", "patient-001.hea", "patient-002", "ward/patient-001"}
    assert (_of_stream(chunks, "patient-001")[0].samples[:, 0] == [1000, MISSING] * 50).all()


@pytest.mark.parametrize("number", [0, 1, 6])
def test_what_is_held_does_not_grow_with_the_record(tmp_path: Path, number: int) -> None:
    (path,) = write_records(tmp_path, 1, 600)
    stream = RecordStream(number, "bed", open_record(path), _settings(tmp_path))
    most = 0
    for chunk in range(600):
        if not stream.holds(chunk):
            stream.held = stream.read(chunk)
        assert stream.chunk(chunk, START).samples.shape == (360, 2)
        most = max(most, len(stream.held.samples))
    assert stream.is_over(600)
    assert 3600 <= most <= 11 * 360


def test_a_core_replays_more_than_two_thousand_leads_in_real_time(folder: Path) -> None:
    began = time.process_time()
    chunks = _replayed(_settings(folder, streams=200, loop=True), 4000)
    leads = sum(chunk.samples.size for chunk in chunks) / 360
    assert leads / (time.process_time() - began) > 2000


def test_channels_that_the_user_chooses_are_replayed_and_what_was_assumed_is_told(tmp_path: Path) -> None:
    rows = [f"{n / 250:.3f},{np.sin(n / 20):.3f}" for n in range(1000)]
    (tmp_path / "bed.csv").write_text("\n".join(["time,ch1", *rows]))
    with pytest.raises(DataError, match="no channel is an ECG: ch1") as refusal:
        _replayed(_settings(tmp_path))
    assert "--set 'source.leads=[ch1]'" in str(refusal.value.hint)
    source = ReplaySource(_settings(tmp_path, leads=["ch1"]))
    asyncio.run(source.open(None))
    (note,) = source.left_out
    assert note.endswith("bed.csv: no unit in the header, taken as mV by the values: ch1")
    assert _replayed(_settings(tmp_path, leads=["ch1"]))[0].leads == ("ch1",)
