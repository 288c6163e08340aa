import asyncio
import gc
import itertools
import threading
import tracemalloc
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, cast

import pytest
from starlette.applications import Starlette

from authz403 import (
    BearerTokens,
    ConfigurationError,
    Gate,
    Principal,
    Rbac,
    Reason,
    any_role,
    authenticated,
    requirement,
)
from authz403.decision import Outcome
from authz403.errors import Mistakes
from authz403.facts import Rejected
from authz403.fetch import Document, FetchFailed
from authz403.identity import Identifier, Identity, IdentitySource, as_sources
from authz403.keys import COOL_DOWN, DEFAULT_LIFE, MOST_FETCHES, OUTAGE, FetchedKeys
from authz403.need import How, Need
from authz403.request import AccessRequest
from tests.apps_made import add_route, drive, listening, ran_by, scope_of, wrapped
from tests.gates_made import fulfilled
from tests.identities_made import request, settled, who, why_not
from tests.tokens_made import (
    ABSENT,
    AUDIENCE,
    ISSUER,
    NOW,
    SECRET,
    base64url,
    bearer,
    ec_key,
    jwks,
    public_jwk,
    public_pem,
    signed,
    token,
    tokens,
)

PARTNER: Final = "https://partner.example"


class Verifications:
    """Counts how often signatures are verified."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        verify = BearerTokens.verify

        def counted(source: BearerTokens, *arguments: Any) -> object:  # noqa: ANN401 - passed on
            self.count += 1
            return verify(source, *arguments)

        monkeypatch.setattr(BearerTokens, "verify", counted)


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> Verifications:
    """Count how often a token is verified."""
    return Verifications(monkeypatch)


# Bearer tokens


def test_a_token_names_a_principal() -> None:
    """The one header, the one token, the one caller."""
    identifier = Identifier([tokens()], None)
    assert who(identifier, token()).key == (ISSUER, "alice")
    assert identifier.fields == {"authorization"}
    assert identifier.realm == AUDIENCE
    assert identifier


def test_a_gate_without_sources_knows_nobody() -> None:
    """No source, no field to read, no realm."""
    identifier = Identifier([], None)
    assert not identifier
    assert identifier.fields == frozenset()
    assert identifier.realm is None
    assert identifier.bearers == ()
    assert settled(identifier.identify(request(bearer(token())), NOW)) == Rejected(Reason.MISSING_TOKEN)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((), "missing_token"),
        (("Basic YWxpY2U6eA==",), "missing_token"),
        (("",), "missing_token"),
        (("Bearer",), "invalid_request"),
        (("Bearer a b",), "invalid_request"),
        (("Bearer: x",), "invalid_request"),
        ((bearer(token()), bearer(token())), "invalid_request"),
        ((bearer(token()), "Basic YWxpY2U6eA=="), "invalid_request"),
        ((bearer(token()), ""), "invalid_request"),
        ((f"{bearer(token())}, {bearer(token())}",), "invalid_request"),
        (("Bearer " + "a" * 17_000,), "invalid_request"),
        (("Bearer " + "." * 16_000,), "invalid_token"),
        (("Bearer not-a-token",), "invalid_token"),
        (("Bearer \u00e9",), "invalid_request"),
    ],
    ids=lambda value: ascii(value)[:40] + str(len(str(value))) if isinstance(value, tuple) else None,
)
def test_a_bad_header_names_nobody(lines: tuple[str, ...], reason: str) -> None:
    """Exactly one Authorization field, with exactly one token in it; what is wrong is told apart."""
    found = settled(Identifier([tokens()], None).identify(request(*lines), NOW))
    assert isinstance(found, Rejected)
    assert found.reason == reason


def test_a_second_header_is_refused_for_a_remembered_token_too() -> None:
    """What is remembered is no way around the rule of one header."""
    identifier = Identifier([tokens()], None)
    who(identifier, token_text := token())
    found = identifier.identify(request(bearer(token_text), bearer(token_text)), NOW)
    assert isinstance(found, Rejected)
    assert found.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize("spelled", ["Bearer {}", "bearer {}", "BEARER  {}", " Bearer {} "])
def test_the_scheme_is_case_insensitive(spelled: str) -> None:
    """RFC 9110 section 11.1, before and after the token is known."""
    identifier = Identifier([tokens()], None)
    text = token()
    for _ in range(2):
        assert isinstance(settled(identifier.identify(request(spelled.format(text)), NOW)), Principal)


# Remembered tokens


def test_a_known_token_is_not_verified_again(verifications: Verifications) -> None:
    """The second request costs a look-up and names the very same principal."""
    identifier = Identifier([tokens()], None)
    text = token()
    assert who(identifier, text) is who(identifier, text)
    assert verifications.count == 1


def test_a_bad_token_is_not_remembered() -> None:
    """A token that was not valid yet is accepted once it is."""
    identifier = Identifier([tokens()], None)
    text = token(nbf=NOW + 60)
    assert why_not(identifier, text).reason is Reason.TOKEN_NOT_YET_VALID
    assert who(identifier, text, NOW + 60).sub == "alice"


def test_a_remembered_token_expires_on_time() -> None:
    """Expiry is looked at again with every request, leeway included."""
    identifier = Identifier([tokens(leeway=10)], None)
    text = token(exp=NOW + 100)
    assert who(identifier, text).sub == "alice"
    assert who(identifier, text, NOW + 109.5).sub == "alice"
    assert why_not(identifier, text, NOW + 110).reason is Reason.TOKEN_EXPIRED
    assert who(identifier, text).sub == "alice"


def test_a_change_anywhere_is_another_token() -> None:
    """What is remembered is the whole token: the same payload under another signature or header is verified anew."""
    identifier = Identifier([tokens()], None)
    text = token()
    who(identifier, text)
    head, payload, signature = text.split(".")
    forged = token(key=ec_key(nth=1)).rpartition(".")[2]
    no_algorithm, another_caller = base64url(b'{"alg":"none"}'), base64url(b'{"sub":"root"}')
    for changed in (
        f"{head}.{payload}.{forged}",
        f"{head}.{payload}.{base64url(b'x' * 64)}",
        f"{no_algorithm}.{payload}.{signature}",
        f"{head}.{another_caller}.{signature}",
        f"{text}=",
    ):
        assert why_not(identifier, changed).reason is Reason.INVALID_TOKEN


def test_the_number_of_remembered_tokens_is_bounded(verifications: Verifications) -> None:
    """Beyond the bound the oldest are forgotten, which costs a verification and nothing else."""
    identifier = Identifier([tokens()], most_tokens=10)
    texts = [token(sub=f"u{number}") for number in range(25)]
    for text in texts:
        who(identifier, text)
    assert verifications.count == 25
    for text in texts[-10:]:
        who(identifier, text)
    assert verifications.count == 25
    for number, text in enumerate(texts[:15]):
        assert who(identifier, text).sub == f"u{number}"
    assert verifications.count == 40


def test_two_gates_remember_apart() -> None:
    """A token that one configuration accepts says nothing to another."""
    text = token()
    assert who(Identifier([tokens()], None), text).sub == "alice"
    assert why_not(Identifier([tokens(audience="billing")], None), text).reason is Reason.WRONG_AUDIENCE


def fetching(fetch: Callable[[], object], **options: Any) -> BearerTokens:  # noqa: ANN401 - any option
    """Return a source whose keys are fetched by calling `fetch`."""
    source = tokens(jwks_url="https://id.example/jwks", **options)
    keys = FetchedKeys(issuer=source.issuer, jwks_url=source.jwks_url, fetch=lambda _: Document(fetch(), max_age=None))
    object.__setattr__(source, "keys", keys)
    return source


class Published:
    """The key set of an issuer as it stands; an exception is raised."""

    def __init__(self, *kids: str) -> None:
        self.content: object = None
        self.publish(*kids)
        self.fetches = 0

    def publish(self, *kids: str) -> None:
        """Publish the keys with these kids; each kid has its own."""
        self.content = jwks(*(public_jwk(ec_key(nth=ord(kid)), kid=kid) for kid in kids))

    def __call__(self) -> object:
        self.fetches += 1
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


def by(kid: str, **claims: Any) -> str:  # noqa: ANN401 - any claim
    """Return a token signed with the key of a kid."""
    return token(key=ec_key(nth=ord(kid)), header={"kid": kid}, **claims)


def test_a_remembered_token_ends_with_its_key(verifications: Verifications) -> None:
    """Once its key is out of the key set a token is refused; tokens of keys that stay are not verified again."""
    published = Published("a", "b")
    identifier = Identifier([fetching(published)], None)
    removed, stays = by("a"), by("b")
    who(identifier, removed)
    who(identifier, stays)
    published.publish("b", "c")
    later = NOW + COOL_DOWN
    assert who(identifier, by("c"), later).sub == "alice"
    assert verifications.count == 3
    assert who(identifier, stays, later).sub == "alice"
    assert verifications.count == 3
    assert why_not(identifier, removed, later).reason is Reason.INVALID_TOKEN


def test_remembered_tokens_outlive_an_outage_for_a_day() -> None:
    """While the issuer is down known and new tokens pass by the last good keys; after a day it is 503, not 401."""
    published = Published("a")
    identifier = Identifier([fetching(published)], None)
    text, late = by("a", exp=NOW + 10 * OUTAGE), by("a", exp=NOW + 10 * OUTAGE, sub="bob")
    who(identifier, text)
    published.content = FetchFailed("down")
    assert who(identifier, text, NOW + OUTAGE).sub == "alice"
    assert who(identifier, late, NOW + OUTAGE).sub == "bob"
    answer = why_not(identifier, text, NOW + DEFAULT_LIFE + OUTAGE)
    assert answer.reason is Reason.KEYS_UNAVAILABLE
    assert answer.retry_after == COOL_DOWN


def test_a_flood_of_invented_kids_is_bounded_and_hurts_nobody() -> None:
    """A thousand tokens of invented keys in ten seconds: few fetches, 401 for each, and good tokens pass."""
    published = Published("a")
    identifier = Identifier([fetching(published)], None)
    who(identifier, by("a"))
    mine = ec_key(nth=1)
    for number in range(1_000):
        now = NOW + number / 101
        assert why_not(identifier, token(key=mine, header={"kid": f"k{number}"}), now).reason == "invalid_token"
    assert published.fetches <= MOST_FETCHES
    assert who(identifier, by("a", sub="bob"), NOW + 9).sub == "bob"


def test_a_token_that_waited_is_remembered(verifications: Verifications) -> None:
    """What came after a fetch is as good as what came at once."""
    identifier = Identifier([fetching(Published("a"))], None)
    text = by("a")
    assert isinstance(identifier.identify(request(bearer(text)), NOW), Need)
    who(identifier, text)
    assert isinstance(identifier.identify(request(bearer(text)), NOW), Principal)


def test_threads_share_an_identifier() -> None:
    """Many threads, few places: everybody is who they are."""
    identifier = Identifier([tokens()], Rbac(roles_for=lambda principal: [principal.sub]))
    texts = {f"u{number}": token(sub=f"u{number}") for number in range(8)}
    wrong: list[object] = []

    def ask() -> None:
        for _ in range(20):
            for sub, text in texts.items():
                principal = who(identifier, text)
                if principal.sub != sub or principal.roles != {sub}:
                    wrong.append((sub, principal))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Several issuers


def two_issuers(**options: Any) -> Identifier:  # noqa: ANN401 - any option of the partner's source
    """Return an identifier of two issuers, each with its own key, audience and claims."""
    partner: dict[str, Any] = {
        "issuer": PARTNER,
        "audience": "partner-api",
        "key": public_pem(ec_key(nth=2)),
        "claims": {"roles": "groups"},
        **options,
    }
    return Identifier([tokens(), BearerTokens(**partner)], None)


def test_each_issuer_is_proven_by_its_own_keys() -> None:
    """The iss of a token chooses the source; its keys, audience and claims are the ones that count."""
    identifier = two_issuers()
    assert identifier.realm == AUDIENCE
    assert [source.issuer for source in identifier.bearers] == [ISSUER, PARTNER]
    ours = who(identifier, token(roles=["a"], groups=["b"]))
    theirs = who(identifier, token(iss=PARTNER, aud="partner-api", key=ec_key(nth=2), roles=["a"], groups=["b"]))
    assert (ours.issuer, set(ours.roles)) == (ISSUER, {"a"})
    assert (theirs.issuer, set(theirs.roles)) == (PARTNER, {"b"})
    assert ours.key != theirs.key


@pytest.mark.parametrize(
    ("claims", "nth", "reason"),
    [
        ({"iss": PARTNER, "aud": "partner-api"}, 0, "invalid_token"),
        ({"iss": ISSUER}, 2, "invalid_token"),
        ({"iss": ISSUER, "aud": "partner-api"}, 2, "invalid_token"),
        ({"iss": ISSUER, "aud": "partner-api"}, 0, "wrong_audience"),
        ({"iss": PARTNER, "aud": AUDIENCE}, 2, "wrong_audience"),
        ({"iss": "https://other.example"}, 0, "invalid_token"),
        ({"iss": [ISSUER]}, 0, "invalid_token"),
        ({"iss": None}, 0, "invalid_token"),
    ],
    ids=["our key", "their key", "their key and audience", "their audience", "our audience", "nobody", "list", "null"],
)
def test_one_issuer_cannot_speak_for_another(claims: dict[str, Any], nth: int, reason: str) -> None:
    """A partner's key proves the partner's tokens and no others, in either direction."""
    assert why_not(two_issuers(), token(key=ec_key(nth=nth), **claims)).reason == reason


def test_a_token_of_no_known_issuer_says_so_in_the_log() -> None:
    """The hint names issuer and audience, and the issuers that would do."""
    hint = str(why_not(two_issuers(), token(iss="https://stage.example", aud="stage-api")).hint)
    said = "the token says iss 'https://stage.example' with aud 'stage-api'"
    ours = f"iss {ISSUER!r} with aud ['orders-api'], or iss {PARTNER!r} with aud ['partner-api']"
    assert hint == f"{said}, and this service accepts {ours}"


def test_two_sources_for_one_issuer_are_a_mistake() -> None:
    """Which of them would count? Neither can be told."""
    mistakes = Mistakes("Gate")
    as_sources(mistakes, [tokens(), tokens(audience="billing")])
    with pytest.raises(Exception, match=r"tokens\[1\] = 'https://id\.example': another source has this issuer"):
        mistakes.raise_if_any()


@pytest.mark.parametrize(
    "given", [5, "https://id.example", [tokens(), "x"], {"issuer": ISSUER}, BearerTokens], ids=repr
)
def test_what_is_no_source_is_a_mistake(given: object) -> None:
    """`Gate(tokens=)` takes sources and nothing else."""
    mistakes = Mistakes("Gate")
    as_sources(mistakes, given)
    with pytest.raises(Exception, match=r"tokens\[\d\]"):
        mistakes.raise_if_any()


@pytest.mark.parametrize("fields", ["x-key", {"X-Key"}, {"x-k\u00e9y"}, {5}, None, 5], ids=ascii)
def test_a_source_that_does_not_say_what_it_reads_is_a_mistake(fields: Any) -> None:  # noqa: ANN401 - all are wrong
    """A header that adapters do not look for would never be read: its name in lower case is needed, in a list."""
    source = ApiKeys()
    source.fields = fields
    with pytest.raises(ConfigurationError) as caught:
        Gate(tokens=[tokens(), source])
    assert [mistake.field for mistake in caught.value.mistakes] == ["tokens[1].fields"]


def test_sources_may_be_none_one_or_many() -> None:
    """Each form gives a tuple."""
    mistakes = Mistakes("Gate")
    one, key = tokens(), ApiKeys()
    assert as_sources(mistakes, None) == ()
    assert as_sources(mistakes, one) == (one,)
    assert as_sources(mistakes, [one, key]) == (one, key)
    assert as_sources(mistakes, (key,)) == (key,)
    assert not mistakes


# Other sources


class ApiKeys:
    """An identity source of X-Key headers: `alice` is known, `bad` is refused."""

    def __init__(self, field: str = "x-key", issuer: str = "keys") -> None:
        self.fields: Collection[str] = (field,)
        self.field = field
        self.issuer = issuer
        self.asked = 0

    def identify(self, request: AccessRequest, now: float) -> Identity | Need[Identity | None] | None:
        """Return who has this key."""
        self.asked += 1
        (key,) = request.fields.get(self.field, ("",))
        if not key:
            return None
        if key == "bad":
            return Rejected(Reason.INVALID_TOKEN, "no such key")
        return Principal(sub=key, issuer=self.issuer, roles=frozenset({"admin"}))


class SlowKeys(ApiKeys):
    """The same, after a need."""

    def identify(self, request: AccessRequest, now: float) -> Identity | Need[Identity | None] | None:
        """Return who has this key, later."""
        at_once = super().identify(request, now)
        assert not isinstance(at_once, Need)
        return Need(How.BLOCKING, lambda: at_once, lambda answer: cast("Identity | None", answer))


@pytest.mark.parametrize("kind", [ApiKeys, SlowKeys])
def test_another_source_is_asked_where_there_is_no_bearer_token(kind: type[ApiKeys]) -> None:
    """A session, an API key: asked where no token came, with all rules of roles."""
    source = kind()
    identifier = Identifier([tokens(), source], Rbac(hierarchy={"admin": ["seller"]}))
    assert isinstance(source, IdentitySource)
    assert identifier.fields == {"authorization", "x-key"}
    found = settled(identifier.identify(request(x_key="bob"), NOW))
    assert isinstance(found, Principal)
    assert found.key == ("keys", "bob")
    assert found.roles == {"admin", "seller"}
    assert settled(identifier.identify(request(x_key="bad"), NOW)) == Rejected(Reason.INVALID_TOKEN, "no such key")
    assert settled(identifier.identify(request(), NOW)) == Rejected(Reason.MISSING_TOKEN)


@pytest.mark.parametrize("kind", [ApiKeys, SlowKeys])
def test_a_bad_bearer_token_is_not_healed_by_another_source(kind: type[ApiKeys]) -> None:
    """Who sends a token is judged by it: no falling back to a cookie or key that came along."""
    source = kind()
    identifier = Identifier([tokens(), source], None)
    for line in (bearer(token(exp=1)), bearer("nonsense"), "Bearer", "Bearer a b"):
        found = settled(identifier.identify(request(line, x_key="bob"), NOW))
        assert isinstance(found, Rejected)
    two = settled(identifier.identify(request(bearer(token()), bearer(token()), x_key="bob"), NOW))
    assert isinstance(two, Rejected)
    assert source.asked == 0
    assert isinstance(settled(identifier.identify(request("Basic YWxpY2U6eA==", x_key="bob"), NOW)), Principal)
    assert source.asked == 1


def test_a_good_bearer_token_comes_first() -> None:
    """The token names the caller, and no other source is asked."""
    source = ApiKeys()
    found = settled(Identifier([source, tokens()], None).identify(request(bearer(token()), x_key="bob"), NOW))
    assert isinstance(found, Principal)
    assert found.sub == "alice"
    assert source.asked == 0


@pytest.mark.parametrize("kinds", [(ApiKeys, ApiKeys), (SlowKeys, SlowKeys), (ApiKeys, SlowKeys), (SlowKeys, ApiKeys)])
def test_sources_are_asked_in_order(kinds: tuple[type[ApiKeys], type[ApiKeys]]) -> None:
    """The first that knows the caller, or refuses a credential, has the word."""
    first, second = kinds[0]("x-first", "first"), kinds[1]("x-second", "second")
    identifier = Identifier([first, second], None)
    assert identifier.realm is None
    answers: Mapping[tuple[str, str], object] = {
        ("bob", "eve"): ("first", "bob"),
        ("", "eve"): ("second", "eve"),
        ("bad", "eve"): "invalid_token",
        ("", "bad"): "invalid_token",
        ("", ""): "missing_token",
    }
    for (one, other), expected in answers.items():
        found = settled(identifier.identify(request(x_first=one, x_second=other), NOW))
        assert (found.key if isinstance(found, Principal) else found.reason) == expected


class AsyncKeys(ApiKeys):
    """The same, async; `answer` replaces what it says, an exception is raised."""

    answer: object = ...

    async def identify(self, request: AccessRequest, now: float) -> Identity | None:  # type: ignore[override]  # a source may be either
        """Return who has this key, after some waiting."""
        if isinstance(self.answer, Exception):
            raise self.answer
        found = super().identify(request, now) if self.answer is ... else self.answer
        return cast("Identity | None", found)


def test_a_source_may_be_async() -> None:
    """It is awaited, with a time limit, in its turn; who it finds has roles like any other."""
    first, second = AsyncKeys("x-first", "first"), AsyncKeys("x-second", "second")
    identifier = Identifier([tokens(), first, second], Rbac(hierarchy={"admin": ["seller"]}))
    need = identifier.identify(request(x_first="bob"), NOW)
    assert isinstance(need, Need)
    assert need.how is How.COROUTINE
    assert need.within is not None
    assert 0 < need.within <= 10
    bob = settled(need)
    assert isinstance(bob, Principal)
    assert bob.key == ("first", "bob")
    assert bob.roles == {"admin", "seller"}
    eve = settled(identifier.identify(request(x_second="eve"), NOW))
    assert isinstance(eve, Principal)
    assert eve.key == ("second", "eve")
    assert settled(identifier.identify(request(x_first="bad", x_second="eve"), NOW)) == Rejected(
        Reason.INVALID_TOKEN, "no such key"
    )
    assert settled(identifier.identify(request(), NOW)) == Rejected(Reason.MISSING_TOKEN)
    asked = first.asked
    assert judged(identifier, bearer(token())) == "alice"
    assert judged(identifier, bearer(token(exp=1))) == "token_expired"
    assert first.asked == asked


@pytest.mark.parametrize("error", [ConnectionError("sessions are down"), TimeoutError()], ids=repr)
def test_an_async_source_that_fails_is_a_503(error: Exception) -> None:
    """Who asks cannot be told now; no later source is asked instead, and the log names the one that failed."""
    first, second = AsyncKeys("x-first"), AsyncKeys("x-second")
    first.answer = error
    found = settled(Identifier([first, second]).identify(request(x_second="eve"), NOW))
    assert isinstance(found, Rejected)
    assert found.reason is Reason.POLICY_UNAVAILABLE
    assert found.retry_after is not None
    assert found.hint == f"AsyncKeys raised {error!r}"
    assert second.asked == 0


def test_an_async_source_that_hangs_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up and cancelled, nothing runs, and the caller is told to try again."""
    monkeypatch.setattr("authz403.identity._PATIENCE", 0.01)
    ran: list[str] = []
    cancelled: list[bool] = []

    class Hanging(ApiKeys):
        async def identify(self, request: AccessRequest, now: float) -> Identity | None:  # type: ignore[override]  # a source may be either
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise
            return None

    app = Starlette()
    add_route(app, "/x", ran_by("x", ran))
    answer = drive(wrapped(app, Gate(tokens=Hanging(), default=authenticated, clock=lambda: NOW)), scope_of("/x"))
    assert (answer.status, answer.reason, ran, cancelled) == (503, "policy_unavailable", [], [True])
    assert int(answer.header("retry-after") or "") >= 1


