"""The form of a team: its name and its limit change together, or not at all."""

from flask import Flask, abort, jsonify, request
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_required

from govbudget import GovBudgetError, Installation
from shop.models import Team, db


def add_team_form(app: Flask) -> None:
    gov: Installation = app.extensions["govbudget"]

    @app.post("/teams/<int:team_id>/form")
    @login_required
    def change_team(team_id: int) -> ResponseReturnValue:
        team = db.get_or_404(Team, team_id)
        # What raises before the commit undoes all of it, when the session ends with the request.
        with gov.unit(current_user.id, connection=db.session.connection()) as unit:
            try:
                grant = unit.authorize("update", group=team_id)
            except GovBudgetError as refusal:
                abort(refusal.status)
            team.name = request.form["name"]
            budget = gov.budgets.set(grant, int(request.form["limit"]))
        db.session.commit()
        return jsonify(team=team_id, limit=budget.spend_limit_micros)
