"""MQTT, with a real broker."""

import asyncio
from pathlib import Path

import aiomqtt
import pytest
from pydantic import ValidationError

from genray.errors import SettingsError
from monitors.sources.base import SourceLost
from monitors.sources.message import MAX_BYTES, encode
from monitors.sources.mqtt import Inbox, MqttSettings, MqttSource
from tests.monitors.samples import KEY, FeedWatcher, chunk
from tests.servers import mosquitto


async def publish(port: int, *messages: bytes, topic: str = "ecg/bed-17/samples") -> None:
    async with aiomqtt.Client("127.0.0.1", port) as client:
        for message in messages:
            await client.publish(topic, message)


def test_messages_come_as_chunks_under_a_pseudonym(tmp_path: Path) -> None:
    async def main() -> None:
        with mosquitto(tmp_path) as broker:
            watcher = FeedWatcher(MqttSource.from_settings(MqttSettings(port=broker.port)))
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(watcher.feed.run())
                await watcher.until(lambda: watcher.feed.connected)
                await publish(broker.port, b"noise", encode(chunk(1)), bytes(MAX_BYTES * 3), encode(chunk(2)))
                await publish(broker.port, encode(chunk(9)), topic="weather/today")
                await publish(broker.port, encode(chunk(3)))
                await watcher.until(lambda: len(watcher.chunks) == 3)
                feeding.cancel()
        assert watcher.sequences == [1, 2, 3]
        assert {each.stream for each in watcher.chunks} == {KEY.of("bed-17")}
        assert watcher.faults == {"not-a-message": 1, "too-large": 1}
        assert not watcher.feed.connected

    asyncio.run(main())


def test_a_broker_that_is_killed_and_comes_back_is_found_again(tmp_path: Path) -> None:
    async def main() -> None:
        with mosquitto(tmp_path) as broker:
            watcher = FeedWatcher(MqttSource.from_settings(MqttSettings(port=broker.port)))
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(watcher.feed.run())
                await watcher.until(lambda: watcher.feed.connected)
                await publish(broker.port, encode(chunk(1)))
                await watcher.until(lambda: len(watcher.chunks) == 1)
                broker.kill()
                # Once for the loss, and again for a try in vain.
                await watcher.until(lambda: watcher.faults["source-lost"] >= 2)
                assert not watcher.feed.connected
                await asyncio.to_thread(broker.start)
                await watcher.until(lambda: watcher.feed.connected)
                await publish(broker.port, encode(chunk(2)))
                await watcher.until(lambda: len(watcher.chunks) == 2)
                feeding.cancel()
        assert watcher.sequences == [1, 2]

    asyncio.run(main())


def test_a_session_keeps_what_is_sent_while_nobody_listens(tmp_path: Path) -> None:
    async def main() -> None:
        with mosquitto(tmp_path) as broker:
            source = MqttSource.from_settings(MqttSettings(port=broker.port, client="ward", qos=1))
            await source.open(None)
            await source.close()
            async with aiomqtt.Client("127.0.0.1", broker.port) as client:
                for sequence in range(5):
                    await client.publish("ecg/bed-17/samples", encode(chunk(sequence)), qos=1)
            watcher = FeedWatcher(source)
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(watcher.feed.run())
                await watcher.until(lambda: len(watcher.chunks) == 5)
                feeding.cancel()
            assert watcher.sequences == [0, 1, 2, 3, 4]

    asyncio.run(main())


def test_a_flood_is_held_within_the_limit_and_the_rest_thrown_away(tmp_path: Path) -> None:
    async def main() -> None:
        with mosquitto(tmp_path) as broker:
            source = MqttSource.from_settings(MqttSettings(port=broker.port, buffer_mb=1))
            await source.open(None)
            large = bytes(200_000)
            await publish(broker.port, *[large] * 12)
            await publish(broker.port, b"end")
            messages: list[bytes] = []
            async with asyncio.timeout(10):
                while b"end" not in messages:
                    messages += await source.next()
                    await asyncio.sleep(0.2)
            await source.close()
            assert len(messages) <= 12
            assert sum(map(len, messages)) >= 800_000

    asyncio.run(main())


def test_empty_messages_are_held_within_the_limit_too() -> None:
    inbox = Inbox(2**20)
    message = aiomqtt.Message("ecg/" + "x" * 10_000, b"", 0, False, 1, None)
    with pytest.raises(asyncio.QueueFull):
        for _ in range(200):
            inbox.put_nowait(message)
    before = inbox.qsize()
    assert before > 90
    inbox.get_nowait()
    inbox.put_nowait(message)
    assert inbox.qsize() == before


def test_a_subscription_that_is_refused_is_no_connection() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def packet() -> bytes:
            # Of a short one the length is one byte.
            return await reader.readexactly((await reader.readexactly(2))[1])

        await packet()
        writer.write(b"\x20\x02\x00\x00")  # CONNACK: welcome
        subscribe = await packet()
        writer.write(b"\x90\x03" + subscribe[:2] + b"\x80")  # SUBACK: failure
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    gone = asyncio.Event()

    async def main() -> None:
        broker = await asyncio.start_server(refuse, "127.0.0.1", 0)
        async with broker:
            source = MqttSource.from_settings(MqttSettings(port=broker.sockets[0].getsockname()[1]))
            with pytest.raises(SourceLost, match="the broker refused the subscription"):
                await source.open(None)
            await source.close()
            await gone.wait()

    asyncio.run(main())


@pytest.mark.parametrize("topic", ["ecg/#/x", "ecg/#x", "ecg/bed+/samples", "#/#", "a\0b"])
def test_a_filter_that_no_broker_takes_is_refused_at_once(topic: str) -> None:
    with pytest.raises(ValidationError):
        MqttSettings(topic=topic)


@pytest.mark.parametrize("topic", ["#", "+", "ecg/#", "/+/x/", "$share/ward/ecg/+/samples", "ecg/bed 7/é"])
def test_a_filter_of_the_standard_is_taken(topic: str) -> None:
    assert MqttSettings(topic=topic).topic == topic


def test_a_password_that_is_not_there_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WARD_PASSWORD", raising=False)
    with pytest.raises(SettingsError, match="WARD_PASSWORD is not set"):
        MqttSource.from_settings(MqttSettings(username="ward", password_env="WARD_PASSWORD"))
