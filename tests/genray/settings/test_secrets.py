"""A URI with a secret is refused as any setting of any target, wherever it is given, and is not shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from pydantic import Field, ValidationError

from genray.cli.main import main
from genray.errors import GenrayError, SettingsError
from genray.settings.base import Settings
from genray.settings.load import load
from genray.settings.schema import annotation_of, describe_type, setting_keys
from genray.settings.shipped import shipped_targets
from genray.targets import find_target
from monitors.outputs.alertmanager import AlertmanagerSettings
from monitors.sources.kafka import KafkaSettings
from monitors.sources.mqtt import MqttSettings
from monitors.sources.redis_streams import RedisSettings
from monitors.sources.websocket import WebSocketSettings
from tests.genray.secret_uris import secrets, with_parameter, with_user

URIS = [*list(with_user(5))[::9], *list(with_parameter(5))[::9]]


class Group(Settings):
    place: str = Field("x", description="a text")


class Outer(Settings):
    group: Group = Field(Group(), description="a group")
    places: tuple[str, ...] = Field((), description="texts")
    limits: dict[str, dict[str, list[str]]] = Field({}, description="a mapping with keys of the user's")


@pytest.mark.parametrize("target", shipped_targets())
def test_no_text_of_a_target_takes_a_uri_with_a_secret(target: str, tmp_path: Path) -> None:
    cls = find_target(target).load().settings_class
    texts = [key for key in setting_keys(cls) if "text" in describe_type(annotation_of(cls, key))]
    assert texts
    for number, key in enumerate(texts):
        uri, secret = URIS[number % len(URIS)]
        config = tmp_path / "a.yaml"
        config.write_text(yaml.safe_dump({key: uri}))
        for given in ({"sets": [f"{key}={uri}"]}, {"config": config}):
            with pytest.raises(SettingsError) as caught:
                load(cls, target=target, **given)  # type: ignore[arg-type]
            error = caught.value
            assert secret not in json.dumps(error.as_json()), key
            # Of a group with several kinds, the key may be of another one than the chosen.
            assert "credentials do not belong in a URI" in str(error) or "belongs to" in str(error), str(
                error
            )
            assert key in str(error)


def test_texts_inside_of_values_are_looked_at_too() -> None:
    for uri, secret in URIS:
        for values in (
            {"group": {"place": uri}},
            {"places": ["a", uri]},
            {"limits": {"bed-1": {"a": ["b", uri]}}},
            {"group": uri},
        ):
            with pytest.raises(ValidationError, match="credentials do not belong in a URI") as caught:
                Outer.model_validate(values)
            assert secret not in f"{caught.value} {caught.value.errors()}"


def test_a_sweep_takes_none_in_its_space_and_in_its_settings() -> None:
    cls = find_target("sweep").load().settings_class
    for uri, secret in URIS:
        for text in (f"sweep.settings.data.path={uri}", f"sweep.space={{data: {{path: ['a', '{uri}']}}}}"):
            with pytest.raises(SettingsError, match="credentials do not belong in a URI") as caught:
                load(cls, target="sweep", sets=[text])
            assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("cls", "values", "advice"),
    [
        (AlertmanagerSettings, {"urls": ["{uri}"]}, "token_file"),
        (AlertmanagerSettings, {"page": "{uri}"}, "token_file"),
        (WebSocketSettings, {"url": "{uri}"}, "token_env"),
        (MqttSettings, {"host": "{uri}"}, "password_env"),
        (MqttSettings, {"topic": "{uri}"}, "password_env"),
        (RedisSettings, {"keys": ["{uri}"]}, "password_env"),
        (KafkaSettings, {"servers": "a:9092,{uri}"}, "password_env"),
    ],
)
def test_the_way_to_give_it_is_said(cls: type[Settings], values: dict[str, object], advice: str) -> None:
    for uri, secret in URIS:
        with pytest.raises(ValidationError, match=advice) as caught:
            cls.model_validate(json.loads(json.dumps(values).replace("{uri}", uri)))
        assert secret not in str(caught.value)


def test_a_host_has_no_user_and_the_password_is_not_shown() -> None:
    cls = find_target("ecg").load().settings_class
    for password in secrets(5, 6, "-_.+="):
        for kind, key in (("mqtt", "host"), ("redis", "host"), ("kafka", "servers")):
            sets = [f"source.kind={kind}", f"source.{key}=ada:{password}@broker:1"]
            with pytest.raises(SettingsError, match="without a user or a password") as caught:
                load(cls, target="ecg", sets=sets)
            assert password not in str(caught.value)
            assert "password_env" in str(caught.value)


def test_a_password_under_a_key_that_there_is_not_is_not_shown() -> None:
    cls = find_target("ecg").load().settings_class
    for password in secrets(5, 7, "-_.+="):
        for key in ("source.password", "alertmanager.token", "source.secret"):
            with pytest.raises(SettingsError, match=f"unknown setting {key}") as caught:
                load(cls, target="ecg", sets=["source.kind=mqtt", f"{key}={password}"])
            assert password not in str(caught.value)


def test_a_set_without_a_key_is_not_shown() -> None:
    cls = find_target("denoise").load().settings_class
    for uri, secret in URIS:
        with pytest.raises(SettingsError) as caught:
            load(cls, target="denoise", sets=[uri])
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        ("submit", "denoise", "--set", "input={uri}"),
        ("submit", "denoise", "--set", "output={uri}", "--json"),
        ("submit", "train-denoiser", "--set", "data.path={uri}", "--dry-run"),
        ("submit", "train-pix2pix", "--address", "http://ada:{secret}@head:8265"),
        ("plan", "denoise", "--set", "input={uri}"),
        ("monitor", "ecg", "--set", "alertmanager.urls=['{uri}']"),
        ("jobs", "list", "--address", "ada:{secret}@head"),
        ("config", "denoise", "--set", "input={uri}"),
        ("ledger", "{uri}"),
    ],
)
def test_a_command_with_a_secret_ends_before_anything_starts(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for uri, secret in URIS[::5]:
        words = [word.replace("{uri}", uri).replace("{secret}", secret) for word in command]
        result = CliRunner().invoke(main, words, catch_exceptions=False)
        assert result.exit_code == 2, result.output
        assert secret not in result.output
        assert "credentials do not belong" in result.output
        assert not any(tmp_path.iterdir())


def test_an_error_that_crosses_a_process_shows_none() -> None:
    for uri, secret in URIS:
        error = GenrayError(f"no {uri}", where=f"--set input={uri}")
        rebuilt, arguments = error.__reduce__()
        assert secret not in f"{rebuilt(*arguments)} {arguments}"
