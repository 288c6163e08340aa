"""Random apps before and behind a gate: what runs, and what is answered, held against a model of a few lines.

The model never asks the library. It knows each handler by its name, the policies on its way from the plan that the app
was built of, and it reads rules with regular expressions of its own.
"""

import asyncio
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from authz403 import Gate, Principal, Requirement, Rule, anyone, authenticated, deny, guard, requires, scopes
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import needs
from authz403.identity import AccessRequest
from tests.apps_made import BODYLESS, CONNECT, Answer, connect, scope_of
from tests.paths_judged import has_dots, is_ambiguous

# An example is an app with several requests, so that it takes as long as several.
ORDINARY_EXAMPLES: Final = 100
# The suite repeats the same examples, so that it only fails for what was changed; `make fuzz` looks for new ones.
SOME: Final = settings(
    max_examples=settings().max_examples * 3 // 5,
    derandomize=settings().derandomize or settings().max_examples <= ORDINARY_EXAMPLES,
)

NOBODY: Final = "anonymous"
PARTLY: Final = "partly entitled"
FULLY: Final = "fully entitled"
CALLERS: Final = (NOBODY, PARTLY, FULLY)
SCOPES: Final = {PARTLY: frozenset({"a"}), FULLY: frozenset({"a", "b"})}


class Policy(NamedTuple):
    """A requirement, and who is known to meet it."""

    requirement: Requirement
    met_by: Collection[str]


POLICIES: Final = {
    "anyone": Policy(anyone, CALLERS),
    "signed in": Policy(authenticated, {PARTLY, FULLY}),
    "scope a": Policy(scopes("a"), {PARTLY, FULLY}),
    "scope b": Policy(scopes("b"), {FULLY}),
    "not scope b": Policy(authenticated & ~scopes("b"), {PARTLY}),
    "deny": Policy(deny, ()),
}
MET_BY_FULLY: Final = tuple(name for name, policy in POLICIES.items() if FULLY in policy.met_by)


pytestmark = pytest.mark.usefixtures("quiet")


class ByHeader:
    """Believes a header, which is cheap."""

    fields = ("x-caller",)

    def identify(self, request: AccessRequest, now: float) -> Principal | None:
        found = request.fields.get("x-caller")
        return Principal(sub=found[0], scopes=SCOPES[found[0]]) if found else None


# ---- plans: apps as plain values


@dataclass(frozen=True)
class Leaf:
    """One endpoint. The parameters of its path are without names: `v{int}`."""

    kind: Literal["function", "class", "websocket", "asgi"]
    path: str
    methods: tuple[str, ...]
    marks: tuple[str, ...]
    method_marks: tuple[str, ...]
    """On the first method of a class-based endpoint, and on no other."""


@dataclass(frozen=True)
class Group:
    """A mount, a host or an included router, with what is in it."""

    kind: Literal["mount", "host", "include"]
    path: str
    framework: Literal["router", "starlette", "fastapi"]
    redirect_slashes: bool
    guards: tuple[str, ...]
    members: tuple["Leaf | Group", ...]


@dataclass(frozen=True)
class Plan:
    """An app with the policies of its gate: rules as methods, path and policy."""

    app: Group
    rules: tuple[tuple[tuple[str, ...], str, str], ...]
    default: str


@dataclass(frozen=True)
class Sent:
    """A request; `method` is WEBSOCKET for a handshake. `path` is what stands in the scope, `root_path` included."""

    kind: Literal["http", "websocket"]
    method: str
    path: str
    root_path: str
    host: str

    def scope(self, caller: str) -> Scope:
        """Return the ASGI scope of this request by a caller."""
        headers = [("host", self.host), *([] if caller == NOBODY else [("x-caller", caller)])]
        return scope_of(self.path, self.method, headers=headers, kind=self.kind, root_path=self.root_path)

    @property
    def routed(self) -> str:
        """The path that the app's router sees."""
        root = self.root_path
        return self.path[len(root) :] if self.path == root or self.path.startswith(root + "/") else self.path


# ---- building


def named_params(path: str, name: str) -> str:
    """Return a path with names for its parameters, which no other path has."""
    numbers = iter(range(9))
    return re.sub(r"{(\w+)}", lambda found: f"{{p{name}_{next(numbers)}:{found[1]}}}", path)


def required_by(names: Iterable[str], *, guarded: bool) -> list[Requirement]:
    """Return the requirements of these names, or none for the bare app."""
    return [POLICIES[name].requirement for name in names] if guarded else []


