"""The page about pages: its code shows them, frames them, names what they show and sets a limit."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import sqlalchemy as sa
from jinja2 import DictLoader
from tests.docs.support import ROOT, read_blocks
from tests.docs.test_embedding import read_page
from tests.pages.test_pages import read_text
from tests.support import TABLES

PAGE = read_page("show-pages.md")


def test_the_pages_are_there_in_the_frame_of_the_host_and_its_form_sets_a_limit(world, engine):
    app = PAGE.create_app(engine, lambda: world.org_admin)
    (frame,) = read_blocks(ROOT / "docs" / "how-to" / "show-pages.md", "html")
    app.jinja_loader = DictLoader({"base.html": frame})
    app.post("/teams/<group>")(lambda group: PAGE.set_limit(group, world.org_admin))
    client = app.test_client()
    answer = client.post(f"/teams/{world.a1}", data={"usd": "12.5"})
    assert answer.status_code == 302
    group = client.get(answer.headers["Location"])
    assert group.status_code == 200
    assert "Limit of each member $12.50" in read_text(group)


def test_a_test_as_on_the_page_finds_a_template_that_is_not_there(engine):
    (frame,) = read_blocks(ROOT / "docs" / "how-to" / "show-pages.md", "html")
    for name in ("base.html", "other.html"):
        app = PAGE.create_app(engine, lambda: None)
        app.jinja_loader = DictLoader({name: f"Our Shop {frame}"})
        with nullcontext() if name == "base.html" else pytest.raises(AssertionError):
            PAGE.test_the_pages_have_our_frame(app)


def test_the_names_are_those_of_the_hosts_tables(world):
    teams = sa.select(TABLES.groups.c["id", "organization_id", "name"]).subquery()
    directory = PAGE.make_directory(
        teams,
        TABLES.users,
        group_members=TABLES.group_members,
        organization_members=TABLES.organization_members,
        role_assignments=TABLES.role_assignments,
    )
    with world.engine.connect() as connection:
        rows = connection.execute(sa.select(directory.names)).all()
    assert ("user", world.member, "member") in rows
    assert ("group", world.a1, "a group") in rows
