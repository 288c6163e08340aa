"""What an app's router would run for a request, as the core sees it: an endpoint with its marks, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from authz403.decision import Decision
from authz403.errors import Mistakes
from authz403.marks import Mark
from authz403.paths import EVERYTHING, PathPattern
from authz403.policy import IsMet, Requirement

Native = TypeVar("Native")
Native_contra = TypeVar("Native_contra", contravariant=True)
_NO_PARAMS: Final[Mapping[str, object]] = MappingProxyType({})


# What every request looks at has slots: they are read in half the time of a named tuple's fields.
@dataclass(frozen=True, slots=True)
class Policy:
    """What one kind of request must meet, with the decision for where it does.

    The requirement is judged in two parts: `first` what needs no token and is told first, then the `rest`. `demanded`
    are the ids of the marked requirements that it holds. Where all that `before` holds is met at once, it is time to
    ask who the caller is; where all that `then` holds is met too, the request is allowed. All else is for `check`.
    `fields` are the header fields that it looks at; where there are any, nothing is met at once. `unsent` is what they
    are in a request that has none of them. `is_looked_up` says that it can be judged by what was found out
    before: of networks that never change, and of names that are held.
    """

    requirement: Requirement
    first: Requirement
    rest: Requirement
    words: str
    allowed: Decision
    conceals: bool
    demanded: frozenset[int]
    before: tuple[IsMet, ...]
    then: tuple[IsMet, ...]
    fields: frozenset[str]
    unsent: Mapping[str, tuple[str, ...]]
    is_looked_up: bool


class Policies(dict[tuple[int | None, bool, str], Policy]):
    """The policies of one endpoint under the rules of one gate, filled as they are asked for.

    `by_method` holds those that are the same on all paths of the endpoint, `by_rules` those that are the same on all
    paths that the same rules name, by the id of what the index finds there.
    """

    __slots__ = ("by_method", "by_rules", "rules")

    def __init__(self, rules: object) -> None:
        super().__init__()
        self.rules = rules
        self.by_method: dict[str, Policy] = {}
        self.by_rules: dict[tuple[int, str], Policy] = {}


class Endpoint:
    """What a router would run: the label of its route and the marks and guards that it stands under.

    `pattern` are all paths that may lead to it. `resolves_paths` says that it finds out itself what a path leads to, as
    a file server does. `policies` is filled by the rules of the gate that asks, and dies with the table of routes.
    """

    __slots__ = ("by_method", "marks", "name", "pattern", "policies", "resolves_paths", "route", "takes_identity")

    def __init__(
        self,
        route: str,
        name: str,
        marks: Sequence[Mark] = (),
        by_method: Mapping[str, Sequence[Mark]] | None = None,
        *,
        takes_identity: bool = False,
        resolves_paths: bool = False,
        pattern: PathPattern = EVERYTHING,
    ) -> None:
        self.route = route
        self.name = name
        self.marks = tuple(marks)
        self.by_method = dict(by_method or {})
        self.takes_identity = takes_identity
        self.resolves_paths = resolves_paths
        self.pattern = pattern
        self.policies = Policies(None)

    def marks_for(self, method: str) -> tuple[Mark, ...]:
        """Return the marks that hold for a method."""
        return (*self.marks, *self.by_method.get(method, ()))

    def all_marks(self) -> tuple[Mark, ...]:
        """Return the marks that hold for some method."""
        return (*self.marks, *(mark for marks in self.by_method.values() for mark in marks))


class Betrayed(NamedTuple):
    """An endpoint whose existence a router's own 405 or redirect tells, and the requests that would reach it."""

    endpoint: Endpoint
    methods: tuple[str, ...]
    path: str


class Place(NamedTuple):
    """Where something stands in the app, for what must look as if it were missing.

    `missing_at` is the id of the router that answers where all of it is concealed. For a rule that conceals a whole
    group, `mounts` has the groups on the way, the outermost first, each with the id of the router that it stands in.
    """

    missing_at: int | None = None
    mounts: tuple[tuple[PathPattern, int], ...] = ()


