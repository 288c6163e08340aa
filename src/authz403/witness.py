"""What a gate did when it decided one request, seen while it did so, and told as an explanation.

Nothing is decided here: the decision is the gate's own, and each check is what the requirement itself says.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from authz403.audit import Audit, Level
from authz403.decision import Outcome
from authz403.diagnosis import diagnosed
from authz403.endpoint import Endpoint, Found, Policy, Walked
from authz403.explanation import (
    FAILED,
    NOT_REACHED,
    PASSED,
    UNKNOWN,
    Caller,
    Check,
    Client,
    Explanation,
    Result,
    text_in,
    texts_in,
)
from authz403.facts import Facts, Rejected
from authz403.forms import Form
from authz403.fulfil import fulfilled_blocking
from authz403.leaves import Claim, Custom, Held, Networks, Param, Scopes, ServiceNetworks, SteppedUp
from authz403.need import Need
from authz403.network import Network
from authz403.policy import Requirement, Unmet, anyone
from authz403.principal import Principal, is_numeric_date
from authz403.reasons import Reason
from authz403.request import AccessRequest
from authz403.rules import Rules

Identity = Principal | Rejected


class Witness:
    """Sees one decision: what was found, which policy applied, and the facts that it was last held against.

    `rules` and `audit` stand in for those of the gate while it decides. They decide the same, and write nothing.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules: Rules = _SeenRules(rules, self)
        self.audit: Audit = Silent("")
        self.found: Found | None = None
        self.policy: Policy | None = None
        self.facts: Facts | None = None
        self.written: tuple[str, ...] = ()
        self.is_left_out = False
        """Whether rules name the path and none of them the method, so that the default does not hold."""

    def saw(self, rules: Rules, found: Found, path: str, method: str) -> Policy:
        """Note which policy applies, and return it in such a form that its checks are seen."""
        policy = rules.policy_for(found, path, method)
        self.found, self.policy = found, policy
        self.written = tuple(dict.fromkeys(written_for(rules, found, path, method)))
        self.is_left_out = rules.rule_for(path, method) == (None, True)
        answers = _Answers(policy.requirement)
        first, rest = (part if part is anyone else _Seen(part, self, answers) for part in (policy.first, policy.rest))
        # What can be told at once is only a shorter way to the same answer.
        return replace(policy, first=first, rest=rest, before=(lambda *_: False,))

    def explanation(
        self,
        outcome: Outcome,
        network: Network,
        version: str,
        *,
        walk: Walked | None,
        origin: str | None,
        now: float,
        identify: Callable[[], Identity | Need[Identity]],
    ) -> Explanation:
        """Tell what was seen. `identify` is asked who calls where the decision did not need to know."""
        decision, policy, endpoint = outcome.decision, self.policy, None if self.found is None else self.found.endpoint
        identity = None if self.facts is None else self.facts.identity
        is_asked_for = identity is not None
        if identity is None:
            identity = _found_out(identify)
        error = decision.error
        answers_itself = _answers_itself(self.found, outcome.request.path, is_group=self._is_group(walk))
        asks_nothing = answers_itself is not None and not self.written and decision.allowed
        return diagnosed(
            Explanation(
                method=outcome.request.method,
                path=outcome.request.path,
                allowed=decision.allowed,
                status=decision.status,
                reason=None if decision.reason is None else str(decision.reason),
                remedy=decision.remedy or (decision.reason.remedy if isinstance(decision.reason, Reason) else None),
                hint=decision.hint or (_LEFT_OUT if self.is_left_out and decision.reason is Reason.NO_POLICY else None),
                detail=decision.detail,
                route=None if endpoint is None else endpoint.route,
                endpoint=None if endpoint is None else endpoint.name,
                answers_itself=answers_itself,
                policy=None if policy is None or asks_nothing else policy.words,
                written=self.written,
                is_default=policy is not None and endpoint is not None and not self.written,
                concealed=decision.concealed and not decision.allowed,
                report_only=outcome.report_only,
                caller=caller_of(identity, now, is_asked_for=is_asked_for),
                client=_client(outcome, network),
                origin=origin,
                checks=() if policy is None or asks_nothing else tuple(self._checks(policy)),
                required_scopes=decision.required_scopes,
                missing_scopes=decision.missing_scopes,
                required_roles=decision.required_roles,
                missing_roles=decision.missing_roles,
                required_permissions=decision.required_permissions,
                missing_permissions=decision.missing_permissions,
                error=None if error is None else told_error(error),
                policy_version=version,
            )
        )

    def _is_group(self, walk: Walked | None) -> bool:
        """Tell whether what was found is a guarded group that lets the request in, where nothing takes it."""
        endpoint = None if self.found is None else self.found.endpoint
        if endpoint is None or walk is None or not endpoint.route.endswith("/**"):
            return False
        return all(served.endpoint is not endpoint for served in walk.served)

    def _checks(self, policy: Policy) -> Iterator[Check]:
        """Yield the checks in the order in which they are judged, those that one `&` combines side by side."""
        facts, refused = self.facts, False
        for part in (policy.first, policy.rest):
            if part is anyone and policy.requirement is not anyone:
                continue
            if part is anyone:
                yield Check(words=repr(part), result=PASSED)
                return
            told = _not_reached(part) if refused or facts is None else check_of(part, facts)
            refused = refused or told.result != PASSED
            yield from told.parts if told.joined == "all" else (told,)


