"""Redis streams, with a real server."""

import asyncio
from pathlib import Path

import redis.asyncio

from monitors.sources.message import encode
from monitors.sources.redis_streams import RedisSettings, RedisSource
from tests.monitors.samples import FeedWatcher, chunk
from tests.servers import redis_server


async def add(port: int, *messages: bytes, key: str = "ecg") -> None:
    client = redis.asyncio.Redis(port=port)
    for message in messages:
        await client.xadd(key, {"m": message})
    await client.aclose()


def test_a_server_that_is_killed_costs_no_message(tmp_path: Path) -> None:
    async def main() -> None:
        with redis_server(tmp_path) as server:
            settings = RedisSettings(port=server.port, keys=("ecg", "icu"), start="all", count=2)
            watcher = FeedWatcher(RedisSource.from_settings(settings))
            await add(server.port, *(encode(chunk(number)) for number in range(5)))
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(watcher.feed.run())
                await watcher.until(lambda: len(watcher.chunks) == 5)
                server.kill()
                await watcher.until(lambda: watcher.faults["source-lost"] >= 2)
                await asyncio.to_thread(server.start)
                await add(server.port, encode(chunk(5)), b"noise")
                await add(server.port, encode(chunk(6)), key="icu")
                await watcher.until(lambda: len(watcher.chunks) == 7)
                await watcher.until(lambda: watcher.faults["not-a-message"] == 1)
                feeding.cancel()
        assert sorted(watcher.sequences) == [0, 1, 2, 3, 4, 5, 6]

    asyncio.run(main())


def test_another_feed_goes_on_from_the_snapshot(tmp_path: Path) -> None:
    async def main() -> None:
        with redis_server(tmp_path) as server:
            first = FeedWatcher(RedisSource.from_settings(RedisSettings(port=server.port)))
            await add(server.port, encode(chunk(0)))  # before anybody looks
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(first.feed.run())
                await first.until(lambda: first.feed.connected)
                await add(server.port, encode(chunk(1)), encode(chunk(2)))
                await first.until(lambda: len(first.chunks) == 2)
                await first.until(lambda: first.feed.snapshot()["ecg"] != "0-0")
                feeding.cancel()
            await add(server.port, encode(chunk(3)), encode(chunk(4)))
            second = FeedWatcher(RedisSource.from_settings(RedisSettings(port=server.port)))
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(second.feed.run(first.feed.snapshot()))
                await second.until(lambda: len(second.chunks) == 2)
                feeding.cancel()
        assert first.sequences + second.sequences == [1, 2, 3, 4]

    asyncio.run(main())
