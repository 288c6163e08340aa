"""The floors of the package: a file imports only from lower floors, and third-party imports stay in their rooms."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "authz403"

# Lowest first. A file, or a folder with all its files, is one room and named once; it imports only from lower floors.
FLOORS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "reasons request principal need bounded origins cidr forms",
        "errors",
        "addresses paths cors jose fetch credentials claims implication",
        "keys network address_file",
        "decision facts fulfil",
        "policy",
        "leaves tokens rbac marks problem audit",
        "requirements csrf endpoint route_objects role_lookup hints explanation",
        "checks rules routing authorizer identity watched layers findings health diagnosis",
        "walk flask_routes django_routes",
        "coverage asking witness",
        "gate",
        "startup asgi_io wsgi_io openapi",
        "door short_way",
        "asgi wsgi",
        # The roof: what users import.
        "starlette fastapi flask django client",
        "guarded",
        "__init__",
        "testing cli",
        "__main__",
    )
)

# The files that may import a third-party package: a folder ends in a slash, and `local` means inside a function only,
# so that importing the file costs nothing. The demo is an app with its own issuer and client, so it uses what they use.
ROOMS: dict[str, frozenset[str]] = {
    "jwt": frozenset({"jose", "cli/demo_service", "testing/signing"}),
    "cryptography": frozenset({"jose", "cli/demo_service", "testing/signing"}),
    "structlog": frozenset({"audit"}),
    "starlette": frozenset(
        {"route_objects", "routing", "layers", "walk", "asgi_io", "door", "short_way", "asgi", "starlette"}
        | {"cli/demo_service", "testing/clients:local"}
    ),
    "httpx2": frozenset({"fetch:local", "cli/demo", "testing/clients:local"}),
    "fastapi": frozenset({"fastapi", "route_objects:local", "cli/demo_service"}),
    "flask": frozenset({"flask", "flask_routes"}),
    "werkzeug": frozenset({"flask", "flask_routes"}),
    "django": frozenset(
        {"django", "django_routes", "cli/loading:local", "testing/clients:local", "testing/seam:local"}
    ),
    "asgiref": frozenset({"django"}),
    "publicsuffixlist": frozenset({"origins:local"}),
    "click": frozenset({"cli/"}),
    "uvicorn": frozenset({"cli/"}),
    "websockets": frozenset({"cli/"}),
}


class Import(NamedTuple):
    """One module that a file imports, and whether it does so inside a function."""

    line: int
    module: str
    local: bool


def floor_of(room: str) -> int | None:
    """Return the number of the floor that a room is on."""
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)


def imports_of(tree: ast.AST, *, local: bool = False) -> Iterator[Import]:
    """Yield every import of a syntax tree, those for type checkers and those inside functions too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, local) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if module == "authz403":
                # `from authz403 import gate` names a room, `from authz403 import Gate` the public names.
                for alias in node.names:
                    suffix = f".{alias.name}" if floor_of(alias.name) is not None else ""
                    yield Import(node.lineno, module + suffix, local)
            else:
                yield Import(node.lineno, module, local)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_of(node, local=local or inside)