def endpoint_of(leaf: Leaf, name: str, ran: list[str]) -> Any:  # noqa: ANN401 - functions, classes and apps
    """Return an endpoint that notes that it ran, and answers with its name and what its path parameters were."""

    def answer(connection: HTTPConnection, note: str) -> Response:
        ran.append(note)
        return PlainTextResponse(f"{note} {connection.path_params!r}")

    async def function(request: Request) -> Response:
        return answer(request, name)

    async def websocket(websocket: WebSocket) -> None:
        ran.append(name)
        await websocket.accept()
        await websocket.close(4000, repr(websocket.path_params))

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await websocket(WebSocket(scope, receive, send))
        else:
            await answer(HTTPConnection(scope), name)(scope, receive, send)

    def method(found: str) -> object:
        async def run(self: object, request: Request) -> Response:
            return answer(request, f"{name}.{found}")

        return run

    if leaf.kind == "class":
        return type("Endpoint", (HTTPEndpoint,), {found.lower(): method(found) for found in leaf.methods})
    return {"function": function, "websocket": websocket, "asgi": asgi}[leaf.kind]


def add_leaf(router: Router, leaf: Leaf, name: str, ran: list[str], *, guarded: bool) -> None:
    """Add an endpoint to a router, with marks; to FastAPI's, the first of them as `needs`."""
    endpoint = endpoint_of(leaf, name, ran)
    wanted = required_by(leaf.marks, guarded=guarded)
    for requirement in required_by(leaf.method_marks, guarded=guarded):
        requires(requirement)(getattr(endpoint, leaf.methods[0].lower()))
    takes_needs = isinstance(router, APIRouter) and leaf.kind in {"function", "websocket"}
    needed = [needs(requirement) for requirement in wanted[:1]] if takes_needs else []
    for requirement in wanted[len(needed) :]:
        requires(requirement)(endpoint)
    path = named_params(leaf.path, name)
    match leaf.kind:
        case "function" if isinstance(router, APIRouter):
            router.add_api_route(path, endpoint, methods=list(leaf.methods), dependencies=needed)
        case "websocket" if isinstance(router, APIRouter):
            router.add_api_websocket_route(path, endpoint, dependencies=needed)
        case "function":
            router.routes.append(Route(path, endpoint, methods=leaf.methods))
        case "class":
            router.routes.append(Route(path, endpoint))
        case "websocket":
            router.routes.append(WebSocketRoute(path, endpoint))
        case "asgi":
            router.routes.append(Mount(path, endpoint))


def add_group(router: Router, group: Group, name: str, ran: list[str], *, guarded: bool) -> None:
    """Add a group to a router: its guards by turns on the route and on what is behind it."""
    wanted = required_by(group.guards, guarded=guarded)
    path = named_params(group.path, name)
    if group.kind == "include" and isinstance(router, APIRouter):
        included = APIRouter(redirect_slashes=group.redirect_slashes)
        add_members(included, group, name, ran, guarded=guarded)
        router.include_router(included, prefix=path, dependencies=[needs(requirement) for requirement in wanted])
        return
    app = app_of(group, name, ran, guarded=guarded)
    route = Host(f"{{sub{name}}}.example", app) if group.kind == "host" else Mount(path, app)
    for number, requirement in enumerate(wanted):
        guard((route, app)[number % 2], requirement)
    router.routes.append(route)


def add_members(router: Router, group: Group, name: str, ran: list[str], *, guarded: bool) -> None:
    """Add what is in a group to its router."""
    for number, member in enumerate(group.members):
        add = add_leaf if isinstance(member, Leaf) else add_group
        add(router, member, f"{name}_{number}", ran, guarded=guarded)  # type: ignore[arg-type]  # each has its own


def app_of(group: Group, name: str, ran: list[str], *, guarded: bool) -> ASGIApp:
    """Return what a group is as an app of its own."""
    if group.framework == "router":
        router = Router(redirect_slashes=group.redirect_slashes)
        add_members(router, group, name, ran, guarded=guarded)
        return router
    app = FastAPI(openapi_url=None) if group.framework == "fastapi" else Starlette()
    app.router.redirect_slashes = group.redirect_slashes
    add_members(app.router, group, name, ran, guarded=guarded)
    return app


def gate_of(plan: Plan) -> Gate:
    """Return the gate of a plan; rules that could never apply, as an earlier one takes it all, are left out."""
    rules: list[Rule] = []
    for methods, path, policy in plan.rules:
        rule = Rule(methods, path, POLICIES[policy].requirement)
        if not any(earlier.covers(rule) for earlier in rules):
            rules.append(rule)
    return Gate(tokens=ByHeader(), rules=rules, default=POLICIES[plan.default].requirement, shared=True)


