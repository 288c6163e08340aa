"""Networks from files that are read again when they change, and the health endpoint that tells of them."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from authz403 import AddressFile, Gate, Network, Rule, anyone, networks
from authz403.asgi import AuthzMiddleware

LISTS = Path(__file__).parent / "lists"

gate = Gate(
    network=Network(deny=AddressFile(LISTS / "banned.txt", may_be_empty=True)),
    rules=[
        Rule("GET", "/health", networks("127.0.0.1", "::1")),
        Rule("*", "/reports", networks("10.0.0.0/8", AddressFile(LISTS / "partners.txt"))),
        Rule("GET", "/", anyone),
    ],
)
app = FastAPI(openapi_url=None)
app.add_middleware(AuthzMiddleware, gate=gate)


@app.get("/health")
async def health() -> JSONResponse:
    return JSONResponse(gate.health())


@app.get("/reports")
async def reports() -> str:
    return "numbers"


@app.get("/")
async def start() -> str:
    return "welcome"
