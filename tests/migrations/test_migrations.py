"""What `upgrade` makes is what the tables say, in every layout, and nothing else."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from tests.migrations.support import SQL_TYPES, make_host_tables, read_schema
from tests.support import TABLES

from govbudget import IdType, Layout, migrations
from govbudget.db.revisions import list_revisions
from govbudget.db.tables import Tables
from govbudget.migrations import find_differences, head_revision, read_revision, upgrade

pytestmark = pytest.mark.slow

GROUPS = ("own", "none", "host.teams.id", "public.teams.id")
QUICK = {*((id_type, "own") for id_type in IdType), *zip(IdType, GROUPS[1:], strict=True)}
LAYOUTS = [
    pytest.param(
        Layout(id_type=id_type, groups=groups),
        id=f"{id_type}-{groups}",
        marks=() if (id_type, groups) in QUICK else pytest.mark.long,
    )
    for id_type in IdType
    for groups in GROUPS
]
IDS = {
    IdType.UUID: "'123e4567-e89b-12d3-a456-426614174000'",
    IdType.BIGINT: "7",
    IdType.TEXT: "'team seven'",
}


@pytest.fixture(scope="module")
def empty_url(make_database):
    return make_database()


@pytest.fixture
def connection(empty_url):
    """Give a transaction in a database without anything; it is rolled back."""
    engine = sa.create_engine(empty_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def migrated(engine):
    """Give a transaction in the migrated database that all tests share; it is rolled back."""
    with engine.connect() as connection:
        yield connection


def list_tables(connection):
    rows = connection.exec_driver_sql(
        "SELECT schemaname || '.' || tablename FROM pg_tables"
        " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    return set(rows.scalars())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_new_database_is_made_as_the_tables_say(connection, layout):
    """And stamped at the newest revision; what is there otherwise stays as it is."""
    make_host_tables(connection, layout)
    before = list_tables(connection)
    upgrade(connection, layout)
    assert find_differences(connection, layout) == []
    assert read_revision(connection, layout) == head_revision()
    made = {f"govbudget.{table.name}" for table in Tables(layout).metadata.tables.values()}
    made -= {"govbudget.teams"}
    assert list_tables(connection) - before == made | {"govbudget.alembic_version"}


GOVERNED = (
    *("group_ai_budgets", "ai_model_prices", "audit_log", "member_ai_overrides"),
    *("ai_holds", "ai_usage", "ai_spend_counters", "ai_spend_rollups", "ai_notices"),
    *("ai_closings", "ai_refusals"),
)


def test_the_layout_decides_which_tables_are_made(connection):
    """Own groups bring the directory's tables; a host's groups do not."""
    upgrade(connection, Layout())
    own = list_tables(connection)
    assert own == {
        f"govbudget.{name}"
        for name in (
            *("alembic_version", "organizations", "users", "groups", "organization_members"),
            *("group_members", "role_assignments", "api_tokens"),
            *GOVERNED,
        )
    }
    upgrade(connection, Layout(schema="beside", groups="none"))
    beside = list_tables(connection) - own
    assert beside == {f"beside.{name}" for name in ("alembic_version", *GOVERNED)}


def test_the_schema_may_have_another_name(connection):
    layout = Layout(schema="ai_money")
    upgrade(connection, layout)
    assert {name.split(".")[0] for name in list_tables(connection)} == {"ai_money"}
    assert find_differences(connection, layout) == []
    assert read_revision(connection, layout) == head_revision()
    assert read_revision(connection, Layout()) is None


def test_a_host_and_its_tables_are_left_alone(connection):
    """Tables in other schemas, `public` and its version table too, are not reported or touched."""
    make_host_tables(connection)
    before = {schema: read_schema(connection, schema) for schema in ("host", "public")}
    layout = Layout(groups="host.teams.id")
    upgrade(connection, layout)
    assert find_differences(connection, layout) == []
    assert {schema: read_schema(connection, schema) for schema in before} == before
    versions = connection.exec_driver_sql("SELECT version_num FROM public.alembic_version")
    assert versions.scalars().all() == ["the host's"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("path", "groups"),
    [
        ("govbudget,public", "own"),
        ("govbudget,public", "public.teams.id"),
        ("public,govbudget", "public.teams.id"),
        ("host", "host.teams.id"),
    ],
)
def test_differences_do_not_depend_on_the_search_path(empty_url, path, groups):
    """A database user named like the schema has it on the search path: nothing differs for that."""
    url = empty_url.update_query_dict({"options": f"-csearch_path={path}"})
    admin = sa.create_engine(empty_url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    layout = Layout(groups=groups)
    with admin.connect() as connection:
        connection.exec_driver_sql("CREATE SCHEMA govbudget")  # so that the path starts with it
        connection.exec_driver_sql("CREATE SCHEMA host")
    try:
        with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
            kind = SQL_TYPES[layout.id_type]
            connection.exec_driver_sql("CREATE TABLE public.orders (id bigint)")
            for schema in ("host", "public"):
                connection.exec_driver_sql(f"CREATE TABLE {schema}.teams (id {kind} PRIMARY KEY)")
            upgrade(connection, layout)
            assert find_differences(connection, layout) == []
            assert connection.exec_driver_sql("SHOW search_path").scalar() == path
            connection.exec_driver_sql(
                "ALTER TABLE govbudget.ai_model_prices DROP COLUMN updated_at"
            )
            assert len(find_differences(connection, layout)) == 1
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql("DROP SCHEMA govbudget, host")


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("ALTER TABLE govbudget.ai_model_prices DROP COLUMN updated_at", "updated_at"),
        ("ALTER TABLE govbudget.users ADD COLUMN password text", "password"),
        ("ALTER TABLE govbudget.users ALTER COLUMN name DROP NOT NULL", "modify_nullable"),
        ("ALTER TABLE govbudget.users ALTER COLUMN name TYPE varchar(4000)", "modify_type"),
        ("ALTER TABLE govbudget.organizations ALTER deleted SET DEFAULT true", "modify_default"),
        ("DROP TABLE govbudget.ai_model_prices", "ai_model_prices"),
        ("CREATE TABLE govbudget.stray (id bigint)", "stray"),
        ("DROP INDEX govbudget.role_assignments_site_key", "role_assignments_site_key"),
        (
            "ALTER TABLE govbudget.group_ai_budgets DROP CONSTRAINT group_ai_budgets_group_id_fkey",
            "group_ai_budgets_group_id_fkey",
        ),
        ("ALTER TABLE govbudget.ai_usage DROP CONSTRAINT ai_usage_cost_check", "ai_usage_cost"),
        ("ALTER TABLE govbudget.ai_spend_counters RESET (fillfactor)", "fillfactor=50"),
        ("ALTER TABLE govbudget.ai_spend_rollups SET (fillfactor = 90)", "fillfactor=90"),
        ("ALTER TABLE govbudget.ai_holds SET (fillfactor = 90)", "ai_holds"),
    ],
)
def test_a_change_behind_our_back_is_found(migrated, statement, named):
    migrated.exec_driver_sql(statement)
    differences = find_differences(migrated, Layout())
    assert len(differences) == 1
    assert named in differences[0]


def test_a_session_that_quotes_all_names_finds_no_difference(migrated):
    migrated.exec_driver_sql("SET LOCAL quote_all_identifiers = on")
    assert find_differences(migrated, Layout()) == []
    assert migrated.exec_driver_sql("SHOW quote_all_identifiers").scalar() == "on"


def test_migrations_leave_the_transaction_to_the_caller(connection):
    """Rolled back, an upgrade has left nothing; a second one finds nothing to do."""
    upgrade(connection, Layout())
    upgrade(connection, Layout())
    assert read_revision(connection, Layout()) == head_revision()
    connection.rollback()
    assert list_tables(connection) == set()
    assert connection.scalar(sa.text("SELECT to_regnamespace('govbudget')")) is None


def count_budgets(connection):
    return connection.exec_driver_sql("SELECT count(*) FROM govbudget.group_ai_budgets").scalar()


@pytest.mark.parametrize("id_type", IdType)
def test_a_budget_goes_with_the_group_of_a_host(connection, id_type):
    layout = Layout(id_type=id_type, groups="host.teams.id")
    make_host_tables(connection, layout)
    upgrade(connection, layout)
    connection.exec_driver_sql(f"INSERT INTO host.teams VALUES ({IDS[id_type]}, 'g')")
    insert_budget(connection, Tables(layout), sa.literal_column(IDS[id_type]), 5)
    assert count_budgets(connection) == 1
    connection.exec_driver_sql("DELETE FROM host.teams")
    assert count_budgets(connection) == 0


@pytest.mark.parametrize("table", ["groups", "organizations"])
def test_a_budget_goes_with_its_group_or_organization(world, migrated, table):
    insert_budget(migrated, TABLES, world.a2, 5)
    migrated.execute(
        sa.delete(getattr(TABLES, table)).where(
            getattr(TABLES, table).c.id == (world.a2 if table == "groups" else world.a)
        )
    )
    budgets = TABLES.group_ai_budgets
    of_group = sa.select(budgets.c.group_id).where(budgets.c.group_id == world.a2)
    assert migrated.execute(of_group).all() == []


def insert_budget(connection, tables, group, limit):
    row = {"group_id": group, "spend_limit_micros": limit, "revision": uuid4()}
    connection.execute(sa.insert(tables.group_ai_budgets).values(row))


@pytest.mark.parametrize("limit", [-1, 10**12 + 1])
def test_the_database_refuses_a_limit_out_of_bounds(world, migrated, limit):
    insert_budget(migrated, TABLES, world.a1, 0)
    insert_budget(migrated, TABLES, world.b1, 10**12)
    with pytest.raises(sa.exc.IntegrityError, match="group_ai_budgets_limit_check"):
        insert_budget(migrated, TABLES, world.a2, limit)


@pytest.mark.parametrize("price", [-1, 10**12 + 1])
@pytest.mark.parametrize(
    "column", ["input_price", "output_price", "cache_read_price", "cache_write_price"]
)
def test_the_database_refuses_a_price_out_of_bounds(migrated, column, price):
    table = TABLES.ai_model_prices
    for number, allowed in enumerate((0, 10**12, None)):
        row = {"provider": "bounds", "model": f"m{number}", column: allowed}
        migrated.execute(sa.insert(table), row)
    with pytest.raises(sa.exc.IntegrityError, match=f"ai_model_prices_{column}_check"):
        migrated.execute(sa.insert(table), {"provider": "bounds", "model": "m", column: price})


def test_the_database_refuses_a_second_budget_of_a_group(world, migrated):
    insert_budget(migrated, TABLES, world.a1, 1)
    with pytest.raises(sa.exc.IntegrityError, match="group_ai_budgets_pkey"):
        insert_budget(migrated, TABLES, world.a1, 2)


@pytest.mark.parametrize(
    ("group", "person", "constraint"),
    [
        ("b1", "joined", "group_members_organization_id_group_id_fkey"),
        ("a1", "outsider", "group_members_organization_id_user_id_fkey"),
    ],
)
def test_a_group_member_must_be_in_the_organization_of_the_group(
    world, migrated, group, person, constraint
):
    """The database itself keeps memberships inside one organization."""
    with pytest.raises(sa.exc.IntegrityError, match=constraint):
        world.join_group(migrated, world.a, getattr(world, group), person)


@pytest.mark.parametrize("person", ["owner", "org_admin"])
def test_the_database_refuses_a_role_that_is_held_there_already(world, migrated, person):
    """Once on the site, once in each organization; each place is a place of its own."""
    organization = None if person == "owner" else world.a
    role = person.replace("_", "-")
    world.assign(migrated, person, role, world.b)
    with pytest.raises(sa.exc.IntegrityError, match=r"role_assignments_(site|organization)_key"):
        world.assign(migrated, person, role, organization)


def test_the_files_of_the_revisions_are_named_by_what_they_hold():
    """So the revisions are known without Alembic, in their order."""
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent)).walk_revisions()
    assert list_revisions() == tuple(script.revision for script in scripts)[::-1]
