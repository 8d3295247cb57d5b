"""The manifests of the ECG monitor: its settings, what it mounts, and its probe against a real server."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from genray.serving.metrics_server import MetricsServer
from genray.settings.load import load
from monitors.ecg import EcgTarget
from monitors.outputs.health import Health
from monitors.outputs.metrics import MetricsSettings
from tests.configs.deploy.manifests import KUBERNETES, build
from tests.monitors.certificates import write_certificates

TLS = "/etc/genray/tls"


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    return {manifest["kind"]: manifest for manifest in build(KUBERNETES / "monitor")}


def test_the_settings_are_those_of_the_monitor_and_lie_where_its_pod_mounts_them(
    manifests: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "ecg.yaml"
    file.write_text(manifests["ConfigMap"]["data"]["ecg.yaml"])
    settings = load(EcgTarget.settings_class, target="ecg", config=file)
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounts[settings.state]]["persistentVolumeClaim"]["claimName"] == "ecg-state"
    assert volumes[mounts[TLS]]["secret"]["secretName"] == "ecg-tls"
    assert str(settings.metrics.client_ca).startswith(TLS)
    place = str(Path(container["command"][-1]).parent)
    assert volumes[mounts[place]]["configMap"]["name"] == manifests["ConfigMap"]["metadata"]["name"]
    assert container["ports"][0]["containerPort"] == settings.metrics.port
    assert {value["name"] for value in container["env"]} >= {"ECG_PASSWORD"}
    assert pod["terminationGracePeriodSeconds"] > 30
    assert manifests["Deployment"]["spec"]["strategy"]["type"] == "Recreate"


def test_the_service_and_its_monitor_find_the_pod(manifests: dict[str, Any]) -> None:
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    service = manifests["Service"]
    assert service["spec"]["selector"] == labels
    assert manifests["ServiceMonitor"]["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    (endpoint,) = manifests["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]


def test_the_probe_tells_a_monitor_that_watches_from_one_that_does_not(
    manifests: dict[str, Any], tmp_path: Path
) -> None:
    write_certificates(tmp_path)
    for source, name in (("server.pem", "tls.crt"), ("server.key", "tls.key"), ("ca.pem", "ca.crt")):
        (tmp_path / name).write_bytes((tmp_path / source).read_bytes())
    settings = MetricsSettings(
        port=0,
        certfile=str(tmp_path / "tls.crt"),
        keyfile=str(tmp_path / "tls.key"),
        client_ca=str(tmp_path / "ca.crt"),
    )
    health = Health()
    server = MetricsServer.start(CollectorRegistry(), settings, lambda: None, health)
    script = manifests["ConfigMap"]["data"]["probe.py"]
    script = script.replace(TLS, str(tmp_path)).replace("9750", str(server.port))

    def probe(path: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-c", script, path]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    try:
        assert probe("/health").returncode == 0
        starting = probe("/ready")
        assert starting.returncode == 1
        assert "the monitor is starting" in starting.stderr
        health.beat([])
        assert probe("/ready").returncode == 0
    finally:
        server.close()
