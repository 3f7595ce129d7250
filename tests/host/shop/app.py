"""The shop as it was before: log-in, teams, and its own ways of answering."""

import os

import sqlalchemy as sa
from flask import Flask, Response, abort, jsonify, request, session
from flask.json.provider import DefaultJSONProvider

from shop.database import company, engine, fill, person, seat, team


class ShopJson(DefaultJSONProvider):
    """The shop's own way to write JSON."""

    ensure_ascii = False
    sort_keys = False
    mimetype = "application/vnd.shop+json"


def require_login() -> int:
    """Give who is logged in; end the request where nobody is."""
    person_id: int = session.get("person_id") or abort(401)
    return person_id


def create_app() -> Flask:
    app = Flask(__name__)
    app.secret_key = os.environ["SHOP_SECRET"]
    app.json = ShopJson(app)
    app.cli.command("init-db")(fill)

    @app.post("/login")
    def log_in() -> str:
        """Stand for a real log-in: whoever gives a name is taken for that person."""
        named = sa.select(person.c.id).where(person.c.name == request.form["name"])
        with engine.connect() as connection:
            session["person_id"] = connection.scalar(named)
        return f"hello {request.form['name']}\n"

    @app.get("/teams/")
    def list_teams() -> Response:
        mine = sa.select(team.c.id, team.c.name, company.c.name.label("company"))
        mine = mine.join(company).join(seat).where(seat.c.person_id == require_login())
        with engine.connect() as connection:
            return jsonify([dict(row) for row in connection.execute(mine).mappings()])

    @app.delete("/teams/<int:team_id>")
    def close_team(team_id: int) -> tuple[str, int]:
        with engine.begin() as connection:
            gone = connection.execute(team.delete().where(team.c.id == team_id))
        return ("", 204) if gone.rowcount else abort(404)

    @app.errorhandler(404)
    def show_nothing(_error: Exception) -> tuple[str, int]:
        return "<h1>The shop has no such page</h1>\n", 404

    @app.after_request
    def sign(response: Response) -> Response:
        response.headers["X-Shop"] = "open"
        return response

    return app
