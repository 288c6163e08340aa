"""The header that holds a token: one Bearer token of the right shape (RFC 6750, RFC 9110), or why not."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from authz403.reasons import Reason

LONGEST_CREDENTIAL: Final = 16 * 1024  # bytes

# RFC 9110 section 11.2: token68 = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
# Section 11.4: credentials = auth-scheme [ 1*SP ( token68 / ... ) ]
_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9\-._~+/]+=*)")
_TOKEN68: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]*+"
_SCHEME: Final = re.compile(_NAME)
# Section 11.2: auth-param = token BWS "=" BWS ( token / quoted-string ); AWS and others write more into the value.
_PARAM: Final = rf'{_NAME}[ \t]*+=[ \t]*+(?:"(?:[^"\\]|\\.)*+"[ \t]*+|[^",]*+)'
# Few requests need it, and to compile it takes longer than to import this module.
_WITH_PARAMS: Final = rf"{_NAME} ++{_PARAM}(?:,[ \t]*+{_PARAM})*+"
BEARER_SUBPROTOCOL: Final = "bearer"
"""The WebSocket subprotocol whose follower in the list is a token."""

_KNOWN_SCHEMES: Final = frozenset({"basic", "digest", "dpop", "gnap", "hoba", "mutual", "negotiate", "ntlm", "vapid"})


class Unusable(NamedTuple):
    """Why no token could be taken, with a hint for the operator where there is one."""

    reason: Reason
    hint: str | None = None


MISSING: Final = Unusable(Reason.MISSING_TOKEN)


def bearer_token(lines: tuple[str, ...]) -> str | Unusable:
    """Return the token of the Authorization field lines of a request, or why there is none that can be used."""
    line = _only_line("Authorization", lines)
    if isinstance(line, Unusable):
        return line
    text = line.strip(" \t")
    found = _BEARER.fullmatch(text)
    if found is not None:
        return found[1]
    scheme = _SCHEME.match(text)
    name = scheme[0].lower() if scheme else ""
    # RFC 9110 section 11.1: the scheme is case-insensitive
    if "," in text and (name == "bearer" or re.fullmatch(_WITH_PARAMS, text) is None):
        return _several("Authorization")
    if name == "bearer":
        return Unusable(Reason.INVALID_REQUEST, _malformed(text[len("bearer") :]))
    if name:
        # What stands first may be the secret itself, so that only a well-known scheme is named.
        told = f": {name}" if name in _KNOWN_SCHEMES else ", or names none"
        return Unusable(Reason.MISSING_TOKEN, f"the Authorization header is of another scheme than Bearer{told}")
    if text[:1] in {'"', "'"}:
        return Unusable(Reason.MISSING_TOKEN, "the Authorization header is wrapped in quotes")
    return Unusable(Reason.MISSING_TOKEN, "the Authorization header is empty" if not text else None)


def bare_token(field: str, lines: tuple[str, ...]) -> str | Unusable:
    """Return the token that is the whole value of a header `field`, or why there is none that can be used."""
    line = _only_line(field, lines)
    if isinstance(line, Unusable):
        return line
    text = line.strip(" \t")
    if not text:
        return Unusable(Reason.MISSING_TOKEN, f"the {field} header is empty")
    if "," in text:
        return _several(field)
    if _TOKEN68.fullmatch(text) is None:
        return Unusable(Reason.INVALID_REQUEST, f"the {field} header does not hold one token and nothing else")
    return text


def subprotocol_token(lines: tuple[str, ...]) -> str | Unusable:
    """Return the token that a browser sends as a subprotocol: `new WebSocket(url, ["bearer", token])`.

    RFC 6455 section 11.3.4: Sec-WebSocket-Protocol is a list, and its lines are read as one.
    """
    offered = offered_subprotocols(lines)
    found = [number for number, name in enumerate(offered) if name.lower() == BEARER_SUBPROTOCOL]
    if not found:
        return MISSING
    if len(found) > 1 or found[0] + 1 >= len(offered):
        return Unusable(Reason.INVALID_REQUEST, "Sec-WebSocket-Protocol says 'bearer' and then not exactly one token")
    return bare_token("Sec-WebSocket-Protocol", (offered[found[0] + 1],))


def offered_subprotocols(lines: tuple[str, ...]) -> list[str]:
    """Return the names in a Sec-WebSocket-Protocol header, in order."""
    return [name.strip(" \t") for line in lines for name in line.split(",")]


def _only_line(field: str, lines: tuple[str, ...]) -> str | Unusable:
    if not lines:
        return MISSING
    if len(lines) > 1:
        return _several(field)
    if len(lines[0]) > LONGEST_CREDENTIAL:
        return Unusable(Reason.INVALID_REQUEST, f"the {field} header is over {LONGEST_CREDENTIAL} bytes long")
    return lines[0]


def _several(field: str) -> Unusable:
    """Say that there are several headers; a server, as those of WSGI do, may have joined them with a comma."""
    return Unusable(Reason.INVALID_REQUEST, f"the request has more than one {field} header, or one with a comma")


def _malformed(rest: str) -> str:
    token = rest.strip(" \t\r\n")
    if not token:
        return "the Authorization header says 'Bearer' and has no token"
    if token[0] in "\"'" or token[-1] in "\"'":
        return "the token is wrapped in quotes"
    if token.lower().startswith("bearer "):
        return "the word 'Bearer' stands there twice"
    if "\r" in rest or "\n" in rest:
        return "the token has a line break at its end or in it"
    if rest.startswith(":"):
        return "there is a colon after 'Bearer'"
    return "what follows 'Bearer' is not one token"
