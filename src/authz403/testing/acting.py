"""`acting_as`: requests in the name of somebody, where a test does not want to care for tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from types import TracebackType

from authz403.principal import Principal
from authz403.testing.callers import SUB, Caller, names_in, principal_for, source_of
from authz403.testing.decisions import remembering
from authz403.testing.seam import acting, now_of, served


class acting_as:  # noqa: N801 - reads as what it does, like the context managers of the standard library
    """Take every request to `app` for one of this caller: `with acting_as(app, scopes={"orders:read"}): ...`.

    The policy holds as ever: what the caller lacks is refused. Scopes, roles and permissions are collections, or texts
    with spaces between the names; roles stand in the place of those that `Rbac(roles_for=)` would look up. `claims` are
    more claims, or others. What credentials a request carries makes no difference. Gives the `Principal`.

    Holds for the requests of this thread or task alone, so for test clients and not for a server in another thread.
    Blocks may stand within each other, the innermost counts. Works in async tests (with a plain `with`).
    """

    def __init__(
        self,
        app: object,
        *,
        sub: str = SUB,
        scopes: str | Collection[str] = (),
        roles: str | Collection[str] = (),
        permissions: str | Collection[str] = (),
        claims: Mapping[str, object] | None = None,
        issuer: str | None = None,
    ) -> None:
        gate = served(app).gate
        caller = Caller(
            sub=sub,
            scopes=names_in("scopes", scopes),
            roles=names_in("roles", roles),
            permissions=names_in("permissions", permissions),
            claims=claims or {},
            issuer=issuer,
        )
        self._gate = gate
        self._principal = principal_for(caller, source_of(gate.sources, issuer), gate.rbac, now_of(gate))
        self._entered = ExitStack()

    def __enter__(self) -> Principal:
        self._entered.enter_context(remembering())
        return self._entered.enter_context(acting(self._gate, self._principal))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.close()
