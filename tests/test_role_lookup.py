import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import pytest
from starlette.applications import Starlette

import authz403.role_lookup
from authz403 import BearerTokens, Principal, Rbac, Reason, any_role
from authz403.asgi import AuthzMiddleware
from authz403.identity import Identifier
from authz403.need import How, Need
from authz403.role_lookup import RoleLookup
from tests import apps_made
from tests.apps_made import Answer, add_route, connect, gate_with, listening, ran_by, scope_of, wrapped
from tests.gates_made import Callers, someone
from tests.identities_made import request, settled, who, why_not
from tests.tokens_made import ABSENT, AUDIENCE, ISSUER, NOW, bearer, ec_key, public_pem, token, tokens

PARTNER: Final = "https://partner.example"


class Directory:
    """Roles that a directory knows, and how often it was asked."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []

    def roles_for(self, principal: Principal) -> Collection[str]:
        """Return the roles of a caller, at once."""
        self.asked.append(principal.key)
        if isinstance(self.answer, Exception):
            raise self.answer
        return cast("Collection[str]", self.answer)

    async def roles_for_later(self, principal: Principal) -> Collection[str]:
        """Return the roles of a caller, after some waiting."""
        return self.roles_for(principal)


@pytest.fixture(params=["sync", "async"])
def roles_of(request: pytest.FixtureRequest) -> Callable[..., tuple[Directory, Rbac]]:
    """Give a function that makes a directory and the Rbac that asks it, in both ways."""

    def made(answer: object, **options: Any) -> tuple[Directory, Rbac]:  # noqa: ANN401 - any option of Rbac
        directory = Directory(answer)
        ask = directory.roles_for_later if request.param == "async" else directory.roles_for
        return directory, Rbac(roles_for=ask, **options)

    return made


Made = Callable[..., tuple[Directory, Rbac]]


def test_roles_are_asked_for_and_remembered(roles_of: Made) -> None:
    """They replace the token's, with hierarchy and grants, and are asked for again after `roles_ttl` seconds."""
    directory, rbac = roles_of(["admin"], hierarchy={"admin": ["seller"]}, grants={"seller": ["refund"]}, roles_ttl=60)
    identifier = Identifier([tokens()], rbac)
    text = token(roles=["owner"])
    for now in (NOW, NOW + 1, NOW + 59.9):
        principal = who(identifier, text, now)
        assert principal.roles == {"admin", "seller"}
        assert principal.permissions == {"refund"}
    assert directory.asked == [(ISSUER, "alice")]
    directory.answer = ()
    assert who(identifier, text, NOW + 60).roles == frozenset()
    assert len(directory.asked) == 2


def test_roles_are_remembered_by_caller(roles_of: Made) -> None:
    """Another token of the same caller asks nothing; another caller, or the same name elsewhere, does."""
    directory, rbac = roles_of({"admin"})
    partner = BearerTokens(issuer=PARTNER, audience=AUDIENCE, key=public_pem(ec_key(nth=2)))
    identifier = Identifier([tokens(), partner], rbac)
    who(identifier, token())
    who(identifier, token(jti="another"))
    assert len(directory.asked) == 1
    who(identifier, token(sub="bob"))
    who(identifier, token(iss=PARTNER, key=ec_key(nth=2)))
    assert directory.asked == [(ISSUER, "alice"), (ISSUER, "bob"), (PARTNER, "alice")]


def test_how_roles_are_asked_for_is_said(roles_of: Made) -> None:
    """A plain function may block and is kept off the loop; a coroutine function is awaited."""
    _, rbac = roles_of(["admin"])
    need = Identifier([tokens()], rbac).identify(request(bearer(token())), NOW)
    assert isinstance(need, Need)
    assert need.how is (How.COROUTINE if rbac.asks_asynchronously else How.BLOCKING)
    settled(need)


def test_without_a_ttl_roles_are_asked_for_each_time(roles_of: Made) -> None:
    """`roles_ttl=0` remembers nothing."""
    directory, rbac = roles_of(["admin"], roles_ttl=0)
    identifier = Identifier([tokens()], rbac)
    who(identifier, text := token())
    who(identifier, text)
    assert len(directory.asked) == 2


