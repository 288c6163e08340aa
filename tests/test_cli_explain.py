"""`authz403 explain` as a user runs it: every cause is plain, and the token is shown nowhere."""

from __future__ import annotations

import io
import json
import logging
import re
import runpy
import shlex
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import structlog

from authz403 import Reason, authenticated
from authz403.asgi import AuthzMiddleware
from authz403.cli.believed import believing
from authz403.cli.log_lines import event_in
from authz403.request import AccessRequest
from tests.apps_made import ISSUER, NOW, drive, gate_with, scope_of, signed
from tests.commands_made import SHOPS, Commands, Done, run_shop
from tests.outcomes_made import CASES, Case
from tests.test_outcomes import app_with

AT: Final = str(int(NOW))

OUTCOMES: Final = """
from fastapi import FastAPI
from authz403 import requires
from authz403.asgi import AuthzMiddleware
from tests.apps_made import TOKENS
from tests.outcomes_made import CASES
from authz403 import Gate

app = FastAPI(openapi_url=None)
app.add_middleware(AuthzMiddleware, gate=Gate(tokens=TOKENS))

for number, case in enumerate(CASES.values()):
    @app.get(f"/case{number}/{{owner}}")
    @requires(case.requirement)
    async def endpoint(owner: str):
        raise SystemExit("it ran")
"""

MORE: Final = """
from fastapi import FastAPI, WebSocket
from authz403 import BearerTokens, Cors, Gate, Rbac, Rule, authenticated, csrf_protected, deny, public, requires, scopes
from authz403.asgi import AuthzMiddleware
from tests.apps_made import AUDIENCE, ISSUER, SECRET, TOKENS

def made(**parts):
    app = FastAPI(openapi_url=None)
    app.add_middleware(AuthzMiddleware, gate=Gate(**{"tokens": TOKENS, **parts}))

    @app.post("/orders")
    @requires(authenticated)
    async def create_order():
        raise SystemExit("it ran")

    @app.get("/secret")
    @requires(scopes("secret").concealed())
    async def read_secret():
        raise SystemExit("it ran")

    @app.post("/form")
    @requires(csrf_protected())
    async def send_form():
        raise SystemExit("it ran")

    @app.get("/forgotten")
    async def forgotten():
        raise SystemExit("it ran")

    @app.websocket("/live")
    @public
    async def live(socket: WebSocket):
        raise SystemExit("it ran")

    return app

app = made(cors=Cors(origins=["https://app.example"]))

def revoking():
    tokens = BearerTokens(
        issuer=ISSUER, audience=AUDIENCE, key=SECRET, algorithms=["HS256"], is_revoked=lambda principal: True
    )
    return made(tokens=tokens)

def keyless():
    return made(tokens=BearerTokens(issuer=ISSUER, audience=AUDIENCE, jwks_url="https://127.0.0.1:9/jwks"))

def roleless():
    def roles_for(principal):
        raise ConnectionError("the database is down")
    return made(rbac=Rbac(roles_for=roles_for))

def misfit():
    return made(rules=[Rule("GET", "/ordrs", deny)])

def reporting():
    return made(dangerously_report_only=True)
"""


class Row(NamedTuple):
    """A request, and what is said of it: the reason, and words of cause and cure."""

    reason: str
    arguments: tuple[str, ...]
    cause: str
    cure: str
    app: str = "more:app"
    status: int = 1


