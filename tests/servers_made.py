"""Real servers on this machine, each serving tests/attacked_app.py or, by WSGI, tests/wsgi_app_served.py.

>>> with Served("uvicorn-h11", "guarded", tmp_path) as served:  # and a client that sends bytes as they are
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

_UVICORN: Final = "uvicorn {app} {uvicorn} --no-proxy-headers --log-level critical --http"
COMMANDS: Final = {
    "uvicorn-h11": f"{_UVICORN} h11",
    "uvicorn-httptools": f"{_UVICORN} httptools",
    "hypercorn": "hypercorn {app} --bind 127.0.0.1:{port} --log-level critical",
    "granian": "granian {app} --interface asgi --host 127.0.0.1 --port {port} --log-level critical",
    "daphne": "daphne {app} --bind 127.0.0.1 --port {port} --verbosity 0",
}
REWRITING: Final = {"uvicorn-rewriting": "uvicorn {app} {uvicorn} --log-level critical"}
"""A server that puts what it reads of X-Forwarded-For in the place of the peer, as it does unless told otherwise."""
# Preloaded, it listens when the app is there and not before.
_GUNICORN: Final = "gunicorn {app} --preload --bind {gunicorn} --log-level critical --graceful-timeout 1 --worker-class"
WSGI_COMMANDS: Final = {
    "gunicorn-sync": f"{_GUNICORN} sync",
    "gunicorn-gthread": f"{_GUNICORN} gthread --threads 32",
    # It would drop X-Forwarded-For, so that the gate could not read it.
    "waitress": "waitress {waitress} --no-clear-untrusted-proxy-headers {app}",
    "granian-wsgi": "granian {app} --interface wsgi {granian} --log-level critical",
    "cheroot": "cheroot {app} --bind {cheroot}",
}
_TCP: Final = {
    "uvicorn": "--host 127.0.0.1 --port {port}",
    "gunicorn": "127.0.0.1:{port}",
    "waitress": "--listen=127.0.0.1:{port}",
    "granian": "--host 127.0.0.1 --port {port}",
    "cheroot": "127.0.0.1:{port}",
}
_UNIX: Final = {
    "uvicorn": "--uds {path}",
    "gunicorn": "unix:{path}",
    "waitress": "--unix-socket={path}",
    "granian": "--uds {path}",
    "cheroot": "{path}",
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
    """An app behind a server, in a process of its own: at a port, or at a unix socket in the folder.

    `app` is the name of one in the server's usual module, or `module:name`.
    """

    def __init__(self, server: str, app: str, folder: Path, *, at_unix_socket: bool = False) -> None:
        with socket.create_server(("127.0.0.1", 0)) as found:
            port: int = found.getsockname()[1]
        path = str(folder / "s")
        self.address: tuple[str, int] | str = path if at_unix_socket else ("127.0.0.1", port)
        module, _, app = app.rpartition(":")
        self._ran = folder / f"{server}-{app}.ran"
        self._ran.touch()
        self._seen = 0
        self._errors = (folder / f"{server}-{app}.stderr").open("w+b")
        spelled = {name: how.format(path=path, port=port) for name, how in (_UNIX if at_unix_socket else _TCP).items()}
        module = module or ("tests.wsgi_app_served" if server in WSGI_COMMANDS else "tests.attacked_app")
        command = (
            {**COMMANDS, **REWRITING, **WSGI_COMMANDS}[server]
            .format(app=f"{module}:{app}", port=port, **spelled)
            .split()
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=_ROOT,
            # gunicorn has a socket for its own control in that folder.
            env={**os.environ, RAN_FILE: str(self._ran), "XDG_RUNTIME_DIR": str(folder)},
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

    @property
    def pid(self) -> int:
        """The process that was started, which may have started others."""
        return self._process.pid

    def exchange(
        self, sent: bytes, *, bound_to: str | None = None, least: int = 0, silence: float = _SILENCE
    ) -> Exchange:
        """Send bytes on a connection of their own, whose end has a name if wanted, and return what came of it.

        `least` is how many lines are expected of what ran: some servers have sent an answer before its app is through.
        After so many seconds of `silence`, a server that keeps the connection open says no more.
        """
        with self.connected(bound_to) as connection:
            connection.settimeout(silence)
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
        return Exchange(int(status[1]) if status else None, self._that_ran(least, silence), answer)

    def _that_ran(self, least: int, silence: float) -> tuple[str, ...]:
        """Return the handlers that ran since this was last asked."""
        gives_up = time.monotonic() + silence
        while True:
            names = self._ran.read_text(encoding="utf-8").splitlines()
            if len(names) - self._seen >= least or time.monotonic() > gives_up:
                break
            time.sleep(0.001)
        found = tuple(names[self._seen :])
        self._seen = len(names)
        return found

    def connected(self, bound_to: str | None = None) -> socket.socket:
        """Return a connection to the server, once that is there."""
        gives_up = time.monotonic() + (0 if self._is_ready else _PATIENCE)
        while True:
            connection = socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET)
            connection.settimeout(_PATIENCE)
            try:
                if bound_to is not None:
                    connection.bind(bound_to)
                connection.connect(self.address)
            except (ConnectionRefusedError, FileNotFoundError):
                connection.close()
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
