"""Concealment through ASGI: whoever may not know of a route gets the app's own 404, byte for byte."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Mount, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from authz403 import (
    AccessDenied,
    Cors,
    Reason,
    Requirement,
    Rule,
    anyone,
    authenticated,
    check,
    guard,
    networks,
    public,
    requirement,
    requires,
    roles,
    scopes,
)
from authz403.asgi import AuthzMiddleware
from tests.apps_made import (
    BODYLESS,
    CONNECT,
    FRAMEWORKS,
    ORIGIN,
    Answer,
    add_route,
    add_websocket,
    answering,
    bearer,
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
places = pytest.mark.parametrize("outside", [False, True], ids=["add_middleware", "from outside"])

SECRET_SCOPE = scopes("s").concealed()


def behind(app: Starlette, *, outside: bool = False, rules: tuple[Rule, ...] = (), cors: Cors | None = None) -> ASGIApp:
    """Put the app behind a gate."""
    gate = gate_with(rules=rules, cors=cors)
    return wrapped(app, gate) if outside else guarded(app, gate)


def assert_missing(answer: Answer, missing: Answer) -> None:
    """Assert that an answer is that of a path which does not exist, byte for byte."""
    assert missing.status == 404
    assert answer.error is None
    assert answer.messages == missing.messages


def app_of(framework: type[Starlette], ran: list[str], wanted: Requirement | None) -> Starlette:
    """Return an app with one route at /secret."""
    app = framework()
    add_route(app, "/open", public(ran_by("open", ran)))
    endpoint = ran_by("secret", ran)
    add_route(app, "/secret", endpoint if wanted is None else requires(wanted)(endpoint))
    return app


@both
@places
@pytest.mark.parametrize("how", ["mark", "rule"])
@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/secret", "GET"),
        ("/secret", "HEAD"),
        ("/secret", "POST"),
        ("/secret", "OPTIONS"),
        ("/secret", "get"),
        ("/secret", "FOO"),
        ("/secret/", "GET"),
    ],
)
def test_whoever_may_not_know_of_a_route_gets_the_apps_own_404(
    framework: type[Starlette],
    how: str,
    path: str,
    method: str,
    outside: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """GET, HEAD, a 405, OPTIONS and a slash redirect: none of them tells that there is something."""
    ran: list[str] = []
    app = behind(
        app_of(framework, ran, SECRET_SCOPE if how == "mark" else None),
        outside=outside,
        rules=(Rule("GET", "/secret", SECRET_SCOPE),) if how == "rule" else (),
    )
    missing = drive(app, scope_of("/missing", method), BODYLESS)
    for headers in ({}, bearer(), bearer(scope="other"), {"Authorization": "Bearer rubbish"}):
        assert_missing(drive(app, scope_of(path, method, headers=headers), BODYLESS), missing)
    assert ran == []


@both
@places
@pytest.mark.parametrize(
    ("path", "method"), [("/secret", "GET"), ("/secret", "HEAD"), ("/secret", "POST"), ("/secret/", "GET")]
)
def test_whoever_may_know_gets_what_the_bare_app_answers(
    framework: type[Starlette],
    path: str,
    method: str,
    outside: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """For the entitled nothing is hidden: 200, 405 and redirect as without a gate."""
    bare = drive(app_of(framework, [], None), scope_of(path, method), BODYLESS)
    app = behind(app_of(framework, [], SECRET_SCOPE), outside=outside)
    assert drive(app, scope_of(path, method, headers=bearer(scope="s")), BODYLESS).messages == bare.messages


@both
def test_the_true_reason_is_in_the_log_alone(framework: type[Starlette]) -> None:
    """One event with reason and `concealed`; nothing of it in the answer."""
    app = behind(app_of(framework, [], SECRET_SCOPE))
    with listening() as events:
        answer = drive(app, scope_of("/secret", headers=bearer()))
    assert answer.status == 404
    assert answer.header("authz-reason") is None
    assert answer.header("authz-decision") is None
    [event] = events
    assert (event["event"], event["reason"], event["concealed"]) == ("authz.denied", "insufficient_scope", True)
    assert event["route"] == "/secret"


@both
@places
@pytest.mark.parametrize("kind", ["handler", "exception class"])
def test_a_404_handler_of_the_apps_own_writes_the_answer(
    framework: type[Starlette],
    kind: str,
    outside: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """A custom page is the page of concealed routes too."""

    async def page(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "nothing here"}, status_code=404, headers={"X-Page": "own"})

    from starlette.exceptions import HTTPException  # noqa: PLC0415 - a name that FastAPI has too

    app = app_of(framework, [], SECRET_SCOPE)
    app.add_exception_handler(404 if kind == "handler" else HTTPException, page)
    guarding = behind(app, outside=outside)
    missing = drive(guarding, scope_of("/missing"), BODYLESS)
    assert b"nothing here" in missing.body
    assert_missing(drive(guarding, scope_of("/secret")), missing)
    assert_missing(drive(guarding, scope_of("/secret", "POST")), missing)


@both
@places
def test_the_router_that_holds_the_route_answers(framework: type[Starlette], outside: bool) -> None:  # noqa: FBT001
    """In a mounted app with a page of its own, that page is the answer, not the outer app's."""

    async def page(request: Request, error: Exception) -> Response:
        return PlainTextResponse("nothing in this part", status_code=404)

    sub = app_of(framework, [], SECRET_SCOPE)
    sub.add_exception_handler(404, page)
    app = framework(
        routes=[
            Mount("/sub", sub),
            Mount("/plain", Router([Route("/secret", requires(SECRET_SCOPE)(ran_by("x", [])))])),
        ]
    )
    guarding = behind(app, outside=outside)
    missing = drive(guarding, scope_of("/sub/missing"), BODYLESS)
    assert missing.body == b"nothing in this part"
    assert_missing(drive(guarding, scope_of("/sub/secret")), missing)
    assert_missing(drive(guarding, scope_of("/plain/secret")), drive(guarding, scope_of("/plain/missing"), BODYLESS))


