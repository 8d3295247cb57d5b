"""What the live sources share, and how one is made from settings."""

import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from genray.errors import SettingsError, UsageError
from genray.settings.base import Settings
from monitors.sources import SourceSettings, make_source
from monitors.sources.connection import password, trust
from monitors.sources.kafka import KafkaSettings
from monitors.sources.mqtt import MqttSettings
from monitors.sources.redis_streams import RedisSettings

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
    monkeypatch.setenv("WARD_PASSWORD", "s3cret")
    assert password("WARD_PASSWORD") == "s3cret"
    assert password(None) is None
    with pytest.raises(ValidationError, match="password"):
        _settings.validate_python({"kind": "mqtt", "password": "s3cret"})
    with pytest.raises(ValidationError, match="credentials do not belong"):
        _settings.validate_python({"kind": "websocket", "url": "wss://ward:s3cret@host/"})


def test_an_authority_that_cannot_be_read_is_said_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name in ("empty.pem", "missing.pem"):
        with pytest.raises(SettingsError, match="no authority to trust"):
            trust(str(tmp_path / name))
    assert trust(None).check_hostname


@pytest.mark.parametrize("kind", [MqttSettings, RedisSettings, KafkaSettings])
def test_whoever_names_an_authority_is_not_left_without_encryption(kind: type[Settings]) -> None:
    with pytest.raises(ValidationError, match="nothing is encrypted"):
        kind.model_validate({"ca": "ward.pem"})
    kind.model_validate({"ca": "ward.pem", "tls": True})