class Told(NamedTuple):
    """What came of one request: which handlers ran, and the answer."""

    ran: tuple[str, ...]
    answer: Answer


def bare(plan: Plan, requests: Iterable[Sent]) -> list[Told]:
    """Send requests to the app as it is, without policies."""
    ran: list[str] = []
    return asyncio.run(_told(app_of(plan.app, "", ran, guarded=False), requests, NOBODY, ran))


def behind_gate(plan: Plan, requests: Iterable[Sent], caller: str) -> list[Told]:
    """Send requests by a caller to the app behind its gate."""
    ran: list[str] = []
    app = app_of(plan.app, "", ran, guarded=True)
    for requirement in required_by(plan.app.guards, guarded=True):
        guard(app, requirement)
    return asyncio.run(_told(AuthzMiddleware(app, gate=gate_of(plan)), requests, caller, ran))


async def _told(app: ASGIApp, requests: Iterable[Sent], caller: str, ran: list[str]) -> list[Told]:
    told = []
    for sent in requests:
        ran.clear()
        answer = await connect(app, sent.scope(caller), BODYLESS if sent.kind == "http" else CONNECT)
        told.append(Told(tuple(ran), answer))
    return told


# ---- the model


class Handler(NamedTuple):
    """A handler of a plan: its path from the top, where its own part of that starts, and the policies on its way."""

    leaf: Leaf
    path: str
    own_part: int
    policies: tuple[str, ...]


def handlers_of(group: Group, name: str = "", path: str = "", policies: tuple[str, ...] = ()) -> dict[str, Handler]:
    """Return every handler of a plan, by the name that it notes when it runs."""
    found: dict[str, Handler] = {}
    policies = (*policies, *group.guards)
    for number, member in enumerate(group.members):
        inner = f"{name}_{number}"
        below = path if isinstance(member, Group) and member.kind == "host" else path + member.path
        if isinstance(member, Group):
            found |= handlers_of(member, inner, below, policies)
        elif member.kind == "class":
            for method in member.methods:
                of_method = member.method_marks if method == member.methods[0] else ()
                found[f"{inner}.{method}"] = Handler(member, below, len(path), (*policies, *member.marks, *of_method))
        else:
            found[inner] = Handler(member, below, len(path), (*policies, *member.marks))
    return found


def fits(pattern: str, path: str) -> bool:
    """Tell whether the path of a rule fits a path."""
    below = pattern.endswith("/**")
    words = pattern.removesuffix("/**").split("/")
    expression = "/".join("[^/]+" if word == "*" else re.escape(word) for word in words)
    return re.fullmatch(expression + ("(/.*)?" if below else ""), path, re.DOTALL) is not None


def judged_as(sent: Sent) -> str:
    """Return the method that rules see: HEAD is GET, and only a handshake is WEBSOCKET."""
    if sent.kind == "websocket":
        return "WEBSOCKET"
    return {"HEAD": "GET", "WEBSOCKET": "no handshake"}.get(sent.method, sent.method)


def meets_rules(plan: Plan, sent: Sent, caller: str, method: str) -> bool | None:
    """Tell whether a caller meets the first rule that fits; `None` where there is none."""
    for methods, pattern, policy in plan.rules:
        if fits(pattern, sent.routed) and ("*" in methods or method in methods):
            return caller in POLICIES[policy].met_by
    return None


def may_run(plan: Plan, sent: Sent, caller: str, policies: tuple[str, ...]) -> bool:
    """Tell whether a caller meets all that stands on the way to a handler."""
    method = judged_as(sent)
    ruled = meets_rules(plan, sent, caller, method)
    if ruled is False or meets_rules(plan, sent, caller, method.upper()) is False:
        return False
    if not all(caller in POLICIES[policy].met_by for policy in policies):
        return False
    if ruled or policies:
        return True
    # Rules that name the path but not the method are a policy that does not include it.
    return caller in POLICIES[plan.default].met_by and not is_named(plan, sent)


def is_named(plan: Plan, sent: Sent) -> bool:
    """Tell whether any rule names the path, for whatever method."""
    return any(fits(pattern, sent.routed) for _, pattern, _ in plan.rules)


VALUES: Final = {
    "int": ("5", "0007"),
    "float": ("1.5", "5"),
    "str": ("a", "admin", "x y", "é", ".."),
    "uuid": ("6ba7b810-9dad-11d1-80b4-00c04fd430c8",),
    "path": ("", "x", "x/y/", "a/../b", "/x"),
}
TAKEN: Final = {"int": "[0-9]+", "float": r"[0-9]+(?:\.[0-9]+)?", "str": "[^/]+", "uuid": "[0-9a-fA-F-]+"}