TOKEN: Final = signed(jti="t-1")
MORE_ROWS: Final = {
    "a token only in the query": Row(
        "missing_token",
        ("POST", f"/orders?access_token={TOKEN}"),
        "no token came with POST /orders, which needs a signed-in caller: a token in the query is not read",
        "Authorization: Bearer <token>",
    ),
    "revoked": Row(
        "token_revoked",
        ("POST", "/orders", "--token", TOKEN),
        "token issued for user ada has been revoked: is_revoked says so",
        "Find out who revoked it",
        "more:revoking()",
    ),
    "cross-site": Row(
        "csrf_failed",
        ("POST", "/form", "--origin", "https://evil.example", "--header", "Sec-Fetch-Site: cross-site"),
        "POST /form comes from a page of another site, with no token: Sec-Fetch-Site is cross-site, and the Origin "
        "https://evil.example is not trusted",
        "name its origin in csrf_protected(...)",
    ),
    "WebSocket of a foreign origin": Row(
        "origin_not_allowed",
        ("WEBSOCKET", "/live", "--origin", "https://evil.example"),
        "a page of https://evil.example opens the WebSocket /live, and Cors(origins=) does not list that origin",
        "name it in Cors(origins=)",
    ),
    "preflight": Row(
        "preflight_refused",
        ("OPTIONS", "/orders", "--origin", "https://evil.example", "--header", "Access-Control-Request-Method: POST"),
        "the preflight of /orders is refused by cors=: not allowed: origin https://evil.example",
        "see Cors(origins=, methods=, headers=)",
    ),
    "nobody wrote a policy": Row(
        "no_policy",
        ("GET", "/forgotten"),
        "nobody wrote a policy for GET /forgotten (forgotten), and what has none is denied",
        'Write @requires(...) or @public at forgotten, or a rule: Rule("GET", "/forgotten", ...).',
    ),
    "concealed": Row(
        "insufficient_scope",
        ("GET", "/secret", "--token", TOKEN),
        "missing secret; the caller sees the app's own 404, as the policy is concealed",
        "Ask the issuer for a token that has secret.",
    ),
    "a path with a control character": Row(
        "invalid_path",
        ("GET", "/orders%00"),
        "the path /orders\\x00 is malformed: no leading slash, control characters, a backslash, dot segments or //",
        "Correct the path",
    ),
    "keys out of reach": Row(
        "keys_unavailable",
        ("POST", "/orders", "--token", TOKEN),
        "the keys that the token must be checked with cannot be had: ",
        "`--unverified` says what would be decided if the signature were good.",
        "more:keyless()",
    ),
    "roles out of reach": Row(
        "policy_unavailable",
        ("POST", "/orders", "--token", TOKEN),
        "the source of roles or of identities cannot be had: roles_for raised ConnectionError('the database is down')",
        "See whether roles_for= or the identity source answers",
        "more:roleless()",
    ),
}


def arguments_of(case: Case, number: int) -> list[str]:
    """Return the command line for the request of an outcome."""
    arguments = ["outcomes:app", "GET", f"/case{number}/bob", "--address", "198.51.100.7", "--at", AT]
    values = [value for _, value in case.headers]
    if len(values) == 1 and values[0].startswith("Bearer ey") and "," not in values[0]:
        return [*arguments, "--token", values[0].removeprefix("Bearer ")]
    return [*arguments, *(part for name, value in case.headers for part in ("--header", f"{name}: {value}"))]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Leave out what the loaded apps would log at their start."""
    logger = logging.getLogger("authz403")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.fixture
def apps(shop: Commands) -> Commands:
    """Give a directory with apps for all outcomes."""
    shop.write(outcomes=OUTCOMES, more=MORE)
    return shop


def run(shop: Commands, *arguments: str, stdin: str | None = None) -> Done:
    """Run `authz403 explain`."""
    return shop.run("explain", *arguments, stdin=stdin)


def told(shop: Commands, *arguments: str, stdin: str | None = None) -> dict[str, Any]:
    """Return what `--json` says."""
    done = run(shop, *arguments, "--json", stdin=stdin)
    assert done.status in {0, 1}, done.errors
    found: dict[str, Any] = json.loads(done.output)
    assert done.status == (0 if found["allowed"] else 1)
    return found


# ---- every cause


def test_every_outcome_is_told_by_the_command(apps: Commands) -> None:
    """Status, reason and remedy are those of the answer; text and JSON say the same."""
    for number, (name, case) in enumerate(CASES.items()):
        arguments = arguments_of(case, number)
        found, done = told(apps, *arguments), run(apps, *arguments)
        assert (found["status"], found["reason"], found["remedy"]) == (case.status, case.reason, case.remedy), name
        first, second, *_ = done.output.splitlines()
        assert first == f"REFUSED {case.status} {case.reason}", name
        assert second == found["diagnosis"], name
        assert f"  caller    {found['advice']['caller']}" in done.output
        assert f"  operator  {found['advice']['operator']}" in done.output
        assert done.errors == ""


@pytest.mark.parametrize("row", MORE_ROWS.values(), ids=MORE_ROWS.keys())
def test_the_other_outcomes_are_told_too(apps: Commands, row: Row) -> None:
    """What needs a gate of its own; each says its cause and its cure."""
    done = run(apps, row.app, *row.arguments, "--at", AT)
    assert done.status == 1, done.errors
    lines = done.output.splitlines()
    assert lines[0].startswith(f"REFUSED {Reason(row.reason).status} {row.reason}")
    assert row.cause in lines[1]
    assert row.cure in done.output


def test_the_rows_are_all_of_the_outcomes() -> None:
    """But for what only a running app shows: those come from the log."""
    shown = {case.reason for case in CASES.values()} | {row.reason for row in MORE_ROWS.values()}
    assert {str(reason) for reason in Reason} - shown == {"route_mismatch", "misconfigured"}


def test_a_gate_that_does_not_fit_is_a_wrong_configuration(apps: Commands) -> None:
    """The service would answer nothing else than 500, and every mistake is listed."""
    done = run(apps, "more:misfit()", "POST", "/orders")
    assert done.status == 2
    first, mistake = done.errors.splitlines()
    assert first.startswith("Error: the service answers every request with 500 misconfigured, as")
    assert "'Rule(GET /ordrs)': no route of this app can match it" in mistake


def test_a_gate_that_reports_lets_in_what_it_refuses(apps: Commands) -> None:
    """The decision counts for the status, and the first line says what becomes of the request."""
    done = run(apps, "more:reporting()", "POST", "/orders")
    assert done.status == 1
    assert done.output.startswith("REFUSED 401 missing_token (and let in, as the gate only reports)\n")


# ---- what is shown


def test_the_whole_text(apps: Commands) -> None:
    """As people read it."""
    token = signed(scope="orders:read", client_id="shop")
    number = list(CASES).index("scopes missing")
    done = run(
        apps, "outcomes:app", "GET", f"/case{number}/bob", "--token", token, "--at", AT, "--address", "127.0.0.9"
    )
    line = next(n for n, text in enumerate(OUTCOMES.splitlines(), 1) if "@requires" in text) - 1
    assert (
        done.output
        == f"""\
