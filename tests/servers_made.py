"""Real ASGI servers on this machine, each serving tests/attacked_app.py, and a client that sends bytes as they are.

>>> with Served("uvicorn-h11", "guarded", tmp_path) as served:
...     status, ran, answer = served.exchange(request)
"""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from tests.attacked_app import RAN_FILE

_UVICORN: Final = "uvicorn {app} --host 127.0.0.1 --port {port} --no-proxy-headers --log-level critical --http"
COMMANDS: Final = {
    "uvicorn-h11": f"{_UVICORN} h11",
    "uvicorn-httptools": f"{_UVICORN} httptools",
    "hypercorn": "hypercorn {app} --bind 127.0.0.1:{port} --log-level critical",
    "granian": "granian {app} --interface asgi --host 127.0.0.1 --port {port} --log-level critical",
    "daphne": "daphne {app} --bind 127.0.0.1 --port {port} --verbosity 0",
}
_PATIENCE: Final = 30.0  # seconds, for a server to start
_SILENCE: Final = 1.0  # seconds, after which a server that keeps a connection open says no more

_ROOT: Final = Path(__file__).parent.parent


class Exchange(NamedTuple):
    """What came of the bytes sent: the status of the first answer, or `None` without one, and the handlers that ran."""

    status: int | None
    ran: tuple[str, ...]
    answer: bytes


class Served:
    """An app of tests/attacked_app.py behind a server, in a process of its own."""

    def __init__(self, server: str, app: str, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as found:
            self._port = found.getsockname()[1]
        self._ran = folder / f"{server}-{app}.ran"
        self._ran.touch()
        self._seen = 0
        self._errors = (folder / f"{server}-{app}.stderr").open("w+b")
        command = COMMANDS[server].format(app=f"tests.attacked_app:{app}", port=self._port).split()
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=_ROOT,
            env={**os.environ, RAN_FILE: str(self._ran)},
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )
        self._is_ready = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def exchange(self, sent: bytes) -> Exchange:
        """Send bytes on a connection of their own, and return what came of it."""
        with self._connected() as connection:
            connection.settimeout(_SILENCE)
            answer = b""
            try:
                connection.sendall(sent)
                while not _is_whole(answer):
                    received = connection.recv(65_536)
                    if not received:
                        break
                    answer += received
            except (TimeoutError, ConnectionError):
                pass  # a server may drop what it cannot read without a word
        status = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
        return Exchange(int(status[1]) if status else None, self._that_ran(), answer)

    def _that_ran(self) -> tuple[str, ...]:
        """Return the handlers that ran since this was last asked."""
        names = self._ran.read_text(encoding="utf-8").splitlines()
        found = tuple(names[self._seen :])
        self._seen = len(names)
        return found

    def _connected(self) -> socket.socket:
        gives_up = time.monotonic() + (0 if self._is_ready else _PATIENCE)
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", self._port), _PATIENCE)
            except ConnectionRefusedError:
                if time.monotonic() > gives_up or self._process.poll() is not None:
                    self._errors.seek(0)
                    raise RuntimeError(f"the server is not there: {self._errors.read().decode()}") from None
                time.sleep(0.02)
            else:
                self._is_ready = True
                return connection


def _is_whole(answer: bytes) -> bool:
    """Tell whether an answer has all that its header promises; one without a length ends with its connection."""
    head, ended, body = answer.partition(b"\r\n\r\n")
    if not ended:
        return False
    if head.startswith((b"HTTP/1.1 101", b"HTTP/1.1 204", b"HTTP/1.1 304")):
        return True
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    if length is not None:
        return len(body) >= int(length[1])
    return re.search(rb"\r\ntransfer-encoding: *chunked", head, re.IGNORECASE) is not None and body.endswith(
        b"0\r\n\r\n"
    )
