"""What becomes of a token: whom it names to a source, or why nobody.

>>> accepted(token())  # the principal; the token must be good
>>> refused(token(aud="other"), tokens(typ="strict")).hint  # the reason, and what the log says of it
"""

from concurrent.futures import Future

from authz403 import BearerTokens, Reason
from authz403.facts import Rejected
from authz403.jose import TokenRefused, read_token
from authz403.need import Need
from authz403.principal import Principal
from authz403.tokens import Verified
from tests.tokens_made import NOW, tokens


def judged(text: str, source: BearerTokens | None = None, now: float = NOW) -> Principal | Rejected:
    """Return whom a token names to a source, or why nobody; keys are waited for."""
    try:
        signed = read_token(text)
    except TokenRefused as why:
        return Rejected(Reason.INVALID_TOKEN, str(why))
    step = (source or tokens()).verify(text, signed, now)
    while isinstance(step, Need):
        future = step.work()
        assert isinstance(future, Future)
        step = step.resume(future.result(10))
    return step.principal if isinstance(step, Verified) else step


def accepted(text: str, source: BearerTokens | None = None, now: float = NOW) -> Principal:
    """Return whom a token names; it must be good."""
    principal = judged(text, source, now)
    assert isinstance(principal, Principal), principal
    return principal


def refused(text: str, source: BearerTokens | None = None, now: float = NOW) -> Rejected:
    """Return why a token is refused; it must be."""
    rejected = judged(text, source, now)
    assert isinstance(rejected, Rejected), rejected
    return rejected