REFUSED 403 insufficient_scope
token issued for user ada, token scopes are orders:read, GET /case{number}/bob requires orders:read, orders:write, \
missing orders:write

request     GET /case{number}/bob
from        127.0.0.9 (the other end of the connection)
route       /case{number}/{{owner}} (endpoint)
policy      marks: scopes('orders:read', 'orders:write')
written     outcomes.py:{line + 1}
caller      user ada, by a token in Authorization
            issuer https://id.example; audience orders-api; client shop
            scopes: orders:read; roles: none; permissions: none
            issued 2027-01-15 08:00:00 UTC; expires in 5 min, at 2027-01-15 08:05:00 UTC
checks      x failed      scopes('orders:read', 'orders:write'): missing scope orders:write
hint        the token has other scopes: if orders:write was asked for, the provider dropped it; does it know this \
scope, and may this client have it?

What to do
  caller    Ask the issuer for a token that has orders:write.
  operator  Let the client have the scope at the issuer, or change the policy. It is written at outcomes.py:{line + 1}.
"""
    )


def test_colours_are_for_terminals(apps: Commands) -> None:
    """A pipe gets plain text."""
    arguments = ("explain", "more:app", "POST", "/orders")
    assert "\x1b[" not in apps.run(*arguments).output
    assert "\x1b[31m" in apps.run(*arguments, color=True).output


_LIST, _TEXT, _TIME = "list", "text or null", "number or null"
SCHEMA: Final[dict[str, Any]] = {
    "method": "text", "path": "text", "allowed": "bool", "status": "number", "diagnosis": "text",
    "advice": {"caller": "text", "operator": "text"},
    "reason": _TEXT, "remedy": _TEXT, "hint": _TEXT, "detail": _TEXT, "route": _TEXT, "endpoint": _TEXT,
    "answers_itself": _TEXT, "policy": _TEXT, "written": _LIST, "is_default": "bool", "concealed": "bool",
    "report_only": "bool", "is_verified": "bool",
    "caller": {
        "is_known": "bool", "is_asked_for": "bool", "token_field": _TEXT, "reason": _TEXT, "hint": _TEXT,
        "subject": _TEXT, "issuer": _TEXT, "client_id": _TEXT, "audience": _LIST, "scopes": _LIST, "roles": _LIST,
        "permissions": _LIST, "token_id": _TEXT, "issued_at": _TIME, "not_before": _TIME, "expires_at": _TIME,
        "validity": _TEXT,
    },
    "client": {"address": _TEXT, "peer": _TEXT, "how": "text"},
    "origin": _TEXT, "checks": _LIST, "required_scopes": _LIST, "missing_scopes": _LIST, "required_roles": _LIST,
    "missing_roles": _LIST, "required_permissions": _LIST, "missing_permissions": _LIST, "error": _TEXT,
    "facts": "object or null", "policy_version": _TEXT, "decision_id": _TEXT,
}  # fmt: skip
CHECK: Final = {"words": "text", "result": "text", "why": _TEXT, "reason": _TEXT, "joined": "text", "parts": _LIST}
TYPES: Final = {"text": str, "number": int | float, "bool": bool, "list": list, "null": type(None), "object": dict}


def assert_fits(found: Any, schema: Any) -> None:  # noqa: ANN401 - JSON
    """Check JSON against the names and types that are published."""
    if isinstance(schema, dict):
        assert list(found) == list(schema)
        for name, value in found.items():
            assert_fits(value, schema[name])
            for check in value if name in {"checks", "parts"} else ():
                assert_fits(check, CHECK)
    else:
        assert any(isinstance(found, TYPES[name]) for name in schema.split(" or ")), (found, schema)


def test_the_json_keeps_its_shape(apps: Commands) -> None:
    """Programs read it: every field is there, in every case, with the same type."""
    for number, case in enumerate(CASES.values()):
        assert_fits(told(apps, *arguments_of(case, number)), SCHEMA)
    for row in MORE_ROWS.values():
        assert_fits(told(apps, row.app, *row.arguments, "--at", AT), SCHEMA)


def test_nothing_but_the_explanation_is_on_stdout(shop: Commands) -> None:
    """What the app prints meanwhile goes to stderr, and findings that the line tells are not told twice."""
    shop.write(
        loud="""
