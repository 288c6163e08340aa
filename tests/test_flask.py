"""Flask apps behind a gate: the policy of the view that Flask runs, and Flask's own ways left as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import flask
import pytest
from flask import Blueprint, Flask, g
from flask.sessions import SecureCookieSessionInterface
from flask.views import MethodView, View
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import BaseConverter, MapAdapter
from werkzeug.routing import Rule as UrlRule

import authz403.flask
import authz403.wsgi
from authz403 import (
    AccessDenied,
    ConfigurationError,
    Gate,
    Reason,
    Requirement,
    Rule,
    anyone,
    authenticated,
    check,
    guard,
    optional,
    param,
    public,
    requires,
    scopes,
)
from authz403.principal import Anonymous
from authz403.wsgi import RouteMismatch
from tests.apps_made import ORIGIN, bearer, gate_with, listening
from tests.parity_cases import CORS
from tests.wsgi_made import Answer, ask, environ_of, page

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

View_ = Callable[..., Any]
ADA = bearer(scope="a b")
_DENIED = False


def app_of(*views: tuple[str, View_], gate: Gate | None = None) -> Flask:
    """Return a Flask app with these views by path, behind a gate."""
    app = Flask("shop")
    for number, (path, view) in enumerate(views):
        app.add_url_rule(path, f"view{number}", view)
    authz403.flask.init_app(app, gate=gate or gate_with())
    return app


def saying(text: str = "hello") -> View_:
    """Return a view of its own, as marks stay on what they are put on."""
    return lambda **_: text


def asked(app: WSGIApplication, path: str = "/", method: str = "GET", **more: Any) -> Answer:  # noqa: ANN401 - as environ_of takes them
    """Send one request."""
    # The validator lets no method in lower case pass.
    return ask(app, environ_of(path, method, **more), is_validated=method.isupper())


def noting(name: str, ran: list[str]) -> View_:
    """Return a view that notes that it ran."""

    def view(**_: object) -> str:
        ran.append(name)
        return name

    return view


def whoever() -> str:
    """Return who asks, as a view sees it."""
    return str(g.principal.identity) if not isinstance(g.principal, Anonymous) else "nobody"


def telling() -> View_:
    """Return a view that says who asks."""
    return lambda: whoever()  # noqa: PLW0108 - a function of its own, which can be marked


# ---- marks


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [({}, 401, "missing_token"), (bearer(), 403, "insufficient_scope"), (bearer(scope="a"), 200, None)],
    ids=["nobody", "without the scope", "with it"],
)
def test_a_marked_view_runs_for_whom_its_mark_lets_in(headers: dict[str, str], status: int, reason: str | None) -> None:
    """Flask's own decorators around the mark or beneath it change nothing."""

    def wrapping(view: View_) -> View_:
        @functools.wraps(view)
        def wrapped(**values: object) -> object:
            return view(**values)

        return wrapped

    mark = requires(scopes("a"))
    for view in (mark(lambda: "ran"), wrapping(mark(lambda: "ran")), mark(wrapping(lambda: "ran"))):
        answer = asked(app_of(("/", view)), headers=headers)
        assert (answer.status, answer.header("authz-reason")) == (status, reason)
        assert ("ran" in answer.text) is (status == 200)


def test_a_view_without_a_policy_is_closed() -> None:
    """Deny by default, static files too."""
    app = app_of(("/", saying()), ("/open", public(lambda: "open")))
    assert asked(app, headers=ADA).reason == "no_policy"
    assert asked(app, "/static/x.css", headers=ADA).reason == "no_policy"
    assert asked(app, "/open").text == "open"
    app = app_of(gate=gate_with(rules=[Rule("GET", "/static/**", anyone)]))
    assert asked(app, "/static/x.css").status == 404  # Flask's own: there is no such file


class Items(MethodView):
    """A class-based view with a mark on each method."""

    @requires(scopes("a"))
    def get(self) -> str:
        return "got"

    @requires(scopes("c"))
    def post(self) -> str:
        return "posted"


@requires(scopes("a"))
class Marked(MethodView):
    """A class-based view with a mark on the class."""

    def get(self) -> str:
        return "got"


class Decorated(MethodView):
    """A class-based view with Flask's own way to decorate it."""

    decorators = [requires(scopes("a"))]  # noqa: RUF012 - as Flask has it

    def get(self) -> str:
        return "got"


class Dispatching(View):
    """A view of Flask's older kind."""

    @requires(scopes("a"))
    def dispatch_request(self) -> str:
        return "got"


@pytest.mark.parametrize("kind", [Items, Marked, Decorated, Dispatching], ids=lambda kind: kind.__name__)
def test_class_based_views_are_marked_in_every_way_of_flask(kind: type[View]) -> None:
    """On the class, on its methods, by `decorators`, on `dispatch_request`."""
    app = app_of(("/", kind.as_view("view")))
    assert (asked(app).status, asked(app, headers=bearer()).status) == (401, 403)
    assert asked(app, headers=ADA).text == "got"
    assert (asked(app, method="HEAD").status, asked(app, method="HEAD", headers=ADA).status) == (401, 200)


