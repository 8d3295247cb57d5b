"""What Prometheus reads of the monitor, to the letter; and who may read it."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from genray.errors import ResourceError
from monitors.alarms.events import Reading
from monitors.outputs.metrics import MetricsExporter, MetricsSettings
from tests.monitors.servers import binary, free_port
from tests.monitors.transitions import ONSET

READING = Reading(
    stream="bed-1",
    time=1_790_000_000.5,
    heart_rate=71.5,
    burden=0.05,
    quality={"II": "good", "V1": "poor", "V2": "off"},
    learned=1.0,
    beats=1200,
    anomalous=12,
)
GOLDEN = Path(__file__).with_name("exposition.txt")


@contextmanager
def serving(**settings: Any) -> Iterator[tuple[MetricsExporter, int]]:
    with closing(MetricsExporter(MetricsSettings(port=0, **settings))) as exporter:
        yield exporter, exporter.start()


def text(exporter: MetricsExporter) -> str:
    return generate_latest(exporter.registry).decode()


def series(exporter: MetricsExporter, name: str) -> dict[tuple[str, ...], float]:
    """Values of a family by the values of its labels, without the zeros."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text(exporter))
        for sample in family.samples
        if sample.name == f"genray_ecg_{name}" and sample.value
    }


def filled() -> MetricsExporter:
    exporter = MetricsExporter(MetricsSettings(), clock=lambda: 1_790_000_002.0)
    exporter.update(READING)
    exporter.update(replace(READING, stream="bed-2", heart_rate=None, burden=None, learned=0.25))
    exporter.alarm(ONSET)
    exporter.alarm(
        replace(ONSET, alarm="b", kind="gap", category="technical", priority="low", announced=False)
    )
    exporter.observe_scores(np.array([[0.2, 1.0], [1.01, 99.0], [np.nan, np.inf]], np.float32))
    exporter.observe_latency([0.3, 2.2])
    exporter.observe_step(0.004)
    exporter.fault("mqtt", "not a chunk", 3)
    exporter.notified("alertmanager", "sent")
    exporter.owed("alertmanager", 2)
    exporter.connected("mqtt", True)
    exporter.connected("files", False)
    exporter.shard("0", True)
    exporter.behind(1.5)
    return exporter


def test_the_text_is_to_the_letter_and_as_prometheus_wants_it() -> None:
    shown = text(filled())
    zeros = [n for n in shown.splitlines() if n.startswith("genray_ecg_alarms_total") and n.endswith(" 0.0")]
    assert len(zeros) == 9 * 3 * 2 - 2, "each kind, priority and whether it is announced"
    assert "".join(f"{n}\n" for n in shown.splitlines() if n not in zeros) == GOLDEN.read_text()
    promtool = binary("promtool", package="prometheus")
    check = subprocess.run([promtool, "check", "metrics"], input=shown, text=True, capture_output=True)
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


def test_a_scrape_gets_it_over_http() -> None:
    with serving() as (exporter, port):
        exporter.update(READING)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.read().decode() == text(exporter)


def test_only_own_names_are_answered() -> None:
    # A page of another site, in a browser here, would read it under the name of that site.
    with serving(names=["ward.example"]) as (exporter, port):
        for host, status in (
            ("localhost", 200),
            ("WARD.example:80", 200),
            ("evil.example", 421),
            ("[", 421),
            ("", 421),
        ):
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                connection.request("GET", "/metrics", headers={"Host": host})
                answer = connection.getresponse()
                assert (answer.status, b"genray_ecg_" in answer.read()) == (status, status == 200)
        assert series(exporter, "faults_total")["bad request", "metrics"] == 3


def test_an_alarm_is_active_from_its_announcement_to_its_end() -> None:
    exporter = MetricsExporter(MetricsSettings())
    exporter.alarm(replace(ONSET, priority="medium", announced=False))
    assert series(exporter, "alarm_active") == {}
    exporter.alarm(replace(ONSET, change="escalated"))
    key = ("physiological", "asystole", "high", "bed-1")
    for change, state in (
        ("suppressed", "suppressed"),
        ("acknowledged", "acknowledged"),
        ("latched", "latched"),
    ):
        exporter.alarm(replace(ONSET, change=change, state=state))
        assert {tuple(sorted(k)) for k in series(exporter, "alarm_active")} == {tuple(sorted(key))}
    exporter.alarm(replace(ONSET, change="ended", state="ended"))
    assert series(exporter, "alarm_active") == {}
    assert list(series(exporter, "alarms_total").values()) == [1.0]


