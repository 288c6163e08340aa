"""How many machine instructions a guarded request takes, as a multiple of a bare one: a budget that noise cannot trip.

Run: `make instructions`, which needs valgrind. A fixed loop of requests runs twice under callgrind, short and long, and
the difference divided by the further requests is what one takes; start-up cancels out. Repeated runs agree to half a
percent on any machine, while times differ by a tenth. Exits with 1 where a row is over its budget: then either find the
waste, or raise the budget here and say in the commit what it buys.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

SHORT, LONG = 100, 600  # requests
# CPython's own instructions differ from version to version, and the bare app's with them.
BUDGETS: Final = {"allowed": 1.98, "public": 1.83, "refused": 1.06}


def serve(row: str, requests: int) -> None:
    """Serve requests of one row, one after the other, in this process."""
    import jwt  # noqa: PLC0415 - the parent process needs none of these
    from starlette.applications import Starlette  # noqa: PLC0415 - as above
    from starlette.requests import Request  # noqa: PLC0415 - as above
    from starlette.responses import PlainTextResponse  # noqa: PLC0415 - as above
    from starlette.routing import Route  # noqa: PLC0415 - as above

    from authz403 import BearerTokens, Cors, Gate, Network, Rbac, any_role, networks, public, requires, scopes  # noqa: PLC0415 - as above
    from authz403.asgi import AuthzMiddleware  # noqa: PLC0415 - as above

    logging.getLogger("authz403").setLevel(logging.CRITICAL)
    secret = "0123456789abcdef" * 2
    claims = {"iss": "i", "aud": "a", "sub": "alice", "roles": ["seller"], "exp": 4_102_444_800}
    scope = "orders:write" if row == "refused" else "orders:read"
    bearer = jwt.encode(claims | {"scope": scope}, secret, algorithm="HS256", headers={"typ": "at+jwt"})

    @requires(scopes("orders:read") & any_role("seller") & networks("10.0.0.0/8"))
    async def orders(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    @public
    async def home(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/orders", orders), Route("/public", home)])
    if row != "bare":
        gate = Gate(
            tokens=BearerTokens(issuer="i", audience="a", key=secret, algorithms=["HS256"]),
            rbac=Rbac(hierarchy={"admin": ["seller"]}),
            network=Network(trusted_proxies=["127.0.0.1/32"]),
            cors=Cors(origins=["https://app.example"]),
        )
        gate.findings.due = float("inf")  # else it would look closely at the first 1,000 requests
        app.add_middleware(AuthzMiddleware, gate=gate)
    headers = {
        "host": "api.example", "user-agent": "Mozilla/5.0", "accept": "application/json", "accept-encoding": "gzip",
        "accept-language": "en", "origin": "https://app.example", "referer": "https://app.example/",
        "x-forwarded-for": "10.1.2.3", "x-request-id": "6b1f5f4e", "authorization": f"Bearer {bearer}",
    }  # fmt: skip
    path = "/public" if row == "public" else "/orders"
    request: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": path,
        "raw_path": path.encode(), "root_path": "", "query_string": b"", "scheme": "http", "state": {},
        "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 80),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    expected = 403 if row == "refused" else 200

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:  # noqa: ANN401 - as ASGI has it
        assert message.get("status", expected) == expected, message

    async def loop() -> None:
        for _ in range(requests):
            await app(dict(request), receive, send)

    asyncio.run(loop())


def instructions(row: str, requests: int) -> int:
    """Return the instructions that a process takes which serves so many requests."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, __file__, row]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    ran = subprocess.run([*command, str(requests)], capture_output=True, text=True, env=environment, check=True)  # noqa: S603 - this file
    told = ran.stderr
    found = re.search(r"Collected : (\d+)", told)
    assert found is not None, told
    return int(found[1])


def main() -> int:
    """Measure all rows, print them, and return how many are over their budget."""
    if shutil.which("valgrind") is None:
        print("No valgrind here: instructions are not counted (apt-get install valgrind).")
        return int(bool(os.environ.get("AUTHZ403_REQUIRE_ALL")))
    rows = ("bare", *BUDGETS)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        asked = {(row, count): pool.submit(instructions, row, count) for row in rows for count in (SHORT, LONG)}
        taken = {row: (asked[row, LONG].result() - asked[row, SHORT].result()) / (LONG - SHORT) for row in rows}
    print(f"CPython {sys.version.split()[0]}, instructions a request (callgrind)\n")
    print(f"{'':12}{'instructions':>14}{'ratio':>8}{'budget':>8}")
    over = 0
    for row in rows:
        ratio, budget = taken[row] / taken["bare"], BUDGETS.get(row, 1.0)
        over += ratio > budget
        print(f"{row:12}{taken[row]:14,.0f}{ratio:8.3f}{budget:8.2f}{'  over' if ratio > budget else ''}")
    return over


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1], int(sys.argv[2]))
    else:
        sys.exit(1 if main() else 0)
