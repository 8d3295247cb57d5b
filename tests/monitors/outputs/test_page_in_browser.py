"""The live page in a real Chromium."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest

from tests.monitors.browser import Browser, chromium
from tests.monitors.page_monitor import HOSTILE, Event, Monitor, alarm, beat, bed, strip


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
        "return document.querySelector('#discharge .failed').textContent"
        " == 'Not discharged: the worker does not respond'"
    )
    browser.click("#discharge .confirm")
    browser.wait("return !document.querySelector('#discharge').open")
    browser.wait("return document.querySelectorAll('.tile').length == 1")
    assert monitor.discharged == ["bed-2", "bed-2"]
    assert browser.text("#alarm-list") == ""
    assert all("503" in error for error in errors(browser)), "that of the refusal"


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
    violet = "const c = document.querySelector('.lead canvas'), d = c.getContext('2d')"
    violet += ".getImageData(0, 0, c.width, c.height).data;"
    violet += "return d.some((v, i) => i % 4 == 0 && v > 150 && d[i + 1] < 150 && d[i + 2] > 190)"
    browser.wait(violet)
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
    assert browser.run("return document.querySelectorAll('.details figure:not(.strip)').length") == 2
    browser.wait(drawn(".details figure:not(.strip) canvas"))
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


def test_an_alarm_shows_its_strip_its_value_at_onset_and_the_one_now(
    browser: Browser, monitors: list[Monitor]
) -> None:
    slow = alarm("bradycardia", "medium", measured={"heart_rate": 36.2}, limits={"medium": 40, "high": 30})
    lost = alarm("stream-lost", "low", stream="bed-2", measured={"lost": 12})
    monitor = look(browser, monitors, slow, lost)
    monitor.strips[slow["alarm"]] = strip(slow["alarm"], slow["onset"], complete=False)
    browser.wait("return document.querySelector('.entry .now').textContent == 'heart rate 72/min'")
    assert browser.text(".entry .then") == "Heart rate 36/min; the limit is 40/min."
    assert browser.text(".entry .then-label").startswith("At onset")
    browser.wait("return document.querySelector('.card .rate').textContent == '72 /min now'")
    browser.wait("return document.querySelector('.card .onset').textContent.startsWith('36/min')")
    monitor.publish(bed("bed-1", heart_rate=44.0))
    browser.wait("return document.querySelector('.entry .now').textContent == 'heart rate 44/min'")
    browser.run("document.querySelectorAll('.entry .expand').forEach((button) => button.click())")
    browser.wait(drawn(".strip canvas"))
    caption = browser.text(".strip figcaption")
    assert "25 mm/s, 10 mm/mV" in caption
    assert "1 of 3 leads" in caption
    assert "incomplete: 4 of 20 s" in caption
    browser.wait(
        "const [, other] = document.querySelectorAll('.strip figcaption');"
        "return other.textContent.startsWith('no strip is stored')"
    )
    assert all("404" in error for error in errors(browser))


MARK = """
const c = document.querySelector('.lead canvas'), ratio = devicePixelRatio;
const d = c.getContext('2d').getImageData(Math.round(7 * ratio), 0, 1, c.height).data;
let rows = 0;
for (let i = 3; i < d.length; i += 4) rows += d[i] > 128;
return rows / ratio / 3;
"""


def test_the_gain_is_the_one_that_was_chosen_with_a_mark_of_a_millivolt(
    browser: Browser, monitors: list[Monitor]
) -> None:
    monitor = look(browser, monitors)
    values = [2.3 * math.exp(-(((n / 100 % 1) - 0.5) ** 2) * 900) for n in range(400)]
    trace = {"type": "trace", "stream": "bed-1", "lead": "II", "start": time.time() - 4, "rate": 100}
    monitor.publish({**trace, "values": values})
    for gain, label in ((10, "10 mm/mV"), (20, "20 mm/mV, cut off"), (5, "5 mm/mV")):
        browser.run(f"document.querySelector('#gain [value=\"{gain}\"]').click()")
        browser.wait(f"return document.querySelector('.lead .gain')?.textContent == '{label}'")
        browser.wait(f"const rows = (() => {{{MARK}}})(); return Math.abs(rows - {gain}) < 1")
    browser.open(monitor.url)
    assert browser.wait("return document.querySelector('#gain :checked').value") == "5"
    browser.run("localStorage.clear()")
    assert errors(browser) == []


GREEN = r"""
const channels = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
const green = ([r, g, b, a = 1]) => a > 0.2 && g > r + 25 && g > b + 25;
const found = [];
for (const element of document.querySelectorAll("[data-priority=high], [data-priority=high] *")) {
  for (const pseudo of [null, "::before"]) {
    const style = getComputedStyle(element, pseudo);
    for (const name of ["color", "backgroundColor", "borderLeftColor", "borderTopColor"])
      if (green(channels(style[name]))) found.push(`${element.className} ${name} ${style[name]}`);
  }
  if (element.tagName === "CANVAS" && element.width) {
    const d = element.getContext("2d").getImageData(0, 0, element.width, element.height).data;
    for (let i = 0; i < d.length; i += 4)
      if (green([d[i], d[i + 1], d[i + 2], d[i + 3] / 255])) found.push("canvas");
  }
}
return found;
"""
SMALL = """
return [...document.querySelectorAll("button, input:not([type=radio]), #gain label")].filter((one) => {
  const { width, height } = one.getBoundingClientRect();
  return one.offsetParent && Math.min(width, height) < 43.9;
}).map((one) => one.outerHTML);
"""
UNNAMED = """
const said = (one) =>
  (one.getAttribute("aria-label") ?? one.labels?.[0]?.textContent ?? one.textContent).trim();
return [...document.querySelectorAll("button, input, canvas, [role=img], [tabindex='0']")]
  .filter((one) => one.offsetParent && !said(one)).map((one) => one.outerHTML);
"""


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_colours_are_those_of_priorities_and_targets_are_large_and_named(
    browser: Browser, monitors: list[Monitor], scheme: str
) -> None:
    browser.emulate(prefers_color_scheme=scheme)
    asystole = alarm("asystole", "high", measured={"silence": 4.2}, beats=[beat(0.2), beat(3)])
    monitor = look(browser, monitors, asystole)
    start = time.time() - 4
    waves = [math.exp(-(((n / 100 % 1) - 0.5) ** 2) * 900) for n in range(400)]
    trace = {"type": "trace", "stream": "bed-1", "lead": "II", "start": start, "rate": 100, "values": waves}
    scores = [{"time": start + 0.5 + n, "score": float(n), "anomalous": n > 1} for n in range(4)]
    monitor.publish(trace, {"type": "beats", "stream": "bed-1", "beats": scores})
    browser.wait("return document.querySelector('.card').dataset.priority == 'high'")
    browser.click(".entry .expand")
    browser.wait(drawn(".strip canvas"))
    browser.wait(drawn(".lead canvas"))
    assert browser.run(GREEN) == []
    red = browser.run("return getComputedStyle(document.querySelector('.card .rate')).color")
    assert red == browser.run("return getComputedStyle(document.querySelector('.tile .rate')).color")
    assert red == browser.run("return getComputedStyle(document.querySelector('.card .alarm')).color")
    assert browser.run(SMALL) == []
    assert browser.run(UNNAMED) == []
    back = browser.run("return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
    assert (min(back) > 200) == (scheme == "light")
    browser.emulate()
    assert errors(browser) == []
