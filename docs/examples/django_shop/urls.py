"""The paths of the shop."""

from django.urls import path

from django_shop import views

urlpatterns = [
    path("health", views.health),
    path("orders", views.Orders.as_view()),
    path("orders/<int:number>", views.order),
    path("whoami", views.whoami),
]
