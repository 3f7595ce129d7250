"""The shop with routes of its own under govbudget's prefix: with budgets, and as it was before."""

from flask import Flask

from shop import app as bare
from shop.asking import add_asking
from shop.budgets import add_budgets
from shop.team_form import add_team_form


def add_routes(app: Flask) -> Flask:
    @app.post("/api/v2/users")
    def add_user() -> str:
        """Answer under the prefix that govbudget's routes have, too, as the next ones do."""
        return "a new user\n"

    @app.get("/api/v2/groups/<group>")
    def show_group(group: str) -> str:
        return f"group {group}\n"

    @app.get("/api/v2/ai/usage")
    def show_usage() -> str:
        """Answer on a path of govbudget's, to another method."""
        return "the shop's own numbers\n"

    return app


def create_app() -> Flask:
    app = create_bare()
    add_budgets(app)
    add_team_form(app)
    add_asking(app)
    return app


def create_bare() -> Flask:
    return add_routes(bare.create_app())
