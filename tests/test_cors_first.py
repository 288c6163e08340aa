"""CORS through the whole stack: preflights before anything may refuse them, and headers on every answer."""

from collections import Counter

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from authz403 import AccessDenied, Cors, Network, Reason, Rule, authenticated, check, deny, public, requires, scopes
from authz403.asgi import AuthzMiddleware
from tests.apps_made import (
    BODYLESS,
    CONNECT,
    FRAMEWORKS,
    ORIGIN,
    Answer,
    add_route,
    add_websocket,
    bearer,
    client_of,
    drive,
    gate_with,
    guarded,
    listening,
    ran_by,
    scope_of,
    unwalkable,
    wrapped,
)

DENIED = False  # what a handler's own check found

both = pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda kind: kind.__name__)

CORS = Cors(origins=[ORIGIN, "https://other.example"], credentials=True, expose=["X-Total"], max_age=60)
PRIVATE = ("Access-Control-Request-Private-Network", "true")
EXPOSED = "WWW-Authenticate, Retry-After, Authz-Reason, Authz-Decision, X-Total"


def preflight(origin: str = ORIGIN, method: str = "GET", headers: str | None = None) -> list[tuple[str, str]]:
    """Return the header fields of a preflight."""
    fields = [("Origin", origin), ("Access-Control-Request-Method", method)]
    return [*fields, *([("Access-Control-Request-Headers", headers)] if headers is not None else [])]


def assert_readable(answer: Answer, origin: str = ORIGIN) -> None:
    """Assert that a script of the origin may read the answer, and that each CORS header is there once."""
    counted = Counter(name for name, _ in answer.headers)
    assert all(count == 1 for name, count in counted.items() if name.startswith(b"access-control-"))
    assert answer.header("access-control-allow-origin") == origin
    assert answer.header("access-control-allow-credentials") == "true"
    exposed = str(answer.header("access-control-expose-headers")).split(", ")
    assert sorted(exposed) == sorted(EXPOSED.split(", "))
    assert_varies(answer)


def assert_varies(answer: Answer) -> None:
    """Assert that a cache keeps answers to other origins apart (Fetch standard, "CORS protocol and HTTP caches")."""
    values = b",".join(value for name, value in answer.headers if name == b"vary").lower()
    assert [part.strip() for part in values.split(b",")].count(b"origin") == 1


def assert_no_cors(answer: Answer) -> None:
    """Assert that no script of another origin may read the answer."""
    assert [name for name, _ in answer.headers if name.startswith(b"access-control-")] == []
    assert_varies(answer)


# ---- preflights


@both
@pytest.mark.parametrize("path", ["/closed", "/missing", "/mount/x", "/admin\n", "//x"])
def test_a_preflight_is_answered_before_anything_may_refuse_it(framework: type[Starlette], path: str) -> None:
    """No token, a foreign network, a denied path: a preflight carries no credentials and asks about none."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/closed", requires(scopes("s"))(ran_by("closed", ran)), ["GET", "OPTIONS"])
    gate = gate_with(cors=CORS, rules=[Rule("*", "/**", deny)], network=Network(allow=["10.0.0.0/8"]), shared=True)
    guarded(app, gate)
    with listening() as events:
        answer = drive(
            app, scope_of(path, "OPTIONS", headers=preflight(method="PUT", headers="authorization, CONTENT-TYPE"))
        )
    assert (answer.status, answer.body, answer.body_was_read, ran) == (204, b"", False, [])
    assert answer.header("access-control-allow-origin") == ORIGIN
    assert answer.header("access-control-allow-credentials") == "true"
    assert answer.header("access-control-allow-methods") == "GET, HEAD, POST, PUT, PATCH, DELETE"
    assert answer.header("access-control-allow-headers") == "Authorization, Content-Type"
    assert answer.header("access-control-max-age") == "60"
    assert "Origin" in str(answer.header("vary"))
    assert [(event["event"], event["policy"]) for event in events] == [("authz.allowed", "preflight")]


@both
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (preflight("https://evil.example"), "origin https://evil.example"),
        (preflight("https://app.example.evil.example"), "origin"),
        (preflight("null"), "origin null"),
        (preflight("HTTPS://APP.EXAMPLE"), "origin"),
        (preflight(ORIGIN + ":443"), "origin"),
        (preflight(method="PURGE"), "method PURGE"),
        (preflight(method="get"), "method get"),
        (preflight(headers="x-own"), "header x-own"),
        (preflight(headers="authorization,x-own"), "header x-own"),
    ],
    ids=["foreign", "suffix", "null", "upper case", "default port", "method", "lower method", "header", "one of two"],
)
def test_a_refused_preflight_opens_nothing_and_the_log_says_which_part(
    framework: type[Starlette], fields: list[tuple[str, str]], told: str
) -> None:
    """403 without CORS headers; nothing runs; the event names origin, method or header."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/open", public(ran_by("open", ran)), ["GET", "OPTIONS"])
    guarded(app, gate_with(cors=CORS))
    with listening() as events:
        answer = drive(app, scope_of("/open", "OPTIONS", headers=fields))
    assert (answer.status, answer.reason, ran) == (403, "preflight_refused", [])
    assert_no_cors(answer)
    [event] = events
    assert (event["event"], event["reason"]) == ("authz.denied", "preflight_refused")
    assert told in str(event["hint"])
    assert told.rsplit(" ", maxsplit=1)[-1] not in answer.body.decode() or told == "origin"


