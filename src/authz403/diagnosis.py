"""The cause of a decision in one line, and what to do about it: the same words for a request and for a log event."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from authz403.audit import harmless_text
from authz403.explanation import Advice, Explanation
from authz403.reasons import REMEDIES, Reason

_NEEDS: Final = "This operation needs "


def diagnosed(told: Explanation) -> Explanation:
    """Return an explanation with its diagnosis and its advice."""
    if told.allowed:
        return replace(told, diagnosis=harmless_text(_allowed(told)), advice=Advice(operator=_about_allowed(told)))
    reason = told.known_reason
    line = _own(told) if reason is None else _LINES[reason](told)
    if told.concealed:
        line += "; the caller sees the app's own 404, as the policy is concealed"
    if told.report_only:
        line += "; the request is let in all the same, as the gate only reports"
    advice = Advice(caller=_for_caller(told), operator=_for_operator(told))
    return replace(told, diagnosis=harmless_text(line), advice=advice)


# ---- words


def _who(told: Explanation) -> str:
    caller = told.caller
    if caller.subject is None:
        return "nobody is signed in" if not caller.is_known else "the caller is known"
    if caller.issuer or caller.token_field:
        return f"token issued for {'client' if caller.is_client else 'user'} {caller.subject}"
    return f"signed in as {caller.subject}"


def _held(told: Explanation, names: Iterable[str], what: str) -> str:
    listed = ", ".join(names)
    whose = "token" if told.caller.issuer or told.caller.token_field else "caller"
    return f"{whose} {what}s are {listed}" if listed else f"{whose} has no {what}"


def _one_of(told: Explanation) -> str | None:
    """Return what is needed, where one of several would do."""
    detail = told.detail or ""
    return detail.removeprefix(_NEEDS).removesuffix(".") if detail.startswith(f"{_NEEDS}one of ") else None


def _needed(told: Explanation, names: tuple[str, ...], missing: tuple[str, ...], what: str = "") -> str:
    """Say what is needed and what is missing; of several that would do, that none of them is there."""
    one_of = _one_of(told)
    if one_of is not None:
        return f"{told.asked} requires {one_of}, and none of them is there"
    if not names:
        return f"{told.asked} was refused by a check that names none"
    return f"{told.asked} requires {what}{', '.join(names)}, missing {', '.join(missing or names)}"


def _because(told: Explanation, start: str) -> str:
    return f"{start}: {told.hint}" if told.hint else start


def _requirement(told: Explanation) -> str:
    """Say what was required, and what the request has instead."""
    check = told.failing()
    if check is None:
        if told.facts:
            facts = ", ".join(f"{name}={value}" for name, value in told.facts.items())
            return f"{told.asked} was refused by a check in its handler ({facts})"
        if told.policy is not None and (told.is_default or ": " in told.policy):
            return f"{told.asked} requires {told.policy.rpartition(': ')[2]}, or its handler checks it"
        return f"{told.asked} was refused by a check in its handler"
    return f"{told.asked} requires {check.words}{f', and {check.why}' if check.why else ''}"


# ---- the line of each reason


def _allowed(told: Explanation) -> str:
    if told.answers_itself is not None:
        return f"nothing refuses {told.asked}, and {told.answers_itself}"
    if told.status == _NO_CONTENT:
        return f"the preflight {told.asked} is allowed, and the gate answers it"
    if not told.caller.is_asked_for:
        why = f": {told.policy}" if told.policy else ""
        return f"{told.asked} is allowed without asking who calls{why}"
    if told.caller.is_known:
        return f"{_who(told)}, who is allowed {told.asked}"
    return f"{told.asked} is allowed to somebody who is not signed in"


_NO_CONTENT: Final = 204


def _about_allowed(told: Explanation) -> str:
    if told.answers_itself is not None:
        return "The gate has nothing to do with that answer: compare the path and the method with the app's routes."
    return "If the answer is a refusal all the same, the handler refused it by check(...): the log event says why."


def _missing_token(told: Explanation) -> str:
    return _because(told, f"no token came with {told.asked}, which needs a signed-in caller")


def _bad_token(told: Explanation) -> str:
    start = f"the token of {told.asked} is not valid here"
    return _because(told, start) if told.hint else f"{start}, and nothing says why"


def _token_of(told: Explanation, what: str) -> str:
    return _because(told, f"{_who(told) if told.caller.subject else 'the token'} {what}")


def _token_that(told: Explanation, what: str) -> str:
    """Say what the hint says of the token, which begins so where there is one."""
    hint = told.hint or ""
    return f"{_who(told) if told.caller.subject else 'the token'} {hint[3:] if hint.startswith('it ') else what}"


def _insufficient_scope(told: Explanation) -> str:
    held = _held(told, told.caller.scopes, "scope")
    return f"{_who(told)}, {held}, {_needed(told, told.required_scopes, told.missing_scopes)}"


def _role_required(told: Explanation) -> str:
    held = _held(told, told.caller.roles, "role")
    return f"{_who(told)}, {held}, {_needed(told, told.required_roles, told.missing_roles, 'the role ')}"


def _permission_required(told: Explanation) -> str:
    needed = _needed(told, told.required_permissions, told.missing_permissions, "the permission ")
    if not told.checks:
        return f"{_who(told)}, {needed}"
    return f"{_who(told)}, {_held(told, told.caller.permissions, 'permission')}, {needed}"


def _of_caller(told: Explanation) -> str:
    return f"{_who(told)}, {_requirement(told)}"


def _ip_not_allowed(told: Explanation) -> str:
    address = told.client.address
    came = "the client's address is not known" if address is None else f"the request came from {address}"
    if told.hint and told.hint != came:
        came += f" ({told.hint})"
    check = told.failing()
    words = check.words if check is not None else (told.policy or "").rpartition(": ")[2]
    return f"{came}, and {told.asked} requires {words or 'another network'}"


def _origin_not_allowed(told: Explanation) -> str:
    page = f"a page of {told.origin}" if told.origin else "a page of another origin"
    return f"{page} opens the WebSocket {told.path}, and Cors(origins=) does not list that origin"


def _access_denied(told: Explanation) -> str:
    check = told.failing()
    if check is not None and check.words.startswith("~"):
        return f"{_who(told)}, {told.asked} requires {check.words}, and {check.why or 'that does not hold'}"
    return f"the policy of {told.asked} denies it to everybody: {check.words if check else told.policy or 'deny'}"


def _no_policy(told: Explanation) -> str:
    if told.endpoint is None:
        return f"nobody wrote a policy for {told.asked}, and what has none is denied"
    return f"nobody wrote a policy for {told.asked} ({told.endpoint}), and what has none is denied"


def _invalid_path(told: Explanation) -> str:
    path = told.path.encode("unicode_escape").decode("ascii")
    return f"the path {path} is malformed: no leading slash, control characters, a backslash, dot segments or //"


def _policy_error(told: Explanation) -> str:
    raised = f" raised {told.error}" if told.error else " failed; the log has the exception"
    check = told.failing()
    return f"the policy of {told.asked}{f', {check.words},' if check else ''}{raised}"


def _own(told: Explanation) -> str:
    check = told.failing()
    if check is None:
        return f"{_who(told)}, {_requirement(told)}: {told.reason}"
    why = f", and {check.why}" if check.why else ""
    return f"{_who(told)}, {told.asked} requires {check.words}{why}"


_LINES: Final[dict[Reason, Callable[[Explanation], str]]] = {
    Reason.MISSING_TOKEN: _missing_token,
    Reason.INVALID_REQUEST: lambda told: _because(told, f"the credentials of {told.asked} are malformed"),
    Reason.INVALID_TOKEN: _bad_token,
    Reason.TOKEN_EXPIRED: lambda told: _token_that(told, "has expired"),
    Reason.TOKEN_NOT_YET_VALID: lambda told: _token_that(told, "is not valid yet"),
    Reason.WRONG_ISSUER: lambda told: _token_of(told, "is of another issuer"),
    Reason.WRONG_AUDIENCE: lambda told: _token_of(told, "is for another service"),
    Reason.WRONG_TOKEN_TYPE: lambda told: _token_of(told, "is no access token"),
    Reason.TOKEN_REVOKED: lambda told: _token_of(told, "has been revoked"),
    Reason.STEP_UP_REQUIRED: _of_caller,
    Reason.INSUFFICIENT_SCOPE: _insufficient_scope,
    Reason.ROLE_REQUIRED: _role_required,
    Reason.PERMISSION_REQUIRED: _permission_required,
    Reason.CLAIM_REQUIRED: _of_caller,
    Reason.IP_NOT_ALLOWED: _ip_not_allowed,
    Reason.NOT_OWNER: _of_caller,
    Reason.CSRF_FAILED: lambda told: _because(told, f"{told.asked} comes from a page of another site, with no token"),
    Reason.ORIGIN_NOT_ALLOWED: _origin_not_allowed,
    Reason.PREFLIGHT_REFUSED: lambda told: _because(told, f"the preflight of {told.path} is refused by cors="),
    Reason.ACCESS_DENIED: _access_denied,
    Reason.NO_POLICY: _no_policy,
    Reason.INVALID_PATH: _invalid_path,
    Reason.KEYS_UNAVAILABLE: lambda told: _because(told, "the keys that the token must be checked with cannot be had"),
    Reason.POLICY_UNAVAILABLE: lambda told: _because(told, "the source of roles or of identities cannot be had"),
    Reason.POLICY_ERROR: _policy_error,
    Reason.ROUTE_MISMATCH: lambda told: _because(told, f"{told.asked} was changed after it was decided"),
    Reason.MISCONFIGURED: lambda told: _because(told, "the gate does not fit the app, so that every request fails"),
}


# ---- what to do


def _for_caller(told: Explanation) -> str:
    reason = told.known_reason
    if reason is Reason.INSUFFICIENT_SCOPE and told.missing_scopes:
        return f"Ask the issuer for a token that has {_one_of(told) or ', '.join(told.missing_scopes)}."
    if reason is Reason.ROLE_REQUIRED and told.missing_roles:
        return f"Ask whoever hands out roles for the role {' or '.join(told.missing_roles)}."
    if reason is Reason.PERMISSION_REQUIRED and told.missing_permissions:
        return f"Ask whoever hands out roles for the permission {', '.join(told.missing_permissions)}."
    if reason in _CALLER:
        return _CALLER[reason]
    remedy = told.remedy or (reason.remedy if reason is not None else "contact_owner")
    return REMEDIES.get(remedy, f"The service says: {remedy}. Its owner knows what that means.")


def _for_operator(told: Explanation) -> str:
    reason = told.known_reason
    where = f" It is written at {', '.join(told.written)}." if told.written else ""
    if reason is None:
        return f"Look at what your requirement or check asks.{where}"
    if reason is Reason.NO_POLICY:
        named = f"@requires(...) or @public at {told.endpoint}" if told.endpoint else "a mark at the endpoint"
        return f'Write {named}, or a rule: Rule("{told.method}", "{told.route or told.path}", ...).'
    return f"{_OPERATOR[reason]}{where if reason in _OF_THE_POLICY else ''}"


_CALLER: Final = {
    Reason.WRONG_ISSUER: "Sign in at the issuer that this service accepts: most often it is another environment.",
    Reason.WRONG_AUDIENCE: "Ask the issuer for a token whose audience is this service.",
    Reason.WRONG_TOKEN_TYPE: "Send the access token, and not the ID or refresh token.",
    Reason.STEP_UP_REQUIRED: "Sign in again, as strongly and as recently as the WWW-Authenticate header says.",
    Reason.CSRF_FAILED: "Call it from a page of the service itself, or send a token in the Authorization header.",
    Reason.ORIGIN_NOT_ALLOWED: "Open the WebSocket from a page of an allowed origin.",
    Reason.PREFLIGHT_REFUSED: "Send no other methods and headers than the service allows to pages of this origin.",
    Reason.INVALID_PATH: "Correct the path; the same one will be refused again.",
}
_OPERATOR: Final = {
    Reason.MISSING_TOKEN: "If the client did send one, look for what drops the header on its way, such as a proxy.",
    Reason.INVALID_REQUEST: "Nothing is wrong with the service: show the client's developer the line above.",
    Reason.INVALID_TOKEN: "Compare the issuer's keys and algorithms with those of BearerTokens(...).",
    Reason.TOKEN_EXPIRED: "If new tokens expire too, compare the clocks of service and issuer.",
    Reason.TOKEN_NOT_YET_VALID: "Compare the clocks of service and issuer; BearerTokens(leeway=) is the tolerance.",
    Reason.WRONG_ISSUER: "If that issuer is to be accepted, give Gate(tokens=) another BearerTokens(...) for it.",
    Reason.WRONG_AUDIENCE: "If the token is meant for this service, name its audience in BearerTokens(audience=).",
    Reason.WRONG_TOKEN_TYPE: "Nothing is wrong with the service, unless the issuer fits typ= or claims= no more.",
    Reason.TOKEN_REVOKED: "Find out who revoked it: is_revoked= or the identity source says so.",
    Reason.STEP_UP_REQUIRED: "See that the issuer writes acr and auth_time into its tokens.",
    Reason.INSUFFICIENT_SCOPE: "Let the client have the scope at the issuer, or change the policy.",
    Reason.ROLE_REQUIRED: "Give the role to the caller, see in which claim roles stand, or change the policy.",
    Reason.PERMISSION_REQUIRED: "Grant the permission to a role by Rbac(grants=), or change the policy.",
    Reason.CLAIM_REQUIRED: "See that the issuer writes the claim as the policy wants it, or change the policy.",
    Reason.IP_NOT_ALLOWED: "If the address is not the client's, see Network(trusted_proxies=); else allow its network.",
    Reason.NOT_OWNER: "See whose the resource is; nothing is wrong if it is somebody else's.",
    Reason.CSRF_FAILED: "If that page may do this, name its origin in csrf_protected(...).",
    Reason.ORIGIN_NOT_ALLOWED: "If pages of that origin may, name it in Cors(origins=).",
    Reason.PREFLIGHT_REFUSED: "If pages of that origin may, see Cors(origins=, methods=, headers=).",
    Reason.ACCESS_DENIED: "The policy says so on purpose: change it if that is wrong.",
    Reason.INVALID_PATH: "Nothing is wrong with the service; many of these from one client are somebody's search.",
    Reason.KEYS_UNAVAILABLE: "See whether this machine reaches the issuer's keys, by name, port and certificate.",
    Reason.POLICY_UNAVAILABLE: "See whether roles_for= or the identity source answers, and in time.",
    Reason.POLICY_ERROR: "Correct the requirement that raised; until then, it denies.",
    Reason.ROUTE_MISMATCH: "Put middleware that changes requests outside of the gate.",
    Reason.MISCONFIGURED: "Correct what the start-up error lists.",
}
_OF_THE_POLICY: Final = frozenset(
    {
        *(Reason.STEP_UP_REQUIRED, Reason.INSUFFICIENT_SCOPE, Reason.ROLE_REQUIRED, Reason.PERMISSION_REQUIRED),
        *(Reason.CLAIM_REQUIRED, Reason.IP_NOT_ALLOWED, Reason.NOT_OWNER, Reason.CSRF_FAILED, Reason.ACCESS_DENIED),
        *(Reason.POLICY_ERROR,),
    }
)
