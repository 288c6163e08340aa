"""The orders of the shop."""

from flask import Blueprint, abort, g, request
from flask.views import MethodView

from authz403 import Reason, authenticated, check, guard, requires, scopes

orders = guard(Blueprint("orders", __name__, url_prefix="/orders"), authenticated)
ORDERS = {1: {"owner": "alice", "item": "lamp"}, 2: {"owner": "bob", "item": "chair"}}


class Orders(MethodView):
    @requires(scopes("orders:read"))
    def get(self) -> list[int]:
        return [number for number, order in ORDERS.items() if order["owner"] == g.principal.sub]

    @requires(scopes("orders:write"))
    def post(self) -> tuple[dict[str, str], int]:
        return {"owner": g.principal.sub, "item": str(request.get_json()["item"])}, 201


@orders.get("/<int:number>")
@requires(scopes("orders:read"))
def order(number: int) -> dict[str, str]:
    if number not in ORDERS:
        abort(404)
    check(ORDERS[number]["owner"] == g.principal.sub, Reason.NOT_OWNER, order=number)
    return ORDERS[number]


orders.add_url_rule("", view_func=Orders.as_view("orders"))
