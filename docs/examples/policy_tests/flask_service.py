"""A Flask service of fifty routes: ten blueprints, each with the five usual ones."""

from flask import Blueprint, Flask

import authz403.flask
from authz403 import BearerTokens, Gate, Rule, authenticated, guard, networks, param, permissions, requires, roles

NAMES = ["orders", "items", "carts", "invoices", "refunds", "parcels", "returns", "coupons", "reviews", "stocks"]

gate = Gate(
    tokens=BearerTokens(issuer="https://id.example", audience="shop-api", algorithms=["RS256"]),
    rules=[Rule("DELETE", "/users/**", networks("10.0.0.0/8"))],
)


def collection(name: str) -> Blueprint:
    blueprint = guard(Blueprint(name, __name__, url_prefix=f"/users/<user>/{name}"), param("user", claim="sub"))

    @blueprint.get("/")
    @requires(permissions(f"{name}:read"))
    def listed(user: str) -> list[str]:
        return [user]

    @blueprint.post("/")
    @requires(permissions(f"{name}:write") & ~roles("guest"))
    def made(user: str) -> str:
        return user

    @blueprint.get("/<int:number>")
    @requires(permissions(f"{name}:read"))
    def one(user: str, number: int) -> list[int]:
        return [number]

    @blueprint.put("/<uuid:key>")
    @requires(permissions(f"{name}:write") | roles("admin"))
    def replaced(user: str, key: object) -> str:
        return str(key)

    @blueprint.delete("/<int:number>")
    @requires(authenticated.stepped_up(max_age=300))
    def deleted(user: str, number: int) -> list[int]:
        return [number]

    return blueprint


app = Flask(__name__, static_folder=None)
for name in NAMES:
    app.register_blueprint(collection(name))
authz403.flask.init_app(app, gate=gate)
