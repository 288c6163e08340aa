"""A small shop by Flask."""

from flask import Flask

import authz403.flask
from flask_shop.orders import orders
from flask_shop.policy import gate


def create_app() -> Flask:
    app = Flask(__name__)
    app.register_blueprint(orders)
    app.add_url_rule("/health", view_func=health)
    authz403.flask.init_app(app, gate=gate)
    authz403.flask.meet(app)
    return app


def health() -> str:
    return "ok"
