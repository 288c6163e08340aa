"""A proxy in front signs callers in and says who they are by a token in a header of its own."""

from fastapi import FastAPI

from authz403 import BearerTokens, Gate, authenticated, requires
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import CurrentPrincipal

SECRET = "only-for-trying-out-0123456789abcdef"

gateway = BearerTokens(
    issuer="https://gateway.example",
    audience="orders-api",
    read_from="x-gateway-token",
    key=SECRET,
    algorithms=["HS256"],
)

app = FastAPI()
app.add_middleware(AuthzMiddleware, gate=Gate(tokens=gateway))


@app.get("/whoami")
@requires(authenticated)
async def whoami(user: CurrentPrincipal) -> dict[str, str]:
    return {"you": user.sub}


def google_iap(project: int, service: int) -> BearerTokens:
    return BearerTokens(
        issuer="https://cloud.google.com/iap",
        audience=f"/projects/{project}/global/backendServices/{service}",
        jwks_url="https://www.gstatic.com/iap/verify/public_key-jwk",
        algorithms=["ES256"],
        read_from="x-goog-iap-jwt-assertion",
    )


def cloudflare_access(team: str, audience: str) -> BearerTokens:
    issuer = f"https://{team}.cloudflareaccess.com"
    return BearerTokens(
        issuer=issuer,
        audience=audience,
        jwks_url=f"{issuer}/cdn-cgi/access/certs",
        claims={"client_id": "common_name"},  # who a service token is; a person's has a sub
        read_from="cf-access-jwt-assertion",
    )
