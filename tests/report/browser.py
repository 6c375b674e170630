"""Chromium without a window, driven over its pipe: what a reader's browser makes of a page."""

import base64
import contextlib
import io
import json
import os
import shutil
import subprocess
import threading

import numpy as np
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
_SECONDS = 60


class Browser:
    """Chromium's DevTools protocol: JSON between zero bytes, on file descriptors 3 and 4."""

    def __init__(self, directory):
        ours, theirs = os.pipe(), os.pipe()  # their ends are 3, which they read, and 4
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += ["--disable-background-networking", "--hide-scrollbars"]
        command += ["--remote-debugging-pipe", f"--user-data-dir={directory}", "about:blank"]
        shell = f'exec "$@" 3<&{ours[0]} 4>&{theirs[1]}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *command],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._to, self._from = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")
        self._watch = threading.Timer(_SECONDS, self._process.kill)
        self._watch.start()
        self._number, self._session, self.events, self._rest = 0, None, [], b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Returns what Chromium answers; events that come before it are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _read(self):
        while b"\0" not in self._rest:
            more = os.read(self._from.fileno(), 1 << 16)
            assert more, "Chromium ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, path, width, dark=False):
        """Loads a page at a width; returns its pixels, whole, int `(height, width, 3)`."""
        self.events.clear()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        picture = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
        return np.asarray(picture).astype(int)

    def value(self, expression):
        """Returns the value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"]["value"]

    @property
    def requests(self):
        """Addresses that the page asked for; not pictures that are in the page itself."""
        urls = [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("data:")]

    @property
    def complaints(self):
        """What the console shows of errors and warnings."""
        wrong = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event for event in self.events if event.get("method") in wrong]

    def close(self):
        self._watch.cancel()
        self._process.kill()
        self._process.wait()
        for stream in (self._to, self._from):
            with contextlib.suppress(OSError):
                stream.close()


def drawn(browser, pixels):
    """Pixels within each SVG of the page that are not its ground, a count for each."""
    boxes = browser.value(
        "Array.from(document.querySelectorAll('svg')).map(svg => {"
        " const box = svg.getBoundingClientRect();"
        " return [box.top + scrollY, box.bottom + scrollY, box.left, box.right].map(Math.round)})"
    )
    ground = pixels[-1, 0]
    return [
        int((np.abs(pixels[top:bottom, left:right] - ground).max(axis=-1) > 40).sum())
        for top, bottom, left, right in boxes
    ]


def check_pages(pages, directory):
    """On a screen and on a telephone: all plots drawn, nothing too wide, no request, no complaint.

    Args:
        pages: path -> least number of plots.
        directory: for the browser.
    """
    browser = Browser(directory / "user")
    try:
        for page, least in pages.items():
            for width in (1280, 400):
                counts = drawn(browser, browser.open(page, width))
                assert len(counts) >= least and min(counts) > 500, (page, width, counts)
                assert browser.value("document.documentElement.scrollWidth") <= width, (page, width)
                assert browser.requests == [page.as_uri()]
                assert browser.complaints == []
    finally:
        browser.close()