def test_roles_are_asked_for_where_another_source_knows_the_caller(roles_of: Made) -> None:
    """Sessions and API keys have their roles replaced too."""
    _, rbac = roles_of(["seller"], hierarchy={"admin": ["owner"]})
    identifier = Identifier([Callers(someone("bob", roles=["admin"]))], rbac)
    found = settled(identifier.identify(request(), NOW))
    assert isinstance(found, Principal)
    assert found.roles == {"seller"}


def test_a_bad_token_asks_for_no_roles(roles_of: Made) -> None:
    """Nobody is looked up on the word of a token that does not hold."""
    directory, rbac = roles_of(["admin"])
    why_not(Identifier([tokens()], rbac), token(key=ec_key(nth=1)))
    assert directory.asked == []


def test_a_directory_that_fails_is_a_503_and_not_remembered(roles_of: Made) -> None:
    """An exception means: cannot be decided now; the next request asks again."""
    directory, rbac = roles_of(ConnectionError("ldap is down"))
    identifier = Identifier([tokens()], rbac)
    answer = why_not(identifier, text := token(roles=["admin"]))
    assert answer.reason is Reason.POLICY_UNAVAILABLE
    assert answer.retry_after is not None
    assert "ldap is down" in str(answer.hint)
    directory.answer = ["seller"]
    assert who(identifier, text).roles == {"seller"}


@pytest.mark.parametrize(
    "answer",
    [None, "admin", b"admin", 5, True, [5], ["admin", None], [["admin"]], {"admin": False}, {"roles": ["admin"]}],
    ids=repr,
)
def test_an_answer_that_is_no_list_of_roles_is_a_503(roles_of: Made, answer: object) -> None:
    """A wrong type grants nothing: not its letters, not its keys, not the token's own roles."""
    _, rbac = roles_of(answer)
    rejected = why_not(Identifier([tokens()], rbac), token(roles=["admin"]))
    assert rejected.reason is Reason.POLICY_UNAVAILABLE
    assert rejected.retry_after is not None
    assert "roles_for" in str(rejected.hint)


def test_the_number_of_remembered_callers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the oldest are asked for again."""
    monkeypatch.setattr(authz403.role_lookup, "_MOST_CALLERS", 3)
    directory = Directory(["seller"])
    identifier = Identifier([tokens()], Rbac(roles_for=directory.roles_for))
    texts = [token(sub=f"u{number}") for number in range(5)]
    for text in texts:
        who(identifier, text)
    who(identifier, texts[-1])
    assert len(directory.asked) == 5
    who(identifier, texts[0])
    assert len(directory.asked) == 6


def test_a_caller_who_is_asked_for_again_pushes_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that replaces an older one of the same caller needs no room."""
    monkeypatch.setattr(authz403.role_lookup, "_MOST_CALLERS", 2)
    directory = Directory(["seller"])
    identifier = Identifier([tokens()], Rbac(roles_for=directory.roles_for, roles_ttl=60))
    alice, bob = token(sub="alice"), token(sub="bob")
    who(identifier, alice, NOW + 50)
    who(identifier, bob)
    who(identifier, bob, NOW + 61)
    assert len(directory.asked) == 3
    who(identifier, alice, NOW + 62)
    assert len(directory.asked) == 3


def test_a_client_is_not_the_user_of_its_name(roles_of: Made) -> None:
    """RFC 9068 section 5: whoever registers a client named like an admin has not that admin's remembered roles."""
    directory, rbac = roles_of(["admin"])
    identifier = Identifier([tokens()], rbac)
    assert who(identifier, token(sub="root")).roles == {"admin"}
    directory.answer = []
    assert who(identifier, token(sub=ABSENT, client_id="root")).roles == frozenset()
    assert who(identifier, token(sub="root")).roles == {"admin"}


# Look-ups that take too long, through a real app


SOON: Final = 0.01  # seconds: long enough for a look-up that answers at once
LATE: Final = 60.0


def app_of(roles_for: Any, ran: list[str], *, roles_timeout: float = SOON) -> AuthzMiddleware:  # noqa: ANN401 - both kinds
    """Return an app with `/x`, which admins may call, whose roles are looked up."""
    app = Starlette()
    add_route(app, "/x", ran_by("x", ran))
    rbac = Rbac(roles_for=roles_for, roles_timeout=roles_timeout)
    return wrapped(app, gate_with(rbac=rbac, default=any_role("admin")))


def asked_by(app: AuthzMiddleware, sub: str) -> Awaitable[Answer]:
    """Ask for `/x` as somebody."""
    return connect(app, scope_of("/x", headers=apps_made.bearer(sub)))


