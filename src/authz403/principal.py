"""Who is asking: the identity that a verified credential gives, and nobody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeGuard

NO_CLAIMS: Final[Mapping[str, object]] = MappingProxyType({})
NO_NAMES: Final[frozenset[str]] = frozenset()


class Credentials:
    """What Starlette reads at `request.auth`: the scopes, with `"authenticated"` first where somebody signed in."""

    __slots__ = ("scopes",)

    def __init__(self, scopes: tuple[str, ...]) -> None:
        self.scopes = scopes


@lru_cache(maxsize=4_096)
def _credentials(scopes: frozenset[str]) -> Credentials:
    return Credentials(("authenticated", *sorted(scopes)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A signed-in caller, as `request.user`, `CurrentPrincipal` and requirements see it.

    `sub` is never empty: where a token has none, its `client_id` stands in. `issuer` and `sub` together (`key`) name
    the caller; `sub` alone is unique per issuer only. `roles` and `permissions` are the effective ones, after the role
    hierarchy and grants. `claims` are those of the verified token, read-only all the way down (objects are mappings,
    arrays are tuples). `token_id` is the `jti`, else a fingerprint of the token. `expires_at` is in seconds since the
    epoch, or `None` where the credential does not end. `token_field` is the header of this request whose token named
    the caller, such as `"authorization"`; `None` where an `IdentitySource` did, whatever it says of that.
    """

    sub: str
    issuer: str = ""
    client_id: str | None = None
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    permissions: frozenset[str] = frozenset()
    claims: Mapping[str, object] = field(default_factory=lambda: NO_CLAIMS, hash=False)
    token_id: str | None = None
    expires_at: float | None = None
    token_field: str | None = field(default=None, repr=False, compare=False)
    credentials: Credentials = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.sub:
            raise ValueError("a principal needs a sub")
        object.__setattr__(self, "credentials", _credentials(frozenset(self.scopes)))

    @property
    def key(self) -> tuple[str, str]:
        """The pair that names the caller across issuers: (`issuer`, `sub`)."""
        return (self.issuer, self.sub)

    @property
    def is_authenticated(self) -> bool:
        """True: part of Starlette's user protocol."""
        return True

    @property
    def display_name(self) -> str:
        """The `sub`: part of Starlette's user protocol."""
        return self.sub

    @property
    def identity(self) -> str:
        """The `sub`: part of Starlette's user protocol."""
        return self.sub


class Anonymous:
    """Nobody: what `request.user` is where no identity was asked for or none was shown."""

    __slots__ = ()
    credentials: Final = Credentials(())

    @property
    def is_authenticated(self) -> bool:
        """False: part of Starlette's user protocol."""
        return False

    @property
    def display_name(self) -> str:
        """Empty: part of Starlette's user protocol."""
        return ""

    @property
    def identity(self) -> str:
        """Empty: part of Starlette's user protocol."""
        return ""

    def __repr__(self) -> str:
        return "Anonymous()"


ANONYMOUS: Final = Anonymous()

_LATEST_TIME: Final = 253_402_300_799  # the end of the year 9999; a time in milliseconds is beyond it


def is_numeric_date(value: object) -> TypeGuard[float]:
    """Tell whether a claim is a NumericDate (RFC 7519 section 2) that can be meant: seconds since the epoch."""
    # A tuple of types, as a union would be made anew each time.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LATEST_TIME
