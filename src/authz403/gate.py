"""The gate: the whole way of a request, from its facts to what becomes of it. No I/O, no framework."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeVar

from authz403.audit import Audit, new_decision_id
from authz403.authorizer import authorize, refusal
from authz403.cors import FIELDS, ORIGIN, Cors, is_preflight
from authz403.decision import Decision, Denial, Outcome, Response
from authz403.endpoint import RULES_ALONE, Covered, Found, Policy, Routes
from authz403.errors import AccessDenied, ConfigurationError, Mistakes
from authz403.facts import Facts, Rejected
from authz403.findings import Findings
from authz403.fulfil import settled
from authz403.health import Health
from authz403.hints import PROXY_FIELDS, hint_for
from authz403.identity import MOST_TOKENS, Identifier, IdentitySource, as_sources
from authz403.leaves import Custom, ServiceNetworks
from authz403.need import How, Need
from authz403.network import Network
from authz403.paths import has_dot_segments, is_malformed, is_usual, without_dot_segments
from authz403.policy import Kind, Requirement, Unmet, anyone, deny
from authz403.principal import Principal
from authz403.problem import DEFAULT_TYPE_BASE, Disclose, Problems, Render
from authz403.rbac import Rbac
from authz403.reasons import Reason
from authz403.request import WEBSOCKET, AccessRequest
from authz403.requirements import own_code_or_reason
from authz403.rules import Rule, Rules, as_rules, shadowed_rules
from authz403.tokens import AUTHORIZATION, BearerTokens

if TYPE_CHECKING:
    from authz403.explanation import Explanation

Native = TypeVar("Native")
T = TypeVar("T")
_NO_CONTENT: Final = 204
_IP_NOT_ALLOWED: Final = Reason.IP_NOT_ALLOWED  # before Python 3.12, to look it up takes long


class Gate:
    """One authorization policy, for any number of apps.

    `tokens` is one source of identities or a list (`BearerTokens` or an `IdentitySource`), `rules` the policies by
    path, `rbac` what roles mean, `network` where the client's address stands, `cors` which origins may call, `default`
    what holds for endpoints without a policy. `disclose="code"` leaves nothing but reason and ids in refusals;
    `render(denial, request)` makes their body (content type and bytes); `type_base` is what the `type` of a problem
    document starts with. `shared=True` says that the gate guards several apps, so that a rule may fit another one.
    `token_cache` is how many verified tokens are remembered (about 1 kB each), 0 for none.
    `dangerously_report_only=True` lets every request pass and logs what would have been refused. `clock` gives the
    time in seconds since the epoch. Raises `ConfigurationError` listing every mistake.
    """

    def __init__(
        self,
        *,
        tokens: BearerTokens | IdentitySource | Sequence[BearerTokens | IdentitySource] | None = None,
        rules: Iterable[Rule] = (),
        rbac: Rbac | None = None,
        network: Network | None = None,
        cors: Cors | None = None,
        default: Requirement = deny,
        disclose: Disclose = "full",
        render: Render | None = None,
        type_base: str = DEFAULT_TYPE_BASE,
        shared: bool = False,
        token_cache: int = MOST_TOKENS,
        dangerously_report_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        mistakes = Mistakes("Gate")
        sources = as_sources(mistakes, tokens)
        listed = as_rules(mistakes, rules)
        for name, value, kind in (("rbac", rbac, Rbac), ("network", network, Network), ("cors", cors, Cors)):
            if value is not None and not isinstance(value, kind):
                mistakes.add(name, value, f"{kind.__name__}(...) is needed")
        if disclose not in ("full", "code"):
            mistakes.add("disclose", disclose, '"full" or "code" is needed')
        if render is not None and not callable(render):
            mistakes.add("render", render, "a function of denial and request is needed")
        if not isinstance(type_base, str) or not type_base.isascii() or not type_base.isprintable():
            mistakes.add("type_base", type_base, "the start of a URI is needed")
        if not isinstance(default, Requirement):
            mistakes.add("default", default, "a requirement is needed, such as deny or authenticated")
        mistakes.flag("shared", shared)
        if isinstance(token_cache, bool) or not isinstance(token_cache, int) or token_cache < 0:
            mistakes.add("token_cache", token_cache, "a number of tokens, 0 or more, is needed")
        mistakes.flag("dangerously_report_only", dangerously_report_only)
        if not callable(clock):
            mistakes.add("clock", clock, "a function that returns seconds since the epoch is needed")
        shadowed_rules(mistakes, listed)
        mistakes.raise_if_any()

        self.network = network or Network()
        networked = bool(self.network.allowed or self.network.denied)
        service = ServiceNetworks(self.network) if networked else None
        self.rules = Rules(listed, default, service)

        self.identifier = Identifier(sources, rbac, most_tokens=token_cache)
        self.cors = cors
        self.default = default
        self.shared = shared
        self.report_only = dangerously_report_only
        self.clock = clock
        self.has_tokens = bool(self.identifier)
        self.sign_in_reasons = self.identifier.reasons()
        # What an OpenAPI document says of this gate.
        self.sources, self.disclose, self.render = sources, disclose, render
        self.rbac = rbac  # for what tells of a gate
        self.policy_version = _version(sources, listed, default, rbac, self.network, cors)
        self.audit = Audit(self.policy_version)
        if cors is not None and AUTHORIZATION in self.identifier.fields and not cors.permits("authorization"):
            self.audit.warn_once("cors", "Cors(headers=) leaves Authorization out, so that no script can send a token")
        for source in self.identifier.bearers:
            source.keys.report_to(self.audit.warn)
        self.findings = Findings(
            self.network, self.audit.warn_once, reads_authorization=AUTHORIZATION in self.identifier.fields
        )
        self._health = Health(self.network, self.identifier.bearers, self.audit)
        self.watch((*(rule.requirement for rule in listed), default))
        self._problems = Problems(realm=self.identifier.realm or "authz403", disclose=disclose, type_base=type_base)
        # The header fields that decisions rest on; adapters read these and no others.
        self.fields: frozenset[str] = frozenset(
            {*self.identifier.fields, *self.network.fields, *self.rules.fields, *PROXY_FIELDS}
            | (FIELDS if cors is not None else frozenset())
        )

    def decide(  # noqa: C901, PLR0912 - the way of every request, in one frame: each more would cost it
        self,
        request: AccessRequest,
        routes: Routes[Native] = RULES_ALONE,
        native: Native | None = None,
        *,
        within: Outcome | None = None,
    ) -> Outcome | Need[Outcome]:
        """Decide one request. Never raises: what crashes here denies.

        `routes` answers what the app would run for `native`, the request as its framework knows it. `within` is what a
        gate further out decided about the same request: CORS and the client's address are its matter. Returns what
        became of the request, or a `Need` where something from outside is wanted first.
        """
        cors = self.cors if within is None else None
        headers = () if cors is None else cors.answer_headers(request.fields.get(ORIGIN))
        outcome = Outcome(request, perf_counter(), headers, self.report_only, self.network)
        try:
            path, method = request.path, request.method
            if within is not None:
                outcome.address, outcome.principal = within.address, within.principal
            if cors is not None and method in _JUDGED_BY_CORS:
                if is_preflight(method, request.fields):
                    return self._preflight(outcome, cors)
                if method == WEBSOCKET and not self._origin_fits(request, cors):
                    return self._refuse(outcome, Unmet(Kind.NETWORK, Reason.ORIGIN_NOT_ALLOWED))
            is_usual_path = path in routes.usual or is_usual(path)
            if not is_usual_path and is_malformed(path):
                return self._refuse(outcome, Unmet(Kind.VERDICT, Reason.INVALID_PATH))
            found, path_params = routes.find(native)  # type: ignore[arg-type]  # rules alone look at no native request
            if not is_usual_path and has_dot_segments(path) and not self._dots_fit(path, method, found):
                return self._refuse(outcome, Unmet(Kind.VERDICT, Reason.INVALID_PATH))
            policy = self.rules.policy_for(found, path, method)
            if found.endpoint is not None:
                outcome.route = found.endpoint.route
                outcome.demanded = policy.demanded
            if policy.conceals:
                outcome.missing_at = self.rules.missing_at(found.place, path, method)
            if policy.requirement is anyone:
                outcome.decision = policy.allowed
                return outcome
            now = self.clock()
            address = outcome.address if policy.before else None
            for is_met in policy.before:
                if not is_met(None, address):
                    if policy.fields:
                        request = self._with_fields(request, policy, routes, native)
                    return self._decided(outcome, policy, Facts(request, None, outcome.address, path_params, now))
            identity = self.identifier.identify(request, now)
            if isinstance(identity, Principal):
                outcome.principal = identity
                for is_met in policy.then:
                    if not is_met(identity, address):
                        break
                else:
                    outcome.decision = policy.allowed
                    return outcome
            if isinstance(identity, Need):
                return self._identified(
                    outcome, policy, Facts(request, None, outcome.address, path_params, now), identity
                )
            if isinstance(identity, Rejected):
                outcome.rejected_facts = identity.facts
            return self._decided(outcome, policy, Facts(request, identity, outcome.address, path_params, now))
        except Exception as error:  # noqa: BLE001 - a policy that crashes denies
            return self._crashed(outcome, error)

    def _with_fields(
        self, request: AccessRequest, policy: Policy, routes: Routes[Native], native: Native | None
    ) -> AccessRequest:
        """Return a request with all header fields that its policy looks at, those that were not sent empty."""
        fields = {**policy.unsent, **request.fields}
        unread = policy.fields - self.fields
        if unread:
            fields.update(routes.header_lines(native, unread))  # type: ignore[arg-type]  # as above
        return AccessRequest(request.method, request.path, request.peer, fields, request.peer_rewritten)

    def _decided(self, outcome: Outcome, policy: Policy, facts: Facts) -> Outcome | Need[Outcome]:
        decision = authorize(policy, facts)
        if decision is policy.allowed:
            outcome.decision = policy.allowed
            return outcome
        if decision is None:
            return self._identified(outcome, policy, facts, self.identifier.identify(outcome.request, facts.now))
        if isinstance(decision, Decision):
            return self.finished(outcome, decision)
        asked, test = decision, decision.test
        answer: Need[object] = Need(How.COROUTINE, lambda: test(facts), lambda given: given)
        return self._resumable(
            outcome,
            answer,
            lambda given: self._decided(outcome, policy, replace(facts, answers={**facts.answers, id(asked): given})),
        )

    def _identified(
        self,
        outcome: Outcome,
        policy: Policy,
        facts: Facts,
        identity: Principal | Rejected | Need[Principal | Rejected],
    ) -> Outcome | Need[Outcome]:
        if isinstance(identity, Need):
            return self._resumable(outcome, identity, lambda known: self._identified(outcome, policy, facts, known))
        if isinstance(identity, Principal):
            outcome.principal = identity
        else:
            outcome.rejected_facts = identity.facts
        return self._decided(outcome, policy, replace(facts, identity=identity))

    def _resumable(
        self, outcome: Outcome, need: Need[T], go_on: Callable[[T], Outcome | Need[Outcome]]
    ) -> Need[Outcome]:
        def resume(answer: object) -> Outcome | Need[Outcome]:
            try:
                step = need.resume(answer)
                if isinstance(step, Need):
                    following: Need[T] = step
                    return self._resumable(outcome, following, go_on)
                return go_on(step)
            except Exception as error:  # noqa: BLE001 - a policy that crashes denies
                return self._crashed(outcome, error)

        return Need(need.how, need.work, resume, within=need.within)

    def _preflight(self, outcome: Outcome, cors: Cors) -> Outcome:
        headers, failed = cors.preflight(outcome.request.fields)
        outcome.headers = headers
        if failed is not None:
            return self._refuse(outcome, Unmet(Kind.NETWORK, Reason.PREFLIGHT_REFUSED, hint=f"not allowed: {failed}"))
        outcome.decision = _PREFLIGHT_ALLOWED
        outcome.response = Response(_NO_CONTENT, headers, b"")
        return outcome

    def finished(self, outcome: Outcome, decision: Decision, *, enforce: bool | None = None) -> Outcome:
        """Put a decision into an outcome, with the answer where it refuses."""
        enforce = not self.report_only if enforce is None else enforce
        outcome.decision = decision
        if not decision.allowed:
            if self.audit.wants_warning():  # else nobody would read it
                hint = hint_for(
                    decision,
                    outcome.request,
                    outcome.principal,
                    self.network,
                    has_address=outcome.address is not None,
                    reads_authorization=AUTHORIZATION in self.fields,
                    authorization_came=self.findings.authorization_came,
                )
                if hint != decision.hint:
                    outcome.decision = decision = decision._replace(hint=hint)
            if decision.concealed and enforce and has_dot_segments(outcome.request.path):
                # Where nothing is, such a path is refused, too.
                outcome.decision = refusal(Unmet(Kind.VERDICT, Reason.INVALID_PATH), decision.policy)
                self._answer(outcome)
            elif decision.concealed:
                outcome.concealed_as_missing = enforce
            elif enforce:
                self._answer(outcome)
        return outcome

    def _answer(self, outcome: Outcome) -> None:
        address = outcome.address if outcome.decision.reason is _IP_NOT_ALLOWED else None
        client_ip = None if address is None else str(address)
        if outcome.decision_id is None:
            outcome.decision_id = new_decision_id()
        decision, code, headers = outcome.decision, outcome.decision_id, outcome.headers
        if self.render is not None:
            try:
                outcome.response = self._problems.rendered(
                    self.render, decision, code, client_ip, outcome.request, headers
                )
            except Exception as error:  # noqa: BLE001 - it may raise anything; the refusal stands
                self.audit.error("policy_error", "render failed; the standard body was sent", error)
            else:
                return
        outcome.response = self._problems.response(decision, code, client_ip, headers)

    def _refuse(self, outcome: Outcome, unmet: Unmet) -> Outcome:
        return self.finished(outcome, refusal(unmet))

    def _crashed(self, outcome: Outcome, error: Exception) -> Outcome:
        return self.finished(outcome, refusal(Unmet(Kind.VERDICT, Reason.POLICY_ERROR, unknown=True, error=error)))

    def denied_by_app(
        self, outcome: Outcome, denied: AccessDenied, *, conceals: bool = False, enforce: bool = True
    ) -> Outcome:
        """Turn an `AccessDenied` from inside the app into the answer of the same request.

        `conceals` says that a gate further in hides the route. A gate that only reports has to `enforce` this denial
        too: what raised cannot go on.
        """
        before = outcome.decision
        try:
            unmet = Unmet(Kind.OWN, own_code_or_reason("AccessDenied", denied.reason))
        except ConfigurationError as error:
            unmet = Unmet(Kind.OWN, Reason.POLICY_ERROR, error=error)
        denial = refusal(unmet, before.policy, conceals=before.concealed or conceals, facts=denied.facts)
        return self.finished(outcome, denial, enforce=enforce)

    def denied_too_late(self, outcome: Outcome, denied: AccessDenied) -> None:
        """Write the event of a denial that came when the answer had already started."""
        outcome.decision = refusal(
            Unmet(Kind.OWN, denied.reason), outcome.decision.policy, facts=denied.facts
        )._replace(hint="access was denied after the answer had started", error=denied)
        outcome.decision_id = outcome.decision_id or new_decision_id()
        self.audit.record(outcome, failed=True)

    def broken(self, outcome: Outcome, reason: Reason, hint: str) -> Outcome:
        """Answer 500 with `reason` for a request whose decision does not hold any more."""
        outcome.decision = refusal(Unmet(Kind.VERDICT, reason, hint=hint), outcome.decision.policy)
        if not self.report_only:
            self._answer(outcome)
        return outcome

    def refused(self, request: AccessRequest, reason: Reason, hint: str) -> Outcome:
        """Return the refusal of a request that was never decided."""
        headers = () if self.cors is None else self.cors.answer_headers(request.fields.get(ORIGIN))
        return self.broken(Outcome(request, perf_counter(), headers, False, self.network), reason, hint)  # noqa: FBT003 - as it takes it

    def record(self, outcome: Outcome) -> None:
        """Write the event of a request that was decided, once."""
        if outcome.check_failed is not None and self.report_only:
            self.denied_by_app(outcome, outcome.check_failed, enforce=False)
        allowed = outcome.decision.allowed
        if self.audit.wants_debug() if allowed else self.audit.wants_warning():
            outcome.decision_id = outcome.decision_id or new_decision_id()
            body = outcome.response.body if outcome.response is not None and not allowed else None
            let_pass = self.report_only and outcome.response is None and not outcome.concealed_as_missing
            self.audit.record(outcome, body=body, report_only=let_pass and not allowed)
        if outcome.started > self.findings.due:
            self.findings.look(outcome)

    def can(self, principal: Principal | None, requirement: Requirement) -> bool:
        """Tell whether a caller meets a requirement, for menus and lists; what depends on a request is not met.

        Raises `ConfigurationError` for a requirement with an async test, which cannot be asked here.
        """
        identity = principal if principal is not None else Rejected(Reason.MISSING_TOKEN)
        unmet = requirement.check(Facts(AccessRequest("", ""), identity, now=self.clock()))
        if unmet is not None and isinstance(unmet.waiting, Custom):
            mistakes = Mistakes("Gate.can")
            mistakes.add("requirement", requirement, "it asks an async test, which a plain call cannot wait for")
            mistakes.raise_if_any()
        return unmet is None

    def coverage(self, app: object) -> tuple[Covered, ...]:
        """Return every kind of request that an app serves, with the policy that it meets.

        `app` is an app of Starlette, FastAPI or Flask, or what Django's `get_wsgi_application()` or
        `get_asgi_application()` gives. One `Covered` a route and method, in the order of the routes. Raises
        `ConfigurationError` for an app whose routes cannot be found or asked. Nothing runs, and the app need not stand
        behind this gate.
        """
        from authz403.coverage import coverage_of  # noqa: PLC0415 - it knows frameworks, which deciding does not need

        return coverage_of(app, self.rules)

    def explain(self, request: AccessRequest, app: object = None) -> Explanation:
        """Say how a request would be decided, and what led to that, check by check.

        `request` has the method, the path as the app's router sees it, the address of the other end of the connection
        and the header fields, by lower-case names. `app` is what `coverage` takes; without it, rules alone hold. The
        decision is the one that the request would get now: sources are asked who calls, keys are fetched and roles
        looked up if they are not at hand, which may block, and requirements of your own are asked. Of the app, nothing
        runs, and no event is written. Raises `ConfigurationError` for an app whose routes cannot be found or asked.
        """
        from authz403.asking import routed  # noqa: PLC0415 - it knows frameworks, which deciding does not need
        from authz403.witness import Witness  # noqa: PLC0415 - it is not wanted before somebody asks

        asked = routed(app)
        known = {name: lines for name, lines in request.fields.items() if name in self.fields}
        sent, request = request, replace(request, fields=known)
        witness = Witness(self.rules)
        seen = copy(self)
        seen.rules, seen.audit = witness.rules, witness.audit
        now = self.clock()
        seen.clock = lambda: now
        return witness.explanation(
            settled(seen.decide(request, asked.routes, asked.native(sent))),
            self.network,
            self.policy_version,
            walk=asked.walk,
            origin=next(iter(sent.fields.get(ORIGIN, ())), None),
            now=now,
            identify=lambda: self.identifier.identify(request, now),
        )

    def health(self) -> dict[str, object]:
        """Return the state of what this gate rests on and may change, as plain values for JSON.

        `lists` are the files of networks: `path`, `entries`, `version`, `loaded_at` (ISO 8601, UTC) and, where the file
        as it is now is not taken, `error`. `keys` are those of each `BearerTokens`: `issuer`, `keys` (their number),
        `fetched_at`, `usable_until` and, where the last fetch failed, `error`. `ok` says that there is no error. Paths
        and issuers are for operators. Lists are looked at where that is due; nothing is fetched or waited for.
        """
        return self._health.told()

    def watch(self, requirements: Iterable[Requirement]) -> None:
        """Learn of the policies that an app brings, for `health` and the log."""
        self._health.watch(requirements)

    def denial(self, outcome: Outcome) -> Denial:
        """Return the refusal of an outcome as its caller may see it."""
        client_ip = None if outcome.address is None else str(outcome.address)
        return self._problems.denial(outcome.decision, outcome.decision_id, client_ip)

    def _origin_fits(self, request: AccessRequest, cors: Cors) -> bool:
        # A browser lets any page open a WebSocket; only the server can look at the Origin (RFC 6455 section 10.2).
        origins = request.fields.get(ORIGIN, ())
        return not origins or (len(origins) == 1 and cors.allows(origins[0]))

    def _dots_fit(self, path: str, method: str, found: Found) -> bool:
        """Dot segments pass only into a path parameter, where the shortened path stands under the same rule."""
        shortened = without_dot_segments(path)
        return found.takes_dot_segments and self.rules.rule_for(path, method) == self.rules.rule_for(shortened, method)


_JUDGED_BY_CORS: Final = frozenset({"OPTIONS", WEBSOCKET})
_PREFLIGHT_ALLOWED: Final = Decision(True, "preflight", status=_NO_CONTENT)  # noqa: FBT003 - a row of the named tuple


def _version(
    sources: Iterable[BearerTokens | IdentitySource],
    rules: Iterable[Rule],
    default: Requirement,
    rbac: Rbac | None,
    *parts: object,
) -> str:
    """Return a short hash of the configuration, keys left out, to tell in a log which policy decided."""
    identities = [
        (source.issuer, source.audience, source.algorithms, source.typ, source.leeway, source.names, source.read_from)
        if isinstance(source, BearerTokens)
        else type(source).__qualname__
        for source in sources
    ]
    roles = None if rbac is None else (rbac.hierarchy, rbac.grants, rbac.roles_for is not None)
    told = repr((identities, [(str(rule), rule.requirement) for rule in rules], default, roles, *parts))
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def as_gate(gate: object) -> Gate:
    """Return the gate of `AuthzMiddleware(gate=)`: a `Gate`, or what a function without arguments makes of one."""
    if callable(gate) and not isinstance(gate, Gate | type):
        gate = gate()
    if isinstance(gate, Gate):
        return gate
    mistakes = Mistakes("AuthzMiddleware")
    mistakes.add("gate", gate, "a Gate, or a function that returns one, is needed")
    mistakes.raise_if_any()
    raise ConfigurationError("AuthzMiddleware", ())
