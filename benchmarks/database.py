"""One PostgreSQL for a run, with databases made and filled in SQL."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import sqlalchemy as sa

from govbudget import Layout
from govbudget.db.connection import normalize_url
from govbudget.migrations import upgrade
from govbudget.server.embedded import start_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

TEST_URL = "GOVBUDGET_TEST_DATABASE_URL"
LIMIT_MICROS = 5_000_000
GROUPS_OF_MEMBER = 5


@contextmanager
def start_database() -> Iterator[sa.URL]:
    """Give the URL of a migrated database, on the PostgreSQL that the tests use or on our own.

    Each section copies it (`make_database`); nobody stays connected to it. In our own PostgreSQL a
    commit does not wait for the disk, so that no ratio looks better for the wait that both sides
    have.
    """
    given = os.environ.get(TEST_URL)
    with ExitStack() as stack:
        server = normalize_url(given) if given else stack.enter_context(start_own_database())
        if not given:
            with _open(server) as connection:
                connection.exec_driver_sql("ALTER SYSTEM SET synchronous_commit = off")
                connection.exec_driver_sql("SELECT pg_reload_conf()")
        yield stack.enter_context(make_database(server, template="template1"))


@contextmanager
def start_own_database() -> Iterator[sa.URL]:
    """Give the URL of a PostgreSQL of our own, with its defaults: commits wait for the disk."""
    with start_postgres() as text:
        yield sa.make_url(text)


@contextmanager
def make_database(server: sa.URL, *, template: str | None = None) -> Iterator[sa.URL]:
    """Make a migrated database for the length of the block: a copy of the template or the URL's."""
    name = f"govbudget_bench_{uuid4().hex}"
    with _open(server) as connection:
        copied = template or server.database
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {copied}")
    try:
        url = server.set(database=name)
        with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
            upgrade(connection, Layout())
        yield url
    finally:
        with _open(server) as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def _open(url: sa.URL) -> sa.Connection:
    return sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect()


@dataclass(frozen=True, slots=True)
class World:
    """An organization of many groups, each with a budget, and some people to ask as.

    `member` is in `group` and a few others, `stranger` in none of the organization's.
    """

    organization: UUID
    group: UUID
    owner: UUID
    admin: UUID
    member: UUID
    stranger: UUID


_FILL = """
INSERT INTO govbudget.organizations (id, name) VALUES (:organization, 'measured');
INSERT INTO govbudget.groups (id, organization_id, name)
  VALUES (:organization, :organization, 'Everyone');
INSERT INTO govbudget.groups (id, organization_id, name)
  SELECT gen_random_uuid(), :organization, 'group ' || n FROM generate_series(1, :groups) n;
INSERT INTO govbudget.users (id, name)
  SELECT gen_random_uuid(), 'user ' || n FROM generate_series(1, :users) n;
INSERT INTO govbudget.users (id, name)
  VALUES (:owner, 'owner'), (:admin, 'admin'), (:member, 'member'), (:stranger, 'stranger');
INSERT INTO govbudget.organization_members (organization_id, user_id)
  SELECT :organization, id FROM govbudget.users WHERE id <> :stranger;
INSERT INTO govbudget.group_members (organization_id, group_id, user_id)
  SELECT :organization, g.id, u.id
  FROM (SELECT id, row_number() OVER () AS n FROM govbudget.users WHERE name LIKE 'user %') u
  JOIN (SELECT id, row_number() OVER () AS n FROM govbudget.groups WHERE name <> 'Everyone') g
    ON g.n IN (1 + u.n % :groups, 1 + (u.n * 7 + 3) % :groups);
INSERT INTO govbudget.group_members (organization_id, group_id, user_id)
  SELECT :organization, id, :member FROM govbudget.groups WHERE name <> 'Everyone'
  ORDER BY id LIMIT :few;
INSERT INTO govbudget.role_assignments (id, user_id, role, organization_id)
  VALUES (gen_random_uuid(), :owner, 'owner', NULL),
         (gen_random_uuid(), :admin, 'org-admin', :organization);
ALTER TABLE govbudget.group_ai_budgets DISABLE TRIGGER USER;
INSERT INTO govbudget.group_ai_budgets (group_id, spend_limit_micros, revision)
  SELECT id, :limit, gen_random_uuid() FROM govbudget.groups;
ALTER TABLE govbudget.group_ai_budgets ENABLE TRIGGER USER;
"""


def fill_database(url: sa.URL, *, groups: int, users: int) -> World:
    """Fill a database and ANALYZE it. Each user is in two groups; every group has a budget."""
    people = [uuid4() for _ in range(4)]
    values = {
        "organization": uuid4(),
        **dict(zip(("owner", "admin", "member", "stranger"), people, strict=True)),
        "groups": groups,
        "users": users,
        "few": GROUPS_OF_MEMBER,
        "limit": LIMIT_MICROS,
    }
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in _FILL.strip().split(";\n"):
            text = sa.text(statement.rstrip(";"))
            known = {k: v for k, v in values.items() if k in text._bindparams}  # noqa: SLF001
            connection.execute(text, known)
        group = connection.execute(
            sa.text("SELECT group_id FROM govbudget.group_members WHERE user_id = :member LIMIT 1"),
            {"member": values["member"]},
        ).scalar_one()
    with _open(url) as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    organization = values["organization"]
    assert isinstance(organization, UUID)
    return World(organization, group, *people)
