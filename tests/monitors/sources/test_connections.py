"""Servers that are not reached: a source says which, and why, and nothing that is secret."""

from __future__ import annotations

import asyncio
import socket

import pytest
from pydantic import TypeAdapter

from monitors.sources import SourceSettings, make_source
from monitors.sources.base import SourceLost
from monitors.sources.connection import connection_failure
from tests.monitors.servers import free_port

SECRET = "s3cret"


@pytest.mark.parametrize("kind", ["mqtt", "redis", "websocket"])
def test_a_port_where_nobody_listens_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    port = free_port()
    more = {"url": f"ws://127.0.0.1:{port}/?t={SECRET}", "token_env": "TOKEN"}
    if kind != "websocket":
        more = {"host": "127.0.0.1", "port": str(port)}
    asked = make_source(TypeAdapter[SourceSettings](SourceSettings).validate_python({"kind": kind, **more}))

    async def main() -> None:
        with pytest.raises(SourceLost) as refused:
            await asked.open(None)
        await asked.close()
        assert str(refused.value) == f"127.0.0.1:{port} refuses the connection: nothing listens there"

    asyncio.run(main())


def test_a_host_that_is_not_known_is_named_whatever_the_error_is_wrapped_in() -> None:
    wrapped = ValueError(f"token {SECRET}")
    try:
        socket.getaddrinfo("not a host", 1)
    except OSError as error:
        wrapped.__context__ = error
    assert connection_failure(wrapped, "not a host", 1) == "not a host:1: the host is not known"
    assert connection_failure(TimeoutError(), "bed", 1) == "bed:1 does not answer"
    assert connection_failure(ValueError(SECRET), "bed", 1) is None
