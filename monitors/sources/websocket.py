"""Samples from a WebSocket server: each message of the wire format is one binary message."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal
from urllib.parse import urlsplit

import aiohttp
from pydantic import Field, field_validator

from genray.settings.base import Location, Settings
from monitors.sources.base import SourceLost
from monitors.sources.connection import explain_connection_failure, read_password, tls_context

MAX_MESSAGE: Final = 4 * 2**20
"""Most bytes of a message. A longer one closes the connection; one that is only too large for the wire format
is counted, and the other streams continue."""


class WebSocketSettings(Settings):
    """Settings of a WebSocket server."""

    credentials: ClassVar[str] = "give in `token_env` the environment variable that holds a bearer token"

    kind: Literal["websocket"] = Field("websocket", description="a WebSocket server")
    url: Location = Field(
        "ws://127.0.0.1:8765", pattern="^wss?://", description="URL of the server (wss:// with TLS)"
    )
    ca: Location | None = Field(
        None, description="PEM file of the certificate authority to trust (null: those of the system)"
    )
    token_env: str | None = Field(
        None, description="environment variable that contains the bearer token (null: no token)"
    )

    @field_validator("url")
    @classmethod
    def _leads_somewhere(cls, url: str) -> str:
        parts = urlsplit(url)
        if not parts.hostname or parts.port == 0:  # any other invalid port raises ValueError itself
            raise ValueError("the URL needs a server: ws://host:port/path")
        return url


class WebSocketSource:
    """Reads the messages of one server. It has no place: messages sent while it is disconnected are lost.

    Args:
        settings: settings of the server.
        token: bearer token; None: no token is sent.
        tls: value for aiohttp: TLS context with the authorities to trust, or True without encryption.
    """

    name = "websocket"
    left_out: Sequence[str] = ()

    def __init__(self, settings: WebSocketSettings, token: str | None, tls: ssl.SSLContext | bool) -> None:
        self._settings = settings
        self._token = token
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    @classmethod
    def from_settings(cls, settings: WebSocketSettings) -> WebSocketSource:
        """Return the source of `settings`, not yet open.

        Raises:
            GenrayError: the token or the authority is missing.
        """
        token = read_password(settings.token_env)
        tls = tls_context(settings.ca) if settings.url.startswith("wss:") else True
        return cls(settings, token, tls)

    async def open(self, resume: Mapping[str, Any] | None) -> None:
        self._session = aiohttp.ClientSession()
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            self._socket = await self._session.ws_connect(
                self._settings.url, headers=headers, heartbeat=20, max_msg_size=MAX_MESSAGE, ssl=self._tls
            )
        except aiohttp.WSServerHandshakeError as error:
            # Without its text, which shows the URL, and a URL may contain a token.
            raise SourceLost(f"the server answered with HTTP status {error.status}") from None
        except (aiohttp.ClientError, OSError) as error:
            url = urlsplit(self._settings.url)
            port = url.port or (443 if url.scheme == "wss" else 80)
            explanation = explain_connection_failure(error, url.hostname or "", port)
            raise SourceLost(explanation or type(error).__name__) from None

    async def next(self) -> Sequence[bytes]:
        assert self._socket is not None
        try:
            message = await self._socket.receive(timeout=1.0)
        except TimeoutError:
            return []
        if message.type is aiohttp.WSMsgType.BINARY:
            return [message.data]
        if message.type is aiohttp.WSMsgType.TEXT:
            return [b""]  # counted as an invalid message
        raise SourceLost(f"the server closed the connection (close code {self._socket.close_code})")

    def snapshot(self) -> Mapping[str, Any]:
        return {}

    async def close(self) -> None:
        socket, session = self._socket, self._session
        self._socket = None
        self._session = None
        try:
            if socket is not None:
                await socket.close()
        finally:
            if session is not None:
                await session.close()