@both
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (preflight("https://badapp.example"), "origin https://badapp.example"),
        (preflight("https://x.app.example", "PURGE"), "method PURGE"),
        (preflight("https://x.app.example", headers="authorization,x-own"), "header x-own"),
        ([*preflight("https://x.app.example"), PRIVATE], "private network"),
    ],
    ids=["origin", "method", "header", "private network"],
)
def test_with_debug_the_answer_says_which_part_too(
    framework: type[Starlette], fields: list[tuple[str, str]], told: str
) -> None:
    """The same refusal, with a header more that browsers show to developers and to no script."""
    answers = []
    for debug in (False, True):
        app = framework()
        add_route(app, "/open", public(ran_by("open", [])), ["GET", "OPTIONS"])
        guarded(app, gate_with(cors=Cors(origins=["https://*.app.example"], debug=debug)))
        answers.append(drive(app, scope_of("/open", "OPTIONS", headers=fields)))
    quiet, debugging = answers
    assert (debugging.status, debugging.reason) == (quiet.status, quiet.reason) == (403, "preflight_refused")
    assert (debugging.header("authz-preflight"), quiet.header("authz-preflight")) == (told, None)
    assert_no_cors(debugging)


@both
def test_a_page_may_call_into_the_private_network_where_that_is_said(framework: type[Starlette]) -> None:
    """With the switch such a preflight passes; without it, it is refused."""
    for private_network, status in ((True, 204), (False, 403)):
        app = framework()
        add_route(app, "/open", public(ran_by("open", [])), ["GET", "OPTIONS"])
        guarded(app, gate_with(cors=Cors(origins=[ORIGIN], private_network=private_network)))
        answer = drive(app, scope_of("/open", "OPTIONS", headers=[*preflight(), PRIVATE]))
        assert answer.status == status
        assert answer.header("access-control-allow-private-network") == ("true" if private_network else None)


@both
@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("Origin", ORIGIN)],
        [("Access-Control-Request-Method", "GET")],
        [*preflight(), ("Origin", ORIGIN)],
        [*preflight(), ("Access-Control-Request-Method", "GET")],
    ],
    ids=["plain", "no method asked", "no origin", "two origins", "two methods"],
)
def test_any_other_options_goes_through_the_policy(framework: type[Starlette], fields: list[tuple[str, str]]) -> None:
    """Only exactly one Origin and one Access-Control-Request-Method make a preflight."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/x", requires(scopes("s"))(ran_by("x", ran)), ["OPTIONS"])
    guarded(app, gate_with(cors=CORS))
    answer = drive(app, scope_of("/x", "OPTIONS", headers=fields))
    assert (answer.status, answer.reason, ran) == (401, "missing_token", [])
    entitled = [*fields, *bearer(scope="s").items()]
    assert drive(app, scope_of("/x", "OPTIONS", headers=entitled), BODYLESS).status == 200


@both
def test_a_get_with_preflight_headers_is_a_get(framework: type[Starlette]) -> None:
    """No other method gets around the policy by looking like a preflight."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/x", requires(scopes("s"))(ran_by("x", ran)), ["GET", "POST"])
    guarded(app, gate_with(cors=CORS))
    for method in ("GET", "POST", "options"):
        assert drive(app, scope_of("/x", method, headers=preflight())).status in {401, 405}
    assert ran == []