from starlette.applications import Starlette
from authz403 import BearerTokens, Gate, authenticated, requirement
from authz403.asgi import AuthzMiddleware

def is_open(facts):
    print("asked")
    return False

app = AuthzMiddleware(Starlette(), gate=Gate(default=requirement("closed", is_open, anonymous=True)), routes_of=None)
tokens = BearerTokens(issuer="https://id.example", audience="orders-api", jwks_url="https://127.0.0.1:9/jwks")
keyless = AuthzMiddleware(Starlette(), gate=Gate(tokens=tokens, default=authenticated), routes_of=None)
"""
    )
    done = shop.run_apart("explain", "loud:app", "GET", "/", "--json")
    assert json.loads(done.output)["reason"] == "closed"
    assert done.errors == "asked\n"
    keyless = shop.run_apart("explain", "loud:keyless", "GET", "/", "--token", TOKEN, "--at", AT)
    assert keyless.output.startswith("REFUSED 503 keys_unavailable\n")
    assert keyless.errors == ""


# ---- the token


@pytest.mark.parametrize("way", ["option", "stdin", "file", "environment", "a whole header"])
def test_a_token_is_taken_from_where_it_is_safe(apps: Commands, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """By an option, stdin, a file, the environment; with the word Bearer before it, too."""
    monkeypatch.setenv("ORDERS_TOKEN", TOKEN)
    (apps.directory / "token.txt").write_text(TOKEN + "\n", encoding="utf-8")
    arguments, stdin = {
        "option": (("--token", TOKEN), None),
        "stdin": (("--token", "-"), TOKEN + "\n"),
        "file": (("--token-file", "token.txt"), None),
        "environment": (("--token-env", "ORDERS_TOKEN"), None),
        "a whole header": (("--token", f"Bearer {TOKEN}"), None),
    }[way]
    found = told(apps, "more:app", "POST", "/orders", *arguments, "--at", AT, stdin=stdin)
    assert (found["allowed"], found["caller"]["subject"]) == (True, "ada")


def test_the_token_is_shown_nowhere(apps: Commands) -> None:
    """Not in text, not in JSON, not in errors, wherever on the command line it was written, as a whole or in part."""
    shown = ("POST", "/orders", "--at", AT)
    ways: list[tuple[str, ...]] = [
        ("more:app", *shown, "--token", TOKEN),
        ("more:app", *shown, "--token", TOKEN, "--unverified"),
        ("more:app", *shown, "--token", TOKEN + "x"),
        ("more:app", *shown, "--token", TOKEN.upper()),
        ("more:app", *shown, "--header", f"Authorization: Bearer {TOKEN}"),
        ("more:app", *shown, "--header", f"Authorization: {TOKEN}"),
        ("more:app", *shown, "--header", f"Authorization: Bearer {TOKEN} {TOKEN}"),
        ("more:app", *shown, "--header", f"Authorization: Token {TOKEN}"),
        ("more:app", *shown, "--header", f"Bearer {TOKEN}"),
        ("more:app", *shown, "--header", f"X-Token {TOKEN}"),
        ("more:app", "POST", f"/orders?access_token={TOKEN}"),
        ("more:app", "POST", f"/{TOKEN}"),
        ("more:app", TOKEN, "/orders"),
        ("more:app", *shown, TOKEN),
        (TOKEN, *shown),
        (f"more:{TOKEN}", *shown),
        ("more:app", *shown, "--token-file", TOKEN),
        ("more:app", *shown, "--token-env", TOKEN),
        ("more:app", *shown, f"--token-{TOKEN}"),
        ("more:app", *shown, "--at", TOKEN),
        ("more:app", *shown, "--origin", TOKEN),
        ("more:app", *shown, "--address", TOKEN),
        ("more:keyless()", *shown, "--token", TOKEN),
        ("more:app", "WEBSOCKET", "/live", "--header", f"Sec-WebSocket-Protocol: bearer, {TOKEN}"),
        ("more:app", "--event", TOKEN),
    ]
    ways += [tuple(arguments_of(case, number)) for number, case in enumerate(CASES.values())]
    secrets = [TOKEN.rpartition(".")[2]]
    secrets += [
        part.rpartition(".")[2].split(",")[0]
        for case in CASES.values()
        for _, value in case.headers
        for part in value.split(" ")
        if part.count(".") == 2
    ]
    for arguments in ways:
        for more in ((), ("--json",)):
            done = run(apps, *arguments, *more, stdin="")
            said = done.output + done.errors
            assert said, arguments
            for secret in filter(None, secrets):
                assert secret not in said, (arguments, said)
            assert "Traceback" not in said


def test_an_opaque_token_that_somebody_quotes_is_cut_out(apps: Commands) -> None:
    """What does not look like a token is one all the same."""
    apps.write(
        quoting="""
