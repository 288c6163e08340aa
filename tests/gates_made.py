"""Gates for tests: callers that need no token, requests as plain values, and needs fulfilled by hand.

>>> judged(scopes("orders:write"))  # what a gate decides for ALICE, who calls from 10.1.2.3
>>> judged(networks("10.0.0.0/8"), NOBODY, peer=None)  # no token, no address
>>> source = Callers(ALICE)  # an IdentitySource that counts how often it was asked
>>> fulfilled(gate.decide(AccessRequest("GET", "/")))  # the outcome, whatever it needed from outside
"""

from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Final, cast

from hypothesis import strategies as st

from authz403 import (
    Decision,
    Gate,
    Principal,
    Reason,
    Requirement,
    Rule,
    anyone,
    authenticated,
    deny,
    networks,
    optional,
    requirement,
    roles,
    scopes,
)
from authz403.decision import Outcome
from authz403.endpoint import Endpoint, Found, RulesAlone
from authz403.facts import Facts, Rejected
from authz403.marks import Mark
from authz403.need import How, Need
from authz403.request import AccessRequest

Identity = Principal | Rejected

NOW: Final = 2_000_000_000.0
INSIDE: Final = "10.1.2.3"
OUTSIDE: Final = "198.51.100.7"
ORDER: Final = "/orders/5"

NOBODY: Final = Rejected(Reason.MISSING_TOKEN)
FORGED: Final = Rejected(Reason.INVALID_TOKEN, "its signature is not that of the key it names")
KEYLESS: Final = Rejected(Reason.KEYS_UNAVAILABLE, "the issuer does not answer", retry_after=7.2)


def someone(sub: str = "alice", **fields: object) -> Principal:
    """Return a caller with sensible fields, changed by `fields`."""
    lists = {"scopes", "roles", "permissions"}
    found = {name: frozenset(cast("list[str]", value)) if name in lists else value for name, value in fields.items()}
    make = cast("Callable[..., Principal]", Principal)
    return make(**{"sub": sub, "issuer": "https://id.example", "client_id": "shop", "token_id": "t-1", **found})


ALICE: Final = someone(
    scopes=["a", "b"],
    roles=["seller"],
    permissions=["orders:refund"],
    claims={"tenant": "acme", "level": 1, "active": True, "groups": ("x", "y"), "number": "5", "nothing": None},
)


class Callers:
    """An `IdentitySource` for which everybody is the same caller; `asked` counts how often it had to say so."""

    fields: frozenset[str] = frozenset()

    def __init__(self, identity: Identity | None) -> None:
        self.identity = identity
        self.asked = 0

    def identify(self, request: AccessRequest, now: float) -> Identity | None:
        self.asked += 1
        return self.identity


class OneRoute(RulesAlone):
    """The routes of an app with one endpoint, which takes every path."""

    def __init__(self, *marks: Requirement, params: Mapping[str, object] | None = None, found: bool = True) -> None:
        endpoint = Endpoint("/orders/{order}", "read_order", [Mark(one, "shop.py:1") for one in marks])
        self.found = Found(endpoint if found else None), params or {}

    def find(self, native: object) -> tuple[Found, Mapping[str, object]]:
        return self.found


def fulfilled(step: Outcome | Need[Outcome]) -> Outcome:
    """Do what a decision needs from outside until there is an outcome."""
    while isinstance(step, Need):
        try:
            answer = step.work()
            if step.how is How.COROUTINE:
                answer = awaited(answer)
            elif isinstance(answer, Future):
                answer = answer.result(timeout=5)
        except Exception as error:  # noqa: BLE001 - an adapter hands on whatever the work raised
            answer = error
        step = step.resume(answer)
    return step


def awaited(awaitable: object) -> object:
    """Run a coroutine that waits for nothing, without an event loop."""
    try:
        cast("Coroutine[object, None, object]", awaitable).send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the coroutine waits for something")


def outcome_of(
    wanted: Requirement,
    identity: Identity | None = ALICE,
    *,
    peer: str | None = INSIDE,
    params: Mapping[str, object] | None = None,
    now: float = NOW,
) -> Outcome:
    """Return what becomes of a request to an endpoint that needs `wanted`."""
    gate = Gate(tokens=Callers(identity), rules=[Rule("*", "/**", wanted)], clock=lambda: now)
    return fulfilled(gate.decide(AccessRequest("GET", ORDER, peer), OneRoute(params=params)))


def judged(
    wanted: Requirement,
    identity: Identity | None = ALICE,
    *,
    peer: str | None = INSIDE,
    params: Mapping[str, object] | None = None,
    now: float = NOW,
) -> Decision:
    """Return what a gate decides for a request to an endpoint that needs `wanted`."""
    return outcome_of(wanted, identity, peer=peer, params=params, now=now).decision


# ---- random requirements


def _raises(facts: Facts) -> bool:
    raise RuntimeError("the plan service is down")


async def _says_yes(facts: Facts) -> bool:
    return True


async def _says_no(facts: Facts) -> bool:
    return False


async def _fails(facts: Facts) -> bool:
    raise RuntimeError("the plan service is down")


LEAVES: Final[tuple[Requirement, ...]] = (
    anyone,
    deny,
    authenticated,
    optional,
    networks("10.0.0.0/8"),
    scopes("a"),
    scopes("c"),
    scopes("a", "c"),
    roles("seller"),
    roles("admin"),
    requirement("says_yes", lambda _: True),
    requirement("says_no", lambda _: False),
    requirement("fails", _raises),
    requirement("says_yes_to_all", lambda _: True, anonymous=True),
    requirement("says_no_to_all", lambda _: False, anonymous=True),
    requirement("fails_for_all", _raises, anonymous=True),
    requirement("says_yes_later", _says_yes),
    requirement("says_yes_later_to_all", _says_yes, anonymous=True),
    requirement("says_no_later", _says_no, anonymous=True),
    requirement("fails_later", _fails, anonymous=True),
)

IDENTITIES: Final = (ALICE, someone("bob"), NOBODY, FORGED, KEYLESS)
PEERS: Final = (INSIDE, OUTSIDE, None)

identities: Final = st.sampled_from(IDENTITIES)
peers: Final = st.sampled_from(PEERS)
requirements: Final[st.SearchStrategy[Requirement]] = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.builds(lambda one, other: one & other, inner, inner),
        st.builds(lambda one, other: one | other, inner, inner),
        st.builds(lambda one: ~one, inner),
        st.builds(lambda one: one.concealed(), inner),
    ),
    max_leaves=6,
)
