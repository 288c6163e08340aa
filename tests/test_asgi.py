"""The ASGI enforcement point: what it lets in runs as without it, what it refuses never runs."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, SimpleUser
from starlette.authentication import requires as starlette_requires
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from authz403 import (
    AccessDenied,
    BearerTokens,
    ConfigurationError,
    Cors,
    Gate,
    Principal,
    Rbac,
    Reason,
    Rule,
    any_role,
    anyone,
    authenticated,
    check,
    deny,
    networks,
    optional,
    public,
    requirement,
    requires,
    roles,
    scopes,
)
from authz403.asgi import AuthzMiddleware
from authz403.facts import Facts, Rejected
from authz403.fetch import Document
from authz403.keys import FetchedKeys
from authz403.need import How, Need
from authz403.request import AccessRequest
from tests.apps_made import (
    AUDIENCE,
    BODYLESS,
    CONNECT,
    FRAMEWORKS,
    ISSUER,
    NOW,
    ORIGIN,
    SECRET,
    AnyEndpoint,
    add_route,
    add_websocket,
    bearer,
    client_of,
    connect,
    drive,
    gate_with,
    guarded,
    listening,
    ran_by,
    scope_of,
    wrapped,
)

DENIED = False  # what a handler's own check found

both = pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda kind: kind.__name__)
places = pytest.mark.parametrize("outside", [False, True], ids=["add_middleware", "from outside"])


def app_with(framework: type[Starlette], endpoint: AnyEndpoint, methods: tuple[str, ...] = ("GET",)) -> Starlette:
    """Return an app with this endpoint at /x."""
    app = framework()
    add_route(app, "/x", endpoint, methods)
    return app


def behind(app: Starlette, gate: Gate, *, outside: bool) -> ASGIApp:
    """Put the app behind the gate, from within or from outside."""
    return wrapped(app, gate) if outside else guarded(app, gate)


# ---- the protocol


@pytest.mark.parametrize("kind", ["webtransport", "http2", ""])
def test_an_unknown_scope_type_is_refused(kind: str) -> None:
    """What the gate cannot judge does not pass it."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    answer = drive(AuthzMiddleware(app, gate=gate_with(default=anyone), routes_of=None), {"type": kind})
    assert isinstance(answer.error, RuntimeError)
    assert repr(kind) in str(answer.error)
    assert (answer.messages, seen) == ([], [])


