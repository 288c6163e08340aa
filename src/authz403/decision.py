"""What was decided: a decision for the log, a denial for the caller, and what to do with the request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from authz403.addresses import Address
from authz403.cors import Headers
from authz403.errors import AccessDenied
from authz403.network import Network
from authz403.principal import Principal
from authz403.reasons import Reason
from authz403.request import AccessRequest

_NOTHING: Mapping[str, object] = MappingProxyType({})
_NONE_DEMANDED: Final[frozenset[int]] = frozenset()


class Decision(NamedTuple):
    """Allowed, or refused for one `reason` with all that is missing of it.

    `policy` is the policy in words. What only the log may know is here too: `hint` for the operator, `facts` and the
    `error` that a crashing policy raised.
    """

    allowed: bool
    policy: str
    reason: Reason | str | None = None
    status: int = 200
    remedy: str | None = None
    detail: str | None = None
    required_scopes: tuple[str, ...] = ()
    missing_scopes: tuple[str, ...] = ()
    required_roles: tuple[str, ...] = ()
    missing_roles: tuple[str, ...] = ()
    required_permissions: tuple[str, ...] = ()
    missing_permissions: tuple[str, ...] = ()
    acr_values: tuple[str, ...] = ()
    max_age: int | None = None
    retry_after: int | None = None
    concealed: bool = False
    hint: str | None = None
    facts: Mapping[str, object] = _NOTHING
    error: Exception | None = None


UNDECIDED = Decision(False, "", Reason.POLICY_ERROR, 500)  # noqa: FBT003 - a row of the named tuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A refusal as the caller sees it: the members of the problem document (RFC 9457) and what the headers add.

    `parse_denial` makes one from any HTTP client's response; what the server did not say is empty or `None`.
    `retry_after` and `max_age` are in seconds.
    """

    status: int
    reason: str
    title: str = ""
    detail: str = ""
    remedy: str = ""
    retryable: bool = False
    type: str = "about:blank"
    required_scopes: tuple[str, ...] = ()
    missing_scopes: tuple[str, ...] = ()
    required_roles: tuple[str, ...] = ()
    required_permissions: tuple[str, ...] = ()
    acr_values: tuple[str, ...] = ()
    max_age: int | None = None
    client_ip: str | None = None
    retry_after: int | None = None
    decision_id: str | None = None


class Response(NamedTuple):
    """An answer of the gate's own: status, headers as they go out, and body."""

    status: int
    headers: Headers
    body: bytes


class _Unasked:
    """Stands for an address that nobody asked for as yet."""


_UNASKED: Final = _Unasked()


class Outcome:
    """All that became of one request: what to do with it, and what to write down.

    `response` is the gate's own answer, or `None` where the request goes on to the app. `headers` are what every
    answer carries. `concealed_as_missing` says that the app must answer as if the route did not exist, by the router
    whose id is `missing_at`. Where the gate only reports, `check_failed` is the denial that a handler's check would
    have been. `answered` says that an answer has started, and `inner` is what a gate further in decided, where the
    client is told that.
    """

    __slots__ = (
        *("_address", "_network", "_request", "answered", "check_failed", "concealed_as_missing", "decision"),
        *("decision_id", "demanded", "headers", "inner", "missing_at", "principal", "rejected_facts", "report_only"),
        *("response", "route", "started"),
    )

    def __init__(
        self,
        request: AccessRequest | Callable[[], AccessRequest],
        started: float,
        headers: Headers,
        report_only: bool,  # noqa: FBT001 - a keyword would cost every request more
        network: Network,
    ) -> None:
        """`request` may be what reads it, as nobody asks for that of most requests that are allowed."""
        self._request = request
        self.started = started
        self.headers = headers
        self.report_only = report_only
        self.decision = UNDECIDED
        self._network = network
        self._address: Address | _Unasked | None = _UNASKED
        self.principal: Principal | None = None
        self.rejected_facts = _NOTHING
        self.response: Response | None = None
        self.route: str | None = None
        self.demanded = _NONE_DEMANDED
        self.decision_id: str | None = None
        self.concealed_as_missing = False
        self.missing_at: int | None = None
        self.check_failed: AccessDenied | None = None
        self.answered = False
        self.inner: Outcome | None = None

    @property
    def request(self) -> AccessRequest:
        """The facts of the request, read when somebody first asks."""
        request = self._request
        if not isinstance(request, AccessRequest):
            request = self._request = request()
        return request

    @property
    def address(self) -> Address | None:
        """The client's address, looked for when somebody first asks: most policies do not."""
        address = self._address
        if isinstance(address, _Unasked):
            address = self._address = self._network.client_address(self.request)
        return address

    @address.setter
    def address(self, address: Address | None) -> None:
        self._address = address
