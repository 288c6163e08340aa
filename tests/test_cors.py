"""Cors: exact origins, preflights that are answered in full, and configurations that would be unsafe or useless."""

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403.cors import ALWAYS_EXPOSED, DEFAULT_HEADERS, DEFAULT_METHODS, Cors, is_preflight
from authz403.errors import ConfigurationError
from tests.cors_made import APP, VARIES, Fields, preflight_fields, text_of


def mistakes_of(**options: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - configuration of wrong types too
    """Return what is wrong with a Cors: fields and why."""
    with pytest.raises(ConfigurationError) as caught:
        Cors(**{"origins": [APP]} | options)
    assert caught.value.part == "Cors"
    return [(mistake.field, mistake.why) for mistake in caught.value.mistakes]


# ---- configuration


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example",
        "http://localhost:3000",
        "http://localhost",
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "https://app.example:8443",
        "https://xn--bcher-kva.example",
        "http://ex_am-ple.example",
        "http://app.example:443",
        "https://app.example:80",
        "capacitor://localhost",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        "https://app.example:65535",
    ],
)
def test_an_origin_as_browsers_write_it_is_taken(origin: str) -> None:
    """Schemes, hosts and ports that a browser sends in Origin may be named."""
    assert Cors(origins=[origin]).allows(origin)


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        ("null", "sandboxed pages of anybody"),
        ("https://app.example/", "write https://app.example"),
        ("https://app.example/path", "write https://app.example"),
        ("https://app.example:8443/path", "write https://app.example:8443"),
        ("https://app.example?x=1", "write https://app.example"),
        ("https://app.example#x", "write https://app.example"),
        ("HTTPS://App.Example", "write https://app.example"),
        ("https://app.example:443", "write https://app.example"),
        ("http://app.example:80", "write http://app.example"),
        ("https://app.example:0", "a port is 1 to 65535"),
        ("https://app.example:08443", "a port is 1 to 65535"),
        ("https://app.example:65536", "a port is 1 to 65535"),
        ("https://*app.example", "whole labels"),
        ("https://*.com", "anybody may have names below com"),
        ("http://*.localhost:3000", "anybody may have names below localhost"),
        ("https://*.co.uk", "anybody may have names below co.uk"),
        ("https://*.github.io:8443", "anybody may have names below github.io"),
        ("https://*.windows.net", ".windows.net, a public suffix"),
        ("https://*.127.0.0.1", "no names below an address"),
        ("app.example", "not an origin"),
        ("//app.example", "not an origin"),
        ("https:app.example", "not an origin"),
        ("https://", "not an origin"),
        ("1https://app.example", "not an origin"),
        ("https://bücher.example", ""),
        (" https://app.example", "not an origin"),
        ("https://app.example\n", ""),
        ("https://app.example,https://b.example", ""),
        ("https://app.example https://b.example", ""),
        ("https://-app.example", "not an origin"),
        ("https://[::1", "not an origin"),
        ("", "not an origin"),
    ],
    ids=ascii,
)
def test_a_wrong_origin_is_told(origin: str, why: str) -> None:
    """What no browser sends in Origin, or anybody can send, is refused with what to write instead."""
    ((field, told),) = mistakes_of(origins=["https://b.example", origin])

    assert field == "origins[1]"
    assert why in told


@pytest.mark.parametrize(
    "origin",
    [
        *("https://user:password@app.example", "https://app.example@evil.example", "https://app.example^8080"),
        *("https://app.example.:8443", "https://app.example:", "https://[::1]app.example", "https://app.example\n"),
        *("https://app.example,https://b.example", "https://b\u00fccher.example"),
    ],
    ids=ascii,
)
def test_no_other_host_is_suggested(origin: str) -> None:
    """What is cut off to suggest an origin is a path, a query or a fragment, never a part of the host."""
    ((_, told),) = mistakes_of(origins=[origin])

    assert "write" not in told


