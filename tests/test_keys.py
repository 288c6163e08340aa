import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Final

import pytest

from authz403.fetch import TIMEOUT, Document, FetchFailed, Unreachable
from authz403.jose import KeySet, VerificationKey, key_from_jwk
from authz403.keys import (
    COOL_DOWN,
    DEFAULT_LIFE,
    LONGEST_LIFE,
    MOST_FETCHES,
    OUTAGE,
    SHORTEST_LIFE,
    FetchedKeys,
    FixedKeys,
    Keys,
    KeysUnavailable,
    metadata_urls,
)
from authz403.need import How, Need
from tests.tokens_made import ISSUER, NOW, ec_key, jwks, public_jwk, secret_jwk

JWKS_URL = f"{ISSUER}/jwks"


def published(*kids: str, nth: int = 0) -> dict[str, object]:
    """Return a key set with a key for each kid; other keys for another `nth`."""
    return jwks(*(public_jwk(ec_key(nth=nth + 100 * index), kid=kid) for index, kid in enumerate(kids)))


class Web:
    """What `fetch` meets: documents by URL; an exception there is raised. A fetch waits while `held`."""

    def __init__(self, documents: dict[str, object], max_age: float | None = None) -> None:
        self.documents = documents
        self.max_age = max_age
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def fetch(self, url: str) -> Document:
        self.asked.append(url)
        go_on = self.go_on
        assert go_on.wait(10)
        content = self.documents.get(url, FetchFailed(f"{url} answered 404"))
        if isinstance(content, Exception):
            raise content
        return Document(content, self.max_age)


def fetched(
    web: Web, *, jwks_url: str | None = JWKS_URL, issuer: str = ISSUER, allow_http: bool = False
) -> FetchedKeys:
    """Return keys that are fetched from `web`."""
    return FetchedKeys(issuer=issuer, jwks_url=jwks_url, allow_http=allow_http, fetch=web.fetch)


def found(keys: FetchedKeys, kid: str | None, now: float = NOW, *, fetch: bool = True) -> Keys | KeysUnavailable:
    """Return what is found, after waiting for a fetch where one is needed."""
    step = keys.find(kid, now, fetch=fetch)
    while isinstance(step, Need):
        assert step.how is How.FUTURE
        future = step.work()
        assert isinstance(future, Future)
        step = step.resume(future.result(10))
    return step


def one(keys: FetchedKeys, kid: str | None, now: float = NOW) -> VerificationKey:
    """Return the one key that is found."""
    answer = found(keys, kid, now)
    assert isinstance(answer, tuple)
    assert not isinstance(answer, KeysUnavailable)
    (key,) = answer
    return key


def refreshed(keys: FetchedKeys, now: float) -> None:
    """Wait until no fetch is under way."""
    under_way = keys._in_flight
    if under_way is not None:
        under_way.result(10)


def kids_found(keys: FetchedKeys, kids: Iterable[str], now: float) -> list[str]:
    """Return those of `kids` whose key is known at once, without asking for more."""
    return [kid for kid in kids if isinstance(answer := keys.find(kid, now, fetch=False), tuple) and is_keys(answer)]


def is_keys(answer: object) -> bool:
    """Tell whether an answer holds keys."""
    return isinstance(answer, tuple) and not isinstance(answer, KeysUnavailable) and bool(answer)


# Keys of the configuration


def test_configured_keys_are_there_at_once() -> None:
    """No fetch, no end: the keys of the configuration, by kid."""
    key = key_from_jwk(public_jwk(kid="a"))
    fixed = FixedKeys(KeySet([key]))
    assert fixed.find("a", NOW, fetch=True) == (key,)
    assert fixed.find("b", NOW, fetch=True) == ()
    assert fixed.still_holds(key, NOW + 10 * OUTAGE)


def test_there_is_a_key_to_spend_time_on() -> None:
    """A decoy is one of the keys; without keys there is none."""
    key = key_from_jwk(public_jwk(kid="a"))
    assert FixedKeys(KeySet([key])).decoys() == (key,)
    assert FixedKeys(KeySet([])).decoys() == ()
    keys = fetched(Web({JWKS_URL: published("a")}))
    assert keys.decoys() == ()
    assert keys.decoys() != (one(keys, "a"),)
    assert keys.decoys() == (one(keys, "a"),)


# The first fetch


def test_the_first_token_waits_for_the_keys() -> None:
    """Nothing is fetched before somebody asks; then the key is there, and a known key causes no other fetch."""
    web = Web({JWKS_URL: published("a", "b")})
    keys = fetched(web)
    assert web.asked == []
    assert one(keys, "a").kid == "a"
    assert web.asked == [JWKS_URL]
    assert one(keys, "b").kid == "b"
    assert len(found(keys, None)) == 2
    assert web.asked == [JWKS_URL]


def test_a_known_key_never_waits() -> None:
    """Where the key is known, the answer is a value."""
    keys = fetched(Web({JWKS_URL: published("a")}))
    key = one(keys, "a")
    assert keys.find("a", NOW + 1, fetch=True) == (key,)
    assert keys.still_holds(key, NOW + 1)