def test_a_class_is_found_behind_what_wraps_its_view() -> None:
    """Partials carry no attributes; and Flask lets the class behind a view be replaced."""
    view = Marked.as_view("view")
    app = app_of(("/", functools.partial(view)), ("/own", view), gate=gate_with(default=anyone))
    assert (asked(app).status, asked(app, "/own").status) == (401, 401)
    replaced: Any = public(Items.as_view("replaced"))
    app = app_of(("/", replaced))
    assert asked(app, headers=ADA).status == 200
    replaced.view_class = Replacing
    assert asked(app, headers=ADA).reason == "insufficient_scope"


@requires(scopes("z"))
class Replacing(MethodView):
    """A class-based view that takes the place of another."""

    def get(self) -> str:
        return "replaced"


def test_a_mark_that_no_request_meets_is_a_mistake() -> None:
    """On a method that Flask never runs, and a guard on a view."""

    class Helping(MethodView):
        @requires(scopes("a"))
        def look_up(self) -> str:
            return "found"

        @requires(scopes("a"))
        def get(self) -> str:
            return self.look_up()

        @requires(scopes("a"))
        def delete(self) -> str:
            return "the rule leaves it out"

    app = Flask("shop")
    app.add_url_rule("/", view_func=Helping.as_view("helping"), methods=["GET"])
    app.add_url_rule("/guarded", "guarded", guard(saying(), scopes("a")))
    authz403.flask.init_app(app, gate=gate_with())
    with pytest.raises(ConfigurationError) as caught:
        authz403.flask.meet(app)
    told = [(mistake.field, mistake.value) for mistake in caught.value.mistakes]
    assert told == [("requires", "'Helping.look_up'"), ("guard", "'/guarded <lambda>'")]


def test_each_method_of_a_class_has_its_own_mark() -> None:
    """Whatever case the method is written in: Flask takes `post` for POST."""
    app = app_of(("/", Items.as_view("items")))
    for method in ("POST", "post", "Post"):
        assert asked(app, method=method, headers=ADA).reason == "insufficient_scope"
    assert asked(app, method="POST", headers=bearer(scope="c")).text == "posted"
    assert asked(app, method="DELETE", headers=ADA).status == 405
    assert asked(app, method="OPTIONS", headers=ADA).reason == "no_policy"


def test_a_method_in_another_case_stands_under_the_rule_of_that_method() -> None:
    """Flask runs the view of GET for `get`."""
    app = app_of(("/", saying()), gate=gate_with(rules=[Rule("GET", "/", scopes("z")), Rule("*", "/", anyone)]))
    assert asked(app, method="get").status == 401
    assert asked(app, method="get", headers=bearer(scope="z")).text == "hello"


def test_async_views_are_guarded_and_may_check() -> None:
    """Flask runs them in a loop of their own."""

    @requires(authenticated)
    async def view() -> str:
        check(flask.request.args.get("mine") == "1", Reason.NOT_OWNER)
        return whoever()

    app = app_of(("/", view))
    assert asked(app).status == 401
    assert asked(app, headers=ADA).reason == "not_owner"
    assert asked(app, headers=ADA, more={"QUERY_STRING": "mine=1"}).text == "ada"


def test_a_denial_out_of_several_tasks_is_a_denial() -> None:
    """A task group raises it within a group."""

    @public
    async def view() -> str:
        raise ExceptionGroup("tasks", [ExceptionGroup("more", [AccessDenied(Reason.NOT_OWNER)])])

    assert asked(app_of(("/", view))).reason == "not_owner"


# ---- groups


def test_a_guard_on_a_blueprint_holds_for_all_that_is_in_it() -> None:
    """In nested blueprints, under each of its names, and for its static files."""
    inner, outer = Blueprint("inner", __name__), Blueprint("outer", __name__, static_folder="provider")
    inner.add_url_rule("/in", "in", public(saying()))
    outer.add_url_rule("/out", "out", requires(scopes("b"))(lambda: "out"))
    guard(guard(outer, scopes("a")), authenticated)
    outer.register_blueprint(inner, url_prefix="/inner")
    app = Flask("shop")
    app.register_blueprint(outer, url_prefix="/one")
    app.register_blueprint(outer, url_prefix="/two", name="again")
    app.add_url_rule("/", "free", public(lambda: "free"))
    authz403.flask.init_app(app, gate=gate_with())
    for prefix in ("/one", "/two"):
        assert asked(app, f"{prefix}/inner/in").status == 401
        assert asked(app, f"{prefix}/inner/in", headers=bearer(scope="b")).reason == "insufficient_scope"
        assert asked(app, f"{prefix}/inner/in", headers=bearer(scope="a")).text == "hello"
        assert asked(app, f"{prefix}/out", headers=bearer(scope="a")).reason == "insufficient_scope"
        assert asked(app, f"{prefix}/out", headers=ADA).text == "out"
        assert asked(app, f"{prefix}/provider/package.json").status == 401
        assert asked(app, f"{prefix}/missing").status == 404  # a blueprint owns no paths
    assert asked(app, "/").text == "free"


def test_a_guard_on_the_app_holds_for_unknown_paths_too() -> None:
    """Nobody outside learns which paths there are."""
    app = guard(app_of(("/", public(saying()))), authenticated)
    for path in ("/", "/missing", "/static/x"):
        assert asked(app, path).status == 401
    assert asked(app, "/", headers=ADA).text == "hello"
    assert asked(app, "/missing", headers=ADA).status == 404