def test_any_origin_excludes_credentials() -> None:
    """With credentials, `*` would let any site act as the signed-in user (CVE-2023-23634's class)."""
    ((field, why),) = mistakes_of(origins=["*"], credentials=True)

    assert field == "origins[0]"
    assert "any site could act as the signed-in user" in why


def test_any_origin_excludes_the_private_network() -> None:
    """With it, `*` would let any site call what only stands in the network of its visitors."""
    ((field, why),) = mistakes_of(origins=["*"], private_network=True)

    assert field == "origins[0]"
    assert "any site could call into the private network" in why


@pytest.mark.parametrize("option", ["credentials", "private_network"])
def test_insecure_origins_have_neither_credentials_nor_the_private_network(option: str) -> None:
    """Whoever is on the way to a page without https could make it do what the page may do."""
    insecure = ["http://app.example", "http://*.app.example", "http://app.example:*", "connector://app.example"]
    secure = ["https://app.example", "http://localhost:3000", "http://127.0.0.1", "http://[::1]:90"]
    told = mistakes_of(origins=[*insecure, *secure], **{option: True})

    assert [field for field, _ in told] == [f"origins[{index}]" for index in range(len(insecure))]
    assert all(option in why and "dangerously_allow_insecure=True" in why for _, why in told)
    options: dict[str, Any] = {option: True, "dangerously_allow_insecure": True}
    assert Cors(origins=insecure, **options).allows("http://app.example")
    assert Cors(origins=insecure).allows("http://x.app.example")


