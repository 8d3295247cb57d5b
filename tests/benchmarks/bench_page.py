"""The live page in Chromium: milliseconds that a frame costs, and screenshots to look at.

    python -m tests.benchmarks.bench_page [--beds 1 --beds 12 --beds 100] [--seconds 10] [--shots FOLDER]

Each bed sends two leads of generated ECG as the monitor does, in real time, and all of them are shown
(`page.traces`). A frame is one call of the page's animation, drawn without a GPU. With `--shots`, the page is
also pictured at 390, 900 and 1440 px, light and dark, with some alarms.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from genray.ecg.synthesis import generate
from monitors.patient.strips import keep_peaks
from tests.monitors.browser import Browser, chromium
from tests.monitors.page_monitor import Event, Monitor, alarm, beat, bed

_RATE, _LEADS = 360, ("II", "V1")
_COUNT_FRAMES = """
window.frames_ms = [];
const ask = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (call) => ask((time) => {
  const before = performance.now();
  call(time);
  window.frames_ms.push([before, performance.now() - before]);
});
"""
_ALARMS = (
    ("asystole", "high", {"silence": 6.2}, {"silence": 4.0}),
    ("bradycardia", "medium", {"heart_rate": 36.0}, {"medium": 40, "high": 30}),
    ("lead-off", "low", {"off": ["V1"]}, {}),
)


class Patients:
    """Beds that send a second of two leads each second, until `close`."""

    def __init__(self, monitor: Monitor, count: int) -> None:
        self._monitor = monitor
        self._count = count
        self._ecgs = [generate(40, seed=seed).millivolts for seed in range(6)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        second = 0
        while not self._stop.wait(1.0):
            for number in range(self._count):
                self._send_second(number, (second + 7 * number) % 40)
            second += 1

    def _send_second(self, number: int, second: int) -> None:
        stream = f"bed-{number + 1:03d}"
        samples = self._ecgs[number % 6][second * _RATE : (second + 1) * _RATE]
        values, rate = keep_peaks(samples, _RATE, 240)
        about = {"stream": stream, "start": time.time() - 1, "rate": rate}
        for lead, column in zip(_LEADS, np.round(values, 3).T, strict=True):
            self._monitor.publish({"type": "trace", "lead": lead, "values": column.tolist(), **about})
        beats = [{"time": time.time() - 0.5, "score": 0.3 + number % 3, "anomalous": number % 3 > 0}]
        self._monitor.publish({"type": "beats", "stream": stream, "beats": beats}, state(number))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def state(number: int) -> Event:
    quality = {"II": "good", "V1": "off" if number % 9 == 2 else "good"}
    return {**bed(f"bed-{number + 1:03d}", heart_rate=58.0 + number % 40), "quality": quality}


def some_alarms(count: int) -> list[Event]:
    """Three alarms for twelve beds."""
    found = []
    for number in range(0, count, 4):
        kind, priority, measured, limits = _ALARMS[number // 4 % 3]
        beats = [beat(0.4), beat(2.1)] if kind == "asystole" else []
        stream = f"bed-{number + 1:03d}"
        found.append(alarm(kind, priority, stream=stream, measured=measured, limits=limits, beats=beats))
    return found


def picture(browser: Browser, folder: Path, name: str) -> None:
    for scheme in ("light", "dark"):
        browser.emulate(prefers_color_scheme=scheme)
        for width in (390, 900, 1440):
            browser.resize(width, 900)
            time.sleep(1.0)
            (folder / f"{name}-beds-{width}-{scheme}.png").write_bytes(browser.screenshot())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--beds", type=int, action="append")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--shots", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder) / "profile") as browser:
        browser.before_pages(_COUNT_FRAMES)
        for count in options.beds or [1, 12, 100]:
            beds = [state(number) for number in range(count)]
            monitor = Monitor(beds, some_alarms(count), traces=100)
            patients = Patients(monitor, count)
            try:
                browser.resize(1440, 900)
                browser.open(monitor.url)
                time.sleep(12)
                since = browser.run("return performance.now()")
                time.sleep(options.seconds)
                frames = browser.run("return window.frames_ms")
                costs = sorted(cost for at, cost in frames if at >= since and cost > 0.3)
                tenth = costs[int(0.95 * len(costs))]
                rate = len(costs) / options.seconds
                print(
                    f"{count} beds: a frame costs {statistics.median(costs):.1f} ms (95 %: {tenth:.1f} ms), "
                    f"{rate:.0f} frames/s",
                    flush=True,
                )
                if options.shots:
                    options.shots.mkdir(parents=True, exist_ok=True)
                    browser.run("document.querySelector('.entry .expand').click()")
                    picture(browser, options.shots, str(count))
                    browser.emulate()
            finally:
                patients.close()
                monitor.close()


if __name__ == "__main__":
    main()