_LEFT_OUT: Final = "rules name this path, and none of them this method: that is closed, whatever the default says"


class _SeenRules(Rules):
    """The rules of a gate, with a witness."""

    def __init__(self, rules: Rules, witness: Witness) -> None:
        vars(self).update(vars(rules))
        self._own = rules
        self._witness = witness

    def policy_for(self, found: Found, path: str, method: str) -> Policy:
        """See `Rules`."""
        return self._witness.saw(self._own, found, path, method)


class Silent(Audit):
    """Writes no event, and wants all that one would say."""

    def wants_warning(self) -> bool:
        """See `Audit`."""
        return True

    def _write(
        self, level: Level, event: str, fields: Mapping[str, object], error: BaseException | None = None
    ) -> None:
        pass


class _Seen(Requirement):
    """A requirement that notes what it is held against."""

    def __init__(self, inner: Requirement, witness: Witness, answers: _Answers) -> None:
        self._inner = inner
        self._witness = witness
        self._answers = answers
        self.kind, self.needs_identity, self.tokenless = inner.kind, inner.needs_identity, inner.tokenless

    def check(self, facts: Facts) -> Unmet | None:
        """See `Requirement`."""
        facts = self._answers.for_facts(facts)
        self._witness.facts = facts
        return self._inner.check(facts)

    def form(self) -> Form:
        """See `Requirement`."""
        return self._inner.form()


class _Answers(dict[int, object]):
    """What tests of the user's own answer: each is asked once, however often its requirement is."""

    def __init__(self, requirement: Requirement) -> None:
        super().__init__()
        self._tests = {id(leaf): leaf.test for leaf in requirement.leaves() if isinstance(leaf, Custom)}
        self._waited_for = {id(leaf) for leaf in requirement.leaves() if isinstance(leaf, Custom) and leaf.is_async}
        self._facts = Facts(AccessRequest("", ""))

    def for_facts(self, facts: Facts) -> Facts:
        """Return facts that answer so."""
        self.update(facts.answers)
        self._facts = replace(facts, answers=self)
        return self._facts

    def __contains__(self, key: object) -> bool:
        if not super().__contains__(key) and isinstance(key, int) and key not in self._waited_for:
            try:
                self[key] = self._tests[key](self._facts)
            except Exception as error:  # noqa: BLE001 - what a test raises is its answer
                self[key] = error
        return super().__contains__(key)


def _found_out(identify: Callable[[], Identity | Need[Identity]]) -> Identity:
    """Return who calls, for whoever wants to know; a source that fails says nothing."""
    try:
        found = identify()
        while isinstance(found, Need):
            found = found.resume(fulfilled_blocking(found))
    except Exception as error:  # noqa: BLE001 - a source of the user's own may raise anything
        return Rejected(Reason.POLICY_ERROR, f"the source of identities raised {told_error(error)}")
    return found