@both
def test_without_cors_a_preflight_is_an_options_like_any_other(framework: type[Starlette]) -> None:
    """The gate answers no preflight that nobody configured, and writes no CORS header."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/x", requires(scopes("s"))(ran_by("x", ran)), ["GET", "OPTIONS"])
    guarded(app, gate_with())
    answer = drive(app, scope_of("/x", "OPTIONS", headers=preflight()))
    assert (answer.status, answer.header("vary"), ran) == (401, None, [])
    assert [name for name, _ in answer.headers if name.startswith(b"access-control-")] == []


@pytest.mark.parametrize("kind", ["named app", "rules alone"])
def test_preflights_need_no_routes(kind: str) -> None:
    """An app that cannot be walked has preflights too."""
    inner = Starlette(routes=[Route("/x", public(ran_by("x", [])))])
    app = AuthzMiddleware(
        unwalkable(inner), gate=gate_with(cors=CORS), routes_of=inner if kind == "named app" else None
    )
    assert drive(app, scope_of("/x", "OPTIONS", headers=preflight())).status == 204


# ---- answers


def answers_of(framework: type[Starlette], gate_outside: bool) -> dict[str, tuple[ASGIApp, str, dict[str, str], int]]:  # noqa: FBT001
    """Return one request for each way in which an answer comes about."""

    async def crash(request: Request) -> Response:
        raise LookupError("a bug in the app")

    async def owned(request: Request) -> Response:
        check(DENIED, Reason.NOT_OWNER)
        return PlainTextResponse("not reached")

    async def headed(request: Request) -> Response:
        headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "X-Mine", "Vary": "Accept"}
        return PlainTextResponse("own", headers=headers)

    app = framework()
    add_route(app, "/open", public(ran_by("open", [])))
    add_route(app, "/scoped", requires(scopes("s"))(ran_by("scoped", [])))
    add_route(app, "/hidden", requires(authenticated.concealed())(ran_by("hidden", [])))
    add_route(app, "/crash", public(crash))
    add_route(app, "/owned", public(owned))
    add_route(app, "/headed", public(headed))
    add_route(app, "/posted", public(ran_by("posted", [])), ["POST"])
    gate = gate_with(cors=CORS)
    guarding: ASGIApp = wrapped(app, gate) if gate_outside else guarded(app, gate)
    return {
        "allowed": (guarding, "/open", {}, 200),
        "401": (guarding, "/scoped", {}, 401),
        "403": (guarding, "/scoped", bearer(), 403),
        "400": (guarding, "/scoped", {"Authorization": "Bearer a b"}, 400),
        "bad path": (guarding, "/a\n", {}, 400),
        "404": (guarding, "/missing", {}, 404),
        "405 of the app": (guarding, "/posted", {}, 405),
        "redirect": (guarding, "/open/", {}, 307),
        "concealed": (guarding, "/hidden", {}, 404),
        "crash of the app": (guarding, "/crash", {}, 500),
        "check in the handler": (guarding, "/owned", {}, 403),
        "headers of the app's own": (guarding, "/headed", {}, 200),
    }


NAMES = list(answers_of(Starlette, gate_outside=False))


@both
@pytest.mark.parametrize("gate_outside", [False, True], ids=["add_middleware", "from outside"])
@pytest.mark.parametrize("name", NAMES)
def test_every_answer_may_be_read_by_allowed_origins_alone(
    framework: type[Starlette],
    name: str,
    gate_outside: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """Denials, crashes, redirects and the app's own 404: CORS headers once, for this origin, and `Vary: Origin`."""
    app, path, headers, status = answers_of(framework, gate_outside)[name]
    answer = drive(app, scope_of(path, headers={**headers, "Origin": ORIGIN}), BODYLESS)
    assert answer.status == status
    assert_readable(answer)
    other = drive(app, scope_of(path, headers={**headers, "Origin": "https://other.example"}), BODYLESS)
    assert_readable(other, "https://other.example")
    for origin in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {}):
        foreign = drive(app, scope_of(path, headers={**headers, **origin}), BODYLESS)
        assert foreign.status == status
        assert_no_cors(foreign)


