"""Identities for tests: requests with credentials as plain values, and what an `Identifier` makes of them.

>>> who(Identifier([tokens()]), token()).sub  # the principal that a good token names
>>> why_not(Identifier([tokens()]), token(exp=1)).reason  # why a bad one names nobody
>>> settled(identifier.identify(request(x_key="bob"), NOW))  # any request, whatever it needs from outside
"""

import asyncio
from concurrent.futures import Future
from typing import Any, cast

from authz403 import Principal
from authz403.facts import Rejected
from authz403.identity import Identifier, Identity
from authz403.need import How, Need
from authz403.request import AccessRequest
from tests.tokens_made import NOW, bearer


def request(*authorization: str, **fields: str | tuple[str, ...]) -> AccessRequest:
    """Return a request with these Authorization lines and header fields (`x_key` is X-Key, a tuple several lines)."""
    others = {name.replace("_", "-"): value if isinstance(value, tuple) else (value,) for name, value in fields.items()}
    lines = {"authorization": authorization} if authorization else {}
    return AccessRequest("GET", "/orders", fields={**lines, **others})


def settled(step: Identity | Need[Identity]) -> Identity:
    """Fulfil needs as an adapter does: an exception of the work is what `resume` gets."""
    while isinstance(step, Need):
        answer: object
        try:
            answer = step.work()
            if isinstance(answer, Future):
                answer = answer.result(10)
            elif step.how is How.COROUTINE:
                answer = asyncio.run(cast("Any", answer))
        except Exception as error:  # noqa: BLE001 - whatever a user's function raises
            answer = error
        step = step.resume(answer)
    return step


def who(identifier: Identifier, text: str, now: float = NOW) -> Principal:
    """Return whom a token names; it must be good."""
    found = settled(identifier.identify(request(bearer(text)), now))
    assert isinstance(found, Principal), found
    return found


def why_not(identifier: Identifier, text: str, now: float = NOW) -> Rejected:
    """Return why a token names nobody."""
    found = settled(identifier.identify(request(bearer(text)), now))
    assert isinstance(found, Rejected), found
    return found
