import asyncio
import json
import logging
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from threading import Barrier, Event
from typing import Literal

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from authz403 import BearerTokens, Gate, Principal, requires, scopes
from authz403.keys import COOL_DOWN, DEFAULT_LIFE, MOST_FETCHES, OUTAGE
from tests.apps_made import Answer, connect, drive, listening, scope_of, wrapped
from tests.provider_made import ALGORITHMS, AUDIENCE, CLIENT_ID, OTHER_AUDIENCE, Fetches, Provider, missing
from tests.tokens_made import base64url, claims_of

DUE = DEFAULT_LIFE * 0.9  # seconds after a fetch at which a refresh is due, and the keys are still alive
PATIENCE = 30.0  # seconds for what never takes so long, so that a test fails instead of waiting for ever


class Clock:
    """The time of a gate; it stands still until a test moves it."""

    def __init__(self, token: str) -> None:
        self.now = float(claims_of(token)["iat"])

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def providers() -> Iterator[dict[str, Provider]]:
    """Return a running provider for each algorithm; a test may rotate the keys of one, and leaves it running."""
    skip_where_missing()
    with ExitStack() as stack:
        yield {algorithm: stack.enter_context(Provider(algorithm)) for algorithm in ALGORITHMS}


@pytest.fixture
def own_provider() -> Iterator[Provider]:
    """Return a running provider of the test's own, to stop it."""
    skip_where_missing()
    with Provider("ES256") as started:
        yield started


def skip_where_missing() -> None:
    """Skip the test where no provider can run."""
    lack = missing()
    if lack is not None:
        pytest.skip(f"needs node and the provider's packages: {lack}")


def service(
    provider: Provider,
    clock: Clock,
    *,
    typ: Literal["lenient", "strict"] = "lenient",
    met: list[Principal] | None = None,
) -> ASGIApp:
    """Return a guarded app that finds the provider's keys by discovery; `met` collects who came through."""

    async def endpoint(request: Request) -> Response:
        if met is not None:
            met.append(request.user)
        return PlainTextResponse("done")

    @requires(scopes("items:read"))
    async def read(request: Request) -> Response:
        return await endpoint(request)

    @requires(scopes("items:write"))
    async def write(request: Request) -> Response:
        return await endpoint(request)

    @requires(scopes("items:delete"))
    async def delete(request: Request) -> Response:
        return await endpoint(request)

    app = Starlette(
        routes=[
            Route("/items", read, methods=["GET"]),
            Route("/items", write, methods=["POST"]),
            Route("/items", delete, methods=["DELETE"]),
        ]
    )
    tokens = BearerTokens(issuer=provider.issuer, audience=AUDIENCE, typ=typ)
    return wrapped(app, Gate(tokens=tokens, clock=clock))


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


async def send(app: ASGIApp, token: str, method: str = "GET") -> Answer:
    """Send a request for /items with a token."""
    scope = scope_of("/items", method, headers=bearer(token))
    return await asyncio.wait_for(connect(app, scope), PATIENCE)


def sent(app: ASGIApp, token: str, method: str = "GET") -> Answer:
    """Send a request for /items with a token, in an event loop of its own."""
    return asyncio.run(send(app, token, method))


def refused_with(answer: Answer) -> tuple[int, object]:
    """Return the status of a refusal and its reason."""
    return answer.status, answer.reason


def header_of(token: str) -> dict[str, object]:
    """Return what the header of a token says."""
    segment = token.partition(".")[0]
    return dict(json.loads(urlsafe_b64decode(segment + "=" * (-len(segment) % 4))))


def with_kid(token: str, kid: str) -> str:
    """Return the token under another key id, as somebody forges it who has no key."""
    _, _, rest = token.partition(".")
    return f"{base64url(json.dumps({**header_of(token), 'kid': kid}).encode())}.{rest}"


# What a provider signs