def test_without_leave_to_fetch_nothing_is_fetched() -> None:
    """A token that cannot be ours does not make us fetch."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    answer = keys.find("a", NOW, fetch=False)
    assert isinstance(answer, KeysUnavailable)
    assert answer.retry_after >= 1
    assert web.asked == []
    one(keys, "a")
    assert keys.find("b", NOW + 2 * COOL_DOWN, fetch=False) == ()
    assert web.asked == [JWKS_URL]


def test_fifty_threads_make_one_fetch() -> None:
    """Whoever comes while a fetch is under way joins it, and all get the key."""
    web = Web({JWKS_URL: published("a")})
    web.go_on.clear()
    keys = fetched(web)
    together = threading.Barrier(50, action=web.go_on.set)

    def ask() -> Keys | KeysUnavailable:
        step = keys.find("a", NOW, fetch=True)
        assert isinstance(step, Need)
        together.wait(10)
        future = step.work()
        assert isinstance(future, Future)
        last = step.resume(future.result(10))
        assert not isinstance(last, Need)
        return last

    with ThreadPoolExecutor(50) as pool:
        answers = {future.result(10) for future in [pool.submit(ask) for _ in range(50)]}
    assert len(answers) == 1
    assert is_keys(answers.pop())
    assert web.asked == [JWKS_URL]


# Rotation


def test_a_new_key_is_found_at_once() -> None:
    """A kid that is not known yet, of a key that the issuer has just added, costs one fetch and no refusal."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    before = one(keys, "a")
    web.documents[JWKS_URL] = published("a", "b")
    assert one(keys, "b", NOW + COOL_DOWN).kid == "b"
    assert len(web.asked) == 2
    assert one(keys, "a", NOW + COOL_DOWN) is before


def test_unknown_kids_cause_a_bounded_number_of_fetches() -> None:
    """A thousand invented kids in a minute cause few fetches each cool-down, and known keys go on all the while."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    for number in range(1_000):
        now = NOW + number * 0.06
        assert found(keys, f"invented {number}", now) == ()
        assert one(keys, "a", now).kid == "a"
    assert len(web.asked) <= MOST_FETCHES * (60 / COOL_DOWN + 1)
    assert keys.find("b", NOW + 59.99, fetch=True) == ()


def test_one_unknown_kid_causes_one_fetch_each_cool_down() -> None:
    """A client that goes on with a token of a key that is gone makes the service look once, not as often as it may."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    one(keys, "a")
    for number in range(100):
        assert found(keys, "gone", NOW + number * 0.0999) == ()
    assert len(web.asked) == 2
    assert found(keys, "gone", NOW + COOL_DOWN) == ()
    assert len(web.asked) == 3


def test_keys_that_rotate_right_after_a_fetch_are_found() -> None:
    """A fetch that was just made for another reason does not keep a new key out, nor do two rotations in a row."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    for kid in ("a", "b", "c"):
        web.documents[JWKS_URL] = published(kid)
        assert one(keys, kid).kid == kid
    assert len(web.asked) == MOST_FETCHES


def test_a_key_published_while_a_fetch_is_under_way_is_found() -> None:
    """A fetch that was answered before the key was there is not the last word on it."""
    web = Web({JWKS_URL: published("a")}, max_age=1_000)
    keys = fetched(web)
    one(keys, "a")
    web.go_on.clear()
    one(keys, "a", NOW + 801)
    step = keys.find("b", NOW + 801, fetch=True)
    assert isinstance(step, Need)
    web.go_on.set()
    refreshed(keys, NOW + 801)
    web.documents[JWKS_URL] = published("a", "b")
    while isinstance(step, Need):
        future = step.work()
        assert isinstance(future, Future)
        step = step.resume(future.result(10))
    assert [key.kid for key in step if isinstance(key, VerificationKey)] == ["b"]
    assert len(web.asked) == 3


def test_after_a_failure_one_fetch_is_made_each_cool_down() -> None:
    """While the issuer is down, no number of unknown kids makes it be asked more often."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    one(keys, "a")
    web.documents.clear()
    for number in range(100):
        found(keys, f"invented {number}", NOW + number * 0.0999)
    assert len(web.asked) == 2


def test_a_clock_that_was_set_back_does_not_stop_fetches() -> None:
    """The cool-down is over where the last fetch seems to lie in the future."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    one(keys, "a", NOW + 3600)
    web.documents[JWKS_URL] = published("a", "b")
    assert one(keys, "b", NOW).kid == "b"


def test_keys_are_refreshed_in_the_background() -> None:
    """Near the end of their life keys still answer at once, and one fetch begins beside."""
    web = Web({JWKS_URL: published("a")}, max_age=1_000)
    keys = fetched(web)
    one(keys, "a")
    web.documents[JWKS_URL] = published("b")
    one(keys, "a", NOW + 799)
    assert len(web.asked) == 1
    web.go_on.clear()
    assert is_keys(keys.find("a", NOW + 801, fetch=True))
    assert is_keys(keys.find("a", NOW + 802, fetch=True))
    web.go_on.set()
    refreshed(keys, NOW + 803)
    assert len(web.asked) == 2
    assert kids_found(keys, ["a", "b"], NOW + 803) == ["b"]


def test_asking_whether_a_key_holds_refreshes_too() -> None:
    """A service that only ever sees tokens it remembers learns of a removed key all the same."""
    web = Web({JWKS_URL: published("a")}, max_age=1_000)
    keys = fetched(web)
    key = one(keys, "a")
    web.documents[JWKS_URL] = published("b")
    web.go_on.clear()
    assert keys.still_holds(key, NOW + 801)
    web.go_on.set()
    refreshed(keys, NOW + 802)
    assert not keys.still_holds(key, NOW + 802)
    assert len(web.asked) == 2


def test_a_removed_key_stops_and_an_unchanged_one_survives() -> None:
    """After a refresh a key that is gone holds no longer; one that is the same is the same object."""
    web = Web({JWKS_URL: published("a", "b")})
    keys = fetched(web)
    gone, stays = one(keys, "a"), one(keys, "b")
    web.documents[JWKS_URL] = jwks(*[key for key in published("a", "b")["keys"] if key["kid"] == "b"])  # type: ignore[attr-defined]  # a list
    later = NOW + COOL_DOWN
    assert found(keys, "c", later) == ()
    assert not keys.still_holds(gone, later)
    assert keys.still_holds(stays, later)
    assert one(keys, "b", later) is stays
    assert kids_found(keys, ["a", "b"], later) == ["b"]


@pytest.mark.parametrize(
    "change",
    [
        lambda: public_jwk(ec_key(nth=5), kid="a"),
        lambda: public_jwk(ec_key("P-384"), kid="a"),
        lambda: public_jwk(ec_key(), kid="b"),
    ],
    ids=["another key", "another curve", "another kid"],
)
def test_a_key_that_changed_is_another_key(change: Callable[[], dict[str, object]]) -> None:
    """A kid that was given to another key does not keep what the old one verified."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    before = one(keys, "a")
    web.documents[JWKS_URL] = jwks(change())
    found(keys, "c", NOW + COOL_DOWN)
    assert not keys.still_holds(before, NOW + COOL_DOWN)


