"""A real Chromium, as tools/install-browser installs it: opened once, driven over its own pipe.

It speaks the DevTools protocol, https://chromedevtools.github.io/devtools-protocol/: messages in
JSON with a zero byte after each.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import struct

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
SECONDS = 60
KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " ")}


class Browser:
    """One page of a browser; what it complains of is kept in `complaints`."""

    def __init__(self, profile):
        program = next(filter(None, map(shutil.which, NAMES)), None)
        assert program is not None, "no Chromium on the PATH; run tools/install-browser"
        its_input, self._write = os.pipe()
        self._read, its_output = os.pipe()
        quiet = (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)
        pipes = ((os.POSIX_SPAWN_DUP2, its_input, 3), (os.POSIX_SPAWN_DUP2, its_output, 4))
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = os.posix_spawn(
            program, command, os.environ, file_actions=[quiet, *pipes], setpgroup=0
        )
        os.close(its_input)
        os.close(its_output)
        self._received, self._number, self._session = b"", 0, None
        self.complaints, self._loaded = [], False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        """End it, and the processes that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._write)
        os.close(self._read)

    def call(self, method, **parameters):
        """Ask the browser to do something, and give what it answers."""
        self._send(method, **parameters)
        while (answer := self._receive()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _send(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")

    def _receive(self):
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._read], [], [], SECONDS)
            assert ready, "the browser says nothing"
            more = os.read(self._read, 1 << 20)
            assert more, "the browser has ended"
            self._received += more
        text, _, self._received = self._received.partition(b"\0")
        message = json.loads(text)
        method, facts = message.get("method"), message.get("params")
        if method == "Log.entryAdded":
            self.complaints.append(facts["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(facts["exceptionDetails"]["text"])
        elif method == "Page.loadEventFired":
            self._loaded = True
        return message

    def wait(self):
        """Wait until the page that was asked for is there."""
        while not self._loaded:
            self._receive()
        self._loaded = False

    def open(self, address, size=(1400, 1000), *, is_dark=False):
        """Open an address in a window of a size; forget what was complained of before."""
        self.complaints.clear()
        self.show(size, is_dark=is_dark)
        self._loaded = False
        assert "errorText" not in self.call("Page.navigate", url=address)
        self.wait()

    def show(self, size, *, is_dark=False):
        """Give the window another size or another scheme of colours; the page stays."""
        width, height = size
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **window)

    def run(self, script):
        """Give the value of an expression, once it is there. No policy of the page forbids it."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key):
        """Press a key, as a hand does. What types nothing has its effect when it goes down."""
        code, text = KEYS[key]
        facts = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        kind = "keyDown" if text else "rawKeyDown"
        self.call("Input.dispatchKeyEvent", type=kind, text=text, **facts)
        send = self.call if text else self._send
        send("Input.dispatchKeyEvent", type="keyUp", **facts)

    def read_document(self):
        """Give the document as the browser has it."""
        return self.run("document.documentElement.outerHTML")

    def take_picture(self):
        """Give a PNG of what the window shows."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def print_sheet(self):
        """Give a PDF of the page."""
        return base64.b64decode(self.call("Page.printToPDF", displayHeaderFooter=False)["data"])


def read_size(png):
    """Give the width and the height of a PNG."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])
