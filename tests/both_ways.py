"""Every request that a test sends the short way goes the long way too, and both must say the same."""

import re
from collections.abc import Callable
from copy import copy
from typing import Any

from starlette.types import Scope

from authz403.asgi_io import access_request
from authz403.decision import Outcome
from authz403.routing import Trail
from authz403.short_way import AskedRoutes, ShortWay

_ULID = re.compile(rb"[0-9A-HJKMNP-TV-Z]{26}")


def told(outcome: Outcome) -> dict[str, Any]:
    """Return all that an outcome says, but for when it was made."""
    response = outcome.response
    return {
        **{name: getattr(outcome, name) for name in ("request", "address", "headers", "report_only", "decision")},
        **{name: getattr(outcome, name) for name in ("principal", "rejected_facts", "route", "demanded")},
        **{name: getattr(outcome, name) for name in ("concealed_as_missing", "missing_at", "check_failed", "inner")},
        "has an id": outcome.decision_id is not None,
        "response": response
        and (
            response.status,
            [(name, _ULID.sub(b"", value)) for name, value in response.headers],
            _ULID.sub(b"", response.body),
        ),
    }


def checked(
    short: Callable[[ShortWay, Scope, Trail], Outcome | AskedRoutes | None],
) -> Callable[..., Outcome | AskedRoutes | None]:
    """Return the short way, held to what the long way says."""

    def outcome(self: ShortWay, scope: Scope, trail: Trail) -> Outcome | AskedRoutes | None:
        found = short(self, scope, trail)
        # The long way crashes at what no server sends, before anything runs.
        if isinstance(found, Outcome) and all(isinstance(value, bytes) for _, value in scope["headers"]):
            way: Trail = []
            request = access_request(scope, self._wanted)
            long = self._gate.decide(request, self._routes, (scope, way, request.path))
            assert isinstance(long, Outcome), "the long way needs something from outside"
            # Of a copy, as the one that goes on is to be read as late as without this.
            assert (told(copy(found)), trail) == (told(long), way)
        return found

    return outcome
