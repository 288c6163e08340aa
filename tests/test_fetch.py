import datetime as dt
import gzip
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from authz403.fetch import LARGEST_DOCUMENT, Document, FetchFailed, fetch_json, wrong_with_url
from tests.tokens_made import private_pem, rsa_key

Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """A web server on this machine that answers every GET as `answer` says and remembers what was asked."""

    def __init__(self) -> None:
        self.answer: Answer = json_answer(b"{}")
        self.asked: list[tuple[str, dict[str, str]]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                site.answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def json_answer(body: bytes, *, status: int = 200, **headers: str) -> Answer:
    """Return an answer with this body and header fields (`cache_control` is Cache-Control)."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def raw_answer(raw: bytes) -> Answer:
    """Return these bytes for an answer and hang up."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(raw)
        handler.close_connection = True

    return answer


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Give a web server on this machine."""
    monkeypatch.setenv("NO_PROXY", "*")
    site = Site()
    yield site
    site.stop()


def test_a_document_is_fetched_and_parsed(site: Site) -> None:
    """One GET that asks for JSON, and its content."""
    site.answer = json_answer(b'{"keys": []}')
    assert fetch_json(f"{site.url}/jwks?v=1") == Document({"keys": []}, None)
    assert [path for path, _ in site.asked] == ["/jwks?v=1"]
    assert site.asked[0][1]["accept"] == "application/json"
    assert not {"authorization", "cookie"} & site.asked[0][1].keys()


@pytest.mark.parametrize(
    ("value", "max_age"),
    [
        ("max-age=300", 300.0),
        ("public, max-age=86400, must-revalidate", 86_400.0),
        ("public,max-age=5", 5.0),
        ("max-age=0", 0.0),
        ("Max-Age=60", 60.0),
        ("s-maxage=10", None),
        ("x-max-age=10", None),
        ("max-age=-1", None),
        ("max-age=1e9", None),
        ("max-age=99999999999999", None),
        ("max-age=", None),
        ("no-store", None),
        ("", None),
    ],
)
def test_max_age_says_how_long_a_document_may_be_kept(site: Site, value: str, max_age: float | None) -> None:
    """RFC 9111 section 5.2: names are compared without case; what is no number of seconds says nothing."""
    site.answer = json_answer(b"{}", cache_control=value)
    assert fetch_json(site.url).max_age == max_age


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(site: Site, status: int) -> None:
    """Keys come from the place that was configured, and no request is made elsewhere."""
    site.answer = json_answer(b"{}", status=status, location=f"{site.url}/elsewhere")
    with pytest.raises(FetchFailed, match=f"answered {status}$"):
        fetch_json(f"{site.url}/jwks")
    assert [path for path, _ in site.asked] == ["/jwks"]


@pytest.mark.parametrize("status", [201, 203, 206, 400, 401, 403, 404, 429, 500, 503])
def test_what_is_not_a_200_is_no_document(site: Site, status: int) -> None:
    """A key set in an error page is none."""
    site.answer = json_answer(b'{"keys": []}', status=status)
    with pytest.raises(FetchFailed, match=f"answered {status}$"):
        fetch_json(site.url)


def test_an_empty_answer_is_no_document(site: Site) -> None:
    """204 holds nothing."""
    site.answer = json_answer(b"", status=204)
    with pytest.raises(FetchFailed, match="answered 204"):
        fetch_json(site.url)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"{", b'{"keys": ]', b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 5_000 + b"}"],
    ids=lambda body: ascii(body[:8]),
)
def test_what_is_not_json_is_no_document(site: Site, body: bytes) -> None:
    """A login page, half a document, nesting without end: each is said to be no JSON."""
    site.answer = json_answer(body)
    with pytest.raises(FetchFailed, match="did not answer with JSON"):
        fetch_json(site.url)


@pytest.mark.parametrize("over", [0, 1], ids=["the most", "one more"])
def test_the_size_of_a_document_is_limited(site: Site, over: int) -> None:
    """A document may be 512 KiB large and not one byte more."""
    site.answer = json_answer(b'"' + b"x" * (LARGEST_DOCUMENT - 2 + over) + b'"')
    if over:
        with pytest.raises(FetchFailed, match=f"more than {LARGEST_DOCUMENT} bytes"):
            fetch_json(site.url)
    else:
        assert isinstance(fetch_json(site.url).content, str)


def test_a_document_without_end_is_left(site: Site) -> None:
    """Without a Content-Length, reading stops at the limit."""
    sent: list[int] = []
    left = threading.Event()

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n[")
        try:
            for _ in range(2_000):
                handler.wfile.write(b"1," * 32_768)
                sent.append(65_536)
        except OSError:
            left.set()

    site.answer = endless
    with pytest.raises(FetchFailed, match="more than"):
        fetch_json(site.url)
    assert left.wait(5)
    assert sum(sent) < 2_000 * 65_536


def test_the_limit_is_on_what_a_compressed_answer_unpacks_to(site: Site) -> None:
    """A small answer that unpacks to a large one is refused."""
    packed = gzip.compress(b'"' + b"x" * 20 * LARGEST_DOCUMENT + b'"')
    assert len(packed) < LARGEST_DOCUMENT
    site.answer = json_answer(packed, content_encoding="gzip")
    with pytest.raises(FetchFailed, match="more than"):
        fetch_json(site.url)


def test_a_fetch_ends_in_time_even_where_bytes_trickle(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is on the whole fetch, not on each read."""
    times = iter([100.0, 105.0, 111.0])
    monkeypatch.setattr("authz403.fetch.time", SimpleNamespace(monotonic=lambda: next(times, 111.0)))
    unread = threading.Event()

    def trickling(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 400000\r\n\r\n")
        for _ in range(4):
            handler.wfile.write(b" " * 100_000)
        unread.wait(5)

    site.answer = trickling
    with pytest.raises(FetchFailed, match=r"took longer than 10 s"):
        fetch_json(site.url)
    unread.set()


def test_a_fetch_ends_in_time_even_where_headers_trickle(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is never silent for long and never begins its answer does not hold the fetch."""
    monkeypatch.setattr("authz403.fetch.TIMEOUT", 0.2)
    over = threading.Event()
    sent: list[int] = []

    def trickling(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
        for number in range(150):
            if over.wait(0.02):
                return
            handler.wfile.write(b"X-More: x\r\n")
            sent.append(number)

    site.answer = trickling
    with pytest.raises(FetchFailed):
        fetch_json(site.url)
    over.set()
    assert len(sent) < 100


def test_a_silent_server_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and says nothing does not hold the fetch."""
    monkeypatch.setattr("authz403.fetch.TIMEOUT", 0.1)
    over = threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        over.wait(5)

    site.answer = silent
    with pytest.raises(FetchFailed, match="cannot be reached: ReadTimeout"):
        fetch_json(site.url)
    over.set()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0\0\0",
        b"HTTP/x 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"SSH-2.0-x\r\n",
    ],
    ids=["nothing", "NUL", "another version", "cut", "another protocol"],
)
def test_a_server_that_speaks_badly_is_a_failure(site: Site, raw: bytes) -> None:
    """Whatever comes back, the one exception is FetchFailed."""
    site.answer = raw_answer(raw)
    with pytest.raises(FetchFailed, match="cannot be reached"):
        fetch_json(site.url)


def test_an_encoding_that_lies_is_a_failure(site: Site) -> None:
    """An answer that cannot be unpacked is one more failure."""
    site.answer = json_answer(b"{}", content_encoding="gzip")
    with pytest.raises(FetchFailed, match="cannot be reached: DecodingError"):
        fetch_json(site.url)


def test_a_closed_port_is_a_failure(site: Site) -> None:
    """Nobody listens: said in words, at once."""
    url = site.url
    site.server.shutdown()
    site.server.server_close()
    with pytest.raises(FetchFailed, match=r"^http://127\.0\.0\.1:\d+ cannot be reached: ConnectError$"):
        fetch_json(url)


@pytest.mark.parametrize(
    "url", ["http://", "ftp://127.0.0.1/", "http://127.0.0.1:x/", "https://\x00/", "jwks.json", ""], ids=repr
)
def test_what_is_no_url_is_a_failure(url: str) -> None:
    """A URL that slipped through is no other exception."""
    with pytest.raises(FetchFailed):
        fetch_json(url)


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, site: Site) -> None:
    """With https, certificates are verified: a self-signed one gets no request."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    key = rsa_key()
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, start, start + dt.timedelta(days=9))
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = builder.add_extension(alternative, critical=False).sign(key, hashes.SHA256())
    chain = tmp_path / "chain.pem"
    chain.write_bytes(private_pem(key) + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    site.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # the handshake fails, as it should
    site.server.socket = context.wrap_socket(site.server.socket, server_side=True)
    with pytest.raises(FetchFailed, match="cannot be reached: ConnectError"):
        fetch_json(site.url.replace("http:", "https:"))
    assert site.asked == []


# Which URLs keys may come from


@pytest.mark.parametrize(
    "url",
    [
        "https://id.example",
        "https://id.example/",
        "https://id.example:8443/realms/shop?x=1",
        "https://10.0.0.1/jwks",
        "https://[2001:db8::1]/jwks",
        "http://localhost:8080/jwks",
        "http://127.0.0.1/jwks",
        "http://127.9.9.9:1/jwks",
        "http://[::1]:8080/jwks",
        "HTTPS://ID.EXAMPLE/jwks",
    ],
)
def test_https_and_this_machine_are_good(url: str) -> None:
    """Keys come over https, or over http from this machine."""
    assert wrong_with_url(url, allow_http=False) is None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://id.example", "use https"),
        ("http://10.0.0.1/jwks", "use https"),
        ("http://localhost.example/jwks", "use https"),
        ("http://127.0.0.1.example/jwks", "use https"),
        ("http://2130706433/jwks", "use https"),
        ("http://127.1/jwks", "use https"),
        ("http://[::ffff:10.0.0.1]/", "use https"),
        ("http://0.0.0.0/", "use https"),
        ("http://127.0.0.1@id.example/", "user name"),
        ("https://user:pass@id.example/", "user name"),
        ("https://@id.example/", "user name"),
        ("https://id.example/#keys", "fragment"),
        ("ftp://id.example/", "a URL such as"),
        ("file:///etc/passwd", "a URL such as"),
        ("id.example", "a URL such as"),
        ("//id.example/jwks", "a URL such as"),
        ("https://", "a URL such as"),
        ("https:///jwks", "a URL such as"),
        ("", "a URL such as"),
        ("https://id.example:99999/", "not a URL"),
        ("https://id.example:x/", "not a URL"),
        ("https://[::1/", "not a URL"),
        (None, "a URL is needed"),
        (5, "a URL is needed"),
        (b"https://id.example", "a URL is needed"),
    ],
    ids=str,
)
def test_other_urls_are_not(url: object, why: str) -> None:
    """Everything else is refused in words, before a request is made."""
    wrong = wrong_with_url(url, allow_http=False)
    assert wrong is not None
    assert why in wrong


def test_http_to_elsewhere_needs_a_dangerous_word() -> None:
    """`dangerously_allow_http` allows http, and nothing else."""
    assert wrong_with_url("http://id.example/jwks", allow_http=True) is None
    assert wrong_with_url("ftp://id.example/jwks", allow_http=True) is not None
    assert wrong_with_url("http://user@id.example/jwks", allow_http=True) is not None
