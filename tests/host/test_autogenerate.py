"""A host's own Alembic, beside govbudget: its autogenerate neither drops nor adopts our tables."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.util import CommandError

from govbudget import Layout
from govbudget.migrations import exclude_govbudget, find_differences, upgrade

pytestmark = pytest.mark.slow

# As docs/how-to/your-own-tables.md tells a host to write it; the options come from the test.
ENV = """
from alembic import context

given = context.config.attributes
context.configure(
    connection=given["connection"], target_metadata=given["metadata"], **given["options"]
)
with context.begin_transaction():
    context.run_migrations()
"""
SCRIPT = "def upgrade():\n    ${upgrades}\n\ndef downgrade():\n    ${downgrades}\n"
HEAD = "revision = ${repr(up_revision)}\ndown_revision = ${repr(down_revision)}\n"
IMPORTS = "import sqlalchemy as sa\nfrom alembic import op\n"

OWN = Layout()
HOSTS = Layout(schema="money", groups="public.team.id")


def describe_host():
    """A host's tables: in the default schema, and in one of its own."""
    metadata = sa.MetaData()
    sa.Table(
        "team", metadata, sa.Column("id", sa.Uuid, primary_key=True), sa.Column("name", sa.Text)
    )
    # Of the same names as tables of govbudget's.
    sa.Table("users", metadata, sa.Column("id", sa.BigInteger, primary_key=True))
    sa.Table("audit_log", metadata, sa.Column("id", sa.BigInteger, primary_key=True), schema="shop")
    return metadata


class Host:
    """A host with migrations of its own, in a folder."""

    def __init__(self, folder, connection, metadata):
        self.folder, self.connection, self.metadata = folder, connection, metadata

    def config(self, **options):
        config = Config()
        config.set_main_option("script_location", str(self.folder))
        config.set_main_option("path_separator", "os")
        config.attributes.update(
            connection=self.connection, metadata=self.metadata, options=options
        )
        return config

    def generate(self, **options):
        """Run `alembic revision --autogenerate`, and give what it wrote."""
        script = command.revision(self.config(**options), autogenerate=True)
        return SimpleNamespace(path=script.path, text=Path(script.path).read_text())

    def is_up_to_date(self, **options):
        """Run `alembic check`."""
        try:
            command.check(self.config(**options))
        except CommandError:
            return False
        return True


only_host_groups = pytest.mark.parametrize("layout", [HOSTS], indirect=True, ids=["host-groups"])


@pytest.fixture(params=[OWN, HOSTS], ids=["own-groups", "host-groups"])
def layout(request):
    return request.param


@pytest.fixture(scope="module")
def make_host(make_database, tmp_path_factory):
    """A function that makes a host's database and folder; once for a layout, to be copied.

    Its first migration was generated and run, and govbudget is beside it.
    """

    @cache
    def make(layout):
        url, folder = make_database(), tmp_path_factory.mktemp("host")
        (folder / "versions").mkdir()
        (folder / "env.py").write_text(ENV)
        (folder / "script.py.mako").write_text(IMPORTS + HEAD + SCRIPT)
        with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
            connection.exec_driver_sql("CREATE SCHEMA shop")
            host = Host(folder, connection, describe_host())
            first = host.generate(include_schemas=True)
            command.upgrade(host.config(), "head")
            assert "create_table('team'" in first.text
            upgrade(connection, layout)
            connection.commit()
        return url.database, folder

    return make


