"""For FastAPI: policies as dependencies, and the caller in an endpoint's signature."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

from fastapi import Depends

from authz403.checks import decided_outcome
from authz403.errors import AccessDenied, ConfigurationError, Mistake
from authz403.marks import NEED, TAKES_IDENTITY, Mark
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

__all__: Final = ["CurrentPrincipal", "MaybePrincipal", "needs"]