def test_patterns_need_the_list_of_public_suffixes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it nobody can tell whose names a pattern covers, so there are none; other origins need no list."""
    monkeypatch.setitem(sys.modules, "publicsuffixlist", None)
    told = mistakes_of(origins=[APP, "https://*.app.example", "https://*.b.example:8443"])

    assert [field for field, _ in told] == ["origins[1]", "origins[2]"]
    assert all("install authz403[patterns]" in why for _, why in told)
    assert Cors(origins=[APP, "http://localhost:*"]).allows("http://localhost:3000")


def test_any_origin_stands_alone() -> None:
    """Names beside `*` would seem to narrow it."""
    ((field, why),) = mistakes_of(origins=[APP, "*"])

    assert field == "origins[1]"
    assert "write it alone" in why


@pytest.mark.parametrize(
    ("options", "field", "why"),
    [
        ({"origins": []}, "origins", "at least one origin"),
        ({"origins": APP}, "origins", "a list of strings"),
        ({"origins": None}, "origins", "a list of strings"),
        ({"origins": [7]}, "origins[0]", "a string"),
        ({"methods": ["get"]}, "methods[0]", "write GET"),
        ({"methods": ["GET", "patch"]}, "methods[1]", "write PATCH"),
        ({"methods": ["*"]}, "methods[0]", "name the methods"),
        ({"methods": ["CONNECT"]}, "methods[0]", "browsers never send it"),
        ({"methods": ["trace"]}, "methods[0]", "browsers never send it"),
        ({"methods": ["GET POST"]}, "methods[0]", "not a method"),
        ({"methods": [""]}, "methods[0]", "not a method"),
        ({"methods": "GET"}, "methods", "a list of strings"),
        ({"headers": ["*"]}, "headers[0]", "never covers Authorization"),
        ({"headers": ["X Token"]}, "headers[0]", "not a header name"),
        ({"headers": [""]}, "headers[0]", "not a header name"),
        ({"headers": ["X-Token\r\nX-Evil: 1"]}, "headers[0]", "not a header name"),
        ({"headers": ["Cookie"]}, "headers[0]", "no script"),
        ({"headers": ["Sec-Fetch-Site"]}, "headers[0]", "no script"),
        ({"headers": ["Proxy-Authorization"]}, "headers[0]", "no script"),
        ({"headers": ["Access-Control-Allow-Origin"]}, "headers[0]", "writes these itself"),
        ({"headers": "Authorization"}, "headers", "a list of strings"),
        ({"expose": ["*"]}, "expose[0]", "never covers Authorization"),
        ({"expose": ["X:Y"]}, "expose[0]", "not a header name"),
        ({"expose": ["Access-Control-Max-Age"]}, "expose[0]", "writes these itself"),
        ({"expose": ["Set-Cookie"]}, "expose[0]", ""),
        ({"credentials": "yes"}, "credentials", "True or False"),
        ({"credentials": 1}, "credentials", "True or False"),
        ({"private_network": "yes"}, "private_network", "True or False"),
        ({"debug": 1}, "debug", "True or False"),
        ({"dangerously_allow_insecure": 1}, "dangerously_allow_insecure", "True or False"),
        ({"max_age": -1}, "max_age", "0 to 86400"),
        ({"max_age": 86_401}, "max_age", "0 to 86400"),
        ({"max_age": 1.5}, "max_age", "0 to 86400"),
        ({"max_age": True}, "max_age", "0 to 86400"),
        ({"max_age": "600"}, "max_age", "0 to 86400"),
    ],
    ids=str,
)
def test_a_configuration_mistake_is_told(options: dict[str, Any], field: str, why: str) -> None:
    """Each mistake is told once, by its field and why."""
    ((told_field, told),) = mistakes_of(**options)

    assert told_field == field
    assert why in told


def test_all_mistakes_are_told_at_once() -> None:
    """One error names everything that is wrong with a Cors."""
    told = mistakes_of(
        origins=["null", "https://app.example/"],
        methods=["get"],
        headers=["*"],
        expose=["a b"],
        credentials=1,
        max_age=-1,
        private_network=0,
        debug=None,
    )

    fields = ["origins[0]", "origins[1]", "methods[0]", "headers[0]", "expose[0]", "credentials"]
    assert [field for field, _ in told] == [*fields, "private_network", "debug", "max_age"]


def test_all_mistakes_of_one_origin_are_told_at_once() -> None:
    """Whoever cures the first of them is not sent back for the next."""
    told = mistakes_of(origins=["http://*.github.io", "*"], credentials=True, private_network=True)

    assert [field for field, _ in told] == ["origins[0]"] * 2 + ["origins[1]"] * 3
    assert "use credentials and private_network" in told[0][1]
    assert "names below github.io" in told[1][1]


def test_a_cors_is_a_value() -> None:
    """What was given as any iterable is kept as tuples, so that equal configurations are equal."""
    cors = Cors(origins=iter([APP]), methods=iter(["GET"]), headers=iter(["X-A"]), expose=iter(["X-B"]))

    assert cors == Cors(origins=[APP], methods=["GET"], headers=["X-A"], expose=["X-B"])
    assert (cors.origins, cors.methods, cors.headers, cors.expose) == ((APP,), ("GET",), ("X-A",), ("X-B",))


# ---- answers


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "https://app.example.evil.example",
            "https://evil-app.example",
            "https://sub.app.example",
            "https://app.exampl",
        ),
        *("http://app.example", "https://app.example:8443", "https://app.example/", "HTTPS://APP.EXAMPLE"),
        *("https://app.example\n", "null", "*", ""),
    ],
    ids=ascii,
)
def test_an_origin_matches_exactly_or_not_at_all(origin: str) -> None:
    """Neither a prefix, a suffix, a subdomain, a port nor a case is near enough (GHSA-vhxv-fg4m-p2w8's class)."""
    cors = Cors(origins=[APP], credentials=True)

    assert not cors.allows(origin)
    assert text_of(cors.answer_headers((origin,))) == {"vary": "Origin"}
    assert text_of(cors.preflight(preflight_fields(origin=origin))[0]).keys() == {"vary"}


def test_an_answer_to_an_allowed_origin_may_be_read() -> None:
    """The origin is named, refusals can be understood by scripts, and caches are told that Origin matters."""
    assert text_of(Cors(origins=[APP, "https://b.example"], expose=["X-Total"]).answer_headers((APP,))) == {
        "access-control-allow-origin": APP,
        "access-control-expose-headers": "WWW-Authenticate, Retry-After, Authz-Reason, Authz-Decision, X-Total",
        "vary": "Origin",
    }


def test_cookies_pass_only_where_that_is_said() -> None:
    """`credentials` adds Access-Control-Allow-Credentials, for allowed origins alone."""
    cors = Cors(origins=[APP], credentials=True)

    assert text_of(cors.answer_headers((APP,)))["access-control-allow-credentials"] == "true"
    assert text_of(cors.preflight(preflight_fields())[0])["access-control-allow-credentials"] == "true"
    assert "access-control-allow-credentials" not in text_of(Cors(origins=[APP]).answer_headers((APP,)))


@pytest.mark.parametrize("origin", ["https://x.app.example", "https://y.x.app.example", "http://localhost:5173"])
def test_an_answer_to_an_origin_of_a_pattern_names_that_origin(origin: str) -> None:
    """Never the pattern, which browsers do not read; with all that answers to named origins have."""
    cors = Cors(origins=[APP, "https://*.app.example", "http://localhost:*"], credentials=True, expose=["X-Total"])

    named = text_of(cors.answer_headers((APP,)))
    assert cors.allows(origin)
    assert text_of(cors.answer_headers((origin,))) == named | {"access-control-allow-origin": origin}
    headers, failed = cors.preflight(preflight_fields(origin=origin))
    assert failed is None
    assert text_of(headers) == text_of(cors.preflight(preflight_fields())[0]) | {"access-control-allow-origin": origin}


@pytest.mark.parametrize(
    "origin",
    [
        *("https://*.app.example", "https://evilapp.example", "https://x.app.example.evil.example", "null", ""),
        *("https://x.app.example\r\nSet-Cookie: a=b", "https://x.app.example:443", "https://x..app.example"),
    ],
    ids=ascii,
)
def test_an_origin_that_only_looks_like_a_pattern_is_not_answered(origin: str) -> None:
    """What does not match is never written back."""
    cors = Cors(origins=["https://*.app.example"], credentials=True)

    assert not cors.allows(origin)
    assert text_of(cors.answer_headers((origin,))) == {"vary": "Origin"}
    assert cors.preflight(preflight_fields(origin=origin))[1] == f"origin {origin}"


@pytest.mark.parametrize("origins", [None, (), (APP, APP), (APP, "https://evil.example")], ids=repr)
def test_without_exactly_one_origin_nobody_may_read(origins: tuple[str, ...] | None) -> None:
    """No Origin or several name nobody, and the answer still varies by Origin, so that caches keep them apart."""
    assert text_of(Cors(origins=[APP]).answer_headers(origins)) == {"vary": "Origin"}


@pytest.mark.parametrize("origins", [None, (APP,), ("null",), (APP, APP)], ids=repr)
def test_any_origin_may_read_where_that_is_said(origins: tuple[str, ...] | None) -> None:
    """With `*` every answer is the same, never a mirrored origin and never with credentials."""
    headers = text_of(Cors(origins=["*"]).answer_headers(origins))

    assert headers["access-control-allow-origin"] == "*"
    assert headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in headers


@given(st.text() | st.sampled_from([APP, "https://b.example"]))
def test_only_named_origins_ever_stand_in_an_answer(origin: str) -> None:
    """Whatever Origin holds, it is either one of the configured ones or not written back."""
    cors = Cors(origins=[APP, "https://b.example"])
    answered = text_of(cors.answer_headers((origin,))).get("access-control-allow-origin")

    assert answered == (origin if origin in cors.origins else None)
    assert cors.allows(origin) is (origin in cors.origins)


# ---- preflights


@pytest.mark.parametrize(
    ("method", "origins", "methods", "preflight"),
    [
        ("OPTIONS", (APP,), ("PUT",), True),
        ("OPTIONS", ("",), ("",), True),
        ("options", (APP,), ("PUT",), False),
        ("GET", (APP,), ("PUT",), False),
        ("WEBSOCKET", (APP,), ("PUT",), False),
        ("OPTIONS", (), ("PUT",), False),
        ("OPTIONS", (APP,), (), False),
        ("OPTIONS", (APP, APP), ("PUT",), False),
        ("OPTIONS", (APP,), ("PUT", "GET"), False),
    ],
)
def test_a_preflight_has_exactly_one_origin_and_one_method(
    method: str, origins: tuple[str, ...], methods: tuple[str, ...], *, preflight: bool
) -> None:
    """Any other OPTIONS is a request like others and goes through the policy."""
    fields = {"origin": origins, "access-control-request-method": methods}

    assert is_preflight(method, {name: lines for name, lines in fields.items() if lines}) is preflight


def test_a_preflight_is_answered_in_full() -> None:
    """The answer names what is allowed, for how long, and all that it depends on."""
    headers, failed = Cors(origins=[APP], max_age=0).preflight(
        preflight_fields("authorization,content-type", method="PUT")
    )

    assert failed is None
    assert text_of(headers) == {
        "access-control-allow-origin": APP,
        "access-control-allow-methods": ", ".join(DEFAULT_METHODS),
        "access-control-allow-headers": ", ".join(DEFAULT_HEADERS),
        "access-control-max-age": "0",
        "access-control-expose-headers": ", ".join(ALWAYS_EXPOSED),
        "vary": VARIES,
    }


def test_a_preflight_for_any_origin_is_answered_with_any() -> None:
    """With `*` the origin is not mirrored."""
    headers, failed = Cors(origins=["*"]).preflight(preflight_fields(origin="null"))

    assert failed is None
    assert text_of(headers)["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("fields", "failed"),
    [
        (preflight_fields(origin="https://evil.example"), "origin https://evil.example"),
        (preflight_fields(method="PURGE"), "method PURGE"),
        (preflight_fields(method="get"), "method get"),
        (preflight_fields(method=""), "method "),
        (preflight_fields("x-token"), "header x-token"),
        (preflight_fields("authorization, X-Token ,content-type"), "header X-Token"),
        (preflight_fields("authorization", "x-token"), "header x-token"),
        (preflight_fields("authorization x-token"), "header authorization x-token"),
        (preflight_fields("*"), "header *"),
    ],
    ids=str,
)
def test_a_refused_preflight_says_what_failed_and_allows_nothing(fields: Fields, failed: str) -> None:
    """The part that failed is for the log; the answer carries nothing that a browser would take for a yes."""
    headers, told = Cors(origins=[APP], credentials=True).preflight(fields)

    assert told == failed
    assert text_of(headers) == {"vary": VARIES}


def test_a_preflight_for_the_private_network_passes_only_where_that_is_said() -> None:
    """Private Network Access: the answer says yes with a header of its own, and only to who asked."""
    fields = preflight_fields("authorization", private="true")
    headers, failed = Cors(origins=[APP], private_network=True).preflight(fields)
    assert failed is None
    assert text_of(headers)["access-control-allow-private-network"] == "true"

    headers, failed = Cors(origins=[APP]).preflight(fields)
    assert failed == "private network"
    assert text_of(headers) == {"vary": VARIES}


@pytest.mark.parametrize("asked", [None, "false", "", "TRUE"])
def test_who_does_not_ask_for_the_private_network_is_told_nothing_of_it(asked: str | None) -> None:
    """Only `true` is a request for it, and other preflights are answered as ever."""
    fields = preflight_fields(private=asked)

    for cors in (Cors(origins=[APP], private_network=True), Cors(origins=[APP])):
        headers, failed = cors.preflight(fields)
        assert failed is None
        assert "access-control-allow-private-network" not in text_of(headers)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (preflight_fields("x-foo"), "header x-foo"),
        (preflight_fields(method="PURGE"), "method PURGE"),
        (preflight_fields(origin="https://evil.example"), "origin https://evil.example"),
        (preflight_fields(private="true"), "private network"),
        (preflight_fields("x\r\nSet-Cookie: a=b"), "header x??Set-Cookie: a=b"),
        (preflight_fields("x\x00\x7f\u00e9\u2028\tz"), "header x?????z"),
        (preflight_fields(method="P" * 5_000), "method " + "P" * 326),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_with_debug_a_refused_preflight_says_which_part_failed(fields: Fields, told: str) -> None:
    """In a header, whatever the client sent in one line of printable ASCII; the decision is the same."""
    quiet, refused = Cors(origins=[APP], credentials=True).preflight(fields)
    headers, failed = Cors(origins=[APP], credentials=True, debug=True).preflight(fields)

    assert failed == refused is not None
    assert text_of(headers) == text_of(quiet) | {"authz-preflight": told}


def test_with_debug_other_answers_are_the_same() -> None:
    """Only a refused preflight is told more of."""
    cors, debugging = Cors(origins=[APP]), Cors(origins=[APP], debug=True)

    assert debugging.preflight(preflight_fields()) == cors.preflight(preflight_fields())
    assert debugging.answer_headers((APP,)) == cors.answer_headers((APP,))
    assert debugging.answer_headers(("https://evil.example",)) == cors.answer_headers(("https://evil.example",))


@pytest.mark.parametrize(
    "lines",
    [
        *((), ("",), (",",), ("\t, , ",), ("authorization",), ("Authorization",), (" authorization\t,",)),
        *((",,authorization,,",), ("authorization", " ", " content-type")),
    ],
    ids=repr,
)
def test_names_of_headers_are_read_as_a_list(lines: tuple[str, ...]) -> None:
    """Case, white space, empty elements and several lines make no difference (RFC 9110 section 5.6.1)."""
    assert Cors(origins=[APP]).preflight(preflight_fields(*lines))[1] is None


@pytest.mark.parametrize("headers", [(), ("Authorization",), DEFAULT_HEADERS, ("X-Token", "Range")], ids=str)
def test_what_a_preflight_lets_pass_its_answer_names(headers: tuple[str, ...]) -> None:
    """Fetch, CORS-preflight fetch: a browser lets no unsafe header pass that the answer does not name.

    A browser names a safelisted header in a preflight only where its value makes it unsafe.
    """
    cors = Cors(origins=[APP], headers=headers)
    unnamed = []
    for name in ("accept", "accept-language", "content-language", "content-type", "range", "authorization", "x-token"):
        answer, failed = cors.preflight(preflight_fields(name))
        if failed is None and name not in text_of(answer)["access-control-allow-headers"].lower().split(", "):
            unnamed.append(name)

    assert unnamed == []


NAMES = st.from_regex(r"[a-z0-9!#$%&'+.^_`|~-]{1,8}", fullmatch=True)


@given(
    allowed=st.lists(NAMES.map("x-{}".format), max_size=4),
    asked=st.lists(NAMES.map("x-{}".format), max_size=4),
    picks=st.lists(st.integers(0, 3), max_size=3),
)
def test_a_preflight_passes_exactly_where_all_it_asks_for_is_allowed(
    allowed: list[str], asked: list[str], picks: list[int]
) -> None:
    """Whatever names are allowed and asked for, one that is not allowed refuses all."""
    asked = asked[: len(picks) % 2] + [allowed[pick % len(allowed)] for pick in picks if allowed]
    cors = Cors(origins=[APP], headers=allowed)

    _, failed = cors.preflight(preflight_fields(",".join(asked)))

    assert (failed is None) is (set(asked) <= set(allowed))


@given(st.text(), st.text(), st.lists(st.text(), max_size=3))
def test_a_preflight_never_raises(origin: str, method: str, lines: list[str]) -> None:
    """Whatever its fields hold, the answer is made of what was configured and, for debugging, of printable ASCII."""
    headers, failed = Cors(origins=[APP], debug=True).preflight(preflight_fields(*lines, origin=origin, method=method))

    assert (failed is None) is ("access-control-allow-origin" in text_of(headers))
    assert all(value.isascii() and value.isprintable() for value in text_of(headers).values())
