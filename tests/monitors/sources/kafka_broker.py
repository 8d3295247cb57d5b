"""A Kafka broker that librdkafka mocks inside a producer: real connections, no Java."""

from __future__ import annotations

from confluent_kafka import Producer


def start_broker() -> tuple[Producer, str]:
    """A producer, in which one broker lives, and the broker's address."""
    producer = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
    (broker,) = producer.list_topics("ecg", timeout=10).brokers.values()
    return producer, f"{broker.host}:{broker.port}"


def produce(producer: Producer, *messages: bytes) -> None:
    """Send messages of a stream to the topic `ecg`."""
    for message in messages:
        producer.produce("ecg", message, key=b"bed-17")
    assert producer.flush(10) == 0