_NO_PLACE: Final = Place()


@dataclass(frozen=True, slots=True)
class Found:
    """What the app's own router would do with a request.

    `endpoint` is what it would run. Where it would run nothing (its own 404, 405 or redirect), that is the group that
    lets the request in, or `None` outside of all groups that stand under something; `betrayed` is what such an answer
    tells. `takes_dot_segments`: a path parameter of the route itself takes them. `own_path` is the path as the route
    spells it, where the router takes another spelling for the same.
    """

    endpoint: Endpoint | None
    place: Place = _NO_PLACE
    takes_dot_segments: bool = False
    betrayed: Betrayed | None = None
    own_path: str | None = None


class Served(NamedTuple):
    """One kind of request that the app serves: a rule that meets none of these can never apply.

    `params` are the names of the path parameters. What has the same `key` as something earlier never gets a request.
    `answered` are the methods that the framework answers by itself, about the endpoint and by its policy.
    """

    pattern: PathPattern
    methods: frozenset[str] | None
    endpoint: Endpoint
    params: frozenset[str]
    key: str | None = None
    answered: frozenset[str] = frozenset()


class Covered(NamedTuple):
    """One kind of request that an app serves, and the policy that it meets.

    `method` is `"*"` where the endpoint takes any. `path` is the route's, and `part` the path of a rule that fits only
    some of the route's paths, else `None`. `endpoint` is the name of the function, class or app. `policy` is in words;
    `written` says where its rule, guards and marks stand, each as `file:line`. Where nobody wrote a policy,
    `is_default` is true and `written` is empty. `requirement` is all that must hold, as a value.
    """

    method: str
    path: str
    part: str | None
    endpoint: str
    policy: str
    written: tuple[str, ...]
    is_default: bool
    requirement: Requirement


class Asked(NamedTuple, Generic[Native]):
    """A request as routes are asked for it: as its framework knows it, its path, and a place for what they say."""

    native: Native
    path: str
    answer: list[Any]


class Walked(Protocol):
    """What was found by walking through an app, whatever its framework."""

    @property
    def mistakes(self) -> Mistakes:
        """What cannot be asked for its routes, and so cannot be guarded."""
        ...

    @property
    def served(self) -> Sequence[Served]:
        """Every kind of request that the app serves, in the order in which its router asks."""
        ...

    @property
    def has_hosts(self) -> bool:
        """Whether it depends on the host which endpoint a path leads to."""
        ...

    @property
    def answers_itself(self) -> Sequence[str]:
        """The places whose unknown paths the app answers in a way of its own."""
        ...

    @property
    def conceals(self) -> bool:
        """Whether any mark in the app makes refusals look like missing routes."""
        ...

    def misplaced(self) -> Mistakes:
        """Return what must not stand inside of a gate, and does."""
        ...


class Routes(Protocol[Native_contra]):
    """The routes of one app, asked for what would run."""

    @property
    def usual(self) -> frozenset[str]:
        """Paths of which it is known that they are neither malformed nor hold dot segments."""
        ...

    def find(self, native: Native_contra) -> tuple[Found, Mapping[str, object]]:
        """Return what the app's own router would do with this request, and the converted path parameters."""
        ...

    def header_lines(self, native: Native_contra, names: frozenset[str]) -> Mapping[str, tuple[str, ...]]:
        """Return those of the header fields that a request has: lower-case name to all its values, in order."""
        ...


class RulesAlone:
    """The routes of an app that cannot be looked into: all of it is one endpoint."""

    usual: Final[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self._found = Found(Endpoint("", "app", resolves_paths=True)), _NO_PARAMS

    def find(self, native: object) -> tuple[Found, Mapping[str, object]]:
        """See `Routes`."""
        del native
        return self._found

    def header_lines(self, native: object, names: frozenset[str]) -> Mapping[str, tuple[str, ...]]:
        """See `Routes`. Rules are known before any request, and what they look at has been read."""
        del native, names
        return {}


RULES_ALONE: Final = RulesAlone()
