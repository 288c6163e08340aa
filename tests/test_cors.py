"""Cors: exact origins, preflights that are answered in full, and configurations that would be unsafe or useless."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403.cors import ALWAYS_EXPOSED, DEFAULT_HEADERS, DEFAULT_METHODS, Cors, Headers, is_preflight
from authz403.errors import ConfigurationError

APP = "https://app.example"

Fields = Mapping[str, tuple[str, ...]]


def preflight_fields(*requested: str, origin: str = APP, method: str = "GET") -> Fields:
    """Return the header fields of a preflight; each of `requested` is a line of Access-Control-Request-Headers."""
    asked = {"access-control-request-headers": requested} if requested else {}
    return {"origin": (origin,), "access-control-request-method": (method,), **asked}


def text_of(headers: Headers) -> dict[str, str]:
    """Return headers as text, and see that none is repeated."""
    found = {name.decode("ascii"): value.decode("ascii") for name, value in headers}
    assert len(found) == len(headers), "a header is repeated"
    return found


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
        ("https://*.app.example", "patterns are not supported"),
        ("https://app.example:*", "patterns are not supported"),
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
    )

    fields = ["origins[0]", "origins[1]", "methods[0]", "headers[0]", "expose[0]", "credentials", "max_age"]
    assert [field for field, _ in told] == fields


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
        "vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
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
    assert text_of(headers) == {"vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}


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
    """Whatever its fields hold, the answer is made of what was configured and nothing of what was sent."""
    headers, failed = Cors(origins=[APP]).preflight(preflight_fields(*lines, origin=origin, method=method))

    assert (failed is None) is ("access-control-allow-origin" in text_of(headers))


# ---- public vectors


def rows_of(path: Path, function: str | None, kind: str | None = None) -> list[Any]:
    """Return the rows of one Go test table."""
    tables = json.loads(path.read_text(encoding="utf-8"))
    (table,) = [table for table in tables if table.get("func") == function and kind in {None, table["type"]}]
    assert len(table["cases"]) == table["n"]
    rows: list[Any] = table["cases"]
    return rows


def go_text(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Turn the few Go expressions of the tables into what they are."""
    if isinstance(value, list):
        return [go_text(item) for item in value]
    if not isinstance(value, dict):
        return value
    text = str(value.get("go"))
    if text.startswith("http.Method"):
        return text.removeprefix("http.Method").upper()
    return {"wildcard": "*", "-1": -1, "-2": -2}.get(text, text)


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return our options for a jub0bs/cors configuration."""
    names = {
        "Origins": "origins",
        "Methods": "methods",
        "RequestHeaders": "headers",
        "ResponseHeaders": "expose",
        "Credentialed": "credentials",
        "MaxAgeInSeconds": "max_age",
    }
    # Safelisted methods need not be named there.
    found = {"methods": ["GET", "HEAD", "POST"], "headers": [], "origins": []}
    found |= {names[name]: go_text(value) for name, value in config.items() if not name.startswith("Dangerously")}
    if "Methods" in config:
        found["methods"] = sorted({"GET", "HEAD", "POST", *found["methods"]})
    return found


def made(options: dict[str, Any]) -> Cors | None:
    """Return the Cors, or none where it is refused."""
    try:
        return Cors(**options)
    except ConfigurationError:
        return None


def test_the_configurations_that_others_refuse_are_refused(corpora: Path) -> None:
    """Every configuration that jub0bs/cors refuses, with those that we see otherwise and why."""
    rows = rows_of(corpora / "cors" / "jub0bs-config_test.json", None, "[]InvalidConfigTestCase")

    assert len(rows) == 23
    assert [row["desc"] for row in rows if made(options_of(row["cfg"] or {})) is not None] == []


def test_the_configurations_that_others_take_are_taken(corpora: Path) -> None:
    """Every configuration that jub0bs/cors takes, with those that we refuse and why."""
    rows = rows_of(corpora / "cors" / "jub0bs-config_test.json", "TestConfig")
    refused = [row["desc"] for row in rows if row["cfg"] is not None and made(options_of(row["cfg"])) is None]

    assert refused == [
        "anonymous allow all",  # methods and headers are named
        "anonymous allow all but not Authorization request header",  # as above
        "discrete methods discrete headers zero max age",  # -1 is their 0
        "credentialed all req headers",  # headers are named, and no patterns of origins
        "discrete origin patterns in addition to wildcard",  # `*` stands alone
        "discrete methods in addition to wildcard",  # methods are named
        "browser-normalized methods",  # a lower-case method is most often a mistake
        "discrete request-header names in addition to wildcard (anonymous)",  # headers are named
        "discrete request-header names in addition to wildcard (credentialed)",  # as above
        "discrete response-header names in addition to wildcard",  # as above
        "wildcard pattern encompassing subdomains of a public suffix",  # no patterns of origins
    ]


# A host or scheme that no browser sends is a typing mistake without a risk: it matches no Origin.
MATCHES_NOTHING = {
    "file scheme with domain",
    "single-digit host",
    "invalid TLD",
    "longer invalid TLD",
    "malformed ipv4 with one too many octets",
    "loopback IPv4 in non-standard form",
    "too many colons in IPv6",
    "uncompressed IPv6",
    "IPv4-mapped IPv6",
    "empty label",
    "host contains invalid Punycode label",
}
# Valid elsewhere and refused here.
NOT_SUPPORTED = {
    "wildcard character sequence followed by 251 chars",  # no patterns of origins
    "trailing full stop in host",  # a name that hardly anybody serves under
    "arbitrary subdomains",  # no patterns of origins
    "arbitrary subdomains and arbitrary ports",  # no patterns of origins
}


def test_the_origins_that_others_refuse_are_refused(corpora: Path) -> None:
    """Every origin pattern of jub0bs/cors is taken or refused as there, but for those named here."""
    rows = rows_of(corpora / "cors" / "jub0bs-internal_origins_pattern_test.json", None)
    texts = {row["desc"]: row for row in rows if isinstance(row["input"], str)}
    assert len(texts) == len(rows) - 2  # two lengths that are Go expressions

    differs = {
        desc
        for desc, row in texts.items()
        if (made({"origins": [row["input"]]}) is None) is not row.get("failure", False)
    }
    assert differs == MATCHES_NOTHING | NOT_SUPPORTED


def test_the_origins_of_the_tree_vectors_match_as_there(corpora: Path) -> None:
    """Sets of origins without patterns let exactly those pass that jub0bs/cors lets pass."""
    rows = rows_of(corpora / "cors" / "jub0bs-internal_origins_radix_test.json", "TestTree")
    tried = []
    for row in rows:
        cors = made({"origins": row.get("patterns", [])})
        if cors is not None:
            tried.append(row["desc"])
            assert [origin for origin in row["accepts"] if not cors.allows(origin)] == []
            assert [origin for origin in row["rejects"] if cors.allows(origin)] == []

    assert set(tried) == {row["desc"] for row in rows if "*" not in "".join(row.get("patterns", "*"))}
    assert len(tried) == 6


def test_the_names_that_others_refuse_are_refused(corpora: Path) -> None:
    """Methods and headers that no script may send or ask for are refused by name."""
    methods = rows_of(corpora / "cors" / "jub0bs-internal_methods_methods_test.json", "TestIsForbidden")
    path = corpora / "cors" / "jub0bs-internal_headers_req_test.json"
    headers = [row for name in ("Forbidden", "Prohibited") for row in rows_of(path, f"TestIs{name}RequestHeaderName")]

    assert [
        row["name"] for row in methods if (made({"origins": [APP], "methods": [row["name"]]}) is None) != row["want"]
    ] == []
    assert [
        row["name"] for row in headers if (made({"origins": [APP], "headers": [row["name"]]}) is None) != row["want"]
    ] == []


def test_the_header_lists_of_others_are_read_as_there(corpora: Path) -> None:
    """Access-Control-Request-Headers of jub0bs/cors, with the lists that we see otherwise and why."""
    differs = set()
    for row in rows_of(corpora / "cors" / "jub0bs-internal_headers_acrh_test.json", "TestCheck"):
        cors = Cors(origins=[APP], headers=row.get("elems", []))
        for outcome in ("accepted", "rejected"):
            for lines in row[outcome]:
                # Go expressions try only its limit on empty elements; the limit here is the server's, on all headers.
                if isinstance(lines, dict) or any(isinstance(line, dict) for line in lines):
                    continue
                _, failed = cors.preflight(preflight_fields(*lines))
                if (failed is None) is not (outcome == "accepted"):
                    differs.add(tuple(lines))

    assert differs == {
        # Any white space around a name is taken (RFC 9110 section 5.6.1), not one or two characters alone.
        *(("x-foo   ",), (" x-foo  ",), ("  x-foo ",), (" x-foo\t\t",), ("\tx-foo\t\t",), ("\t\tx-foo\t\t",)),
        *((" x-bar  ",), ("  x-baz ",), ("   x-foo",), (" x-bar\t\t,x-baz",), ("x-bar,\tx-foo\t\t",)),
        *(("\t\tx-baz, x-foo\t\t",), (" x-bar\t,\tx-baz\t ,x-foo",), ("user-agent   ",), (" user-agent  ",)),
        *(("  user-agent ",), (" user-agent\t\t",), ("\tuser-agent\t\t",), ("\t\tuser-agent\t\t",)),
        # Browsers send names sorted and once; other clients may do otherwise without any risk.
        *(("x-bar,x-baz,x-baz",), ("x-foo", "x-bar"), ("user-agent,accept",)),
    }


def requests_of(path: Path) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield name, configuration and case of the requests of jub0bs/cors that we can configure."""
    for group in rows_of(path, "TestMiddleware", "[]MiddlewareTestCase"):
        for case in group["cases"]:
            yield f"{group['desc']}: {case['desc']}", group["cfg"], case