def test_a_key_whose_algorithms_were_narrowed_is_another_key() -> None:
    """An alg that appears on a key ends what was verified under the others."""
    rsa = public_jwk("RS256", kid="a")
    web = Web({JWKS_URL: jwks(rsa)})
    keys = fetched(web)
    before = one(keys, "a")
    web.documents[JWKS_URL] = jwks({**rsa, "alg": "PS256"})
    found(keys, "c", NOW + COOL_DOWN)
    assert not keys.still_holds(before, NOW + COOL_DOWN)
    assert one(keys, "a", NOW + COOL_DOWN).algorithms == {"PS256"}


def test_unchanged_keys_without_kids_survive() -> None:
    """Keys that have no kid are recognized by what they are."""
    web = Web({JWKS_URL: jwks(public_jwk("ES256"), public_jwk("ES384"))})
    keys = fetched(web)
    before = found(keys, None)
    assert is_keys(before)
    found(keys, None, NOW + DEFAULT_LIFE - 1)
    refreshed(keys, NOW + DEFAULT_LIFE - 1)
    assert len(web.asked) == 2
    assert all(keys.still_holds(key, NOW + DEFAULT_LIFE) for key in before if isinstance(key, VerificationKey))


@pytest.mark.parametrize(
    ("max_age", "life"),
    [(None, DEFAULT_LIFE), (0, SHORTEST_LIFE), (5, SHORTEST_LIFE), (300, 300), (10**9, LONGEST_LIFE)],
)
def test_the_life_of_keys_follows_max_age_within_bounds(max_age: float | None, life: float) -> None:
    """The issuer says how long its keys are good, but for less than a minute or more than an hour."""
    web = Web({JWKS_URL: published("a")}, max_age=max_age)
    keys = fetched(web)
    one(keys, "a")
    one(keys, "a", NOW + 0.79 * life)
    refreshed(keys, NOW)
    assert len(web.asked) == 1
    one(keys, "a", NOW + 0.81 * life)
    refreshed(keys, NOW + 0.81 * life)
    assert len(web.asked) == 2


@pytest.mark.parametrize("idle", [LONGEST_LIFE, 12 * 3600.0], ids=["an hour", "twelve hours"])
def test_a_removed_key_is_not_accepted_beyond_its_life(idle: float) -> None:
    """After an idle time, with the issuer up, old keys are not believed on the strength of a refresh still to come."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    gone = one(keys, "a")
    web.documents[JWKS_URL] = published("b")
    web.go_on.clear()
    assert not keys.still_holds(gone, NOW + idle)
    step = keys.find("a", NOW + idle, fetch=True)
    assert isinstance(step, Need)
    web.go_on.set()
    assert found(keys, "a", NOW + idle) == ()


def test_an_outage_that_begins_while_nobody_asks_locks_nobody_out() -> None:
    """Where the refresh after an idle time fails, the last good keys serve after all, and nobody waits for the next."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    key = one(keys, "a")
    web.documents[JWKS_URL] = FetchFailed("down")
    later = NOW + 12 * 3600
    assert one(keys, "a", later) is key
    refreshed(keys, later)
    web.go_on.clear()
    assert keys.find("a", later + COOL_DOWN, fetch=True) == (key,)
    assert keys.still_holds(key, later + COOL_DOWN)
    web.go_on.set()
    refreshed(keys, later + COOL_DOWN)


# Outages


def test_the_last_good_keys_outlive_an_outage() -> None:
    """While the issuer is down its last keys serve, a fetch is tried once a cool-down, and recovery is noticed."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    key = one(keys, "a")
    web.documents[JWKS_URL] = FetchFailed("down")
    down = NOW + DEFAULT_LIFE * 0.9
    for number in range(200):
        now = down + number
        assert is_keys(found(keys, "a", now))
        assert keys.still_holds(key, now)
        refreshed(keys, now)
    assert len(web.asked) <= 1 + 200 / COOL_DOWN + 1
    last = NOW + DEFAULT_LIFE + OUTAGE - 1
    assert is_keys(keys.find("a", last, fetch=True))
    refreshed(keys, last)
    web.documents[JWKS_URL] = published("b")
    assert one(keys, "b", last + COOL_DOWN).kid == "b"
    assert not keys.still_holds(key, last + COOL_DOWN)


def test_after_a_long_outage_there_are_no_keys() -> None:
    """A day after their life the last good keys end, with why and when to ask again."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    key = one(keys, "a")
    web.documents[JWKS_URL] = FetchFailed("id.example answered 502")
    over = NOW + DEFAULT_LIFE + OUTAGE
    assert not keys.still_holds(key, over)
    answer = found(keys, "a", over)
    assert answer == KeysUnavailable("id.example answered 502", COOL_DOWN)