def dots_may_pass(plan: Plan, sent: Sent, handler: Handler | None) -> bool:
    """Tell whether all dots of a path are in a handler's own path parameter; with rules, that is no promise."""
    if handler is None or plan.rules or "{path}" not in handler.path[handler.own_part :]:
        return False
    expression = re.sub(
        r"{(\w+)}", lambda found: "(?P<rest>.*)" if found[1] == "path" else TAKEN[found[1]], handler.path
    )
    found = re.fullmatch(expression, sent.routed)
    return found is not None and not has_dots(
        sent.routed[: found.start("rest")] + "x" + sent.routed[found.end("rest") :]
    )


def same_answer_is_due(plan: Plan, sent: Sent, caller: str, told: Told, handler: Handler | None) -> bool:
    """Tell whether the gate may change nothing about what the bare app answered."""
    path = sent.routed
    if is_ambiguous(path) or (has_dots(path) and not dots_may_pass(plan, sent, handler)):
        return False
    if handler is not None:
        return may_run(plan, sent, caller, handler.policies)
    if sent.method != sent.method.upper() and is_named(plan, sent):
        return False  # a spelling of a method that rules may name is denied, even where nothing would have run
    return meets_rules(plan, sent, caller, judged_as(sent)) is not False


def comparable(answer: Answer) -> object:
    """Return an answer with its header lines in an order, and a list of methods too."""
    told = []
    for message in answer.messages:
        lines = [
            (name, sorted(value.split(b", ")) if name == b"allow" else [value])
            for name, value in message.get("headers", ())
        ]
        told.append({**message, "headers": sorted(lines)})
    return told, repr(answer.error)


# ---- random plans and requests

SEGMENTS: Final = ("a", "b", "admin", "{int}", "{str}", "{float}", "{uuid}", "v{int}")
TAILS: Final = ("", "", "", "/", "/{path}", "/{path}/a")
METHODS: Final = ("GET", "POST", "DELETE", "OPTIONS")
ODD_METHODS: Final = ("HEAD", "HEAD", "HEAD", "get", "Post", "BREW", "WEBSOCKET")
HOSTS: Final = ("testserver", "one.example", "ONE.Example:80", "a.b.example", "example")
ROOTS: Final = ("", "", "/proxy", "/a")
RULE_PATHS: Final = ("a", "b", "admin", "*", "5", "v5", "x")
RULE_METHODS: Final = (("*",), ("*",), ("GET",), ("POST", "DELETE"), ("WEBSOCKET",), ("get-none", "OPTIONS"))

CHANGES: Final = (
    lambda path, at: path[:at] + path[at:].replace("/", "//", 1),
    lambda path, _: path + "/",
    lambda path, _: path.rstrip("/"),
    lambda path, _: path + "\n",
    lambda path, at: path[:at] + "%2e%2e%2f" + path[at:],
    lambda path, at: path[:at] + path[at:].replace("/", "/./", 1),
    lambda path, _: "/b/.." + path,
    lambda path, at: path[:at] + path[at:].replace("/", "\\", 1),
    lambda path, at: path[:at] + "\ufffd" + path[at:],
    lambda path, at: path[:at] + "\x00" + path[at:],
    lambda path, _: path.upper(),
    lambda path, _: path + "/x",
    lambda path, _: path.removeprefix("/"),
    lambda path, _: path[:-1],
)

segments = st.lists(st.sampled_from(SEGMENTS), max_size=2).map(lambda found: "".join(f"/{one}" for one in found))


def some_of(names: Collection[str]) -> st.SearchStrategy[tuple[str, ...]]:
    """Return none, one or two policies."""
    return st.lists(st.sampled_from(tuple(names)), max_size=2).map(tuple)


@st.composite
def leaves(draw: st.DrawFn, names: Collection[str]) -> Leaf:
    """Draw an endpoint."""
    kind = draw(st.sampled_from(("function", "function", "class", "websocket", "asgi")))
    path = draw(segments) + ("" if kind == "asgi" else draw(st.sampled_from(TAILS)))
    methods = draw(st.lists(st.sampled_from(METHODS), min_size=1, max_size=3, unique=True))
    method_marks = draw(some_of(names)) if kind == "class" else ()
    return Leaf(kind, path or "/", tuple(methods), draw(some_of(names)), method_marks)  # type: ignore[arg-type]  # sampled from its kinds


