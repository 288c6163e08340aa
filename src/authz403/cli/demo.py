"""The demo: calls over real HTTP, each with what was asked, with what, what came back, and what to do about it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import click
import httpx2
import websockets.exceptions
import websockets.sync.client

from authz403.audit import LOGGER
from authz403.cli.demo_service import BROWSER_ORIGIN, Issuer, listening_socket, orders_service, running
from authz403.client import parse_denial
from authz403.reasons import Reason

_WHAT_TO_DO: Final[Mapping[str, str]] = {
    "sign_in": "sign in, and send the access token as `Authorization: Bearer ...`",
    "sign_in_again": "sign in again, at the issuer and for the audience that this service accepts",
    "refresh_token": "use the refresh token to get a new access token",
    "request_scope": "ask the issuer for a token with the missing scopes",
    "request_role": "ask whoever hands out roles for one of those named",
    "change_network": "call from an allowed network, or ask the operator to allow this address",
    "contact_owner": "ask the owner of the resource or of the service",
    "fix_request": "correct the request; the same one will be refused again",
    "retry_later": "try again later, unchanged",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call and the answer that is expected."""

    title: str
    method: str
    path: str
    who: str
    expected: int
    reason: Reason | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False
    """Print body, challenge and log event of the refusal."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: httpx2.Headers
    body: bytes


def run() -> bool:
    """Run the demo; tell whether every answer was the expected one."""
    with _services() as (issuer, service), _log_lines() as lines:
        click.echo(f"issuer  {issuer.url}\nservice {service}\n")
        click.echo("The demo plays the proxy too: it writes X-Forwarded-For where a call comes through one.\n")
        calls = _calls(issuer)
        wrong = 0
        with httpx2.Client(base_url=service) as client:
            for number, call in enumerate(calls, start=1):
                lines.clear()
                answer = _ask_websocket(service, call) if call.method == "WEBSOCKET" else _ask(client, call)
                wrong += not _show(number, call, answer, lines)
    click.secho(f"{len(calls) - wrong} of {len(calls)} answers as expected", fg="red" if wrong else "green")
    return wrong == 0


def serve_until_interrupted() -> None:
    """Keep issuer and service up, and print lines to try."""
    with _services() as (issuer, service):
        click.echo(f"issuer  {issuer.url}\nservice {service}   (documentation at {service}/docs)\n")
        for title, rest in (
            ("no token", f"{service}/orders/1"),
            ("allowed", f"{service}/orders/1 -H 'Authorization: Bearer {issuer.token('alice', scope='orders:read')}'"),
            (
                "missing scope",
                f"-X POST {service}/orders -H 'Authorization: Bearer {issuer.token('alice', scope='orders:read')}'",
            ),
            (
                "not the owner",
                f"{service}/orders/2 -H 'Authorization: Bearer {issuer.token('alice', scope='orders:read')}'",
            ),
        ):
            click.echo(f"# {title}\ncurl -i {rest}\n")
        click.echo("Refusals are logged below. Ctrl-C stops the demo.")
        logging.basicConfig(format="%(message)s")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            click.echo("stopped")


def _calls(issuer: Issuer) -> list[Call]:
    def bearer(
        sub: str, *scope: str, roles: tuple[str, ...] = (), aud: str = "orders-api", lives: int = 600
    ) -> dict[str, str]:
        token = issuer.token(sub, scope=" ".join(scope), roles=roles, aud=aud, lives=lives)
        return {"Authorization": f"Bearer {token}"}

    reader = bearer("alice", "orders:read")
    preflight = {
        "Origin": BROWSER_ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    proxied = {"X-Forwarded-For": "203.0.113.7"}
    return [
        Call(title="a public endpoint", method="GET", path="/health", who="nobody", expected=200),
        Call(
            title="an allowed read", method="GET", path="/orders/1", who="alice, scope orders:read",
            expected=200, headers=reader,
        ),
        Call(title="no token", method="GET", path="/orders/1", who="nobody", expected=401, reason=Reason.MISSING_TOKEN),
        Call(
            title="an expired token", method="GET", path="/orders/1", who="alice, token expired 5 min ago",
            expected=401, reason=Reason.TOKEN_EXPIRED, headers=bearer("alice", "orders:read", lives=-300),
        ),
        Call(
            title="a token for another service", method="GET", path="/orders/1", who="alice, audience billing-api",
            expected=401, reason=Reason.WRONG_AUDIENCE, headers=bearer("alice", "orders:read", aud="billing-api"),
        ),
        Call(
            title="a missing scope, shown whole", method="POST", path="/orders", who="alice, scope orders:read",
            expected=403, reason=Reason.INSUFFICIENT_SCOPE, headers=reader | proxied, whole=True,
        ),
        Call(
            title="an allowed write", method="POST", path="/orders", who="alice, scopes orders:read orders:write",
            expected=201, headers=bearer("alice", "orders:read", "orders:write"),
        ),
        Call(
            title="a missing role", method="DELETE", path="/admin/orders/1", who="alice, role seller",
            expected=403, reason=Reason.ROLE_REQUIRED, headers=bearer("alice", roles=("seller",)),
        ),
        Call(
            title="the role", method="DELETE", path="/admin/orders/1", who="carol, role admin",
            expected=200, headers=bearer("carol", roles=("admin",)),
        ),
        Call(
            title="a network that is not allowed", method="GET", path="/reports/today",
            who="alice, through the proxy, from 203.0.113.7",
            expected=403, reason=Reason.IP_NOT_ALLOWED, headers=reader | proxied,
        ),
        Call(
            title="the same client, inventing a header", method="GET", path="/reports/today",
            who="alice, from 203.0.113.7, who wrote X-Forwarded-For: 10.1.2.3 herself",
            expected=403, reason=Reason.IP_NOT_ALLOWED, headers=reader | {"X-Forwarded-For": "10.1.2.3, 203.0.113.7"},
        ),
        Call(
            title="an allowed network", method="GET", path="/reports/today",
            who="alice, through the proxy, from 10.1.2.3",
            expected=200, headers=reader | {"X-Forwarded-For": "10.1.2.3"},
        ),
        Call(
            title="somebody else's order", method="GET", path="/orders/2", who="alice, scope orders:read",
            expected=403, reason=Reason.NOT_OWNER, headers=reader,
        ),
        Call(
            title="a browser's preflight", method="OPTIONS", path="/orders", who=f"a page on {BROWSER_ORIGIN}",
            expected=204, headers=preflight,
        ),
        Call(
            title="a preflight from elsewhere", method="OPTIONS", path="/orders", who="a page on https://evil.example",
            expected=403, reason=Reason.PREFLIGHT_REFUSED, headers=preflight | {"Origin": "https://evil.example"},
        ),
        Call(
            title="a refusal that a browser's script may read", method="POST", path="/orders",
            who=f"alice, scope orders:read, from a page on {BROWSER_ORIGIN}",
            expected=403, reason=Reason.INSUFFICIENT_SCOPE, headers=reader | {"Origin": BROWSER_ORIGIN},
        ),
        Call(title="an unknown path", method="GET", path="/nothing-here", who="nobody", expected=404),
        Call(
            title="a WebSocket, refused before it opens", method="WEBSOCKET", path="/live", who="nobody",
            expected=401, reason=Reason.MISSING_TOKEN,
        ),
    ]  # fmt: skip


def _ask(client: httpx2.Client, call: Call) -> Answer:
    response = client.request(call.method, call.path, headers=dict(call.headers))
    return Answer(response.status_code, response.headers, response.content)


def _ask_websocket(service: str, call: Call) -> Answer:
    url = service.replace("http", "ws", 1) + call.path
    try:
        with websockets.sync.client.connect(url, additional_headers=dict(call.headers)):
            return Answer(101, httpx2.Headers(), b"")
    except websockets.exceptions.InvalidStatus as refused:
        response = refused.response
        return Answer(
            response.status_code, httpx2.Headers(list(response.headers.raw_items())), bytes(response.body or b"")
        )


def _show(number: int, call: Call, answer: Answer, lines: list[str]) -> bool:
    denial = parse_denial(answer.status, answer.headers, answer.body)
    reason = denial.reason if denial is not None else None
    as_expected = answer.status == call.expected and reason == call.reason
    origin = call.headers.get("Origin")
    click.secho(f"{number:2}. {call.title}", bold=True)
    click.echo(f"    asked      {call.method} {call.path}\n    by         {call.who}")
    click.secho(f"    answered   {answer.status}{f' {reason}' if reason else ''}", fg="yellow" if reason else "green")
    if "WWW-Authenticate" in answer.headers:
        click.echo(f"    challenge  {answer.headers['WWW-Authenticate']}")
    if origin is not None:
        allowed = answer.headers.get("Access-Control-Allow-Origin")
        click.echo(f"    browser    {f'lets {allowed} read it' if allowed == origin else 'lets no script read it'}")
    if denial is not None:
        told = f"; this address: {denial.client_ip}" if denial.client_ip else ""
        click.echo(f"    to do      {_WHAT_TO_DO[denial.remedy]}{told}")
    if call.whole:
        _show_whole(answer, lines)
        as_expected = as_expected and bool(lines)
    if not as_expected:
        click.secho(f"    EXPECTED   {call.expected} {call.reason or ''}", fg="red")
    click.echo()
    return as_expected


def _show_whole(answer: Answer, lines: list[str]) -> None:
    def indented(title: str, document: object) -> None:
        text = json.dumps(document, indent=2).replace("\n", "\n    ")
        click.echo(f"    {title}\n    {text}")

    indented("the body, application/problem+json:", json.loads(answer.body))
    for line in lines:
        indented("the log event:", json.loads(line))


@contextmanager
def _services() -> Iterator[tuple[Issuer, str]]:
    issuer_socket, issuer_url = listening_socket()
    service_socket, service_url = listening_socket()
    issuer = Issuer(issuer_url)
    with running(issuer.app(), issuer_socket), running(orders_service(issuer_url), service_socket):
        yield issuer, service_url


@contextmanager
def _log_lines() -> Iterator[list[str]]:
    """Collect what the library logs; nothing is configured here, so it is JSON on the stdlib logger."""
    lines: list[str] = []
    handler = _Collector(lines.append)
    logger = logging.getLogger(LOGGER)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


class _Collector(logging.Handler):
    def __init__(self, take: Callable[[str], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(record.getMessage())