# ---- who asks


def test_the_caller_is_there_from_the_first_function_to_the_last() -> None:
    """`g.principal` in functions before and after the view, in error handlers and teardown; strangers are anonymous."""
    seen: list[str] = []
    app = Flask("shop")

    def note(*_: object) -> None:
        seen.append(whoever())

    def note_answer(response: flask.Response) -> flask.Response:
        note()
        return response

    app.before_request(note)
    app.after_request(note_answer)
    app.teardown_request(note)
    app.register_error_handler(404, lambda _: (whoever(), 404))
    app.add_url_rule("/", "view", requires(optional)(telling()))
    app.add_url_rule("/open", "open", public(telling()))
    authz403.flask.init_app(app, gate=gate_with())
    assert (asked(app).text, seen) == ("nobody", ["nobody"] * 3)
    seen.clear()
    assert (asked(app, headers=ADA).text, seen) == ("ada", ["ada"] * 3)
    assert asked(app, "/open", headers=ADA).text == "nobody"  # its policy asks nobody
    assert (asked(app, "/missing", headers=ADA).text, asked(app, "/missing").status) == ("nobody", 404)


def test_the_caller_is_there_where_a_session_cannot_be_opened() -> None:
    """Flask opens it before anything of the app runs; its page for crashes may look at the caller all the same."""

    class Broken(SecureCookieSessionInterface):
        def open_session(self, app: Flask, request: flask.Request) -> None:
            raise LookupError("the store is down")

    app = app_of(("/", requires(authenticated)(saying())))
    app.session_interface = Broken()
    app.register_error_handler(500, lambda _: (whoever(), 500))
    answer = asked(app, headers=ADA)
    assert (answer.status, answer.text) == (500, "ada")


def test_the_principal_is_in_the_environ_too() -> None:
    """As for any WSGI app."""
    app = app_of(("/", requires(authenticated)(lambda: flask.request.environ["authz403.principal"].sub)))
    assert asked(app, headers=ADA).text == "ada"


# ---- refusals from inside


def of_owner() -> str:
    """Answer the owner alone."""
    check(_DENIED, Reason.NOT_OWNER, order=5)
    return "yours"


def of_own_code() -> str:
    """Refuse with a code of the app's own."""
    raise AccessDenied("plan_expired", plan="free")


HANDLERS: dict[str, Callable[[Flask], object]] = {
    "none": lambda _: None,
    "every exception": lambda app: app.register_error_handler(Exception, lambda _: ("swallowed", 200)),
    "403": lambda app: app.register_error_handler(403, lambda _: ("swallowed", 200)),
    "AccessDenied": lambda app: app.register_error_handler(AccessDenied, lambda _: ("swallowed", 200)),
    "testing": lambda app: app.config.update(TESTING=True),
    "propagating": lambda app: app.config.update(PROPAGATE_EXCEPTIONS=True),
    "debugging": lambda app: app.config.update(DEBUG=True),
}


@pytest.mark.parametrize("handling", HANDLERS.values(), ids=HANDLERS.keys())
@pytest.mark.parametrize(("view", "reason"), [(of_owner, "not_owner"), (of_own_code, "plan_expired")])
def test_a_denial_in_a_view_is_our_refusal_whatever_handlers_there_are(
    view: View_, reason: str, handling: Callable[[Flask], object]
) -> None:
    """Status, body and event are the gate's, and what the handler said is in the log alone."""
    app = app_of(("/", public(functools.partial(view))), gate=gate_with(cors=CORS))
    handling(app)
    with listening() as events:
        answer = asked(app, headers={"Origin": ORIGIN})
    assert (answer.status, answer.reason, answer.error) == (403, reason, None)
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("access-control-allow-origin") == ORIGIN
    assert [(event["event"], event["reason"]) for event in events] == [("authz.denied", reason)]
    assert events[0]["facts"]


@pytest.mark.parametrize("name", ["handle_user_exception", "handle_exception"])
@pytest.mark.parametrize("where", ["view", "before_request"])
def test_an_extension_that_answers_every_exception_answers_no_denial(name: str, where: str) -> None:
    """Some put themselves before the handlers of an app, as the gate does."""
    app = app_of(("/", public(functools.partial(of_owner) if where == "view" else saying())))
    if where == "before_request":
        app.before_request(of_owner)
    closed: list[str] = []
    answer = flask.Response("swallowed", status=500)
    answer.call_on_close(lambda: closed.append("closed"))
    setattr(app, name, lambda _: answer)
    with listening() as events:
        told = asked(app)
    assert (told.status, told.reason, closed[:1]) == (403, "not_owner", ["closed"])
    assert [event["reason"] for event in events] == ["not_owner"]


@pytest.mark.parametrize("where", ["before_request", "after_request", "url_value_preprocessor"])
def test_a_denial_from_around_a_view_is_our_refusal(where: str) -> None:
    """Functions of the app may refuse as views do."""
    app = app_of(("/", public(saying())))
    app.register_error_handler(Exception, lambda _: ("swallowed", 200))
    getattr(app, where)(lambda *_: of_owner())
    answer = asked(app)
    assert (answer.status, answer.reason) == (403, "not_owner")


