"""Samples from an MQTT broker: each message of the wire format is one publication.

QoS 0 is enough: messages contain a sequence number, so that losses are noticed, and acknowledgements make a
broker several times slower.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from genray.settings.base import Location, Settings
from monitors.sources.base import SourceLost
from monitors.sources.connection import (
    PASSWORD_HINT,
    Host,
    explain_connection_failure,
    import_extra,
    read_password,
    require_tls_for_ca,
    tls_context,
)
from monitors.sources.message import MAX_BYTES

if TYPE_CHECKING:
    import aiomqtt

_REFUSED = 128  # SUBACK, section 3.9.3 of MQTT 3.1.1
_OVERHEAD = 200  # bytes of memory that a message takes besides its payload and topic
_LOG = logging.getLogger("monitors.mqtt")
_LOG.addHandler(logging.NullHandler())
_LOG.propagate = False  # the client logs every message of the broker; the feed logs losses


class MqttSettings(Settings):
    """Settings of an MQTT broker."""

    credentials: ClassVar[str] = PASSWORD_HINT

    kind: Literal["mqtt"] = Field("mqtt", description="an MQTT broker")
    host: Host = Field("127.0.0.1", description="host name or address of the broker")
    port: int = Field(1883, ge=1, le=65535, description="port of the broker (8883 is usual with TLS)")
    topic: str = Field(
        "ecg/+/samples",
        min_length=1,
        max_length=1000,
        # Section 4.7 of the standard: + is a whole level, # a whole last one.
        pattern=r"^(?:(?:\+|[^+#/\x00]*)/)*(?:\+|#|[^+#/\x00]*)$",
        description="topic filter to subscribe to",
    )
    qos: Literal[0, 1] = Field(
        0, description="quality of service (1: the broker repeats unacknowledged messages, which is slower)"
    )
    client: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="client id of a persistent session: with qos 1 the broker stores messages while the "
        "monitor is away (null: none)",
    )
    username: str | None = Field(None, description="user name (null: none)")
    password_env: str | None = Field(
        None, description="environment variable that contains the password (null: no password)"
    )
    tls: bool = Field(False, description="encrypt the connection and verify the broker's certificate")
    ca: Location | None = Field(
        None, description="PEM file of the certificate authority to trust (null: those of the system)"
    )
    _ca = model_validator(mode="after")(require_tls_for_ca)
    buffer_mb: int = Field(
        64, ge=1, le=4096, description="most MiB of received messages that wait (further ones are dropped)"
    )


class MqttSource:
    """Reads the publications of one topic filter. It has no place: messages published while it is
    disconnected are lost, except those that the broker stores for the session `client`.

    Args:
        settings: settings of the broker.
        library: module aiomqtt.
        password: password of the user; None: no password.
        tls: TLS context with the authorities to trust; None: no encryption.
    """

    name = "mqtt"
    left_out: Sequence[str] = ()

    def __init__(
        self, settings: MqttSettings, library: Any, password: str | None, tls: ssl.SSLContext | None
    ) -> None:
        self._settings = settings
        self._library = library
        self._password = password
        self._tls = tls
        self._client: aiomqtt.Client | None = None
        self._inbox: asyncio.Queue[aiomqtt.Message] | None = None
        self._next_message: asyncio.Task[aiomqtt.Message] | None = None

    @classmethod
    def from_settings(cls, settings: MqttSettings) -> MqttSource:
        """Return the source of `settings`, not yet open.

        Raises:
            GenrayError: aiomqtt, the password or the authority is missing.
        """
        library = import_extra("aiomqtt", extra="mqtt")
        password = read_password(settings.password_env)
        tls = None
        if settings.tls:
            tls = tls_context(settings.ca)
            tls.sslsocket_class = _ClosingSocket
        return cls(settings, library, password, tls)

    async def open(self, resume: Mapping[str, Any] | None) -> None:
        settings = self._settings
        inbox = Inbox(settings.buffer_mb * 2**20)
        client: aiomqtt.Client = self._library.Client(
            settings.host,
            settings.port,
            username=settings.username,
            password=self._password,
            identifier=settings.client,
            clean_session=settings.client is None,
            tls_context=self._tls,
            queue_type=lambda maxsize=0: inbox,
            logger=_LOG,
            keepalive=20,
            timeout=10,
        )
        try:
            await client.__aenter__()
            self._client, self._inbox = client, inbox
            granted = await client.subscribe(settings.topic, qos=settings.qos)
        except (self._library.MqttError, OSError) as error:
            raise SourceLost(
                explain_connection_failure(error, settings.host, settings.port) or str(error)
            ) from error
        codes = [code if isinstance(code, int) else code.value for code in granted]
        if any(code >= _REFUSED for code in codes):
            raise SourceLost(
                "the broker refused the subscription: check source.topic and the permissions of the user"
            )

    async def next(self) -> Sequence[bytes]:
        assert self._client is not None
        assert self._inbox is not None
        # The task is kept after a timeout, so that a message that arrives just then is not lost.
        self._next_message = self._next_message or asyncio.ensure_future(anext(self._client.messages))
        await asyncio.wait({self._next_message}, timeout=1.0)
        if not self._next_message.done():
            return []
        try:
            messages = [self._next_message.result()]
        except self._library.MqttError as error:
            raise SourceLost(str(error)) from error
        finally:
            self._next_message = None
        while not self._inbox.empty():
            messages.append(self._inbox.get_nowait())
        return [message.payload for message in messages if isinstance(message.payload, bytes)]

    def snapshot(self) -> Mapping[str, Any]:
        return {}

    async def close(self) -> None:
        waiting, client = self._next_message, self._client
        self._next_message = None
        self._client = None
        self._inbox = None
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        if client is not None:
            with suppress(self._library.MqttError):  # the connection may be lost already
                await client.__aexit__(None, None, None)


class _ClosingSocket(ssl.SSLSocket):
    """Socket that closes when its handshake fails, as the client would leave it open after each failed
    attempt."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


class Inbox(asyncio.Queue["aiomqtt.Message"]):
    """Queue of at most `max_bytes`. A message above the limit of the wire format is cut to one byte more than
    that limit, so that it is still refused as too large."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._bytes = 0

    def put_nowait(self, item: aiomqtt.Message) -> None:
        payload = item.payload
        assert isinstance(payload, bytes)
        if len(payload) > MAX_BYTES:
            item.payload = payload = payload[: MAX_BYTES + 1]
        size = _size(item)
        if self._bytes + size > self._max_bytes:
            raise asyncio.QueueFull
        self._bytes += size
        super().put_nowait(item)

    def _get(self) -> aiomqtt.Message:
        item: aiomqtt.Message = super()._get()
        self._bytes -= _size(item)
        return item


def _size(message: aiomqtt.Message) -> int:
    # With an overhead, as a flood of empty messages would otherwise fill the memory.
    return len(message.payload) + len(str(message.topic)) + _OVERHEAD
