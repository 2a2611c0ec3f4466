"""A headless Chromium to ask questions: started, sent commands, closed.

Speaks the DevTools protocol over two pipes (`--remote-debugging-pipe`): JSON messages with a zero
byte behind each. Keeps every message of the console and every request for the tests to look at.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SECONDS = 60.0  # for an answer, on a busy machine


class Page:
    """One page in a running browser."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, back
        self._left, self._serial, self._session = b"", 0, ""
        self.console: list[str] = []
        self.requests: list[str] = []
        found = self.ask("Target.createTarget", url="about:blank")
        attached = self.ask("Target.attachToTarget", targetId=found["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command; what else comes in the meantime is kept."""
        self._serial += 1
        message = {"id": self._serial, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._serial:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def open(self, file: Path, width: int = 1280, dark: bool = False) -> None:
        """Load a file and wait until its script has run."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=file.resolve().as_uri())
        end = time.monotonic() + SECONDS
        while (
            self.run("document.readyState") != "complete"
            or self.run("location.href") == "about:blank"
        ):
            assert time.monotonic() < end, f"{file} was not loaded"

    def run(self, script: str) -> Any:
        """The value of an expression; an exception in the page is an assertion here."""
        got = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key, with the page's focus where it is."""
        codes = {"ArrowDown": 40, "ArrowUp": 38, "ArrowRight": 39, "ArrowLeft": 37, "Tab": 9}
        codes |= {"Home": 36, "End": 35}
        for what in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=what, key=key, code=key,
                     windowsVirtualKeyCode=codes[key])  # fmt: skip

    def move(self, x: float, y: float) -> None:
        """Move the pointer there."""
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._back], [], [], SECONDS)
            assert ready, "the browser does not answer"
            more = os.read(self._back, 1 << 16)
            assert more, "the browser has ended"
            self._left += more
        one, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(one)
        given = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.console.append(str(given["exceptionDetails"]))
        elif message.get("method") == "Runtime.consoleAPICalled":
            self.console.append(str(given["args"]))
        elif message.get("method") == "Log.entryAdded":
            self.console.append(str(given["entry"]))
        elif message.get("method") == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        return message


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a browser of its own, which is ended with it."""
    assert PROGRAM is not None
    theirs, to = os.pipe()
    back, answers = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # It reads commands from descriptor 3 and writes answers to 4.
        pipes = f'exec 3<&{theirs} 4>&{answers}; exec "$0" "$@"'
        command = [PROGRAM, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={folder}"]
        process = subprocess.Popen(
            ["bash", "-c", pipes, *command],
            pass_fds=(theirs, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        os.close(answers)
        try:
            page = Page(to, back)
            yield page
            page._session = ""
            page.ask("Browser.close")
            process.wait(SECONDS)
        finally:
            process.kill()
            process.wait()
            os.close(to)
            os.close(back)