def test_a_denial_in_a_stream_is_our_refusal_until_the_stream_has_begun() -> None:
    """Then the server is told, and the log."""

    @public
    def early() -> flask.Response:
        def pieces() -> Iterator[str]:
            yield of_owner()

        return flask.Response(flask.stream_with_context(pieces()))

    @public
    def late() -> flask.Response:
        def pieces() -> Iterator[str]:
            yield whoever()
            of_owner()

        return flask.Response(flask.stream_with_context(pieces()))

    app = app_of(("/early", early), ("/late", late))
    # stream_with_context runs a generator up to its first piece before it is streamed
    assert (asked(app, "/early").status, asked(app, "/early").reason) == (403, "not_owner")
    with listening() as events:
        answer = asked(app, "/late")
    assert (answer.status, answer.text, type(answer.error)) == (200, "nobody", AccessDenied)
    assert [event["event"] for event in events] == ["authz.allowed", "authz.error"]


def test_a_crash_is_the_apps_own_page_and_readable_by_scripts() -> None:
    """Flask answers its own bugs; the gate puts CORS headers on."""

    def view() -> str:
        raise LookupError("a bug")

    app = app_of(("/", public(view)), gate=gate_with(cors=CORS))
    app.register_error_handler(500, lambda _: ("sorry", 500))
    answer = asked(app, headers={"Origin": ORIGIN})
    assert (answer.status, answer.text, answer.header("access-control-allow-origin")) == (500, "sorry", ORIGIN)


# ---- what is concealed


def concealing_app(hidden: View_ | None) -> Flask:
    """Return an app with a page of its own for what is missing, which looks at all it can."""
    app = Flask("shop")
    if hidden is not None:
        app.add_url_rule("/hidden", "hidden", hidden)
        app.add_url_rule("/folder/", "folder", hidden)
    app.add_url_rule("/seen", "seen", public(saying()), methods=["POST"])

    def missing(error: object) -> tuple[str, int]:
        request = flask.request
        told = [request.url_rule, request.endpoint, request.view_args, request.blueprints, whoever(), str(error)]
        return f"missing {told}", 404

    app.register_error_handler(404, missing)
    app.after_request(lambda response: (response.headers.update({"X-After": str(flask.request.endpoint)}), response)[1])
    authz403.flask.init_app(app, gate=gate_with(default=requires_nothing()))
    return app


def requires_nothing() -> Requirement:
    """Return a default that conceals, so that a 404 of either app is kept out of caches."""
    return scopes("never").concealed()


CONCEALED: dict[str, View_] = {
    "by policy": requires(scopes("c").concealed())(lambda: "not reached"),
    "by a check": requires(authenticated.concealed())(functools.partial(of_owner)),
    "by its own denial": requires(authenticated.concealed())(functools.partial(of_own_code)),
}


def assert_same(told: Answer, missing: Answer) -> None:
    """Assert that nobody can tell these two apart."""
    assert (told.status_line, sorted(told.headers), told.body) == (
        missing.status_line,
        sorted(missing.headers),
        missing.body,
    )
    assert told.status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "PUT", "get"])
@pytest.mark.parametrize("path", ["/hidden", "/folder/", "/folder"])
def test_what_is_concealed_is_answered_as_what_is_missing(path: str, method: str) -> None:
    """By 404, 405, redirect and automatic OPTIONS alike: byte for byte what the app says without the view."""
    apps = [concealing_app(CONCEALED["by policy"]), concealing_app(None)]
    told, missing = (asked(app, path, method, headers=bearer(), more={"HTTP_HOST": "shop.example"}) for app in apps)
    assert_same(told, missing)
    assert told.header("cache-control") == "no-store"


@pytest.mark.parametrize("hidden", CONCEALED.values(), ids=CONCEALED.keys())
def test_a_view_that_refuses_in_a_concealed_place_is_missing(hidden: View_) -> None:
    """The page does not know who asks, nor what for; the log does."""
    with listening() as events:
        told = asked(concealing_app(hidden), "/hidden", headers=bearer())
    assert_same(told, asked(concealing_app(None), "/hidden", headers=bearer()))
    assert [(event["event"], event["concealed"], event["sub"]) for event in events] == [("authz.denied", True, "ada")]


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("path", ["/pages/1", "/pages/", "/pages", "/old", "/round", "/around"])
def test_what_werkzeug_redirects_betrays_nothing(path: str, method: str) -> None:
    """Defaults and aliases are redirected by one method, and answered by 405 for the others."""
    answers = []
    for is_there in (True, False):
        app = Flask("shop")
        app.add_url_rule("/round", "round", redirect_to="/around", methods=["PUT"])  # in a circle, for ever
        app.add_url_rule("/around", "around", redirect_to="/round", methods=["PUT"])
        if is_there:
            view = requires(scopes("c").concealed())(saying())
            app.add_url_rule("/pages/", "pages", view, defaults={"page": 1}, methods=["GET"])
            app.add_url_rule("/pages/<int:page>", "pages", methods=["GET"])
            app.add_url_rule("/old", "pages", alias=True, defaults={"page": 1}, methods=["GET"])
        authz403.flask.init_app(app, gate=gate_with(default=requires_nothing(), shared=True))
        answers.append(asked(app, path, method, headers=bearer()))
    if path in {"/round", "/around"}:
        assert answers[0].status == answers[1].status == (308 if method == "OPTIONS" else 405)
    else:
        assert_same(*answers)


