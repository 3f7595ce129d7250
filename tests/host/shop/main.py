"""The shop with budgets: what is run."""

from flask import Flask

from shop.app import create_app as create_shop
from shop.asking import add_asking
from shop.budgets import add_budgets
from shop.team_form import add_team_form


def create_app() -> Flask:
    app = create_shop()
    add_budgets(app)
    add_team_form(app)
    add_asking(app)
    return app
