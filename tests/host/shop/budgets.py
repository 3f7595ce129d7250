"""AI budgets for the shop's teams."""

from flask import Flask
from flask_login import current_user
from sqlalchemy import literal, null, select

from govbudget import GovBudget, SqlDirectory
from govbudget.migrations import exclude_govbudget
from shop.app import migrate
from shop.models import Job, Seat, Team, db

# The shop itself, as far as it calls models for people: nobody logs in as 0.
SHOP_ITSELF = 0


def identify() -> str | None:
    """Give the id of whoever is logged in, or None."""
    return current_user.get_id()


def add_budgets(app: Flask) -> None:
    organization_id, user_id = (
        Job.company_id.label("organization_id"),
        Job.person_id.label("user_id"),
    )
    service = select(null(), literal(SHOP_ITSELF), literal("service"))
    directory = SqlDirectory(
        groups=select(Team.id, Team.company_id.label("organization_id")),
        group_members=select(Seat.team_id.label("group_id"), Seat.person_id.label("user_id")),
        organization_members=select(organization_id, user_id),
        role_assignments=select(organization_id, user_id, Job.title.label("role")).union_all(
            service  # held on the site, as it has no organization
        ),
        roles={"manager": "org-admin", "service": "gateway"},
    )
    app.config.update(GOVBUDGET_ID_TYPE="bigint", GOVBUDGET_GROUPS="public.team.id")
    gov = GovBudget().init_app(app, engine=db, identify=identify, directory=directory)
    migrate.init_app(app, db, **exclude_govbudget(gov.settings.layout))
