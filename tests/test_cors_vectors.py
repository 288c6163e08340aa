"""The public tables of jub0bs/cors, jub0bs/fcors and rs/cors: configurations, requests, and where we differ and why."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from authz403.cors import Cors, is_preflight
from authz403.errors import ConfigurationError
from tests.cors_made import APP, preflight_fields, rows_of, text_of


def go_text(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Turn the few Go expressions of the tables into what they are."""
    if isinstance(value, list):
        return [go_text(item) for item in value]
    if not isinstance(value, dict):
        return value
    text = str(value.get("go"))
    if text.startswith("http.Method"):
        return text.removeprefix("http.Method").upper()
    return {"wildcard": "*", "headerValueTrue": "true", "-1": -1, "-2": -2}.get(text, text)


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
    found: dict[str, Any] = {"methods": ["GET", "HEAD", "POST"], "headers": [], "origins": []}
    found |= {names[name]: go_text(value) for name, value in config.items() if name in names}
    if config.get("DangerouslyTolerateInsecureOrigins"):
        found["dangerously_allow_insecure"] = True
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
        "credentialed all req headers",  # headers are named
        "discrete origin patterns in addition to wildcard",  # `*` stands alone
        "discrete methods in addition to wildcard",  # methods are named
        "browser-normalized methods",  # a lower-case method is most often a mistake
        "discrete request-header names in addition to wildcard (anonymous)",  # headers are named
        "discrete request-header names in addition to wildcard (credentialed)",  # as above
        "discrete response-header names in addition to wildcard",  # as above
        "wildcard pattern encompassing subdomains of a public suffix",  # there is no switch for that
    ]


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


NAMES = {
    "headerOrigin": "origin",
    "headerACRM": "access-control-request-method",
    "headerACRH": "access-control-request-headers",
    "headerACRPN": "access-control-request-private-network",
}


def fields_of(case: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]] | None:
    """Return the header fields of a request, or none where they are Go expressions of a length."""
    sent = case.get("reqHeaders", {})
    if any(isinstance(lines, dict) for lines in sent.values()):
        return None
    return {NAMES[header]: tuple(str(go_text(line)) for line in lines) for header, lines in sent.items()}