class SlowDirectory:
    """Knows at once that everybody is an admin, but for those it is `stuck` on: they wait until `go_on`."""

    def __init__(self, *stuck: str) -> None:
        self.stuck = set(stuck)
        self.go_on = threading.Event()
        self.asked: list[str] = []
        self.answered: list[str] = []
        self.cancelled: list[str] = []
        self.begun = asyncio.Event()
        self.landed = threading.Semaphore(0)
        self._loop: asyncio.AbstractEventLoop | None = None

    def roles_for(self, principal: Principal) -> list[str]:
        """Return the roles of a caller, from a thread that may be stuck."""
        self.asked.append(principal.sub)
        if principal.sub in self.stuck:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self.begun.set)
            assert self.go_on.wait(10)
        self.answered.append(principal.sub)
        self.landed.release()
        return ["admin"]

    async def roles_for_later(self, principal: Principal) -> list[str]:
        """Return the roles of a caller, from a coroutine that may be stuck."""
        self.asked.append(principal.sub)
        if principal.sub in self.stuck:
            self.begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.append(principal.sub)
                raise
        self.answered.append(principal.sub)
        return ["admin"]

    def way(self, kind: str) -> object:
        """Return the way to ask of this kind: sync or async."""
        return self.roles_for_later if kind == "async" else self.roles_for

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a test's coroutine; whatever is still stuck then goes on."""

        async def whole() -> None:
            self._loop = asyncio.get_running_loop()
            try:
                await work()
            finally:
                self.go_on.set()

        asyncio.run(whole())


both_ways = pytest.mark.parametrize("kind", ["sync", "async"])


@both_ways
def test_a_look_up_that_takes_too_long_is_a_503(kind: str) -> None:
    """After `roles_timeout` seconds the caller is told to try again; nothing ran, and the log says what took long."""
    directory, ran = SlowDirectory("ada"), list[str]()
    app = app_of(directory.way(kind), ran)

    async def work() -> None:
        with listening() as events:
            answer = await asked_by(app, "ada")
        assert (answer.status, answer.reason, ran) == (503, "policy_unavailable", [])
        assert int(answer.header("retry-after") or "") >= 1
        assert answer.header("www-authenticate") is None
        assert [(event["event"], event["reason"]) for event in events] == [("authz.error", "policy_unavailable")]
        assert "roles_for" in str(events[0]["hint"])
        assert f"longer than {SOON:g} s" in str(events[0]["hint"])

    directory.run(work)


@both_ways
def test_a_look_up_that_hangs_holds_up_nobody_else(kind: str) -> None:
    """While one caller's roles are waited for, another is served."""
    directory, ran = SlowDirectory("ada"), list[str]()
    app = app_of(directory.way(kind), ran, roles_timeout=LATE)

    async def work() -> None:
        waiting = asyncio.ensure_future(asked_by(app, "ada"))
        await directory.begun.wait()
        for _ in range(3):
            assert (await asked_by(app, "bob")).status == 200
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    directory.run(work)
    assert ran == ["x"] * 3


@both_ways
def test_look_ups_that_hang_take_no_threads_from_others(kind: str) -> None:
    """However many look-ups were given up and still hang, other callers are looked up and the app has its threads."""
    stuck = [f"u{number}" for number in range(4)]
    directory, ran = SlowDirectory(*stuck), list[str]()
    app = app_of(directory.way(kind), ran)
    patient = app_of(directory.way(kind), ran, roles_timeout=1)

    async def work() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        for sub in stuck:
            assert (await asked_by(app, sub)).status == 503
        async with asyncio.timeout(1):
            assert await asyncio.to_thread(lambda: "the app's own work") == "the app's own work"
        assert (await asked_by(patient, "bob")).status == 200

    directory.run(work)


def test_an_async_look_up_is_cancelled_when_it_is_given_up() -> None:
    """It does not go on for nobody, and its late answer is not taken."""
    directory, ran = SlowDirectory("ada"), list[str]()
    app = app_of(directory.roles_for_later, ran)

    async def work() -> None:
        assert (await asked_by(app, "ada")).status == 503
        assert directory.cancelled == ["ada"]
        directory.stuck.clear()
        assert (await asked_by(app, "ada")).status == 200

    directory.run(work)
    assert directory.asked == ["ada", "ada"]
    assert directory.answered == ["ada"]


