"""A real browser for tests: Chromium without a window, spoken to in its DevTools protocol over a pipe; no package needed.

    with Server(folder) as address, Browser() as browser:
        page = browser.open(f"{address}/index.html", width=1200)
        page.run("document.title")                  value of a JavaScript expression; a promise is waited for
        page.until("window.ready === true")         waits until it is true
        page.errors                                 what the page has written to the console as an error, and exceptions
        page.asked                                  addresses that the page has asked for
        page.picture(path)                          a PNG of the whole page

Chromium is found by name: chromium, chromium-browser, google-chrome, or what NUMNET_CHROMIUM says.
"""

import base64
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 300  # for one answer: only a browser that hangs takes so long
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--force-color-profile=srgb", "--remote-debugging-pipe",
)  # fmt: skip


def chromium() -> str | None:
    """The browser's program, or None."""
    asked = os.environ.get("NUMNET_CHROMIUM")
    return asked or next((found for name in NAMES if (found := shutil.which(name))), None)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def Server(folder):
    """The address of a file server for a folder, on a free port of this machine alone."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Browser:
    """Chromium, started and ended with the ``with`` block."""

    def __enter__(self):
        self.home = tempfile.mkdtemp(prefix="numnet-browser-")
        # The pipe is on file descriptors 3 and 4 of the browser; a shell puts them there.
        script = 'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null'
        command = [
            "/bin/sh",
            "-c",
            script,
            chromium(),
            *OPTIONS,
            f"--user-data-dir={self.home}",
            "about:blank",
        ]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.count, self.answers, self.pages = 0, {}, {}
        self.news = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        return self

    def __exit__(self, *_):
        try:
            self.ask("Browser.close")
        except (RuntimeError, OSError):
            self.process.kill()
        try:
            self.process.wait(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join()
        self.process.stdin.close()
        self.process.stdout.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def _read(self):
        """Messages end with a zero byte; each goes to ``ask``, which waits for them."""
        rest = b""
        while part := self.process.stdout.read1(1 << 16):
            *messages, rest = (rest + part).split(b"\0")
            for message in messages:
                self.news.put(json.loads(message))
        self.news.put(None)

    def ask(self, method, session=None, **parameters):
        """The result of one command of the protocol. RuntimeError if the browser refuses it or has ended."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self.process.stdin.write(json.dumps(message).encode() + b"\0")
        self.process.stdin.flush()
        while True:
            try:
                answer = self.news.get(timeout=SECONDS)
            except queue.Empty:
                raise RuntimeError(f"{method}: no answer in {SECONDS} seconds") from None
            if answer is None:
                raise RuntimeError(f"{method}: the browser has ended")
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def _note(self, event):
        page = self.pages.get(event.get("sessionId"))
        if page is None:
            return
        what, about = event.get("method"), event.get("params", {})
        if what == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            page.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif what == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            page.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in about["args"]))
        elif what == "Network.requestWillBeSent":
            page.asked.append(about["request"]["url"])
        elif what == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            page.errors.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")

    def open(self, address, width=1200, height=800):
        """A new page at this address, loaded."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            page.ask(f"{domain}.enable")
        page.resize(width, height)
        page.go(address)
        return page


class Page:
    """One page: what it says, and what it complains of."""

    def __init__(self, browser, session, target):
        self.browser, self.session, self.target = browser, session, target
        self.errors, self.asked = [], []

    def close(self):
        self.browser.ask("Target.closeTarget", targetId=self.target)
        del self.browser.pages[self.session]

    def ask(self, method, **parameters):
        return self.browser.ask(method, self.session, **parameters)

    def resize(self, width, height=800):
        narrow = width < 600
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            mobile=narrow,
            deviceScaleFactor=1,
        )

    def go(self, address):
        """Load an address, and wait until all of it is there."""
        failed = self.ask("Page.navigate", url=address).get("errorText")
        assert not failed, f"{address}: {failed}"
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    def run(self, code):
        """The value of an expression; AssertionError with its message if it throws."""
        answer = self.ask("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def until(self, code):
        """Wait until an expression is true."""
        start = time.monotonic()
        while not self.run(code):
            assert time.monotonic() - start < SECONDS, f"never true: {code}; {self.errors}"
            time.sleep(0.02)

    def put(self, field, value):
        """Give a field (by its id) a value, as typing it and leaving the field would."""
        self.run(
            f"""(() => {{
                const field = document.getElementById({json.dumps(field)});
                field.value = {json.dumps(value)};
                field.dispatchEvent(new Event("input"));
                field.dispatchEvent(new Event("change"));
            }})()"""
        )

    def text(self, element):
        """The text of an element, by its id."""
        return self.run(f"document.getElementById({json.dumps(element)}).textContent")

    def key(self, name, code=None):
        """Press and release one key."""
        text = {"Enter": "\r", " ": " "}.get(name)
        about = {"key": name, "code": code or name, "windowsVirtualKeyCode": KEYS.get(name, 0)}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
        self.ask("Input.dispatchKeyEvent", type="keyUp", **about)

    def choose_file(self, selector, path):
        """Put a file into an <input type="file">."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def picture(self, path):
        """A PNG of the whole page, below the fold too."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        Path(path).write_bytes(base64.b64decode(shot["data"]))


ARROWS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
KEYS = {"Tab": 9, "Enter": 13, " ": 32, "End": 35, "Home": 36, **ARROWS}  # the codes that Windows gives them
