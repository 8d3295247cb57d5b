"""Samples from a Kafka topic: each message of the wire format is the value of a record.

Records of one stream must have one key (say, its name), so that they stay in one partition and in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from genray.settings.base import Location, Settings
from monitors.sources.base import SourceLost
from monitors.sources.connection import ca_needs_tls, needs, password, trust

if TYPE_CHECKING:
    import confluent_kafka

_ASKED = (1.0, 2.0, 8.0)  # s that brokers have to say what a topic is, one after the other


class KafkaSettings(Settings):
    """Settings of a Kafka topic."""

    kind: Literal["kafka"] = Field("kafka", description="a Kafka topic")
    servers: str = Field("127.0.0.1:9092", min_length=1, description="some brokers: host:port,host:port")
    topic: str = Field("ecg", min_length=1, description="all of its partitions are read")
    start: Literal["new", "all"] = Field("new", description="where to begin: after what is there, or with it")
    count: int = Field(500, ge=1, le=10_000, description="most records that are handed on at once")
    buffer_mb: int = Field(64, ge=1, le=2048, description="of records that the client fetches ahead")
    username: str | None = Field(None, description="of SASL; null: none")
    password_env: str | None = Field(None, description="environment variable that holds the password")
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="of SASL, where there is a username"
    )
    tls: bool = Field(False, description="encrypt, and check the brokers' certificates")
    ca: Location | None = Field(None, description="file of the authority to trust; null: those of the system")
    _ca = model_validator(mode="after")(ca_needs_tls)


class KafkaSource:
    """Records of all partitions of a topic, without a consumer group. Its place is the offset in each.

    Raises:
        GenrayError: confluent-kafka, the password or the authority is missing.
    """

    name = "kafka"
    left_out: Sequence[str] = ()

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._library = needs("confluent_kafka", extra="kafka")
        self._password = password(settings.password_env)
        if settings.tls:
            trust(settings.ca)  # librdkafka reads it itself, and says less of a file that is not there
        self._consumer: confluent_kafka.Consumer | None = None
        # One thread, so that no call overlaps with one that was given up.
        self._thread: ThreadPoolExecutor | None = None
        self._offsets: dict[str, int] = {}
        self._down: str | None = None
        self._trouble = ""

    async def open(self, resume: Mapping[str, Any] | None) -> None:
        self._thread = ThreadPoolExecutor(1, "kafka")
        try:
            await self._call(self._open, resume or {})
        except self._library.KafkaException as error:
            raise SourceLost(error.args[0].str()) from error

    async def next(self) -> Sequence[bytes]:
        records = await self._call(self._fetch)
        messages: list[bytes] = []
        for record in records:
            if record.error() is not None:
                raise SourceLost(record.error().str())
            self._offsets[str(record.partition())] = record.offset() + 1
            messages.append(record.value() or b"")
        if self._down is not None and not messages:
            raise SourceLost(self._down)
        return messages

    def snapshot(self) -> Mapping[str, Any]:
        return dict(self._offsets)

    async def close(self) -> None:
        thread, consumer = self._thread, self._consumer
        self._thread = self._consumer = None
        if thread is not None:
            if consumer is not None:
                await asyncio.get_running_loop().run_in_executor(thread, consumer.close)
            thread.shutdown(wait=False)

    def _open(self, resume: Mapping[str, Any]) -> None:
        kafka, s = self._library, self._settings
        options: dict[str, Any] = {
            "bootstrap.servers": s.servers,
            "group.id": "genray",  # demanded, not used
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "latest" if s.start == "new" else "earliest",
            "queued.max.messages.kbytes": s.buffer_mb * 1024,
            "fetch.wait.max.ms": 100,
            "error_cb": self._on_error,
            "log_level": 0,
            "security.protocol": ("SASL_" if s.username else "") + ("SSL" if s.tls else "PLAINTEXT"),
        }
        if s.ca:
            options["ssl.ca.location"] = s.ca
        if s.username:
            options |= {
                "sasl.mechanism": s.mechanism,
                "sasl.username": s.username,
                "sasl.password": self._password or "",
            }
        self._down, self._trouble = None, ""
        self._consumer = consumer = kafka.Consumer(options)
        topic = self._metadata(consumer).topics[s.topic]
        if topic.error is not None:
            raise kafka.KafkaException(topic.error)
        self._offsets = {}
        places = []
        for partition in sorted(topic.partitions):
            place = kafka.TopicPartition(s.topic, partition)
            if str(partition) in resume:
                self._offsets[str(partition)] = int(resume[str(partition)])
            else:
                # Asked for now, so that nothing is passed over between this and the first fetch.
                low, high = consumer.get_watermark_offsets(place, timeout=10)
                self._offsets[str(partition)] = high if s.start == "new" else low
            place.offset = self._offsets[str(partition)]
            places.append(place)
        consumer.assign(places)

    def _metadata(self, consumer: confluent_kafka.Consumer) -> Any:
        """Of the topic. Asked for again and again, because why no broker can be used is said only between."""
        failed: Any = None
        for seconds in _ASKED:
            try:
                return consumer.list_topics(self._settings.topic, timeout=seconds)
            except self._library.KafkaException as error:
                failed = error
            consumer.poll(0)  # calls `_on_error`
            if self._down is not None:
                raise SourceLost(self._down)
        raise SourceLost(failed.args[0].str())

    def _fetch(self) -> list[confluent_kafka.Message]:
        assert self._consumer is not None
        first = self._consumer.poll(1.0)
        if first is None:
            return []
        self._down = None
        # `consume` waits until it has all that it is asked for, so it is not asked to wait.
        return [first, *self._consumer.consume(self._settings.count - 1, timeout=0)]

    def _on_error(self, error: confluent_kafka.KafkaError) -> None:
        if error.code() == self._library.KafkaError._ALL_BROKERS_DOWN:
            # That is no reason; what was said of the last of them is one.
            self._down = self._trouble or error.str()
        elif error.fatal():
            self._down = error.str()
        else:
            self._trouble = error.str()

    async def _call(self, function: Any, *args: Any) -> Any:
        assert self._thread is not None
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
