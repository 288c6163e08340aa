"""The settings of the shop."""

import os

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "only-for-trying-out")
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "django_shop.urls"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "rest_framework"]
MIDDLEWARE = [
    "authz403.django.AuthzMiddleware",
    "django.middleware.common.CommonMiddleware",
]
AUTHZ403_GATE = "django_shop.policy.gate"
REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": [], "DEFAULT_PERMISSION_CLASSES": []}
