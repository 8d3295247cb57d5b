"""A live page that a browser looks at, with the events of a monitor behind it."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import Any

from monitors.outputs.page import CommandResult, LivePage, PageSettings

HOSTILE = "<img src=x onerror=\"document.title='broken into'\">"
Event = dict[str, Any]


def bed(stream: str, **more: Any) -> Event:
    quality = {"II": "good", HOSTILE: "off"}
    known = {
        "type": "bed",
        "time": time.time(),
        "heart_rate": 71.6,
        "burden": 0.05,
        "learned": 1.0,
        "beats": 9,
    }
    return {**known, "stream": stream, "quality": quality, "anomalous": 1, **more}


def alarm(kind: str, priority: str, *, stream: str = "bed-1", state: str = "active", **why: Any) -> Event:
    name, now = f"{stream}:{kind}:1", time.time()
    said = {"alarm": name, "stream": stream, "kind": kind, "priority": priority, "category": "physiological"}
    more = {"change": "onset", "state": state, "time": now, "onset": now - 65, "announced": True, "why": why}
    return {"type": "alarm", **said, **more}


def beat(score: float) -> Event:
    values = [math.exp(-(((n - 50) / 6) ** 2)) for n in range(140)]
    pictures = {"values": values, "reconstruction": [v / 2 for v in values], "reference": values}
    return {"time": time.time(), "score": score, "lead": "II", **pictures}


class Monitor:
    """A live page served in a thread; what is asked of it becomes an event, as the real monitor does."""

    def __init__(self, beds: list[Event], alarms: list[Event], port: int = 0, **settings: Any) -> None:
        self.acknowledged: list[str] = []
        self.discharged: list[str] = []  # the first time it is refused
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._alarms = {each["alarm"]: each for each in alarms}
        snapshot = {"beds": beds, "alarms": alarms, "note": HOSTILE}
        self.strips: dict[str, Event] = {}
        self._live = LivePage(
            PageSettings(port=port, **settings),
            lambda: snapshot,
            self._acknowledge,
            self._discharge,
            self._strip,
        )
        self.port = asyncio.run_coroutine_threadsafe(self._live.start(), self._loop).result(10)
        self.url = f"http://127.0.0.1:{self.port}/"

    async def _strip(self, alarm: str) -> Event | None:
        if "stream-lost" in alarm:
            return None
        return self.strips.get(alarm, strip(alarm, time.time() - 65))

    async def _acknowledge(self, name: str) -> CommandResult:
        self.acknowledged.append(name)
        self._live.publish({**self._alarms[name], "change": "acknowledged", "state": "acknowledged"})
        return CommandResult("done")

    async def _discharge(self, stream: str) -> CommandResult:
        if stream in self.discharged:
            self._live.publish({"type": "discharge", "stream": stream})
        self.discharged.append(stream)
        again = self.discharged.count(stream) > 1
        return CommandResult("done") if again else CommandResult("late", "the worker does not respond")

    def publish(self, *events: Event) -> None:
        for event in events:
            self._loop.call_soon_threadsafe(self._live.publish, event)

    def shown_streams(self) -> set[str]:
        return self._live.shown_streams()

    def close(self) -> None:
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._live.close(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()


def strip(alarm: str, onset: float, *, complete: bool = True) -> Event:
    """The strip of an alarm with a peak each second."""
    rate = 100
    values = [math.exp(-(((n / rate % 1) - 0.5) ** 2) * 900) for n in range(rate * (30 if complete else 14))]
    until = onset - 10 + len(values) / rate
    about = {"alarm": alarm, "onset": onset, "start": onset - 10, "until": until, "rate": rate}
    return {**about, "leads": ["II"], "left_out": 2, "complete": complete, "values": {"II": values}}
