"""Everything real: a broker, the monitor as a process, Prometheus, Alertmanager, and the pager at the end."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import aiomqtt

from genray.ecg.synthesis import Episode, generate
from monitors.sources.message import encode
from tests.monitors.alerting import Pager, alertmanager_server, prometheus_server
from tests.monitors.patients import chunks
from tests.monitors.running import Process, sets, wait_for
from tests.servers import mosquitto

CALM = 14  # s until the heart stands still
SPEED = 6  # of what comes before: nothing is measured there


def query(prometheus: int, expression: str) -> list[float]:
    """The values that Prometheus answers."""
    try:
        with urlopen(
            f"http://127.0.0.1:{prometheus}/api/v1/query?query={quote(expression)}", timeout=5
        ) as answer:
            return [float(each["value"][1]) for each in json.load(answer)["data"]["result"]]
    except HTTPError:  # it is not ready yet
        return []


def test_an_asystole_is_at_the_pager_within_10_s_of_its_onset(beat_bundle: Path, tmp_path: Path) -> None:
    patient = generate(CALM + 12, seed=5, script=[Episode("asystole", CALM, 12)])
    last_beat = float(patient.peaks.max()) / 360

    async def publish(port: int) -> float:
        """Send the patient's samples; gives when the last heart beat was over the wire, monotonic."""
        beat = 0.0
        async with aiomqtt.Client("127.0.0.1", port) as client:
            for chunk in chunks("bed-9", patient.millivolts, start=time.time() - CALM):
                second = chunk.sequence + 1
                await asyncio.sleep(1 if second > last_beat else 1 / SPEED)
                await client.publish("ecg/bed-9/samples", encode(chunk))
                if chunk.sequence <= last_beat < second:
                    beat = time.monotonic() - (second - last_beat)
        return beat

    async def test(monitor: Process, broker: int, prometheus: int, pager: Pager) -> None:
        sending = asyncio.create_task(publish(broker))
        received_at = await pager.receives(lambda received: bool(received))
        ((status, name, stream),) = pager.received()
        assert (status, name) == ("firing", "EcgAsystole")
        waiting = received_at - (await sending + 4.0)
        print(f"asystole: {waiting:.2f} s from onset to pager")
        assert waiting <= 10
        shown = f'genray_ecg_alarm_active{{stream="{stream}",kind="asystole"}}'
        counted = 'genray_ecg_alarms_total{kind="asystole",priority="high",announced="true"}'
        await asyncio.to_thread(
            wait_for,
            lambda: query(prometheus, shown) == [1] and query(prometheus, counted) == [1],
        )
        monitor.signal(signal.SIGTERM)
        code, outcome = await asyncio.to_thread(monitor.end)
        assert (code, outcome["alarms"]["asystole"], outcome["open"]) == (0, 1, 1)
        assert "bed-9" not in "\n".join([*monitor.lines, json.dumps(outcome)])

    async def together() -> None:
        async with Pager() as pager:
            with mosquitto(tmp_path) as broker, alertmanager_server(tmp_path, pager) as alertmanager:
                values = [
                    "source.kind=mqtt",
                    f"source.port={broker.port}",
                    f"alertmanager.urls=[http://127.0.0.1:{alertmanager.port}]",
                ]
                with Process(sets(beat_bundle, tmp_path / "state", *values), tmp_path) as monitor:
                    address = await asyncio.to_thread(monitor.metrics_address)
                    port = int(address.split(":")[2].split("/")[0])
                    with prometheus_server(tmp_path, port, alertmanager.port) as prometheus:
                        up = 'genray_ecg_source_connected{source="mqtt"}'
                        await asyncio.to_thread(wait_for, lambda: query(prometheus.port, up) == [1])
                        await test(monitor, broker.port, prometheus.port, pager)

    asyncio.run(together())