def written_for(rules: Rules, found: Found, path: str, method: str) -> Iterator[str]:
    """Yield where the rules and marks that apply are written."""
    paths = (path,) if found.own_path is None else (found.own_path, path)
    for named in paths:
        number, _ = rules.rule_for(named, method)
        if number is not None:
            yield rules.rules[number].where
    if found.endpoint is not None:
        yield from (mark.where for mark in found.endpoint.marks_for(method.upper() if _by_class(found) else method))


def _by_class(found: Found) -> bool:
    endpoint: Endpoint | None = found.endpoint
    return endpoint is not None and bool(endpoint.by_method)


def _answers_itself(found: Found | None, path: str, *, is_group: bool) -> str | None:
    """Say what the app answers by itself, where no route takes a request."""
    if found is None or (found.endpoint is not None and found.betrayed is None and not is_group):
        return None
    betrayed = found.betrayed
    if betrayed is None:
        return "no route of the app takes it: the app answers it by itself, with 404 as a rule"
    if betrayed.path == path:
        methods = ", ".join(betrayed.methods)
        return f"the route {betrayed.endpoint.route} takes {methods} alone: the app answers it by itself, with 405"
    return f"no route takes this path, and the app redirects to {betrayed.path}"


# ---- checks


def check_of(requirement: Requirement, facts: Facts) -> Check:
    """Hold a requirement against facts, and all that it is made of as far as it would be asked."""
    unmet = requirement.check(facts)
    parts: list[Check] = []
    settled = refused = False
    for part in requirement.tried:
        if settled or (requirement.joined == "all" and refused and part.is_own):
            parts.append(_not_reached(part))
            continue
        found = check_of(part, facts)
        parts.append(found)
        refused = refused or found.result != PASSED
        settled = requirement.joined == "any" and found.result == PASSED
    return Check(
        words=repr(requirement),
        result=_result(unmet),
        why=None if unmet is None or parts else _why(requirement, unmet, facts),
        reason=None if unmet is None or unmet.waiting is not False else str(unmet.reason),
        joined=requirement.joined,
        parts=tuple(parts),
    )


def _not_reached(requirement: Requirement) -> Check:
    parts = tuple(_not_reached(part) for part in requirement.tried)
    return Check(words=repr(requirement), result=NOT_REACHED, joined=requirement.joined, parts=parts)


def _result(unmet: Unmet | None) -> Result:
    if unmet is None:
        return PASSED
    if unmet.waiting is not False:
        return NOT_REACHED  # the request was refused before anybody was asked for
    return UNKNOWN if unmet.unknown else FAILED


def _why(requirement: Requirement, unmet: Unmet, facts: Facts) -> str | None:
    """Say what the request has instead of what a single requirement asks."""
    if unmet.waiting is not False:
        return None
    if unmet.error is not None:
        return f"it raised {told_error(unmet.error)}"
    if unmet.rejected is not None:
        hint = f": {unmet.rejected.hint}" if unmet.rejected.hint else ""
        return f"nobody is known ({unmet.rejected.reason}){hint}"
    if unmet.reason is Reason.ACCESS_DENIED and repr(requirement).startswith("~"):
        return f"{repr(requirement)[1:]} holds"
    principal = facts.identity if isinstance(facts.identity, Principal) else None
    match requirement:
        case Networks() | ServiceNetworks():
            allowed = f", outside of {requirement.form()}" if isinstance(requirement, ServiceNetworks) else ""
            address = facts.client_ip
            return "the client's address is not known" if address is None else f"the client is {address}{allowed}"
        case Scopes():
            return _missing("scope", unmet.missing_scopes, requirement.one_is_enough)
        case Held():
            missing = unmet.missing_roles or unmet.missing_permissions
            return _missing("role" if unmet.missing_roles else "permission", missing, requirement.one_is_enough)
        case Claim() if principal is not None:
            return _claim_is(str(requirement.form().values[0]), principal)
        case Param() if principal is not None:
            given = facts.path_params.get(requirement.name, _NOTHING)
            param = (
                f"the path parameter {requirement.name} is {given!r}" if given is not _NOTHING else "it is not there"
            )
            return f"{param} and {_claim_is(requirement.claim, principal)}"
        case SteppedUp() if principal is not None:
            return _sign_in_of(principal, facts.now)
        case Custom():
            return "its test answers False"
        case _:
            return unmet.hint