@both
@places
def test_scope_members_that_servers_may_leave_out_are_not_needed(
    framework: type[Starlette],
    outside: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """No client, server, raw_path, root_path, query or extensions: the request is judged all the same."""
    app = behind(app_with(framework, requires(authenticated)(ran_by("x", []))), gate_with(), outside=outside)
    bare: dict[str, Any] = dict.fromkeys(("client", "server", "raw_path", "root_path", "http_version"))
    assert drive(app, scope_of("/x", **bare)).status == 401
    assert drive(app, scope_of("/x", headers=bearer(), **bare), BODYLESS).status == 200


@pytest.mark.parametrize(
    "client",
    [
        None,
        ("", 0),
        ("", "0"),
        ("localhost", 0),
        ("testclient", 50_000),
        ["127.0.0.1", 1],
        ("unix:", None),
        (None, 0),
        (),
    ],
    ids=repr,
)
def test_a_peer_that_is_no_address_fails_networks_and_nothing_else(client: object) -> None:
    """Unix sockets give anything; an unknown address is inside no network, and no obstacle elsewhere."""
    app = Starlette(
        routes=[
            Route("/inside", requires(networks("0.0.0.0/0", "::/0"))(ran_by("x", []))),
            Route("/open", public(ran_by("x", []))),
        ]
    )
    guarded(app, gate_with())
    answer = drive(app, scope_of("/inside", client=client), BODYLESS)
    assert answer.status == (200 if client == ["127.0.0.1", 1] else 403)
    assert drive(app, scope_of("/open", client=client), BODYLESS).status == 200


@both
@places
def test_an_allowed_request_meets_the_app_untouched(framework: type[Starlette], outside: bool) -> None:  # noqa: FBT001
    """Body, headers, query and answer are those of the bare app."""

    async def echo(request: Request) -> Response:
        body = await request.body()
        return JSONResponse(
            {"body": body.decode(), "query": str(request.query_params), "x": request.headers.getlist("x-a")},
            status_code=201,
            headers={"X-Own": "1"},
        )

    def app() -> Starlette:
        return app_with(framework, public(echo), ("POST",))

    incoming: list[Message] = [
        {"type": "http.request", "body": b"one ", "more_body": True},
        {"type": "http.request", "body": b"two", "more_body": False},
    ]
    scope = {"headers": [("X-A", "1"), ("X-A", "2")], "query_string": b"a=b"}
    bare = drive(app(), scope_of("/x", "POST", **scope), incoming)  # type: ignore[arg-type]  # members of a scope
    gated = drive(behind(app(), gate_with(), outside=outside), scope_of("/x", "POST", **scope), incoming)  # type: ignore[arg-type]
    assert gated.messages == bare.messages
    assert b"one two" in gated.body


def test_receive_is_handed_on_as_it_is_where_requests_pass() -> None:
    """No wrapper stands between the app and the server's `receive`."""
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(receive)
        await PlainTextResponse("ok")(scope, receive, send)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        return

    gate = AuthzMiddleware(app, gate=gate_with(default=anyone), routes_of=None)
    asyncio.run(gate(scope_of("/x"), receive, send))
    assert seen == [receive]


@both
def test_a_streamed_answer_streams(framework: type[Starlette]) -> None:
    """Each part goes out when the app sends it, and the one event is written at the start."""
    order: list[str] = []

    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            order.append(f"made {number}")
            yield str(number).encode()

    @public
    async def stream(request: Request) -> Response:
        return StreamingResponse(parts())

    app = guarded(app_with(framework, stream), gate_with())

    async def run() -> None:
        never = asyncio.Event()

        async def receive() -> Message:
            await never.wait()
            raise AssertionError

        async def send(message: Message) -> None:
            order.append(str(message.get("body", message["type"])))

        await app(scope_of("/x"), receive, send)

    with listening() as events:
        asyncio.run(run())
    assert order == [
        "http.response.start",
        *(text for number in range(3) for text in (f"made {number}", f"b'{number}'")),
        "b''",
    ]
    assert len(events) == 1


@both
def test_background_tasks_run_after_the_answer_and_know_the_caller(framework: type[Starlette]) -> None:
    """What the handler left for later runs, within the request's context."""
    ran: list[str] = []

    def later(user: Principal) -> None:
        check(user.sub == "ada", Reason.NOT_OWNER)
        ran.append(user.sub)

    @requires(authenticated)
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("done", background=BackgroundTask(later, request.user))

    client = client_of(guarded(app_with(framework, endpoint), gate_with()))
    assert client.get("/x", headers=bearer()).text == "done"
    assert ran == ["ada"]


@both
def test_a_client_that_goes_away_is_seen_by_the_app(framework: type[Starlette]) -> None:
    """A disconnect while the body is read is the app's to handle, as on the bare app."""
    seen: list[str] = []

    @public
    async def endpoint(request: Request) -> Response:
        try:
            await request.body()
        except ClientDisconnect:
            seen.append("gone")
        return PlainTextResponse("nobody reads this")

    app = guarded(app_with(framework, endpoint, ("POST",)), gate_with())
    drive(app, scope_of("/x", "POST"), [{"type": "http.request", "body": b"half", "more_body": True}])
    assert seen == ["gone"]


@both
@places
def test_a_cancelled_request_leaves_nothing_behind(framework: type[Starlette], outside: bool) -> None:  # noqa: FBT001
    """The caller of a request that was cancelled is not the caller of the next one."""
    seen: list[str] = []
    started: list[asyncio.Event] = []

    @requires(optional)
    async def endpoint(request: Request) -> Response:
        seen.append(request.user.display_name)
        if request.user.is_authenticated:
            started[0].set()
            await asyncio.Event().wait()
        return PlainTextResponse(request.user.display_name)

    app = behind(app_with(framework, endpoint), gate_with(), outside=outside)

    async def run() -> None:
        started.append(asyncio.Event())
        task = asyncio.ensure_future(connect(app, scope_of("/x", headers=bearer("mallory")), BODYLESS))
        await started[0].wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        answer = await connect(app, scope_of("/x"), BODYLESS)
        assert (answer.status, answer.body) == (200, b"")

    asyncio.run(run())
    assert seen == ["mallory", ""]


# ---- who


@both
@places
def test_the_caller_is_in_the_scope(framework: type[Starlette], outside: bool) -> None:  # noqa: FBT001
    """`request.user` is the principal, `request.auth.scopes` its scopes with "authenticated" first."""

    @requires(authenticated)
    async def me(request: Request) -> Response:
        assert isinstance(request.user, Principal)
        return JSONResponse(
            {"name": request.user.display_name, "known": request.user.is_authenticated, "auth": request.auth.scopes}
        )

    client = client_of(behind(app_with(framework, me), gate_with(), outside=outside))
    answer = client.get("/x", headers=bearer("bob", scope="b a")).json()
    assert answer == {"name": "bob", "known": True, "auth": ["authenticated", "a", "b"]}


@both
@pytest.mark.parametrize(
    "headers", [{}, bearer("bob"), {"Authorization": "Bearer rubbish"}], ids=["none", "good", "bad"]
)
def test_where_no_identity_is_asked_for_the_caller_is_nobody(
    framework: type[Starlette], headers: dict[str, str]
) -> None:
    """A public endpoint looks at no token and knows nobody."""

    @public
    async def me(request: Request) -> Response:
        return JSONResponse([request.user.is_authenticated, request.user.display_name, list(request.auth.scopes)])

    client = client_of(guarded(app_with(framework, me), gate_with()))
    assert client.get("/x", headers=headers).json() == [False, "", []]


@pytest.mark.parametrize("policy", [anyone, optional, authenticated])
def test_what_stood_in_the_scope_before_is_no_identity(policy: object) -> None:
    """An upstream `scope["user"]` and `X-User` headers are replaced and never read."""
    seen: list[object] = []

    async def me(request: Request) -> Response:
        seen.append(request.user.display_name)
        return PlainTextResponse("ok")

    app = guarded(app_with(Starlette, requires(policy)(me)), gate_with())  # type: ignore[arg-type]  # all requirements
    forged: dict[str, Any] = {"user": SimpleUser("root"), "auth": AuthCredentials(["authenticated", "s"])}
    headers = {"X-User": "root", "Remote-User": "root", "X-Forwarded-User": "root"}
    answer = drive(app, scope_of("/x", headers=headers, **forged), BODYLESS)
    assert answer.status == (401 if policy is authenticated else 200)
    assert seen == ([] if policy is authenticated else [""])


@both
def test_starlettes_own_requires_keeps_working(framework: type[Starlette]) -> None:
    """Its decorator reads the scopes that the gate leaves, on its own terms."""

    @requires(optional)
    @starlette_requires(["authenticated", "s"])
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("ok")

    client = client_of(guarded(app_with(framework, endpoint), gate_with()))
    assert client.get("/x").status_code == 403
    assert client.get("/x", headers=bearer()).status_code == 403
    assert client.get("/x", headers=bearer(scope="s")).status_code == 200


@both
@places
@pytest.mark.parametrize("middleware", ["none", "BaseHTTPMiddleware"])
def test_no_identity_leaks_between_requests_at_once(
    framework: type[Starlette],
    middleware: str,
    outside: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """Two hundred callers in one loop, some with a bad token, some with none, each is himself to the end."""

    class Waits(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            await asyncio.sleep(0)
            return await call_next(request)

    @requires(optional)
    async def me(request: Request) -> Response:
        before = request.user.display_name
        for _ in range(3):
            await asyncio.sleep(0)
        check(request.user.display_name == before, Reason.NOT_OWNER)
        return PlainTextResponse(request.user.display_name)

    app = app_with(framework, me)
    if middleware != "none":
        app.add_middleware(Waits)
    guarding = behind(app, gate_with(), outside=outside)

    def headers_of(number: int) -> dict[str, str]:
        return [bearer(f"caller-{number}"), {}, {"Authorization": "Bearer bad"}][number % 3]

    async def run() -> None:
        answers = await asyncio.gather(
            *(connect(guarding, scope_of("/x", headers=headers_of(number)), BODYLESS) for number in range(200))
        )
        for number, answer in enumerate(answers):
            assert answer.status == [200, 200, 401][number % 3]
            assert number % 3 == 2 or answer.body.decode() == (f"caller-{number}" if number % 3 == 0 else "")

    asyncio.run(run())


@places
def test_outside_of_the_gate_nothing_was_decided(outside: bool) -> None:  # noqa: FBT001 - a row of the table
    """After the answer, middleware around the gate is as far from the decision as before it."""
    told: list[str] = []
    app = behind(app_with(Starlette, public(ran_by("x", []))), gate_with(), outside=outside)

    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)
        try:
            check(not DENIED, Reason.NOT_OWNER)
        except ConfigurationError as error:
            told.append(str(error))

    assert drive(around, scope_of("/x"), BODYLESS).status == 200
    assert "no gate decided this request" in told[0]


# ---- what comes from outside, off the event loop


def gate_that_asks(asked: list[tuple[bool, str]]) -> dict[str, Callable[[], Gate]]:
    """Return gates that need something from outside; each notes if that ran on the event loop's thread."""
    loop_thread = threading.current_thread().name

    def note(what: str) -> None:
        asked.append((threading.current_thread().name == loop_thread, what))

    def sync_roles(principal: Principal) -> Collection[str]:
        note("roles")
        return ["admin"]

    async def async_roles(principal: Principal) -> Collection[str]:
        await asyncio.sleep(0)
        note("roles")
        return ["admin"]

    async def async_test(facts: Facts) -> bool:
        await asyncio.sleep(0)
        note("test")
        return facts.principal.sub == "ada"

    class Sessions:
        @property
        def fields(self) -> Collection[str]:
            return ("authorization",)

        def identify(self, request: AccessRequest, now: float) -> Need[Principal | Rejected | None] | None:
            if "authorization" not in request.fields:
                return None

            def look_up() -> Principal:
                note("session")
                return Principal(sub="ada", roles=frozenset({"admin"}))

            return Need(How.BLOCKING, look_up, lambda found: found if isinstance(found, Principal) else None)

    def fetching() -> Gate:
        from tests.tokens_made import jwks, public_jwk  # noqa: PLC0415 - keys are made for this test alone

        tokens = BearerTokens(issuer=ISSUER, audience=AUDIENCE, jwks_url="https://id.example/jwks")

        def fetch(url: str) -> Document:
            note("keys")
            return Document(jwks(public_jwk("ES256")), None)

        assert isinstance(tokens.keys, FetchedKeys)
        object.__setattr__(tokens, "keys", FetchedKeys(issuer=ISSUER, jwks_url="https://id.example/jwks", fetch=fetch))
        return Gate(tokens=tokens, clock=lambda: NOW)

    return {
        "sync roles_for": lambda: gate_with(rbac=Rbac(roles_for=sync_roles)),
        "async roles_for": lambda: gate_with(rbac=Rbac(roles_for=async_roles)),
        "async requirement": lambda: gate_with(rules=[Rule("GET", "/x", requirement("own_rule", async_test))]),
        "an identity source": lambda: Gate(tokens=Sessions(), clock=lambda: NOW),
        "keys": fetching,
    }


@both
@pytest.mark.parametrize("kind", ["sync roles_for", "async roles_for", "async requirement", "an identity source"])
def test_what_is_asked_from_outside_never_blocks_the_event_loop(framework: type[Starlette], kind: str) -> None:
    """Blocking work goes to a thread, coroutines are awaited, and the decision goes on with the answer."""
    asked: list[tuple[bool, str]] = []
    ran: list[str] = []
    wanted = authenticated if kind == "async requirement" else any_role("admin")
    app = guarded(app_with(framework, requires(wanted)(ran_by("x", ran))), gate_that_asks(asked)[kind]())
    assert drive(app, scope_of("/x", headers=bearer()), BODYLESS).status == 200
    assert ran == ["x"]
    assert [on_loop for on_loop, _ in asked] == [kind.startswith("async")]
    assert drive(app, scope_of("/x")).status == 401
    assert len(asked) == 1


def test_keys_are_fetched_off_the_event_loop() -> None:
    """The first token of an issuer waits for its keys; the loop does not."""
    from tests import tokens_made  # noqa: PLC0415 - keys are made for this test alone

    asked: list[tuple[bool, str]] = []
    ran: list[str] = []
    app = guarded(app_with(Starlette, requires(authenticated)(ran_by("x", ran))), gate_that_asks(asked)["keys"]())
    signed = tokens_made.token(iss=ISSUER, aud=AUDIENCE, sub="ada", exp=int(NOW) + 300)
    headers = {"Authorization": f"Bearer {signed}"}

    async def run() -> None:
        answers = await asyncio.gather(*(connect(app, scope_of("/x", headers=headers), BODYLESS) for _ in range(20)))
        assert [answer.status for answer in answers] == [200] * 20

    asyncio.run(run())
    assert asked == [(False, "keys")]
    assert ran == ["x"] * 20
    assert drive(app, scope_of("/x", headers=headers), BODYLESS).status == 200


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [(True, 200, None), (False, 403, "own_rule"), (1, 500, "policy_error"), (None, 500, "policy_error")],
    ids=["true", "false", "one", "none"],
)
def test_an_async_requirement_allows_by_true_alone(answer: object, status: int, reason: str | None) -> None:
    """Whatever else it answers denies."""
    ran: list[str] = []

    async def test(facts: Facts) -> bool:
        return answer  # type: ignore[return-value]  # some of these are what is being refused

    app = guarded(app_with(Starlette, requires(requirement("own_rule", test))(ran_by("x", ran))), gate_with())
    found = drive(app, scope_of("/x", headers=bearer()), BODYLESS)
    assert (found.status, found.header("authz-reason"), ran) == (status, reason, ["x"] if status == 200 else [])


@both
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_policy_that_crashes_denies(framework: type[Starlette], kind: str) -> None:
    """500 `policy_error`, nothing runs, the exception is in the log and not in the answer."""
    ran: list[str] = []

    def sync_test(facts: Facts) -> bool:
        raise LookupError("a bug in the policy")

    async def async_test(facts: Facts) -> bool:
        raise LookupError("a bug in the policy")

    wanted = requirement("own_rule", sync_test if kind == "sync" else async_test)
    app = guarded(app_with(framework, requires(wanted)(ran_by("x", ran))), gate_with())
    with listening() as events:
        answer = drive(app, scope_of("/x", headers=bearer()))
    assert (answer.status, answer.reason, ran, answer.error) == (500, "policy_error", [], None)
    assert b"bug" not in answer.body
    assert [event["event"] for event in events] == ["authz.error"]
    assert "a bug in the policy" in str(events[0]["error"])


# ---- crashes


@both
@places
@pytest.mark.parametrize("cors", [None, Cors(origins=[ORIGIN])], ids=["no cors", "cors"])
def test_an_exception_of_the_app_goes_on_outwards(
    framework: type[Starlette],
    cors: Cors | None,
    outside: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """The gate swallows nothing: the server answers 500 and raises, as for the bare app, with one event."""
    outer: list[str] = []

    class Watches:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await self.app(scope, receive, send)
            except LookupError as error:
                outer.append(str(error))
                raise

    async def crash(request: Request) -> Response:
        raise LookupError("a bug in the app")

    bare = drive(app_with(framework, public(crash)), scope_of("/x"), BODYLESS)
    app = app_with(framework, public(crash))
    guarding = Watches(behind(app, gate_with(cors=cors), outside=outside))
    with listening() as events:
        answer = drive(guarding, scope_of("/x"), BODYLESS)
    assert isinstance(answer.error, LookupError)
    assert outer == ["a bug in the app"]
    assert (answer.status, answer.body) == (bare.status, bare.body)
    assert [event["event"] for event in events] == ["authz.allowed"]
    with pytest.raises(LookupError):
        client_of(guarding).get("/x")
    assert client_of(guarding, raise_server_exceptions=False).get("/x").status_code == 500


@both
def test_an_exception_of_a_websocket_goes_on_outwards(framework: type[Starlette]) -> None:
    """Before and after accept."""

    @public
    async def socket(websocket: WebSocket) -> None:
        if websocket.query_params.get("accept"):
            await websocket.accept()
        raise LookupError("a bug in the app")

    app = framework()
    add_websocket(app, "/x", socket)
    guarded(app, gate_with(cors=Cors(origins=[ORIGIN])))
    for query in (b"", b"accept=1"):
        with listening() as events:
            answer = drive(app, scope_of("/x", kind="websocket", query_string=query), CONNECT)
        assert isinstance(answer.error, LookupError)
        assert [event["event"] for event in events] == ["authz.allowed"]


# ---- refusals from inside a handler


def deny_in(framework: type[Starlette], ran: list[str], *, sync: bool, depth: str) -> tuple[Starlette, str]:
    """Return an app whose handler refuses, itself or in a mounted app."""

    async def async_handler(request: Request) -> Response:
        ran.append("handler")
        check(DENIED, Reason.NOT_OWNER, order=5)
        return PlainTextResponse("not reached")

    def sync_handler(request: Request) -> Response:
        ran.append("handler")
        check(DENIED, Reason.NOT_OWNER, order=5)
        return PlainTextResponse("not reached")

    handler: Any = requires(scopes("s"))(sync_handler if sync else async_handler)
    inner = app_with(framework, handler)
    if depth == "app":
        return inner, "/x"
    return framework(routes=[Mount("/sub", inner)]), "/sub/x"


@both
@places
@pytest.mark.parametrize("depth", ["app", "mounted app"])
@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
def test_a_check_in_a_handler_is_answered_like_any_refusal(
    framework: type[Starlette],
    depth: str,
    sync: bool,  # noqa: FBT001 - a row of the table
    outside: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """403 with its reason, once, and one event with the facts that the client does not see."""
    ran: list[str] = []
    app, path = deny_in(framework, ran, sync=sync, depth=depth)
    guarding = behind(app, gate_with(), outside=outside)
    with listening() as events:
        answer = drive(guarding, scope_of(path, headers=bearer(scope="s")), BODYLESS)
    assert answer.error is None
    assert (answer.status, answer.reason, ran) == (403, "not_owner", ["handler"])
    assert answer.header("www-authenticate") is None
    [event] = events
    assert (event["event"], event["reason"], event["facts"]) == ("authz.denied", "not_owner", {"order": 5})
    assert (event["sub"], event["response"]) == ("ada", answer.body.decode())


@both
@pytest.mark.parametrize("reason", [Reason.INSUFFICIENT_SCOPE, Reason.STEP_UP_REQUIRED, "plan_expired", "not_owner"])
def test_a_handler_refuses_for_a_published_reason_or_its_own(framework: type[Starlette], reason: str) -> None:
    """Status and challenge are those of the reason."""

    async def handler(request: Request) -> Response:
        check(DENIED, reason)
        return PlainTextResponse("not reached")

    app = guarded(app_with(framework, requires(authenticated)(handler)), gate_with())
    answer = drive(app, scope_of("/x", headers=bearer()), BODYLESS)
    assert answer.reason == str(reason)
    assert answer.status == (401 if reason == "step_up_required" else 403)
    assert (answer.header("www-authenticate") is None) is (reason in {"plan_expired", "not_owner"})


@both
@places
def test_a_refusal_after_the_answer_started_goes_on_outwards(framework: type[Starlette], outside: bool) -> None:  # noqa: FBT001
    """The answer cannot be taken back: one `authz.error`, and the exception is raised to the server."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        check(DENIED, Reason.NOT_OWNER)
        yield b"second"

    @public
    async def stream(request: Request) -> Response:
        return StreamingResponse(parts())

    app = behind(app_with(framework, stream), gate_with(), outside=outside)

    async def run() -> tuple[list[Message], BaseException | None]:
        sent: list[Message] = []
        never = asyncio.Event()

        async def receive() -> Message:
            await never.wait()
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        try:
            await app(scope_of("/x"), receive, send)
        except BaseException as error:  # noqa: BLE001 - what is raised is looked at
            return sent, error
        return sent, None

    with listening() as events:
        sent, error = asyncio.run(run())
    assert [message.get("status", message.get("body")) for message in sent] == [200, b"first"]
    assert isinstance(error, AccessDenied)
    assert [event["event"] for event in events] == ["authz.allowed", "authz.error"]
    assert events[1]["reason"] == "not_owner"


@both
@places
@pytest.mark.parametrize("extension", [False, True], ids=["close", "denial response"])
def test_a_websocket_handler_refuses_before_it_accepts(
    framework: type[Starlette],
    extension: bool,  # noqa: FBT001 - a row of the table
    outside: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """The handshake is refused with the same body, or closed with 1008 where the server can send none."""

    @public
    async def socket(websocket: WebSocket) -> None:
        check(DENIED, Reason.NOT_OWNER)

    app = framework()
    add_websocket(app, "/x", socket)
    guarding = behind(app, gate_with(), outside=outside)
    extensions: dict[str, object] = {"websocket.http.response": {}} if extension else {}
    with listening() as events:
        answer = drive(guarding, scope_of("/x", kind="websocket", extensions=extensions), CONNECT)
    assert answer.error is None
    if extension:
        assert (answer.status, answer.reason) == (403, "not_owner")
    else:
        assert answer.messages == [{"type": "websocket.close", "code": 1008}]
    assert [(event["event"], event["reason"]) for event in events] == [("authz.denied", "not_owner")]


@both
@places
def test_a_websocket_handler_that_refuses_later_closes_with_1008(framework: type[Starlette], outside: bool) -> None:  # noqa: FBT001
    """RFC 6455 section 7.4.1: a policy violation; one `authz.error`, and no crash of the server."""

    @requires(authenticated)
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        check(await websocket.receive_text() == "mine", Reason.NOT_OWNER)

    app = framework()
    add_websocket(app, "/x", socket)
    guarding = behind(app, gate_with(), outside=outside)
    with listening() as events, client_of(guarding).websocket_connect("/x", headers=bearer()) as session:
        session.send_text("yours")
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_text()
    assert closed.value.code == 1008
    assert [event["event"] for event in events] == ["authz.allowed", "authz.error"]


@both
def test_an_exception_handler_of_the_apps_own_for_access_denied_is_the_apps_own_choice(
    framework: type[Starlette],
) -> None:
    """Who handles `AccessDenied` himself writes his own answer; otherwise the gate does."""

    async def own(request: Request, error: Exception) -> Response:
        return PlainTextResponse("own words", status_code=403)

    async def handler(request: Request) -> Response:
        check(DENIED, Reason.NOT_OWNER)
        return PlainTextResponse("not reached")

    app = app_with(framework, public(handler))
    app.add_exception_handler(ValueError, own)
    guarded(app, gate_with())
    assert drive(app, scope_of("/x"), BODYLESS).reason == "not_owner"


@both
@pytest.mark.parametrize("condition", [1, "yes", None, [True]], ids=repr)
def test_check_takes_a_bool_alone(framework: type[Starlette], condition: object) -> None:
    """A forgotten call (`check(order.is_mine, ...)`) is an error, not an open door."""
    ran: list[str] = []

    async def handler(request: Request) -> Response:
        check(condition, Reason.NOT_OWNER)  # type: ignore[arg-type]  # what is being refused
        ran.append("handler")
        return PlainTextResponse("not reached")

    app = guarded(app_with(framework, public(handler)), gate_with())
    answer = drive(app, scope_of("/x"), BODYLESS)
    assert isinstance(answer.error, TypeError)
    assert (answer.status, ran) == (500, [])


# ---- WebSockets


@both
@places
def test_a_websocket_that_passes_talks_as_on_the_bare_app(framework: type[Starlette], outside: bool) -> None:  # noqa: FBT001
    """Accept, messages both ways, subprotocol, close: untouched; one event at accept."""

    @requires(scopes("chat"))
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="v1", headers=[(b"x-own", b"1")])
        await websocket.send_text(f"{websocket.user.display_name}: {await websocket.receive_text()}")
        await websocket.close(4001, "bye")

    app = framework()
    add_websocket(app, "/x", echo)
    client = client_of(behind(app, gate_with(cors=Cors(origins=[ORIGIN])), outside=outside))
    headers = {**bearer(scope="chat"), "Origin": ORIGIN}
    with listening() as events, client.websocket_connect("/x", subprotocols=["v1"], headers=headers) as session:
        assert session.accepted_subprotocol == "v1"
        session.send_text("hello")
        assert session.receive_text() == "ada: hello"
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_text()
    assert (closed.value.code, closed.value.reason) == (4001, "bye")
    assert [(event["event"], event["method"]) for event in events] == [("authz.allowed", "WEBSOCKET")]


@both
def test_a_denial_response_of_the_app_passes(framework: type[Starlette]) -> None:
    """A handler may refuse a handshake by an HTTP answer of its own."""

    @public
    async def socket(websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("later", status_code=503))

    app = framework()
    add_websocket(app, "/x", socket)
    guarded(app, gate_with())
    scope = scope_of("/x", kind="websocket", extensions={"websocket.http.response": {}})
    answer = drive(app, scope, CONNECT)
    assert (answer.status, answer.body) == (503, b"later")


# ---- nested gates


def nested(framework: type[Starlette], outer: Gate, inner: Gate, ran: list[str]) -> Starlette:
    """Return a guarded app mounted in a guarded app."""
    sub = app_with(framework, requires(scopes("inner"))(ran_by("x", ran)))
    guarded(sub, inner)
    return guarded(framework(routes=[Mount("/sub", sub)]), outer)


@both
def test_policies_of_nested_gates_all_hold(framework: type[Starlette]) -> None:
    """What one gate lets in, the other may refuse; each request is one event."""
    ran: list[str] = []
    outer = gate_with(rules=[Rule("*", "/sub/**", roles("clerk"))])
    app = nested(framework, outer, gate_with(rules=[Rule("GET", "/x", networks("127.0.0.0/8"))]), ran)
    table: list[tuple[dict[str, object], int, str | None]] = [
        ({}, 403, "insufficient_scope"),
        ({"roles": ["clerk"]}, 403, "insufficient_scope"),
        ({"scope": "inner"}, 403, "role_required"),
        ({"scope": "inner", "roles": ["clerk"]}, 200, None),
    ]
    for claims, status, reason in table:
        with listening() as events:
            answer = drive(app, scope_of("/sub/x", headers=bearer(**claims)), BODYLESS)  # type: ignore[arg-type]
        assert (answer.status, answer.header("authz-reason")) == (status, reason)
        assert [event.get("reason") for event in events] == [reason]
        assert [event["status"] for event in events] == [status]
    assert ran == ["x"]


@both
def test_the_inner_gate_refuses_in_its_own_words_and_the_event_is_one(framework: type[Starlette]) -> None:
    """A rule of the inner gate alone: its reason in the answer and in the one event."""
    ran: list[str] = []
    inner = gate_with(rules=[Rule("GET", "/x", deny)], disclose="code")
    app = nested(framework, gate_with(), inner, ran)
    with listening() as events:
        answer = drive(app, scope_of("/sub/x", headers=bearer(scope="inner")))
    assert (answer.status, answer.reason, ran) == (403, "access_denied", [])
    assert b"detail" not in answer.body
    [event] = events
    assert (event["event"], event["reason"], event["status"]) == ("authz.denied", "access_denied", 403)
    assert event["response"] == answer.body.decode()


@both
def test_the_client_address_of_nested_gates_is_the_outer_ones(framework: type[Starlette]) -> None:
    """Which proxies to trust is said once, by the outermost gate."""
    from authz403 import Network  # noqa: PLC0415 - this test's own

    ran: list[str] = []
    outer = gate_with(network=Network(trusted_proxies=["127.0.0.0/8"]))
    inner = gate_with(rules=[Rule("GET", "/x", networks("203.0.113.0/24"))])
    app = nested(framework, outer, inner, ran)
    headers = bearer(scope="inner")
    passed = drive(app, scope_of("/sub/x", headers={**headers, "X-Forwarded-For": "203.0.113.5"}), BODYLESS)
    refused = drive(app, scope_of("/sub/x", headers={**headers, "X-Forwarded-For": "198.51.100.5"}), BODYLESS)
    assert (passed.status, refused.reason, ran) == (200, "ip_not_allowed", ["x"])


@both
def test_a_check_under_nested_gates_is_one_refusal(framework: type[Starlette]) -> None:
    """The handler's refusal is answered once, with one event."""
    ran: list[str] = []
    sub, _ = deny_in(framework, ran, sync=False, depth="app")
    guarded(sub, gate_with())
    app = guarded(framework(routes=[Mount("/sub", sub)]), gate_with())
    with listening() as events:
        answer = drive(app, scope_of("/sub/x", headers=bearer(scope="s")), BODYLESS)
    assert answer.error is None
    assert (answer.status, answer.reason, ran) == (403, "not_owner", ["handler"])
    assert [(event["event"], event["reason"]) for event in events] == [("authz.denied", "not_owner")]


@both
def test_a_concealed_route_under_nested_gates_is_missing(framework: type[Starlette]) -> None:
    """Whichever gate conceals, the answer is that of a path which does not exist."""
    for outer, inner in (
        (gate_with(rules=[Rule("GET", "/sub/x", roles("r").concealed())]), gate_with()),
        (gate_with(), gate_with(rules=[Rule("GET", "/x", roles("r").concealed())])),
    ):
        ran: list[str] = []
        app = nested(framework, outer, inner, ran)
        headers = bearer(scope="inner")
        missing = drive(app, scope_of("/sub/missing", headers=headers), BODYLESS)
        with listening() as events:
            answer = drive(app, scope_of("/sub/x", headers=headers), BODYLESS)
        assert missing.status == 404
        assert (answer.messages, ran) == (missing.messages, [])
        assert [(event["reason"], event["concealed"]) for event in events] == [("role_required", True)]


def test_the_inner_principal_is_the_inner_gates() -> None:
    """Each gate has its own sources; inside, the caller is who the inner gate says."""
    seen: list[str] = []

    async def me(request: Request) -> Response:
        seen.append(request.user.display_name)
        return PlainTextResponse("ok")

    other = BearerTokens(issuer="https://other.example", audience=AUDIENCE, key=SECRET, algorithms=["HS256"])
    sub = app_with(Starlette, requires(optional)(me))
    guarded(sub, gate_with())
    outer = Starlette(routes=[Mount("/sub", sub)])
    guarded(outer, Gate(tokens=other, default=anyone, clock=lambda: NOW))
    assert drive(outer, scope_of("/sub/x", headers=bearer("bob")), BODYLESS).status == 401
    assert drive(outer, scope_of("/sub/x"), BODYLESS).status == 200
    assert seen == [""]


# ---- reporting only


@both
@places
@pytest.mark.parametrize(
    ("path", "method", "headers", "reason"),
    [
        ("/x", "GET", {}, "missing_token"),
        ("/x", "GET", bearer(), "insufficient_scope"),
        ("/x", "GET", {"Authorization": "Bearer a b"}, "invalid_request"),
        ("/unmarked", "GET", {}, "no_policy"),
        ("/concealed", "GET", {}, "missing_token"),
        ("/denied", "GET", {}, "access_denied"),
        ("/crashes", "GET", {}, "policy_error"),
        ("/checked", "GET", {}, "not_owner"),
        ("/x\n", "GET", {}, "invalid_path"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_reporting_only_lets_everything_pass_and_says_what_it_would_have_refused(
    framework: type[Starlette],
    path: str,
    method: str,
    headers: dict[str, str],
    reason: str,
    outside: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """The handler runs once, the answer is the bare app's, and one event tells the reason."""

    def crash(facts: Facts) -> bool:
        raise LookupError("a bug")

    ran: list[str] = []

    async def checked(request: Request) -> Response:
        check(DENIED, Reason.NOT_OWNER)
        ran.append("checked")
        return PlainTextResponse("checked")

    app = framework()
    add_route(app, "/x", requires(scopes("s"))(ran_by("x", ran)))
    add_route(app, "/unmarked", ran_by("unmarked", ran))
    add_route(app, "/concealed", requires(scopes("s").concealed())(ran_by("concealed", ran)))
    add_route(app, "/denied", requires(deny)(ran_by("denied", ran)))
    add_route(app, "/crashes", requires(requirement("own_rule", crash, anonymous=True))(ran_by("crashes", ran)))
    add_route(app, "/checked", public(checked))
    guarding = behind(app, gate_with(dangerously_report_only=True), outside=outside)
    with listening() as events:
        answer = drive(guarding, scope_of(path, method, headers=headers), BODYLESS)
    assert (answer.status, len(ran)) == (200, 1)
    assert answer.header("authz-reason") is None
    [event] = events
    assert (event["reason"], event["report_only"]) == (reason, True)
    assert "response" not in event


@both
@places
def test_a_handler_that_refuses_by_itself_is_answered_even_where_the_gate_only_reports(
    framework: type[Starlette],
    outside: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """A raised `AccessDenied` left no answer that could pass: it is refused, and the handler ran once."""
    ran: list[str] = []

    async def handler(request: Request) -> Response:
        ran.append("handler")
        raise AccessDenied("plan_expired")

    app = app_with(framework, public(handler))
    guarding = behind(app, gate_with(dangerously_report_only=True), outside=outside)
    answer = drive(guarding, scope_of("/x"), BODYLESS)
    assert ran == ["handler"]
    assert (answer.status, answer.reason) == (403, "plan_expired")


def test_reporting_only_knows_the_caller() -> None:
    """A good token is the caller's, though his rights would not do; a bad one is nobody's."""
    seen: list[str] = []

    async def me(request: Request) -> Response:
        seen.append(request.user.display_name)
        return PlainTextResponse("ok")

    app = guarded(app_with(Starlette, requires(scopes("s"))(me)), gate_with(dangerously_report_only=True))
    for headers in (bearer("bob"), {"Authorization": "Bearer bad"}, {}):
        assert drive(app, scope_of("/x", headers=headers), BODYLESS).status == 200
    assert seen == ["bob", "", ""]


def test_an_allowed_request_of_a_reporting_gate_is_no_report() -> None:
    """What would have passed says nothing of reporting."""
    app = guarded(app_with(Starlette, public(ran_by("x", []))), gate_with(dangerously_report_only=True))
    with listening() as events:
        drive(app, scope_of("/x"), BODYLESS)
    assert [event["event"] for event in events] == ["authz.allowed"]
    assert "report_only" not in events[0]


# ---- one gate, many apps and loops


def test_one_gate_guards_many_apps() -> None:
    """The tables belong to the middleware: marks of one app say nothing about another."""
    gate = gate_with(shared=True)
    first = guarded(app_with(Starlette, public(ran_by("first", []))), gate)
    second = guarded(app_with(Starlette, requires(scopes("s"))(ran_by("second", []))), gate)
    for _ in range(2):
        assert drive(first, scope_of("/x"), BODYLESS).body == b"first"
        assert drive(second, scope_of("/x")).status == 401


def test_one_app_serves_in_many_event_loops_and_threads() -> None:
    """Nothing is bound to the loop that came first."""
    app = guarded(
        app_with(Starlette, requires(authenticated)(ran_by("x", []))), gate_with(rbac=Rbac(roles_for=lambda _: ()))
    )
    statuses: list[int] = []

    def serve(number: int) -> None:
        statuses.append(drive(app, scope_of("/x", headers=bearer(f"caller-{number}")), BODYLESS).status)

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 8


@pytest.mark.parametrize("position", ["inside", "outside"])
@both
def test_base_http_middleware_on_either_side_changes_nothing(framework: type[Starlette], position: str) -> None:
    """Refusals, answers, checks and streams pass through Starlette's own middleware class."""

    class Marks(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            response = await call_next(request)
            response.headers["X-Passed"] = "yes"
            return response

    def numbers() -> Iterator[bytes]:
        yield from (b"1", b"2")

    async def streamed(request: Request) -> Response:
        return StreamingResponse(numbers())

    async def checked(request: Request) -> Response:
        check(DENIED, Reason.NOT_OWNER)
        return PlainTextResponse("not reached")

    app = app_with(framework, requires(authenticated)(ran_by("x", [])))
    add_route(app, "/streamed", public(streamed))
    add_route(app, "/checked", public(checked))
    if position == "inside":
        app.add_middleware(Marks)
    guarded(app, gate_with())
    if position == "outside":
        app.add_middleware(Marks)
    client = client_of(app)
    assert client.get("/x").status_code == 401
    assert client.get("/x", headers=bearer()).headers["x-passed"] == "yes"
    assert client.get("/streamed").content == b"12"
    assert client.get("/checked").json()["reason"] == "not_owner"


def test_a_render_of_ones_own_writes_the_refusals() -> None:
    """Over HTTP and for a handler's check alike."""

    def render(denial: object, request: AccessRequest) -> tuple[str, bytes]:
        return "text/plain", f"no: {request.path}".encode()

    async def checked(request: Request) -> Response:
        check(DENIED, Reason.NOT_OWNER)
        return PlainTextResponse("not reached")

    app = app_with(Starlette, requires(authenticated)(checked))
    guarded(app, gate_with(render=render))
    for headers, status in (({}, 401), (bearer(), 403)):
        answer = drive(app, scope_of("/x", headers=headers), BODYLESS)
        assert (answer.status, answer.body, answer.header("content-type")) == (status, b"no: /x", "text/plain")


def test_the_handler_of_a_bare_app_cannot_use_check() -> None:
    """Outside of a gate nobody would answer: it raises and names itself."""
    with pytest.raises(ConfigurationError, match="no gate decided"):
        check(not DENIED, Reason.NOT_OWNER)


def test_a_request_that_is_never_answered_has_its_event() -> None:
    """An app that sends nothing, or is cancelled, leaves one event all the same."""

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    async def cancelled(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    for app in (silent, cancelled):
        whole = AuthzMiddleware(app, gate=gate_with(default=anyone), routes_of=None)
        with listening() as events, contextlib.suppress(asyncio.CancelledError):
            asyncio.run(whole(scope_of("/x"), _no_body, _nowhere))
        assert [event["event"] for event in events] == ["authz.allowed"]


async def _no_body() -> Message:
    return {"type": "http.disconnect"}


async def _nowhere(message: Message) -> None:
    raise AssertionError(message)


def test_a_role_source_that_stops_iterating_is_a_503() -> None:
    """`next()` on an empty query raises StopIteration, which no future can carry: the request must not hang."""

    def roles_for(principal: Principal) -> list[str]:
        return [next(iter(()))]

    app = guarded(
        Starlette(routes=[Route("/x", requires(any_role("a"))(answering_ok))]),
        gate_with(rbac=Rbac(roles_for=roles_for)),
    )
    answer = drive(app, scope_of("/x", headers=bearer()))
    assert (answer.status, answer.reason) == (503, "policy_unavailable")


def test_a_check_in_a_task_group_refuses_like_any_other() -> None:
    """Tasks that were denied, and nothing else, are one denial."""

    @requires(authenticated)
    async def tasks(request: Request) -> PlainTextResponse:
        async def one() -> None:
            check(request.url.path == "/mine", Reason.NOT_OWNER)

        async with asyncio.TaskGroup() as group:
            group.create_task(one())
            group.create_task(one())
        return PlainTextResponse("ok")

    app = guarded(Starlette(routes=[Route("/x", tasks)]), gate_with())
    assert drive(app, scope_of("/x", headers=bearer())).reason == "not_owner"


async def answering_ok(request: Request) -> PlainTextResponse:
    """Answer 200."""
    return PlainTextResponse("ok")
