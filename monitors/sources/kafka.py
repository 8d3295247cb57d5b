"""Samples from a Kafka topic: each message of the wire format is the value of a record.

Records of one stream must have one key (say, its name), so that they stay in one partition and in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from genray.settings.base import Location, Settings
from monitors.sources.base import SourceLost
from monitors.sources.connection import (
    PASSWORD_HINT,
    Host,
    import_extra,
    read_password,
    require_tls_for_ca,
    tls_context,
)

if TYPE_CHECKING:
    import confluent_kafka

_METADATA_TIMEOUTS = (1.0, 2.0, 8.0)  # s for the metadata of a topic, in successive attempts


class KafkaSettings(Settings):
    """Settings of a Kafka topic."""

    credentials: ClassVar[str] = PASSWORD_HINT

    kind: Literal["kafka"] = Field("kafka", description="a Kafka topic")
    servers: Host = Field("127.0.0.1:9092", description="bootstrap servers: host:port,host:port")
    topic: str = Field("ecg", min_length=1, description="topic to read, all of its partitions")
    start: Literal["new", "all"] = Field(
        "new", description="records to start with (new: those after the start, all: the oldest stored)"
    )
    count: int = Field(500, ge=1, le=10_000, description="most records that are read at once")
    buffer_mb: int = Field(64, ge=1, le=2048, description="MiB of records that the client fetches ahead")
    username: str | None = Field(None, description="SASL user name (null: no SASL)")
    password_env: str | None = Field(
        None, description="environment variable that contains the SASL password (null: no password)"
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="SASL mechanism, used with a user name"
    )
    tls: bool = Field(False, description="encrypt the connection and verify the brokers' certificates")
    ca: Location | None = Field(
        None, description="PEM file of the certificate authority to trust (null: those of the system)"
    )
    _ca = model_validator(mode="after")(require_tls_for_ca)


class KafkaSource:
    """Reads the records of all partitions of a topic, without a consumer group. Its place is the offset in
    each partition.

    Args:
        settings: settings of the topic.
        library: module confluent_kafka.
        password: SASL password; None: no password.
    """

    name = "kafka"
    left_out: Sequence[str] = ()

    def __init__(self, settings: KafkaSettings, library: Any, password: str | None) -> None:
        self._settings = settings
        self._library = library
        self._password = password
        self._consumer: confluent_kafka.Consumer | None = None
        # One thread, so that no call overlaps with an earlier one that was cancelled.
        self._thread: ThreadPoolExecutor | None = None
        self._offsets: dict[str, int] = {}
        self._lost_reason: str | None = None
        self._last_error = ""

    @classmethod
    def from_settings(cls, settings: KafkaSettings) -> KafkaSource:
        """Return the source of `settings`, not yet open.

        Raises:
            GenrayError: confluent-kafka, the password or the authority is missing.
        """
        library = import_extra("confluent_kafka", extra="kafka")
        password = read_password(settings.password_env)
        if settings.tls:
            tls_context(settings.ca)  # for a clear error: that of librdkafka does not name a missing file
        return cls(settings, library, password)

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
        if self._lost_reason is not None and not messages:
            raise SourceLost(self._lost_reason)
        return messages

    def snapshot(self) -> Mapping[str, Any]:
        return dict(self._offsets)

    async def close(self) -> None:
        thread, consumer = self._thread, self._consumer
        self._thread = None
        self._consumer = None
        if thread is not None:
            if consumer is not None:
                await asyncio.get_running_loop().run_in_executor(thread, consumer.close)
            thread.shutdown(wait=False)

    def _open(self, resume: Mapping[str, Any]) -> None:
        kafka, settings = self._library, self._settings
        options: dict[str, Any] = {
            "bootstrap.servers": settings.servers,
            "group.id": "genray",  # required by the library, not used
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "latest" if settings.start == "new" else "earliest",
            "queued.max.messages.kbytes": settings.buffer_mb * 1024,
            "fetch.wait.max.ms": 100,
            "error_cb": self._on_error,
            "log_level": 0,
            "security.protocol": _protocol(settings),
        }
        if settings.ca:
            options["ssl.ca.location"] = settings.ca
        if settings.username:
            options |= {
                "sasl.mechanism": settings.mechanism,
                "sasl.username": settings.username,
                "sasl.password": self._password or "",
            }
        self._lost_reason = None
        self._last_error = ""
        self._consumer = consumer = kafka.Consumer(options)
        topic = self._metadata(consumer).topics[settings.topic]
        if topic.error is not None:
            raise kafka.KafkaException(topic.error)
        self._offsets = {}
        places = []
        for partition in sorted(topic.partitions):
            place = kafka.TopicPartition(settings.topic, partition)
            if str(partition) in resume:
                self._offsets[str(partition)] = int(resume[str(partition)])
            else:
                # Read now, so that no record between this and the first fetch is skipped.
                low, high = consumer.get_watermark_offsets(place, timeout=10)
                self._offsets[str(partition)] = high if settings.start == "new" else low
            place.offset = self._offsets[str(partition)]
            places.append(place)
        consumer.assign(places)

    def _metadata(self, consumer: confluent_kafka.Consumer) -> Any:
        """Return the metadata of the topic. It is requested several times, because the reason why no broker
        can be used arrives only between the requests."""
        failed: Any = None
        for seconds in _METADATA_TIMEOUTS:
            try:
                return consumer.list_topics(self._settings.topic, timeout=seconds)
            except self._library.KafkaException as error:
                failed = error
            consumer.poll(0)  # calls `_on_error`
            if self._lost_reason is not None:
                raise SourceLost(self._lost_reason)
        raise SourceLost(failed.args[0].str())

    def _fetch(self) -> list[confluent_kafka.Message]:
        assert self._consumer is not None
        first = self._consumer.poll(1.0)
        if first is None:
            return []
        self._lost_reason = None
        # `consume` would wait for the full number of records, so its timeout is 0.
        return [first, *self._consumer.consume(self._settings.count - 1, timeout=0)]

    def _on_error(self, error: confluent_kafka.KafkaError) -> None:
        if error.code() == self._library.KafkaError._ALL_BROKERS_DOWN:
            # This error names no reason; the last error of a broker does.
            self._lost_reason = self._last_error or error.str()
        elif error.fatal():
            self._lost_reason = error.str()
        else:
            self._last_error = error.str()

    async def _call(self, function: Any, *args: Any) -> Any:
        assert self._thread is not None
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)


def _protocol(settings: KafkaSettings) -> str:
    transport = "SSL" if settings.tls else "PLAINTEXT"
    return f"SASL_{transport}" if settings.username else transport