def requests_of(path: Path) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield name, configuration and case of the requests of jub0bs/cors."""
    for function in ("TestMiddleware", "TestReconfigure"):
        for group in rows_of(path, function, "[]MiddlewareTestCase"):
            for case in group.get("cases", ()):
                yield f"{group['desc']}: {case['desc']}", group["cfg"], case


def test_the_requests_of_others_are_answered_as_there(corpora: Path) -> None:
    """Requests and preflights of jub0bs/cors pass or fail as there, but for those named here."""
    tried, refused, lengths, differs = 0, set(), [], []
    for name, config, case in requests_of(corpora / "cors" / "jub0bs-middleware_test.json"):
        cors = None if config is None else made(options_of(config))
        fields = fields_of(case)
        if cors is None:
            refused.add(name.partition(": ")[0])
            continue
        if fields is None:
            lengths.append(name)
            continue
        tried += 1
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

    assert refused == {
        "passthrough",  # without cors= nothing of this is there
        "credentialed all req headers",  # headers are named
        "all req headers other than Authorization",  # headers and methods are named
        "debug allow all",  # as above
        "credentialed all req headers again",  # as above
    }
    assert tried == 85
    assert lengths == [
        "credentialed: preflight with PURGE and Authorization with some empty ACRH header lines from allowed",
        "credentialed: preflight with PURGE and Authorization with too many empty ACRH header lines from allowed",
    ]  # Go expressions that try only its limit on empty lines; the limit here is the server's
    assert differs == [
        # Empty elements are harmless; how long a header may be is the server's matter.
        "credentialed: preflight with PURGE and Authorization with too many empty elements from allowed",
        # Named there is nothing that a browser would send a preflight for; here GET is named.
        "outer Vary middleware: fake preflight with CORS-safelisted method from allowed",
    ]


# What a test of jub0bs/fcors configures, where its table does not say it.
FCORS: Mapping[str, Mapping[str, Any]] = {
    "Test_AllowAccess_From_Multiple_Origins_And_Expose_Header": {"origins": ["https://*.example.com"]},
    "Test_AllowAccess_From_Multiple_Origins_And_Expose_Header_With_PrivateNetworkAccess": {
        "origins": ["https://*.example.com"],
        "private_network": True,
    },
    "Test_AllowAccess_From_Multiple_Origins_With_Vary_Middleware_Stacked_On_Top": {
        "origins": ["https://*.example.com"],
    },
    "Test_No_Regression_Of_GHSA_v84h_653v_4pq9": {"origins": ["https://foo.com", "https://bar.com"]},
    "Test_AllowAccessWithCredentials_From_Multiple_Origins": {
        "origins": ["https://*.example.com"],
        "credentials": True,
    },
}
FCORS_NOT_TRIED = {
    # A private network that is open to requests that no script reads alone: no browser asks for it any more.
    "Test_AllowAccess_From_Multiple_Origins_And_Expose_Header_With_PrivateNetworkAccessInNoCORSModeOnly",
    "Test_AllowAccess_From_Subdomains_Of_Public_Suffix",  # there is no switch for that
}


def test_the_requests_of_fcors_are_answered_as_there(corpora: Path) -> None:
    """Requests and preflights of jub0bs/fcors, with patterns, and with and without the private network."""
    tried, functions = 0, set()
    for file in ("anonymous", "credentialed"):
        path = corpora / "cors" / f"jub0bs-fcors_{file}_multiple_origins_test.json"
        for table in json.loads(path.read_text(encoding="utf-8")):
            functions.add(table["func"])
            if table["func"] in FCORS_NOT_TRIED:
                continue
            cors = Cors(methods=["GET", "HEAD", "POST"], headers=[], **FCORS[table["func"]])
            for case in table["cases"]:
                fields = fields_of(case)
                assert fields is not None
                tried += 1
                wanted = case["expectedRespHeaders"]
                method = str(go_text(case["reqMethod"]))
                if is_preflight(method, fields):
                    answer, failed = cors.preflight(fields)
                    assert (failed or "").startswith("origin ") is not ("headerACAO" in wanted), case["name"]
                    if "Vary_Middleware" not in table["func"]:  # with no max age its table tells no more
                        assert (failed is None) is ("headerACMA" in wanted), case["name"]
                    private = text_of(answer).get("access-control-allow-private-network")
                    assert (private == "true") is ("headerACAPN" in wanted and failed is None), case["name"]
                else:
                    allowed = text_of(cors.answer_headers(fields.get("origin"))).get("access-control-allow-origin")
                    assert [allowed] == wanted.get("headerACAO", [None]), case["name"]

    assert functions == FCORS.keys() | FCORS_NOT_TRIED
    assert tried == 94


STRINGS = re.compile(r'"([^"]*)"')
FCORS_OPTIONS = {
    "fcors.FromOrigins": "origins",
    "fcors.WithMethods": "methods",
    "fcors.WithRequestHeaders": "headers",
    "fcors.ExposeResponseHeaders": "expose",
}
FCORS_TAKEN = {
    "specified origin's scheme is https but its host is an IP address ": "certificates of addresses exist (RFC 8738)",
    "specified origin contains an invalid scheme": "jub0bs/cors takes any scheme, too",
    "specified base origin contains an invalid scheme": "jub0bs/cors takes any scheme, too",
    "safelisted response-header name": "it needs not be exposed, and does no harm",
    "preflight success status outside the 2xx range": "there is no such option",
    "wildcard origin": "that is how any origin is written here",
}


def fcors_options(options: list[Mapping[str, str]]) -> dict[str, Any] | None:
    """Return our options for a policy of jub0bs/fcors; none where an option is given twice or excludes another."""
    found: dict[str, Any] = {"origins": [], "methods": ["GET"], "headers": [], "expose": []}
    names = [option["go"].partition("(")[0] for option in options]
    if len(set(names)) < len(names):
        return None
    for name, option in zip(names, options, strict=True):
        given = [text.encode("latin-1", "ignore").decode("latin-1") for text in STRINGS.findall(option["go"])]
        given += ["CONNECT"] if "http.MethodConnect" in option["go"] else []
        if name in FCORS_OPTIONS:
            found[FCORS_OPTIONS[name]] = given
        elif name == "fcors.MaxAgeInSeconds":
            found["max_age"] = int(option["go"].partition("(")[2].rstrip(")"))
        elif name == "fcors.FromAnyOrigin":
            found["origins"] = ["*"]
        elif name.startswith("risky.PrivateNetworkAccess"):
            found["private_network"] = True
        else:
            assert name.startswith(("fcors.WithAny", "fcors.ExposeAll", "fcors.Preflight", "risky.Dangerously")), name
    return found


def test_the_policies_that_fcors_refuses_are_refused(corpora: Path) -> None:
    """Every policy that jub0bs/fcors refuses, but for those named above and for options given twice or side by side."""
    tried, taken = 0, set()
    tables = json.loads((corpora / "cors" / "jub0bs-fcors_invalid_policies_test.json").read_text(encoding="utf-8"))
    for table in tables:
        for row in table["cases"]:
            options = fcors_options(row["options"])
            told = str(row["errorMsg"])
            if options is None or "incompatible options" in told or "multiple times" in told:
                continue
            tried += 1
            options["credentials"] = table["func"].endswith("WithCredentials")
            if made(options) is not None:
                taken.add(row["desc"])

    assert tried == 120
    assert taken == set(FCORS_TAKEN)


# Rows of rs/cors that ask for what we refuse to configure, each with why.
REFUSED_THERE_TAKEN = {
    "NoConfig": "origins are named",
    "MatchAllOriginWithCredentials": "* with credentials would let any site act as the user",
    "AllowedCredentials": "an insecure page has no credentials",
    "AllowedPrivateNetwork": "an insecure page does not call into a private network",
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
    names |= {"AllowPrivateNetwork": "private_network"}
    refused, differs = set(), set()
    for name, config, method, sent, wanted, _ in rows_of(corpora / "cors" / "rs-cors_test.json", "TestSpec"):
        settings = dict(config or {})
        functions = any("Func" in option or option == "OptionsPassthrough" for option in settings)
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
        # There, an answer varies by that field where the private network is open, here always.
        if not same or ours["vary"].removesuffix(", Access-Control-Request-Private-Network") != wanted["Vary"][0]:
            differs.add(name)

    assert refused == set(REFUSED_THERE_TAKEN)
    assert differs == set(ANSWERED_OTHERWISE)
