"""Where an issuer's keys come from: configured ones, or a JWKS that is fetched, kept, refreshed and outlived.

A request whose key is known waits only where nobody has asked for long. There is one refresh at a time (the metadata,
then the key set), whoever asks for it.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from threading import Lock, Thread
from typing import Final, NamedTuple, Protocol

from authz403.bounded import remember
from authz403.fetch import TIMEOUT, Document, FetchFailed, Unreachable, fetch_json, wrong_with_url
from authz403.jose import KeyRefused, KeySet, VerificationKey, keys_from_jwks
from authz403.need import How, Need

SHORTEST_LIFE: Final = 60.0
"""Seconds: a fetched key set is kept at least so long, whatever its Cache-Control says."""

LONGEST_LIFE: Final = 3600.0
"""Seconds: a removed key is accepted at most so long, and while one fetch takes (or longer in an `OUTAGE`)."""

DEFAULT_LIFE: Final = 600.0
"""Seconds that a key set is kept whose answer has no max-age."""

OUTAGE: Final = 24 * 3600.0
"""Seconds after its life that the last good key set still serves while the issuer cannot be reached."""

OUTAGE_IS_FRESH: Final = 60.0
"""Seconds after a failed fetch that the issuer counts as out of reach; after that, a request waits for another try."""

COOL_DOWN: Final = 10.0
"""Seconds in which one unknown key id, or one failure, causes one fetch, however many requests come."""

MOST_FETCHES: Final = 3
"""How many fetches are begun within `COOL_DOWN`, however many unknown key ids there are."""

_LONGEST_REFRESH: Final = 2 * TIMEOUT  # seconds: the metadata, then the key set
_LONGEST_WAIT: Final = TIMEOUT + 1  # seconds that a request waits for one
_MOST_LOOKED_FOR: Final = 1_000  # unknown key ids that are remembered
_MOST_TOLD: Final = 20  # findings about one issuer that are logged in a row
_REFRESH_AFTER: Final = 0.8  # of its life, a key set is refreshed in the background

Keys = tuple[VerificationKey, ...]
Report = Callable[[str, str], None]


class KeysUnavailable(NamedTuple):
    """No usable keys: why, and after how many seconds it makes sense to ask again."""

    why: str
    retry_after: float


class KeySource(Protocol):
    """The keys of one issuer."""

    def find(
        self, kid: str | None, now: float, *, fetch: bool, in_vain: Keys = ()
    ) -> Keys | KeysUnavailable | Need[Keys | KeysUnavailable]:
        """Return the keys that a token with this `kid` may be signed with, but for those that were tried `in_vain`.

        `fetch` allows asking for new ones where there are none.
        """
        ...

    def still_holds(self, key: VerificationKey, now: float) -> bool:
        """Tell whether a key found earlier is still accepted."""
        ...

    def decoys(self) -> Keys:
        """Return a key to verify with where none is known, so that time does not tell which key ids exist."""
        ...

    def report_to(self, report: Report) -> None:
        """Tell `report(cause, hint)`, too, what is wrong with keys that are fetched."""
        ...

    def health(self) -> dict[str, object]:
        """Return how many keys there are, since when and until when they serve, and why no newer ones do, for JSON."""
        ...


class FixedKeys:
    """Keys that the configuration holds."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    def find(self, kid: str | None, now: float, *, fetch: bool, in_vain: Keys = ()) -> Keys:  # noqa: ARG002 - the protocol's signature
        """See `KeySource`."""
        return _but_for(in_vain, self._keys.candidates(kid))

    def still_holds(self, key: VerificationKey, now: float) -> bool:  # noqa: ARG002 - the protocol's signature
        """See `KeySource`."""
        return True

    def decoys(self) -> Keys:
        """See `KeySource`."""
        return self._keys.keys[:1]

    def report_to(self, report: Report) -> None:
        """See `KeySource`."""

    def health(self) -> dict[str, object]:
        """See `KeySource`."""
        return {"keys": len(self._keys.keys), "fetched_at": None, "usable_until": None, "error": None}


class _Pace:
    """When a fetch may begin. Not thread-safe."""

    def __init__(self) -> None:
        self._starts: deque[float] = deque(maxlen=MOST_FETCHES)
        self._looked_for: OrderedDict[str | None, float] = OrderedDict()
        self.last_start = float("-inf")
        self.has_failed = False

    def allows(self, now: float, kids: tuple[str | None, ...]) -> bool:
        """Tell whether to fetch now: because a set is due, or for the `kids` that are not known."""
        if not kids or self.has_failed:
            return not _is_recent(self.last_start, now)
        if any(_is_recent(self._looked_for.get(kid, float("-inf")), now) for kid in kids):
            return False
        return sum(_is_recent(start, now) for start in self._starts) < MOST_FETCHES

    def begun(self, now: float, kids: tuple[str | None, ...]) -> None:
        """Note that a fetch begins."""
        self.last_start = now
        self._starts.append(now)
        for kid in kids:
            remember(self._looked_for, kid, now, most=_MOST_LOOKED_FOR)