@st.composite
def groups(draw: st.DrawFn, names: Collection[str], depth: int) -> Group:
    """Draw a group with groups in it, down to a depth."""
    member: st.SearchStrategy[Leaf | Group] = leaves(names)
    if depth:
        member = st.one_of(member, groups(names, depth - 1))
    kind = draw(st.sampled_from(("mount", "mount", "include", "include", "host")))
    return Group(
        kind,  # type: ignore[arg-type]  # sampled from its kinds
        draw(segments) or ("/b" if kind == "include" else ""),  # FastAPI includes a mount at "" under a prefix only
        draw(st.sampled_from(("router", "starlette", "fastapi", "fastapi"))),
        draw(st.booleans()),
        draw(some_of(names)) if depth < DEPTH else (),
        tuple(draw(st.lists(member, min_size=1, max_size=3))),
    )


DEPTH: Final = 2
rule_paths = st.builds(
    lambda words, tail: "".join(f"/{word}" for word in words) + tail or "/",
    st.lists(st.sampled_from(RULE_PATHS), max_size=2),
    st.sampled_from(("", "/", "/**", "/**")),
)


@st.composite
def plans(draw: st.DrawFn, names: Collection[str], defaults: Collection[str]) -> Plan:
    """Draw an app and its policies."""
    app = draw(groups(names, DEPTH))
    own = [re.sub(r"/[^/]*{[^/]*", "/*", handler.path) for handler in handlers_of(app).values()]
    paths = st.one_of(st.sampled_from(own), rule_paths)
    rule = st.tuples(st.sampled_from(RULE_METHODS), paths, st.sampled_from(tuple(names)))
    return Plan(app, tuple(draw(st.lists(rule, max_size=3))), draw(st.sampled_from(tuple(defaults))))


@st.composite
def sent_to(draw: st.DrawFn, plan: Plan) -> Sent:
    """Draw a request that some handler of the plan would take, changed or not."""
    handler = draw(st.sampled_from(tuple(handlers_of(plan.app).values())))
    path = re.sub(r"{(\w+)}", lambda found: draw(st.sampled_from(VALUES[found[1]])), handler.path)
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=2)) if draw(st.booleans()) else ():
        path = change(path, draw(st.integers(0, len(path))))
    is_handshake = draw(st.sampled_from((handler.leaf.kind == "websocket",) * 3 + (True, False)))
    root = draw(st.sampled_from(ROOTS))
    return Sent(
        "websocket" if is_handshake else "http",
        "WEBSOCKET" if is_handshake else draw(st.sampled_from((*handler.leaf.methods * 3, *METHODS, *ODD_METHODS))),
        draw(st.sampled_from((root + path, root + path, root + path, path))),
        root,
        draw(st.sampled_from(HOSTS)),
    )


@st.composite
def cases(
    draw: st.DrawFn, names: Collection[str] = POLICIES, defaults: Collection[str] = POLICIES
) -> tuple[Plan, list[Sent]]:
    """Draw a plan and requests to it."""
    plan = draw(plans(names, defaults))
    return plan, draw(st.lists(sent_to(plan), min_size=4, max_size=10))


def each(plan: Plan, requests: list[Sent], caller: str) -> Iterator[tuple[Sent, Told, Told]]:
    """Yield each request with what the bare app made of it, and the guarded one."""
    return zip(requests, bare(plan, requests), behind_gate(plan, requests, caller), strict=True)


@SOME
@given(case=cases(), caller=st.sampled_from(CALLERS))
def test_a_handler_runs_only_for_who_meets_all_that_stands_on_its_way(
    case: tuple[Plan, list[Sent]], caller: str
) -> None:
    """Whatever is asked of whatever app: what ran is what runs on the bare app, and every policy for it is met."""
    plan, requests = case
    handlers = handlers_of(plan.app)
    for sent, before, behind in each(plan, requests, caller):
        for name in behind.ran:
            assert before.ran == behind.ran
            assert not is_ambiguous(sent.routed)
            assert not has_dots(sent.routed) or "{path}" in handlers[name].path
            assert may_run(plan, sent, caller, handlers[name].policies), (sent, name)


@SOME
@given(case=cases(MET_BY_FULLY, ("anyone", "signed in")))
def test_who_meets_everything_gets_the_very_answer_of_the_bare_app(case: tuple[Plan, list[Sent]]) -> None:
    """With all rights, every request but a malformed one has the handler, status, headers and body of the bare app."""
    plan, requests = case
    handlers = handlers_of(plan.app)
    for sent, before, behind in each(plan, requests, FULLY):
        handler = handlers[before.ran[0]] if before.ran else None
        if same_answer_is_due(plan, sent, FULLY, before, handler):
            assert behind.ran == before.ran, sent
            assert comparable(behind.answer) == comparable(before.answer), sent