def test_without_keys_everybody_is_told_when_to_ask_again() -> None:
    """Where the first fetch fails, nobody waits during the cool-down; then one more is tried."""
    web = Web({JWKS_URL: FetchFailed("down")})
    keys = fetched(web)
    assert found(keys, "a") == KeysUnavailable("down", COOL_DOWN)
    assert keys.find("a", NOW + 4, fetch=True) == KeysUnavailable("down", COOL_DOWN - 4)
    answer = keys.find("a", NOW + COOL_DOWN - 0.1, fetch=True)
    assert answer == KeysUnavailable("down", 1.0)
    assert len(web.asked) == 1
    web.documents[JWKS_URL] = published("a")
    assert one(keys, "a", NOW + COOL_DOWN).kid == "a"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([], "not a JWKS"),
        ({"keys": []}, "holds no key that can be used"),
        (jwks(secret_jwk(kid="a")), "holds no key that can be used"),
        (jwks(public_jwk(kid="a", use="enc")), "holds no key that can be used"),
        (RuntimeError("a bug"), "RuntimeError"),
        (RecursionError(), "RecursionError"),
    ],
    ids=["no object", "no keys", "secrets alone", "encryption alone", "a bug", "recursion"],
)
def test_a_bad_answer_replaces_no_good_keys(content: object, why: str) -> None:
    """An issuer that publishes nonsense for a while is treated as one that is down."""
    web = Web({JWKS_URL: content})
    keys = fetched(web)
    answer = found(keys, "a")
    assert isinstance(answer, KeysUnavailable)
    assert why in answer.why
    web.documents[JWKS_URL] = published("a")
    key = one(keys, "a", NOW + COOL_DOWN)
    web.documents[JWKS_URL] = content
    answer = found(keys, "b", NOW + 2 * COOL_DOWN)
    assert isinstance(answer, KeysUnavailable), "nobody can say that there is no such key"
    assert one(keys, "a", NOW + 2 * COOL_DOWN) is key
    assert keys.still_holds(key, NOW + 2 * COOL_DOWN)


def test_a_fetch_that_cannot_be_begun_holds_nobody_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started, the next request tries again."""

    class Unstartable(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    keys = fetched(Web({JWKS_URL: published("a")}))
    with monkeypatch.context() as patched:
        patched.setattr("authz403.keys.Thread", Unstartable)
        try:
            step = keys.find("a", NOW, fetch=True)
        except RuntimeError:
            pass
        else:
            assert isinstance(step, KeysUnavailable | Need)
    again = keys.find("a", NOW + COOL_DOWN, fetch=True)
    assert isinstance(again, Need)
    future = again.work()
    assert isinstance(future, Future)
    future.result(2)
    assert is_keys(again.resume(None))


# What is reported


def test_what_is_wrong_with_a_fetch_is_reported_once() -> None:
    """The operator hears of keys left out and of failures, by cause, with the issuer's name."""
    web = Web({JWKS_URL: jwks(public_jwk(kid="a"), secret_jwk(kid="s"), {})})
    keys = fetched(web)
    told: list[tuple[str, str]] = []
    keys.report_to(lambda cause, hint: told.append((cause, hint)))
    one(keys, "a")
    assert [cause for cause, _ in told] == ["keys_refused"]
    assert "keys[1]" in told[0][1]
    assert "keys[2]" in told[0][1]
    assert str(secret_jwk()["k"]) not in told[0][1]
    web.documents[JWKS_URL] = FetchFailed("down")
    found(keys, "b", NOW + COOL_DOWN)
    web.documents[JWKS_URL] = RuntimeError("a bug")
    found(keys, "b", NOW + 2 * COOL_DOWN)
    assert [cause for cause, _ in told[1:]] == ["keys_unavailable", "keys_unavailable"]
    assert all(ISSUER in hint for _, hint in told[1:])
    assert told[1][1].endswith("down")
    assert "a bug" in told[2][1]


def test_nothing_is_reported_of_a_good_fetch() -> None:
    """No news is good news; and nobody has to listen."""
    keys = fetched(Web({JWKS_URL: published("a")}))
    told: list[str] = []
    keys.report_to(lambda cause, _: told.append(cause))
    one(keys, "a")
    assert told == []


# Discovery


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        (
            "https://id.example",
            (
                "https://id.example/.well-known/openid-configuration",
                "https://id.example/.well-known/oauth-authorization-server",
            ),
        ),
        (
            "https://id.example/",
            (
                "https://id.example/.well-known/openid-configuration",
                "https://id.example/.well-known/oauth-authorization-server",
            ),
        ),
        (
            "https://id.example:8443/realms/shop",
            (
                "https://id.example:8443/realms/shop/.well-known/openid-configuration",
                "https://id.example:8443/.well-known/oauth-authorization-server/realms/shop",
            ),
        ),
    ],
    ids=["host", "slash", "path"],
)
def test_metadata_is_looked_for_in_two_places(issuer: str, urls: tuple[str, str]) -> None:
    """OpenID Connect appends to the issuer, RFC 8414 section 3.1 inserts before its path."""
    assert metadata_urls(issuer) == urls


