"""A headless Chromium that a test drives, by plain WebDriver calls (https://www.w3.org/TR/webdriver2/)."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.servers import binary

FLAGS = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
FLAGS += "disable-component-update disable-sync disable-dev-shm-usage"


class Browser:
    """One window. Scripts are bodies of functions: they `return` a JSON value."""

    def __init__(self, port: int, folder: Path) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._path = "/session"
        arguments = [f"--{flag}" for flag in FLAGS.split()] + [f"--user-data-dir={folder}"]
        wished = {"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._call("POST", "", {"capabilities": {"alwaysMatch": wished}})
        self._path += f"/{session['sessionId']}"

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        text = None if body is None else json.dumps(body)
        self._connection.request(method, self._path + path, text, {"Content-Type": "application/json"})
        answer = json.loads(self._connection.getresponse().read())["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"{answer['error']}: {answer['message']}")
        return answer

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def resize(self, width: int, height: int) -> None:
        self._call("POST", "/window/rect", {"width": width, "height": height})

    def run(self, script: str, *arguments: Any) -> Any:
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, *arguments: Any, seconds: float = 20) -> Any:
        """What `script` gives, once that is true."""
        until = time.monotonic() + seconds
        while not (value := self.run(script, *arguments)):
            assert time.monotonic() < until, f"still not true: {script}"
            time.sleep(0.03)
        return value

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def click(self, selector: str) -> None:
        (element,) = self._call("POST", "/element", {"using": "css selector", "value": selector}).values()
        self._call("POST", f"/element/{element}/click", {})

    def emulate(self, **features: str) -> None:
        """Set media features, such as prefers_color_scheme="light", for all pages."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        command = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": named}}
        self._call("POST", "/goog/cdp/execute", command)

    def before_pages(self, script: str) -> None:
        """Run `script` in each page before its own scripts."""
        command = {"cmd": "Page.addScriptToEvaluateOnNewDocument", "params": {"source": script}}
        self._call("POST", "/goog/cdp/execute", command)

    def log(self) -> list[dict[str, Any]]:
        """What the console said since the last call."""
        return list(self._call("POST", "/se/log", {"type": "browser"}))

    def screenshot(self) -> bytes:
        return base64.b64decode(self._call("GET", "/screenshot"))

    def quit(self) -> None:
        self._call("DELETE", "")
        self._connection.close()


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with its profile in `folder`, which is new."""
    binary("chromium", package="chromium")
    driver_binary = binary("chromedriver", package="chromium-driver")
    with subprocess.Popen([driver_binary, "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout is not None
            found = (re.search(r"on port (\d+)\.", line) for line in driver.stdout)
            port = next(int(match[1]) for match in found if match)
            browser = Browser(port, folder)
            try:
                yield browser
            finally:
                browser.quit()
        finally:
            driver.terminate()
