"""The files that are shipped for Prometheus, Alertmanager and Grafana work, together and with the monitor."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from genray.cli.main import main
from monitors.outputs.metrics import MetricsExporter, MetricsSettings
from tests.monitors.alerting import DEPLOY, Pager, alertmanager_server, prometheus_server
from tests.monitors.exposition import READING, exposition, filled_exporter
from tests.monitors.running import wait_for
from tests.monitors.transitions import ONSET
from tests.servers import binary

RULES = DEPLOY / "ecg-rules.yaml"
DASHBOARD = json.loads((DEPLOY / "grafana-ecg.json").read_text())


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    """Every expression of the rules and the dashboard."""
    shown = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = [v["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    return [*(rule["expr"] for rule in rules()), *shown, *variables]


@pytest.mark.parametrize(
    "command",
    [
        ("check", "config", "prometheus.yaml"),
        ("check", "rules", "ecg-rules.yaml"),
        ("test", "rules", "ecg-rules-test.yaml"),
        ("check", "rules", "training-rules.yaml"),
        ("test", "rules", "training-rules-test.yaml"),
    ],
    ids=" ".join,
)
def test_prometheus_takes_them(command: tuple[str, ...]) -> None:
    promtool = binary("promtool", package="prometheus")
    done = subprocess.run([promtool, *command], cwd=DEPLOY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alertmanager_takes_its_configuration() -> None:
    amtool = binary("amtool", package="prometheus-alertmanager")
    done = subprocess.run(
        [amtool, "check-config", "alertmanager.yaml"], cwd=DEPLOY, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


PUSHED = {"alarm": "b1 asystole 1", "stream": "b1", "kind": "asystole", "category": "physiological"}
HIGH = PUSHED | {"alertname": "EcgAsystole", "priority": "high"}
SOURCE = {"alertname": "EcgSourceDown", "job": "genray-ecg", "source": "mqtt", "priority": "medium"}
LOST = {"alertname": "EcgAlarm", "stream": "b1", "kind": "stream-lost", "priority": "medium"}
DOWN = {"alertname": "EcgMonitorDown", "job": "genray-ecg", "instance": "a", "priority": "high"}
SHARD = {"alertname": "EcgShardDown", "job": "genray-ecg", "shard": "3", "priority": "high"}
NOT_PUSHED = {"alertname": "EcgAlarmNotPushed", "stream": "b1", "kind": "asystole"}


@pytest.mark.parametrize(
    ("cause", "muted", "said"),
    [
        (
            LOST,
            PUSHED | {"alertname": "EcgTachycardia", "priority": "medium"},
            PUSHED | {"alertname": "EcgTachycardia", "priority": "medium", "stream": "b2"},
        ),
        (HIGH, PUSHED | {"alertname": "EcgTachycardia", "priority": "medium"}, LOST | {"stream": "b2"}),
        (HIGH, LOST, HIGH | {"alertname": "EcgBradycardia", "alarm": "b1 bradycardia 1"}),
        (DOWN, SHARD | {"instance": "a"}, SOURCE | {"instance": "b"}),
        (DOWN, SHARD | {"instance": "a"}, SHARD | {"instance": "b"}),
        (
            PUSHED | {"alertname": "EcgAsystole", "priority": "medium"},
            NOT_PUSHED | {"priority": "medium"},
            NOT_PUSHED | {"priority": "medium", "kind": "tachycardia"},
        ),
    ],
    ids=[
        "a stream that is lost",
        "a high alarm",
        "a high alarm, not another high one",
        "a monitor that is down, not the source of another",
        "a monitor that is down",
        "an alarm that was pushed",
    ],
)
def test_one_alert_mutes_what_follows_from_it_and_nothing_else(
    tmp_path: Path, cause: dict[str, str], muted: dict[str, str], said: dict[str, str]
) -> None:
    with alertmanager_server(tmp_path, Pager()) as server:
        address = f"http://127.0.0.1:{server.port}/api/v2/alerts"
        body = json.dumps([{"labels": labels} for labels in (cause, muted, said)]).encode()
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=10).close()

        def state() -> list[dict[str, str]]:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return [each["labels"] for each in json.load(answer) if each["status"]["inhibitedBy"]]

        wait_for(lambda: muted in state())
        assert state() == [muted]


def test_every_alert_has_a_case() -> None:
    tests = yaml.safe_load((DEPLOY / "ecg-rules-test.yaml").read_text())["tests"]
    fired = {c["alertname"] for test in tests for c in test.get("alert_rule_test", ()) if c.get("exp_alerts")}
    sums = " ".join(case["expr"] for test in tests for case in test.get("promql_expr_test", ()))
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}
    assert all(rule["record"] in sums for rule in rules() if "record" in rule)


def test_every_metric_and_label_that_is_asked_for_exists() -> None:
    shown = exposition(filled_exporter())
    names = set(re.findall(r"^(\w+)[{ ]", shown, re.MULTILINE)) | {
        r["record"] for r in rules() if "record" in r
    }
    labels = set(re.findall(r'[{,](\w+)="', shown)) | {"job", "instance"}
    used = {name for query in queries() for name in re.findall(r"(?:job:)?genray_ecg_[\w:]+", query)}
    assert len(used) > 15
    assert used <= names
    groups = re.findall(r"(?:by|on) \(([^)]*)\)", " ".join(queries()))
    selected = re.findall(r'[{,]\s*(\w+)\s*[!=]~?"', " ".join(queries()))
    templates = re.findall(r"\$labels\.(\w+)", RULES.read_text())
    assert {each.strip() for group in groups for each in group.split(",")} | {*selected, *templates} <= labels


def test_the_dashboard_has_no_panel_over_another() -> None:
    cells = [
        (p["gridPos"]["x"] + dx, p["gridPos"]["y"] + dy)
        for p in DASHBOARD["panels"]
        for dx in range(p["gridPos"]["w"])
        for dy in range(p["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({p["id"] for p in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_an_alarm_goes_through_prometheus_and_alertmanager_to_the_pager_and_is_not_said_twice(
    tmp_path: Path,
) -> None:
    medium = replace(ONSET, kind="tachycardia", priority="medium", alarm="t")

    async def test() -> None:
        exporter = MetricsExporter(MetricsSettings(port=0))
        exporter.set_owed("alertmanager", 0)
        exporter.update(READING)
        async with Pager() as pager:
            with closing(exporter), alertmanager_server(tmp_path, pager) as alertmanager:
                with prometheus_server(tmp_path, exporter.start(), alertmanager.port):
                    exporter.set_source("mqtt", connected=False)
                    await pager.receives(lambda received: ("firing", "EcgSourceDown", "") in received)
                    # The monitor pushes this one itself:
                    exporter.update_alarm(ONSET)
                    exporter.update_alarm(medium)
                    began = time.monotonic()
                    received_at = await pager.receives(
                        lambda received: ("firing", "EcgAlarm", "bed-1") in received
                    )
                    print(f"from update to pager: {received_at - began:.2f} s")
                    exporter.update_alarm(replace(medium, change="ended", state="ended"))
                    await pager.receives(lambda received: ("resolved", "EcgAlarm", "bed-1") in received)
                assert {alertname for _, alertname, _ in pager.received()} == {"EcgSourceDown", "EcgAlarm"}

    asyncio.run(test())


def test_systemd_takes_the_unit_and_it_starts_the_command_that_there_is(tmp_path: Path) -> None:
    analyze = binary("systemd-analyze", package="systemd")
    unit = (DEPLOY / "genray-ecg.service").read_text()
    command = next(line for line in unit.splitlines() if line.startswith("ExecStart=")).partition("=")[2]
    program, *arguments = command.split()
    help_text = CliRunner().invoke(main, [*arguments[:2], "--help"]).output
    assert all(word in help_text for word in arguments if word.startswith("--"))
    # The program is installed where the unit says; here another one stands for it.
    (tmp_path / "genray-ecg.service").write_text(unit.replace(program, sys.executable))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / "genray-ecg.service")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