@pytest.fixture
def host(make_host, make_database, layout, tmp_path):
    """A host of a test's own."""
    database, folder = make_host(layout)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    engine = sa.create_engine(make_database(template=database), poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield Host(tmp_path, connection, describe_host())


@pytest.fixture(scope="module")
def make_bare(make_database):
    """A function that names a database with a table of a host's, made once for a layout."""

    @cache
    def make(layout):
        url = make_database()
        with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
            connection.exec_driver_sql("CREATE TABLE team (id uuid PRIMARY KEY)")
            upgrade(connection, layout)
        return url.database

    return make


@pytest.mark.parametrize("include_schemas", [False, True])
def test_with_the_filter_nothing_is_left_to_do(host, layout, include_schemas):
    options = {"include_schemas": include_schemas, **exclude_govbudget(layout)}
    if not include_schemas:  # then Alembic looks at the default schema only
        host.metadata.remove(host.metadata.tables["shop.audit_log"])
    assert host.is_up_to_date(**options)
    generated = host.generate(**options)
    assert layout.schema not in generated.text
    assert "op." not in generated.text


@pytest.mark.parametrize(
    ("path", "hosts_schema"), [("{}", "public"), ("{},public", None), ("public,{}", None)]
)
def test_nor_where_the_search_path_holds_our_schema(
    make_bare, make_database, layout, path, hosts_schema
):
    """As it does by default for a role that is named like it. Alembic calls what is there None."""
    url = make_database(template=make_bare(layout))
    metadata = sa.MetaData(schema=hosts_schema)
    sa.Table("team", metadata, sa.Column("id", sa.Uuid, primary_key=True))
    options = {
        "include_schemas": hosts_schema is not None,
        "version_table_schema": "public",
        **exclude_govbudget(layout),
    }
    url = url.update_query_dict({"options": f"-csearch_path={path.format(layout.schema)}"})
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        # Anything else there is the host's, to keep or to drop.
        connection.exec_driver_sql("CREATE TABLE forgotten (id int)")
        ((change, table),) = compare_metadata(context, metadata)
        assert (change, table.name) == ("remove_table", "forgotten")


def test_without_the_filter_our_tables_would_be_dropped(host, layout):
    """This is what the filter is for."""
    generated = host.generate(include_schemas=True)
    assert f"op.drop_table('group_ai_budgets', schema='{layout.schema}')" in generated.text


@only_host_groups
def test_what_the_host_generates_and_runs_leaves_ours_as_it_is(host, layout):
    """A change of the host's own is found, and is all that is done."""
    sa.Table(
        "orders", host.metadata, sa.Column("id", sa.BigInteger, primary_key=True), schema="shop"
    )
    host.metadata.tables["team"].append_column(sa.Column("colour", sa.Text))
    options = {"include_schemas": True, **exclude_govbudget(layout)}
    generated = host.generate(**options)
    assert "op.create_table('orders'" in generated.text
    assert "op.add_column('team'" in generated.text
    assert layout.schema not in generated.text
    command.upgrade(host.config(**options), "head")
    assert find_differences(host.connection, layout) == []
    assert host.is_up_to_date(**options)


@only_host_groups
def test_a_table_of_ours_that_the_host_refers_to_is_not_adopted(host, layout):
    """A host that describes it, for a foreign key of its own, makes it no host's table."""
    ours = sa.Table(
        "group_ai_budgets",
        host.metadata,
        sa.Column("group_id", sa.Uuid, primary_key=True),
        sa.Column("misspelled", sa.Text, index=True),
        schema=layout.schema,
    )
    sa.Table(
        "alarm",
        host.metadata,
        sa.Column("group_id", sa.ForeignKey(ours.c.group_id), primary_key=True),
    )
    generated = host.generate(include_schemas=True, **exclude_govbudget(layout))
    assert "op.create_table('alarm'" in generated.text
    assert "misspelled" not in generated.text
    assert "create_table('group_ai_budgets'" not in generated.text
    command.upgrade(host.config(), "head")
    assert host.is_up_to_date(include_schemas=True, **exclude_govbudget(layout))


@only_host_groups
def test_filters_that_the_host_has_are_asked_about_the_rest(host, layout):
    """And never about what is ours."""
    asked = []

    def include_name(name, kind, parents):
        asked.append(name)
        return name != "shop"

    def include_object(item, name, kind, reflected, compare_to):
        asked.append(getattr(item, "schema", None))
        return name != "team"

    host.metadata.remove(host.metadata.tables["shop.audit_log"])
    host.metadata.tables["team"].append_column(sa.Column("colour", sa.Text))
    filters = exclude_govbudget(layout, include_name=include_name, include_object=include_object)
    assert host.is_up_to_date(include_schemas=True, **filters)
    assert "users" in asked
    assert layout.schema not in asked
    assert not host.is_up_to_date(include_schemas=True, **exclude_govbudget(layout))
