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
    NotFound,
    Policy,
    PolicyError,
    SqlDirectory,
    Subject,
)

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

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
    installation: Installation = GovBudget().init_app(
        app, engine=engine, identify=current_user, features=find_features
    )
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


def set_limit(home: Installation, connection: sa.Connection, user: UUID, team: UUID) -> Budget:
    subject, group = home.directory.load_group(connection, user, team)
    if group is None:
        raise NotFound("group")
    grant = home.policy.authorize(subject, "update", home.budgets.object_of(group))
    return home.budgets.set(connection, grant, group, 5_000_000)


def is_allowed(policy: Policy, subject: Subject, group: Group) -> bool:
    allowed: bool = policy.decide({"group-member"}, "group", "read").allowed
    return allowed and bool(policy.authorize(subject, "read", group).lines)
