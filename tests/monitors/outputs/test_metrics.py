"""What Prometheus reads of the monitor, to the letter; and who may read it."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Semaphore
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families
from pydantic import ValidationError

from genray.errors import ResourceError
from genray.serving.connections import ConnectionLimits
from genray.serving.metrics_server import MetricsServer
from monitors.alarms.conditions import CONDITIONS
from monitors.outputs.health import ALIVE_SECONDS, Health
from monitors.outputs.metrics import MetricsExporter, MetricsSettings
from tests.monitors.exposition import READING, exposition, filled_exporter, series
from tests.monitors.transitions import ONSET
from tests.servers import binary, free_port

GOLDEN = Path(__file__).with_name("exposition.txt")


@contextmanager
def serving(**settings: Any) -> Iterator[tuple[MetricsExporter, int]]:
    with closing(MetricsExporter(MetricsSettings(port=0, **settings))) as exporter:
        yield exporter, exporter.start()


def test_the_text_is_to_the_letter_and_as_prometheus_wants_it() -> None:
    shown = exposition(filled_exporter())
    zeros = [n for n in shown.splitlines() if n.startswith("genray_ecg_alarms_total") and n.endswith(" 0.0")]
    assert len(zeros) == len(CONDITIONS) * 3 * 2 - 2, "each kind, priority and whether it is announced"
    assert "".join(f"{n}\n" for n in shown.splitlines() if n not in zeros) == GOLDEN.read_text()
    promtool = binary("promtool", package="prometheus")
    check = subprocess.run([promtool, "check", "metrics"], input=shown, text=True, capture_output=True)
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


def test_a_scrape_gets_it_over_http() -> None:
    with serving() as (exporter, port):
        exporter.update(READING)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.read().decode() == exposition(exporter)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
        ),
    ],
)
@pytest.mark.parametrize(
    ("encodings", "encoding"), [("", None), ("gzip", "gzip"), ("deflate", None), ("deflate, gzip", "gzip")]
)
def test_a_scrape_gets_the_format_and_the_encoding_that_it_takes(
    accept: str, content_type: str, encodings: str, encoding: str | None
) -> None:
    with serving() as (exporter, port), closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        exporter.update(READING)
        for _ in range(2):  # of one connection
            connection.request("GET", "/metrics", headers={"Accept": accept, "Accept-Encoding": encodings})
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("Content-Type")) == (200, content_type)
            assert answer.getheader("Content-Encoding") == encoding
            body = answer.read()
            text = (gzip.decompress(body) if encoding else body).decode()
            if "openmetrics" in content_type:
                assert text.endswith("# EOF\n")
                families = openmetrics_families(text)
            else:
                assert text == exposition(exporter)
                families = text_families(text)
            assert "genray_ecg_heart_rate_bpm" in {family.name for family in families}


def test_metrics_are_served_to_this_machine_alone_unless_settings_say_otherwise() -> None:
    with serving() as (_, port), pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", port), timeout=10)


def test_a_client_that_asks_for_nothing_or_takes_nothing_is_closed_and_counted() -> None:
    registry = CollectorRegistry()
    Gauge("a", 20_000_000 * "a", registry=registry)  # more than the system holds back for a client
    refused = Semaphore(0)
    limits, health = ConnectionLimits(first_request_s=0.5), Health()
    server = MetricsServer.start(registry, MetricsSettings(port=0), refused.release, health, limits=limits)
    with closing(server), socket.socket() as silent, socket.socket() as half, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for client in (silent, half, slow):
            client.settimeout(20)
            client.connect(("127.0.0.1", server.port))
        half.sendall(b"GET /metrics HTTP/1.1\r\nHost: local")
        slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert silent.recv(1) == b""
        assert half.recv(1) == b""
        assert all(refused.acquire(timeout=20) for _ in range(3))
        taken = 0
        while piece := slow.recv(2**20):
            taken += len(piece)
        assert taken < 20_000_000, "it is closed before the end of the answer"
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
            assert answer.read() == generate_latest(registry), "others are served on"


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
    exporter.update_alarm(replace(ONSET, priority="medium", announced=False))
    assert series(exporter, "alarm_active") == {}
    exporter.update_alarm(replace(ONSET, change="escalated"))
    key = ("physiological", "asystole", "high", "bed-1")
    for change, state in (
        ("suppressed", "suppressed"),
        ("acknowledged", "acknowledged"),
        ("latched", "latched"),
    ):
        exporter.update_alarm(replace(ONSET, change=change, state=state))
        assert {tuple(sorted(k)) for k in series(exporter, "alarm_active")} == {tuple(sorted(key))}
    exporter.update_alarm(replace(ONSET, change="ended", state="ended"))
    assert series(exporter, "alarm_active") == {}
    assert list(series(exporter, "alarms_total").values()) == [1.0]


def test_a_discharge_removes_every_series_of_the_stream() -> None:
    exporter = filled_exporter()
    exporter.update_alarm(replace(ONSET, alarm="c", stream="bed-2"))
    exporter.remove_stream("bed-1")
    assert "bed-1" not in exposition(exporter)
    assert (
        exposition(exporter).count('stream="bed-2"') == 9 - 2 + 1 + 1
    )  # no rate, no burden; three leads; an alarm
    exporter.remove_stream("bed-1")


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
    exporter.remove_stream("s0")
    assert exporter.update(replace(READING, stream="s2"))


def test_names_from_outside_cannot_break_the_text() -> None:
    exporter = MetricsExporter(MetricsSettings())
    leads = ['"}\n', "\ud800", "x" * 999, "", "x" * 20, *(f"lead {n}" for n in range(99))]
    exporter.update(replace(READING, stream='b\n"\\\udfff', quality=dict.fromkeys(leads, "good")))
    exporter.count_fault("a\x00" * 999, "r")
    for number in range(2000):
        exporter.count_fault("source", str(number))
    shown = series(exporter, "lead_usable")
    assert {key[0] if key[1].startswith("b") else key[1] for key in shown} >= {'"}?', "?", "x" * 16}
    assert len(shown) <= 16
    assert len(series(exporter, "faults_total")) <= 501
    assert series(exporter, "faults_total")["other", "other"] == 2001 - 500


def test_a_thousand_streams_are_less_than_a_megabyte() -> None:
    exporter = MetricsExporter(MetricsSettings())
    for number in range(1000):
        exporter.update(replace(READING, stream=f"{number:016x}", quality={"II": "good", "V1": "off"}))
    assert exposition(exporter).count('stream="') == 9 * 1000
    assert len(exposition(exporter)) < 1_000_000


def test_a_port_that_is_taken_is_named() -> None:
    why = "cannot be served on 127.0.0.1:{}: Address already in use"
    with serving() as (_, port), pytest.raises(ResourceError, match=why.format(port)):
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


def test_health_is_whether_it_responds_and_ready_whether_it_watches() -> None:
    now = [0.0]
    with closing(MetricsExporter(MetricsSettings(port=0))) as exporter:
        exporter.health = Health(lambda: now[0])
        port = exporter.start()

        def asked(path: str) -> tuple[int, list[str]]:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())["problems"]

        assert (asked("/health"), asked("/ready")) == ((200, []), (503, ["the monitor is starting"]))
        exporter.health.beat(["source mqtt is not connected"])
        assert (asked("/health"), asked("/ready")) == ((200, []), (503, ["source mqtt is not connected"]))
        exporter.health.beat([])
        assert (asked("/health"), asked("/ready")) == ((200, []), (200, []))
        now[0] += ALIVE_SECONDS + 1
        hangs = (503, ["the monitor has not responded for 16 s"])
        assert (asked("/health"), asked("/ready")) == (hangs, hangs)
