"""Metrics of a training for Prometheus."""

from __future__ import annotations

import math
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from genray.errors import ResourceError, SettingsError
from genray.progress import LineDisplay, Tick
from genray.serving.settings import ServerSettings
from genray.settings.load import load
from genray.targets import find_target
from jobs.runs.metrics import TrainingMetrics
from tests.servers import free_port

DEPLOY = Path(__file__).parents[3] / "configs" / "deploy"


def asked(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return str(answer.read().decode())


def values_of(exposition: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in exposition.splitlines() if not line.startswith("#")]
    return {series: float(value) for series, _, value in lines}


class Scraping(LineDisplay):
    """Asks for the metrics at every step, at the address that the training names."""

    def __init__(self) -> None:
        super().__init__()
        self.address = ""
        self.seen: list[dict[str, float]] = []

    def note(self, line: str) -> None:
        if line.startswith("metrics: "):
            self.address = line.removeprefix("metrics: ")

    def tick(self, tick: Tick) -> None:
        self.seen.append(values_of(asked(self.address)))


def test_a_training_serves_where_it_is_and_what_it_measured(train: Callable[..., Any]) -> None:
    display = Scraping()
    outcome = train("a", "loop.metrics_port=0", display=display)
    assert outcome["metrics"]
    first, last = display.seen[0], display.seen[-1]
    assert first['genray_training_step{run="a"}'] == 1
    assert first['genray_training_epoch{run="a"}'] == 1
    assert last['genray_training_step{run="a"}'] == last['genray_training_steps{run="a"}']
    assert last['genray_training_images_per_second{run="a"}'] > 0
    assert last['genray_training_concern{run="a"}'] == 0
    losses = [name for name in last if name.startswith("genray_training_loss{")]
    assert len(losses) == 4
    assert any('name="psnr"' in name for name in last), "measured after the first epoch"
    with pytest.raises(OSError, match="refused"):
        asked(display.address)


def test_a_port_that_is_taken_is_named_before_the_first_step(train: Callable[..., Any]) -> None:
    taken = TrainingMetrics.serve("other", ServerSettings(port=0))
    with closing(taken), pytest.raises(ResourceError, match=f"127.0.0.1:{taken.port}") as caught:
        train("a", f"loop.metrics_port={taken.port}")
    assert caught.value.where == "loop.metrics_port"


@pytest.mark.parametrize(("target", "group"), [("train-pix2pix", "loop"), ("denoise", "work")])
def test_metrics_leave_the_machine_only_for_clients_with_a_certificate(target: str, group: str) -> None:
    settings = find_target(target).load().settings_class
    with pytest.raises(SettingsError, match="metrics_client_ca: they have no password"):
        load(settings, target=target, sets=[f"{group}.metrics_port=1", f"{group}.metrics_host=0.0.0.0"])
    names = ("certfile", "keyfile", "client_ca")
    sets = [f"{group}.metrics_host=0.0.0.0", *(f"{group}.metrics_{name}=/{name}.pem" for name in names)]
    chosen: Any = load(settings, target=target, sets=[*sets, f"{group}.metrics_port={free_port()}"])
    server = getattr(chosen, group).metrics_server
    assert (server.host, server.client_ca) == ("0.0.0.0", "/client_ca.pem")
    assert server.address(80) == "https://0.0.0.0:80/metrics"


def test_a_concern_lasts_until_a_validation_is_without_it() -> None:
    registry = CollectorRegistry()
    metrics = TrainingMetrics("a", registry)

    def concern() -> float:
        return values_of(generate_latest(registry).decode())['genray_training_concern{run="a"}']

    metrics.validated({"val_coverage": 0.1, "val_kl": math.nan, "concern": "coverage fell"})
    assert concern() == 1
    assert 'name="kl"' not in generate_latest(registry).decode()
    metrics.validated({"val_coverage": 0.7})
    assert concern() == 0


def test_the_rule_asks_for_a_metric_that_exists() -> None:
    registry = CollectorRegistry()
    TrainingMetrics("a", registry)
    names = {family.name for family in registry.collect()}
    groups = yaml.safe_load((DEPLOY / "training-rules.yaml").read_text())["groups"]
    assert {rule["expr"].split()[0] for group in groups for rule in group["rules"]} <= names