OIDC, OAUTH = metadata_urls(ISSUER)


@pytest.mark.parametrize("place", [OIDC, OAUTH], ids=["OpenID Connect", "RFC 8414"])
def test_keys_are_found_by_the_issuers_metadata(place: str) -> None:
    """Where one place has no metadata, the other is asked; the keys come from the jwks_uri."""
    web = Web({place: {"issuer": ISSUER, "jwks_uri": JWKS_URL}, JWKS_URL: published("a")})
    assert one(fetched(web, jwks_url=None), "a").kid == "a"
    assert web.asked == [*([OIDC] if place == OIDC else [OIDC, OAUTH]), JWKS_URL]


def test_an_issuer_that_ends_in_a_slash_is_compared_as_it_is() -> None:
    """The slash belongs to the issuer's name, not to the place of its metadata."""
    issuer = f"{ISSUER}/"
    web = Web({OIDC: {"issuer": issuer, "jwks_uri": JWKS_URL}, JWKS_URL: published("a")})
    assert one(fetched(web, jwks_url=None, issuer=issuer), "a").kid == "a"
    assert isinstance(found(fetched(web, jwks_url=None), "a"), KeysUnavailable)


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"issuer": "https://attacker.example", "jwks_uri": JWKS_URL}, "does not say that its issuer is"),
        ({"issuer": f"{ISSUER}/", "jwks_uri": JWKS_URL}, "does not say that its issuer is"),
        ({"issuer": [ISSUER], "jwks_uri": JWKS_URL}, "does not say that its issuer is"),
        ({"jwks_uri": JWKS_URL}, "does not say that its issuer is"),
        ([], "does not say that its issuer is"),
        (None, "does not say that its issuer is"),
        ({"issuer": ISSUER}, "unusable jwks_uri"),
        ({"issuer": ISSUER, "jwks_uri": 5}, "unusable jwks_uri"),
        ({"issuer": ISSUER, "jwks_uri": "/jwks"}, "unusable jwks_uri"),
        ({"issuer": ISSUER, "jwks_uri": "http://id.example/jwks"}, "unusable jwks_uri: http lets anybody"),
        ({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}, "unusable jwks_uri"),
    ],
    ids=[
        "other issuer",
        "slash more",
        "list",
        "no issuer",
        "a list",
        "null",
        "no jwks_uri",
        "number",
        "relative",
        "http",
        "file",
    ],
)
def test_metadata_that_cannot_be_believed_stops_discovery(metadata: object, why: str) -> None:
    """RFC 8414 section 3.3: another issuer's metadata is not used, nor are keys that anybody could exchange."""
    web = Web({OIDC: metadata, OAUTH: {"issuer": ISSUER, "jwks_uri": JWKS_URL}, JWKS_URL: published("a")})
    answer = found(fetched(web, jwks_url=None), "a")
    assert isinstance(answer, KeysUnavailable)
    assert why in answer.why
    assert web.asked == [OIDC]


def test_http_keys_are_fetched_where_that_was_allowed() -> None:
    """`dangerously_allow_http` covers the jwks_uri too."""
    plain = "http://id.internal/jwks"
    web = Web({OIDC: {"issuer": ISSUER, "jwks_uri": plain}, plain: published("a")})
    assert one(fetched(web, jwks_url=None, allow_http=True), "a").kid == "a"


def test_both_failures_are_told_where_no_metadata_is_found() -> None:
    """The operator sees each place that was tried."""
    answer = found(fetched(Web({}), jwks_url=None), "a")
    assert isinstance(answer, KeysUnavailable)
    assert OIDC in answer.why
    assert OAUTH in answer.why


def test_an_issuer_that_nobody_answers_for_is_asked_once() -> None:
    """Both places are on one machine: where it cannot be reached, whoever waits is not made to wait twice."""
    web = Web({OIDC: Unreachable("down"), OAUTH: {"issuer": ISSUER, "jwks_uri": JWKS_URL}, JWKS_URL: published("a")})
    assert found(fetched(web, jwks_url=None), "a") == KeysUnavailable("down", COOL_DOWN)
    assert web.asked == [OIDC]


def test_discovery_is_repeated_with_each_fetch() -> None:
    """An issuer may move its keys."""
    moved = f"{ISSUER}/moved"
    web = Web({OIDC: {"issuer": ISSUER, "jwks_uri": JWKS_URL}, JWKS_URL: published("a"), moved: published("b")})
    keys = fetched(web, jwks_url=None)
    one(keys, "a")
    web.documents[OIDC] = {"issuer": ISSUER, "jwks_uri": moved}
    assert one(keys, "b", NOW + COOL_DOWN).kid == "b"


def test_one_who_gives_up_waiting_ends_the_fetch_for_nobody() -> None:
    """A cancelled request leaves the others that wait for the same keys alone."""
    web = Web({JWKS_URL: published("a")})
    web.go_on.clear()
    keys = fetched(web)
    waiting = [keys.find("a", NOW, fetch=True) for _ in range(3)]
    futures = [step.work() for step in waiting if isinstance(step, Need)]
    assert isinstance(futures[0], Future)
    assert not futures[0].cancel()
    web.go_on.set()
    futures[0].result(5)
    assert [is_keys(step.resume(None)) for step in waiting if isinstance(step, Need)] == [True, True, True]


