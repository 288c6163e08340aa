"""For FastAPI: policies as dependencies, and the caller in an endpoint's signature."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI

from authz403.checks import decided_outcome
from authz403.errors import AccessDenied, ConfigurationError, Mistake
from authz403.gate import Gate
from authz403.marks import NEED, TAKES_IDENTITY, Mark
from authz403.openapi import SCHEMA, describe
from authz403.policy import Requirement, as_requirement
from authz403.principal import Principal
from authz403.reasons import Reason


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


def describe_policies(app: FastAPI, *, gate: Gate) -> None:
    """Add the gate's policies to the app's OpenAPI document: call it once, after `add_middleware`.

    Each guarded operation gets its security with the scopes that it takes, and its 401, 403 and 503 responses with the
    body's schema and the reasons that it can give; what the app says of these itself stays. The document is made when
    it is first asked for, so that routes may be added later. The operations of mounted apps are theirs to describe.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        if SCHEMA not in document.get("components", {}).get("schemas", {}):
            describe(document, gate, gate.coverage(app))
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


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