def test_what_is_concealed_is_missing_behind_a_middleware_too() -> None:
    """One that rewrites host and scheme within the gate, so that Flask matches anew."""
    answers = []
    for hidden in (CONCEALED["by policy"], None):
        app = concealing_app(hidden)
        guarded: Any = app.wsgi_app
        guarded.app = ProxyFix(guarded.app, x_host=1, x_proto=1)
        more = {"HTTP_X_FORWARDED_HOST": "shop.example", "HTTP_X_FORWARDED_PROTO": "https"}
        answers.append(asked(app, "/hidden", headers=bearer(), more=more))
    assert_same(*answers)


def test_what_is_concealed_is_shown_to_whom_it_is_open() -> None:
    """The page, its 405 and its redirect."""
    app, entitled = concealing_app(CONCEALED["by policy"]), bearer(scope="c")
    assert asked(app, "/hidden", headers=entitled).status == 200
    assert asked(app, "/hidden", "PUT", headers=entitled).status == 405
    assert asked(app, "/folder", headers=entitled).status == 308


# ---- apps, factories and gates


def test_one_gate_serves_several_apps_of_a_process() -> None:
    """Each app has its own routes; a dispatcher before them changes nothing."""
    gate = gate_with(shared=True, rules=[Rule("*", "/x", scopes("a"))])
    one, other = app_of(("/x", lambda: "one"), gate=gate), app_of(("/y", public(lambda: "other")), gate=gate)
    both = DispatcherMiddleware(one, {"/other": other})
    assert (asked(both, "/x").status, asked(both, "/x", headers=ADA).text) == (401, "one")
    assert (asked(both, "/other/y").text, asked(both, "/y").status) == ("other", 404)


def test_a_gate_before_a_dispatcher_has_the_first_word() -> None:
    """One event a request, CORS of the outermost, and both policies."""
    inner = app_of(("/x", requires(scopes("a"))(telling())), gate=gate_with())
    gate = gate_with(cors=CORS, rules=[Rule("*", "/in/**", authenticated)])
    app = authz403.wsgi.AuthzMiddleware(DispatcherMiddleware(page(), {"/in": inner}), gate=gate)
    for headers, status in (({}, 401), (bearer(), 403), (ADA, 200)):
        with listening() as events:
            answer = asked(app, "/in/x", headers={**headers, "Origin": ORIGIN})
        assert (answer.status, answer.header("access-control-allow-origin")) == (status, ORIGIN)
        assert len(events) == 1
        assert events[0].get("status") == status


def test_init_app_takes_a_flask_app_once() -> None:
    """What is wrong is told at once."""
    app = app_of()
    with pytest.raises(ConfigurationError, match="it has a gate already"):
        authz403.flask.init_app(app, gate=gate_with())
    with pytest.raises(ConfigurationError, match="a Flask app is needed"):
        authz403.flask.init_app(page(), gate=gate_with())  # type: ignore[arg-type]  # what is refused
    for gate in (None, 5, Gate):
        with pytest.raises(ConfigurationError, match="a Gate, or a function"):
            authz403.flask.init_app(Flask("bare"), gate=gate)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ConfigurationError, match="it has no gate"):
        authz403.flask.meet(Flask("bare"))


def test_meet_tells_everything_that_does_not_fit_at_start_up() -> None:
    """Rules that nothing can match, parameters that are not there, a second CORS inside: all in one error."""

    class Fake:
        __module__ = "flask_cors.extension"

        def __call__(self, response: flask.Response) -> flask.Response:
            return response

    app = app_of(
        ("/orders/<order>", requires(param("owner", claim="sub"))(saying())),
        gate=gate_with(rules=[Rule("GET", "/nowhere", anyone), Rule("PUT", "/orders/*", anyone)]),
    )
    app.after_request(Fake())
    with pytest.raises(ConfigurationError) as caught:
        authz403.flask.meet(app)
    assert {mistake.field for mistake in caught.value.mistakes} == {"rules[0]", "rules[1]", "param", "CORS"}
    with listening() as events:
        answer = asked(app, "/orders/5", headers=ADA)
    assert (answer.status, answer.reason) == (500, "misconfigured")
    assert "/nowhere" in str(events[0]["hint"])
    assert "/nowhere" not in answer.text


def test_a_view_with_cors_of_its_own_is_a_mistake() -> None:
    """The decorator of Flask-CORS makes a function that looks like the view, and is of that package."""
    made: dict[str, Any] = {"__name__": "flask_cors.decorator", "functools": functools}
    exec("def cross_origin(f):\n  @functools.wraps(f)\n  def wrapped(): return f()\n  return wrapped", made)  # noqa: S102 - a module of that name
    app = app_of(("/", made["cross_origin"](public(saying()))))
    with pytest.raises(ConfigurationError, match="gate cors=Cors"):
        authz403.flask.meet(app)


