"""Mistakes that others have made, as small changes to our own code: for each, the tests that must not let it pass.

Where the code is rewritten, its variants are too: `old` stands exactly once in its file.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Variant:
    """One mistake: in `file` of the package, `old` becomes `new`; each of the `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


_LET_IN = (
    'scope["user"] = who = ANONYMOUS if outcome.concealed_as_missing else outcome.principal or ANONYMOUS\n'
    '        scope["auth"] = who.credentials\n'
    "        scope[TICKETS] = (Ticket("
)


VARIANTS: Final = (
    # ---- where the client is
    Variant(
        "walks X-Forwarded-For from the left",
        "network.py",
        "for node in reversed(nodes):",
        "for node in nodes:",
        ("test_network.py::test_the_walk_goes_from_the_right_to_the_first_stranger",),
    ),
    Variant(
        "reads the forwarding headers of untrusted peers",
        "network.py",
        "if not self.trusts_peer(peer):",
        "if not lines and not self.trusts_peer(peer):",
        ("test_network.py::test_an_untrusted_peer_is_the_client_whatever_it_writes",),
    ),
    Variant(
        "takes a proxy that names nobody for the client",
        "network.py",
        "if not lines or sum(",
        "if not lines:\n            return parse_address(peer or '')\n        if sum(",
        ("test_network.py::test_the_walk_goes_from_the_right_to_the_first_stranger",),
    ),
    Variant(
        "walks on over what is no address",
        "network.py",
        "if node is None or node not in self._trusted:",
        "if node is not None and node not in self._trusted:",
        ("test_network.py::test_the_walk_goes_from_the_right_to_the_first_stranger",),
    ),
    Variant(
        "takes the first of several addresses where there is to be one",
        "network.py",
        "return parse_node(lines[0]) if len(lines) == 1 else None",
        "return parse_node(lines[0])",
        ("test_network.py::test_a_single_header_holds_one_address",),
    ),
    Variant(
        "leaves IPv4-mapped addresses as they are",
        "network.py",
        "return address.ipv4_mapped",
        "return address",
        ("test_network.py::test_ipv4_mapped_is_the_same_on_both_sides",),
    ),
    Variant(
        "takes a client whose address is not known for one inside",
        "leaves.py",
        "if self._allowed is None and not self._network.may_read_trailers(facts.request):",
        "if True:",
        ("test_rules.py::test_an_unknown_address_fails_allow_and_nothing_else",),
    ),
    Variant(
        "takes one of the scopes for all of them, where it is told at once",
        "leaves.py",
        "return (lambda principal, _: wanted <= principal.scopes,)",
        "return (lambda principal, _: not wanted.isdisjoint(principal.scopes),)",
        ("test_authorizer.py::test_what_is_told_at_once_is_what_checking_tells",),
    ),
    Variant(
        "takes an unknown address for one inside, where it is told at once",
        "leaves.py",
        "return address is not None and address in self._networks",
        "return address is None or address in self._networks",
        ("test_authorizer.py::test_what_is_told_at_once_is_what_checking_tells",),
    ),
    Variant(
        "asks for a token where networks alone decide",
        "rules.py",
        "before=_AT_ONCE_NEVER if rest is anyone or rest.tokenless else _at_once(first),",
        "before=_at_once(first),",
        ("test_authorizer.py::test_a_token_is_asked_for_at_once_only_where_nothing_else_will_do",),
    ),
    Variant(
        "believes a remembered token for ever",
        "identity.py",
        "if found is not None and now < found.until and (found.key is None or self._still_holds(found, now)):",
        "if found is not None and (found.key is None or self._still_holds(found, now)):",
        ("test_identity.py",),
    ),
    Variant(
        "believes a remembered token whose key is gone",
        "identity.py",
        "if found is not None and now < found.until and (found.key is None or self._still_holds(found, now)):",
        "if found is not None and now < found.until:",
        ("test_identity.py",),
    ),
    Variant(
        "says of a proxy that lets tokens through that it strips them",
        "hints.py",
        " and not authorization_came",
        "",
        ("test_findings.py::test_where_one_came_through_none_is_stripped",),
    ),
    Variant(
        "takes every stranger who writes X-Forwarded-For for a proxy",
        "findings.py",
        "if _is_inside(request.peer):",
        "if request.peer:",
        ("test_findings.py::test_strangers_who_write_a_forwarding_header_are_not_told_of",),
    ),
    Variant(
        "keeps quiet about networks that no client can be in",
        "findings.py",
        "if _are_within(leaf.cidrs, self._proxies):",
        "if False:",
        ("test_findings.py::test_networks_of_trusted_proxies_alone_are_told_at_the_start",),
    ),
    # ---- which paths there are
    Variant(
        "takes a newline for part of a path, as re.match does",
        "paths.py",
        r"[\x00-\x1f",
        r"[\x00-\x09\x0b-\x1f",
        ("test_paths.py::test_a_path_that_readers_disagree_on_is_malformed",),
    ),
    Variant(
        "takes a backslash for part of a path",
        "paths.py",
        r"\x9f\\",
        r"\x9f",
        ("test_paths.py::test_a_path_that_readers_disagree_on_is_malformed",),
    ),
    Variant(
        "lets dot segments and double slashes pass",
        "paths.py",
        "return _DOT_SEGMENT.search(path) is not None",
        "return False",
        ("test_gate.py::test_dot_segments_pass_into_a_parameter_that_takes_them_alone",),
    ),
    # ---- which paths a rule names
    Variant(
        "matches a pattern as a prefix",
        "paths.py",
        "for entry in node.below)]",
        "for entry in node.below + node.at)]",
        ("test_rules.py::test_a_pattern_matches_the_whole_path",),
    ),
    Variant(
        "matches /administrator by /admin/**",
        "paths.py",
        "written = [node.static[segment] for node in self._nodes if segment in node.static]",
        "written = [one for node in self._nodes for name, one in node.static.items() if segment[: len(name)] == name]",
        ("test_rules.py::test_a_pattern_matches_the_whole_path",),
    ),
    Variant(
        "matches a path without regard to case",
        "paths.py",
        "written = [node.static[segment] for node in self._nodes if segment in node.static]",
        "written = [node.static[segment.lower()] for node in self._nodes if segment.lower() in node.static]",
        ("test_rules.py::test_a_pattern_matches_the_whole_path",),
    ),
    Variant(
        "takes nothing at all for one segment",
        "paths.py",
        "if node.any is not None and segment]",
        "if node.any is not None]",
        ("test_rules.py::test_a_pattern_matches_the_whole_path",),
    ),
    Variant(
        "decodes the path once more than the router does",
        "rules.py",
        "found = self._index.find(path)",
        "found = self._index.find(__import__('urllib.parse').parse.unquote(path))",
        ("test_routing.py::test_what_was_encoded_twice_is_decoded_once",),
    ),
    # ---- which rule applies, and what else holds
    Variant(
        "leaves HEAD open where a rule closes GET",
        "rules.py",
        'named | {"HEAD"} if "GET" in named else named',
        "named",
        ("test_rules.py::test_a_rule_judges_the_methods_that_it_names",),
    ),
    Variant(
        "compares methods without regard to case",
        "rules.py",
        "method in rule.named:",
        "method.upper() in rule.named:",
        ("test_rules.py::test_a_rule_judges_the_methods_that_it_names",),
    ),
    Variant(
        "leaves methods that the rules of a path do not name to the default",
        "rules.py",
        "parts.append(no_policy if path_named else self._default)",
        "parts.append(self._default)",
        ("test_rules.py::test_a_path_that_rules_name_is_closed_to_methods_that_they_do_not",),
    ),
    Variant(
        "lets a later rule win",
        "rules.py",
        "for number, rule in found:",
        "for number, rule in reversed(found):",
        ("test_rules.py::test_the_first_rule_that_fits_path_and_method_applies",),
    ),
    Variant(
        "forgets the marks where a rule applies",
        "rules.py",
        "parts.extend(mark.requirement for mark in marks)",
        "parts.extend(mark.requirement for mark in marks if number is None)",
        ("test_rules.py::test_rule_and_marks_all_hold",),
    ),
    Variant(
        "forgets the marks on the methods of a class",
        "endpoint.py",
        "return (*self.marks, *self.by_method.get(method, ()))",
        "return self.marks",
        ("test_rules.py::test_methods_of_a_class_based_endpoint_have_marks_of_their_own",),
    ),
    # ---- who asks, and what they hold
    Variant(
        "takes any scheme that starts with Bearer",
        "credentials.py",
        "[Rr] +(",
        "[Rr][A-Za-z]* +(",
        ("test_credentials.py::test_what_cannot_be_used_is_told",),
    ),
    Variant(
        "reads the first of two Authorization headers",
        "credentials.py",
        "if len(lines) > 1:",
        "if False:",
        ("test_credentials.py::test_what_cannot_be_used_is_told",),
    ),
    Variant(
        "takes a bad token for none where a caller is optional",
        "leaves.py",
        "(identity is not None and identity.reason is Reason.MISSING_TOKEN)",
        "identity is not None",
        ("test_policy.py::test_optional_lets_a_missing_token_pass_and_refuses_a_bad_one",),
    ),
    Variant(
        "lets a scope stand for all that start with it",
        "leaves.py",
        "if self._set <= identity.scopes:",
        "if all(any(name.startswith(held) for held in identity.scopes) for name in self.names):",
        ("test_policy.py::test_a_name_is_held_whole_or_not_at_all",),
    ),
    Variant(
        "compares claims without regard to their type",
        "leaves.py",
        "return type(one) is type(other) and one == other",
        "return one == other",
        ("test_policy.py::test_claims_are_compared_with_their_type",),
    ),
    Variant(
        "compares an owner without regard to its type",
        "leaves.py",
        "_same(given, owned) or (isinstance(owned, str) and str(given) == owned)",
        "str(given) == str(owned)",
        ("test_policy.py::test_a_path_parameter_is_compared_as_converted",),
    ),
    Variant(
        "takes the opposite of what is not known for met",
        "policy.py",
        "return unmet._replace(required_scopes=(), missing_scopes=()) if unmet.unknown else None",
        "return None",
        ("test_policy.py::test_the_opposite_of_unknown_is_unknown",),
    ),
    Variant(
        "lets pass where a policy crashes",
        "leaves.py",
        "answer = error\n",
        "answer = True\n",
        ("test_policy.py::test_whatever_is_not_true_or_false_is_a_policy_error",),
    ),
    Variant(
        "takes whatever is not false for yes",
        "leaves.py",
        "if answer is True:",
        "if answer:",
        ("test_policy.py::test_whatever_is_not_true_or_false_is_a_policy_error",),
    ),
    # ---- what browsers ask
    Variant(
        "matches origins by their end",
        "cors.py",
        "or origin in self._answers or",
        "or origin.endswith(tuple(allowed.split('//')[-1] for allowed in self._answers)) or",
        ("test_cors.py::test_an_origin_matches_exactly_or_not_at_all",),
    ),
    Variant(
        "writes back whatever origin asks",
        "cors.py",
        "self._answer_headers(origin) if origin in self._patterns else _VARY",
        "self._answer_headers(origin)",
        ("test_cors.py::test_an_origin_matches_exactly_or_not_at_all",),
    ),
    Variant(
        "takes an OPTIONS without Origin for a preflight",
        "cors.py",
        "len(fields.get(ORIGIN, ())) == 1",
        "len(fields.get(ORIGIN, ())) <= 1",
        ("test_cors.py::test_a_preflight_has_exactly_one_origin_and_one_method",),
    ),
    Variant(
        "takes every OPTIONS with an Origin for a preflight",
        "cors.py",
        "len(fields.get(REQUEST_METHOD, ())) == 1",
        "True",
        ("test_cors.py::test_a_preflight_has_exactly_one_origin_and_one_method",),
    ),
    Variant(
        "lets a pattern match its own host",
        "origins.py",
        "meant, start = self._at.get(host), 0",
        "meant, start = self._at.get(host) or self._below.get(host), 0",
        ("test_origins.py::test_a_pattern_matches_nothing_else",),
    ),
    Variant(
        "matches patterns by their end",
        "origins.py",
        "return False\n            meant =",
        "return host.endswith(tuple(self._below))\n            meant =",
        ("test_origins.py::test_a_pattern_matches_nothing_else",),
    ),
    Variant(
        "takes a pattern that a client writes for an origin",
        "origins.py",
        "if not isinstance(parts, Parts) or parts.is_pattern:",
        "if not isinstance(parts, Parts):",
        ("test_origins.py::test_a_pattern_matches_nothing_else",),
    ),
    Variant(
        "lets patterns be where nobody knows whose names they cover",
        "cors.py",
        "if parts.below and shared is None:",
        "if False:",
        ("test_cors.py::test_patterns_need_the_list_of_public_suffixes",),
    ),
    Variant(
        "looks for public suffixes at a pattern's host alone",
        "origins.py",
        'if suffix.endswith(f".{host}"):',
        "if False:",
        ("test_origins.py::test_names_below_a_public_suffix_are_anybodys",),
    ),
    Variant(
        "gives credentials to pages that anybody on the way may write",
        "cors.py",
        'name in ("credentials", "private_network")',
        'name in ("private_network",)',
        ("test_cors.py::test_insecure_origins_have_neither_credentials_nor_the_private_network",),
    ),
    Variant(
        "lets every preflight into the private network",
        "cors.py",
        "if _asks_for_private_network(fields) and not self.private_network:",
        "if False:",
        ("test_cors.py::test_a_preflight_for_the_private_network_passes_only_where_that_is_said",),
    ),
    Variant(
        "writes into a header what a client sent as it is",
        "cors.py",
        'each if " " <= each <= "~" else "?"',
        "each",
        ("test_cors.py::test_with_debug_a_refused_preflight_says_which_part_failed",),
    ),
    # ---- the adapter: what is decided on is what runs
    Variant(
        "takes the path from the Host header, as request.url does",
        "asgi_io.py",
        'get_route_path(scope) if scope.get("root_path") else scope["path"],',
        "__import__('urllib.parse').parse.urlsplit('http://' + host_of(scope).decode() + get_route_path(scope)).path,",
        ("test_routing.py::test_no_header_names_another_path",),
    ),
    Variant(
        "takes the path from X-Original-URL",
        "asgi_io.py",
        'get_route_path(scope) if scope.get("root_path") else scope["path"],',
        "next((v.decode() for k, v in scope['headers'] if k == b'x-original-url'), get_route_path(scope)),",
        ("test_routing.py::test_no_header_names_another_path",),
    ),
    Variant(
        "takes the root path off within a segment",
        "asgi_io.py",
        'get_route_path(scope) if scope.get("root_path") else scope["path"],',
        "scope['path'].removeprefix(scope.get('root_path', '')),",
        ("test_routing.py::test_the_servers_root_path_is_taken_off_once",),
    ),
    Variant(
        "takes the method from X-HTTP-Method-Override",
        "asgi_io.py",
        "        method,\n",
        "        next((v.decode() for k, v in scope['headers'] if k == b'x-http-method-override'), method),\n",
        ("test_routing.py::test_no_header_leads_to_the_rule_of_another_method",),
    ),
    Variant(
        "takes a token from the query",
        "asgi_io.py",
        'client = scope.get("client")',
        "found = scope.get('query_string', b'').decode().partition('access_token=')[2]\n"
        "    fields.update({'authorization': (f'Bearer {found}',)} if found else {})\n"
        '    client = scope.get("client")',
        ("test_outcomes.py::test_a_token_in_the_query_is_no_token",),
    ),
    Variant(
        "lets WebSockets through",
        "asgi.py",
        'if scope["type"] not in _GUARDED:',
        'if scope["type"] == "websocket":\n'
        "            await self.app(scope, receive, send)\n"
        "            return\n"
        '        if scope["type"] not in _GUARDED:',
        ("test_routing.py::test_a_websocket_route_stands_under_its_marks",),
    ),
    Variant(
        "keeps a user that was in the scope before",
        "asgi.py",
        _LET_IN,
        _LET_IN.replace('scope["user"] = who =', "who =").replace(
            "scope[T", 'scope.setdefault("user", who)\n        scope[T'
        ),
        ("test_asgi.py::test_what_stood_in_the_scope_before_is_no_identity",),
    ),
    # ---- which policies stand before a route
    Variant(
        "forgets the guard of a mount within it",
        "walk.py",
        "marks=distinct((*self.marks, *marks))",
        "marks=distinct(marks)",
        ("test_routing.py::test_guards_on_mounts_and_apps_hold_for_all_below",),
    ),
    Variant(
        "forgets what an include_router needs",
        "route_objects.py",
        "here = (*above, *needed, *guards_of(included.original_router))",
        "here = above",
        ("test_fastapi.py::test_needs_of_a_router_reaches_starlettes_routes_in_it",),
    ),
    Variant(
        "forgets the guard where no route of the group takes a request",
        "walk.py",
        "if place.marks:",
        "if False:",
        ("test_latch.py::test_a_guard_holds_for_all_that_is_let_into_its_group",),
    ),
    Variant(
        "holds a route to what its path says, whatever it matches",
        "route_objects.py",
        "bool(route.path_regex == expression)",
        "True",
        ("test_latch.py::test_routes_without_regard_to_case_stand_under_their_policy",),
    ),
    Variant(
        "forgets the rule of a file that is asked for with a slash behind it",
        "rules.py",
        'if endpoint.resolves_paths and path[-1:] == "/":',
        "if False:",
        ("test_routing.py::test_a_slash_behind_a_file_is_no_way_around_its_rule",),
    ),
    Variant(
        "keeps the policy of one path for all paths of a route",
        "rules.py",
        "return all(rule.pattern.covers(pattern) or not rule.pattern.meets(pattern) for rule in self.rules)",
        "return True",
        ("test_routing.py::test_rules_that_tell_the_paths_of_a_route_apart_are_each_asked",),
    ),
    Variant(
        "sees the routes of the start for ever",
        "watched.py",
        "watch.has_changed = True",
        "watch.has_changed = False",
        ("test_latch.py::test_a_route_that_comes_while_a_decision_waits_runs_nothing",),
    ),
    Variant(
        "sees the marks of the start for ever",
        "marks.py",
        "WRITTEN.count += 1",
        "WRITTEN.count += 0",
        ("test_latch.py::test_policies_that_are_written_later_hold_from_then_on",),
    ),
    # ---- what runs is what was decided on
    Variant(
        "lets a request in whose path changed after the decision",
        "door.py",
        'here = (self._here, get_route_path(scope) if scope.get("root_path") else scope["path"])',
        "here = tickets[0].trail[0] if tickets else (0, '')",
        ("test_door.py::test_a_request_that_changed_after_the_decision_runs_nothing",),
    ),
    Variant(
        "lets a request in whose method changed after the decision",
        "door.py",
        'self.method == scope.get("method") and self.type',
        "self.type",
        ("test_door.py::test_a_request_that_changed_after_the_decision_runs_nothing",),
    ),
    Variant(
        "looks past the method of a request that one gate decided on",
        "door.py",
        '                and ticket.method == scope.get("method")\n',
        "",
        ("test_door.py::test_a_request_that_changed_after_the_decision_runs_nothing",),
    ),
    Variant(
        "lets a request in by routes that changed after the decision",
        "door.py",
        "                and (walk is None or not walk.watch.has_changed)\n",
        "",
        ("test_door.py", "test_latch.py"),
    ),
    Variant(
        "lets a request in that no gate decided on",
        "door.py",
        "                return True\n        expected = False",
        "                return True\n        expected = not tickets",
        ("test_door.py::test_a_router_that_is_reached_without_a_gate_runs_nothing",),
    ),
    Variant(
        "lets a router run another route than was decided on",
        "door.py",
        "(len(tickets) == 1 and self.step in tickets[0].trail)",
        "len(tickets) == 1",
        ("test_latch.py::test_a_header_that_changed_after_the_decision_leads_to_no_other_route",),
    ),
    Variant(
        "answers for a concealed group from within it",
        "walk.py",
        "missing_at=router if conceals else self.missing_at",
        "missing_at=self.missing_at",
        ("test_concealed.py::test_a_concealed_group_is_missing_as_a_whole",),
    ),
    Variant(
        "shows who asks on the page for what is concealed",
        "asgi.py",
        _LET_IN,
        _LET_IN.replace("ANONYMOUS if outcome.concealed_as_missing else ", ""),
        ("test_concealed.py::test_a_404_page_does_not_know_who_asks_for_what_is_concealed",),
    ),
    Variant(
        "takes a trailer for what a proxy wrote",
        "network.py",
        "if len(lines) > 1 and CHUNKED in fields:",
        "if False:",
        ("test_network.py::test_a_line_that_may_be_a_trailer_says_nothing",),
    ),
    Variant(
        "forgets the rule of a method that was sent in lower case",
        "rules.py",
        "upper = method.upper()",
        "upper = method",
        ("test_routing.py::test_a_lower_case_method_does_not_slip_past_the_rule_of_its_method",),
    ),
    # ---- WSGI, Flask and Django
    Variant(
        "takes another scheme before a token for the whole of a joined header",
        "credentials.py",
        'if "," in text and (name == "bearer" or _WITH_PARAMS.fullmatch(text) is None):',
        'if "," in text and name == "bearer":',
        ("test_credentials.py::test_lines_that_a_server_joined_are_as_many",),
    ),
    Variant(
        "takes the name of a unix socket's peer for an address",
        "wsgi_io.py",
        "peer: str | None = UNIX\n",
        'peer: str | None = environ.get("REMOTE_ADDR")\n',
        ("test_wsgi_io.py::test_the_peer_of_a_unix_socket_has_no_address",),
    ),
    Variant(
        "lets Flask run another view than was judged",
        "flask.py",
        "if rule is None or rule is not judged.rule or self._app.view_functions.get(rule.endpoint) is not judged.view:",
        "if rule is None:",
        ("test_flask.py::test_what_a_before_request_function_does_to_a_request_runs_nothing_else",),
    ),
    Variant(
        "hands Flask what was judged of another request",
        "flask.py",
        "is_same = type(adapter) is MapAdapter and judged.seen == what_counts(request.environ)",
        "is_same = type(adapter) is MapAdapter",
        ("test_flask.py::test_a_middleware_that_changes_what_no_route_looks_at_is_left_alone",),
    ),
    Variant(
        "lets a Flask app answer that was reached without its gate",
        "flask.py",
        "        if ticket is None:\n            raise RouteMismatch(None, "
        'f"{self._app.name} was reached without its gate")\n        flask.g.principal',
        "        if ticket is None:\n            return flask.Response()\n        flask.g.principal",
        ("test_flask.py::test_an_app_that_is_reached_without_its_gate_runs_nothing",),
    ),
    Variant(
        "forgets the guards of blueprints around a blueprint",
        "flask_routes.py",
        "for depth in range(1, len(names) + 1):",
        "for depth in range(len(names), len(names) + 1):",
        ("test_flask.py::test_a_guard_on_a_blueprint_holds_for_all_that_is_in_it",),
    ),
    Variant(
        "tells of a concealed Flask view by 405, redirect or OPTIONS",
        "flask_routes.py",
        "        return Betrayed(told, tuple(reaching), path)",
        "        return None",
        ("test_flask.py::test_what_is_concealed_is_answered_as_what_is_missing",),
    ),
    Variant(
        "leaves a denial to the error handlers of a Flask app",
        "flask.py",
        "        if denied is None and not isinstance(error, RouteMismatch):\n            return error",
        "        if True:\n            return error",
        ("test_flask.py::test_a_denial_from_around_a_view_is_our_refusal",),
    ),
    Variant(
        "lets Django run another view than was judged",
        "django_routes.py",
        "and (request.path_info, request.method, urlconf_of(request)) == (self.path, self.method, self.urlconf)",
        "and True",
        ("test_django.py::test_another_request_than_was_judged_runs_nothing",),
    ),
    Variant(
        "looks at a request before the last of Django's middleware",
        "django.py",
        'looks.append(look_by_loop if frame.f_locals["is_async"] else look)',
        "pass",
        ("test_django.py::test_another_request_than_was_judged_runs_nothing",),
    ),
    Variant(
        "forgets the marks on the actions of a view set",
        "django_routes.py",
        "by_method = _marks_of_actions(kind, actions) if actions is not None else marks_by_method(kind)",
        "by_method = marks_by_method(kind)",
        ("test_django.py::test_each_method_of_a_class_has_its_own_mark",),
    ),
    Variant(
        "forgets the marks on the methods of a view set that are no actions",
        "django_routes.py",
        "called = {**{name: name for name in _handlers_of(kind)}, **actions}",
        "called = actions",
        ("test_django.py::test_a_method_of_a_view_set_that_is_no_action_has_its_own_mark",),
    ),
    Variant(
        "takes a denial by Django's middleware for a crash",
        "django.py",
        "        ticket.denied = denial_in(error)",
        "        pass",
        ("test_django.py::test_a_denial_from_inside_is_our_refusal",),
    ),
    Variant(
        "keeps what it knows of a view that is marked later",
        "django_routes.py",
        "if known.written == WRITTEN.count:",
        "if True:",
        ("test_django.py::test_a_mark_that_is_written_late_holds_from_then_on",),
    ),
    Variant(
        "takes the user of a session for the caller",
        "django.py",
        "return None if ticket is None or ticket.user is None else (ticket.user, ticket.own.principal)",
        "return None if ticket is None else (request._request.user, ticket.own.principal)",
        ("test_django.py::test_rest_framework_takes_the_user_that_was_set",),
    ),
    Variant(
        "makes Django's page for what is concealed on the event loop",
        "django.py",
        "await sync_to_async(self._refusal, thread_sensitive=False)(request, ticket)",
        "self._refusal(request, ticket)",
        ("test_django.py::test_the_page_for_what_middleware_hides_may_block",),
    ),
    Variant(
        "tells of a concealed view by Django's redirect to its slash",
        "django_routes.py",
        'if settings.APPEND_SLASH and not found.path.endswith("/"):',
        "if False:",
        ("test_django.py::test_what_is_concealed_is_answered_as_what_is_missing",),
    ),
    Variant(
        "shows who asks on Django's page for what is concealed",
        "django.py",
        "        request.resolver_match = None\n        self._hide",
        "        request.principal = ticket.own.principal\n        self._hide",
        ("test_django.py::test_a_view_that_refuses_in_a_concealed_place_is_missing",),
    ),
    Variant(
        "leaves a denial to an extension that answers for a Flask app",
        "wsgi.py",
        "            if answering.denied is not None:\n",
        "            if False:\n",
        ("test_flask.py::test_an_extension_that_answers_every_exception_answers_no_denial",),
    ),
)
