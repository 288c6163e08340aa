"""Requests that a page of another site makes in the name of its visitor (CSRF), told by what only browsers write.

Neither tokens in forms nor state: browsers say where a request comes from, in Sec-Fetch-Site (Fetch Metadata) or in
Origin, and no page can change that.
"""

from __future__ import annotations

from typing import Final

from authz403.cors import ORIGIN
from authz403.errors import Mistakes
from authz403.facts import Facts
from authz403.forms import Form, names
from authz403.leaves import Authenticated
from authz403.origins import DEFAULT_PORTS, parts_of
from authz403.policy import Kind, Requirement, Unmet
from authz403.principal import Principal
from authz403.reasons import Reason
from authz403.request import AccessRequest
from authz403.tokens import AUTHORIZATION

_SITE: Final = "sec-fetch-site"
_HOST: Final = "host"
_UPGRADE: Final = "upgrade"

# RFC 9110 section 9.2.1: the safe methods but TRACE, which no browser sends
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# Fetch Metadata section 2.3: of this origin, or of the user's own doing, such as a bookmark
_OWN_SITES: Final = frozenset({"same-origin", "none"})


class CsrfProtected(Requirement):
    """`csrf_protected(...)`: nothing that may change something, made by a page of another site."""

    kind = Kind.CROSS_SITE
    refusals = unknowns = (Reason.CSRF_FAILED,)
    fields = frozenset({_SITE, ORIGIN, _HOST, _UPGRADE})

    def __init__(self, trusted_origins: tuple[str, ...]) -> None:
        self._trusted_origins = trusted_origins
        self._trusted = frozenset(trusted_origins)

    def check(self, facts: Facts) -> Unmet | None:
        """See `Requirement`. Who asks matters only where the headers do not settle it."""
        unmet = self._told_by_headers(facts.request)
        if unmet is None:
            return None
        identity = facts.identity
        if isinstance(identity, Principal):
            return None if identity.token_field == AUTHORIZATION else unmet
        if identity is not None and identity.reason is Reason.MISSING_TOKEN:
            return unmet
        # Not asked yet, or a bad token: a good one would do.
        return _AUTHENTICATED.check(facts)

    def bad_credentials(self, credentials: frozenset[Reason]) -> frozenset[Reason]:
        """See `Requirement`."""
        return credentials - {Reason.MISSING_TOKEN}

    def ensures_identity(self, *, met: bool = True) -> bool:
        """See `Requirement`."""
        del met
        return False

    def form(self) -> Form:
        """See `Requirement`."""
        return names("csrf_protected", self._trusted_origins)

    def _told_by_headers(self, request: AccessRequest) -> Unmet | None:
        fields = request.fields
        try:
            sites, origins, hosts, upgrades = fields[_SITE], fields[ORIGIN], fields[_HOST], fields[_UPGRADE]
        except KeyError:
            return _unknown("the headers that say where a request comes from were not read")
        if request.method in _SAFE and not (upgrades and _opens_websocket(upgrades)):
            return None
        for lines, shown in ((sites, "Sec-Fetch-Site"), (origins, "Origin"), (hosts, "Host")):
            if lines and (len(lines) > 1 or "," in lines[0]):
                return _unknown(f"the request has more than one {shown} header, or one with a comma")
        site, origin = sites[0] if sites else None, origins[0] if origins else None
        if (origin is None and site is None) or origin in self._trusted:
            return None  # no browser, or a page that may
        if site is not None:
            if site in _OWN_SITES:
                return None
            told = "there is no Origin" if origin is None else f"the Origin {origin} is not trusted"
            return _failed(f"Sec-Fetch-Site is {site}, and {told}")
        host = hosts[0] if hosts else None
        if origin is not None and _is_of(origin, host):
            return None
        told = "there is no Host" if host is None else f"not that of the Host {host} (does a proxy rewrite it?)"
        return _failed(f"the Origin {origin} is not trusted, and {told}")

    def __repr__(self) -> str:
        return f"csrf_protected({', '.join(map(repr, self._trusted_origins))})"


_AUTHENTICATED: Final = Authenticated()


def _failed(hint: str) -> Unmet:
    return Unmet(Kind.CROSS_SITE, Reason.CSRF_FAILED, hint=hint)


def _unknown(hint: str) -> Unmet:
    return Unmet(Kind.CROSS_SITE, Reason.CSRF_FAILED, unknown=True, hint=hint)


def _opens_websocket(lines: tuple[str, ...]) -> bool:
    # RFC 6455 section 4.1: the handshake is a GET, and servers of WSGI show it as one.
    return any("websocket" in line.lower() for line in lines)


def _is_of(origin: str, host: str | None) -> bool:
    """Tell whether an origin is that of the host that a request was sent to, by whatever scheme it came."""
    parts = parts_of(origin)
    if host is None or isinstance(parts, str) or parts.is_pattern or parts.scheme not in DEFAULT_PORTS:
        return False
    _, _, authority = origin.partition("://")
    # RFC 9110 section 4.2.3: hosts in any case are the same, and so is the default port written or left out.
    return host.lower() in {authority, f"{authority}:{DEFAULT_PORTS[parts.scheme]}"}


def csrf_protected(*trusted_origins: str) -> Requirement:
    """Need a request that may change something to come from a page of this service, or from no page at all.

    GET, HEAD and OPTIONS pass; a WebSocket handshake does not pass as the GET that it is. `Sec-Fetch-Site` must say
    `same-origin` or `none`; without it, the host and port of `Origin` must be those of `Host`; with neither it is no
    browser, which passes. A page of one of the `trusted_origins`, exact ones such as `"https://app.example"`, passes,
    and so does a caller known by a good token in the Authorization header, which no browser sends by itself, nor for a
    page of another site without a preflight. Anything else is 403 `csrf_failed`. Raises `ConfigurationError` listing
    every mistake. See the Fetch standard and W3C Fetch Metadata Request Headers.
    """
    mistakes = Mistakes("csrf_protected")
    origins = mistakes.strings("trusted_origins", trusted_origins)
    for index, origin in enumerate(origins):
        why = _wrong_with(origin)
        if why is not None:
            mistakes.add(f"trusted_origins[{index}]", origin, why)
    mistakes.raise_if_any()
    return CsrfProtected(tuple(dict.fromkeys(origins)))


def _wrong_with(origin: str) -> str | None:
    if origin == "*":
        return "any site could act as the signed-in user; name the origins"
    parts = parts_of(origin)
    if isinstance(parts, str):
        return parts
    return "patterns are for Cors(origins=) alone; name each origin" if parts.is_pattern else None


def protects(requirement: Requirement) -> bool:
    """Tell whether whoever meets a requirement meets a `csrf_protected`, too."""
    ways = requirement.alternatives(_MOST_WAYS + 1)
    return len(ways) <= _MOST_WAYS and all(any(isinstance(leaf, CsrfProtected) for leaf in way) for way in ways)


_MOST_WAYS: Final = 64  # to meet one requirement; more are not looked through