def test_what_werkzeug_redirects_by_itself_cannot_be_marked() -> None:
    """Its answer is there before anybody is asked; without a mark it is a redirect like that of a slash."""
    orders = Blueprint("orders", __name__, url_prefix="/orders")
    orders.add_url_rule("/old", "old", saying(), redirect_to="orders/new")
    app = Flask("shop", static_folder=None)
    app.register_blueprint(orders)
    authz403.flask.init_app(app, gate=gate_with(rules=[Rule("GET", "/orders/old", scopes("a"))]))
    rows = authz403.flask.meet(app).coverage(app)
    assert (asked(app, "/orders/old").status, asked(app, "/orders/old", headers=ADA).status, rows) == (401, 308, ())
    app = Flask("shop")
    app.register_blueprint(guard(orders, authenticated))
    authz403.flask.init_app(app, gate=gate_with())
    with pytest.raises(ConfigurationError, match="write a view that redirects"):
        authz403.flask.meet(app)


def test_a_rule_may_be_for_what_flask_answers_by_itself() -> None:
    """Its OPTIONS stands under the policy of the view, and under rules of its own."""
    app = app_of(("/x", requires(scopes("a"))(saying())), gate=gate_with(rules=[Rule("OPTIONS", "/x", anyone)]))
    authz403.flask.meet(app)
    assert (asked(app, "/x", "OPTIONS").status, asked(app, "/x", "OPTIONS", headers=ADA).status) == (401, 200)


def test_meet_returns_the_gate_which_a_function_may_make() -> None:
    """At the end of a factory."""
    gate = gate_with()
    app = Flask("shop")
    authz403.flask.init_app(app, gate=lambda: gate)
    app.add_url_rule("/", "view", public(saying()))
    assert authz403.flask.meet(app) is gate
    assert asked(app).text == "hello"


def test_the_plain_middleware_refuses_a_flask_app() -> None:
    """Its marks would not hold."""
    for app in (Flask("shop"), Flask("shop").wsgi_app):
        with pytest.raises(ConfigurationError, match="init_app"):
            authz403.wsgi.AuthzMiddleware(app, gate=gate_with())


# ---- only what was judged runs


def test_an_app_that_is_reached_without_its_gate_runs_nothing() -> None:
    """Contexts without a request, and those of tests, work as ever."""
    ran: list[str] = []
    app = Flask("shop")
    app.add_url_rule("/", "view", public(noting("view", ran)))
    app.before_request(lambda: ran.append("before"))
    own = app.wsgi_app
    authz403.flask.init_app(app, gate=gate_with())
    answer = ask(own, environ_of("/"))
    assert isinstance(answer.error, RouteMismatch)
    with app.test_request_context("/"), pytest.raises(RouteMismatch):
        app.full_dispatch_request()
    with app.test_request_context("/"), pytest.raises(RouteMismatch):
        app.dispatch_request()
    assert ran == []
    with app.app_context(), app.test_request_context("/?x=1"):
        assert flask.url_for("view") == "/"
        assert flask.request.args["x"] == "1"


class Rewrites:
    """Middleware inside the gate that makes another request of what was decided on."""

    def __init__(self, app: WSGIApplication, **changes: object) -> None:
        self.app = app
        self.changes = changes

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        environ.update(self.changes)
        return self.app(environ, start_response)


@pytest.mark.parametrize(
    "changes",
    [{"PATH_INFO": "/closed"}, {"PATH_INFO": "/orders/eve"}, {"REQUEST_METHOD": "DELETE"}],
    ids=["path", "parameter", "method"],
)
@pytest.mark.parametrize("report_only", [False, True], ids=["enforcing", "reporting"])
def test_another_request_than_was_judged_runs_nothing(changes: dict[str, str], report_only: bool) -> None:  # noqa: FBT001 - a row
    """Whatever middleware in between does: 500 `route_mismatch`."""
    ran: list[str] = []
    app = Flask("shop")
    app.add_url_rule("/closed", "closed", requires(scopes("z"))(noting("closed", ran)))
    view = requires(param("owner", claim="sub"))(noting("orders", ran))
    app.add_url_rule("/orders/<owner>", "orders", view, methods=["GET", "DELETE"])
    app.wsgi_app = Rewrites(app.wsgi_app, **changes)  # type: ignore[method-assign]  # Flask's own way
    gate = gate_with(dangerously_report_only=report_only, rules=[Rule("DELETE", "/orders/*", scopes("z"))])
    authz403.flask.init_app(app, gate=gate)
    with listening() as events:
        answer = asked(app, "/orders/ada", headers=bearer())
    assert [event["reason"] for event in events] == ["route_mismatch"]
    if report_only:
        assert (answer.status, len(ran)) == (200, 1)
    else:
        assert (answer.status, answer.reason, ran) == (500, "route_mismatch", [])


def test_a_gate_that_only_reports_lets_every_path_pass() -> None:
    """One that it would have refused, too; the event says so."""
    app = app_of(("/<name>", public(saying())), gate=gate_with(dangerously_report_only=True))
    with listening() as events:
        assert asked(app, "/a\\b").text == "hello"
    assert [event["reason"] for event in events] == ["invalid_path"]