@pytest.mark.parametrize("answer", [True, "bob", {"sub": "bob"}, 5], ids=repr)
def test_an_async_source_that_answers_with_something_else_denies(answer: object) -> None:
    """What is neither a principal nor a refusal is a bug of the source: 500 `policy_error`."""
    source = AsyncKeys()
    source.answer = answer
    gate = Gate(tokens=source, default=authenticated, clock=lambda: NOW)
    outcome = decided(gate)
    assert outcome.decision.reason is Reason.POLICY_ERROR
    assert "AsyncKeys.identify" in str(outcome.decision.error)


@pytest.mark.parametrize("answer", [True, "bob", {"sub": "bob"}, 5], ids=repr)
def test_a_source_that_answers_with_something_else_denies(answer: object) -> None:
    """The same of a plain one."""

    class Wrong(ApiKeys):
        def identify(self, request: AccessRequest, now: float) -> Identity | None:
            return cast("Identity", answer)

    outcome = decided(Gate(tokens=Wrong(), default=authenticated, clock=lambda: NOW))
    assert outcome.decision.reason is Reason.POLICY_ERROR
    assert outcome.principal is None


def test_an_anonymous_request_keeps_the_hint() -> None:
    """A header of another scheme is worth a hint, after all sources were asked."""
    found = settled(Identifier([tokens(), ApiKeys()], None).identify(request("Basic x"), NOW))
    assert isinstance(found, Rejected)
    assert found.reason is Reason.MISSING_TOKEN
    assert "another scheme" in str(found.hint)


