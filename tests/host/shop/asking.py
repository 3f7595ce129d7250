"""A call of a model, which counts against the limit of whoever asks."""

from flask import Flask, request
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_required

from govbudget import Call, GovBudgetError, Installation, Tokens
from shop.budgets import SHOP_ITSELF

AT_MOST = Tokens(input=1_000, output=1_000)


def add_asking(app: Flask) -> None:
    gov: Installation = app.extensions["govbudget"]

    @app.post("/companies/<int:company_id>/ask")
    @login_required
    def ask(company_id: int) -> ResponseReturnValue:
        call = Call(company_id, current_user.id, "acme", "parrot")
        try:
            with gov.hold(SHOP_ITSELF, call, AT_MOST) as hold:
                answer, taken = call_model(request.form["question"])
                hold.settle(taken)
        except GovBudgetError as refusal:
            return f"{refusal}\n", refusal.status
        return answer


def call_model(question: str) -> tuple[str, Tokens]:
    """Stand for a real model: give its answer, and the tokens that it says it took."""
    return f"{question}, {question}\n", Tokens(input=900, output=800)