def test_a_fetch_that_never_ends_blocks_no_later_one() -> None:
    """After twice the time that a fetch may take, another one is begun beside it."""
    web = Web({JWKS_URL: published("a")})
    web.go_on.clear()
    keys = fetched(web)
    stuck = keys.find("a", NOW, fetch=True)
    assert isinstance(stuck, Need)
    again = keys.find("a", NOW + 60, fetch=True)
    assert isinstance(again, Need)
    assert again.work() is not stuck.work()
    web.go_on.set()
    for step in (stuck, again):
        future = step.work()
        assert isinstance(future, Future)
        future.result(5)
    assert is_keys(again.resume(None))


# A fetch that is under way when the keys' life ends


def slow_refresh(begun_at: float, *, life: float = 1_000) -> tuple[FetchedKeys, VerificationKey, Web]:
    """Return keys of this life whose refresh was begun then and hangs, the one key, and the web."""
    web = Web({JWKS_URL: published("a")}, max_age=life)
    keys = fetched(web)
    key = one(keys, "a")
    web.go_on.clear()
    keys.find("a", NOW + begun_at, fetch=True)
    return keys, key, web


@pytest.mark.parametrize("begun_at", [985.0, 999.9], ids=["near the end", "at the last moment"])
def test_a_key_serves_while_the_fetch_that_was_begun_in_time_is_under_way(begun_at: float) -> None:
    """Nobody waits for a refresh that began before the end of the keys' life, and the end is as long as that fetch."""
    keys, key, web = slow_refresh(begun_at)
    for now in (NOW + begun_at, NOW + 1_000, NOW + begun_at + 2 * TIMEOUT - 0.1):
        assert keys.find("a", now, fetch=True) == (key,)
        assert keys.still_holds(key, now)
    web.documents[JWKS_URL] = published("b")
    web.go_on.set()
    refreshed(keys, NOW + begun_at + 2 * TIMEOUT - 0.1)
    assert not keys.still_holds(key, NOW + begun_at + 2 * TIMEOUT - 0.1)
    assert len(web.asked) == 2


def test_a_key_does_not_serve_while_a_fetch_that_was_begun_too_late_is_under_way() -> None:
    """Whoever comes first after the end waits, as do all that come while that fetch lasts."""
    keys, key, web = slow_refresh(1_000)
    for now in (NOW + 1_000, NOW + 1_005):
        assert isinstance(keys.find("a", now, fetch=True), Need)
        assert not keys.still_holds(key, now)
    web.go_on.set()
    refreshed(keys, NOW + 1_005)
    assert len(web.asked) == 2


def test_a_key_does_not_serve_for_the_sake_of_a_fetch_that_hangs() -> None:
    """After twice the time that a fetch may take, the next one is waited for."""
    keys, key, web = slow_refresh(999)
    over = NOW + 999 + 2 * TIMEOUT
    assert not keys.still_holds(key, over)
    assert isinstance(keys.find("a", over, fetch=True), Need)
    web.go_on.set()
    refreshed(keys, over)


@pytest.mark.parametrize("late", [published("a"), FetchFailed("too slow")], ids=["the old keys", "a failure"])
def test_a_fetch_that_was_given_up_takes_nothing_back(late: object) -> None:
    """What an older fetch comes to after a newer one is old: no withdrawn key comes back, no new one is kept out."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    gone = one(keys, "a")
    web.go_on.clear()
    stuck = keys.find("b", NOW + 100, fetch=True)
    assert isinstance(stuck, Need)
    hanging, web.go_on = web.go_on, threading.Event()
    web.go_on.set()
    web.documents[JWKS_URL] = published("b")
    later = NOW + 100 + 2 * TIMEOUT
    assert one(keys, "b", later).kid == "b"
    web.documents[JWKS_URL] = late
    hanging.set()
    future = stuck.work()
    assert isinstance(future, Future)
    future.result(10)
    assert not keys.still_holds(gone, later)
    assert kids_found(keys, ["a", "b"], later) == ["b"]
    web.documents[JWKS_URL] = published("b", "c")
    assert one(keys, "c", later + 1).kid == "c"


# Keys that were tried in vain


def again(
    keys: FetchedKeys, kid: str | None, in_vain: Keys, now: float
) -> Keys | KeysUnavailable | Need[Keys | KeysUnavailable]:
    """Return what is found at once, but for the keys that were tried."""
    return keys.find(kid, now, fetch=True, in_vain=in_vain)


def after_waiting(step: object) -> object:
    """Return what needs that wait for a fetch come to."""
    assert isinstance(step, Need)
    while isinstance(step, Need):
        future = step.work()
        assert isinstance(future, Future)
        step = step.resume(future.result(10))
    return step


def test_configured_keys_are_not_tried_twice() -> None:
    """There are no others, so that nothing is left; of several without a kid, the untried ones."""
    first, second = key_from_jwk(public_jwk()), key_from_jwk(public_jwk("ES384"))
    fixed = FixedKeys(KeySet([first, second]))
    assert fixed.find(None, NOW, fetch=True, in_vain=(first,)) == (second,)
    assert fixed.find(None, NOW, fetch=True, in_vain=(second, first)) == ()
    assert fixed.find("a", NOW, fetch=True, in_vain=fixed.find("a", NOW, fetch=True)) == ()


def test_a_key_that_changed_under_its_kid_is_fetched() -> None:
    """An issuer may exchange a key and keep its id: a signature that does not fit asks for the key set anew."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    tried = one(keys, "a")
    web.documents[JWKS_URL] = published("a", nth=5)
    later = NOW + COOL_DOWN
    new = after_waiting(again(keys, "a", (tried,), later))
    assert isinstance(new, tuple)
    assert is_keys(new)
    assert tried not in new
    assert keys.find("a", later, fetch=True) == new
    assert not keys.still_holds(tried, later)
    assert again(keys, "a", (tried,), later) == new