def test_what_a_before_request_function_does_to_a_request_runs_nothing_else() -> None:
    """Neither another rule nor another method."""
    ran: list[str] = []
    app = app_of(("/", public(lambda: "index")), ("/closed", requires(scopes("z"))(noting("closed", ran))))

    def swap() -> None:
        flask.request.url_rule = next(rule for rule in app.url_map.iter_rules() if rule.rule == "/closed")

    app.before_request(swap)
    assert (asked(app).reason, ran) == ("route_mismatch", [])
    app = app_of(("/", Items.as_view("items")))
    app.before_request(lambda: setattr(flask.request, "method", "POST"))
    assert asked(app, headers=bearer(scope="a")).reason == "route_mismatch"


def test_a_middleware_that_changes_what_no_route_looks_at_is_left_alone() -> None:
    """A new host or scheme is matched anew, with the same outcome."""
    app = Flask("shop")
    app.add_url_rule("/", "view", public(lambda: flask.url_for("view", _external=True)))
    app.wsgi_app = Rewrites(app.wsgi_app, HTTP_HOST="shop.example", **{"wsgi.url_scheme": "https"})  # type: ignore[method-assign]  # Flask's own way
    authz403.flask.init_app(app, gate=gate_with())
    assert asked(app, more={"HTTP_HOST": "inner:80"}).text == "https://shop.example/"


def test_views_and_rules_that_come_later_are_seen() -> None:
    """As are marks: the table is made anew."""
    app = app_of(("/", public(saying())))
    assert asked(app).text == "hello"
    app.view_functions["view0"] = requires(scopes("a"))(lambda: "other")
    assert (asked(app).status, asked(app, headers=ADA).text) == (401, "other")
    app.view_functions["late"] = late = lambda: "late"
    app.url_map.add(UrlRule("/late", endpoint="late"))
    assert asked(app, "/late", headers=ADA).reason == "no_policy"
    requires(scopes("a"))(late)
    assert (asked(app, "/late").status, asked(app, "/late", headers=ADA).text) == (401, "late")


def test_what_comes_later_holds_for_what_the_app_answers_by_itself() -> None:
    """A guard on the app for its 404, and what is concealed for 405 and redirects, whatever was asked before."""
    app = app_of(("/", public(saying())))
    assert asked(app, "/missing").status == 404
    guard(app, authenticated)
    assert asked(app, "/missing").status == 401
    for path, method in (("/late/", "POST"), ("/late", "GET")):
        app = app_of(("/", public(saying())))
        assert asked(app).text == "hello"
        app.view_functions["late"] = requires(authenticated.concealed())(saying())
        app.url_map.add(UrlRule("/late/", endpoint="late", methods=["GET"]))
        assert asked(app, path, method).status == 404


# ---- paths, hosts, parameters


def test_path_parameters_are_those_that_the_view_gets() -> None:
    """Converted by the app's own converters, before a preprocessor of values takes some away."""

    class Owner(BaseConverter):
        def to_python(self, value: str) -> str:
            return value.removeprefix("user-")

    app = Flask("shop")
    app.url_map.converters["owner"] = Owner
    app.add_url_rule("/<lang>/orders/<owner:name>", "view", requires(param("name", claim="sub"))(lambda name: name))
    app.url_value_preprocessor(lambda _, values: (values or {}).pop("lang", None))
    authz403.flask.init_app(app, gate=gate_with())
    assert asked(app, "/en/orders/user-ada", headers=bearer()).text == "ada"
    assert asked(app, "/en/orders/user-eve", headers=bearer()).reason == "not_owner"


def test_a_preprocessor_of_values_works_where_flask_matches_anew() -> None:
    """Behind a middleware in the gate; other arguments than were judged still run nothing."""
    ran: list[str] = []

    class OncePer(BaseConverter):
        def to_python(self, value: str) -> str:
            ran.append(value)
            return f"{value}{len(ran)}"

    for owner, status in (("ada", 200), ("<counted:owner>", 500)):
        app = Flask("shop")
        app.url_map.converters["counted"] = OncePer
        app.add_url_rule(f"/<lang>/{owner}", "view", public(lambda **_: g.lang))
        app.url_value_preprocessor(lambda _, values: setattr(g, "lang", (values or {}).pop("lang", None)))
        app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1)  # type: ignore[method-assign]  # Flask's own way
        authz403.flask.init_app(app, gate=gate_with())
        answer = asked(app, "/en/ada", more={"HTTP_X_FORWARDED_HOST": "shop.example"})
        assert (answer.status, answer.text == "en") == (status, status == 200)


def test_an_app_may_bind_its_rules_in_a_way_of_its_own() -> None:
    """By whatever its requests know."""

    class ByTenant(Flask):
        def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
            adapter = super().create_url_adapter(request)
            if request is not None and adapter is not None:
                adapter.path_info = f"/{request.headers['X-Tenant']}{adapter.path_info}"
            return adapter

    app = ByTenant("shop")
    app.add_url_rule("/one/x", "one", public(lambda: "one"))
    app.add_url_rule("/two/x", "two", requires(scopes("a"))(lambda: "two"))
    authz403.flask.init_app(app, gate=gate_with())
    assert asked(app, "/x", headers={"X-Tenant": "one"}).text == "one"
    assert asked(app, "/x", headers={"X-Tenant": "two"}).status == 401
    assert asked(app, "/x", headers={**ADA, "X-Tenant": "two"}).text == "two"


