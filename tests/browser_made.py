"""A real browser: Debian's Chromium without a screen, driven through its DevTools protocol, and the pages it opens.

>>> with Pages() as pages, Chromium(tmp_path) as browser:
...     page = browser.open(pages.at("localhost"))
...     page.run("fetch('http://127.0.0.1:8000/').then(answer => answer.status)")
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from websockets.sync.client import connect

COMMAND: Final = "chromium"
MISSING: Final = "needs a browser: install Debian's package chromium"
_FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--remote-debugging-port=0", "about:blank"),
)
_PATIENCE: Final = 30.0  # seconds, for what takes one

Message = dict[str, Any]


def is_here() -> bool:
    """Tell whether the browser is installed."""
    return shutil.which(COMMAND) is not None


class Chromium:
    """One browser, with a profile of its own in the folder."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [COMMAND, f"--user-data-dir={folder}", *_FLAGS], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._called = 0
        with ExitStack() as stack:
            stack.callback(self._stop)
            address = f"ws://127.0.0.1:{self._address(folder)}"
            self._socket = stack.enter_context(connect(address, max_size=None, open_timeout=_PATIENCE))
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _address(self, folder: Path) -> str:
        """Return port and path of the protocol, which the browser writes into its profile when it is ready."""
        written = folder / "DevToolsActivePort"
        gives_up = time.monotonic() + _PATIENCE
        while time.monotonic() < gives_up and self._process.poll() is None:
            if written.exists() and (text := written.read_text(encoding="ascii")).count("\n"):
                return text.replace("\n", "", 1).strip()
            time.sleep(0.02)
        raise RuntimeError("the browser did not start")

    def open(self, url: str) -> Page:
        """Return a page in a tab of its own, loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call("Page.navigate", url=url)
        page.wait_for("Page.loadEventFired", lambda _: True)
        return page

    def call(self, method: str, page: Page | None = None, **params: object) -> Message:
        """Call a method of the protocol and return its result; events that come meanwhile are kept by their page."""
        self._called += 1
        sent = {"id": self._called, "method": method, "params": params}
        self._socket.send(json.dumps(sent | ({} if page is None else {"sessionId": page.session})))
        while True:
            message = self.receive(page)
            if message.get("id") == self._called:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                result: Message = message["result"]
                return result

    def receive(self, page: Page | None) -> Message:
        """Return the next message, and keep it where it is an event of the page."""
        message: Message = json.loads(self._socket.recv(_PATIENCE))
        if page is not None and message.get("sessionId") == page.session and "method" in message:
            page.events.append(message)
        return message


class Page:
    """A page of the browser; `events` is what happened to it, as the protocol tells."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self.session = session
        self.events: list[Message] = []

    def call(self, method: str, **params: object) -> Message:
        """Call a method of the protocol for this page."""
        return self._browser.call(method, self, **params)

    def wait_for(self, method: str, fits: Callable[[Message], bool]) -> Message:
        """Return the parameters of the first event of this page that fits, which may have come already."""
        seen = 0
        while True:
            for event in self.events[seen:]:
                if event["method"] == method and fits(event["params"]):
                    params: Message = event["params"]
                    return params
            seen = len(self.events)
            self._browser.receive(self)

    def run(self, script: str) -> Any:  # noqa: ANN401 - whatever the script makes
        """Return what an expression of JavaScript comes to, in the end."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise RuntimeError(json.dumps(done["exceptionDetails"]))
        return done["result"].get("value")

    def fetch(self, url: str, **options: object) -> Mapping[str, Any]:
        """Return what a script of the page gets from `fetch`: status, headers and body, or the error."""
        found: Mapping[str, Any] = self.run(f"({_FETCH})({json.dumps(url)}, {json.dumps(options)})")
        return found

    def console(self) -> str:
        """Return the next thing that the browser says to developers about this page."""
        entry = self.wait_for("Log.entryAdded", lambda told: told["entry"]["level"] == "error")
        return str(entry["entry"]["text"])

    def screenshot(self) -> str:
        """Return what the page looks like, a PNG in base64."""
        return str(self.call("Page.captureScreenshot")["data"])


_FETCH: Final = """async (url, options) => {
  try {
    const answer = await fetch(url, options);
    const text = await answer.text();
    let body = text;
    try { body = JSON.parse(text); } catch {}
    return {status: answer.status, headers: Object.fromEntries(answer.headers), body};
  } catch (error) {
    return {error: String(error)};
  }
}"""


class Pages:
    """Empty pages for any host of this machine, served from a thread."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def at(self, host: str) -> str:
        """Return the origin of the pages under a name of this machine."""
        return f"http://{host}:{self._server.server_address[1]}"


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer with an empty page, whatever is asked for."""
        body = b"<!doctype html><title>a page</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its own name
        """Say nothing."""