# Roles


def test_hierarchy_and_grants_apply_to_tokens() -> None:
    """The principal has its effective roles and permissions, remembered or not."""
    identifier = Identifier([tokens()], Rbac(hierarchy={"admin": ["seller"]}, grants={"seller": ["orders:refund"]}))
    text = token(roles=["admin"], permissions=["own"])
    for _ in range(2):
        principal = who(identifier, text)
        assert principal.roles == {"admin", "seller"}
        assert principal.permissions == {"own", "orders:refund"}


@pytest.mark.parametrize("text", ["\ud800.e30.AAAA", "a\u20acb", "\x00"], ids=ascii)
def test_a_header_of_any_characters_is_judged(text: str) -> None:
    """Header text that no server would hand over is refused like any other, for `explain` and tests."""
    found = settled(Identifier([tokens()], None).identify(request(bearer(text)), NOW))
    assert isinstance(found, Rejected)
    assert found.reason.status in {400, 401}


def test_a_raw_payload_is_a_401(verifications: Verifications) -> None:
    """Text that is no object, under a good signature, is not even verified."""
    assert why_not(Identifier([tokens()], None), signed({"alg": "ES256"}, b"[]")).reason is Reason.INVALID_TOKEN
    assert verifications.count == 0


# Tokens in another header