_NOTHING: Final = object()


def _missing(what: str, names: tuple[str, ...], one_is_enough: bool) -> str:  # noqa: FBT001 - as the requirement has it
    if one_is_enough:
        return f"the caller has no such {what}"
    return f"missing {what}{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _claim_is(name: str, principal: Principal) -> str:
    return (
        f"the claim {name} is {principal.claims[name]!r}" if name in principal.claims else f"there is no claim {name}"
    )


def _sign_in_of(principal: Principal, now: float) -> str:
    signed_in = principal.claims.get("auth_time")
    ago = f"the sign-in was {now - signed_in:.0f} s ago" if is_numeric_date(signed_in) else "there is no auth_time"
    return f"{_claim_is('acr', principal)}, {ago}"


_HERE: Final = Path(__file__).parent


def told_error(error: BaseException) -> str:
    """Return an exception in a line, with the line of the app's own code that it came out of, else the last."""
    frames = traceback.extract_tb(error.__traceback__)
    at = ([frame for frame in frames if Path(frame.filename).parent != _HERE] or frames)[-1:]
    place = "".join(f" ({Path(frame.filename).name}:{frame.lineno})" for frame in at)
    return f"{type(error).__name__}: {error}{place}" if str(error) else f"{type(error).__name__}{place}"


# ---- who asked, and from where


def caller_of(identity: Identity, now: float, *, is_asked_for: bool = True) -> Caller:
    """Return who asked, or why nobody is known."""
    if isinstance(identity, Principal):
        claims = identity.claims
        told = Caller(
            is_known=True,
            is_asked_for=is_asked_for,
            token_field=identity.token_field,
            subject=identity.sub,
            issuer=identity.issuer or None,
            client_id=identity.client_id,
            audience=texts_in(claims.get("aud")),
            scopes=tuple(sorted(identity.scopes)),
            roles=tuple(sorted(identity.roles)),
            permissions=tuple(sorted(identity.permissions)),
            token_id=identity.token_id,
            issued_at=_time(claims.get("iat")),
            not_before=_time(claims.get("nbf")),
            expires_at=identity.expires_at,
        )
    else:
        facts: Mapping[str, object] = identity.facts
        told = Caller(
            is_asked_for=is_asked_for,
            reason=str(identity.reason),
            hint=identity.hint,
            subject=text_in(facts.get("sub")),
            issuer=text_in(facts.get("iss")),
            client_id=text_in(facts.get("client_id")),
            audience=texts_in(facts.get("aud")),
            token_id=text_in(facts.get("token_id")),
            expires_at=_time(facts.get("token_expires")),
        )
    return replace(told, validity=validity_of(told, now))


def validity_of(caller: Caller, now: float) -> str | None:
    """Say in words how long a credential is good, against a time in seconds since the epoch."""
    told = []
    if caller.issued_at is not None:
        told.append(f"issued {moment(caller.issued_at)}")
    if caller.not_before is not None and caller.not_before > now:
        told.append(f"valid from {moment(caller.not_before)}, in {_span(caller.not_before - now)}")
    if caller.expires_at is not None:
        left = caller.expires_at - now
        ends = f"expires in {_span(left)}" if left > 0 else f"expired {_span(-left)} ago"
        told.append(f"{ends}, at {moment(caller.expires_at)}")
    return "; ".join(told) or None


def moment(seconds: float) -> str:
    """Return a time as people read it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(seconds: float) -> str:
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def _time(value: object) -> float | None:
    return float(value) if is_numeric_date(value) else None


def _client(outcome: Outcome, network: Network) -> Client:
    request = outcome.request
    address = None if outcome.address is None else str(outcome.address)
    if request.peer is None and address is None:
        how = "nobody says where the request comes from"
    elif network.source == "peer":
        how = "the other end of the connection"
    elif network.trusts_peer(request.peer):
        how = f"{network.source}, as the trusted proxy {request.peer} sent it"
    else:
        how = f"the other end of the connection: it is no trusted proxy, whose {network.source} would be read"
    return Client(address=address, peer=request.peer, how=how)
