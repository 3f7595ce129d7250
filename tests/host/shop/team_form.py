"""The form of a team: its name and its limit change together, or not at all."""

from flask import Flask, abort, jsonify, request
from flask.typing import ResponseReturnValue

from govbudget import GovBudgetError, Installation
from shop.app import require_login
from shop.database import engine, team


def add_team_form(app: Flask) -> None:
    gov: Installation = app.extensions["govbudget"]

    @app.post("/teams/<int:team_id>/form")
    def change_team(team_id: int) -> ResponseReturnValue:
        person_id = require_login()
        named = team.update().where(team.c.id == team_id).values(name=request.form["name"])
        # What raises in this block undoes all of it.
        with engine.begin() as connection, gov.unit(person_id, connection=connection) as unit:
            try:
                grant = unit.authorize("update", group=team_id)
            except GovBudgetError as refusal:
                abort(refusal.status)
            connection.execute(named)
            budget = gov.budgets.set(grant, int(request.form["limit"]))
        return jsonify(team=team_id, limit=budget.spend_limit_micros)