PROXY: Final = "x-forwarded-access-token"


def behind_a_proxy(**options: Any) -> BearerTokens:  # noqa: ANN401 - any option
    """Return a source that reads its tokens where a proxy writes them."""
    return tokens(read_from=PROXY, **options)


def judged(identifier: Identifier, *authorization: str, proxied: str | tuple[str, ...] = ()) -> str:
    """Return whom a request with these headers names, or the reason why it names nobody."""
    found = settled(identifier.identify(request(*authorization, x_forwarded_access_token=proxied), NOW))
    return found.sub if isinstance(found, Principal) else str(found.reason)


@pytest.mark.parametrize(
    ("authorization", "proxied", "expected"),
    [
        ((), (token(),), "alice"),
        ((), (f" {token()}\t",), "alice"),
        ((), (), "missing_token"),
        ((), (bearer(token()),), "invalid_request"),
        ((), ("",), "missing_token"),
        ((), (token(), token()), "invalid_request"),
        ((), (token(), ""), "invalid_request"),
        ((), (f"{token()}, {token()}",), "invalid_request"),
        ((), ("a" * 17_000,), "invalid_request"),
        ((), (token(exp=1),), "token_expired"),
        ((), ("not-a-token",), "invalid_token"),
        ((bearer(token()),), (), "missing_token"),
        ((bearer(token()),), (token(sub="bob"),), "bob"),
        ((bearer(token()), bearer(token())), (token(sub="bob"),), "bob"),
    ],
    ids=[
        "the token alone",
        "white space around",
        "nothing",
        "with the word Bearer",
        "empty",
        "two lines",
        "an empty second line",
        "a list",
        "too long",
        "expired",
        "no token",
        "in Authorization alone",
        "Authorization is not looked at",
        "nor are two of them",
    ],
)
def test_a_token_may_stand_in_the_header_of_a_proxy(
    authorization: tuple[str, ...], proxied: tuple[str, ...], expected: str
) -> None:
    """`read_from` names the one header that counts: exactly one line with exactly one token, seen before or not."""
    identifier = Identifier([behind_a_proxy()])
    assert identifier.fields == {PROXY}
    for _ in range(2):
        assert judged(identifier, *authorization, proxied=proxied) == expected


