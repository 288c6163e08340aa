"""A real browser: what scripts of other origins may do and read, with FastAPI by ASGI and with Flask by WSGI."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final, NamedTuple

import pytest

from tests.apps_made import bearer
from tests.browser_made import MISSING, Chromium, Page, Pages, is_here
from tests.servers_made import Served

SERVERS: Final = {"fastapi": "uvicorn-h11", "flask": "gunicorn-gthread"}
OURS: Final = "localhost"
FOREIGN: Final = "evil.localhost"

frameworks = pytest.mark.parametrize("framework", SERVERS)


class Stage(NamedTuple):
    """A browser, the pages that it opens, and the services that they call."""

    browser: Chromium
    pages: Pages
    services: dict[str, Served]

    def page(self, host: str = OURS) -> Page:
        """Return an empty page of an origin of its own."""
        return self.browser.open(self.pages.at(host))

    def url(self, service: str, path: str) -> str:
        """Return where a service stands, of another origin than every page."""
        return f"http://localhost:{self.services[service].address[1]}{path}"

    def ran(self, service: str) -> tuple[str, ...]:
        """Return the handlers that ran since this was last asked."""
        return self.services[service].exchange(b"GET /missing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ran


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Return one browser and all services for the tests of this file."""
    if not is_here():
        pytest.skip(MISSING)
    with ExitStack() as stack:
        services = {
            f"{framework}{kind}": stack.enter_context(
                Served(server, f"tests.browser_app:{framework}{kind}", tmp_path_factory.mktemp(framework))
            )
            for framework, server in SERVERS.items()
            for kind in ("_app", "_any")
        }
        pages = stack.enter_context(Pages())
        browser = stack.enter_context(Chromium(tmp_path_factory.mktemp("profile")))
        for service in services.values():
            service.connected().close()  # it has started
        yield Stage(browser, pages, services)


@frameworks
def test_a_call_of_an_allowed_origin_passes_its_preflight(stage: Stage, framework: str) -> None:
    """A script sends its token, and reads the answer with the header that is exposed."""
    url = stage.url(f"{framework}_app", "/orders")
    answer = stage.page().fetch(url, method="POST", headers=bearer(scope="orders:write"))

    assert (answer["status"], answer["body"]) == (200, {"status": "created"})
    assert answer["headers"]["x-total"] == "1"
    assert stage.ran(f"{framework}_app") == ("order",)


@frameworks
def test_an_origin_of_a_pattern_is_allowed(stage: Stage, framework: str) -> None:
    """Names below the pattern's host, and no other."""
    url = stage.url(f"{framework}_app", "/orders")
    answers = [
        stage.page(host).fetch(url, method="POST", headers=bearer(scope="orders:write"))
        for host in ("a.shop.localhost", "b.a.shop.localhost", "shop.localhost", "ashop.localhost")
    ]

    assert [answer.get("status") for answer in answers] == [200, 200, None, None]
    assert stage.ran(f"{framework}_app") == ("order", "order")


@frameworks
def test_a_refusal_can_be_read_by_the_script(stage: Stage, framework: str) -> None:
    """Body, reason, decision and challenge of a 403 and a 401 are there, not a network error."""
    page, url = stage.page(), stage.url(f"{framework}_app", "/orders")
    forbidden = page.fetch(url, method="POST", headers=bearer(scope="orders:read"))
    unknown = page.fetch(url, method="POST", headers={"X-Own": "1"})

    assert forbidden["status"] == 403
    assert forbidden["body"]["reason"] == forbidden["headers"]["authz-reason"] == "insufficient_scope"
    assert forbidden["body"]["missing_scopes"] == ["orders:write"]
    assert forbidden["body"]["decision_id"] == forbidden["headers"]["authz-decision"]
    assert 'error="insufficient_scope", scope="orders:write"' in forbidden["headers"]["www-authenticate"]
    assert (unknown["status"], unknown["body"]["reason"]) == (401, "missing_token")
    assert unknown["headers"]["www-authenticate"].startswith("Bearer ")
    assert stage.ran(f"{framework}_app") == ()


