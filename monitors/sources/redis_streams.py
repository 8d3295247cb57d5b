"""Samples from Redis streams: each message of the wire format is the field `m` of an entry."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal

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

FIELD = b"m"


class RedisSettings(Settings):
    """Settings of Redis streams."""

    credentials: ClassVar[str] = PASSWORD_HINT

    kind: Literal["redis"] = Field("redis", description="Redis streams")
    host: Host = Field("127.0.0.1", description="host name or address of the server")
    port: int = Field(6379, ge=1, le=65535, description="port of the server")
    keys: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        ("ecg",), min_length=1, max_length=1000, description="keys of the Redis streams to read"
    )
    start: Literal["new", "all"] = Field(
        "new", description="entries to start with (new: those after the start, all: the oldest stored)"
    )
    count: int = Field(200, ge=1, le=10_000, description="most entries of each key that are read at once")
    username: str | None = Field(None, description="user name (null: none)")
    password_env: str | None = Field(
        None, description="environment variable that contains the password (null: no password)"
    )
    tls: bool = Field(False, description="encrypt the connection and verify the server's certificate")
    ca: Location | None = Field(
        None, description="PEM file of the certificate authority to trust (null: those of the system)"
    )
    _ca = model_validator(mode="after")(require_tls_for_ca)


class RedisSource:
    """Reads the entries of Redis streams in their order. Its place is the id of the last entry of each.

    Args:
        settings: settings of the Redis streams.
        library: module redis.asyncio.
        password: password of the user; None: no password.
        tls: TLS context with the authorities to trust; None: no encryption.
    """

    name = "redis"
    left_out: Sequence[str] = ()

    def __init__(
        self, settings: RedisSettings, library: Any, password: str | None, tls: ssl.SSLContext | None
    ) -> None:
        self._settings = settings
        self._library = library
        self._password = password
        self._tls = tls
        self._client: Any = None  # the library's types fit neither of its two protocols
        self._last_ids: dict[str, str] = {}

    @classmethod
    def from_settings(cls, settings: RedisSettings) -> RedisSource:
        """Return the source of `settings`, not yet open.

        Raises:
            GenrayError: redis, the password or the authority is missing.
        """
        library = import_extra("redis.asyncio", extra="redis")
        password = read_password(settings.password_env)
        tls = tls_context(settings.ca) if settings.tls else None
        return cls(settings, library, password, tls)

    async def open(self, resume: Mapping[str, Any] | None) -> None:
        settings = self._settings
        self._client = client = self._library.Redis(
            host=settings.host,
            port=settings.port,
            username=settings.username,
            password=self._password,
            ssl=settings.tls,
            socket_connect_timeout=10,
            socket_timeout=10,
            # No retries of the library: the feed reconnects and logs it.
            retry=import_extra("redis.asyncio.retry", extra="redis").Retry(
                import_extra("redis.backoff", extra="redis").NoBackoff(), 0
            ),
        )
        if self._tls is not None:
            client.connection_pool.connection_class = _trusting(self._tls)
        try:
            await client.ping()
            self._last_ids = {}
            for key in settings.keys:
                if resume and key in resume:
                    self._last_ids[key] = str(resume[key])
                else:
                    newest = [] if settings.start == "all" else await client.xrevrange(key, count=1)
                    self._last_ids[key] = newest[0][0].decode("ascii") if newest else "0-0"
        except (self._library.RedisError, OSError) as error:
            raise SourceLost(self._explain(error)) from error

    async def next(self) -> Sequence[bytes]:
        try:
            answer = await self._client.xread(dict(self._last_ids), count=self._settings.count, block=1000)
        except (self._library.RedisError, OSError) as error:
            raise SourceLost(self._explain(error)) from error
        messages: list[bytes] = []
        for key, entries in answer:
            # An entry without the field is passed on as empty: the feed counts it as invalid.
            messages += [fields.get(FIELD, b"") for _, fields in entries]
            self._last_ids[key.decode("utf-8")] = entries[-1][0].decode("ascii")
        return messages

    def snapshot(self) -> Mapping[str, Any]:
        return dict(self._last_ids)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(self._library.RedisError, OSError):  # the connection may be lost already
                await client.aclose()

    def _explain(self, error: Exception) -> str:
        explanation = explain_connection_failure(error, self._settings.host, self._settings.port)
        return explanation or str(error) or type(error).__name__


def _trusting(context: ssl.SSLContext) -> type:
    """Return a connection class that trusts only the authorities of `context`; the library's own class would
    trust those of the system as well."""
    base: Any = import_extra("redis.asyncio.connection", extra="redis").SSLConnection

    def begin(self: Any, **options: Any) -> None:
        base.__init__(self, **options)
        self.ssl_context.context = context

    return type("Trusting", (base,), {"__init__": begin})