from starlette.applications import Starlette
from authz403 import Gate, authenticated
from authz403.asgi import AuthzMiddleware

class Keys:
    fields = {"authorization"}
    def identify(self, request, now):
        raise LookupError(request.fields["authorization"][0].partition(" ")[2] + " is not a key")

app = AuthzMiddleware(Starlette(), gate=Gate(tokens=Keys(), default=authenticated), routes_of=None)
"""
    )
    for more in ((), ("--json",)):
        done = run(apps, "quoting:app", "GET", "/", "--token", "k3y-of-somebody", *more)
        assert "LookupError: [token] is not a key" in done.output, done.errors
        assert "k3y" not in done.output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "say METHOD and PATH"),
        (("more:app",), "say METHOD and PATH"),
        (("more:app", "GET", "/", "x"), "say METHOD and PATH"),
        (("more:app", "GET", "orders"), "PATH starts with a slash"),
        (("more:app", "GET", "/", "--token", "a", "--token-env", "B"), "give the token once"),
        (("more:app", "GET", "/", "--token", " "), "the token is empty"),
        (("more:app", "GET", "/", "--token-env", "NOT_THERE_AT_ALL"), "names no variable"),
        (("more:app", "GET", "/", "--token-file", "nothing.txt"), "--token-file cannot be read: FileNotFoundError"),
        (("more:app", "GET", "/", "--header", "x"), "--header takes a name, a colon and a value"),
        (("more:app", "GET", "/", "--at", "soon"), "--at takes seconds since the epoch"),
        (("more:nothing", "GET", "/"), "more has no nothing"),
        (("more:app", "GET", "/", "--event"), "leave METHOD and PATH out"),
        (("--event",), "there is no event of authz403 on stdin"),
    ],
)
def test_wrong_usage_is_told_in_a_line(apps: Commands, arguments: tuple[str, ...], why: str) -> None:
    """Status 2, and the last line of stderr says what is wrong."""
    done = run(apps, *arguments, stdin="")
    assert (done.status, done.output) == (2, "")
    assert why in done.errors.splitlines()[-1]


# ---- without keys


def test_claims_may_be_believed_and_that_is_said_loudly(apps: Commands) -> None:
    """`--unverified` needs no keys and no signature; the first line and the JSON say that nothing is proven."""
    forged = f"{TOKEN.rpartition('.')[0]}.{'A' * 43}"
    for app in ("more:app", "more:keyless()"):
        found = told(apps, app, "POST", "/orders", "--token", forged, "--at", AT)
        assert found["allowed"] is False
        assert found["is_verified"] is True
    # the algorithm is still the configuration's matter: HS256 is nothing that a published key has
    assert told(apps, "more:keyless()", "POST", "/orders", "--token", forged, "--at", AT, "--unverified")["hint"] == (
        "its algorithm HS256 is not allowed"
    )
    for token in (forged, forged.rpartition(".")[0], forged.rpartition(".")[0] + "."):
        arguments = ("more:app", "POST", "/orders", "--token", token, "--at", AT, "--unverified")
        found = told(apps, *arguments)
        assert (found["allowed"], found["is_verified"], found["caller"]["subject"]) == (True, False, "ada")
        assert run(apps, *arguments).output.startswith("UNVERIFIED: the signature was not looked at.")


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": int(NOW) - 60}, "token_expired"),
        ({"aud": "other"}, "wrong_audience"),
        ({"iss": "https://other.example"}, "wrong_issuer"),
        ({"scope": 5}, "invalid_token"),
    ],
)
def test_all_else_about_an_unverified_token_is_judged(apps: Commands, claims: dict[str, Any], reason: str) -> None:
    """Times, issuer, audience and types are those of the configuration."""
    token = signed(secret="x" * 32, **claims)
    assert told(apps, "more:app", "POST", "/orders", "--token", token, "--at", AT, "--unverified")["reason"] == reason


def test_the_gate_itself_never_believes() -> None:
    """What the command asks is a copy: the gate, its sources and what it remembers stay as they are."""
    gate = gate_with(default=authenticated)
    app = AuthzMiddleware(app_with(authenticated, []), gate=gate)
    forged = signed(secret="x" * 32)
    request = AccessRequest("GET", "/", None, {"authorization": (f"Bearer {forged}",)})
    assert believing(gate).explain(request).allowed
    assert not gate.explain(request).allowed
    answer = drive(app, scope_of("/orders/bob", headers=[("Authorization", f"Bearer {forged}")]))
    assert (answer.status, answer.reason) == (401, "invalid_token")


def test_a_gate_without_tokens_has_nothing_to_believe(apps: Commands) -> None:
    """It is said, before anybody takes the answer for one about a token."""
    apps.write(
        cookies="""
