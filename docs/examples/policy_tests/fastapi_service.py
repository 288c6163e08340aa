"""A FastAPI service of fifty routes: ten collections, each with the five usual ones."""

from fastapi import APIRouter, FastAPI

from authz403 import BearerTokens, Gate, Network, Rbac, Rule, any_role, claim, networks, param, requires, scopes
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import needs

NAMES = ["orders", "items", "carts", "invoices", "refunds", "parcels", "returns", "coupons", "reviews", "stocks"]

gate = Gate(
    tokens=BearerTokens(issuer="https://sso.example/realms/shop", audience="shop-api", claims="keycloak"),
    rules=[Rule("DELETE", "/tenants/**", any_role("admin") & networks("10.0.0.0/8"))],
    rbac=Rbac(hierarchy={"root": ["admin"]}),
    network=Network(trusted_proxies=["172.16.0.0/12"]),
)


def collection(name: str) -> APIRouter:
    router = APIRouter(prefix=f"/tenants/{{tenant}}/{name}", dependencies=[needs(param("tenant", claim="tenant"))])
    read, write = requires(scopes(f"{name}:read")), requires(scopes(f"{name}:write"))

    @router.get("")
    @read
    def listed(tenant: str) -> list[str]:
        return [tenant]

    @router.post("")
    @requires(scopes(f"{name}:write") & claim("plan", "pro"))
    def made(tenant: str) -> str:
        return tenant

    @router.get("/{number}")
    @read
    def one(tenant: str, number: int) -> int:
        return number

    @router.put("/{number}")
    @write
    def replaced(tenant: str, number: int) -> int:
        return number

    @router.delete("/{number}")
    @write
    def deleted(tenant: str, number: int) -> int:
        return number

    return router


app = FastAPI(openapi_url=None)
app.add_middleware(AuthzMiddleware, gate=gate)
for name in NAMES:
    app.include_router(collection(name))
