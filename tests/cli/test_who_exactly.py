"""policy who against the decisions of requests, on tables in which roles stand right and wrong."""

from __future__ import annotations

import json
from itertools import product
from random import Random
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.review.helpers import FOLDERS, copy_policy
from tests.support import World

from govbudget import Policy
from govbudget.authz.authorize import authorize
from govbudget.errors import Forbidden, NotFound
from govbudget.identity import Action

pytestmark = pytest.mark.slow  # some hundred decisions, each loaded for itself

POLICY = """
p, owner, site, group, read, allow
p, owner, site, ai_member_spend, read, allow
p, guest, site, group, read, deny
p, org-admin, organization, group, read, allow
p, org-admin, organization, group, update, allow
p, org-admin, organization, ai_member_spend, read, deny
p, auditor, organization, group, update, deny
p, auditor, organization, ai_member_spend, read, allow
p, group-member, group, group, read, allow
p, group-member, group, group, update, deny
p, self, user, ai_member_spend, read, allow
"""


@pytest.fixture(scope="module")
def crowd(make_database, template):
    """A dozen people in three organizations, one of them deleted, with random roles."""
    random = Random(14)
    engine = sa.create_engine(make_database(template=template), poolclass=sa.NullPool)
    crowd = World(engine)
    people = [uuid4() for _ in range(12)]
    gone = uuid4()
    with engine.begin() as connection:
        users = [{"id": one, "name": "one"} for one in people]
        connection.execute(sa.insert(crowd.tables.users), users)
        crowd.add_organization(connection, gone)
        groups = [(one, crowd.add_group(connection, one)) for one in (crowd.a, crowd.b, gone) * 2]
        places = [crowd.a, crowd.b, gone, None]
        roles = ["owner", "guest", "org-admin", "auditor", "group-member", "self", "unknown"]
        for person in people:
            inside = random.sample(places[:3], random.randint(0, 3))
            for organization in inside:
                crowd.join(connection, organization, person)
            for organization, group in random.sample(groups, 3):
                if organization in inside:
                    crowd.join_group(connection, organization, group, person)
            for role, place in {*zip(random.choices(roles, k=3), random.choices(places, k=3))}:  # noqa: B905
                crowd.assign(connection, person, role, place)
        deleted = sa.update(crowd.tables.organizations).where(
            crowd.tables.organizations.c.id == gone
        )
        connection.execute(deleted.values(deleted=True))
        crowd.groups = {group: o for o, group in groups if o != gone}
        crowd.groups |= {crowd.a1: crowd.a, crowd.a2: crowd.a, crowd.b1: crowd.b}
        crowd.groups |= {crowd.a: crowd.a, crowd.b: crowd.b}
    crowd.everybody = [*people, *crowd.people.values()]
    crowd.url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    yield crowd
    engine.dispose()


@pytest.fixture
def random_policy(tmp_path):
    copy_policy(FOLDERS["shipped"], tmp_path / "policy")
    (tmp_path / "policy" / "matrix.csv").unlink()
    (tmp_path / "policy" / "policy.csv").write_text(POLICY)
    return tmp_path / "policy"


def list_rows(run, crowd, *arguments):
    result = run("policy", *arguments, "--format", "json", database_url=crowd.url)
    assert result.status < 2, result.err
    return json.loads(result.out)["people"]


def covers(rows, person, *place):
    """Whether a row of the person's has the place in it."""
    at = ["site", *place]
    return any(
        row["user_id"] == str(person)
        and at[: len(row["where"])] == row["where"]
        and not any(at[: len(but)] == but for but in row["except"])
        for row in rows
    )


def decide(policy, subject, action, obj):
    try:
        return authorize(policy.table, subject, action, obj)
    except (Forbidden, NotFound):
        return None


def test_who_lists_exactly_those_whom_the_decisions_allow(run, crowd, random_policy):
    """What is loaded for a request, person by person, and decided; against the three lists."""
    policy, seen = Policy.load(random_policy), set()
    lists = {}
    for action in (Action.READ, Action.UPDATE):
        asked = ("who", action, "group", random_policy)
        lists[action] = (
            list_rows(run, crowd, *asked),
            {crowd.a: list_rows(run, crowd, *asked, "--organization", crowd.a)},
            {crowd.a1: list_rows(run, crowd, *asked, "--group", crowd.a1)},
        )
    with crowd.engine.connect() as connection:
        for (group, o), person in product(crowd.groups.items(), crowd.everybody):
            subject, found = crowd.directory.load_group(connection, person, group)
            at = (f"organization:{o}", f"group:{group}")
            for action, (site, inside, alone) in lists.items():
                may = decide(policy, subject, action, found) is not None
                for rows in (site, inside.get(o), alone.get(group)):
                    assert rows is None or covers(rows, person, *at) is may
                seen.add(may)
    assert seen == {True, False}


def test_who_lists_exactly_those_who_may_read_what_a_member_spends(run, crowd, random_policy):
    policy, seen = Policy.load(random_policy), set()
    asked = ("who", "read", "ai_member_spend", random_policy)
    site = list_rows(run, crowd, *asked)
    inside = list_rows(run, crowd, *asked, "--organization", crowd.b)
    alone = list_rows(run, crowd, *asked, "--organization", crowd.b, "--user", crowd.outsider)
    with crowd.engine.connect() as connection:
        for whom, person in product((*crowd.everybody[:4], crowd.outsider), crowd.everybody):
            subject, member = crowd.directory.load_member(connection, person, crowd.b, whom)
            if member is not None:
                may = decide(policy, subject, "read", member) is not None
                for rows in (site, inside, *([alone] if whom == crowd.outsider else ())):
                    assert covers(rows, person, f"organization:{crowd.b}", f"user:{whom}") is may
                seen.add(may)
    assert seen == {True, False}