from fastapi import FastAPI
from authz403 import Gate, anyone
from authz403.asgi import AuthzMiddleware
app = FastAPI()
app.add_middleware(AuthzMiddleware, gate=Gate(default=anyone))
"""
    )
    done = run(apps, "cookies:app", "GET", "/", "--unverified")
    assert done.status == 2
    assert "this gate takes no BearerTokens" in done.errors


# ---- every framework


@pytest.mark.parametrize("framework", SHOPS)
def test_a_decision_is_explained_for_every_framework(shop: Commands, framework: str) -> None:
    """Route, policy, place, caller and diagnosis, by the app's own routes."""
    shop.write(**SHOPS[framework][1])
    token = signed(secret="0" * 32, scope="orders:read")
    asked = ("POST", "/orders", "--token", token, "--at", AT, "--json")
    done = run_shop(shop, framework, "explain", *asked)
    assert done.status == 1, done.errors
    found = json.loads(done.output)
    assert found["diagnosis"] == (
        "token issued for user ada, token scopes are orders:read, POST /orders requires orders:write, "
        "missing orders:write"
    )
    assert (found["route"], found["endpoint"]) == ("/orders", "create_order")
    assert found["checks"][0]["result"] == "failed"
    file, _, line = found["written"][0].rpartition(":")
    assert "orders:write" in (shop.directory / file).read_text(encoding="utf-8").splitlines()[int(line) - 1]
    allowed = run_shop(shop, framework, "explain", "GET", "/orders/5", "--token", token, "--at", AT)
    assert (allowed.status, allowed.output.splitlines()[0]) == (0, "ALLOWED")
    health = run_shop(shop, framework, "explain", "GET", "/health")
    assert health.output.splitlines()[1] == "GET /health is allowed without asking who calls: Rule(GET /health): anyone"


def test_rules_alone_are_explained(shop: Commands) -> None:
    """Of an app that nobody can look into, the rules are told."""
    shop.write(
        plain="""
from authz403 import Gate, Rule, networks
from authz403.wsgi import AuthzMiddleware

def service(environ, start_response):
    raise SystemExit("it ran")

app = AuthzMiddleware(service, gate=Gate(rules=[Rule("*", "/admin/**", networks("10.0.0.0/8"))]))
"""
    )
    found = told(shop, "plain:app", "GET", "/admin/users", "--address", "127.0.0.1")
    assert (found["reason"], found["written"]) == ("ip_not_allowed", ["plain.py:8"])
    assert told(shop, "plain:app", "GET", "/admin/users", "--address", "10.0.0.1")["allowed"]
    assert told(shop, "plain:app", "GET", "/other")["reason"] == "no_policy"