def test_the_requests_of_others_are_answered_as_there(corpora: Path) -> None:
    """Requests and preflights of jub0bs/cors pass or fail as there, but for those named here."""
    names = {"headerOrigin": "origin", "headerACRM": "access-control-request-method"}
    names |= {"headerACRH": "access-control-request-headers"}
    tried, differs = 0, []
    for name, config, case in requests_of(corpora / "cors" / "jub0bs-middleware_test.json"):
        cors = None if config is None else made(options_of(config))
        sent = case.get("reqHeaders", {})
        if cors is None or any(isinstance(lines, dict) for lines in sent.values()):
            continue
        tried += 1
        fields = {names[header]: tuple(lines) for header, lines in sent.items()}
        outcome = case.get("wantOutcome", {}).get("go", "")
        assert is_preflight(case["reqMethod"], fields) is bool(outcome), name
        if outcome:
            passed = cors.preflight(fields)[1] is None
            theirs = outcome == "isPreflightAndSucceeds"
        else:
            passed = "access-control-allow-origin" in text_of(cors.answer_headers(fields.get("origin")))
            theirs = "headerACAO" in case.get("wantRespHeaders", {})
        if passed is not theirs:
            differs.append(name)

    assert tried == 68
    assert differs == [
        # Empty elements are harmless; how long a header may be is the server's matter.
        "credentialed: preflight with PURGE and Authorization with too many empty elements from allowed",
        # Named there is nothing that a browser would send a preflight for; here GET is named.
        "outer Vary middleware: fake preflight with CORS-safelisted method from allowed",
    ]