def file_of(path: Path) -> str:
    """Return a file's name within the package, without its suffix."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def room_of(file: str) -> str:
    """Return the room that a file belongs to: its own name, or that of its folder."""
    return file.partition("/")[0]


def wrong_with(file: str, found: Import) -> str | None:
    """Say which law an import of a file breaks, if any."""
    room = room_of(file)
    floor = floor_of(room)
    if floor is None:
        return f"{room} stands on no floor; give it one in FLOORS"
    if found.module.startswith("."):
        return "relative import; write authz403.name"
    top, _, rest = found.module.partition(".")
    if top == "authz403":
        target = rest.partition(".")[0] or "__init__"
        target_floor = floor_of(target)
        if target_floor is None:
            return f"{target} stands on no floor; give it one in FLOORS"
        if target != room and target_floor >= floor:
            return f"{target} is on floor {target_floor}, not below floor {floor}"
        return None
    if top in sys.stdlib_module_names:
        return None
    allowed = ROOMS.get(top, frozenset[str]())
    if file in allowed or f"{room}/" in allowed or (found.local and f"{file}:local" in allowed):
        return None
    return f"{top} does not belong in {file}"


def crossings(file: str, source: str) -> list[str]:
    """Return what is wrong with the imports of a file."""
    told = ((found, wrong_with(file, found)) for found in imports_of(ast.parse(source)))
    return [f"{file}:{found.line} imports {found.module}: {why}" for found, why in told if why is not None]


def test_every_file_stands_on_exactly_one_floor() -> None:
    """A room that nobody gave a floor, or that stands on two, fails."""
    rooms = {room_of(file_of(path)) for path in PACKAGE.rglob("*.py")}

    assert rooms, "no source found"
    assert {room: sum(room in floor for floor in FLOORS) for room in rooms} == dict.fromkeys(rooms, 1)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=file_of)
def test_a_file_imports_only_what_its_floor_allows(path: Path) -> None:
    """A file imports only from lower floors, and a third-party package only where it belongs."""
    assert crossings(file_of(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("file", "source", "why"),
    [
        ("cors", "from authz403.gate import Gate", "gate is on floor 11, not below floor 2"),
        ("addresses", "from authz403.cors import Cors", "cors is on floor 2, not below floor 2"),
        ("policy", "if TYPE_CHECKING:\n    from authz403.gate import Gate", "gate is on floor 11, not below floor 5"),
        ("policy", "def late():\n    import authz403.gate", "gate is on floor 11, not below floor 5"),
        ("gate", "from authz403 import Principal", "__init__ is on floor 17, not below floor 11"),
        ("gate", "from authz403 import asgi", "asgi is on floor 14, not below floor 11"),
        ("gate", "from . import asgi", "relative import; write authz403.name"),
        ("gate", "from authz403.utils import chunked", "utils stands on no floor; give it one in FLOORS"),
        ("utils", "import re", "utils stands on no floor; give it one in FLOORS"),
        ("tokens", "import jwt", "jwt does not belong in tokens"),
        ("tokens", "from cryptography.x509 import Certificate", "cryptography does not belong in tokens"),
        ("gate", "import structlog", "structlog does not belong in gate"),
        ("gate", "from starlette.routing import Router", "starlette does not belong in gate"),
        ("keys", "def fetch():\n    import httpx2", "httpx2 does not belong in keys"),
        ("fetch", "import httpx2", "httpx2 does not belong in fetch"),
        ("routing", "from fastapi.routing import APIRoute", "fastapi does not belong in routing"),
        ("asgi", "import uvicorn", "uvicorn does not belong in asgi"),
        ("cli/commands", "import jwt", "jwt does not belong in cli/commands"),
        ("reasons", "import yaml", "yaml does not belong in reasons"),
    ],
)
def test_a_crossing_is_found(file: str, source: str, why: str) -> None:
    """The law can fail: each kind of crossing is told with its line."""
    (told,) = crossings(file, source)

    assert told.endswith(f": {why}")


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("gate", "from __future__ import annotations\nimport re\nfrom authz403.cors import Cors"),
        ("fetch", "def fetch():\n    import httpx2"),
        ("route_objects", "try:\n    pass\nfinally:\n    def walk():\n        from fastapi.routing import APIRoute"),
        ("jose", "import jwt\nfrom cryptography import x509"),
        ("cli/commands", "import click\nimport authz403.cli.demo\nfrom authz403 import Gate"),
        ("__main__", "from authz403.cli import main"),
    ],
)
def test_a_lawful_import_is_no_crossing(file: str, source: str) -> None:
    """What the floors allow is not reported."""
    assert crossings(file, source) == []


def test_the_public_names_load_no_framework_and_no_server() -> None:
    """`import authz403` stays cheap: frameworks, servers, the HTTP client and the command line load when used."""
    program = "import sys, authz403; print(*{name.partition('.')[0] for name in sys.modules})"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout.split()

    assert "authz403" in loaded
    assert {"fastapi", "flask", "django", "uvicorn", "httpx2", "click"}.isdisjoint(loaded)
