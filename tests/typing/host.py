"""A host application that is never run: mypy strict holds the public names to their types."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import sqlalchemy as sa
from flask import Flask, request

from govbudget import (
    Budget,
    GovBudget,
    Group,
    Installation,
    Policy,
    PolicyError,
    SqlDirectory,
    Subject,
)
from govbudget.budgets import statements

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from govbudget.db.unit import Unit

metadata = sa.MetaData()
teams = sa.Table("teams", metadata, sa.Column("id", sa.Uuid), sa.Column("organization_id", sa.Uuid))
members = sa.Table(
    "members", metadata, sa.Column("group_id", sa.Uuid), sa.Column("user_id", sa.Uuid)
)


def current_user() -> UUID | None:
    text = request.headers.get("X-User")
    return UUID(text) if text else None


def find_features() -> AbstractSet[str]:
    return {"aibridge"}


def create_app(engine: sa.Engine) -> Flask:
    app = Flask(__name__)
    GovBudget().init_app(app, engine=engine, identify=current_user, features=find_features)
    installation: Installation = app.extensions["govbudget"]
    try:
        installation.reload_policy()
    except PolicyError as error:
        lines: list[int] = [finding.line for finding in error.findings]
        app.logger.warning("policy: %s", lines)
    return app


def make_directory(roles: sa.Table) -> SqlDirectory:
    return SqlDirectory(
        groups=teams, group_members=members, organization_members=members, role_assignments=roles
    )


def set_limit(gov: Installation, connection: sa.Connection, user: UUID, team: UUID) -> Budget:
    with gov.unit(user, connection=connection) as unit:
        return gov.budgets.set(unit.authorize("update", group=team), limit_micros=5_000_000)


def set_with_the_wrong_grant(gov: Installation, unit: Unit, team: UUID) -> None:
    """Each line is an error of its own: mypy says so where one is none."""
    gov.budgets.set(unit.authorize("update", organization=team), 1)  # type: ignore[arg-type]
    unit.authorize("read", prices=True).run(statements.GET)  # type: ignore[arg-type]
    unit.authorize("read", prices=False)  # type: ignore[call-overload]
    unit.authorize("read", group=team, organization=team)  # type: ignore[call-overload]


def is_allowed(policy: Policy, subject: Subject, group: Group) -> bool:
    allowed: bool = policy.decide({"group-member"}, "group", "read").allowed
    return allowed and bool(policy.authorize(subject, "read", group).lines)