def test_two_origin_headers_are_no_origin() -> None:
    """Nobody can tell whose script may read the answer."""
    app, path, _, _ = answers_of(Starlette, gate_outside=False)["allowed"]
    answer = drive(app, scope_of(path, headers=[("Origin", ORIGIN), ("Origin", "https://evil.example")]), BODYLESS)
    assert answer.status == 200
    assert_no_cors(answer)


@pytest.mark.parametrize("vary", ["X-Origin-Region", "Accept, X-Original-URL", "Sec-Origin"])
def test_a_header_whose_name_holds_origin_is_another_header(vary: str) -> None:
    """Answers vary by `Origin`, whatever else they vary by."""

    @public
    async def headed(request: Request) -> Response:
        return PlainTextResponse("own", headers={"Vary": vary})

    app = guarded(Starlette(routes=[Route("/x", headed)]), gate_with(cors=CORS))
    for origin in (ORIGIN, "https://evil.example"):
        assert_varies(drive(app, scope_of("/x", headers={"Origin": origin}), BODYLESS))


def test_other_vary_headers_of_the_app_stay() -> None:
    """The gate adds `Origin` to what answers vary by, and takes nothing away."""
    app, path, _, _ = answers_of(Starlette, gate_outside=False)["headers of the app's own"]
    answer = drive(app, scope_of(path, headers={"Origin": ORIGIN}), BODYLESS)
    assert sorted(value for name, value in answer.headers if name == b"vary") == [b"Accept", b"Origin"]


@both
def test_a_crash_page_is_the_apps_own(framework: type[Starlette]) -> None:
    """The app's handler for 500 writes the page, a browser may read it, and the exception goes on outwards."""

    async def crash(request: Request) -> Response:
        raise LookupError("a bug in the app")

    async def page(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"sorry: {error}", status_code=500)

    app = framework()
    add_route(app, "/crash", public(crash))
    app.add_exception_handler(Exception, page)
    guarded(app, gate_with(cors=CORS))
    with listening() as events:
        answer = drive(app, scope_of("/crash", headers={"Origin": ORIGIN}), BODYLESS)
    assert answer.body == b"sorry: a bug in the app"
    assert isinstance(answer.error, LookupError)
    assert_readable(answer)
    assert [event["event"] for event in events] == ["authz.allowed"]
    with pytest.raises(LookupError):
        client_of(app).get("/crash", headers={"Origin": ORIGIN})


@both
def test_a_debug_page_stays_a_debug_page(framework: type[Starlette]) -> None:
    """With `debug=True` the traceback is shown, as without a gate."""

    async def crash(request: Request) -> Response:
        raise LookupError("a bug in the app")

    app = framework(debug=True)
    add_route(app, "/crash", public(crash))
    guarded(app, gate_with(cors=CORS))
    answer = drive(app, scope_of("/crash", headers={"Origin": ORIGIN}), BODYLESS)
    assert b"Traceback" in answer.body
    assert_readable(answer)


def test_a_crash_after_the_answer_started_sends_no_second_one() -> None:
    """What failed in the background leaves the answer as it was."""

    async def fail() -> None:
        raise LookupError("a bug in the background")

    @public
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("done", background=BackgroundTask(fail))

    app = guarded(Starlette(routes=[Route("/x", endpoint)]), gate_with(cors=CORS))
    answer = drive(app, scope_of("/x", headers={"Origin": ORIGIN}), BODYLESS)
    assert (answer.status, answer.body) == (200, b"done")
    assert isinstance(answer.error, LookupError)