@both
@places
@pytest.mark.parametrize("depth", ["app", "mounted app"])
def test_a_check_in_the_handler_of_a_concealed_route_is_a_404(
    framework: type[Starlette],
    depth: str,
    outside: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """What the handler refuses is concealed like the rest; the handler runs once."""
    ran: list[str] = []

    @requires(authenticated.concealed())
    async def own(request: Request) -> Response:
        ran.append("own")
        check(request.path_params["owner"] == request.user.sub, Reason.NOT_OWNER)
        return PlainTextResponse("yours")

    inner = framework()
    add_route(inner, "/orders/{owner}", own)
    prefix = "" if depth == "app" else "/sub"
    app = inner if depth == "app" else framework(routes=[Mount("/sub", inner)])
    guarding = behind(app, outside=outside)
    missing = drive(guarding, scope_of(prefix + "/orders"), BODYLESS)
    with listening() as events:
        answer = drive(guarding, scope_of(prefix + "/orders/eve", headers=bearer("bob")), BODYLESS)
    assert_missing(answer, missing)
    assert ran == ["own"]
    assert [(event["reason"], event.get("concealed")) for event in events] == [("not_owner", True)]
    assert drive(guarding, scope_of(prefix + "/orders/bob", headers=bearer("bob")), BODYLESS).status == 200


def test_a_concealed_check_shows_a_404_handler_nothing_of_the_route() -> None:
    """The page for missing paths sees the request as it came: no endpoint, no path parameters."""
    seen: list[object] = []

    async def page(request: Request, error: Exception) -> Response:
        seen.append((dict(request.path_params), request.scope.get("endpoint")))
        return PlainTextResponse("nothing", status_code=404)

    @requires(authenticated.concealed())
    async def own(request: Request) -> Response:
        check(DENIED, Reason.NOT_OWNER)
        return PlainTextResponse("not reached")

    app = Starlette(routes=[Route("/orders/{owner}", own)], exception_handlers={404: page})
    guarded(app, gate_with())
    drive(app, scope_of("/missing"), BODYLESS)
    drive(app, scope_of("/orders/eve", headers=bearer()), BODYLESS)
    assert seen == [({}, None), ({}, None)]


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS"])
def test_a_method_of_a_class_is_concealed_from_405s_too(method: str) -> None:
    """The `Allow` of a class-based endpoint would tell of its concealed `get`."""

    class Things(HTTPEndpoint):
        @requires(SECRET_SCOPE)
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("secret")

    app = behind(Starlette(routes=[Route("/secret", Things)]))
    missing = drive(app, scope_of("/missing", method), BODYLESS)
    assert_missing(drive(app, scope_of("/secret", method), BODYLESS), missing)
    allowed = drive(app, scope_of("/secret", method, headers=bearer(scope="s")), BODYLESS)
    assert (allowed.status, str(allowed.header("allow"))[:3]) == (405, "GET")  # newer Starlettes name HEAD too


def test_the_405_of_an_open_route_is_no_secret() -> None:
    """Only what would betray a concealed route is hidden."""
    routes = [
        Route("/x", public(ran_by("open", [])), methods=["POST"]),
        Route("/x", requires(SECRET_SCOPE)(ran_by("secret", [])), methods=["GET"]),
    ]
    answer = drive(behind(Starlette(routes=routes)), scope_of("/x", "PUT"), BODYLESS)
    assert (answer.status, answer.header("allow")) == (405, "POST")


@both
def test_400_and_5xx_are_told_even_of_a_concealed_policy(framework: type[Starlette]) -> None:
    """Malformed credentials and the server's own trouble say nothing about what exists."""

    def crash(facts: object) -> bool:
        raise LookupError("a bug")

    crashing = requirement("own_rule", crash).concealed()
    app = behind(app_of(framework, [], authenticated.concealed() & crashing))
    assert drive(app, scope_of("/secret", headers={"Authorization": "Bearer a b"})).reason == "invalid_request"
    assert drive(app, scope_of("/secret", headers=bearer())).reason == "policy_error"


@both
@pytest.mark.parametrize(
    "wanted",
    [
        scopes("s").concealed() & roles("r"),
        scopes("s") & roles("r").concealed(),
        (scopes("s") | roles("r")).concealed(),
        ~networks("127.0.0.0/8").concealed(),
    ],
    ids=["first", "last", "whole", "not"],
)
def test_concealed_anywhere_conceals_all(framework: type[Starlette], wanted: Requirement) -> None:
    """One concealed part of the effective policy hides every refusal of it."""
    app = behind(app_of(framework, [], wanted))
    missing = drive(app, scope_of("/missing"), BODYLESS)
    assert_missing(drive(app, scope_of("/secret")), missing)
    assert_missing(drive(app, scope_of("/secret", headers=bearer(roles=["x"]))), missing)


@both
def test_a_concealed_guard_conceals_all_below(framework: type[Starlette]) -> None:
    """Routes, 405s, redirects and what is missing below a concealed mount look alike."""
    sub = framework()
    add_route(sub, "/x", public(ran_by("x", [])))
    add_route(sub, "/y/", public(ran_by("y", [])))
    app = behind(framework(routes=[guard(Mount("/sub", sub), SECRET_SCOPE)]))
    missing = drive(app, scope_of("/sub/missing"), BODYLESS)
    for path, method in (("/sub/x", "GET"), ("/sub/x", "POST"), ("/sub/x/", "GET"), ("/sub/y", "GET")):
        assert_missing(drive(app, scope_of(path, method), BODYLESS), missing)


def test_a_concealed_mount_that_cannot_be_walked_is_missing() -> None:
    """The router that holds the mount answers."""
    ran: list[str] = []
    app = behind(Starlette(routes=[guard(Mount("/sub", answering("sub", ran)), SECRET_SCOPE)]))
    missing = drive(app, scope_of("/missing"), BODYLESS)
    for path in ("/sub/x", "/sub/", "/sub"):
        assert_missing(drive(app, scope_of(path), BODYLESS), missing)
    assert ran == []


def test_rules_alone_conceal_with_a_plain_404() -> None:
    """Without a router to ask there is a 404 in its usual words."""
    ran: list[str] = []
    rules = [Rule("*", "/secret/**", SECRET_SCOPE), Rule("*", "/**", anyone)]
    inner = Starlette(routes=[Route("/secret/x", ran_by("secret", ran))])
    app = AuthzMiddleware(unwalkable(inner), gate=gate_with(rules=rules), routes_of=None)
    assert_missing(drive(app, scope_of("/secret/x")), drive(app, scope_of("/missing"), BODYLESS))
    assert ran == []
    assert drive(app, scope_of("/secret/x", headers=bearer(scope="s")), BODYLESS).status == 200


@both
def test_a_concealed_404_may_be_read_by_browsers_like_any_other(framework: type[Starlette]) -> None:
    """CORS headers are on both or on neither."""
    app = behind(app_of(framework, [], SECRET_SCOPE), cors=Cors(origins=[ORIGIN]))
    for headers in ({"Origin": ORIGIN}, {"Origin": "https://evil.example"}, {}):
        missing = drive(app, scope_of("/missing", headers=headers), BODYLESS)
        assert_missing(drive(app, scope_of("/secret", headers=headers)), missing)


@both
@pytest.mark.parametrize("extension", [False, True], ids=["close", "denial response"])
def test_a_concealed_handshake_ends_like_one_that_no_route_takes(
    framework: type[Starlette],
    extension: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """A WebSocket that may not be known of is refused as if it were missing."""

    @requires(SECRET_SCOPE)
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()

    app = framework()
    add_websocket(app, "/secret", socket)
    guarding = behind(app)
    extensions: dict[str, object] = {"websocket.http.response": {}} if extension else {}
    missing = drive(guarding, scope_of("/missing", kind="websocket", extensions=extensions), CONNECT)
    answer = drive(guarding, scope_of("/secret", kind="websocket", extensions=extensions), CONNECT)
    assert answer.messages == missing.messages
    entitled = scope_of("/secret", kind="websocket", extensions=extensions, headers=bearer(scope="s"))
    assert drive(guarding, entitled, CONNECT).messages[0]["type"] == "websocket.accept"


@both
def test_a_404_of_the_handler_looks_like_the_concealed_one(framework: type[Starlette]) -> None:
    """Caches keep none of them: where 404s may be concealed ones, all say `no-store`."""
    from starlette.exceptions import HTTPException  # noqa: PLC0415 - a name that FastAPI has too

    async def lookup(request: Request) -> Response:
        raise HTTPException(404)

    app = framework()
    add_route(app, "/orders/{id}", requires(SECRET_SCOPE)(lookup))
    guarding = behind(app)
    found_nothing = drive(guarding, scope_of("/orders/5", headers=bearer(scope="s")), BODYLESS)
    assert_missing(drive(guarding, scope_of("/orders/5")), found_nothing)
    assert found_nothing.header("cache-control") == "no-store"


def test_a_cache_header_of_the_apps_own_404_stays() -> None:
    """Where the app says how long its 404 may be kept, it is the same for concealed ones."""

    async def page(request: Request, error: Exception) -> Response:
        return PlainTextResponse("nothing", status_code=404, headers={"Cache-Control": "private"})

    app = Starlette(routes=[Route("/secret", requires(SECRET_SCOPE)(ran_by("x", [])))], exception_handlers={404: page})
    guarded(app, gate_with())
    answer = drive(app, scope_of("/secret"))
    assert answer.header("cache-control") == "private"
    assert_missing(answer, drive(app, scope_of("/missing"), BODYLESS))


def test_access_denied_from_middleware_on_a_concealed_route_is_a_404() -> None:
    """Whoever raises it inside the gate, the route stays hidden."""

    class Refuses:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/secret" and scope["user"].is_authenticated:
                raise AccessDenied("plan_expired")
            await self.app(scope, receive, send)

    app = FastAPI()
    add_route(app, "/secret", requires(authenticated.concealed())(ran_by("secret", [])))
    app.add_middleware(Refuses)
    guarded(app, gate_with())
    answer = drive(app, scope_of("/secret", headers=bearer()), BODYLESS)
    # A middleware that refuses again would refuse the 404 too; it is asked once.
    assert answer.status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS"])
def test_a_rule_conceals_a_class_based_endpoint_from_405s_too(method: str) -> None:
    """The `Allow` of a class-based endpoint would tell of the `get` that a rule conceals."""

    class Things(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("secret")

    app = behind(Starlette(routes=[Route("/secret", Things)]), rules=(Rule("GET", "/secret", SECRET_SCOPE),))
    missing = drive(app, scope_of("/missing", method), BODYLESS)
    assert_missing(drive(app, scope_of("/secret", method), BODYLESS), missing)


def test_a_concealed_frontend_is_concealed_from_405s_too(tmp_path: Path) -> None:
    """The files of a frontend answer 405 to POST: of a concealed one nobody may know."""
    (tmp_path / "index.html").write_text("<h1>secret</h1>")
    app = FastAPI()
    app.frontend("/ui", directory=tmp_path)
    guarding = behind(app, rules=(Rule("GET", "/ui/**", SECRET_SCOPE),))
    for method in ("GET", "HEAD", "POST"):
        missing = drive(guarding, scope_of("/missing", method), BODYLESS)
        assert_missing(drive(guarding, scope_of("/ui/index.html", method), BODYLESS), missing)
    entitled = bearer(scope="s")
    assert drive(guarding, scope_of("/ui/index.html", headers=entitled), BODYLESS).body == b"<h1>secret</h1>"


@both
def test_a_check_on_a_route_that_only_the_inner_gate_conceals_is_a_404(framework: type[Starlette]) -> None:
    """Under nested gates a handler's refusal is concealed where any of them conceals."""

    async def own(request: Request) -> Response:
        check(DENIED, Reason.NOT_OWNER)
        return PlainTextResponse("not reached")

    inner = framework()
    add_route(inner, "/secret", own)
    guarded(inner, gate_with(rules=[Rule("GET", "/secret", authenticated.concealed())]))
    outer = guarded(framework(routes=[Mount("/sub", inner)]), gate_with(default=anyone))
    missing = drive(outer, scope_of("/sub/missing", headers=bearer()), BODYLESS)
    with listening() as events:
        answer = drive(outer, scope_of("/sub/secret", headers=bearer()), BODYLESS)
    assert_missing(answer, missing)
    assert [event["reason"] for event in events] == ["not_owner"]


# ---- groups, and what shows between the lines


@pytest.mark.parametrize("how", ["guarded Mount", "guarded app", "rule", "guarded Host"])
@pytest.mark.parametrize("path", ["/sub", "/sub/", "/sub/x", "/sub/none", "/sub/x/"])
def test_a_concealed_group_is_missing_as_a_whole(how: str, path: str) -> None:
    """The router that the group stands in answers, so that nothing shows that there is another app below."""
    ran: list[str] = []
    sub = FastAPI()
    sub.add_middleware(Stamps)
    sub.add_api_route("/x", ran_by("x", ran))
    group: BaseRoute = Host("testserver", sub) if how == "guarded Host" else Mount("/sub", sub)
    if how == "guarded app":
        guard(sub, SECRET_SCOPE)
    elif how != "rule":
        guard(group, SECRET_SCOPE)
    rules = (Rule("*", "/sub/**", SECRET_SCOPE),) if how == "rule" else ()
    app = behind(Starlette(routes=[group]), rules=rules)
    headers = {"Host": "testserver"}
    missing = drive(app, scope_of("/missing", headers={"Host": "else.example"}))
    assert_missing(drive(app, scope_of(path, headers=headers)), missing)
    assert ran == []


class Stamps:
    """Middleware that leaves its name in every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-sub", b"yes")]}
            await send(message)

        await self.app(scope, receive, stamped)


def test_a_concealed_group_serves_who_may_know_of_it() -> None:
    """With the scope, everything below is as on the bare app."""
    ran: list[str] = []
    sub = FastAPI()
    sub.add_api_route("/x", ran_by("x", ran))
    app = behind(Starlette(routes=[guard(Mount("/sub", sub), SECRET_SCOPE)]))
    assert drive(app, scope_of("/sub/x", headers=bearer(scope="s")), BODYLESS).body == b"x"
    assert drive(app, scope_of("/sub/none", headers=bearer(scope="s")), BODYLESS).body == b'{"detail":"Not Found"}'


def test_a_check_below_a_concealed_group_is_answered_outside_of_it() -> None:
    """What a handler finds out late looks as if the group were missing, too."""

    async def own(request: Request) -> Response:
        check(DENIED, Reason.NOT_OWNER)
        return PlainTextResponse("own")

    sub = FastAPI()
    sub.add_api_route("/own", own)
    app = behind(Starlette(routes=[guard(Mount("/sub", sub), SECRET_SCOPE)]))
    missing = drive(app, scope_of("/missing"))
    assert_missing(drive(app, scope_of("/sub/own", headers=bearer(scope="s"))), missing)


@both
def test_a_404_page_does_not_know_who_asks_for_what_is_concealed(framework: type[Starlette]) -> None:
    """For a path that is missing nobody looks at a token, so that a page with a greeting shows no one either way."""

    async def page(request: Request, error: Exception) -> Response:
        router = type(request.scope["router"]).__name__
        return PlainTextResponse(f"{request.user.is_authenticated} {request.auth.scopes} {router}", status_code=404)

    app = framework(exception_handlers={404: page})
    add_route(app, "/secret", requires(SECRET_SCOPE)(ran_by("secret", [])))
    guarded(app, gate_with())
    missing = drive(app, scope_of("/missing", headers=bearer()))
    assert missing.body.startswith(b"False ()")
    assert_missing(drive(app, scope_of("/secret", headers=bearer())), missing)


@pytest.mark.parametrize("path", ["/files/a//b", "/files/a/../b", "/files/./b"])
def test_dot_segments_do_not_tell_a_concealed_path_parameter(path: str) -> None:
    """Where nothing is, such a path is a 400, and so it is here."""
    ran: list[str] = []
    app = behind(Starlette(routes=[Route("/files/{p:path}", requires(SECRET_SCOPE)(ran_by("file", ran)))]))
    refused, missing = drive(app, scope_of(path)), drive(app, scope_of(path.replace("files", "none")))
    assert (refused.status, refused.reason) == (missing.status, missing.reason) == (400, "invalid_path")
    assert drive(app, scope_of(path, headers=bearer(scope="s")), BODYLESS).status == 200
    assert ran == ["file"]