@pytest.mark.parametrize("typ", ["lenient", "strict"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_tokens_of_a_certified_provider_are_accepted(
    providers: dict[str, Provider], algorithm: str, typ: Literal["lenient", "strict"]
) -> None:
    """Whatever it signs with, the app meets the caller that the provider wrote, also where only at+jwt is accepted."""
    token = providers[algorithm].access_token("items:read items:write")
    met: list[Principal] = []
    answer = sent(service(providers[algorithm], Clock(token), typ=typ, met=met), token)
    assert (answer.status, answer.body) == (200, b"done")
    assert (header_of(token)["alg"], header_of(token)["typ"]) == (algorithm, "at+jwt")
    (principal,) = met
    assert (principal.sub, principal.client_id, principal.issuer) == (CLIENT_ID, CLIENT_ID, providers[algorithm].issuer)
    assert principal.scopes == {"items:read", "items:write"}
    assert principal.roles == {"seller"}
    written = claims_of(token)
    assert principal.claims.keys() == written.keys()
    assert principal.claims["tenant"] == written["tenant"] == "t-1"
    assert principal.claims["shop"] == {"region": "eu", "tags": ("new",)}
    assert (principal.token_id, principal.expires_at) == (written["jti"], written["exp"])


def test_a_granted_scope_opens_its_route(providers: dict[str, Provider]) -> None:
    """What may only be read is read; with the scope to write, it is written."""
    reader, writer = (providers["ES256"].access_token(scope) for scope in ("items:read", "items:read items:write"))
    app = service(providers["ES256"], Clock(reader))
    assert [sent(app, reader, method).status for method in ("GET", "POST")] == [200, 403]
    assert [sent(app, writer, method).status for method in ("GET", "POST")] == [200, 200]


def test_a_scope_that_the_provider_dropped_is_named(providers: dict[str, Provider]) -> None:
    """A client that asked for a scope the provider does not know got a token without it: the log says where to look."""
    token = providers["ES256"].access_token("items:read items:delete")
    assert claims_of(token)["scope"] == "items:read"
    with listening() as events:
        answer = sent(service(providers["ES256"], Clock(token)), token, "DELETE")
    assert refused_with(answer) == (403, "insufficient_scope")
    assert json.loads(answer.body)["missing_scopes"] == ["items:delete"]
    (event,) = (event for event in events if event["event"] == "authz.denied")
    assert "items:delete" in str(event.get("hint"))
    assert "dropped" in str(event.get("hint"))


def test_a_token_for_another_service_of_the_same_provider_is_refused(providers: dict[str, Provider]) -> None:
    """Key and issuer are right and the resource is another one: it was not sent to us to be used here."""
    token = providers["ES256"].access_token(resource=OTHER_AUDIENCE)
    assert claims_of(token)["aud"] == OTHER_AUDIENCE
    assert refused_with(sent(service(providers["ES256"], Clock(token)), token)) == (401, "wrong_audience")


# Keys that change


def test_no_valid_token_is_refused_while_keys_rotate(providers: dict[str, Provider]) -> None:
    """Clients that never pause meet five rotations, faster than any provider's, and none of their requests fails."""
    provider = providers["ES256"]
    newest, before = [provider.access_token()], provider.fetches()
    clock = Clock(newest[0])
    app = service(provider, clock)
    done, first_answers, clients, rotations = Event(), SimpleQueue[str](), 4, 5

    async def send_all() -> list[int]:
        statuses, last = [], ""
        while not done.is_set():
            token = newest[-1]
            statuses.append((await send(app, token)).status)
            if token != last:
                last = token
                first_answers.put(token)
        return statuses

    with ThreadPoolExecutor(clients) as threads:
        running = [threads.submit(asyncio.run, send_all()) for _ in range(clients)]
        try:
            for _ in range(rotations):
                # The key before the last is gone after a rotation: nobody may still have a token of it.
                assert {first_answers.get(timeout=PATIENCE) for _ in range(clients)} == {newest[-1]}
                clock.now += COOL_DOWN / 2
                provider.rotate()
                newest.append(provider.access_token())
            assert {first_answers.get(timeout=PATIENCE) for _ in range(clients)} == {newest[-1]}
        finally:
            done.set()
        statuses = [status for client in running for status in client.result(PATIENCE)]
    assert set(statuses) == {200}
    assert len({header_of(token)["kid"] for token in newest}) == 1 + rotations
    assert provider.fetches() - before == Fetches(1 + rotations, 1 + rotations)


@pytest.mark.parametrize(
    "passed", [pytest.param(COOL_DOWN, id="for a new key"), pytest.param(DUE, id="for a refresh that is due")]
)
def test_a_known_key_waits_for_no_fetch(providers: dict[str, Provider], passed: float) -> None:
    """While a fetch is under way that the provider does not answer, tokens of known keys are served at once."""
    provider = providers["ES256"]
    cached, fresh, before = provider.access_token(), provider.access_token(), provider.fetches()
    clock = Clock(cached)
    app = service(provider, clock)

    async def story() -> None:
        assert (await send(app, cached)).status == 200
        provider.rotate()
        of_the_new_key = provider.access_token()
        clock.now += passed
        with provider.frozen():
            waiting = asyncio.create_task(send(app, of_the_new_key))
            known = await asyncio.gather(*(send(app, token) for token in (cached, fresh) * 100))
            assert {answer.status for answer in known} == {200}
            assert not waiting.done(), "the fetch was over, so that it is unknown who waited for it"
        assert (await waiting).status == 200

    asyncio.run(story())
    assert provider.fetches() - before == Fetches(2, 2)


@pytest.mark.parametrize("learnt", ["by a new key", "at the end of its life"])
def test_a_retired_key_and_what_it_signed_stop_working(providers: dict[str, Provider], learnt: str) -> None:
    """Once the key set is fetched anew, tokens of that key are refused, whether they were accepted before or not."""
    provider = providers["ES256"]
    seen, unseen = provider.access_token(), provider.access_token()
    clock = Clock(seen)
    app = service(provider, clock)
    assert sent(app, seen).status == 200
    provider.rotate()
    of_the_new_key = provider.access_token()
    clock.now += COOL_DOWN
    assert [sent(app, token).status for token in (of_the_new_key, seen)] == [200, 200]
    provider.retire()
    clock.now += DEFAULT_LIFE * 0.7
    assert [sent(app, token).status for token in (of_the_new_key, seen)] == [200, 200]
    if learnt == "by a new key":
        provider.rotate()
        provider.retire()
        of_the_new_key = provider.access_token()
    else:
        clock.now += DEFAULT_LIFE * 0.3
    assert sent(app, of_the_new_key).status == 200
    assert [refused_with(sent(app, token)) for token in (seen, unseen)] == [(401, "invalid_token")] * 2


# A provider that is away


def test_a_stopped_provider(own_provider: Provider) -> None:
    """Known keys serve for a day; who has none says 503 and never 401, and both recover after the cool-down."""
    provider = own_provider
    seen, unseen = provider.access_token(), provider.access_token()
    clock = Clock(seen)
    warm, cold = service(provider, clock), service(provider, clock)
    assert sent(warm, seen).status == 200
    fetched_at = clock.now
    provider.stop()

    clock.now += COOL_DOWN
    answer = sent(cold, seen)
    assert refused_with(answer) == (503, "keys_unavailable")
    assert answer.header("retry-after") == str(int(COOL_DOWN))
    for age in (COOL_DOWN, DUE, DEFAULT_LIFE, DEFAULT_LIFE + OUTAGE - 1):
        clock.now = fetched_at + age
        assert [sent(warm, token).status for token in (seen, unseen)] == [200, 200], f"{age} s after the fetch"
        assert refused_with(sent(cold, seen)) == (503, "keys_unavailable")
    clock.now = fetched_at + DEFAULT_LIFE + OUTAGE
    assert refused_with(sent(warm, seen)) == (503, "keys_unavailable")

    provider.start_again()
    token = provider.access_token()
    clock.now += COOL_DOWN
    assert [sent(app, token).status for app in (warm, cold)] == [200, 200]


def test_a_frozen_provider(providers: dict[str, Provider]) -> None:
    """It takes connections and answers none: who knows the keys waits for nothing, who has none gives up with a 503."""
    provider = providers["PS256"]
    seen, unseen = provider.access_token(), provider.access_token()
    clock = Clock(seen)
    warm, cold = service(provider, clock), service(provider, clock)

    async def served_at_once() -> asyncio.Task[Answer]:
        """Serve known keys while a token of an unknown one still waits; return who waits."""
        unknown = asyncio.create_task(send(warm, with_kid(seen, "unknown")))
        known = await asyncio.gather(*(send(warm, token) for token in (seen, unseen) * 100))
        assert {answer.status for answer in known} == {200}
        assert not unknown.done()
        return unknown

    async def story() -> None:
        assert (await send(warm, seen)).status == 200
        with provider.frozen():
            clock.now += DEFAULT_LIFE - 30
            giving_up = asyncio.create_task(send(cold, seen))
            unknown = await served_at_once()
            assert not giving_up.done()
            answer = await giving_up
            assert refused_with(answer) == (503, "keys_unavailable")
            assert answer.header("retry-after") == str(int(COOL_DOWN))
            assert refused_with(await unknown) == (503, "keys_unavailable")

            clock.now += 31  # past the life of the keys: they serve because the outage is known
            unknown = await served_at_once()
        assert refused_with(await unknown) == (401, "invalid_token")
        clock.now += COOL_DOWN
        assert [(await send(app, seen)).status for app in (warm, cold)] == [200, 200]

    asyncio.run(story())


# How often a provider is asked


def test_ten_thousand_unknown_keys_cost_three_fetches(
    providers: dict[str, Provider], caplog: pytest.LogCaptureFixture
) -> None:
    """Who makes key ids up cannot make us ask the provider more than thrice a cool-down, and shuts nobody out."""
    caplog.set_level(logging.CRITICAL, "authz403")
    provider = providers["RS256"]
    token, before = provider.access_token(), provider.fetches()
    clock = Clock(token)
    app = service(provider, clock)

    async def statuses(numbers: range, *, seconds: float) -> set[int]:
        found = set()
        async with asyncio.timeout(2 * PATIENCE):
            for number in numbers:
                forged = scope_of("/items", headers=bearer(with_kid(token, f"k{number}")))
                found.add((await connect(app, forged)).status)
                clock.now += seconds
        return found

    assert sent(app, token).status == 200
    assert provider.fetches() - before == Fetches(1, 1)
    clock.now += COOL_DOWN
    assert asyncio.run(statuses(range(10_000), seconds=0)) == {401}
    made = 1 + MOST_FETCHES
    assert provider.fetches() - before == Fetches(made, made)
    clock.now += COOL_DOWN
    assert asyncio.run(statuses(range(10_000, 10_100), seconds=COOL_DOWN / 10)) == {401}
    made += 10 * MOST_FETCHES
    assert provider.fetches() - before == Fetches(made, made)
    assert sent(app, token).status == 200


@pytest.mark.parametrize("threads", [pytest.param(1, id="one event loop"), pytest.param(8, id="eight threads")])
def test_two_hundred_first_requests_share_one_fetch(providers: dict[str, Provider], threads: int) -> None:
    """On a cold start everybody waits for the same fetch, and everybody is served."""
    provider = providers["RS256"]
    tokens, before = [provider.access_token() for _ in range(20)] * 10, provider.fetches()
    app = service(provider, Clock(tokens[0]))
    assert refused_with(drive(app, scope_of("/items"))) == (401, "missing_token")
    assert provider.fetches() - before == Fetches(0, 0)
    together = Barrier(threads)

    async def send_many(mine: list[str]) -> list[int]:
        together.wait(PATIENCE)
        return [answer.status for answer in await asyncio.gather(*(send(app, token) for token in mine))]

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(asyncio.run, send_many(tokens[number::threads])) for number in range(threads)]
        statuses = [status for thread in running for status in thread.result(PATIENCE)]
    assert statuses == [200] * 200
    assert provider.fetches() - before == Fetches(1, 1)
