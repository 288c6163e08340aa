"""`boundary_cases`: for each route of an app, the requests that must fail, each for its reason, and those that pass.

What must become of a request is read from the policy, as values. What becomes of it is the app's own doing, from the
first byte to the last: its middleware, its routes, its gate and the token.
"""

from __future__ import annotations

import unittest
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from authz403.addresses import parse_address
from authz403.authorizer import refusal
from authz403.coverage import served_by_rules, served_of
from authz403.csrf import CsrfProtected
from authz403.decision import Decision
from authz403.endpoint import Covered, Served
from authz403.errors import Mistakes
from authz403.facts import Rejected
from authz403.gate import Gate
from authz403.guarded import Guarded
from authz403.leaves import NeedsIdentity
from authz403.policy import Requirement
from authz403.principal import Principal
from authz403.reasons import Reason
from authz403.request import WEBSOCKET
from authz403.testing.asks import BAD_TOKENS, MOST_WAYS, Given, Grant, addresses_for, grants_for, refused_for
from authz403.testing.callers import Caller, can_write, principal_for, source_of
from authz403.testing.decisions import Decided, body_told, capture_decisions
from authz403.testing.paths import Target, targets_of
from authz403.testing.seam import now_of, served

if TYPE_CHECKING:
    from authz403.testing.kit import Authz

_NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})
_OTHER_SITE: Final = MappingProxyType({"origin": "https://another-site.test", "sec-fetch-site": "cross-site"})
_UNSAFE: Final = ("POST", "PUT", "PATCH", "DELETE", WEBSOCKET)
_ANY_METHOD: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
_NOT_FOUND: Final = 404
_UNSEEN: Final = ""
"""The route of what a gate cannot look into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryCase:
    """One request to a route of an app: who asks and from where, and what must become of it.

    `must_pass`, or `reason` and `status` say what must become of it. `policy` is that of the route, and `written` says
    where. Where the request cannot be made, `skipped_because` says why; such a case is skipped when it is run.
    """

    label: str
    method: str
    route: str
    part: str | None
    path: str
    policy: str
    written: tuple[str, ...]
    must_pass: bool = False
    reason: Reason | str | None = None
    status: int = 200
    concealed: bool = False
    skipped_because: str | None = None
    caller: Caller | None = None
    address: str | None = None
    fields: Mapping[str, str] = field(default_factory=lambda: _NO_FIELDS)
    json: object = None
    app: object = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        on = "" if self.part is None else f" on {self.part}"
        return f"{self.method} {self.route}{on}: {self.label}"

    def run(self, authz: Authz) -> None:
        """Make the request, and hold what becomes of it to what must.

        Passing means that the gate lets the request in: what the handler answers, a 404 or a 422, makes no difference.
        Raises `AssertionError` with all that helps, and `unittest.SkipTest` where `skipped_because` says why.
        """
        __tracebackhide__ = True
        if self.skipped_because is not None:
            raise unittest.SkipTest(self.skipped_because)
        authz.use(self.app)
        found = served(self.app)
        websocket = self.method == WEBSOCKET
        client = authz.client_for(found, self.caller, self.fields, self.address, websocket=websocket, raises=False)
        response, error = None, None
        with capture_decisions(self.app) as decisions:
            try:
                response = client.send(self.method, self.path, self.json)
            except Exception as raised:  # noqa: BLE001 - the handler's own matter, once the gate has let the request in
                error = raised
        wrong = self._wrong_with(decisions, response)
        if wrong is not None:
            raise AssertionError(self._told(wrong, decisions, response)) from error

    def _wrong_with(self, decisions: list[Decided], response: Any) -> str | None:
        """Say in what another thing became of the request."""
        if not decisions:
            return "no gate decided the request"
        decided = decisions[0]
        if decided.route not in {self.route, _UNSEEN}:
            told = "no route" if decided.route is None else decided.route
            return f"{told} took it: say params= or paths= of this route"
        if self.policy not in decided.decision.policy:
            return f"another policy held: {decided.decision.policy}"
        if self.must_pass:
            return None if decided.let_in else f"it was refused with {decided.reason}"
        if decided.let_in:
            return "it was let in"
        if decided.reason != self.reason:
            return f"it was refused with {decided.reason}"
        if not decided.enforced:
            return "it was let in: the gate only reports (dangerously_report_only)"
        status = getattr(response, "status_code", None)
        if status is not None and status != self.status:
            return f"it was refused, and answered with {status}"
        return None

    def _told(self, wrong: str, decisions: list[Decided], response: Any) -> str:
        wanted = "be let in" if self.must_pass else f"be refused with {self.reason} ({self.status})"
        lines = [f"{self}\n  must {wanted}, and {wrong}", f"request: {self.method} {self.path}"]
        if self.address is not None:
            lines[-1] += f" from {self.address}"
        lines.append(f"policy: {self.policy}" + (f", written at {', '.join(self.written)}" if self.written else ""))
        lines += [f"decision: {decided}" for decided in decisions]
        told = "\n  ".join(lines)
        if response is None:
            return told
        return f"{told}\n  answer: {response.status_code}{body_told(response)}"


def boundary_cases(
    app: object,
    *,
    params: Mapping[str, object] | None = None,
    paths: Mapping[str, str] | None = None,
    bodies: Mapping[str, object] | None = None,
    claims: Mapping[str, object] | None = None,
    meets: Collection[str] = (),
    addresses: Collection[str] = (),
) -> list[BoundaryCase]:
    """Return the boundaries of an app's policy as cases, each to be held by `authz.check(case)` or `case.run(authz)`.

    With pytest: `@pytest.mark.parametrize("case", boundary_cases(app), ids=str)`. For each route and method: no token,
    an expired one, one for another audience and one of another key; each scope, role, permission and claim left out,
    another owner, a foreign network, a page of another site, what must not be held; and, for each way to meet the
    policy, the caller who must be let in. Nothing runs until a case does; those that must pass run the handlers.

    `params` are values of path parameters, by name; `paths` are whole paths, by the route as `coverage` tells it; and
    `bodies` what is sent as JSON by those who must pass, by method and route (`"POST /orders"`). `claims` are in every
    token, and `meets` are the codes of the app's own requirements that callers with them meet. `addresses` are tried,
    too, as for networks that stand in files. What cannot be tried is a case with `skipped_because`. Raises
    `ConfigurationError` where no gate is found.
    """
    found = served(app)
    mistakes = Mistakes("boundary_cases")
    for name, given in (("params", params), ("paths", paths), ("bodies", bodies), ("claims", claims)):
        if given is not None and not isinstance(given, Mapping):
            mistakes.add(name, given, "a mapping is needed")
    mistakes.strings("meets", meets)
    for index, address in enumerate(mistakes.strings("addresses", addresses)):
        if parse_address(address) is None:
            mistakes.add(f"addresses[{index}]", address, "an IP address is needed")
    mistakes.raise_if_any()
    covered = _covered(found)
    rows = [row for _, row in covered]
    listed: list[BoundaryCase] = []
    for row, target in zip(rows, targets_of(covered, params or {}, paths or {}), strict=True):
        method = _method(row, rows)
        told = _Row(found.gate, row, app, method, target, Given(claims or {}, meets, addresses))
        body = (bodies or {}).get(f"{row.method} {row.path}")
        listed.extend(replace(case, json=body) if case.must_pass else case for case in told.cases())
    return listed


def _covered(found: Guarded) -> tuple[tuple[Served, Covered], ...]:
    rules = found.gate.rules
    return served_by_rules(rules) if found.app is None else served_of(found.app, rules)


def _method(row: Covered, rows: Sequence[Covered]) -> str | None:
    """Return the method to ask with: for all that no other row is about, one of them."""
    if row.method != "*":
        return row.method
    taken = {other.method for other in rows if (other.path, other.part) == (row.path, row.part)}
    return next((method for method in _ANY_METHOD if method not in taken), None)


class _Row:
    """One route and method with its policy, and the cases of it."""

    def __init__(
        self,
        gate: Gate,
        row: Covered,
        app: object,
        method: str | None,
        target: Target | str,
        given: Given,
    ) -> None:
        self._gate = gate
        self._requirement: Requirement = row.requirement
        self._source = source_of(gate.sources)
        self._rbac = gate.rbac
        self._network = gate.network
        self._now = now_of(gate)
        self._target = target if isinstance(target, Target) else None
        self._why = target if isinstance(target, str) else None
        if method is None:
            self._why = "all methods that are known have a policy of their own"
        self._given = given
        params = {} if self._target is None else self._target.params
        self._grants = grants_for(row.requirement, self._network, params, given)
        host = None if self._target is None else self._target.host
        self._case = BoundaryCase(
            label="",
            method=method or row.method,
            route=row.path,
            part=row.part,
            path="" if self._target is None else self._target.path,
            policy=row.policy,
            written=row.written,
            fields=_NO_FIELDS if host is None else MappingProxyType({"host": host}),
            app=app,
        )

    def cases(self) -> Iterator[BoundaryCase]:
        """Yield the cases, those that must fail first."""
        if self._target is None or self._why is not None:
            yield replace(self._case, label="not tried", skipped_because=f"{self._why}: say paths=")
            return
        if not self._grants:
            nobody = next(self._addresses(), "")
            caller = Caller()
            yield from self._failing("whoever asks", caller, nobody, self._known(caller))
            return
        yield from self._strangers()
        for grant in self._grants:
            yield from self._lacking(grant)
        yield from self._foreign()
        yield from self._other_site()
        for grant in self._grants:
            yield self._passing(grant)
        if len(self._grants) == MOST_WAYS:
            told = f"there may be more than {MOST_WAYS} ways to meet the policy"
            yield replace(self._case, label="by further ways", skipped_because=told)

    def _strangers(self) -> Iterator[BoundaryCase]:
        """Yield requests of those whom nobody knows: without a token, or with a bad one."""
        if not any(isinstance(leaf, NeedsIdentity) or leaf.needs_identity for leaf in self._requirement.leaves()):
            return
        grant = next((one for one in self._grants if one.caller is not None), self._grants[0])
        yield from self._failing("without a token", None, grant.address, Rejected(Reason.MISSING_TOKEN))
        if self._source is None:
            return
        for label, reason, how in BAD_TOKENS:
            caller = replace(grant.caller or Caller(), **how)
            yield from self._failing(label, caller, grant.address, Rejected(reason))

    def _lacking(self, grant: Grant) -> Iterator[BoundaryCase]:
        """Yield requests of callers who have all that one way needs but for one thing."""
        caller = grant.caller
        if caller is None:
            return
        lacks: list[tuple[str, Caller]] = []
        for what in ("scopes", "roles", "permissions"):
            held: tuple[str, ...] = getattr(caller, what) or ()
            lacks += [
                (f"without the {what[:-1]} {name}", _with(caller, what, tuple(one for one in held if one != name)))
                for name in held
            ]
        if caller.signed_in_now:
            lacks.append(("with an old sign-in", replace(caller, signed_in_now=False)))
        for name in caller.claims:
            claims = {other: value for other, value in caller.claims.items() if other != name}
            lacks.append((f"without the claim {name}", replace(caller, claims=MappingProxyType(claims))))
        for name, value in grant.owned.items():
            claims = {**caller.claims, name: f"not-{value}"}
            lacks.append((f"with another {name}", replace(caller, claims=MappingProxyType(claims))))
        lacks += grant.forbidden
        of = f" (of {grant.words})" if len(self._grants) > 1 else ""
        for label, lacking in lacks:
            yield from self._failing(f"{label}{of}", lacking, grant.address, self._known(lacking))

    def _foreign(self) -> Iterator[BoundaryCase]:
        grant = next((one for one in self._grants if one.has_networks), None)
        if grant is None:
            return
        identity = Rejected(Reason.MISSING_TOKEN) if grant.caller is None else self._known(grant.caller)
        label = "from a foreign network"
        told = "no address is known that its networks do not hold: say addresses="
        unknown = replace(self._case, label=label, skipped_because=told)
        tried = (case for one in self._addresses() for case in self._failing(label, grant.caller, one, identity))
        for case in tried:
            if case.skipped_because is None:
                yield case
                return
            unknown = case
        yield unknown

    def _other_site(self) -> Iterator[BoundaryCase]:
        """Yield the request of a page of another site, as browsers send it with a cookie and without a token."""
        if self._case.method in _UNSAFE and any(isinstance(one, CsrfProtected) for one in self._requirement.leaves()):
            address = self._grants[0].address
            stranger = Rejected(Reason.MISSING_TOKEN)
            yield from self._failing("from a page of another site", None, address, stranger, _OTHER_SITE)

    def _passing(self, grant: Grant) -> BoundaryCase:
        identity = Rejected(Reason.MISSING_TOKEN) if grant.caller is None else self._known(grant.caller)
        case = replace(
            self._case,
            label="with all that is needed" if len(self._grants) == 1 else f"with {grant.words}",
            must_pass=True,
            caller=grant.caller,
            address=grant.address,
        )
        why = grant.unknown
        if why is None and grant.caller is not None and not self._is_writable(grant.caller):
            why = "tokens of this provider do not hold what it needs"
        if why is None and self._refused(identity, grant.address, case.fields) != (None, None):
            why = f"it is not known who meets {grant.words}"
        return case if why is None else replace(case, skipped_because=why)

    def _failing(
        self,
        label: str,
        caller: Caller | None,
        address: str,
        identity: Principal | Rejected,
        fields: Mapping[str, str] = _NO_FIELDS,
    ) -> Iterator[BoundaryCase]:
        """Yield a case that must fail; none where the policy lets it in, as by another way."""
        fields = MappingProxyType({**self._case.fields, **fields})
        met, unmet = self._refused(identity, address, fields)
        decision = met or unmet
        if decision is None:
            return
        case = replace(
            self._case,
            label=label,
            reason=decision.reason,
            status=_NOT_FOUND if decision.concealed else decision.status,
            concealed=decision.concealed,
            caller=caller,
            address=address,
            fields=fields,
        )
        if caller is not None and not self._is_writable(caller):
            case = replace(case, skipped_because="tokens of this provider do not hold what it needs")
        if met is None or unmet is None or met.reason != unmet.reason:
            case = replace(case, skipped_because="what becomes of it depends on code of the app's own")
        yield case

    def _refused(
        self, identity: Principal | Rejected, address: str, fields: Mapping[str, str]
    ) -> tuple[Decision | None, Decision | None]:
        """Return the refusals of a request where the app's own requirements are met, and where they are not."""
        assert self._target is not None  # noqa: S101 - looked at first
        told = []
        for own in (True, False):
            unmet = refused_for(
                self._requirement,
                identity,
                address,
                method=self._case.method,
                path=self._target.path,
                params=self._target.params,
                fields=fields,
                now=self._now,
                own=own,
                meets=self._given.meets,
            )
            told.append(None if unmet is None else refusal(unmet, conceals=self._requirement.conceals))
        return told[0], told[1]

    def _addresses(self) -> Iterator[str]:
        return addresses_for(self._requirement, self._network, self._given.addresses)

    def _known(self, caller: Caller) -> Principal:
        return principal_for(caller, self._source, self._rbac, self._now)

    def _is_writable(self, caller: Caller) -> bool:
        wanted = [what for what in ("scopes", "roles", "permissions") if getattr(caller, what)]
        return all(can_write(what, self._source, self._rbac) for what in wanted)


def _with(caller: Caller, what: str, names: tuple[str, ...]) -> Caller:
    if what == "scopes":
        return replace(caller, scopes=names)
    return replace(caller, roles=names) if what == "roles" else replace(caller, permissions=names)
