"""What requirements are held against: the facts of one request, and who asks or why that is not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from authz403.addresses import Address
from authz403.principal import Principal
from authz403.reasons import Reason
from authz403.request import AccessRequest

NOTHING: Final[Mapping[Any, object]] = MappingProxyType({})


class Rejected(NamedTuple):
    """Why credentials name nobody. `facts` and `hint` are for the log alone; `retry_after` is in seconds."""

    reason: Reason
    hint: str | None = None
    facts: Mapping[str, object] = NOTHING
    retry_after: float | None = None


@dataclass(slots=True)  # not frozen, as a request is not
class Facts:
    """What requirements are held against; your own requirement gets it as its one argument.

    `principal` is the signed-in caller, `client_ip` the client's address or `None`, `path_params` the converted path
    parameters of the route, `now` the time in seconds since the epoch.
    """

    request: AccessRequest
    identity: Principal | Rejected | None = None
    address: Address | None = None
    path_params: Mapping[str, object] = field(default_factory=lambda: NOTHING)
    now: float = 0.0
    answers: Mapping[int, object] = field(default_factory=lambda: NOTHING)

    @property
    def principal(self) -> Principal:
        """The signed-in caller. Raises `LookupError` where there is none, which only an anonymous requirement sees."""
        if isinstance(self.identity, Principal):
            return self.identity
        raise LookupError("nobody is signed in")

    @property
    def method(self) -> str:
        """The method as received; `WEBSOCKET` for a handshake."""
        return self.request.method

    @property
    def path(self) -> str:
        """The path as the app's router sees it."""
        return self.request.path

    @property
    def client_ip(self) -> str | None:
        """The client's address, or `None` where nobody trustworthy says it."""
        return None if self.address is None else str(self.address)