@pytest.mark.parametrize(
    ("authorization", "proxied", "expected"),
    [
        ((bearer(token()),), token(sub="bob"), ("alice", "bob")),
        ((bearer(token(exp=1)),), token(sub="bob"), ("token_expired", "bob")),
        ((bearer("nonsense"),), token(sub="bob"), ("invalid_token", "bob")),
        (("Bearer",), token(sub="bob"), ("invalid_request", "bob")),
        ((bearer(token()), bearer(token())), token(sub="bob"), ("invalid_request", "bob")),
        ((bearer(token()),), token(exp=1), ("alice", "token_expired")),
        ((bearer(token()),), "no token", ("alice", "invalid_request")),
        ((bearer(token()),), (token(), token()), ("alice", "invalid_request")),
        (("Basic YWxpY2U6eA==",), token(sub="bob"), ("bob", "bob")),
        (("",), token(sub="bob"), ("bob", "bob")),
        ((), token(sub="bob"), ("bob", "bob")),
        ((bearer(token()),), (), ("alice", "alice")),
        (("Basic YWxpY2U6eA==",), (), ("missing_token", "missing_token")),
        (("Basic YWxpY2U6eA==",), token(exp=1), ("token_expired", "token_expired")),
    ],
    ids=[
        "two good ones",
        "first expired",
        "first is nonsense",
        "first is malformed",
        "first is double",
        "second expired",
        "second is malformed",
        "second is double",
        "Basic and a token",
        "empty and a token",
        "proxy alone",
        "Authorization alone",
        "Basic alone",
        "Basic and a bad token",
    ],
)
def test_the_order_of_the_sources_decides_between_headers(
    authorization: tuple[str, ...], proxied: str | tuple[str, ...], expected: tuple[str, str]
) -> None:
    """The header of the first source counts, and a bad token there is not healed by a good one elsewhere."""
    orders = ([tokens(), behind_a_proxy()], [behind_a_proxy(), tokens()])
    for sources, whom in zip(orders, expected, strict=True):
        identifier = Identifier(sources)
        for _ in range(2):
            assert judged(identifier, *authorization, proxied=proxied) == whom


def test_a_token_that_one_header_accepts_says_nothing_of_another() -> None:
    """What is remembered is remembered of its header: where another source reads, it is judged by that source."""
    identifier = Identifier([tokens(), behind_a_proxy(audience="billing")])
    text = token()
    assert judged(identifier, bearer(text)) == "alice"
    assert judged(identifier, proxied=text) == "wrong_audience"
    both = token(aud=[AUDIENCE, "billing"])
    partner = Identifier([tokens(), behind_a_proxy(audience="billing", claims={"sub": "name"})])
    for _ in range(2):
        assert judged(partner, bearer(both_named := token(aud=[AUDIENCE, "billing"], name="bob"))) == "alice"
        assert judged(partner, proxied=both_named) == "bob"
    assert judged(identifier, proxied=both) == "alice"


@pytest.mark.parametrize("line", ["{}", "Bearer {}", "authorization: Bearer {}", PROXY + ": {}"])
def test_no_line_of_one_header_is_taken_for_what_is_remembered_of_another(line: str) -> None:
    """Header text cannot be written so that it looks up another header's token."""
    identifier = Identifier([tokens(), behind_a_proxy(audience="billing")])
    text, proxied = token(), token(aud="billing", sub="bob")
    assert judged(identifier, bearer(text)) == "alice"
    assert judged(identifier, proxied=proxied) == "bob"
    assert judged(identifier, proxied=line.format(text)) in {"wrong_audience", "invalid_request"}
    assert judged(identifier, line.format(proxied)) in {"wrong_audience", "invalid_request", "missing_token"}


