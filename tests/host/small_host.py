"""A small host: its own application factory, its own database setting, its own policy folder."""

from __future__ import annotations

import os

import sqlalchemy as sa
from flask import Flask, request

from govbudget import GovBudget


def create_app():
    app = Flask(__name__)
    app.config["GOVBUDGET_SCHEMA"] = "money"
    GovBudget(
        app,
        engine=sa.create_engine(os.environ["HOST_DATABASE"], poolclass=sa.NullPool),
        identify=lambda: request.headers.get("X-User"),
        policy=os.environ.get("HOST_POLICY") or None,
    )
    return app


def create_bare_app():
    """The same host without govbudget."""
    return Flask(__name__)