def test_the_root_path_of_an_app_is_no_part_of_its_routes(shop: Commands) -> None:
    """The path is the one that the client asks for, as with a server."""
    shop.write(
        mounted="""
from fastapi import FastAPI
from authz403 import Gate, public
from authz403.asgi import AuthzMiddleware
app = FastAPI(openapi_url=None)
app.root_path = "/api"
app.add_middleware(AuthzMiddleware, gate=Gate())

@app.get("/open")
@public
async def read(): ...
"""
    )
    for path in ("/api/open", "/open", "https://shop.example/api/open?x=1"):
        found = told(shop, "mounted:app", "GET", path)
        assert (found["allowed"], found["route"], found["path"]) == (True, "/open", "/open")


# ---- from the log


def events_of(case: Case, render: str) -> str:
    """Return the line that a service writes about a refusal, by one of the usual renderers."""
    out = io.StringIO()
    renderers: dict[str, Any] = {
        "json": structlog.processors.JSONRenderer(),
        "console": structlog.dev.ConsoleRenderer(colors=True),
        "logfmt": structlog.processors.LogfmtRenderer(),
        "key-value": structlog.processors.KeyValueRenderer(),
    }

    def flat(logger: object, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        del logger, name
        return event if render != "logfmt" else {key: str(value) for key, value in event.items() if key != "response"}

    try:
        structlog.configure(
            processors=[structlog.processors.add_log_level, flat, renderers[render]],
            logger_factory=structlog.PrintLoggerFactory(out),
            cache_logger_on_first_use=False,
        )
        app = AuthzMiddleware(app_with(case.requirement, []), gate=gate_with())
        drive(app, scope_of("/orders/bob", headers=case.headers, client=("198.51.100.7", 5)))
    finally:
        structlog.reset_defaults()
    return next(line for line in out.getvalue().splitlines() if "authz.denied" in line or "authz.error" in line)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_an_event_tells_the_same_cause(shop: Commands, case: Case) -> None:
    """Without the app: reason, status, and a line about whom and what it is."""
    line = events_of(case, "json")
    found = told(shop, "--event", stdin=f"orders-1  | {line}\n")
    assert (found["status"], found["reason"]) == (case.status, case.reason)
    assert found["diagnosis"]
    assert found["advice"]["operator"]
    assert found["decision_id"] is not None
    assert_fits(found, SCHEMA)


@pytest.mark.parametrize("render", ["json", "console", "logfmt", "key-value"])
def test_events_are_read_as_they_are_written(shop: Commands, render: str) -> None:
    """Lines of JSON, of structlog's console, of logfmt."""
    line = events_of(CASES["scopes missing"], render)
    found = told(shop, "--event", stdin=f"another line\n{line}\n")
    assert found["reason"] == "insufficient_scope"
    assert found["path"] == "/orders/bob"
    assert found["diagnosis"] == (
        "token issued for user ada, token scopes are orders:read, GET /orders/bob requires orders:read, orders:write, "
        "missing orders:write"
    )


def test_an_event_and_its_app_tell_where_the_policy_is(shop: Commands) -> None:
    """The app adds route, file and line, and says where it has another configuration by now."""
    shop.write(**SHOPS["FastAPI"][1])
    event = {
        "event": "authz.denied", "reason": "role_required", "status": 403, "method": "POST", "path": "/orders",
        "sub": "ada", "iss": ISSUER, "roles": [], "required_roles": ["admin"], "missing_roles": ["admin"],
        "policy_version": "000000000000",
    }  # fmt: skip
    found = told(shop, "shop:app", "--event", stdin=json.dumps(event))
    assert (found["route"], found["endpoint"]) == ("/orders", "create_order")
    assert found["written"][0].startswith("shop.py:")
    assert "another configuration than this app has" in found["advice"]["operator"]


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("route_mismatch", "GET /a was changed after it was decided: Router sees another request"),
        ("misconfigured", "the gate does not fit the app, so that every request fails: Router sees another request"),
        ("not_owner", "token issued for user ada, GET /a was refused by a check in its handler (order=5)"),
        (
            "plan_expired",
            "token issued for user ada, GET /a was refused by a check in its handler (order=5): plan_expired",
        ),
    ],
)
def test_what_only_a_running_app_shows_is_told_from_its_event(shop: Commands, reason: str, line: str) -> None:
    """A mismatch, a start that failed, and what handlers refuse."""
    event = {
        "event": "authz.error", "reason": reason, "status": 500, "method": "GET", "path": "/a", "sub": "ada",
        "iss": ISSUER, "hint": "Router sees another request", "facts": {"order": 5},
    }  # fmt: skip
    assert told(shop, "--event", stdin=json.dumps(event))["diagnosis"] == line