def test_each_header_has_issuers_of_its_own() -> None:
    """An issuer that is trusted in the proxy's header is not trusted in Authorization, nor the other way round."""
    partner = BearerTokens(issuer=PARTNER, audience=AUDIENCE, key=public_pem(ec_key(nth=2)), read_from=PROXY)
    identifier = Identifier([tokens(), partner])
    theirs = token(iss=PARTNER, key=ec_key(nth=2), sub="bob")
    for _ in range(2):
        assert judged(identifier, proxied=theirs) == "bob"
        assert judged(identifier, bearer(theirs)) == "invalid_token"
        assert judged(identifier, proxied=token()) == "invalid_token"


def test_one_issuer_may_use_two_headers_and_each_header_once() -> None:
    """A proxy in front of some clients is no second issuer; two sources for one header and issuer are a mistake."""
    Gate(tokens=[tokens(), behind_a_proxy()])
    with pytest.raises(ConfigurationError) as caught:
        Gate(tokens=[behind_a_proxy(), tokens(), behind_a_proxy(audience="billing")])
    assert [mistake.field for mistake in caught.value.mistakes] == ["tokens[2]"]


def test_a_gate_reads_the_headers_of_its_tokens_and_no_others() -> None:
    """Through an app: the proxy's header counts, the same name with underscores or Authorization does not."""
    ran: list[str] = []
    app = Starlette()
    add_route(app, "/x", ran_by("x", ran))
    whole = wrapped(app, Gate(tokens=behind_a_proxy(), default=authenticated, clock=lambda: NOW))
    for lines, status in (
        ([("X-Forwarded-Access-Token", token())], 200),
        ([("X_Forwarded_Access_Token", token())], 401),
        ([("Authorization", bearer(token()))], 401),
        ([("X-Forwarded-Access-Token", token()), ("x-forwarded-access-token", token())], 400),
    ):
        assert drive(whole, scope_of("/x", headers=lines)).status == status
    assert ran == ["x"]


# How many are remembered


def decided(gate: Gate, *authorization: str) -> Outcome:
    """Return what a gate decides for a request with these Authorization lines."""
    return fulfilled(gate.decide(request(*authorization)))


def gate_of(source: BearerTokens, **options: Any) -> Gate:  # noqa: ANN401 - any option
    """Return a gate that lets every caller in, at a time that stands still."""
    return Gate(**{"tokens": source, "default": authenticated, "clock": lambda: NOW, **options})


@pytest.mark.parametrize(("token_cache", "verified"), [(0, 6), (1, 5), (2, 2), (10_000, 2)])
def test_token_cache_is_how_many_are_remembered(verifications: Verifications, token_cache: int, verified: int) -> None:
    """`Gate(token_cache=)` bounds what is remembered; too few places, or none, cost verifications and nothing else."""
    gate = gate_of(tokens(), token_cache=token_cache)
    alice, bob = token(), token(sub="bob")
    for text, sub in ((alice, "alice"), (bob, "bob"), (bob, "bob"), (alice, "alice"), (bob, "bob"), (alice, "alice")):
        outcome = decided(gate, bearer(text))
        assert outcome.principal is not None
        assert outcome.principal.sub == sub
    assert verifications.count == verified


@pytest.mark.parametrize("token_cache", [-1, True, False, 1.5, "5", None], ids=repr)
def test_what_is_no_number_of_tokens_is_a_mistake(token_cache: Any) -> None:  # noqa: ANN401 - all are wrong
    """Neither less than none nor another type than int."""
    with pytest.raises(ConfigurationError) as caught:
        Gate(token_cache=token_cache)
    assert [mistake.field for mistake in caught.value.mistakes] == ["token_cache"]


def keycloak_claims(number: int) -> dict[str, Any]:
    """Return the claims of an access token as Keycloak writes them, each with ids of its own."""
    return {
        "iat": int(NOW),
        "jti": str(uuid.UUID(int=3 * number)),
        "iss": "https://id.example/realms/shop",
        "aud": [AUDIENCE, "account"],
        "sub": str(uuid.UUID(int=3 * number + 1)),
        "typ": "Bearer",
        "azp": "shop-web",
        "sid": str(uuid.UUID(int=3 * number + 2)),
        "acr": "1",
        "allowed-origins": ["https://shop.example"],
        "realm_access": {"roles": ["default-roles-shop", "offline_access", "uma_authorization", "seller"]},
        "resource_access": {"account": {"roles": ["manage-account", "manage-account-links", "view-profile"]}},
        "scope": "openid email profile orders:read orders:write",
        "email_verified": True,
        "name": f"Ada Lovelace {number}",
        "preferred_username": f"ada{number}",
        "given_name": "Ada",
        "family_name": f"Lovelace {number}",
        "email": f"ada{number}@shop.example",
    }


def test_remembered_tokens_take_little_memory() -> None:
    """Two thousand tokens of a usual size take less than 1,500 bytes each, so that 100,000 fit into 150 MB."""
    source = tokens(issuer="https://id.example/realms/shop", key=SECRET, algorithms=["HS256"], claims="keycloak")
    gate = gate_of(source, token_cache=100_000)
    count = 2_000
    lines = [bearer(token(algorithm="HS256", header={"typ": "JWT"}, **keycloak_claims(n))) for n in range(count + 1)]
    assert len(lines[0]) > 1_000
    assert decided(gate, lines.pop()).decision.allowed  # what is made once a process is not counted
    gc.collect()
    tracemalloc.start()
    try:
        for line in lines:
            assert decided(gate, line).decision.allowed
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / count < 1_500


# Revoked tokens


class Revoked:
    """A list of revoked tokens, by issuer and token id, and whom it was asked about; `answer` replaces what it says."""

    def __init__(self, *ids: str, answer: object = None) -> None:
        self.ids = {(ISSUER, one) for one in ids}
        self.answer = answer
        self.asked: list[Principal] = []

    def __call__(self, principal: Principal) -> bool:
        self.asked.append(principal)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return cast("bool", self.answer)
        return (principal.issuer, principal.token_id) in self.ids


