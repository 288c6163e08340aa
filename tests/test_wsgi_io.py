import pytest

from authz403.wsgi_io import access_request, is_sent_as_file, path_of, wanted_keys, with_headers
from tests.wsgi_made import environ_of

OWN = ((b"access-control-allow-origin", b"https://app.example"), (b"vary", b"Origin"))


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"PATH_INFO": "/orders/5"}, "/orders/5"),
        ({"PATH_INFO": "/caf\u00c3\u00a9"}, "/café"),
        ({"PATH_INFO": "/\u00e2\u0080\u00a8"}, "/\u2028"),
        ({"PATH_INFO": "/a\n"}, "/a\n"),
        ({"PATH_INFO": "/%61"}, "/%61"),
        ({"PATH_INFO": "//a"}, "//a"),
        ({"PATH_INFO": ""}, "/"),
        ({}, "/"),
        ({"PATH_INFO": "/\u00ff"}, "/\ufffd"),
        ({"PATH_INFO": "/\u00c3"}, "/\ufffd"),
        ({"PATH_INFO": "/\u00ed\u00a0\u0080"}, "/\ufffd\ufffd\ufffd"),
        ({"PATH_INFO": "/caf\u0119"}, "\ufffd"),
        ({"PATH_INFO": "/\udcff"}, "\ufffd"),
        ({"PATH_INFO": "/b", "SCRIPT_NAME": "/a"}, "/b"),
        ({"PATH_INFO": "", "SCRIPT_NAME": "/a"}, "/"),
    ],
    ids=ascii,
)
def test_the_path_is_what_an_app_makes_of_path_info(environ: dict[str, str], path: str) -> None:
    """PEP 3333: bytes decoded by latin-1, which apps take for UTF-8; what cannot be is a character no path may hold."""
    assert path_of(environ) == path


def test_a_missing_path_is_judged_as_the_root() -> None:
    """An app that is mounted by a script name gets an empty path where its own root is asked for."""
    assert access_request(environ_of(more={"PATH_INFO": None, "SCRIPT_NAME": "/shop"}), {}).path == "/"


@pytest.mark.parametrize("method", ["GET", "get", "PURGE", "OPTIONS"])
def test_a_method_is_as_it_was_received(method: str) -> None:
    """Servers and apps may know methods that nobody else knows."""
    assert access_request(environ_of(method=method), {}).method == method


def test_no_client_can_invent_a_websocket() -> None:
    """Rules for handshakes judge no request of a method that only looks like one."""
    assert access_request(environ_of(method="WEBSOCKET"), {}).method == "HTTP WEBSOCKET"


@pytest.mark.parametrize(
    ("keys", "peer"),
    [
        ({"REMOTE_ADDR": "10.0.0.1"}, "10.0.0.1"),
        ({"REMOTE_ADDR": "10.0.0.1", "REMOTE_PORT": "80", "gunicorn.socket": ...}, "10.0.0.1"),
        ({"REMOTE_ADDR": ""}, ""),
        ({"REMOTE_ADDR": "localhost", "REMOTE_PORT": "None"}, "localhost"),
        ({"REMOTE_ADDR": None}, None),
        ({"REMOTE_ADDR": "10.0.0.1", "gunicorn.socket": ...}, "unix"),
        ({"REMOTE_ADDR": "", "gunicorn.socket": ...}, "unix"),
        ({"REMOTE_ADDR": "10.0.0.1", "SERVER_NAME": "/run/app.sock", "SERVER_PORT": "0"}, "unix"),
    ],
    ids=str,
)
def test_the_peer_of_a_unix_socket_has_no_address(keys: dict[str, object], peer: str | None) -> None:
    """Whoever binds its own end to a path such as 10.0.0.1 would have that for its address at gunicorn and granian."""
    assert access_request(environ_of(more=keys), {}).peer == peer


@pytest.mark.parametrize(
    "keys",
    [
        {"REMOTE_ADDR": "203.0.113.9", "SERVER_PORT": "0", "werkzeug.proxy_fix.orig": {"SERVER_PORT": "80"}},
        {"REMOTE_ADDR": "203.0.113.9", "SERVER_PORT": "0", "REMOTE_PORT": "5000"},
    ],
    ids=["by ProxyFix", "by the server"],
)
def test_a_host_with_port_0_makes_no_unix_socket(keys: dict[str, object]) -> None:
    """ProxyFix takes the port from X-Forwarded-Host, and some servers take it from Host: a client writes both."""
    assert access_request(environ_of(more=keys), {}).peer == "203.0.113.9"


