"""Fetching JSON over https within limits: no redirects, bounded size and time. It blocks."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from ipaddress import ip_address
from ssl import SSLContext
from threading import Timer
from typing import Final, NamedTuple
from urllib.parse import urlsplit

TIMEOUT: Final = 10.0  # seconds for the whole fetch
LARGEST_DOCUMENT: Final = 512 * 1024  # bytes
_MAX_AGE: Final = r"(?i:(?:^|[\s,])max-age=([0-9]{1,9})(?:$|[\s,]))"


class FetchFailed(Exception):  # noqa: N818 - says what happened
    """A document could not be had; the message says why, without secrets."""


class Unreachable(FetchFailed):
    """No answer, or none to its end."""


class Document(NamedTuple):
    """A JSON document and how long it may be kept by its `Cache-Control: max-age`, in seconds, where it says."""

    content: object
    max_age: float | None


def wrong_with_url(url: object, *, allow_http: bool) -> str | None:
    """Say what is wrong with a URL to fetch keys from, or `None`: https, or http to this machine alone."""
    if not isinstance(url, str):
        return "a URL is needed"
    if not url.isprintable() or " " in url:
        return "a URL without spaces and control characters is needed"
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return "not a URL"
    if not host or parts.scheme not in {"http", "https"}:
        return "a URL such as https://id.example is needed"
    if parts.username is not None or parts.fragment:
        return "a URL without user name and fragment is needed"
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        return "http lets anybody on the way exchange the keys; use https (or say dangerously_allow_http=True)"
    return None


def fetch_json(url: str) -> Document:
    """Fetch and parse; raises `FetchFailed` for everything that can go wrong."""
    import httpx2  # noqa: PLC0415 - a fifth of a second to import, and only services that fetch keys need it

    ends = time.monotonic() + TIMEOUT
    body = bytearray()
    try:
        with (
            httpx2.Client(verify=_certificates(), follow_redirects=False, timeout=TIMEOUT / 2) as client,
            _ended_by(client.close),
            client.stream("GET", url, headers={"Accept": "application/json"}) as response,
        ):
            if response.status_code != httpx2.codes.OK:
                raise FetchFailed(f"{url} answered {response.status_code}")
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > LARGEST_DOCUMENT:
                    raise FetchFailed(f"{url} answered with more than {LARGEST_DOCUMENT} bytes")
                if time.monotonic() > ends:
                    raise FetchFailed(f"{url} took longer than {TIMEOUT:.0f} s")
            kept = re.search(_MAX_AGE, response.headers.get("cache-control", ""))
        return Document(json.loads(bytes(body)), float(kept[1]) if kept else None)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise Unreachable(f"{url} cannot be reached: {type(error).__name__}") from error
    except (ValueError, RecursionError) as error:
        raise FetchFailed(f"{url} did not answer with JSON") from error


@contextmanager
def _ended_by(close: Callable[[], None]) -> Iterator[None]:
    """Close what is fetched from when the time is over: each read has a limit of its own, and a trickle none."""
    watch = Timer(TIMEOUT, close)
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


@cache
def _certificates() -> SSLContext:
    """Return what the system trusts, read once: it takes longer than the fetch."""
    import httpx2  # noqa: PLC0415 - as above

    return httpx2.create_ssl_context()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