def test_revocation_is_asked_for_with_every_request(verifications: Verifications) -> None:
    """On first sight and for every token that is remembered; a token that was revoked since is refused at once."""
    revoked = Revoked()
    identifier = Identifier([tokens(is_revoked=revoked)])
    text = token(jti="t-1")
    who(identifier, text)
    who(identifier, text)
    assert [principal.token_id for principal in revoked.asked] == ["t-1", "t-1"]
    revoked.ids.add((ISSUER, "t-1"))
    for _ in range(2):
        assert why_not(identifier, text).reason is Reason.TOKEN_REVOKED
    assert verifications.count == 1
    revoked.ids.clear()
    assert who(identifier, text).sub == "alice"
    assert len(revoked.asked) == 5


def test_a_token_that_waited_for_its_key_is_asked_about_too() -> None:
    """There is no way to a principal around `is_revoked`: not at first sight, not after a fetch."""
    revoked = Revoked("t-1")
    identifier = Identifier([fetching(Published("a"), is_revoked=revoked)])
    assert why_not(identifier, text := by("a", jti="t-1")).reason is Reason.TOKEN_REVOKED
    assert why_not(identifier, text).reason is Reason.TOKEN_REVOKED
    assert len(revoked.asked) == 2


def test_a_revoked_token_is_revoked_in_every_spelling() -> None:
    """Revocation goes by issuer and token id: other white space, another signature, another header, another token."""
    identifier = Identifier([tokens(is_revoked=Revoked("t-1")), behind_a_proxy(is_revoked=Revoked("t-1"))])
    text = token(jti="t-1")
    again = token(jti="t-1", scope="more")
    assert text != again
    for line in (bearer(text), f"bearer  {text}", f" BEARER {text} ", bearer(again), bearer(token(jti="t-1"))):
        assert judged(identifier, line) == "token_revoked"
    assert judged(identifier, proxied=text) == "token_revoked"
    assert judged(identifier, bearer(token(jti="t-2"))) == "alice"
    assert judged(identifier, bearer(token())) == "alice"


def test_a_token_of_another_issuer_is_another_token() -> None:
    """A token id says something together with its issuer alone."""
    revoked = Revoked("t-1")
    partner = BearerTokens(issuer=PARTNER, audience=AUDIENCE, key=public_pem(ec_key(nth=2)), is_revoked=revoked)
    identifier = Identifier([tokens(is_revoked=revoked), partner])
    assert why_not(identifier, token(jti="t-1")).reason is Reason.TOKEN_REVOKED
    assert who(identifier, token(jti="t-1", iss=PARTNER, key=ec_key(nth=2))).issuer == PARTNER


def test_a_token_without_an_id_is_revoked_by_its_fingerprint() -> None:
    """What the log calls the token is what `is_revoked` sees."""
    revoked = Revoked()
    identifier = Identifier([tokens(is_revoked=revoked)])
    token_id = who(identifier, text := token()).token_id
    assert token_id is not None
    revoked.ids.add((ISSUER, token_id))
    assert why_not(identifier, text).reason is Reason.TOKEN_REVOKED


@pytest.mark.parametrize("answer", [True, 0, "", (), 1, "no"], ids=repr)
@pytest.mark.parametrize("seen_before", [False, True], ids=["first", "remembered"])
def test_whatever_is_not_plainly_no_refuses(answer: object, seen_before: bool) -> None:  # noqa: FBT001 - a table
    """Only `False` lets a token pass."""
    revoked = Revoked()
    identifier = Identifier([tokens(is_revoked=revoked)])
    text = token()
    if seen_before:
        who(identifier, text)
    revoked.answer = answer
    assert why_not(identifier, text).reason is Reason.TOKEN_REVOKED


def test_a_function_that_forgets_to_answer_refuses() -> None:
    """`None` is not `False`."""
    forgetful = cast("Callable[[Principal], bool]", lambda _: None)
    assert why_not(Identifier([tokens(is_revoked=forgetful)]), token()).reason is Reason.TOKEN_REVOKED


def test_the_effective_roles_are_seen_by_is_revoked() -> None:
    """The caller is asked about as requirements see them, with hierarchy and grants."""
    revoked = Revoked()
    rbac = Rbac(hierarchy={"admin": ["seller"]}, grants={"seller": ["orders:refund"]})
    identifier = Identifier([tokens(is_revoked=revoked)], rbac)
    text = token(roles=["admin"])
    assert who(identifier, text) is who(identifier, text)
    assert [set(principal.roles) for principal in revoked.asked] == [{"admin", "seller"}] * 2
    assert [set(principal.permissions) for principal in revoked.asked] == [{"orders:refund"}] * 2


def test_no_roles_are_looked_up_for_a_revoked_token() -> None:
    """A directory is not asked about callers who cannot come in."""
    asked: list[Principal] = []

    def roles_for(principal: Principal) -> list[str]:
        asked.append(principal)
        return ["admin"]

    identifier = Identifier([tokens(is_revoked=Revoked("t-1"))], Rbac(roles_for=roles_for))
    assert why_not(identifier, token(jti="t-1")).reason is Reason.TOKEN_REVOKED
    assert asked == []
    assert who(identifier, token(jti="t-2")).roles == {"admin"}


@pytest.mark.parametrize(
    "text",
    [
        token(exp=1),
        token(nbf=NOW + 60),
        token(aud="billing"),
        token(iss=PARTNER),
        token(key=ec_key(nth=1)),
        token(sub=ABSENT),
        "nonsense",
    ],
    ids=["expired", "not yet valid", "audience", "issuer", "signature", "nobody", "no token"],
)
def test_nobody_asks_whether_a_bad_token_is_revoked(text: str) -> None:
    """What a forger wrote reaches no list of revoked tokens, and why the token is bad is what is said."""
    revoked = Revoked(answer=True)
    assert why_not(Identifier([tokens(is_revoked=revoked)]), text).reason is not Reason.TOKEN_REVOKED
    assert revoked.asked == []


def test_a_remembered_token_that_expired_is_expired_and_not_revoked() -> None:
    """Expiry comes first, remembered or not."""
    revoked = Revoked()
    identifier = Identifier([tokens(is_revoked=revoked, leeway=0)])
    who(identifier, text := token(exp=NOW + 10))
    assert why_not(identifier, text, NOW + 10).reason is Reason.TOKEN_EXPIRED
    assert len(revoked.asked) == 1