def test_a_key_without_kid_that_changed_is_fetched() -> None:
    """The same holds where keys have no ids; those that stay are not handed out again."""
    stays = public_jwk("ES384")
    web = Web({JWKS_URL: jwks(public_jwk(ec_key()), stays)})
    keys = fetched(web)
    tried = found(keys, None)
    assert isinstance(tried, tuple)
    assert not isinstance(tried, KeysUnavailable)
    web.documents[JWKS_URL] = jwks(public_jwk(ec_key(nth=5)), stays)
    new = after_waiting(again(keys, None, tried, NOW + COOL_DOWN))
    assert isinstance(new, tuple)
    assert [key.algorithms for key in new] == [{"ES256"}]
    assert not set(new) & set(tried)
    assert keys.still_holds(tried[1], NOW + COOL_DOWN)


def test_a_key_that_did_not_change_stays_the_same_object() -> None:
    """Where the fetch brings nothing new nothing is left to try, and what the keys verified before still holds."""
    web = Web({JWKS_URL: published("a", "b")})
    keys = fetched(web)
    tried = one(keys, "a")
    later = NOW + COOL_DOWN
    assert after_waiting(again(keys, "a", (tried,), later)) == ()
    assert one(keys, "a", later) is tried
    assert keys.still_holds(tried, later)
    assert len(web.asked) == 2


def test_unknown_kids_and_bad_signatures_are_counted_together() -> None:
    """A flood of both is few fetches each cool-down, and known keys go on all the while."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    tried = one(keys, "a")
    for number in range(1_000):
        now = NOW + number * 0.06
        step = again(keys, "a", (tried,), now) if number % 2 else keys.find(f"invented {number}", now, fetch=True)
        assert (after_waiting(step) if isinstance(step, Need) else step) == ()
        assert keys.find("a", now, fetch=True) == (tried,)
    assert len(web.asked) <= MOST_FETCHES * (60 / COOL_DOWN + 1)
    assert again(keys, "a", (tried,), NOW + 59.99) == ()


def test_bad_signatures_under_one_kid_cause_one_fetch_each_cool_down() -> None:
    """Whoever can name a kid and cannot sign makes the service look once, for a key without kid too."""
    web = Web({JWKS_URL: jwks(public_jwk(ec_key(), kid="a"), public_jwk("ES384"))})
    keys = fetched(web)
    tried = found(keys, None)
    assert isinstance(tried, tuple)
    assert not isinstance(tried, KeysUnavailable)
    later = NOW + COOL_DOWN
    for kid in ("a", None):
        assert after_waiting(again(keys, kid, tried, later)) == ()
        for number in range(100):
            assert again(keys, kid, tried, later + number * 0.0999) == ()
    assert len(web.asked) == 3


def test_whoever_waits_for_keys_waits_no_longer_than_a_fetch_may_take() -> None:
    """The first token, one that joins, an unknown kid and a bad signature: each gives up, and not before the fetch."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    web.go_on.clear()
    waiting: list[object] = [keys.find("a", NOW, fetch=True), keys.find("a", NOW, fetch=True)]
    web.go_on.set()
    tried = one(keys, "a")
    waiting.append(again(keys, "a", (tried,), NOW + COOL_DOWN))
    refreshed(keys, NOW + COOL_DOWN)
    waiting.append(keys.find("b", NOW + 2 * COOL_DOWN, fetch=True))
    refreshed(keys, NOW + 2 * COOL_DOWN)
    for step in waiting:
        assert isinstance(step, Need)
        assert step.within is not None
        assert TIMEOUT < step.within <= 2 * TIMEOUT