@pytest.mark.parametrize(
    ("path", "status"),
    [("//files/a", 400), ("/files/a//b", 200), ("/files/../x", 200), ("/files/a/./b", 200), ("/x/../files/a", 400)],
)
def test_dot_segments_pass_into_a_path_parameter_alone(path: str, status: int) -> None:
    """Werkzeug takes `//files` for `/files`."""
    app = app_of(("/files/<path:name>", public(lambda name: name)))
    answer = asked(app, path)
    assert answer.status == status
    assert status == 400 or answer.text == path.removeprefix("/files/")


def test_rules_by_path_see_the_path_below_the_script_name() -> None:
    """As Flask does."""
    app = app_of(("/x", saying()), gate=gate_with(rules=[Rule("*", "/x", scopes("a"))]))
    for more in ({"SCRIPT_NAME": "/shop"}, {}):
        assert (asked(app, "/x", more=more).status, asked(app, "/x", headers=ADA, more=more).text) == (401, "hello")


def test_hosts_and_subdomains_choose_as_in_flask() -> None:
    """The policy is that of the rule for the host that is asked."""
    app = Flask("shop", host_matching=True, static_folder=None)
    app.add_url_rule("/", "open", public(lambda: "open"), host="open.example")
    app.add_url_rule("/", "closed", requires(scopes("a"))(lambda: "closed"), host="closed.example")
    authz403.flask.init_app(app, gate=gate_with())
    assert asked(app, more={"HTTP_HOST": "open.example"}).text == "open"
    assert asked(app, more={"HTTP_HOST": "closed.example"}).status == 401
    assert asked(app, more={"HTTP_HOST": "other.example"}).status == 404
    rows = authz403.flask.meet(app).coverage(app)
    assert [row.path for row in rows if row.method == "GET"] == ["open.example:/", "closed.example:/"]


def test_a_host_that_flask_refuses_is_refused_by_flask() -> None:
    """400, with the app's own page, and nothing runs."""
    app = app_of(("/", public(saying())))
    app.config["TRUSTED_HOSTS"] = ["shop.example"]
    assert asked(app, more={"HTTP_HOST": "shop.example"}).text == "hello"
    assert asked(app, more={"HTTP_HOST": "evil.example"}).status == 400


class TrustedHosts(flask.Request):
    """Requests that take certain hosts alone."""

    trusted_hosts = ["shop.example"]  # noqa: RUF012 - as werkzeug has it


class TrustedHostsEach(flask.Request):
    """Requests that are told so one by one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as werkzeug has them
        super().__init__(*args, **kwargs)
        self.trusted_hosts = ["shop.example"]


@pytest.mark.parametrize("kind", [TrustedHosts, TrustedHostsEach])
def test_hosts_that_the_apps_requests_do_not_trust_are_refused_by_flask(kind: type[flask.Request]) -> None:
    """As without a gate, whether the app says what its requests are before or after."""
    for is_early in (True, False):
        app = Flask("shop")
        app.add_url_rule("/", "view", public(lambda: flask.request.host))
        if is_early:
            app.request_class = kind
        authz403.flask.init_app(app, gate=gate_with())
        app.request_class = kind
        assert asked(app, more={"HTTP_HOST": "shop.example"}).text == "shop.example"
        assert asked(app, more={"HTTP_HOST": "evil.example"}).status == 400


def test_coverage_lists_what_flask_serves() -> None:
    """With blueprints' names in the endpoints' routes, and where each policy stands."""
    shop = Blueprint("shop", __name__, url_prefix="/shop")
    shop.add_url_rule("/items", view_func=Items.as_view("items"))
    app = Flask("app", static_folder=None)
    app.register_blueprint(guard(shop, authenticated))
    rows = Gate(tokens=gate_with().sources).coverage(app)
    told = {row.method: (row.path, row.endpoint, row.policy, row.is_default) for row in rows}
    assert told["GET"] == ("/shop/items", "items", "marks: authenticated & scopes('a')", False)
    assert told["POST"] == ("/shop/items", "items", "marks: authenticated & scopes('c')", False)
    assert "OPTIONS" not in told  # Flask answers it
    assert all(row.written and row.written[0].startswith(__file__) for row in rows)


def test_sessions_and_functions_of_the_app_work_as_without_a_gate() -> None:
    """Cookies are set, and what runs after a request does so once."""
    app = Flask("shop")
    app.secret_key = "only-for-tests"
    seen: list[int] = []

    def view() -> str:
        flask.session["visits"] = flask.session.get("visits", 0) + 1
        return str(flask.session["visits"])

    app.add_url_rule("/", "view", public(view))

    def note(response: flask.Response) -> flask.Response:
        seen.append(response.status_code)
        return response

    app.after_request(note)
    authz403.flask.init_app(app, gate=gate_with())
    client = app.test_client()
    assert [client.get("/").text, client.get("/").text] == ["1", "2"]
    assert seen == [200, 200]