def revoking_app(revoked: Revoked, ran: list[str]) -> Any:  # noqa: ANN401 - an ASGI app
    """Return an app whose `/x` needs a caller, with tokens that may be revoked."""
    app = Starlette()
    add_route(app, "/x", ran_by("x", ran))
    return wrapped(app, gate_of(tokens(is_revoked=revoked)))


def test_a_revoked_token_is_a_401_and_the_log_says_whose() -> None:
    """The client reads token_revoked and a challenge with invalid_token (RFC 6750 section 3.1); the event has names."""
    ran: list[str] = []
    app = revoking_app(Revoked("t-1"), ran)
    headers = {"Authorization": bearer(token(jti="t-1", client_id="shop"))}
    with listening() as events:
        answers = [drive(app, scope_of("/x", headers=headers)) for _ in range(2)]
    for answer in answers:
        assert (answer.status, answer.reason, ran) == (401, "token_revoked", [])
        assert 'error="invalid_token"' in (answer.header("www-authenticate") or "")
        assert b"t-1" not in answer.body
        assert b"alice" not in answer.body
    assert len(events) == 2
    for event in events:
        assert (event["event"], event["reason"]) == ("authz.denied", "token_revoked")
        assert (event["sub"], event["iss"], event["client_id"]) == ("alice", ISSUER, "shop")
        assert (event["token_id"], event["token_expires"]) == ("t-1", NOW + 3600)


@pytest.mark.parametrize("seen_before", [False, True], ids=["first", "remembered"])
def test_a_list_of_revoked_tokens_that_fails_denies(seen_before: bool) -> None:  # noqa: FBT001 - a table
    """An exception of `is_revoked` is a 500 `policy_error`, nothing runs, and the log holds the exception."""
    ran: list[str] = []
    revoked = Revoked()
    app = revoking_app(revoked, ran)
    headers = {"Authorization": bearer(token())}
    if seen_before:
        assert drive(app, scope_of("/x", headers=headers)).status == 200
        ran.clear()
    revoked.answer = ConnectionError("the list is down")
    with listening() as events:
        answer = drive(app, scope_of("/x", headers=headers))
    assert (answer.status, answer.reason, ran) == (500, "policy_error", [])
    assert b"the list is down" not in answer.body
    assert [event["event"] for event in events] == ["authz.error"]
    assert "the list is down" in str(events[0]["error"])


# What is never remembered


def test_a_key_that_is_withdrawn_ends_remembered_tokens_at_once(verifications: Verifications) -> None:
    """From the moment that the new key set is here, whoever's token asks, nothing of the old key passes."""
    published = Published("a", "b")
    now = NOW
    gate = gate_of(fetching(published), clock=lambda: now)
    texts = [by("a", sub=f"u{number}", exp=NOW + 10**6) for number in range(5)]
    assert all(decided(gate, bearer(text)).decision.allowed for text in texts)
    assert verifications.count == 5
    published.publish("b")
    assert all(decided(gate, bearer(text)).decision.allowed for text in texts)
    now += COOL_DOWN
    assert decided(gate, bearer(by("z"))).decision.reason is Reason.INVALID_TOKEN
    assert [decided(gate, bearer(text)).decision.reason for text in texts] == ["invalid_token"] * 5
    assert decided(gate, bearer(by("b"))).decision.allowed


def test_a_decision_is_never_remembered() -> None:
    """With the same token, the clock, the policy's own facts and the request decide anew each time."""
    is_open = True
    now = NOW
    gate = gate_of(tokens(leeway=0), default=requirement("shop_is_open", lambda _: is_open), clock=lambda: now)
    line = bearer(token(exp=NOW + 100))
    assert decided(gate, line).decision.allowed
    is_open = False
    assert decided(gate, line).decision.reason == "shop_is_open"
    is_open = True
    assert decided(gate, line).decision.allowed
    now = NOW + 100
    assert decided(gate, line).decision.reason is Reason.TOKEN_EXPIRED
    now = NOW
    assert decided(gate, line).decision.allowed
    assert decided(gate).decision.reason is Reason.MISSING_TOKEN


def test_two_gates_share_nothing() -> None:
    """One source in two gates: each has its own roles, its own memory and its own answer."""
    source = tokens()
    sellers = gate_of(source, rbac=Rbac(hierarchy={"admin": ["seller"]}), default=any_role("seller"))
    plain = gate_of(source, default=any_role("seller"))
    line = bearer(token(roles=["admin"]))
    for _ in range(2):
        assert decided(sellers, line).decision.allowed
        assert decided(plain, line).decision.reason is Reason.ROLE_REQUIRED


# Threads


def rotating() -> Iterator[tuple[str, ...]]:
    """Yield the kids of one key set after another: a new one comes, the old one goes."""
    return itertools.cycle((("a",), ("a", "b"), ("b",), ("b", "c"), ("c",), ("c", "a")))


@pytest.mark.parametrize("token_cache", [0, 3, 1_000], ids=["none remembered", "three places", "room for all"])
def test_sixteen_threads_are_sixteen_callers_while_keys_rotate(token_cache: int) -> None:
    """Whatever is fetched, forgotten, looked up and refused meanwhile, nobody ever gets another's identity."""
    published = Published("a")
    kid_sets = rotating()
    ticks = itertools.count()
    rbac = Rbac(roles_for=lambda principal: [f"role of {principal.sub}"])
    gate = gate_of(
        fetching(published),
        rbac=rbac,
        token_cache=token_cache,
        clock=lambda: NOW + next(ticks) * COOL_DOWN / 50,
    )
    subs = [f"u{number}" for number in range(16)]
    lines = {sub: [bearer(by(kid, sub=sub, exp=NOW + 10**6)) for kid in "abc"] for sub in subs}
    together = threading.Barrier(len(subs))
    wrong: list[object] = []
    seen: dict[str, int] = dict.fromkeys(subs, 0)

    def ask(sub: str) -> None:
        together.wait(10)
        for number in range(60):
            if sub == subs[0]:
                published.publish(*next(kid_sets))
            outcome = decided(gate, lines[sub][number % 3])
            principal = outcome.principal
            if principal is not None and principal.sub == sub and principal.roles == {f"role of {sub}"}:
                seen[sub] += outcome.decision.allowed
            elif principal is not None or outcome.decision.reason is not Reason.INVALID_TOKEN:
                wrong.append((sub, principal, outcome.decision))

    threads = [threading.Thread(target=ask, args=(sub,)) for sub in subs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert all(seen.values())
