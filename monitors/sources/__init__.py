"""Sources of samples; each kind of source is one module."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from monitors.sources.base import EcgSource
from monitors.sources.demo import DemoSettings, DemoSource
from monitors.sources.kafka import KafkaSettings, KafkaSource
from monitors.sources.mqtt import MqttSettings, MqttSource
from monitors.sources.redis_streams import RedisSettings, RedisSource
from monitors.sources.replay import ReplaySettings, ReplaySource
from monitors.sources.websocket import WebSocketSettings, WebSocketSource

SourceSettings = Annotated[
    DemoSettings | ReplaySettings | MqttSettings | RedisSettings | KafkaSettings | WebSocketSettings,
    Field(discriminator="kind"),
]
"""Settings of any source, distinguished by `kind`."""


def make_source(settings: SourceSettings) -> EcgSource:
    """Return the source of `settings`, not yet open.

    Raises:
        GenrayError: a package, a password or a file that it needs is missing.
    """
    match settings:
        case DemoSettings():
            return DemoSource(settings)
        case ReplaySettings():
            return ReplaySource(settings)
        case MqttSettings():
            return MqttSource.from_settings(settings)
        case RedisSettings():
            return RedisSource.from_settings(settings)
        case KafkaSettings():
            return KafkaSource.from_settings(settings)
        case WebSocketSettings():
            return WebSocketSource.from_settings(settings)
