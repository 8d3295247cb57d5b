"""What the live sources share: how one is made from settings, and servers that are not reached: a source says
which, and why, and nothing that is secret."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from genray.errors import SettingsError, UsageError
from genray.settings.base import Settings
from monitors.sources import SourceSettings, make_source
from monitors.sources.base import SourceLost
from monitors.sources.connection import explain_connection_failure, read_password, tls_context
from monitors.sources.kafka import KafkaSettings
from monitors.sources.mqtt import MqttSettings
from monitors.sources.redis_streams import RedisSettings
from tests.servers import free_port

SECRET = "s3cret"

_settings: TypeAdapter[SourceSettings] = TypeAdapter(SourceSettings)


@pytest.mark.parametrize("kind", ["mqtt", "redis", "kafka", "websocket", "demo"])
def test_each_kind_makes_its_source(kind: str) -> None:
    assert make_source(_settings.validate_python({"kind": kind})).name == kind


@pytest.mark.parametrize(
    ("kind", "package"), [("mqtt", "aiomqtt"), ("redis", "redis.asyncio"), ("kafka", "confluent_kafka")]
)
def test_a_missing_package_names_the_extra_that_has_it(
    kind: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=f"pip install 'genray\\[{kind}\\]'"):
        make_source(_settings.validate_python({"kind": kind}))


def test_a_password_comes_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARD_PASSWORD", SECRET)
    assert read_password("WARD_PASSWORD") == SECRET
    assert read_password(None) is None
    with pytest.raises(ValidationError, match="password"):
        _settings.validate_python({"kind": "mqtt", "password": SECRET})
    with pytest.raises(ValidationError, match="credentials do not belong"):
        _settings.validate_python({"kind": "websocket", "url": f"wss://ward:{SECRET}@host/"})


def test_an_authority_that_cannot_be_read_is_said_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name in ("empty.pem", "missing.pem"):
        with pytest.raises(SettingsError, match="cannot read the certificate authority"):
            tls_context(str(tmp_path / name))
    assert tls_context(None).check_hostname


@pytest.mark.parametrize("kind", [MqttSettings, RedisSettings, KafkaSettings])
def test_whoever_names_an_authority_is_not_left_without_encryption(kind: type[Settings]) -> None:
    with pytest.raises(ValidationError, match="is not encrypted"):
        kind.model_validate({"ca": "ward.pem"})
    kind.model_validate({"ca": "ward.pem", "tls": True})


@pytest.mark.parametrize("kind", ["mqtt", "redis", "websocket"])
def test_a_port_where_nobody_listens_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    port = free_port()
    more = {"url": f"ws://127.0.0.1:{port}/?t={SECRET}", "token_env": "TOKEN"}
    if kind != "websocket":
        more = {"host": "127.0.0.1", "port": str(port)}
    source = make_source(_settings.validate_python({"kind": kind, **more}))

    async def main() -> None:
        with pytest.raises(SourceLost) as refused:
            await source.open(None)
        await source.close()
        assert str(refused.value) == f"127.0.0.1:{port}: connection refused, nothing listens on this port"

    asyncio.run(main())


def test_a_host_that_is_not_known_is_named_whatever_the_error_is_wrapped_in() -> None:
    wrapped = ValueError(f"token {SECRET}")
    try:
        socket.getaddrinfo("not a host", 1)
    except OSError as error:
        wrapped.__context__ = error
    assert explain_connection_failure(wrapped, "not a host", 1) == "not a host:1: unknown host name"
    assert explain_connection_failure(TimeoutError(), "bed", 1) == "bed:1: no answer within the time limit"
    assert explain_connection_failure(ValueError(SECRET), "bed", 1) is None
