"""The live page in a real Chromium."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from monitors.outputs.page import LivePage, PageSettings
from tests.monitors.browser import Browser, chromium

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

    def __init__(self, beds: list[Event], alarms: list[Event], port: int = 0) -> None:
        self.acknowledged: list[str] = []
        self.discharged: list[str] = []  # the first time it is refused
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._alarms = {each["alarm"]: each for each in alarms}
        snapshot = {"beds": beds, "alarms": alarms, "note": HOSTILE}
        self._live = LivePage(PageSettings(port=port), lambda: snapshot, self._acknowledge, self._discharge)
        self.port = asyncio.run_coroutine_threadsafe(self._live.start(), self._loop).result(10)
        self.url = f"http://127.0.0.1:{self.port}/"

    async def _acknowledge(self, name: str) -> bool:
        self.acknowledged.append(name)
        self._live.publish({**self._alarms[name], "change": "acknowledged", "state": "acknowledged"})
        return True

    async def _discharge(self, stream: str) -> bool:
        if stream in self.discharged:
            self._live.publish({"type": "discharge", "stream": stream})
        self.discharged.append(stream)
        return self.discharged.count(stream) > 1

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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser") / "profile") as window:
        window.resize(1280, 940)
        yield window


@pytest.fixture
def monitors() -> Iterator[list[Monitor]]:
    """Those that a test puts in are closed after it."""
    opened: list[Monitor] = []
    yield opened
    for monitor in opened:
        monitor.close()


def look(browser: Browser, monitors: list[Monitor], *alarms: Event, beds: int = 2) -> Monitor:
    monitor = Monitor([bed(f"bed-{n + 1}") for n in range(beds)], list(alarms))
    monitors.append(monitor)
    browser.log()
    browser.open(monitor.url)
    browser.wait("return document.querySelectorAll('.tile').length == arguments[0]", beds)
    return monitor


def errors(browser: Browser) -> list[str]:
    """What the console complained of."""
    return [each["message"] for each in browser.log() if each["level"] == "SEVERE"]


def test_it_shows_beds_and_alarms_by_priority(browser: Browser, monitors: list[Monitor]) -> None:
    slow = alarm("bradycardia", "medium", measured={"heart_rate": 36.2}, limits={"medium": 40, "high": 30})
    monitor = look(browser, monitors, slow)
    assert "Not a medical device." in browser.text("header")
    browser.wait("return document.querySelector('.tile .rate').textContent == '72'")
    assert "Heart rate 36/min; the limit is 40/min." in browser.text("#alarm-list")
    assert "1 min 5 s" in browser.text("#alarm-list")
    monitor.publish(
        alarm("lead-off", "low", measured={"off": [HOSTILE]}), alarm("asystole", "high", stream="bed-2")
    )
    browser.wait("return document.querySelectorAll('.entry').length == 3")
    shown = browser.run("return [...document.querySelectorAll('.entry .kind')].map((e) => e.textContent)")
    assert shown == ["Asystole", "Bradycardia", "Lead off"]
    assert browser.text("#urgent") == "high priority: Asystole, bed bed-2"
    browser.wait("return document.querySelectorAll('.tile')[1].dataset.priority == 'high'")
    monitor.publish(bed("bed-1", heart_rate=None), {"type": "discharge", "stream": "bed-2"})
    browser.wait("return document.querySelectorAll('.tile').length == 1")
    browser.wait("return document.querySelector('.tile .rate').textContent == '\\u2013'")
    assert browser.run("return document.querySelectorAll('.entry').length") == 2
    assert errors(browser) == []


def test_an_alarm_is_acknowledged_by_its_button(browser: Browser, monitors: list[Monitor]) -> None:
    monitor = look(browser, monitors, alarm("asystole", "high"))
    browser.wait("return document.querySelector('.entry .acknowledge')")
    browser.click(".entry .acknowledge")
    browser.wait("return document.querySelector('.entry').dataset.state == 'acknowledged'")
    assert monitor.acknowledged == ["bed-1:asystole:1"]
    assert browser.run("return document.querySelector('.acknowledge').hidden")
    assert "acknowledged" in browser.text(".entry")
    assert errors(browser) == []


def test_a_bed_is_discharged_after_asking_twice(browser: Browser, monitors: list[Monitor]) -> None:
    monitor = look(browser, monitors, alarm("stream-lost", "medium", stream="bed-2"))
    browser.wait("return document.querySelectorAll('.card').length == 2")
    browser.click(".card .discharge")
    assert browser.text("#discharge h2") == "Discharge bed-2?", "beds with alarms come first"
    browser.click("#discharge .actions button")
    assert monitor.discharged == []
    browser.click(".entry .discharge")
    browser.click("#discharge .confirm")
    browser.wait(
        "return document.querySelector('#discharge .failed').textContent == 'Discharge failed. Try again.'"
    )
    browser.click("#discharge .confirm")
    browser.wait("return !document.querySelector('#discharge').open")
    browser.wait("return document.querySelectorAll('.tile').length == 1")
    assert monitor.discharged == ["bed-2", "bed-2"]
    assert browser.text("#alarm-list") == ""
    assert all("404" in error for error in errors(browser)), "that of the refusal"


def drawn(selector: str) -> str:
    """A script: how many pixels of a canvas are not its background."""
    return (
        f"const c = document.querySelector('{selector}'); if (!c || !c.width) return 0;"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return d.filter((v, i) => i % 4 == 3 && v > 0).length > 300"
    )


def test_traces_are_drawn_and_beats_have_the_colour_of_their_score(
    browser: Browser, monitors: list[Monitor]
) -> None:
    monitor = look(browser, monitors)
    start = time.time() - 4
    beats = [{"time": start + 0.5 + n, "score": 3.0, "anomalous": True} for n in range(4)]
    waves = [math.exp(-(((n / 100 % 1) - 0.5) ** 2) * 900) if n % 150 else None for n in range(400)]
    monitor.publish(
        {"type": "trace", "stream": "bed-1", "lead": HOSTILE, "start": start, "rate": 100, "values": waves}
    )
    monitor.publish({"type": "beats", "stream": "bed-1", "beats": beats})
    browser.wait(drawn(".card .lead canvas"))
    red = "const c = document.querySelector('.lead canvas'), d = c.getContext('2d')"
    red += ".getImageData(0, 0, c.width, c.height).data;"
    red += "return d.some((v, i) => i % 4 == 0 && v > 200 && d[i + 1] < 90 && d[i + 3] > 200)"
    browser.wait(red)
    assert browser.text(".lead .name") == HOSTILE
    assert browser.run("return document.querySelectorAll('img, [onerror]').length") == 0
    assert errors(browser) == []


CLOCK = """
const [speed, seconds] = arguments;
return import("/live_traces.js").then(({ Clock }) => {
  const clock = new Clock();
  let second = 0, worst = 0, before = 0;
  for (let frame = 0; frame < 30 * seconds; frame++) {
    const now = 7000 + frame / 30;
    // A chunk of a second comes when it is over, up to a third of that late.
    while ((second + 1 + ((second * 7) % 4) / 12) / speed <= frame / 30) {
      clock.arrived(500 + second, 501 + second, now);
      second++;
    }
    const head = clock.at(now);
    if (head === null) continue;
    if (head < before - 1e-9) return `back at ${now}`;
    before = head;
    if (frame > 150) worst = Math.max(worst, 500 + frame / 30 * speed - head);
  }
  return worst;
});
"""


@pytest.mark.parametrize("speed", [0.5, 1, 4, 20])
def test_traces_keep_up_with_samples_of_any_speed(
    browser: Browser, monitors: list[Monitor], speed: float
) -> None:
    look(browser, monitors)
    late = browser.run(CLOCK, speed, 90)
    assert late < max(3, 2 * speed), "of 40 s that are kept"


def test_the_beats_behind_an_alarm_are_shown(browser: Browser, monitors: list[Monitor]) -> None:
    look(
        browser, monitors, alarm("anomaly", "medium", measured={"burden": 0.5}, beats=[beat(1.5), beat(2.0)])
    )
    browser.wait("return document.querySelector('.entry .expand')")
    browser.click(".entry .expand")
    assert browser.run("return document.querySelectorAll('.details figure').length") == 2
    browser.wait(drawn(".details canvas"))
    assert errors(browser) == []


def test_what_is_hostile_stays_text(browser: Browser, monitors: list[Monitor]) -> None:
    monitor = look(browser, monitors, alarm("anomaly", "high", stream=HOSTILE, measured={"x": HOSTILE}))
    monitor.publish(bed(HOSTILE, quality={HOSTILE: HOSTILE}))
    monitor.publish(alarm(HOSTILE, HOSTILE, stream=HOSTILE, state=HOSTILE, reason=HOSTILE))
    monitor.publish({"type": "status", "sources": {HOSTILE: True}})
    browser.wait("return document.querySelectorAll('.entry').length == 2")
    browser.wait("return document.querySelectorAll('.tile').length == 3")
    browser.wait("return document.querySelector('#status').textContent.includes('<img')")
    browser.run("document.querySelectorAll('.expand').forEach((button) => button.click())")
    assert HOSTILE in browser.text("#note")
    assert HOSTILE in browser.text(".entry")
    assert browser.run("return document.querySelectorAll('img, [onerror]').length") == 0
    assert browser.run("return document.title") == "(1) ECG live"
    assert errors(browser) == []


def test_a_bed_is_chosen_by_its_tile(browser: Browser, monitors: list[Monitor]) -> None:
    monitor = look(browser, monitors, beds=14)
    browser.wait("return document.querySelectorAll('.card').length == 12")
    browser.click(".tile:nth-child(6)")  # by name: 1, 10, 11, 12, 13, 14
    browser.wait("return location.search.startsWith('?streams=bed-14,bed-1,')")
    browser.wait("return document.querySelector('.card h3').textContent == 'bed-14'")
    assert browser.run("return document.querySelectorAll('.card').length") == 12
    until = time.monotonic() + 10
    while "bed-14" not in monitor.shown_streams() or "bed-12" in monitor.shown_streams():
        assert time.monotonic() < until
        monitor.publish({"type": "discharge", "stream": "bed-13"})  # the connection before notices its end
        time.sleep(0.02)
    browser.click(".card .hide")
    browser.wait("return document.querySelectorAll('.card').length == 11")
    assert errors(browser) == []


def test_a_lost_monitor_is_seen_at_once_and_found_again(browser: Browser, monitors: list[Monitor]) -> None:
    monitor = look(browser, monitors)
    assert browser.run("return document.querySelector('#banner').hidden")
    monitor.close()
    browser.wait("return !document.querySelector('#banner').hidden")
    assert "The data shown is out of date" in browser.text("#banner")
    assert browser.run("return getComputedStyle(document.querySelector('.tile')).filter") == "grayscale(1)"
    monitors.append(Monitor([bed("bed-3")], [], monitor.port))
    browser.wait("return document.querySelector('#banner').hidden")
    browser.wait("return document.querySelector('.tile .stream').textContent == 'bed-3'")
    assert browser.run("return document.querySelectorAll('.tile').length") == 1


def test_a_bed_without_news_looks_old(browser: Browser, monitors: list[Monitor]) -> None:
    monitor = look(browser, monitors)
    monitor.publish(bed("bed-9", age=11.0))
    browser.wait("return document.querySelector('.tile.stale')")
    assert "no data" in browser.text(".tile.stale")
    assert browser.run("return document.querySelectorAll('.tile.stale').length") == 1