def _is_recent(start: float, now: float) -> bool:
    # Requests tell the time each for itself, so that one may be a little behind; and clocks are set back.
    return abs(now - start) < COOL_DOWN


Fetch = Callable[[str], Document]


class FetchedKeys:
    """The keys at a JWKS URL, or at the one that the issuer's metadata names (OIDC Discovery, RFC 8414).

    Thread-safe.
    """

    def __init__(
        self, *, issuer: str, jwks_url: str | None, allow_http: bool = False, fetch: Fetch = fetch_json
    ) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._allow_http = allow_http
        self._fetch = fetch
        self._process = os.getpid()
        self._lock = Lock()
        self._in_flight: Future[None] | None = None
        self._pace = _Pace()
        self._begun = self._taken = 0  # how many fetches were begun, and which of them was taken last
        self._keys: KeySet | None = None
        self._taken_at = float("-inf")
        self._refresh_at = float("-inf")
        self._expires_at = float("-inf")
        self._usable_until = float("-inf")
        self._failed_at = float("-inf")
        self._failure = "the first fetch has not been answered yet"
        self._reports: list[Report] = []
        self._told: set[str] = set()

    def find(
        self, kid: str | None, now: float, *, fetch: bool, in_vain: Keys = ()
    ) -> Keys | KeysUnavailable | Need[Keys | KeysUnavailable]:
        """See `KeySource`."""
        known = _but_for(in_vain, self._known(kid)) if self._may_serve(now) else ()
        if known or not fetch:
            return known or self._settled(kid, now, in_vain)
        return self._looked_for(kid, now, in_vain, is_last_try=False)

    def _looked_for(
        self, kid: str | None, now: float, in_vain: Keys, *, is_last_try: bool
    ) -> Keys | KeysUnavailable | Need[Keys | KeysUnavailable]:
        future, is_new = self._begin(now, (kid,))
        if future is None:
            return self._settled(kid, now, in_vain)

        def landed(answer: object) -> Keys | KeysUnavailable | Need[Keys | KeysUnavailable]:
            found = self._settled(kid, now, in_vain)
            if not found and isinstance(answer, TimeoutError):
                return self._unavailable(now)
            if found or is_new or is_last_try:
                return found
            # The fetch that was under way may have been answered before this key was published.
            return self._looked_for(kid, now, in_vain, is_last_try=True)

        return Need(How.FUTURE, lambda: future, landed, within=_LONGEST_WAIT)

    def still_holds(self, key: VerificationKey, now: float) -> bool:
        """See `KeySource`."""
        return self._may_serve(now) and self._keys is not None and key in self._keys.keys

    def decoys(self) -> Keys:
        """See `KeySource`."""
        return () if self._keys is None else self._keys.keys[:1]

    def report_to(self, report: Report) -> None:
        """See `KeySource`."""
        self._reports.append(report)

    def health(self) -> dict[str, object]:
        """See `KeySource`. Nothing is fetched for it."""
        keys = self._keys
        return {
            "keys": 0 if keys is None else len(keys.keys),
            "fetched_at": None if keys is None else _utc(self._taken_at),
            "usable_until": None if keys is None else _utc(self._usable_until),
            "error": self._failure if self._pace.has_failed else None,
        }

    def _tell(self, cause: str, hint: str) -> None:
        """Report a finding, once until a refresh finds nothing wrong; an outage that goes on fails in few ways."""
        if hint in self._told or len(self._told) >= _MOST_TOLD:
            return
        self._told.add(hint)
        for report in self._reports:
            report(cause, hint)

    def _may_serve(self, now: float) -> bool:
        """Tell whether the keys at hand may be used without waiting; when one is due, a fetch is begun besides."""
        if self._taken_at - COOL_DOWN <= now < self._refresh_at:  # not so in a past that a clock was set back to
            return True
        if now >= self._usable_until:
            return False
        self._begin(now)
        # Nobody knows whether a key was removed since. So, beyond its life, a key set serves only while the fetch that
        # was begun before is under way, and through an outage.
        return (
            now < self._expires_at
            or now < self._failed_at + OUTAGE_IS_FRESH
            or (self._in_flight is not None and self._pace.last_start < self._expires_at)
        )

    def _known(self, kid: str | None) -> Keys:
        return () if self._keys is None else self._keys.candidates(kid)

    def _settled(self, kid: str | None, now: float, in_vain: Keys) -> Keys | KeysUnavailable:
        known = self._known(kid)
        if self._keys is None or now >= self._usable_until or (not known and self._pace.has_failed):
            # While the issuer is out of reach, nobody can say that there is no such key.
            return self._unavailable(now)
        return _but_for(in_vain, known)

    def _unavailable(self, now: float) -> KeysUnavailable:
        return KeysUnavailable(self._failure, max(1.0, self._pace.last_start + COOL_DOWN - now))

    def _begin(self, now: float, kids: tuple[str | None, ...] = ()) -> tuple[Future[None] | None, bool]:
        """Start a fetch in a thread of its own, or join the one under way; `None` where it is too early for another.

        Returns whether the fetch is a new one, too. `kids` are the key ids that it is for, none where a set is due.
        """
        if self._process != os.getpid():
            # A fork during a fetch: the thread, and whoever held the lock, stayed in the parent.
            self._process, self._lock, self._in_flight, self._pace = os.getpid(), Lock(), None, _Pace()
        with self._lock:
            if self._in_flight is not None and now < self._pace.last_start + _LONGEST_REFRESH:
                return self._in_flight, False
            if not self._pace.allows(now, kids):
                return None, False
            self._pace.begun(now, kids)
            self._begun += 1
            number = self._begun
            self._in_flight = future = Future[None]()
            future.set_running_or_notify_cancel()  # many wait for it: when one gives up, the others go on
        try:
            Thread(target=self._refresh, args=(future, number, now), name="authz403-keys", daemon=True).start()
        except RuntimeError as error:
            self._failed(str(error), number, now)
            self._land(future)
        return future, True

    def _refresh(self, future: Future[None], number: int, now: float) -> None:
        try:
            keys, max_age = self._load()
            with self._lock:
                if number > self._taken:  # else it took so long that a later one was answered before
                    self._taken = number
                    self._take(keys, max_age, now)
        except (FetchFailed, KeyRefused) as error:
            self._failed(str(error), number, now)
        except Exception as error:  # noqa: BLE001 - whatever happens, those who wait must go on
            self._failed(repr(error), number, now)
        finally:
            self._land(future)

    def _failed(self, why: str, number: int, now: float) -> None:
        with self._lock:
            if number < self._taken:
                return
            self._pace.has_failed, self._failure, self._failed_at = True, why, now
        self._tell("keys_unavailable", f"the keys of {self._issuer} could not be fetched: {why}")

    def _land(self, future: Future[None]) -> None:
        with self._lock:
            if self._in_flight is future:
                self._in_flight = None
        future.set_result(None)

    def _load(self) -> tuple[KeySet, float | None]:
        url = self._jwks_url or self._discover()
        document = self._fetch(url)
        keys, refused = keys_from_jwks(document.content)
        if refused:
            self._tell("keys_refused", f"{url}: " + "; ".join(refused))
        else:
            self._told.clear()
        if not keys.keys:
            raise FetchFailed(f"{url} holds no key that can be used")
        return keys, document.max_age

    def _discover(self) -> str:
        """Return the `jwks_uri` of the issuer's metadata (OpenID Connect Discovery 1.0, RFC 8414 section 3)."""
        failures: list[str] = []
        for url in metadata_urls(self._issuer):
            try:
                metadata = self._fetch(url).content
            except Unreachable:
                raise  # the other place is on the same machine
            except FetchFailed as error:
                failures.append(str(error))
                continue
            if not isinstance(metadata, dict) or metadata.get("issuer") != self._issuer:
                # RFC 8414 section 3.3: the issuer value returned MUST be identical to the one asked.
                raise FetchFailed(f"{url} does not say that its issuer is {self._issuer}")
            jwks_uri = metadata.get("jwks_uri")
            wrong = wrong_with_url(jwks_uri, allow_http=self._allow_http)
            if wrong is not None or not isinstance(jwks_uri, str):
                raise FetchFailed(f"{url} names an unusable jwks_uri: {wrong}")
            return jwks_uri
        raise FetchFailed("; ".join(failures))

    def _take(self, keys: KeySet, max_age: float | None, now: float) -> None:
        self._pace.has_failed = False
        # A key that did not change stays the same object, so that what it verified before is still accepted.
        before = self._keys.keys if self._keys is not None else ()
        kept = KeySet(next((old for old in before if old.is_same_as(key)), key) for key in keys.keys)
        life = min(max(max_age if max_age is not None else DEFAULT_LIFE, SHORTEST_LIFE), LONGEST_LIFE)
        self._keys = kept
        self._taken_at = now
        self._refresh_at = now + life * _REFRESH_AFTER
        self._expires_at = now + life
        self._usable_until = now + life + OUTAGE
        self._failed_at = float("-inf")


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _but_for(in_vain: Keys, keys: Keys) -> Keys:
    return tuple(key for key in keys if key not in in_vain) if in_vain else keys


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """Return where an issuer's metadata may be: OpenID Connect's place first, then that of RFC 8414 section 3.1."""
    scheme, _, rest = issuer.rstrip("/").partition("://")
    host, slash, path = rest.partition("/")
    return (
        f"{scheme}://{rest}/.well-known/openid-configuration",
        f"{scheme}://{host}/.well-known/oauth-authorization-server{slash}{path}",
    )
