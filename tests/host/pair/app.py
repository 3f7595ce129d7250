"""Two applications in one process: two policies, two databases, two prefixes, two kinds of ids.

`GOVBUDGET=no` in the environment leaves the budgets out, to compare with.
"""

import os

import sqlalchemy as sa
from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.middleware.dispatcher import DispatcherMiddleware


def make_one(name: str) -> Flask:
    """Make an application with a page, and an answer of its own to any error."""
    app = Flask(name)

    @app.get("/hello")
    def hello() -> ResponseReturnValue:
        return jsonify(hello=name, to=request.headers.get("X-User"))

    @app.get("/fail")
    def fail() -> ResponseReturnValue:
        raise RuntimeError(name)

    @app.post("/api/v2/users", endpoint="add_user")
    @app.post("/ai/users", endpoint="add_user")
    def add_user() -> ResponseReturnValue:
        return f"{name}: a new user\n"

    @app.errorhandler(Exception)
    def explain(error: Exception) -> ResponseReturnValue:
        return f"{name}: {type(error).__name__}\n", getattr(error, "code", 500)

    return app


def add_budgets(first: Flask, second: Flask) -> None:
    from govbudget import GovBudget, SqlDirectory
    from govbudget.authz.files import packaged_policy_dir

    def identify() -> str | None:
        return request.headers.get("X-User")

    budgets = GovBudget(identify=identify)
    engines = [sa.create_engine(os.environ[name]) for name in ("FIRST_DATABASE", "SECOND_DATABASE")]
    budgets.init_app(first, engine=engines[0])

    crew = sa.table("crew", *map(sa.column, ("group_id", "organization_id", "user_id", "role")))
    people = sa.select(crew.c.user_id, crew.c.organization_id)
    second.config.update(
        GOVBUDGET_ID_TYPE="bigint",
        GOVBUDGET_GROUPS="none",
        GOVBUDGET_BUDGET_OBJECT="group_ai_budget",
        GOVBUDGET_URL_PREFIX="/ai",
    )
    budgets.init_app(
        second,
        engine=engines[1],
        policy=packaged_policy_dir() / "dedicated",
        directory=SqlDirectory(
            groups=sa.select(crew.c.group_id.label("id"), crew.c.organization_id).distinct(),
            group_members=sa.select(crew.c.group_id, crew.c.user_id),
            organization_members=people.distinct(),
            role_assignments=people.add_columns(crew.c.role).distinct(),
            roles={"treasurer": "budget-admin", "chief": "org-admin"},
        ),
    )


first, second = make_one("first"), make_one("second")
if os.environ.get("GOVBUDGET") != "no":
    add_budgets(first, second)


def create_app() -> Flask:
    """Give the first one, with the second one under a path of its own."""
    mounted = DispatcherMiddleware(first.wsgi_app, {"/second": second.wsgi_app})
    first.wsgi_app = mounted  # type: ignore[method-assign]
    return first
