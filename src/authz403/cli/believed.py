"""A gate that believes tokens without their signature, made here for `explain --unverified` and nothing else."""

from __future__ import annotations

from copy import copy
from typing import Final

from authz403 import BearerTokens
from authz403.gate import Gate
from authz403.identity import Identifier
from authz403.jose import VerificationKey
from authz403.keys import Keys, Report


class _AnySignature(VerificationKey):
    """A key that takes every signature for its own."""

    __slots__ = ()

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Tell whatever is asked that it is so."""
        del algorithm, message, signature
        return True


_KEYS: Final[Keys] = (_AnySignature(kid=None, algorithms=frozenset(), material=b""),)


class _NoKeys:
    """A source of keys that knows nothing, and finds a key for every token."""

    def find(self, kid: str | None, now: float, *, fetch: bool, in_vain: Keys = ()) -> Keys:
        """See `KeySource`."""
        del kid, now, fetch, in_vain
        return _KEYS

    def still_holds(self, key: VerificationKey, now: float) -> bool:
        """See `KeySource`."""
        del key, now
        return True

    def decoys(self) -> Keys:
        """See `KeySource`."""
        return ()

    def report_to(self, report: Report) -> None:
        """See `KeySource`."""


def believing(gate: Gate) -> Gate:
    """Return a copy of a gate that asks no key of a token; all else about a token is judged as ever."""
    sources = [_without_keys(source) if isinstance(source, BearerTokens) else source for source in gate.sources]
    found = copy(gate)
    found.identifier = Identifier(sources, gate.rbac, most_tokens=0)
    return found


def _without_keys(source: BearerTokens) -> BearerTokens:
    found = copy(source)
    object.__setattr__(found, "keys", _NoKeys())
    return found
