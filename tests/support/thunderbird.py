"""Thunderbird on a screen of its own (Xvfb), driven by Marionette: JSON behind its length over TCP, no library needed.

    with Thunderbird(tmp_path, trusted=ca_pem, names=["mx.example.test"], preferences={...}) as thunderbird:
        thunderbird.script("return document.title")

Scripts run with the program's own rights ("chrome context") in its main window.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.mail import needs, run

WAIT_S = 180.0  # for something to appear: the machine may be busy
_PREFERENCES: dict[str, str | int | bool] = {
    "marionette.port": 0,  # any; it says which in the profile
    "app.donation.eoy.version.viewed": 999,
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "datareporting.policy.dataSubmissionPolicyBypassNotification": True,
    "toolkit.telemetry.enabled": False,
    "extensions.update.enabled": False,
    "extensions.getAddons.cache.enabled": False,
    "browser.safebrowsing.downloads.enabled": False,
    "browser.search.update": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "mail.shell.checkDefaultClient": False,
    "mail.rights.version": 1,
    "mail.inappnotifications.enabled": False,
    "mail.spotlight.firstRunDone": True,
    "mail.winsearch.firstRunDone": True,
    "mailnews.start_page.enabled": False,
    "mailnews.start_page_override.mstone": "ignore",
    "mailnews.auto_config_url": "",  # nobody outside is asked
    "mailnews.auto_config.addons_url": "",
    "mail.chat.enabled": False,
    "calendar.timezone.local": "UTC",
    "calendar.timezone.useSystemTimezone": False,
}


class Thunderbird:
    """One running program with a fresh profile. `names` lead to this machine; `trusted` is an authority's PEM file."""

    def __init__(
        self,
        directory: Path,
        *,
        trusted: Path,
        names: Iterable[str],
        preferences: Mapping[str, str | int | bool],
        size: str = "1280x800",
    ) -> None:
        program, screen = needs("thunderbird"), needs("Xvfb")
        certutil = needs("certutil")
        self.profile = directory / "profile"
        self.profile.mkdir()
        self.log = directory / "thunderbird.log"
        database = f"sql:{self.profile}"
        run(certutil, "-N", "-d", database, "--empty-password")
        run(certutil, "-A", "-d", database, "-n", "tests", "-t", "C,,", "-i", str(trusted))
        wanted = {**_PREFERENCES, "network.dns.localDomains": ",".join(names), **preferences}
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in wanted.items()]
        (self.profile / "user.js").write_text("".join(lines))
        self._number = 0
        self._socket: socket.socket | None = None
        self._running: list[subprocess.Popen[bytes]] = []
        try:
            display = self._start_screen(screen, size)
            environment = {
                **os.environ,
                "HOME": str(directory),
                "DISPLAY": display,
                "MOZ_CRASHREPORTER_DISABLE": "1",
                "GDK_BACKEND": "x11",
                "NO_AT_BRIDGE": "1",
                "LIBGL_ALWAYS_SOFTWARE": "1",
            }
            with self.log.open("wb") as log:
                self._running.append(
                    subprocess.Popen(
                        [
                            program,
                            "--profile",
                            str(self.profile),
                            "--no-remote",
                            "--marionette",
                            "--remote-allow-system-access",
                        ],
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        process_group=0,
                    )
                )
            self._connect()
        except BaseException:
            self._end()
            raise

    def _start_screen(self, program: str, size: str) -> str:
        """Starts an X server that chooses a number itself; gives the display's name."""
        reading, writing = os.pipe()
        try:
            self._running.append(
                subprocess.Popen(
                    [program, "-displayfd", str(writing), "-screen", "0", f"{size}x24", "-nolisten", "tcp"],
                    pass_fds=[writing],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    process_group=0,
                )
            )
        finally:
            os.close(writing)
        with open(reading, "rb") as numbers:
            number = numbers.readline().strip().decode()
        if not number:
            raise RuntimeError("Xvfb did not start")
        return f":{number}"

    def _connect(self) -> None:
        told = self.profile / "MarionetteActivePort"
        deadline = time.monotonic() + WAIT_S
        while not (told.exists() and told.read_text().strip()):
            if time.monotonic() > deadline or self._running[-1].poll() is not None:
                raise RuntimeError(f"Thunderbird did not start: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        self._socket = socket.create_connection(("127.0.0.1", int(told.read_text())), timeout=WAIT_S)
        self._received()  # it greets
        self.call("WebDriver:NewSession", {"capabilities": {}})
        self.call("Marionette:SetContext", {"value": "chrome"})
        self.call("WebDriver:SetTimeouts", {"script": int(WAIT_S * 1000)})
        self.until("return document.readyState == 'complete' && !!document.getElementById('tabmail')")

    def _received(self) -> Any:
        assert self._socket is not None
        length = b""
        while not length.endswith(b":"):
            length += self._take(1)
        raw = b""
        while len(raw) < int(length[:-1]):
            raw += self._take(int(length[:-1]) - len(raw))
        return json.loads(raw)

    def _take(self, most: int) -> bytes:
        assert self._socket is not None
        data = self._socket.recv(most)
        if not data:
            raise RuntimeError(f"Thunderbird has gone: {self.log.read_text(errors='replace')[-2000:]}")
        return data

    def __enter__(self) -> "Thunderbird":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            with contextlib.suppress(OSError, RuntimeError):
                self.call("Marionette:Quit", {"flags": ["eForceQuit"]})
        finally:
            self._end()

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
        for process in reversed(self._running):
            with contextlib.suppress(subprocess.TimeoutExpired):
                if process is self._running[-1] and len(self._running) > 1:
                    process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        shutil.rmtree(self.profile, ignore_errors=True)

    # --- what a test does ---

    def call(self, command: str, parameters: Mapping[str, object]) -> Any:
        assert self._socket is not None
        self._number += 1
        raw = json.dumps([0, self._number, command, parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(raw), raw))
        _, _, error, result = self._received()
        if error is not None:
            raise LookupError(f"{error['error']}: {error['message']}")
        return result["value"] if isinstance(result, dict) and "value" in result else result

    def script(self, text: str, *arguments: object) -> Any:
        """What a function with this body gives; it may await."""
        wrapped = (
            "const done = arguments[arguments.length - 1];"
            f"(async function() {{ {text} }}).apply(null, [...arguments].slice(0, -1))"
            ".then(value => done({ value }), error => done({ error: `${error}\\n${error.stack}` }));"
        )
        answer = self.call(
            "WebDriver:ExecuteAsyncScript",
            {"script": wrapped, "args": list(arguments), "newSandbox": False, "sandbox": "system"},
        )
        if "error" in answer:
            raise LookupError(answer["error"])
        return answer.get("value")

    def until(self, text: str, *arguments: object) -> Any:
        """Waits until the script gives something true, and gives it."""
        deadline = time.monotonic() + WAIT_S
        last: Exception | None = None
        while True:
            found = None
            try:
                found = self.script(text, *arguments)
            except LookupError as error:  # the window is just being changed
                last = error
            if found:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"never true in Thunderbird: {text} {arguments} {last}")
            time.sleep(0.1)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("WebDriver:TakeScreenshot", {"full": False})))
