"""A headless Chromium over its DevTools pipe: no port, no driver, no package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
PATIENCE_SECONDS = 60.0
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip

Json = dict[str, Any]


class Browser:
    """One page in one browser, with its requests and its complaints."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        self.requests: list[str] = []
        """Addresses that the page asked for."""
        self.complaints: list[str] = []
        """Console errors, uncaught exceptions and refused requests."""
        self.loaded = False

    def attach(self) -> None:
        """Open a blank page and record its events."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        answer = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = answer["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def open(self, page: Path) -> None:
        """Show a file, and wait until it has loaded."""
        self.loaded = False
        self.send("Page.navigate", url=page.as_uri())
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.loaded:
            self._take(deadline)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, of a promise that of what it promises."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def prefer(self, scheme: str) -> None:
        """Prefer a color scheme, light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def resize(self, width: int, height: int, phone: bool = False) -> None:
        """Set the window's size in CSS pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=phone,
        )  # fmt: skip

    def press(self, key: str, text: str = "") -> None:
        """Press one key on the element that has the focus."""
        for kind in ("keyDown", "keyUp"):
            extra = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, **extra)

    def type(self, text: str) -> None:
        """Type text into the element that has the focus."""
        self.send("Input.insertText", text=text)

    def picture(self, whole_page: bool = True) -> bytes:
        """The page as PNG."""
        answer = self.send("Page.captureScreenshot", captureBeyondViewport=whole_page)
        return base64.b64decode(answer["data"])

    def printed(self) -> bytes:
        """The page as PDF."""
        answer = self.send("Page.printToPDF", preferCSSPageSize=True)
        return base64.b64decode(answer["data"])

    def send(self, method: str, **params: Any) -> Json:
        """Send one command and return its answer."""
        self._last += 1
        message: Json = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self._take(deadline)
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: Json = answer["result"]
                return result

    def _take(self, deadline: float) -> Json:
        """Read the next message, and record it if it is an event."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            assert ready, f"Chromium did not answer within {PATIENCE_SECONDS:.0f} s"
            more = os.read(self._answers, 1 << 20)
            assert more, "Chromium has ended"
            self._buffer += more
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: Json = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, params: Json) -> None:
        if event == "Page.loadEventFired":
            self.loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(str(params["entry"]["text"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.complaints.append(str(params["args"]))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Chromium with `profile`, a new empty folder; it ends with the block."""
    assert CHROMIUM is not None
    # Chromium reads commands from descriptor 3 and answers on 4.
    commands_out, commands_in = _pipe()
    answers_out, answers_in = _pipe()

    def connect() -> None:
        os.dup2(commands_out, 3)
        os.dup2(answers_in, 4)

    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(3, 4), preexec_fn=connect,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(commands_out)
    os.close(answers_in)
    try:
        opened = Browser(commands_in, answers_out)
        opened.attach()
        yield opened
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(commands_in)
        os.close(answers_out)


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are none of the descriptors that Chromium uses."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
