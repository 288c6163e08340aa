"""Tokens that a browser sends as a WebSocket subprotocol, where that is switched on by name."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from authz403 import Gate, authenticated, public, requires
from authz403.credentials import Unusable, subprotocol_token
from tests.apps_made import wrapped
from tests.tokens_made import NOW, bearer, token, tokens

BOTH = ["authorization", "sec-websocket-protocol"]


def service(read_from: object = BOTH, chosen: str | None = None) -> tuple[ASGIApp, list[list[str]]]:
    """Return a guarded app and the list of the subprotocols that it was offered; it accepts with the one `chosen`."""
    offered: list[list[str]] = []

    @requires(authenticated)
    async def live(websocket: WebSocket) -> None:
        offered.append(list(websocket.scope["subprotocols"]))
        await websocket.accept(subprotocol=chosen)
        await websocket.send_text(websocket.user.sub)
        await websocket.close()

    @public
    async def open_to_all(websocket: WebSocket) -> None:
        offered.append(list(websocket.scope["subprotocols"]))
        await websocket.accept(subprotocol=chosen)
        await websocket.close()

    @requires(authenticated)
    async def page(request: Request) -> Response:
        return PlainTextResponse("page")

    app = Starlette(routes=[WebSocketRoute("/live", live), WebSocketRoute("/open", open_to_all), Route("/page", page)])
    options: dict[str, Any] = {} if read_from is None else {"read_from": read_from}
    return wrapped(app, Gate(tokens=tokens(**options), clock=lambda: NOW)), offered


def refused(app: ASGIApp, subprotocols: list[str]) -> tuple[int, str]:
    """Open a WebSocket that is refused, and return status and reason."""
    with pytest.raises(WebSocketDenialResponse) as denied, TestClient(app).websocket_connect("/live", subprotocols):
        pass
    return denied.value.status_code, denied.value.headers["authz-reason"]


@pytest.mark.parametrize("word", ["bearer", "Bearer"])
def test_a_token_among_the_subprotocols_opens_a_websocket(word: str) -> None:
    """The caller is let in, the app is not offered the token, and the browser is answered with one of its offers."""
    app, offered = service()
    with TestClient(app).websocket_connect("/live", ["chat", word, token(), "v2"]) as socket:
        assert socket.accepted_subprotocol == word
        assert socket.receive_text() == "alice"
    assert offered == [["chat", "v2"]]


def test_what_the_app_chooses_stays() -> None:
    """A subprotocol of the app's own is not replaced."""
    app, _ = service(chosen="chat")
    with TestClient(app).websocket_connect("/live", ["bearer", token(), "chat"]) as socket:
        assert socket.accepted_subprotocol == "chat"


def test_the_token_is_hidden_from_open_endpoints_too() -> None:
    """Where nobody asks who is calling, a token is still nothing to choose."""
    app, offered = service()
    with TestClient(app).websocket_connect("/open", ["bearer", token()]) as socket:
        assert socket.accepted_subprotocol == "bearer"
    assert offered == [[]]


@pytest.mark.parametrize(
    ("subprotocols", "reason"),
    [
        ([], (401, "missing_token")),
        (["chat"], (401, "missing_token")),
        (["bearer", "no.good.token"], (401, "invalid_token")),
        (["bearer"], (400, "invalid_request")),
        (["bearer", "a.b.c", "bearer", "a.b.c"], (400, "invalid_request")),
    ],
    ids=str,
)
def test_what_is_no_token_opens_nothing(subprotocols: list[str], reason: tuple[int, str]) -> None:
    """Missing, malformed and bad tokens are told apart as in the Authorization header."""
    assert refused(service()[0], subprotocols) == reason


@pytest.mark.parametrize("read_from", [None, "authorization"], ids=["not said", "authorization"])
def test_without_the_switch_nothing_is_read_or_changed(read_from: object) -> None:
    """A token in the subprotocols is nothing unless that was switched on by name."""
    app, offered = service(read_from)
    assert refused(app, ["bearer", token()]) == (401, "missing_token")
    headers = {"Authorization": bearer(token())}
    with TestClient(app).websocket_connect("/live", ["bearer", "x"], headers=headers) as socket:
        assert socket.accepted_subprotocol is None
    assert offered == [["bearer", "x"]]


def test_an_authorization_header_goes_first() -> None:
    """The order of `read_from` decides, and a bad token in the first is not saved by a good one in the second."""
    app, _ = service()
    headers = {"Authorization": bearer(token(sub="bob"))}
    with TestClient(app).websocket_connect("/live", ["bearer", token()], headers=headers) as socket:
        assert socket.receive_text() == "bob"
    with (
        pytest.raises(WebSocketDenialResponse),
        TestClient(app).websocket_connect("/live", ["bearer", token()], headers={"Authorization": "Bearer bad"}),
    ):
        pass


def test_a_request_that_is_no_websocket_has_no_subprotocols() -> None:
    """The header of that name on an ordinary request names nobody."""
    app, _ = service()
    headers = {"Sec-WebSocket-Protocol": f"bearer, {token()}"}
    assert TestClient(app).get("/page", headers=headers).headers["authz-reason"] == "missing_token"


def test_each_place_remembers_for_itself() -> None:
    """A token that was accepted as a subprotocol is looked at anew in the Authorization header, and the same caller."""
    app, _ = service()
    text = token()
    for _ in range(2):
        with TestClient(app).websocket_connect("/live", ["bearer", text]) as socket:
            assert socket.receive_text() == "alice"
    assert TestClient(app).get("/page", headers={"Authorization": bearer(text)}).status_code == 200


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ((), None),
        (("chat",), None),
        (("bearer, a.b.c",), "a.b.c"),
        (("bearer,a.b.c",), "a.b.c"),
        (("chat , bearer , a.b.c , v2",), "a.b.c"),
        (("chat", "bearer", "a.b.c"), "a.b.c"),
        (("bearer, a b",), "invalid_request"),
        (("bearer, ",), None),
        (("a.b.c, bearer",), "invalid_request"),
    ],
    ids=str,
)
def test_the_header_is_a_list_over_all_its_lines(lines: tuple[str, ...], found: str | None) -> None:
    """RFC 6455 section 11.3.4: several lines are one list, in order."""
    answer = subprotocol_token(lines)
    if isinstance(answer, Unusable):
        assert answer.reason == (found or "missing_token")
    else:
        assert answer == found
