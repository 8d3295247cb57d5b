"""Which alarms of a replay call somebody: the log of a webhook behind a real Alertmanager."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from genray.ecg.records.wfdb import write_wfdb
from genray.ecg.synthesis import Episode, generate
from tests.monitors.alerting import Pager, alertmanager_server
from tests.monitors.running import LEADS, Process, recorded, replay, sets

AGAIN_AFTER = 30


def rhythm(seconds: int, rate: float) -> NDArray[np.float32]:
    """Normal beats, or a tachycardia of about `rate` beats per minute."""
    if rate < 100:
        return generate(seconds, leads=LEADS, seed=70).millivolts
    fast = Episode("tachycardia", 0, 2 * seconds)  # of 158/min
    beats = generate(2 * seconds, leads=LEADS, seed=70, script=[fast]).millivolts
    faster = resample_poly(beats, 79, round(rate / 2), axis=0)
    return faster[-360 * seconds :].astype(np.float32)


def test_an_escalation_calls_at_once_and_only_a_late_recurrence_calls_again(
    beat_bundle: Path, tmp_path: Path
) -> None:
    course = [(20, 70), (90, 131), (20, 200), (15, 70), (20, 200), (65, 70), (15, 200)]
    records = tmp_path / "records"
    volts = np.concatenate([rhythm(seconds, rate) for seconds, rate in course])
    write_wfdb(records / "p.hea", volts, 360.0, LEADS, np.zeros(0, np.int64), [])
    values = [f"alarms.again_after={AGAIN_AFTER}", "alertmanager.priorities=[high,medium]"]

    async def calls() -> list[dict[str, str]]:
        async with Pager() as pager:
            with alertmanager_server(tmp_path, pager) as alertmanager:
                values.append(f"alertmanager.urls=[http://127.0.0.1:{alertmanager.port}]")
                given = sets(beat_bundle, tmp_path / "state", *replay(records, 30), *values)
                with Process(given, tmp_path) as monitor:
                    assert (await asyncio.to_thread(monitor.end, 180))[0] == 0
            alerts = [alert for call in pager.calls for alert in call["alerts"]]
            return [alert["labels"] for alert in alerts if alert["status"] == "firing"]

    fired = [each for each in asyncio.run(calls()) if each["kind"] == "tachycardia"]
    changes = [(a, change) for a, change, _ in recorded(tmp_path / "state") if ":tachycardia:" in a]
    first, second = dict.fromkeys(alarm for alarm, _ in changes)
    assert [change for alarm, change in changes if alarm == first][:4] == [
        "onset",
        "escalated",
        "latched",
        "resumed",
    ]
    high = [each["alarm"] for each in fired if each["priority"] == "high"]
    assert [(each["priority"], each["alarm"]) for each in fired[:2]] == [("medium", first), ("high", first)]
    assert high == [first, second]