def test_a_finding_is_no_decision(shop: Commands) -> None:
    """It is said what it is."""
    line = json.dumps({"event": "authz.warning", "cause": "keys_unavailable", "hint": "the issuer does not answer"})
    done = run(shop, "--event", stdin=line)
    assert done.status == 2
    assert "a finding about the service, not a decision: keys_unavailable: the issuer does not answer" in done.errors


def test_a_line_within_a_line_is_found() -> None:
    """As collectors of logs wrap them."""
    inner = json.dumps({"event": "authz.allowed", "method": "GET", "path": "/"})
    assert event_in(json.dumps({"log": inner + "\n", "stream": "stderr"}))["path"] == "/"
    assert event_in(f"2026-11-28T08:00:00Z stderr F {inner}")["path"] == "/"


def test_every_error_is_one_line(apps: Commands) -> None:
    """No traceback, and nothing but the usage before it."""
    done = run(apps, "more:app", "GET", "/", "--at", "soon")
    assert re.fullmatch(r"Error: [^\n]+\n", done.errors)


# ---- the page


PAGE: Final = Path(__file__).parent.parent / "docs" / "how-to" / "explain-a-decision.md"
EXAMPLES: Final = PAGE.parent.parent / "examples"
_TIMES: Final = re.compile(r"(?:expires in \d+ (?:min|s)|at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC)")


def token_of(line: str) -> str:
    """Return the token that a line of the page makes."""
    made = runpy.run_path(str(EXAMPLES / "make_token.py"))["make_token"]
    found = re.search(r"python make_token.py (\w+) ([\w:]+)(?: --role (\w+))?", line)
    assert found is not None
    token: str = made(found[1], [found[2]], [found[3]] if found[3] else [])
    return token


def test_the_transcripts_of_the_page_are_real(shop: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command of the page says what stands below it, but for the times of the tokens, which are made here."""
    shop.write(shop=(EXAMPLES / "tutorial.py").read_text(encoding="utf-8"))
    logged = re.search(r"```json\n(.*?)```", (PAGE.parent / "find-out-why.md").read_text(encoding="utf-8"), re.DOTALL)
    assert logged is not None
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    ran = 0
    for block in blocks:
        _, *parts = re.split(r"^\$ (.+)\n", block, flags=re.MULTILINE)
        for line, shown in zip(parts[::2], parts[1::2], strict=True):
            if line.startswith("export TOKEN="):
                monkeypatch.setenv("TOKEN", token_of(line))
                continue
            before, pipe, command = line.rpartition(" | ")
            stdin = None
            if pipe:
                stdin = token_of(before) if "make_token" in before else logged[1].replace("\n", "")
            done = shop.run(*shlex.split(command)[1:], stdin=stdin)
            assert _TIMES.sub("", done.output) == _TIMES.sub("", shown), line
            ran += 1
    assert ran == 5


def test_the_code_of_the_page_explains(shop: Commands) -> None:
    """The lines under "In Python" do what is said of them."""
    shop.write(shop=(EXAMPLES / "tutorial.py").read_text(encoding="utf-8"))
    monitored = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert monitored is not None
    names: dict[str, Any] = runpy.run_path(str(shop.directory / "shop.py"))
    names["AccessRequest"] = AccessRequest
    names["token"] = token_of("python make_token.py alice orders:read ")
    exec(monitored[1], names)  # noqa: S102 - the page's own code
    assert names["told"].reason == "insufficient_scope"
    assert names["told"].caller.subject == "alice"


def test_the_reference_names_every_field() -> None:
    """What `--json` prints is described."""
    reference = (PAGE.parent.parent / "reference" / "command-line.md").read_text(encoding="utf-8")
    names = [*SCHEMA, *SCHEMA["caller"], *SCHEMA["client"], *SCHEMA["advice"], *CHECK]
    assert [name for name in names if f"`{name}`" not in reference] == []
