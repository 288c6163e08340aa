import asyncio
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any, Final, cast

import pytest

import authz403.role_lookup
from authz403 import BearerTokens, Principal, Rbac, Reason
from authz403.errors import Mistakes
from authz403.fetch import Document, FetchFailed
from authz403.identity import Identifier, Identity, IdentitySource, as_sources
from authz403.keys import COOL_DOWN, DEFAULT_LIFE, OUTAGE, FetchedKeys
from authz403.need import How, Need
from authz403.policy import Rejected
from authz403.request import AccessRequest
from tests.tokens_made import (
    AUDIENCE,
    ISSUER,
    NOW,
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


def request(*authorization: str, **fields: str) -> AccessRequest:
    """Return a request with these Authorization lines and header fields (`x_key` is X-Key)."""
    others = {name.replace("_", "-"): (value,) for name, value in fields.items()}
    lines = {"authorization": authorization} if authorization else {}
    return AccessRequest("GET", "/orders", fields={**lines, **others})


def settled(step: Identity | Need[Identity]) -> Identity:
    """Fulfil needs as an adapter does: an exception of the work is what `resume` gets."""
    while isinstance(step, Need):
        answer: object
        try:
            answer = step.work()
            if isinstance(answer, Future):
                answer = answer.result(10)
            elif step.how is How.COROUTINE:
                answer = asyncio.run(cast("Any", answer))
        except Exception as error:  # noqa: BLE001 - whatever a user's function raises
            answer = error
        step = step.resume(answer)
    return step


def who(identifier: Identifier, text: str, now: float = NOW) -> Principal:
    """Return whom a token names; it must be good."""
    found = settled(identifier.identify(request(bearer(text)), now))
    assert isinstance(found, Principal), found
    return found


def why_not(identifier: Identifier, text: str, now: float = NOW) -> Rejected:
    """Return why a token names nobody."""
    found = settled(identifier.identify(request(bearer(text)), now))
    assert isinstance(found, Rejected), found
    return found


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
    """A thousand tokens of invented keys in ten seconds: two fetches, 401 for each, and good tokens pass."""
    published = Published("a")
    identifier = Identifier([fetching(published)], None)
    who(identifier, by("a"))
    mine = ec_key(nth=1)
    for number in range(1_000):
        now = NOW + number / 101
        assert why_not(identifier, token(key=mine, header={"kid": f"k{number}"}), now).reason == "invalid_token"
    assert published.fetches <= 2
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
    said = "the token says iss 'https://stage.example' and aud 'stage-api'"
    assert hint == f"{said}, and this service accepts the issuers {[ISSUER, PARTNER]!r}"


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


class Directory:
    """Roles that a directory knows, and how often it was asked."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []

    def roles_for(self, principal: Principal) -> Collection[str]:
        """Return the roles of a caller, at once."""
        self.asked.append(principal.key)
        if isinstance(self.answer, Exception):
            raise self.answer
        return cast("Collection[str]", self.answer)

    async def roles_for_later(self, principal: Principal) -> Collection[str]:
        """Return the roles of a caller, after some waiting."""
        return self.roles_for(principal)


@pytest.fixture(params=["sync", "async"])
def roles_of(request: pytest.FixtureRequest) -> Callable[..., tuple[Directory, Rbac]]:
    """Give a function that makes a directory and the Rbac that asks it, in both ways."""

    def made(answer: object, **options: Any) -> tuple[Directory, Rbac]:  # noqa: ANN401 - any option of Rbac
        directory = Directory(answer)
        ask = directory.roles_for_later if request.param == "async" else directory.roles_for
        return directory, Rbac(roles_for=ask, **options)

    return made


Made = Callable[..., tuple[Directory, Rbac]]


def test_roles_are_asked_for_and_remembered(roles_of: Made) -> None:
    """They replace the token's, with hierarchy and grants, and are asked for again after `roles_ttl` seconds."""
    directory, rbac = roles_of(["admin"], hierarchy={"admin": ["seller"]}, grants={"seller": ["refund"]}, roles_ttl=60)
    identifier = Identifier([tokens()], rbac)
    text = token(roles=["owner"])
    for now in (NOW, NOW + 1, NOW + 59.9):
        principal = who(identifier, text, now)
        assert principal.roles == {"admin", "seller"}
        assert principal.permissions == {"refund"}
    assert directory.asked == [(ISSUER, "alice")]
    directory.answer = ()
    assert who(identifier, text, NOW + 60).roles == frozenset()
    assert len(directory.asked) == 2


def test_roles_are_remembered_by_caller(roles_of: Made) -> None:
    """Another token of the same caller asks nothing; another caller, or the same name elsewhere, does."""
    directory, rbac = roles_of({"admin"})
    partner = BearerTokens(issuer=PARTNER, audience=AUDIENCE, key=public_pem(ec_key(nth=2)))
    identifier = Identifier([tokens(), partner], rbac)
    who(identifier, token())
    who(identifier, token(jti="another"))
    assert len(directory.asked) == 1
    who(identifier, token(sub="bob"))
    who(identifier, token(iss=PARTNER, key=ec_key(nth=2)))
    assert directory.asked == [(ISSUER, "alice"), (ISSUER, "bob"), (PARTNER, "alice")]


def test_how_roles_are_asked_for_is_said(roles_of: Made) -> None:
    """A plain function may block and is kept off the loop; a coroutine function is awaited."""
    _, rbac = roles_of(["admin"])
    need = Identifier([tokens()], rbac).identify(request(bearer(token())), NOW)
    assert isinstance(need, Need)
    assert need.how is (How.COROUTINE if rbac.asks_asynchronously else How.BLOCKING)
    settled(need)


def test_without_a_ttl_roles_are_asked_for_each_time(roles_of: Made) -> None:
    """`roles_ttl=0` remembers nothing."""
    directory, rbac = roles_of(["admin"], roles_ttl=0)
    identifier = Identifier([tokens()], rbac)
    who(identifier, text := token())
    who(identifier, text)
    assert len(directory.asked) == 2


def test_roles_are_asked_for_where_another_source_knows_the_caller(roles_of: Made) -> None:
    """Sessions and API keys have their roles replaced too."""
    _, rbac = roles_of(["seller"], hierarchy={"admin": ["owner"]})
    identifier = Identifier([ApiKeys()], rbac)
    found = settled(identifier.identify(request(x_key="bob"), NOW))
    assert isinstance(found, Principal)
    assert found.roles == {"seller"}


def test_a_bad_token_asks_for_no_roles(roles_of: Made) -> None:
    """Nobody is looked up on the word of a token that does not hold."""
    directory, rbac = roles_of(["admin"])
    why_not(Identifier([tokens()], rbac), token(key=ec_key(nth=1)))
    assert directory.asked == []


def test_a_directory_that_fails_is_a_503_and_not_remembered(roles_of: Made) -> None:
    """An exception means: cannot be decided now; the next request asks again."""
    directory, rbac = roles_of(ConnectionError("ldap is down"))
    identifier = Identifier([tokens()], rbac)
    answer = why_not(identifier, text := token(roles=["admin"]))
    assert answer.reason is Reason.POLICY_UNAVAILABLE
    assert answer.retry_after is not None
    assert "ldap is down" in str(answer.hint)
    directory.answer = ["seller"]
    assert who(identifier, text).roles == {"seller"}


@pytest.mark.parametrize(
    "answer",
    [None, "admin", b"admin", 5, True, [5], ["admin", None], [["admin"]], {"admin": False}, {"roles": ["admin"]}],
    ids=repr,
)
def test_an_answer_that_is_no_list_of_roles_is_a_503(roles_of: Made, answer: object) -> None:
    """A wrong type grants nothing: not its letters, not its keys, not the token's own roles."""
    _, rbac = roles_of(answer)
    rejected = why_not(Identifier([tokens()], rbac), token(roles=["admin"]))
    assert rejected.reason is Reason.POLICY_UNAVAILABLE
    assert rejected.retry_after is not None
    assert "roles_for" in str(rejected.hint)


def test_the_number_of_remembered_callers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the oldest are asked for again."""
    monkeypatch.setattr(authz403.role_lookup, "_MOST_CALLERS", 3)
    directory = Directory(["seller"])
    identifier = Identifier([tokens()], Rbac(roles_for=directory.roles_for))
    texts = [token(sub=f"u{number}") for number in range(5)]
    for text in texts:
        who(identifier, text)
    who(identifier, texts[-1])
    assert len(directory.asked) == 5
    who(identifier, texts[0])
    assert len(directory.asked) == 6


def test_a_caller_who_is_asked_for_again_pushes_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that replaces an older one of the same caller needs no room."""
    monkeypatch.setattr(authz403.role_lookup, "_MOST_CALLERS", 2)
    directory = Directory(["seller"])
    identifier = Identifier([tokens()], Rbac(roles_for=directory.roles_for, roles_ttl=60))
    alice, bob = token(sub="alice"), token(sub="bob")
    who(identifier, alice, NOW + 50)
    who(identifier, bob)
    who(identifier, bob, NOW + 61)
    assert len(directory.asked) == 3
    who(identifier, alice, NOW + 62)
    assert len(directory.asked) == 3


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
