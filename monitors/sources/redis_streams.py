"""Samples from Redis streams: each message of the wire format is the field `m` of an entry."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from genray.settings.base import Location, Settings
from monitors.sources.base import SourceLost
from monitors.sources.connection import ca_needs_tls, connection_failure, needs, password, trust

FIELD = b"m"


class RedisSettings(Settings):
    """Settings of Redis streams."""

    kind: Literal["redis"] = Field("redis", description="Redis streams")
    host: str = Field("127.0.0.1", min_length=1, description="of the server")
    port: int = Field(6379, ge=1, le=65535, description="of the server")
    keys: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        ("ecg",), min_length=1, max_length=1000, description="the streams to read"
    )
    start: Literal["new", "all"] = Field("new", description="where to begin: after what is there, or with it")
    count: int = Field(200, ge=1, le=10_000, description="most entries of each key that are fetched at once")
    username: str | None = Field(None, description="null: none")
    password_env: str | None = Field(None, description="environment variable that holds the password")
    tls: bool = Field(False, description="encrypt, and check the server's certificate")
    ca: Location | None = Field(None, description="file of the authority to trust; null: those of the system")
    _ca = model_validator(mode="after")(ca_needs_tls)


class RedisSource:
    """Entries of some streams, in their order. Its place is the id of the last entry of each.

    Raises:
        GenrayError: redis, the password or the authority is missing.
    """

    name = "redis"
    left_out: Sequence[str] = ()

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._library = needs("redis.asyncio", extra="redis")
        self._password = password(settings.password_env)
        self._tls = trust(settings.ca) if settings.tls else None
        self._client: Any = None  # its types cover both protocols and fit neither
        self._ids: dict[str, str] = {}

    async def open(self, resume: Mapping[str, Any] | None) -> None:
        s = self._settings
        self._client = client = self._library.Redis(
            host=s.host,
            port=s.port,
            username=s.username,
            password=self._password,
            ssl=s.tls,
            socket_connect_timeout=10,
            socket_timeout=10,
            # The feed tries again, and tells.
            retry=needs("redis.asyncio.retry", extra="redis").Retry(
                needs("redis.backoff", extra="redis").NoBackoff(), 0
            ),
        )
        if self._tls is not None:
            client.connection_pool.connection_class = _trusting(self._tls)
        try:
            await client.ping()
            self._ids = {}
            for key in s.keys:
                if resume and key in resume:
                    self._ids[key] = str(resume[key])
                else:
                    newest = [] if s.start == "all" else await client.xrevrange(key, count=1)
                    self._ids[key] = newest[0][0].decode("ascii") if newest else "0-0"
        except (self._library.RedisError, OSError) as error:
            raise SourceLost(self._why(error)) from error

    async def next(self) -> Sequence[bytes]:
        try:
            answer = await self._client.xread(dict(self._ids), count=self._settings.count, block=1000)
        except (self._library.RedisError, OSError) as error:
            raise SourceLost(self._why(error)) from error
        messages: list[bytes] = []
        for key, entries in answer:
            # An entry without the field is handed on: the feed counts it as no message.
            messages += [fields.get(FIELD, b"") for _, fields in entries]
            self._ids[key.decode("utf-8")] = entries[-1][0].decode("ascii")
        return messages

    def snapshot(self) -> Mapping[str, Any]:
        return dict(self._ids)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(self._library.RedisError, OSError):  # it may be gone already
                await client.aclose()

    def _why(self, error: Exception) -> str:
        s = self._settings
        return connection_failure(error, s.host, s.port) or str(error) or type(error).__name__


def _trusting(context: ssl.SSLContext) -> type:
    """Connections that trust whom `context` does; the library would trust those of the system as well."""
    base: Any = needs("redis.asyncio.connection", extra="redis").SSLConnection

    def begin(self: Any, **options: Any) -> None:
        base.__init__(self, **options)
        self.ssl_context.context = context

    return type("Trusting", (base,), {"__init__": begin})
