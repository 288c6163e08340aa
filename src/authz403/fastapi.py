"""For FastAPI: policies as dependencies, and the caller in an endpoint's signature."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI

from authz403.checks import decided_outcome
from authz403.errors import AccessDenied, ConfigurationError, Mistake, Mistakes
from authz403.gate import Gate
from authz403.marks import NEED, TAKES_IDENTITY, Mark
from authz403.openapi import Described, described, place_of
from authz403.policy import Requirement, as_requirement
from authz403.principal import Principal
from authz403.reasons import Reason
from authz403.requirements import own_code_or_reason

_DESCRIBES: Final = "__authz403_describes__"
"""The attribute by which an app's `openapi` says whose policies it holds."""


def needs(requirement: Requirement) -> Any:  # noqa: ANN401 - FastAPI's own Depends returns Any, so that it fits everywhere
    """Return a FastAPI dependency that puts app, router, `include_router` or route under `requirement`.

    `APIRouter(prefix="/admin", dependencies=[needs(any_role("admin"))])`. The gate reads it from the routes and decides
    before the request is dispatched; all that applies must hold. Called where no gate decided, it raises
    `ConfigurationError`, and the endpoint does not run.
    """
    found = as_requirement("needs", "requirement", requirement)
    frame = sys._getframe(1)  # noqa: SLF001 - the documented way to learn who calls

    async def needed() -> None:
        if id(found) not in decided_outcome("needs").demanded:
            why = f"no gate decided about {found!r} for this route"
            raise ConfigurationError("needs", [Mistake("gate", "", why)])

    setattr(needed, NEED, Mark(found, f"{frame.f_code.co_filename}:{frame.f_lineno}"))
    return Depends(needed)


def describe_policies(app: FastAPI, *, gate: Gate, within: object = None, codes: Iterable[str] = ()) -> None:
    """Add the gate's policies to the app's OpenAPI document: call it once, after `add_middleware`.

    Each guarded operation gets its security with the scopes that it takes, and its 400, 401, 403 and 503 responses with
    the body's schema and the reasons that it can give; what the app says of these itself stays. Operations that are
    concealed are left out. The document is made when it is first asked for, so that routes may be added later.

    Where the gate stands before another app that `app` is mounted in, `within` is that other app; mount first. `codes`
    are those that handlers refuse with by `check`. Raises `ConfigurationError` where the app is described already in
    another way or is not mounted once in `within`, and, when the document is made, where a name is taken.
    """
    told = tuple(own_code_or_reason("describe_policies", code) for code in _codes(codes))
    earlier = getattr(app.openapi, _DESCRIBES, None)
    if earlier is not None:
        if earlier != (gate, within, told):
            why = "the document of this app is described already, by another gate or in another way"
            raise ConfigurationError("describe_policies", [Mistake("app", repr(app.title), why)])
        return
    prefix = "" if within is None else place_of(app, within)
    generate = app.openapi
    made: tuple[object, Described] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal made
        document = generate()
        if made is not None and made[1].is_part_of(document):
            return document  # what the app keeps as its document is what this returned before
        # FastAPI returns one document until routes are added, and so does this.
        if made is None or made[0] is not document:
            rows = gate.coverage(app if within is None else within)
            inside = (row._replace(path=row.path.removeprefix(prefix)) for row in rows if row.path.startswith(prefix))
            made = (document, described(document, gate, inside, told))
        return made[1].document

    setattr(openapi, _DESCRIBES, (gate, within, told))
    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _codes(codes: Iterable[str]) -> tuple[str, ...]:
    mistakes = Mistakes("describe_policies")
    found = mistakes.strings("codes", codes)
    mistakes.raise_if_any()
    return found


async def _maybe() -> Principal | None:
    return decided_outcome("MaybePrincipal").principal


async def _current() -> Principal:
    principal = decided_outcome("CurrentPrincipal").principal
    if principal is None:
        # The policy let the request in by an alternative that asks nobody who they are.
        raise AccessDenied(Reason.MISSING_TOKEN)
    return principal


setattr(_current, TAKES_IDENTITY, True)

CurrentPrincipal = Annotated[Principal, Depends(_current)]
"""The caller, as an endpoint's parameter: `user: CurrentPrincipal`. Its policy must ask for an identity."""

MaybePrincipal = Annotated[Principal | None, Depends(_maybe)]
"""The caller or `None`, for endpoints that are `optional` or open."""

__all__: Final = ["CurrentPrincipal", "MaybePrincipal", "describe_policies", "needs"]
