"""A monitor that was paused reads what waits before it calls a bed lost, and says that it was paused."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from tests.monitors.running import Process, recorded, sets

LOST, PAUSED = 3, 6  # s


def test_a_monitor_that_was_stopped_says_so_and_calls_no_bed_lost(beat_bundle: Path, tmp_path: Path) -> None:
    lost = [f"alarms.stream_lost.medium={LOST}", f"alarms.stream_lost.high={2 * LOST}"]
    values = sets(beat_bundle, tmp_path / "state", "source.kind=demo", "source.beds=3", *lost)
    with Process(values, tmp_path) as monitor:
        monitor.metrics_address()
        time.sleep(2)
        monitor.signal(signal.SIGSTOP)
        time.sleep(PAUSED)
        monitor.signal(signal.SIGCONT)
        monitor.wait_for_lines(lambda lines: any("was paused" in line for line in lines))
        time.sleep(1)
        monitor.signal(signal.SIGTERM)
        code, outcome = monitor.end()
    assert (code, outcome["streams"]) == (0, 3)
    assert not [alarm for alarm, _, _ in recorded(tmp_path / "state") if "stream-lost" in alarm]