def test_one_who_gave_up_waiting_is_told_what_is_known() -> None:
    """A time-out instead of keys: unavailable where there never were any, else the last good ones."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    web.go_on.clear()
    step = keys.find("a", NOW, fetch=True)
    assert isinstance(step, Need)
    assert isinstance(step.resume(TimeoutError()), KeysUnavailable)
    web.go_on.set()
    key = one(keys, "a")
    web.go_on.clear()
    step = keys.find("a", NOW + 2 * DEFAULT_LIFE, fetch=True)
    assert isinstance(step, Need)
    assert step.resume(TimeoutError()) == (key,)
    web.go_on.set()
    refreshed(keys, NOW + 2 * DEFAULT_LIFE)


def test_a_process_that_was_forked_during_a_fetch_fetches_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that fetches stays in the parent: the child waits neither for it nor for its cool-down."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    web.go_on.clear()
    in_parent = keys.find("a", NOW, fetch=True)
    assert isinstance(in_parent, Need)
    monkeypatch.setattr("authz403.keys.os", SimpleNamespace(getpid=lambda: -1))
    in_child = keys.find("a", NOW + 1, fetch=True)
    assert isinstance(in_child, Need)
    assert in_child.work() is not in_parent.work()
    web.go_on.set()
    assert is_keys(after_waiting(in_child))
    assert is_keys(after_waiting(in_parent))


# Metadata of an issuer with a path


PATHS: Final = metadata_urls(f"{ISSUER}/tenants/a")


@pytest.mark.parametrize("place", PATHS, ids=["OpenID Connect", "RFC 8414"])
@pytest.mark.parametrize("slash", ["", "/"], ids=["no slash", "slash"])
def test_a_tenants_keys_are_found_by_its_own_metadata(place: str, slash: str) -> None:
    """An issuer with a path has metadata of its own; the slash at its end is no part of the place (RFC 8414, 3.1)."""
    tenant = f"{ISSUER}/tenants/a{slash}"
    web = Web({place: {"issuer": tenant, "jwks_uri": JWKS_URL}, JWKS_URL: published("a")})
    assert one(fetched(web, jwks_url=None, issuer=tenant), "a").kid == "a"
    assert web.asked == [*PATHS[: PATHS.index(place) + 1], JWKS_URL]


def test_the_hosts_metadata_is_not_a_tenants() -> None:
    """Nobody's keys are looked for at the host where the issuer has a path, nor at another tenant's."""
    known = {"issuer": f"{ISSUER}/tenants/a", "jwks_uri": JWKS_URL}
    others = {url: known for issuer in (ISSUER, f"{ISSUER}/tenants/b") for url in metadata_urls(issuer)}
    web = Web({**others, JWKS_URL: published("a")})
    assert isinstance(found(fetched(web, jwks_url=None, issuer=f"{ISSUER}/tenants/a"), "a"), KeysUnavailable)
    assert web.asked == list(PATHS)


@pytest.mark.parametrize("said", [ISSUER, f"{ISSUER}/tenants/b", f"{ISSUER}/tenants/a/", f"{ISSUER}/tenants/A", None])
@pytest.mark.parametrize("place", PATHS, ids=["OpenID Connect", "RFC 8414"])
def test_metadata_of_another_tenant_is_not_believed(place: str, said: str | None) -> None:
    """RFC 8414 section 3.3, at either place: character for character."""
    web = Web({place: {"issuer": said, "jwks_uri": JWKS_URL}, JWKS_URL: published("a")})
    answer = found(fetched(web, jwks_url=None, issuer=f"{ISSUER}/tenants/a"), "a")
    assert isinstance(answer, KeysUnavailable)
    assert "does not say that its issuer is" in answer.why
    assert JWKS_URL not in web.asked


# What nobody can say


def test_while_the_issuer_is_down_no_key_is_called_unknown() -> None:
    """A key that was published meanwhile may be good: who brings it is told to come again, and not to sign in again."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    key = one(keys, "a")
    web.documents[JWKS_URL] = FetchFailed("id.example answered 502")
    for later in (COOL_DOWN, COOL_DOWN + 1):
        assert isinstance(found(keys, "b", NOW + later), KeysUnavailable)
        assert one(keys, "a", NOW + later) is key
        assert found_in_vain(keys, "a", (key,), NOW + later) == ()
    web.documents[JWKS_URL] = published("a", "b")
    answer = found(keys, "b", NOW + COOL_DOWN + 2)
    assert answer == KeysUnavailable("id.example answered 502", COOL_DOWN - 2)
    assert one(keys, "b", NOW + 2 * COOL_DOWN).kid == "b"
    assert found(keys, "c", NOW + 2 * COOL_DOWN) == ()


def found_in_vain(keys: FetchedKeys, kid: str, tried: Keys, now: float) -> object:
    """Return what is found besides the keys that were tried, after waiting for a fetch."""
    step = keys.find(kid, now, fetch=True, in_vain=tried)
    while isinstance(step, Need):
        future = step.work()
        assert isinstance(future, Future)
        step = step.resume(future.result(10))
    return step


def test_who_waited_too_long_is_told_to_come_again() -> None:
    """A fetch that is still under way says nothing about a key."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    one(keys, "a")
    web.go_on.clear()
    step = keys.find("b", NOW + COOL_DOWN, fetch=True)
    assert isinstance(step, Need)
    assert isinstance(step.resume(TimeoutError()), KeysUnavailable)
    web.go_on.set()
    refreshed(keys, NOW + COOL_DOWN)


def test_a_clock_that_was_set_back_keeps_no_removed_key() -> None:
    """Keys that were fetched in what is now the future are fetched anew."""
    web = Web({JWKS_URL: published("a")})
    keys = fetched(web)
    key = one(keys, "a", NOW + 5 * 86_400)
    web.documents[JWKS_URL] = published("b")
    web.go_on.clear()
    assert keys.find("a", NOW, fetch=True) == (key,)
    web.go_on.set()
    refreshed(keys, NOW)
    assert not keys.still_holds(key, NOW + 1)
    assert kids_found(keys, ["a", "b"], NOW + 1) == ["b"]


def test_a_second_outage_is_reported_like_the_first() -> None:
    """What was told of an outage is told again of the next one, and not at each try of the same."""
    told: list[str] = []
    web = Web({JWKS_URL: FetchFailed("down")})
    keys = fetched(web)
    keys.report_to(lambda cause, _: told.append(cause))
    for outage in (0.0, 86_400.0):
        web.documents[JWKS_URL] = FetchFailed("down")
        for number in range(5):
            found(keys, "a", NOW + outage + number * COOL_DOWN)
        web.documents[JWKS_URL] = published("a")
        one(keys, "a", NOW + outage + 5 * COOL_DOWN)
    assert told == ["keys_unavailable"] * 2
