"""A real browser (chromium), driven by WebDriver's few HTTP calls (W3C WebDriver), without a library."""

import base64
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.mail import needs

WAIT_S = 120.0  # for something to appear: the machine may be busy
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's reference, by the standard
_POST = {"Content-Type": "application/json"}


class Browser:
    """One window. Elements are named by CSS selectors; whatever is asked for is waited for."""

    def __init__(self, directory: Path, *, width: int = 1280, height: int = 800) -> None:
        driver, chromium = needs("chromedriver"), needs("chromium")
        self._log = (directory / "chromedriver.log").open("w+")
        self._driver = subprocess.Popen(
            [driver, "--port=0"], stdout=self._log, stderr=subprocess.STDOUT, env={**os.environ, "HOME": str(directory)}
        )
        self._base = ""
        try:
            self._base = f"http://127.0.0.1:{self._port(directory)}"
            options = {
                "binary": chromium,
                "args": [
                    "--headless=new",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-dev-shm-usage",
                    "--disable-background-networking",
                    f"--window-size={width},{height}",
                    f"--user-data-dir={directory}/profile",
                ],
            }
            made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}})
            self._base += f"/session/{made['sessionId']}"
        except BaseException:
            self._end()
            raise

    def _port(self, directory: Path) -> str:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            found = re.search(r"successfully on port (\d+)", (directory / "chromedriver.log").read_text())
            if found:
                return found[1]
            time.sleep(0.05)
        raise TimeoutError("chromedriver has not started")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._call("DELETE", "", None)
        finally:
            self._end()

    def _end(self) -> None:
        self._driver.terminate()
        self._driver.wait(30)
        self._log.close()

    def _call(self, method: str, path: str, body: object) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, _POST, method=method)
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise LookupError(json.load(error)["value"]["message"]) from None

    # --- what a test does ---

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def script(self, text: str, *arguments: object) -> Any:
        """What a function with this body gives."""
        return self._call("POST", "/execute/sync", {"script": text, "args": list(arguments)})

    def until(self, text: str, *arguments: object) -> Any:
        """Waits until the script gives something true, and gives it."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                found = self.script(text, *arguments)
            except LookupError:  # the page is just being changed
                found = None
            if found:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"never true in the page: {text} {arguments}")
            time.sleep(0.1)

    def find(self, selector: str, text: str = "") -> dict[str, str]:
        """The first element that is shown, and has this text in it."""
        shown = (
            "return [...document.querySelectorAll(arguments[0])].find("
            "e => e.getClientRects().length && e.textContent.includes(arguments[1]))"
        )
        element: dict[str, str] = self.until(shown, selector, text)
        return element

    def click(self, selector: str, text: str = "") -> None:
        """Clicks as soon as nothing else lies above the element."""
        deadline = time.monotonic() + WAIT_S
        while True:
            element = self.find(selector, text)
            try:
                self._call("POST", f"/element/{element[_ELEMENT]}/click", {})
                return
            except LookupError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def type(self, selector: str, text: str) -> None:
        element = self.find(selector)
        self._call("POST", f"/element/{element[_ELEMENT]}/value", {"text": text})

    def frame(self, selector: str = "") -> None:
        """Goes into a frame of the page; without a selector back to the page."""
        if selector:
            self._call("POST", "/frame", {"id": self.find(selector)})
        else:
            self._call("POST", "/frame", {"id": None})

    def accept(self) -> None:
        """Answers a question of the page (window.confirm) with yes."""
        self._call("POST", "/alert/accept", {})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot", None)))