def test_the_late_answer_of_an_abandoned_thread_harms_nobody() -> None:
    """A thread cannot be stopped: what it answers after all, roles or an error, decides nothing and breaks nothing."""
    directory, ran = SlowDirectory("ada", "eve"), list[str]()

    def roles_for(principal: Principal) -> Collection[str]:
        roles = directory.roles_for(principal)
        if principal.sub == "eve":
            raise ConnectionError("too late")
        return roles

    app = app_of(roles_for, ran)
    patient = app_of(roles_for, ran, roles_timeout=LATE)

    async def work() -> None:
        with listening() as events:
            for sub in ("ada", "eve"):
                assert (await asked_by(app, sub)).status == 503
            abandoned = len(directory.asked)
            directory.go_on.set()
            assert all(directory.landed.acquire(timeout=10) for _ in range(abandoned))
            directory.stuck.clear()
            assert (await asked_by(patient, "ada")).status == 200
            assert (await asked_by(patient, "eve")).status == 503
        assert [event.get("sub") for event in events if event["event"] == "authz.allowed"] == ["ada"]
        assert len(events) == 4

    directory.run(work)
    assert ran == ["x"]


def test_a_look_up_that_was_given_up_is_asked_again(roles_of: Made) -> None:
    """A time-out is not remembered, and roles that are remembered are not lost to one."""
    directory, rbac = roles_of(TimeoutError())
    identifier = Identifier([tokens()], rbac)
    why_not(identifier, text := token())
    directory.answer = ["seller"]
    assert who(identifier, text).roles == {"seller"}
    directory.answer = TimeoutError()
    assert who(identifier, text).roles == {"seller"}
    assert len(directory.asked) == 2


@pytest.mark.parametrize("error", [TimeoutError(), TimeoutError("ldap: read timed out")], ids=str)
def test_a_time_out_of_the_look_ups_own_is_a_503(roles_of: Made, error: TimeoutError) -> None:
    """Whether the directory's client gave up or the gate did, the answer and the hint are true."""
    _, rbac = roles_of(error, roles_timeout=7.5)
    rejected = why_not(Identifier([tokens()], rbac), token(roles=["admin"]))
    assert rejected.reason is Reason.POLICY_UNAVAILABLE
    assert rejected.retry_after is not None
    assert rejected.hint == "roles_for raised TimeoutError, or took longer than 7.5 s"


@pytest.mark.parametrize("roles_timeout", [0.5, 5, 60])
def test_the_limit_of_a_look_up_is_the_configured_one(roles_of: Made, roles_timeout: float) -> None:
    """The adapters are told how long to wait, for a token's caller and for any other."""
    _, rbac = roles_of(["admin"], roles_timeout=roles_timeout)
    for need in (
        Identifier([tokens()], rbac).identify(request(bearer(token())), NOW),
        Identifier([Callers(someone())], rbac).identify(request(), NOW),
    ):
        assert isinstance(need, Need)
        assert need.within == roles_timeout
        settled(need)


def test_an_answer_that_comes_late_takes_nothing_back() -> None:
    """Roles that were taken away while a slow look-up was under way do not come back with it."""
    lookup = RoleLookup(Rbac(roles_for=lambda _: [], roles_ttl=60), lambda _: [])
    bob = Principal(sub="bob", roles=frozenset({"seller"}))
    slow = lookup.applied(bob, NOW)
    quick = lookup.applied(bob, NOW + 5)
    assert isinstance(slow, Need)
    assert isinstance(quick, Need)
    assert quick.resume([]) == Principal(sub="bob")
    assert slow.resume(["admin"]) == Principal(sub="bob", roles=frozenset({"admin"}))
    assert lookup.applied(bob, NOW + 6) == Principal(sub="bob")


def test_roles_of_a_future_that_a_clock_was_set_back_from_are_asked_for_again() -> None:
    """An answer holds for its time, whatever the clock does."""
    lookup = RoleLookup(Rbac(roles_for=lambda _: [], roles_ttl=60), lambda _: [])
    bob = Principal(sub="bob")
    later = lookup.applied(bob, NOW + 86_400)
    assert isinstance(later, Need)
    later.resume(["admin"])
    assert isinstance(lookup.applied(bob, NOW + 86_401), Principal)
    assert isinstance(lookup.applied(bob, NOW), Need)
