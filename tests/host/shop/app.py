"""The shop as it was before: log-in, teams, and its own ways of answering."""

import os

from flask import Flask, Response, jsonify, request
from flask.json.provider import DefaultJSONProvider
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, current_user, login_required, login_user
from flask_migrate import Migrate
from sqlalchemy import select

from shop.models import Company, Person, Seat, Team, db, fill

login, migrate = LoginManager(), Migrate()


@login.user_loader
def load_person(person_id: str) -> Person | None:
    return db.session.get(Person, int(person_id))


class ShopJson(DefaultJSONProvider):
    """The shop's own way to write JSON."""

    ensure_ascii = False
    sort_keys = False
    mimetype = "application/vnd.shop+json"


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["SECRET_KEY"] = os.environ["SHOP_SECRET"]
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["SHOP_DATABASE"]
    app.json = ShopJson(app)
    db.init_app(app)
    login.init_app(app)
    migrate.init_app(app, db)
    app.cli.command("fill")(fill)

    @app.post("/login")
    def log_in() -> ResponseReturnValue:
        """Stand for a real log-in: whoever gives a name is taken for that person."""
        named = select(Person).filter_by(name=request.form["name"])
        person = db.session.scalar(named)
        if person is None:
            return login.unauthorized()
        login_user(person)
        return f"hello {person.name}\n"

    @app.get("/teams/")
    @login_required
    def list_teams() -> Response:
        mine = select(Team.id, Team.name, Company.name.label("company")).join(Company).join(Seat)
        mine = mine.where(Seat.person_id == current_user.id)
        return jsonify([dict(row) for row in db.session.execute(mine).mappings()])

    @app.delete("/teams/<int:team_id>")
    def close_team(team_id: int) -> tuple[str, int]:
        db.session.delete(db.get_or_404(Team, team_id))
        db.session.commit()
        return "", 204

    @app.errorhandler(404)
    def show_nothing(_error: Exception) -> tuple[str, int]:
        return "<h1>The shop has no such page</h1>\n", 404

    @app.after_request
    def sign(response: Response) -> Response:
        response.headers["X-Shop"] = "open"
        return response

    return app
