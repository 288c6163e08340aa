"""Random Flask apps behind a gate: who may everything gets the bare app's answer, and who may nothing runs nothing."""

from __future__ import annotations

import flask
import pytest
from flask import Flask
from hypothesis import assume, given
from hypothesis import strategies as st
from werkzeug.routing import BaseConverter

import authz403.flask
from authz403 import ConfigurationError, Rule, anyone, authenticated, requires, scopes
from authz403.flask_routes import FlaskWalk
from authz403.paths import PathPattern, has_dot_segments, is_malformed
from tests.apps_made import bearer, gate_with
from tests.wsgi_made import Answer, ask, environ_of

PART = st.sampled_from(
    ["a", "b", "<x>", "<int:x>", "<path:x>", "<any(a, b):x>", "<string(length=2):x>", "v<int:x>", "<x>.js"]
)
RULE = st.lists(PART, max_size=3, unique_by=lambda part: "x>" in part or part).map(lambda parts: "/" + "/".join(parts))
METHODS = st.lists(st.sampled_from(["GET", "POST", "DELETE", "OPTIONS"]), min_size=1, unique=True)
MAPS = st.lists(st.tuples(RULE, st.booleans(), METHODS, st.booleans()), min_size=1, max_size=6)
SEGMENT = st.sampled_from(["a", "b", "1", "22", "v1", "a.js", "", ".", "..", "\u00e4", "a b", "%2F"])
PATHS = st.lists(SEGMENT, max_size=5).map(lambda segments: "/" + "/".join(segments))
ASKED = st.sampled_from(["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "get", "Post"])


def app_of(url_map: list[tuple[str, bool, list[str], bool]], ran: list[str], *, guarded: bool | None) -> Flask:
    """Return an app with these rules, each with a view of its own; marked, unless `guarded` is none."""
    app = Flask("random", static_folder=None)
    app.url_map.merge_slashes = url_map[0][3]
    for number, (rule, has_slash, methods, is_strict) in enumerate(url_map):

        def view(name: str = str(number), **values: object) -> str:
            ran.append(name)
            return f"{name} {values} {flask.request.method} {flask.request.path} {flask.url_for('0', x='a')}"

        path = f"{rule.rstrip('/')}/" if has_slash else rule
        if guarded is not None:
            requires(scopes("all"))(view)
        app.add_url_rule(path, str(number), view, methods=methods, strict_slashes=is_strict, defaults={})
    if guarded:
        authz403.flask.init_app(app, gate=gate_with())
    return app


def told(app: Flask, method: str, path: str, headers: dict[str, str]) -> Answer:
    """Send one request."""
    return ask(app, environ_of(path, method, headers=headers, more={"HTTP_HOST": "shop.example"}), is_validated=False)


@given(url_map=MAPS, path=PATHS, method=ASKED)
def test_who_may_everything_gets_the_very_answer_of_the_bare_app(
    url_map: list[tuple[str, bool, list[str], bool]], path: str, method: str
) -> None:
    """Status, headers and body, redirects and 405 as well; but for paths that others may read as something else."""
    ran: list[str] = []
    bare = told(app_of(url_map, ran, guarded=False), method, path, {})
    ran_bare = [*ran]
    ran.clear()
    found = told(app_of(url_map, ran, guarded=True), method, path, bearer(scope="all"))
    if found.header("authz-reason") == "invalid_path":
        assert has_dot_segments(path) or is_malformed(path)
        assert ran == []
    else:
        assert (found.status_line, found.headers, found.body, ran) == (
            bare.status_line,
            bare.headers,
            bare.body,
            ran_bare,
        )


@given(url_map=MAPS, path=PATHS, method=ASKED)
def test_who_may_nothing_runs_nothing(url_map: list[tuple[str, bool, list[str], bool]], path: str, method: str) -> None:
    """Whatever Flask makes of the path and the method."""
    for headers in ({}, bearer(scope="other")):
        ran: list[str] = []
        found = told(app_of(url_map, ran, guarded=True), method, path, headers)
        assert ran == []
        assert found.status in {308, 400, 401, 403, 404, 405}


def pattern_of(rule: str) -> str:
    """Return the path of a gate's rule that names every path of a Flask rule, as its spelling is."""
    segments = ["*" if "<" in segment else segment for segment in rule.partition("<path:")[0].split("/")]
    return f"{'/'.join(segments).rstrip('/')}/**" if "<path:" in rule else "/".join(segments)


@given(url_map=MAPS, asks=st.lists(st.tuples(PATHS, ASKED), min_size=1, max_size=3))
def test_no_spelling_of_a_path_gets_around_its_rule(
    url_map: list[tuple[str, bool, list[str], bool]], asks: list[tuple[str, str]]
) -> None:
    """A slash more or less that Flask does not mind is no way to a view, whatever was asked before."""
    ran: list[str] = []
    app = app_of(url_map, ran, guarded=None)
    patterns = dict.fromkeys(pattern_of(rule.rule) for rule in app.url_map.iter_rules())
    # The narrow ones first; all need the same.
    rules = [Rule("*", pattern, scopes("other")) for pattern in sorted(patterns, key=lambda path: "*" in path)]
    try:
        gate = gate_with(rules=rules, default=anyone)
    except ConfigurationError:
        assume(False)  # noqa: FBT003 - one shadows another
    authz403.flask.init_app(app, gate=gate)
    for path, method in asks:
        told(app, method, path, bearer(scope="all"))
    assert ran == []


@pytest.mark.parametrize(
    ("route", "other"),
    [("/a", "/a/"), ("/a/", "/a"), ("/o/<int:x>", "/o/5/"), ("/o/<int:x>/", "/o/5"), ("/f/<path:x>/", "/f/a/b")],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_view_that_stands_at_two_paths_stands_under_the_rules_for_both(
    route: str, other: str, *, is_first: bool
) -> None:
    """With strict_slashes off; the policy is the same in whatever order they are asked for, and both rules fit."""
    own = f"{other}/" if route.endswith("/") else other[:-1]
    for named in (own, other):
        app = Flask("two", static_folder=None)
        app.url_map.strict_slashes = False
        app.add_url_rule(route, "view", lambda **_: "ran")
        authz403.flask.init_app(app, gate=gate_with(rules=[Rule("*", named, scopes("z"))], default=authenticated))
        authz403.flask.meet(app)
        paths = [own, other] if is_first else [other, own]
        statuses = {path: told(app, "GET", path, bearer()).status for path in [*paths, *paths]}
        # The rule for another spelling is none for the path itself, but where a parameter takes slashes.
        assert statuses == {own: 403 if named == own or "path" in route else 200, other: 403}


def test_a_slash_that_a_parameter_takes_is_no_other_spelling() -> None:
    """The view gets it, so that it is another file; the rule for the one is not enough for the other."""
    app = Flask("files", static_folder=None)
    app.url_map.strict_slashes = False
    app.add_url_rule("/f/<path:name>", "view", lambda name: name)
    authz403.flask.init_app(app, gate=gate_with(rules=[Rule("*", "/f/a", anyone)]))
    assert (told(app, "GET", "/f/a", {}).text, told(app, "GET", "/f/a/", {}).status) == ("a", 403)


@pytest.mark.parametrize(
    ("route", "pattern"),
    [
        ("/", PathPattern(("",), below=False)),
        ("/a/<x>/b", PathPattern(("a", None, "b"), below=False)),
        ("/a/v<int:x>.js/", PathPattern(("a", None, ""), below=False)),
        ("//a//b", PathPattern(("a", "b"), below=False)),
        ("/a/<path:x>/b", PathPattern(("a",), below=True)),
        ("/a/b<path:x>", PathPattern(("a",), below=True)),
        ("/<string(minlength=0):x>", PathPattern((), below=True)),
        ("/a/<blank:x>", PathPattern(("a",), below=True)),
        ("/a/<any('b)', c):x>", PathPattern(("a", None), below=False)),
    ],
)
def test_the_pattern_of_a_rule_is_of_all_paths_that_it_takes(route: str, pattern: PathPattern) -> None:
    """Where a parameter may be empty or take slashes, that is everything below."""

    class Blank(BaseConverter):
        regex = "[^/]*"
        part_isolating = True

    app = Flask("pattern", static_folder=None)
    app.url_map.converters["blank"] = Blank
    app.add_url_rule(route, "view", lambda **_: "ran")
    assert [served.pattern for served in FlaskWalk(app).served] == [pattern]