@frameworks
def test_a_foreign_origin_is_refused_by_the_browser(stage: Stage, framework: str) -> None:
    """Its preflight fails, so that nothing runs; and where there is none, its script reads nothing."""
    page, service = stage.page(FOREIGN), f"{framework}_app"
    sent = page.fetch(stage.url(service, "/orders"), method="POST", headers=bearer(scope="orders:write"))

    assert sent == {"error": "TypeError: Failed to fetch"}
    assert "blocked by CORS policy" in page.console()
    assert stage.ran(service) == ()
    assert page.fetch(stage.url(service, "/sign-in")) == {"error": "TypeError: Failed to fetch"}


@frameworks
@pytest.mark.parametrize(
    ("host", "method", "header", "part"),
    [
        (OURS, "POST", "X-Other", "header x-other"),
        (OURS, "PURGE", "X-Own", "method PURGE"),
        (FOREIGN, "POST", "X-Own", "origin http://evil.localhost:"),
    ],
)
def test_developers_see_which_part_of_a_preflight_was_refused(
    stage: Stage, framework: str, host: str, method: str, header: str, part: str
) -> None:
    """With `debug`, the header is among what the browser shows of the preflight; the script gets nothing."""
    page, service = stage.page(host), f"{framework}_app"
    answer = page.fetch(stage.url(service, "/orders"), method=method, headers={header: "1"})
    shown = page.wait_for("Network.responseReceivedExtraInfo", lambda told: told["statusCode"] == 403)

    assert answer == {"error": "TypeError: Failed to fetch"}
    assert {name.lower(): value for name, value in shown["headers"].items()}["authz-preflight"].startswith(part)
    assert stage.ran(service) == ()


@frameworks
def test_cookies_pass_where_both_sides_say_so(stage: Stage, framework: str) -> None:
    """The script asks for them and the service allows it: the cookie is set, sent, and the answer may be read."""
    page, service = stage.page(), f"{framework}_app"
    assert page.fetch(stage.url(service, "/sign-in"), credentials="include")["status"] == 200

    known = page.fetch(stage.url(service, "/me"), credentials="include")
    unknown = page.fetch(stage.url(service, "/me"), credentials="omit")

    assert (known["status"], known["body"]) == (200, {"sub": "ada"})
    assert (unknown["status"], unknown["body"]["reason"]) == (401, "missing_token")
    assert stage.ran(service) == ("me",)


@frameworks
def test_no_cookies_pass_where_any_origin_may_call(stage: Stage, framework: str) -> None:
    """Any page may call and read, and none with the cookies of its visitor."""
    page, service = stage.page(FOREIGN), f"{framework}_any"
    plain = page.fetch(stage.url(service, "/me"))
    with_cookies = page.fetch(stage.url(service, "/me"), credentials="include")

    assert (plain["status"], plain["body"]["reason"]) == (401, "missing_token")
    assert with_cookies == {"error": "TypeError: Failed to fetch"}
    assert "wildcard" in page.wait_for("Log.entryAdded", lambda told: "CORS" in told["entry"]["text"])["entry"]["text"]


@frameworks
def test_a_crash_of_the_app_is_a_500_to_the_script(stage: Stage, framework: str) -> None:
    """Not a network error: the page of the server may be read by allowed origins."""
    answer = stage.page().fetch(stage.url(f"{framework}_app", "/crash"))

    assert answer["status"] == 500
    assert "Internal Server Error" in answer["body"]
    assert stage.page(FOREIGN).fetch(stage.url(f"{framework}_app", "/crash")) == {"error": "TypeError: Failed to fetch"}


SOCKET: Final = """new Promise(done => {
  const socket = new WebSocket(%r);
  socket.onmessage = event => done(event.data);
  socket.onerror = () => done("refused");
})"""


def test_a_websocket_of_a_foreign_origin_is_refused(stage: Stage) -> None:
    """A browser lets any page try; the service lets its own in."""
    url = stage.url("fastapi_app", "/live").replace("http:", "ws:")

    assert stage.page().run(SOCKET % url) == "hello"
    assert stage.page(FOREIGN).run(SOCKET % url) == "refused"
    assert stage.ran("fastapi_app") == ("live",)