# Rows of rs/cors that ask for what we refuse to configure, each with why.
REFUSED_THERE_TAKEN = {
    "NoConfig": "origins are named",
    "MatchAllOriginWithCredentials": "* with credentials would let any site act as the user",
    "WildcardOrigin": "no patterns of origins",
    "DisallowedWildcardOrigin": "no patterns of origins",
    "AllowedOriginFuncMatch": "no functions of origins",
    "AllowOriginRequestFuncMatch": "no functions of origins",
    "AllowOriginVaryRequestFuncMatch": "no functions of origins",
    "AllowOriginRequestFuncNotMatch": "no functions of origins",
    "AllowedOriginsPlusAllowOriginFunc": "no functions of origins",
    "MaxAgeNegative": "0 is written 0",
    "AllowedWildcardHeader": "headers are named",
    "OptionPassthrough": "a preflight never reaches a handler",
}
# Rows that we answer otherwise, each with why.
ANSWERED_OTHERWISE = {
    "DefaultAllowedHeaders": "headers are named; X-Requested-With is none of the defaults",
}


def test_the_requests_of_rs_cors_are_answered_as_there(corpora: Path) -> None:
    """Who may read an answer of rs/cors, and which preflights pass, but for the rows named above."""
    names = {"AllowedOrigins": "origins", "AllowedMethods": "methods", "AllowedHeaders": "headers"}
    names |= {"ExposedHeaders": "expose", "MaxAge": "max_age", "AllowCredentials": "credentials"}
    refused, differs = set(), set()
    for name, config, method, sent, wanted, _ in rows_of(corpora / "cors" / "rs-cors_test.json", "TestSpec"):
        settings = dict(config or {})
        functions = any("Func" in option or option == "OptionsPassthrough" for option in settings)
        private = settings.pop("AllowPrivateNetwork", None)  # no browser asks for it any more
        cors = (
            None
            if functions
            else made({names[option]: go_text(value) for option, value in settings.items()} or {"origins": []})
        )
        if cors is None:
            refused.add(name)
            continue
        fields = {header.lower(): tuple(lines) for header, lines in dict(sent or {}).items()}
        headers = (
            cors.preflight(fields)[0] if is_preflight(method, fields) else cors.answer_headers(fields.get("origin"))
        )
        ours = text_of(headers)
        same = ours.get("access-control-allow-origin") == wanted.get("Access-Control-Allow-Origin", [None])[0]
        if not private:
            same = same and ours["vary"] == wanted["Vary"][0]
        if not same:
            differs.add(name)

    assert refused == set(REFUSED_THERE_TAKEN)
    assert differs == set(ANSWERED_OTHERWISE)
