"""Real proxies on this machine, with the configurations that the docs show, between a test and a served app.

>>> with Served("uvicorn-httptools", "tests.proxied_app:app", tmp_path) as served:
...     with InFront("nginx/appending.conf", served.address, tmp_path) as proxy:
...         asked(proxy.port, "/closed", client="127.7.0.1").client_ip

Every 127.x.y.z is an address of this machine, so that each request may come from a client of its own.
"""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

CONFIGURATIONS: Final = Path(__file__).parent.parent / "docs" / "examples"

_SERVICE: Final = "127.0.0.1:8000"  # where the configurations expect it, and where its socket is
_SOCKET: Final = "/run/orders/app.sock"
_PATIENCE: Final = 30.0  # seconds
# What stands around a file of conf.d. One process does all, as whoever runs the tests.
_NGINX: Final = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{configuration}
}}
"""


def found(program: str) -> str | None:
    """Return where a proxy is installed, also for users whose PATH leaves out what administrators run."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Answer(NamedTuple):
    """What a client got: the status, and what a refusal says."""

    status: int
    reason: str | None
    client_ip: str | None
    body: bytes


class InFront:
    """A proxy with one of the docs' configurations, or with a text of that kind, before the address of a server."""

    def __init__(
        self,
        configuration: str,
        service: tuple[str, int] | str,
        folder: Path,
        *,
        changed: dict[str, str] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        program, _, name = configuration.partition("/")
        with socket.create_server((host, 0), family=_family(host)) as free:
            self.port: int = free.getsockname()[1]
        self.host = host
        written = f"[{host}]" if ":" in host else host
        text = (CONFIGURATIONS / configuration).read_text(encoding="utf-8")
        to = {_SOCKET: service} if isinstance(service, str) else {_SERVICE: f"{service[0]}:{service[1]}"}
        to |= (
            {"listen 80;": f"listen {written}:{self.port};"}
            if program == "nginx"
            else {"bind :80": f"bind {written}:{self.port}"}
        )
        for old, new in {**to, **(changed or {})}.items():
            assert old in text, f"{configuration} has no {old}"
            text = text.replace(old, new)
        folder = folder / f"{name}-{self.port}"
        folder.mkdir()
        file = folder / name
        file.write_text(_NGINX.format(folder=folder, configuration=text) if program == "nginx" else text)
        self._log = folder / "log"
        binary = found(program)
        assert binary is not None
        command = [binary, "-p", str(folder), "-c", str(file), "-e", str(folder / "nginx.log")]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command if program == "nginx" else [binary, "-db", "-f", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        gives_up = time.monotonic() + _PATIENCE
        while True:
            try:
                socket.create_connection((self.host, self.port), timeout=_PATIENCE).close()
            except ConnectionRefusedError:
                if time.monotonic() > gives_up or self._process.poll() is not None:
                    self._end()
                    raise RuntimeError(f"the proxy is not there: {self._log.read_text()}") from None
                time.sleep(0.01)
            else:
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def asked(
    port: int,
    path: str,
    *lines: str,
    client: str = "127.7.0.1",
    host: str = "127.0.0.1",
    app: str = "appending",
    chunked: bytes | None = None,
) -> Answer:
    """Send one request from an address, with these header lines, and return the answer.

    `app` is which of the served apps is meant. `chunked` is a body with its framing, trailers included.
    """
    connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE, source_address=(client, 0))
    try:
        connection.putrequest("GET" if chunked is None else "POST", path)
        for line in (f"X-App: {app}", "Connection: close", *lines):
            name, _, value = line.partition(": ")
            connection.putheader(name, value)
        if chunked is not None:
            connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders(chunked)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    told: dict[str, Any] = json.loads(body) if re.match(rb"\{.*\}\Z", body, re.DOTALL) else {}
    return Answer(response.status, told.get("reason"), told.get("client_ip"), body)