@both
def test_nested_gates_send_one_set_of_cors_headers(framework: type[Starlette]) -> None:
    """CORS is the outer gate's matter, for preflights, refusals of either and answers of the app."""
    inner = framework()
    add_route(inner, "/x", requires(scopes("inner"))(ran_by("x", [])), ["GET", "OPTIONS"])
    guarded(inner, gate_with(cors=Cors(origins=["https://inner.example"])))
    outer = framework(routes=[Mount("/sub", inner)])
    guarded(outer, gate_with(cors=CORS))
    headers = {"Origin": ORIGIN}
    assert (
        drive(outer, scope_of("/sub/x", "OPTIONS", headers=preflight())).header("access-control-allow-origin") == ORIGIN
    )
    for given, status in (({}, 401), (bearer(), 403), (bearer(scope="inner"), 200)):
        answer = drive(outer, scope_of("/sub/x", headers={**headers, **given}), BODYLESS)
        assert answer.status == status
        assert_readable(answer)
    assert_no_cors(drive(outer, scope_of("/sub/x", headers={"Origin": "https://inner.example"})))


# ---- WebSockets


@both
@pytest.mark.parametrize(
    ("origins", "passes"),
    [
        ([], True),
        ([ORIGIN], True),
        (["https://evil.example"], False),
        (["null"], False),
        ([ORIGIN, ORIGIN], False),
        ([ORIGIN.upper()], False),
    ],
    ids=["none", "ours", "foreign", "null", "two", "upper case"],
)
def test_the_origin_of_a_handshake_is_checked(
    framework: type[Starlette],
    origins: list[str],
    passes: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """RFC 6455 section 10.2: only the server can keep other sites' pages out; a client without Origin is no browser."""
    ran: list[str] = []

    @public
    async def socket(websocket: WebSocket) -> None:
        ran.append("socket")
        await websocket.accept()
        await websocket.close()

    app = framework()
    add_websocket(app, "/socket", socket)
    guarded(app, gate_with(cors=CORS))
    scope = scope_of(
        "/socket",
        kind="websocket",
        headers=[("Origin", origin) for origin in origins],
        extensions={"websocket.http.response": {}},
    )
    with listening() as events:
        answer = drive(app, scope, CONNECT)
    if passes:
        assert [message["type"] for message in answer.messages] == ["websocket.accept", "websocket.close"]
        assert ran == ["socket"]
    else:
        assert (answer.status, answer.reason, ran) == (403, "origin_not_allowed", [])
        assert [event["reason"] for event in events] == ["origin_not_allowed"]


def test_without_cors_the_origin_of_a_handshake_is_not_looked_at() -> None:
    """Nobody said which origins are ours."""

    @public
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()

    app = Starlette()
    add_websocket(app, "/socket", socket)
    guarded(app, gate_with())
    answer = drive(app, scope_of("/socket", kind="websocket", headers={"Origin": "https://evil.example"}), CONNECT)
    assert answer.messages[0]["type"] == "websocket.accept"


def test_any_origin_is_answered_with_a_star() -> None:
    """`origins="*"` answers everyone alike, and accepts every handshake."""
    app = FastAPI()
    add_route(app, "/open", public(ran_by("open", [])))
    guarded(app, gate_with(cors=Cors(origins=["*"])))
    for origin in (ORIGIN, "null", "https://evil.example"):
        answer = drive(app, scope_of("/open", headers={"Origin": origin}), BODYLESS)
        assert answer.header("access-control-allow-origin") == "*"
        assert answer.header("access-control-allow-credentials") is None


def test_a_refusal_from_the_middle_of_the_stack_is_readable() -> None:
    """`AccessDenied` from middleware inside the gate is answered like one of a handler."""

    class Refuses:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: object, receive: object, send: object) -> None:
            raise AccessDenied("plan_expired", plan="free")

    inner = Starlette(routes=[Route("/open", public(ran_by("open", [])))])
    app = AuthzMiddleware(Refuses(inner), gate=gate_with(cors=CORS))
    answer = drive(app, scope_of("/open", headers={"Origin": ORIGIN}))
    assert (answer.status, answer.reason) == (403, "plan_expired")
    assert_readable(answer)