def test_header_fields_are_found_by_their_keys() -> None:
    """Only what is wanted is read, by the name that the gate knows; two keys have no prefix (PEP 3333)."""
    wanted = wanted_keys({"x-forwarded-for", "content-type", "content-length", "authorization"})
    environ = environ_of(
        headers=[("X-Forwarded-For", "192.0.2.1"), ("Authorization", "Bearer x"), ("Cookie", "a=b")],
        more={"CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "5", "HTTP_CONTENT_TYPE": "a lie"},
    )
    assert access_request(environ, wanted).fields == {
        "authorization": ("Bearer x",),
        "content-length": ("5",),
        "content-type": ("text/plain",),
        "x-forwarded-for": ("192.0.2.1",),
    }


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("https://a.example", ("https://a.example",)),
        ("https://a.example,https://b.example", ("https://a.example", "https://b.example")),
        ("https://a.example, https://b.example", ("https://a.example", "https://b.example")),
        ("", ("",)),
    ],
    ids=repr,
)
def test_origins_that_a_server_joined_are_several(value: str, found: tuple[str, ...]) -> None:
    """Neither an Origin nor a method holds a comma, so that one stands between two lines."""
    wanted = wanted_keys({"origin", "access-control-request-method", "authorization"})
    fields = access_request(environ_of(more={"HTTP_ORIGIN": value, "HTTP_AUTHORIZATION": "a, b"}), wanted).fields
    assert fields["origin"] == found
    assert fields["authorization"] == ("a, b",)


@pytest.mark.parametrize("key", ["HTTP_AUTHORIZATION_", "AUTHORIZATION", "HTTP_HTTP_AUTHORIZATION", "REMOTE_USER"])
def test_keys_that_look_like_a_field_are_none(key: str) -> None:
    """No identity comes from another key than that of the Authorization header."""
    assert access_request(environ_of(more={key: "Bearer x"}), wanted_keys({"authorization"})).fields == {}


@pytest.mark.parametrize(
    ("keys", "is_rewritten"),
    [
        ({}, False),
        ({"HTTP_X_FORWARDED_FOR": "192.0.2.1"}, False),
        ({"werkzeug.proxy_fix.orig": {}}, False),
        ({"werkzeug.proxy_fix.orig": {}, "HTTP_X_FORWARDED_FOR": "192.0.2.1"}, True),
    ],
    ids=str,
)
def test_a_peer_that_proxy_fix_put_there_is_noticed(keys: dict[str, object], *, is_rewritten: bool) -> None:
    """With ProxyFix outside of the gate, the proxy is not seen any more."""
    assert access_request(environ_of(more=keys), wanted_keys({"x-forwarded-for"})).peer_rewritten is is_rewritten


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ([], ["access-control-allow-origin: https://app.example", "vary: Origin"]),
        (
            [("Vary", "Accept"), ("X-A", "1"), ("Access-Control-Allow-Origin", "*")],
            ["Vary: Accept", "X-A: 1", "access-control-allow-origin: https://app.example", "vary: Origin"],
        ),
        ([("VARY", "Accept, ORIGIN")], ["VARY: Accept, ORIGIN", "access-control-allow-origin: https://app.example"]),
        (
            [("Vary", "X-Origin-Region")],
            ["Vary: X-Origin-Region", "access-control-allow-origin: https://app.example", "vary: Origin"],
        ),
    ],
    ids=str,
)
def test_the_gates_cors_headers_take_the_place_of_the_apps(given: list[tuple[str, str]], sent: list[str]) -> None:
    """Each is there once, and answers vary by `Origin` besides what else they vary by."""
    assert [": ".join(line) for line in with_headers(given, OWN, keep_out_of_caches=False)] == sent


@pytest.mark.parametrize("given", [[], [("Cache-Control", "max-age=60")]], ids=str)
def test_a_page_is_kept_out_of_caches_unless_the_app_says_what_they_may(given: list[tuple[str, str]]) -> None:
    """Without CORS, the headers of that name are the app's own matter, too."""
    own = ("Access-Control-Allow-Origin", "*")
    expected = [*given, own] if given else [own, ("cache-control", "no-store")]
    assert with_headers([*given, own], (), keep_out_of_caches=True) == expected


def test_only_the_servers_own_wrapper_is_sent_as_a_file() -> None:
    """A wrapper that is no class says nothing about what it made."""

    class Wrapper:
        pass

    assert is_sent_as_file(Wrapper(), {"wsgi.file_wrapper": Wrapper})
    assert not is_sent_as_file([b""], {"wsgi.file_wrapper": Wrapper})
    assert not is_sent_as_file(Wrapper(), {})
    assert not is_sent_as_file([b""], {"wsgi.file_wrapper": list.copy})
