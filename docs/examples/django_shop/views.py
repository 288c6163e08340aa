"""The views of the shop."""

import json

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import View
from rest_framework.decorators import api_view
from rest_framework.request import Request
from rest_framework.response import Response

from authz403 import Reason, authenticated, check, requires, scopes

ORDERS = {1: {"owner": "alice", "item": "lamp"}, 2: {"owner": "bob", "item": "chair"}}


def health(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


class Orders(View):
    @requires(scopes("orders:read"))
    def get(self, request: HttpRequest) -> JsonResponse:
        own = [number for number, order in ORDERS.items() if order["owner"] == request.principal.sub]
        return JsonResponse({"orders": own})

    @requires(scopes("orders:write"))
    def post(self, request: HttpRequest) -> JsonResponse:
        item = json.loads(request.body)["item"]
        return JsonResponse({"owner": request.principal.sub, "item": item}, status=201)


@requires(scopes("orders:read"))
async def order(request: HttpRequest, number: int) -> JsonResponse:
    if number not in ORDERS:
        raise Http404
    check(ORDERS[number]["owner"] == request.principal.sub, Reason.NOT_OWNER, order=number)
    return JsonResponse(ORDERS[number])


@api_view(["GET"])
@requires(authenticated)
def whoami(request: Request) -> Response:
    return Response({"sub": request.principal.sub, "scopes": sorted(request.principal.scopes)})
