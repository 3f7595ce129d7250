"""AI budgets for the shop's teams."""

import sqlalchemy as sa
from flask import Flask, session

from govbudget import GovBudget, SqlDirectory
from shop.database import engine, job, seat, team

# The shop itself, as far as it calls models for people: nobody logs in as 0.
SHOP_ITSELF = 0


def add_budgets(app: Flask) -> None:
    organization_id = job.c.company_id.label("organization_id")
    user_id = job.c.person_id.label("user_id")
    service = sa.select(sa.null(), sa.literal(SHOP_ITSELF), sa.literal("service"))
    directory = SqlDirectory(
        groups=sa.select(team.c.id, team.c.company_id.label("organization_id")),
        group_members=sa.select(
            seat.c.team_id.label("group_id"), seat.c.person_id.label("user_id")
        ),
        organization_members=sa.select(organization_id, user_id),
        role_assignments=sa.select(organization_id, user_id, job.c.title.label("role")).union_all(
            service  # held on the site, as it has no organization
        ),
        roles={"manager": "org-admin", "service": "gateway"},
    )
    app.config.update(GOVBUDGET_ID_TYPE="bigint", GOVBUDGET_GROUPS="public.team.id")
    GovBudget(app, engine=engine, identify=lambda: session.get("person_id"), directory=directory)