def test_a_discharge_removes_every_series_of_the_stream() -> None:
    exporter = filled()
    exporter.alarm(replace(ONSET, alarm="c", stream="bed-2"))
    exporter.discharge("bed-1")
    assert "bed-1" not in text(exporter)
    assert (
        text(exporter).count('stream="bed-2"') == 9 - 2 + 1 + 1
    )  # no rate, no burden; three leads; an alarm
    exporter.discharge("bed-1")


def test_streams_beyond_the_most_are_refused_and_counted() -> None:
    exporter = MetricsExporter(MetricsSettings(max_streams=2))
    assert [exporter.update(replace(READING, stream=f"s{n}")) for n in (0, 1, 2, 1)] == [
        True,
        True,
        False,
        True,
    ]
    assert series(exporter, "streams") == {(): 2}
    assert series(exporter, "streams_refused_total") == {(): 1}
    exporter.discharge("s0")
    assert exporter.update(replace(READING, stream="s2"))


def test_names_from_outside_cannot_break_the_text() -> None:
    exporter = MetricsExporter(MetricsSettings())
    leads = ['"}\n', "\ud800", "x" * 999, "", "x" * 20, *(f"lead {n}" for n in range(99))]
    exporter.update(replace(READING, stream='b\n"\\\udfff', quality=dict.fromkeys(leads, "good")))
    exporter.fault("a\x00" * 999, "r")
    for number in range(2000):
        exporter.fault("source", str(number))
    shown = series(exporter, "lead_usable")
    assert {key[0] if key[1].startswith("b") else key[1] for key in shown} >= {'"}?', "?", "x" * 16}
    assert len(shown) <= 16
    assert len(series(exporter, "faults_total")) <= 501
    assert series(exporter, "faults_total")["other", "other"] == 2001 - 500


def test_a_thousand_streams_are_less_than_a_megabyte() -> None:
    exporter = MetricsExporter(MetricsSettings())
    for number in range(1000):
        exporter.update(replace(READING, stream=f"{number:016x}", quality={"II": "good", "V1": "off"}))
    assert text(exporter).count('stream="') == 9 * 1000
    assert len(text(exporter)) < 1_000_000


def test_a_port_that_is_taken_is_named() -> None:
    with serving() as (_, port), pytest.raises(ResourceError, match=f"cannot be served on 127.0.0.1:{port}"):
        MetricsExporter(MetricsSettings(port=port)).start()


def test_only_clients_of_the_authority_are_answered(keys: Path) -> None:
    def get(port: int, certificate: str | None, host: str = "127.0.0.1") -> int:
        context = ssl.create_default_context(cafile=str(keys / "ca.pem"))
        if certificate:
            context.load_cert_chain(keys / f"{certificate}.pem", keys / f"{certificate}.key")
        request = urllib.request.Request(f"https://127.0.0.1:{port}/metrics", headers={"Host": host})
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return int(answer.status)

    files = {name: str(keys / file) for name, file in (("certfile", "server.pem"), ("keyfile", "server.key"))}
    with serving(**files, client_ca=str(keys / "ca.pem")) as (exporter, port):
        # One that connects and says nothing holds nobody up.
        with socket.create_connection(("127.0.0.1", port)):
            assert get(port, "client", host="monitor.ward.example") == 200
        for bad in (None, "stranger"):
            with pytest.raises((urllib.error.URLError, OSError)):
                get(port, bad)
        assert get(port, "client") == 200
        assert series(exporter, "faults_total")["bad request", "metrics"] >= 2


def test_certificates_that_cannot_be_used_are_named(keys: Path) -> None:
    for certfile in ("missing.pem", "client.key"):
        settings = MetricsSettings(
            port=free_port(), certfile=str(keys / certfile), keyfile=str(keys / "server.key")
        )
        with pytest.raises(ResourceError, match="metrics cannot be served"):
            MetricsExporter(settings).start()


def test_metrics_do_not_leave_the_machine_without_certificates() -> None:
    with pytest.raises(ValidationError, match="beyond loopback"):
        MetricsSettings(host="0.0.0.0")
    with pytest.raises(ValidationError, match="go together"):
        MetricsSettings(certfile="a.pem")
