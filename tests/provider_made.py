"""A real identity provider to test against: tests/provider/provider.mjs, run by Node.js on this machine.

>>> with Provider("ES256") as provider:
...     provider.access_token("items:read")  # a JWT access token, for AUDIENCE unless another resource is named
...     provider.rotate()  # a new key signs, the one before stays published; retire() leaves the new one alone
...     with provider.frozen():  # it accepts connections and answers nobody
...         ...
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx2

AUDIENCE: Final = "https://items.example"
OTHER_AUDIENCE: Final = "https://invoices.example"
CLIENT_ID: Final = "shop"
ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")

_FOLDER: Final = Path(__file__).parent / "provider"
_CLIENT_SECRET: Final = "the-secret-of-the-shop-0123456789"
_PATIENCE: Final = 30.0  # seconds, for what takes one


@dataclass(frozen=True, slots=True)
class Fetches:
    """How often a provider was asked for its metadata and for its keys."""

    metadata: int
    keys: int

    def __sub__(self, before: Fetches) -> Fetches:
        return Fetches(self.metadata - before.metadata, self.keys - before.keys)


class Provider:
    """A provider that signs with keys for one algorithm. It starts when made; its first use waits until it answers."""

    def __init__(self, algorithm: str = "ES256") -> None:
        self._algorithm = algorithm
        self._issuer: str | None = None
        self._process = self._start(port=0)
        self._http = httpx2.Client(timeout=_PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._http.close()

    @property
    def issuer(self) -> str:
        """The issuer of its tokens, a URL on this machine."""
        if self._issuer is None:
            self._issuer = self._ready()
        return self._issuer

    def access_token(self, scope: str = "items:read", *, resource: str = AUDIENCE) -> str:
        """Return an access token with those of the scopes that the provider knows; it drops others without a word."""
        answer = self._http.post(
            f"{self.issuer}/token",
            auth=(CLIENT_ID, _CLIENT_SECRET),
            data={"grant_type": "client_credentials", "scope": scope, "resource": resource},
        )
        return str(answer.raise_for_status().json()["access_token"])

    def rotate(self) -> None:
        """Sign with a new key from now on; the key before stays published until the next rotation."""
        self._http.post(f"{self.issuer}/__rotate").raise_for_status()

    def retire(self) -> None:
        """Publish no key but the one that signs now."""
        self._http.post(f"{self.issuer}/__retire").raise_for_status()

    def fetches(self) -> Fetches:
        """Return how often metadata and keys were asked for since it was started."""
        return Fetches(**self._http.get(f"{self.issuer}/__counts").raise_for_status().json())

    def stop(self) -> None:
        """End it, frozen or not; nobody listens at its port then."""
        self._process.kill()
        self._process.wait(_PATIENCE)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def start_again(self) -> None:
        """Start it at the same issuer after a stop, with a key of its own."""
        self._process = self._start(port=httpx2.URL(self.issuer).port or 0)
        self._ready()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let its time stand still: the system accepts connections for it, and it answers them when it goes on."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # returns once it stands still
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _start(self, port: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["node", "provider.mjs", str(port)],
            cwd=_FOLDER,
            env={**os.environ, "ALG": self._algorithm},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it warns of its own simplicity
            text=True,
        )

    def _ready(self) -> str:
        assert self._process.stdout is not None
        within, _, _ = select.select([self._process.stdout], [], [], _PATIENCE)
        line = self._process.stdout.readline() if within else ""
        ready, _, issuer = line.strip().partition(" ")
        if ready != "READY":
            raise RuntimeError(f"the provider did not start: run node {_FOLDER.name}/provider.mjs in tests to see why")
        return issuer


def missing() -> str | None:
    """Say what this machine lacks to run a provider, or `None`."""
    if shutil.which("node") is None:
        return "node is not here"
    if not (_FOLDER / "node_modules" / "oidc-provider").is_dir():
        return "run `npm ci` in tests/provider, or `make test`"
    return None
