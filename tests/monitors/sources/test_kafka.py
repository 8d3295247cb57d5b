"""Kafka, with mocked brokers."""

import asyncio
from collections.abc import Callable

from monitors.sources.kafka import KafkaSettings, KafkaSource
from monitors.sources.message import encode
from tests.monitors.samples import FeedWatcher, chunk
from tests.monitors.sources.kafka_broker import produce, start_broker


async def feed_until(
    watcher: FeedWatcher, happened: Callable[[], bool], place: dict[str, int] | None = None
) -> None:
    async with asyncio.TaskGroup() as group:
        feeding = group.create_task(watcher.feed.run(place))
        await watcher.until(happened, 20)
        feeding.cancel()


def test_another_feed_goes_on_from_the_snapshot() -> None:
    async def main() -> None:
        producer, servers = start_broker()
        produce(producer, *(encode(chunk(number)) for number in range(20)), b"noise")
        settings = KafkaSettings(servers=servers, start="all", count=8)
        first = FeedWatcher(KafkaSource.from_settings(settings))
        await feed_until(first, lambda: sum(map(int, first.feed.snapshot().values())) == 21)
        assert first.sequences == list(range(20))
        assert first.faults == {"not-a-message": 1}
        produce(producer, encode(chunk(20)), encode(chunk(21)))
        second = FeedWatcher(KafkaSource.from_settings(settings))
        await feed_until(second, lambda: len(second.chunks) == 2, dict(first.feed.snapshot()))
        assert second.sequences == [20, 21]

    asyncio.run(main())


def test_what_was_there_before_is_passed_over() -> None:
    async def main() -> None:
        producer, servers = start_broker()
        produce(producer, encode(chunk(0)))
        watcher = FeedWatcher(KafkaSource.from_settings(KafkaSettings(servers=servers)))
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(watcher.feed.run())
            await watcher.until(lambda: watcher.feed.connected, 20)
            produce(producer, encode(chunk(1)))
            await watcher.until(lambda: len(watcher.chunks) == 1, 20)
            feeding.cancel()
        assert watcher.sequences == [1]

    asyncio.run(main())


def test_brokers_that_go_away_are_a_loss() -> None:
    async def main() -> None:
        producer, servers = start_broker()
        watcher = FeedWatcher(KafkaSource.from_settings(KafkaSettings(servers=servers)))
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(watcher.feed.run())
            await watcher.until(lambda: watcher.feed.connected, 20)
            del producer  # and its broker
            await watcher.until(lambda: watcher.faults["source-lost"] >= 1, 20)
            feeding.cancel()
        assert set(watcher.faults) == {"source-lost"}

    asyncio.run(main())
