"""Every reason for a refusal, with its status and remedy. A published code is never renamed or reused."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Self


class Reason(StrEnum):
    """Why a request was refused: the `reason` of the body, the `Authz-Reason` header and the log event.

    A member is its code (`Reason.NOT_OWNER == "not_owner"`) and knows its HTTP `status`, `summary` (the title of the
    problem document), `remedy` (what the caller can do), `detail` (one sentence for the caller), `error` (the code of
    its Bearer challenge, RFC 6750 section 3.1, or `None`) and `retryable` (the same request, unchanged, may succeed
    later). Its docstring says what it means.
    """

    status: int
    summary: str
    remedy: str
    detail: str
    error: str | None
    retryable: bool

    def __new__(  # noqa: D102, PLR0917 - one row of the table below
        cls,
        code: str,
        status: int = 0,
        remedy: str = "",
        summary: str = "",
        detail: str = "",
        meaning: str = "",
        error: str | None = None,
        retryable: bool = False,  # noqa: FBT001, FBT002 - an enum member's row has no keywords
    ) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.status = status
        member.remedy = remedy
        member.summary = summary
        member.detail = detail
        member.error = error
        member.retryable = retryable
        member.__doc__ = meaning
        return member

    MISSING_TOKEN = (
        "missing_token", 401, "sign_in", "Sign-in needed",
        "This operation needs an access token in the Authorization header.",
        "No credentials came with the request, or credentials of another scheme, or a token only in the query.",
    )  # fmt: skip
    INVALID_REQUEST = (
        "invalid_request", 400, "fix_request", "Malformed credentials",
        "Send exactly one Authorization header, of the form: Bearer <token>.",
        "The Authorization header is repeated, has no token or more than one, or is longer than 16 KiB.",
        "invalid_request",
    )  # fmt: skip
    INVALID_TOKEN = (
        "invalid_token", 401, "sign_in_again", "Invalid token",
        "The access token is not valid here.",
        "Not a token, a bad signature, an unknown key, an algorithm that is not allowed, or a claim of the wrong type.",
        "invalid_token",
    )  # fmt: skip
    TOKEN_EXPIRED = (
        "token_expired", 401, "refresh_token", "Token expired",
        "The access token has expired.",
        "The token's `exp` is in the past.",
        "invalid_token",
    )  # fmt: skip
    TOKEN_NOT_YET_VALID = (
        "token_not_yet_valid", 401, "retry_later", "Token not yet valid",
        "The access token is not valid yet.",
        "The token's `nbf` is in the future: most often a clock that is wrong.",
        "invalid_token", True,
    )  # fmt: skip
    WRONG_ISSUER = (
        "wrong_issuer", 401, "sign_in_again", "Token of another issuer",
        "The access token was issued by somebody else than this service accepts.",
        "The token's `iss` is not the configured issuer.",
        "invalid_token",
    )  # fmt: skip
    WRONG_AUDIENCE = (
        "wrong_audience", 401, "sign_in_again", "Token for another audience",
        "The access token was issued for another service.",
        "The token's `aud` does not name this service.",
        "invalid_token",
    )  # fmt: skip
    WRONG_TOKEN_TYPE = (
        "wrong_token_type", 401, "sign_in_again", "Not an access token",
        "The token is of another kind than an access token.",
        "The token's `typ` is that of another profile, or it is plainly an ID, refresh or logout token.",
        "invalid_token",
    )  # fmt: skip
    TOKEN_REVOKED = (
        "token_revoked", 401, "sign_in_again", "Token revoked",
        "The access token has been revoked.",
        "The token was good and has been revoked.",
        "invalid_token",
    )  # fmt: skip
    STEP_UP_REQUIRED = (
        "step_up_required", 401, "sign_in_again", "Stronger sign-in needed",
        "This operation needs a stronger or a more recent sign-in.",
        "The token's `acr` is too weak or its `auth_time` too old (RFC 9470).",
        "insufficient_user_authentication",
    )  # fmt: skip
    INSUFFICIENT_SCOPE = (
        "insufficient_scope", 403, "request_scope", "Insufficient scope",
        "This operation needs scopes that the access token does not have.",
        "The token is good and lacks scopes; the body and the challenge name them.",
        "insufficient_scope",
    )  # fmt: skip
    ROLE_REQUIRED = (
        "role_required", 403, "request_role", "Role required",
        "This operation needs a role that the caller does not have.",
        "The caller is known and does not have the role.",
    )  # fmt: skip
    PERMISSION_REQUIRED = (
        "permission_required", 403, "request_role", "Permission required",
        "This operation needs a permission that the caller does not have.",
        "The caller is known and does not have the permission, neither from the token nor from a role.",
    )  # fmt: skip
    CLAIM_REQUIRED = (
        "claim_required", 403, "contact_owner", "Claim required",
        "This operation needs something that the access token does not say.",
        "A claim of the token is missing or has another value.",
    )  # fmt: skip
    IP_NOT_ALLOWED = (
        "ip_not_allowed", 403, "change_network", "Network not allowed",
        "This operation is not allowed from this network address.",
        "The client's address is not in an allowed network, or is not known.",
    )  # fmt: skip
    NOT_OWNER = (
        "not_owner", 403, "contact_owner", "Not the owner",
        "This resource belongs to somebody else.",
        "A path parameter differs from the caller's claim, or the handler's own check of the owner failed.",
    )  # fmt: skip
    CSRF_FAILED = (
        "csrf_failed", 403, "fix_request", "Cross-site request refused",
        "A page of another site must not make this request.",
        "A page of another site made a request that may change something, with no token; the log says how that shows.",
    )  # fmt: skip
    ORIGIN_NOT_ALLOWED = (
        "origin_not_allowed", 403, "fix_request", "Origin not allowed",
        "A WebSocket must not be opened from this origin.",
        "A WebSocket handshake came from an origin that the CORS configuration does not list.",
    )  # fmt: skip
    PREFLIGHT_REFUSED = (
        "preflight_refused", 403, "fix_request", "Preflight refused",
        "The CORS preflight asked for something that is not allowed.",
        "The preflight's origin, method, headers or private network are not allowed; the log says which.",
    )  # fmt: skip
    ACCESS_DENIED = (
        "access_denied", 403, "contact_owner", "Access denied",
        "This operation is not allowed.",
        "The policy denies it explicitly.",
    )  # fmt: skip
    NO_POLICY = (
        "no_policy", 403, "contact_owner", "Access denied",
        "This operation is not allowed.",
        "Nobody wrote a policy for this operation, and what has none is denied.",
    )  # fmt: skip
    INVALID_PATH = (
        "invalid_path", 400, "fix_request", "Malformed path",
        "The path holds characters or segments that are not allowed.",
        "The path does not start with a slash, or holds control characters, a backslash, dot segments or `//`.",
    )  # fmt: skip
    KEYS_UNAVAILABLE = (
        "keys_unavailable", 503, "retry_later", "Sign-in keys unavailable",
        "Access tokens cannot be checked at the moment.",
        "The issuer's keys cannot be reached and nothing usable is cached.",
        None, True,
    )  # fmt: skip
    POLICY_UNAVAILABLE = (
        "policy_unavailable", 503, "retry_later", "Policy source unavailable",
        "Access cannot be decided at the moment.",
        "The source of roles or of identities cannot be reached, and nothing usable is cached.",
        None, True,
    )  # fmt: skip
    POLICY_ERROR = (
        "policy_error", 500, "contact_owner", "Policy failed",
        "Access could not be decided.",
        "The policy raised an exception; the log holds it. Nothing ran.",
    )  # fmt: skip
    ROUTE_MISMATCH = (
        "route_mismatch", 500, "contact_owner", "Route changed after the decision",
        "The request changed after access was decided.",
        "Something inside the app changed path or method after the decision, or reached a router without one.",
    )  # fmt: skip
    MISCONFIGURED = (
        "misconfigured", 500, "contact_owner", "Misconfigured",
        "This service is misconfigured.",
        "The gate does not fit the app; the log and the start-up error list every mistake.",
    )  # fmt: skip


REMEDIES: Final = {
    "sign_in": "Sign in, and send the access token as `Authorization: Bearer <token>`.",
    "sign_in_again": "Sign in again, and send the new access token.",
    "refresh_token": "Use the refresh token to get a new access token.",
    "retry_later": "Send the same request again later; `Retry-After`, where it is there, says after how many seconds.",
    "fix_request": "Correct the request; the same one will be refused again.",
    "request_scope": "Ask the issuer for a token that has the scopes named.",
    "request_role": "Ask whoever hands out roles for what is named.",
    "change_network": "Call from an allowed network, or ask the operator to allow the address.",
    "contact_owner": "Nothing that the caller can do alone: ask the owner of the resource or of the service.",
}
"""What the caller can do, by the remedy."""
