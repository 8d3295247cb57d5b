"""The feed, from sources that lie, fail and come back."""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from genray.errors import UsageError
from monitors.patient.ordering import Sequencer, SequencerSettings
from monitors.sources.base import EndOfSource, SourceLost
from monitors.sources.feed import Feed, FeedSettings
from monitors.sources.message import REASONS, Chunk, encode
from tests.monitors.samples import KEY, FeedWatcher, chunk

Step = Sequence[bytes | Chunk] | Exception


class Scripted:
    """A source that gives batches, or raises what stands in their place; its place is how many it gave."""

    name = "scripted"
    left_out: Sequence[str] = ()

    def __init__(self, steps: Sequence[Step], refusals: Sequence[Exception] = ()) -> None:
        self._steps = list(steps)
        self._refusals = deque(refusals)
        self.given = 0
        self.opened: list[Mapping[str, Any] | None] = []
        self.closed = 0

    async def open(self, resume: Mapping[str, Any] | None) -> None:
        self.opened.append(resume)
        if self._refusals:
            raise self._refusals.popleft()

    async def next(self) -> Sequence[bytes | Chunk]:
        if self.given == len(self._steps):
            raise EndOfSource
        self.given += 1
        step = self._steps[self.given - 1]
        if isinstance(step, Exception):
            raise step
        return step

    def snapshot(self) -> Mapping[str, Any]:
        return {"given": self.given}

    async def close(self) -> None:
        self.closed += 1


def test_chunks_and_messages_alike_come_under_their_pseudonym_with_the_time_of_arrival() -> None:
    watcher = FeedWatcher(Scripted([[chunk(1), encode(chunk(2))]]))
    asyncio.run(watcher.feed.run())
    assert watcher.sequences == [1, 2]
    assert {each.stream for each in watcher.chunks} == {KEY.of("bed-17")}
    assert all(each.received > 0 for each in watcher.chunks)


def test_streams_of_other_shards_are_passed_over() -> None:
    sent = [
        chunk(1, stream="bed-1"),
        encode(chunk(2, stream="bed-2")),
        encode(chunk(3, stream="bed-1")),
        b"?",
    ]
    watcher = FeedWatcher(Scripted([sent]), accepts=lambda name: name == "bed-1")
    asyncio.run(watcher.feed.run())
    assert watcher.sequences == [1, 3]
    assert watcher.faults == {"not-a-message": 1}


def test_a_lost_source_is_opened_where_the_last_delivery_ended(caplog: pytest.LogCaptureFixture) -> None:
    source = Scripted(
        [[chunk(1)], [chunk(2)], SourceLost("gone"), [chunk(3)], ValueError("password=s3cret"), [chunk(4)]],
        [OSError("no route"), SourceLost("not yet")],
    )
    watcher = FeedWatcher(source)
    asyncio.run(watcher.feed.run({"given": 0}))
    assert watcher.sequences == [1, 2, 3, 4]
    assert watcher.faults == {"source-lost": 4}
    assert source.opened == [*[{"given": 0}] * 3, {"given": 2}, {"given": 4}]
    assert watcher.feed.snapshot() == {"given": 6}
    assert source.closed == 5
    assert "gone" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_source_that_can_never_be_opened_ends_the_feed() -> None:
    source = Scripted([], [UsageError("aiomqtt is not installed")])
    with pytest.raises(UsageError, match="not installed"):
        asyncio.run(FeedWatcher(source).feed.run())
    assert source.closed == 1


def test_an_error_of_the_receiver_is_not_a_loss_of_the_source() -> None:
    async def fail(got: Chunk) -> None:
        raise ZeroDivisionError

    faults: Counter[str] = Counter()
    source = Scripted([[chunk(1)]])
    feed = Feed(source, fail, lambda reason, count: faults.update({reason: count}), FeedSettings(), KEY)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(feed.run())
    assert not faults
    assert feed.snapshot() == {"given": 0}  # what was not delivered comes again
    assert source.closed == 1


def test_a_source_that_hangs_while_it_opens_is_lost() -> None:
    class Hanging(Scripted):
        async def open(self, resume: Mapping[str, Any] | None) -> None:
            await super().open(resume)
            if len(self.opened) < 3:
                await asyncio.Event().wait()

    async def main() -> None:
        source = Hanging([[chunk(1)]])
        taken: list[Chunk] = []
        faults: Counter[str] = Counter()

        async def take(got: Chunk) -> None:
            taken.append(got)

        settings = FeedSettings(first_wait=0.01, longest_wait=0.01, open_seconds=0.05)
        await Feed(source, take, lambda reason, count: faults.update({reason: count}), settings, KEY).run()
        assert len(taken) == 1
        assert faults == {"source-lost": 2}

    asyncio.run(main())


def test_a_feed_that_never_runs_dry_can_be_cancelled_and_lets_others_run() -> None:
    class Endless(Scripted):
        async def next(self) -> Sequence[bytes | Chunk]:
            return [b"noise"] * 100

    async def main() -> None:
        source = Endless([])
        watcher = FeedWatcher(source)
        feeding = asyncio.create_task(watcher.feed.run())
        await watcher.until(lambda: watcher.faults["not-a-message"] > 1000)
        feeding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await feeding
        assert source.closed == 1

    asyncio.run(main())


def test_a_cancellation_that_a_client_library_swallows_still_ends_the_feed() -> None:
    class Deaf(Scripted):
        async def next(self) -> Sequence[bytes | Chunk]:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return []

    async def main() -> None:
        watcher = FeedWatcher(Deaf([]))
        feeding = asyncio.create_task(watcher.feed.run())
        await watcher.until(lambda: watcher.feed.connected)
        feeding.cancel()
        async with asyncio.timeout(5):
            await asyncio.wait({feeding})
        assert feeding.cancelled()

    asyncio.run(main())


def test_waits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="longer than longest_wait"):
        FeedSettings(first_wait=10, longest_wait=5)


@given(st.data())
def test_a_source_that_lies_harms_no_message_that_is_whole(data: st.DataObject) -> None:
    batches: list[list[bytes | Chunk]] = [[]]
    sent = 0
    for _ in range(data.draw(st.integers(1, 30))):
        kind = data.draw(st.sampled_from(["good", "good", "noise", "mutated", "again", "batch"]))
        if kind == "good":
            batches[-1].append(encode(chunk(sent, seconds=0.1)))
            sent += 1
        elif kind == "noise":
            batches[-1].append(data.draw(st.binary(max_size=60)))
        elif kind == "mutated":
            changed = bytearray(encode(chunk(sent, seconds=0.1)))
            changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
            batches[-1].append(bytes(changed))
        elif kind == "again" and sent:
            batches[-1].append(encode(chunk(data.draw(st.integers(0, sent - 1)), seconds=0.1)))
        elif kind == "batch":
            data.draw(st.randoms()).shuffle(batches[-1]) if len(batches[-1]) <= 4 else None
            batches.append([])
    watcher = FeedWatcher(Scripted(batches))
    asyncio.run(watcher.feed.run())
    assert set(watcher.sequences) == set(range(sent))
    assert watcher.faults.keys() <= {*REASONS, "source-lost"}
    sequencer = Sequencer(SequencerSettings())
    ordered = [each for got in watcher.chunks for each in sequencer.push(got)] + sequencer.flush()
    numbers = [each.chunk.sequence for each in ordered]
    assert numbers == sorted(set(numbers))
    assert set(numbers) | set(range(numbers[0] if numbers else 0)) == set(range(sent))
