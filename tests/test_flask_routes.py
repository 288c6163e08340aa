"""Random Flask apps behind a gate: who may everything gets the bare app's answer, and who may nothing runs nothing."""

from __future__ import annotations

import flask
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

import authz403.flask
from authz403 import requires, scopes
from authz403.paths import has_dot_segments, is_malformed
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


def app_of(url_map: list[tuple[str, bool, list[str], bool]], ran: list[str], *, guarded: bool) -> Flask:
    """Return an app with these rules, each with a view of its own."""
    app = Flask("random", static_folder=None)
    app.url_map.merge_slashes = url_map[0][3]
    for number, (rule, has_slash, methods, is_strict) in enumerate(url_map):

        def view(name: str = str(number), **values: object) -> str:
            ran.append(name)
            return f"{name} {values} {flask.request.method} {flask.request.path} {flask.url_for('0', x='a')}"

        path = f"{rule.rstrip('/')}/" if has_slash else rule
        app.add_url_rule(
            path, str(number), requires(scopes("all"))(view), methods=methods, strict_slashes=is_strict, defaults={}
        )
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
