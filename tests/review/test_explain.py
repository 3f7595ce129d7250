"""policy explain: every line that matches, which decide, and what the nearest lines lacked."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from flask import request
from flask.cli import FlaskGroup
from hypothesis import given, strategies as st
from tests.review.helpers import FOLDERS, append, make_table, policy_rows, write_rows
from tests.review.oracle import ACTIONS, OBJECTS, is_allowed
from tests.support import budget_path, make_app

from govbudget import SqlDirectory
from govbudget.layout import Layout
from govbudget.migrations import upgrade
from govbudget.review.explain import explain_decision

pytestmark = pytest.mark.slow

LINES = (FOLDERS["shipped"] / "policy.csv").read_text().splitlines()


def line_of(text, lines=LINES):
    return f"policy.csv:{lines.index(text) + 1}"


def explain(run, *arguments, **variables):
    result = run("explain", *arguments, **variables)
    value = run("explain", *arguments, "--format", "json", **variables)
    assert value.status == result.status
    which, *said = result.out.splitlines()
    assert which.startswith("policy: /")
    if "budget" in said[0]:
        assert said.pop(0).startswith("budgets are decided as `group")
    return result.status, said, json.loads(value.out)


# -- roles --


def test_an_allowed_act_is_status_0_and_names_the_lines_that_decide(run):
    right = "p, org-admin, organization, group, update, allow"
    status, said, value = explain(
        run, "--role", "org-admin", "--role", "group-member", "--action", "update"
    )
    assert status == 0
    assert said == [
        "allowed: org-admin, group-member, group, update",
        f"  {line_of(right)} matches: allow, which decides: {right}",
    ]
    assert (value["decision"], value["lines"], value["nearest"]) == ("allow", [line_of(right)], [])
    assert value["matching"] == [{"line": line_of(right), "text": right, "effect": "allow"}]


def test_a_deny_line_decides_and_the_allow_lines_that_it_beats_are_shown(run, folder):
    append(folder / "policy.csv", "p, org-admin, organization, group, update, deny\n")
    deny = f"policy.csv:{len(LINES) + 1}"
    allow = line_of("p, owner, site, group, update, allow")
    status, said, value = explain(
        run, folder, "--role", "owner", "--role", "org-admin", "--action", "update"
    )
    assert status == 1
    assert said[0] == "denied: owner, org-admin, group, update"
    assert said[1] == f"  {allow} matches: allow: p, owner, site, group, update, allow"
    assert said[-1].startswith(f"  {deny} matches: deny, which decides: ")
    assert value["lines"] == [deny]
    assert value["nearest"] == []
    assert [line["effect"] for line in value["matching"]] == ["allow", "allow", "deny"]


def test_a_default_deny_names_the_nearest_lines_and_what_each_lacked(run):
    status, said, value = explain(run, "--role", "group-member", "--action", "update")
    assert status == 1
    assert said[:2] == [
        "denied: group-member, group, update",
        "  no line matches, so it is denied; the nearest lines:",
    ]
    lacked = {line["text"]: line["lacks"] for line in value["nearest"]}
    assert lacked == {
        "p, owner, site, group, update, allow": "would be allowed if `owner` were held on the site",
        "p, org-admin, organization, group, update, allow": (
            "would be allowed if `org-admin` were held in the organization"
        ),
        "p, user-admin, organization, group, update, allow": (
            "would be allowed if `user-admin` were held in the organization"
        ),
        "p, group-member, group, group, read, allow": "allows `read`, not `update`",
    }
    for line in value["nearest"]:
        assert f"  {line['line']} {line['lacks']}: {line['text']}" in said[2:]
        assert line["line"] == line_of(line["text"])


def test_of_lines_as_near_the_ones_about_the_same_come_first(run):
    _, _, value = explain(run, "--role", "group-member", "--object", "ai_model_price", *UPDATE)
    assert [line["text"] for line in value["nearest"]] == [
        "p, owner, site, ai_model_price, update, allow"
    ]


READ, UPDATE = ("--action", "read"), ("--action", "update")


def test_lines_that_would_not_help_are_not_near(run, tmp_path):
    """One never applies, one is denied by another."""
    (tmp_path / "model.conf").write_bytes((FOLDERS["shipped"] / "model.conf").read_bytes())
    (tmp_path / "policy.csv").write_text(
        "p, ada, organization, ai_model_price, read, allow\n"
        "p, bob, site, ai_model_price, read, allow\n"
        "p, bob, site, ai_model_price, read, deny\n"
        "p, cy, group, group, update, deny\n"
    )
    status, said, value = explain(
        run, tmp_path, "--role", "cy", "--object", "ai_model_price", *READ
    )
    assert status == 1
    assert value["nearest"] == []
    assert said == [
        "denied: cy, ai_model_price, read",
        "  no line matches, so it is denied",
    ]


def test_a_line_that_names_the_act_and_never_applies_is_shown_as_such(run, folder):
    text = "p, org-admin, organization, ai_model_price, read, allow"
    append(folder / "policy.csv", f"{text}\n")
    dead = f"policy.csv:{len(LINES) + 1}"
    status, said, value = explain(
        run, folder, "--role", "org-admin", "--object", "ai_model_price", *READ
    )
    assert status == 1
    assert said[1] == f"  {dead} never applies: a `ai_model_price` has no organization: {text}"
    assert [line["line"] for line in value["never_applies"]] == [dead]
    _, _, value = explain(run, folder, "--role", "owner", "--object", "ai_model_price", *READ)
    assert value["never_applies"] == []


def test_how_many_lines_as_near_were_left_out_is_said(run, folder):
    (folder / "matrix.csv").unlink()
    (folder / "policy.csv").write_text(
        "".join(f"p, r{n}, site, group, read, allow\n" for n in range(8))
        + "p, none, site, group, read, deny\n"
        + "p, idle, site, group, update, allow\n"
    )
    _, said, value = explain(run, folder, "--role", "idle", *READ)
    assert (len(value["nearest"]), value["nearest_left_out"]) == (5, 4)
    assert said[-1] == "  and 4 more as near; `policy matrix` shows all"
    _, said, value = explain(run, folder, "--role", "r1", *UPDATE)
    assert value["nearest_left_out"] == 0
    assert "as near" not in said[-1]


@pytest.mark.parametrize("lost", [False, True])
def test_a_folder_that_the_server_would_not_start_with_is_named(lost, run, folder):
    if lost:
        (folder / "matrix.csv").unlink()
    else:
        append(folder / "policy.csv", "p, group-member, group, group, update, allow\n")
    said = "policy: `serve` would not start with it: matrix.csv differs or is missing\n"
    assert said in run("explain", folder, "--role", "group-member", *UPDATE).err
    assert said not in run("explain", "--role", "group-member", *UPDATE).err


def test_what_everyone_may_toward_themselves_is_near(run, folder):
    line = "p, self, user, ai_member_spend, read, allow"
    _, _, value = explain(
        run, "--role", "group-member", "--object", "ai_member_spend", "--action", "read"
    )
    (lacks,) = (near["lacks"] for near in value["nearest"] if near["text"] == line)
    assert lacks == (
        "would be allowed if `self` were held by the user, as all hold it toward themselves"
    )


@given(policy_rows(), st.sampled_from(OBJECTS), st.sampled_from(ACTIONS), st.data())
def test_what_an_explanation_says_is_so(rows, obj, action, data):
    """Each role that is said to help does help, and nobody who would help is left out."""
    table = make_table(write_rows(rows))
    held = data.draw(st.sets(st.sampled_from(sorted(table.scopes))))
    explanation = explain_decision(table, held, obj, action)
    assert explanation.decision.allowed is is_allowed(rows, held, obj, action)
    for line in explanation.matching:
        assert is_allowed([(*rows[line.number - 1][:4], "allow")], held, obj, action)
    said = {
        line.role: why for line, why in explanation.nearest if why.startswith("would be allowed")
    }
    helpful = {role for role in table.scopes if is_allowed(rows, {*held, role}, obj, action)}
    if explanation.decision.allowed or explanation.decision.lines:
        assert explanation.nearest == ()
    else:
        assert set(said) == helpful
        toward_oneself = "by the user, as all hold it toward themselves"
        places = {"site": "on the site", "user": toward_oneself}
        for role, why in said.items():
            scope = str(table.scopes[role])
            assert why.endswith(f"held {places.get(scope, f'in the {scope}')}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--role", "ownr", *READ],
        ["--role", "owner", "--action", "raed"],
        ["--role", "owner", "--object", "grup", *READ],
        READ,
        ["--role", "owner", "--user", str(UUID(int=4)), "--group", str(UUID(int=4)), *READ],
        ["--user", str(UUID(int=4)), *READ],
        ["--role", "owner", "--member", str(UUID(int=4)), *READ],
        ["--group", str(UUID(int=4)), *READ],
        ["--role", "owner", "--group", str(UUID(int=4)), *READ],
    ],
)
def test_a_mistyped_name_or_half_a_question_is_wrong_usage(run, arguments):
    result = run("explain", *arguments)
    assert (result.status, result.out) == (2, "")


# -- what is asked --


def test_what_nothing_asks_about_is_neither_allowed_nor_denied(run, folder):
    """An override of a member's limit is set by `update` on a group: this line denies nothing."""
    append(folder / "policy.csv", "p, user-admin, organization, ai_member_spend, update, deny\n")
    asked = ("--role", "user-admin", "--object", "ai_member_spend", *UPDATE)
    result = run("explain", folder, *asked)
    assert (result.status, result.out) == (2, "")
    assert (
        "nothing asks for `update` on `ai_member_spend`, so it is neither allowed nor" in result.err
    )
    assert "budgets are decided as `group` by this policy" in result.err
    assert "`update` on `group`" in result.err
    budget = run("explain", folder, "--role", "owner", "--object", "group_ai_budget", *READ)
    assert (budget.status, budget.out) == (2, "")


DEDICATED = FOLDERS["dedicated"]


def test_it_says_what_budgets_are_decided_as_and_asks_about_that(run):
    def ask(*arguments):
        result = run("explain", *arguments, "--role", "user-admin", *UPDATE)
        return result.status, *result.out.splitlines()[1:3]

    said = "budgets are decided as `group` by this policy"
    assert ask() == (0, said, "allowed: user-admin, group, update")
    said = "budgets are decided as `group_ai_budget` by this policy"
    assert ask(DEDICATED) == (1, said, "denied: user-admin, group_ai_budget, update")
    group = "; this is about a group, not its budget"
    assert ask(DEDICATED, "--object", "group") == (
        0, said + group, "allowed: user-admin, group, update"
    )  # fmt: skip
    result = run("explain", DEDICATED, "--role", "owner", *UPDATE, "--format", "json")
    assert json.loads(result.out)["budgets_decided_as"] == "group_ai_budget"


def test_what_everyone_may_toward_themselves_is_not_called_denied(run, folder):
    asked = ("--role", "group-member", "--object", "ai_member_spend", *READ)
    status, said, value = explain(run, *asked)
    assert (status, value["decision"], value["own"]) == (1, "deny", "allow")
    assert said[0] == "denied, but for what is their own: group-member, ai_member_spend, read"
    append(folder / "policy.csv", "p, self, user, ai_member_spend, read, deny\n")
    status, said, value = explain(run, folder, *asked)
    assert (status, said[0], value["own"]) == (1, "denied: " + said[0].partition(": ")[2], "deny")
    status, said, _ = explain(run, folder, "--role", "owner", *asked[2:])
    assert (status, said[0]) == (
        0,
        "allowed, but for what is their own: owner, ai_member_spend, read",
    )
    status, said, _ = explain(run, "--role", "self", *asked[2:])
    assert (status, said[0]) == (0, "allowed: self, ai_member_spend, read")


# -- people of a database --


@pytest.fixture
def explain_user(run, world, database_url):
    url = database_url.set(drivername="postgresql").render_as_string(hide_password=False)

    def explain_user(person, group, *arguments):
        user = world.people.get(person, person)
        return explain(
            run, "--user", user, "--group", group, *(arguments or READ), database_url=url
        )

    return explain_user


def test_a_role_that_counts_is_shown_with_where_it_is_held(explain_user, world):
    status, said, value = explain_user("org_admin", world.a1)
    assert status == 0
    assert f"holds org-admin in organization:{world.a}: counts" in said
    assert "allowed: org-admin, group, read" in said
    assert {
        "role": "org-admin",
        "domain": f"organization:{world.a}",
        "counts": True,
        "why": None,
    } in (value["held"])
    assert value["roles"] == ["org-admin"]


def test_a_member_of_the_group_and_of_everyone_is_told_which_counts(explain_user, world):
    status, said, _ = explain_user("member", world.a1)
    assert status == 0
    assert f"holds group-member in group:{world.a1}: counts" in said
    assert (
        f"holds group-member in group:{world.a}: does not count: "
        f"the group asked about is group:{world.a1}"
    ) in said


def test_another_group_does_not_count(explain_user, world):
    status, said, value = explain_user("member", world.a2)
    assert status == 1
    assert "denied: no role, group, read" in said
    assert not any(item["counts"] for item in value["held"])
    assert any("would be allowed if `group-member` were held in the group" in s for s in said)


def test_another_organization_does_not_count(explain_user, world):
    status, said, _ = explain_user("b_admin", world.a1)
    assert status == 1
    assert (
        f"holds org-admin in organization:{world.b}: does not count: "
        f"the group is in organization:{world.a}"
    ) in said


def test_a_role_of_the_wrong_scope_does_not_count(explain_user, world, engine):
    with engine.begin() as connection:
        world.assign(connection, "nobody", "org-admin", None)
        world.assign(connection, "nobody", "owner", world.a)
    status, said, _ = explain_user("nobody", world.a1)
    assert status == 1
    start = "does not count: the role's scope is"
    assert sorted(said[:2]) == [
        f"holds org-admin in site: {start} `organization`, and it is held in `site`",
        f"holds owner in organization:{world.a}: {start} `site`, and it is held in `organization`",
    ]


def test_a_role_that_the_policy_does_not_declare_does_not_count(explain_user, world, engine):
    with engine.begin() as connection:
        world.assign(connection, "nobody", "auditor", world.a)
    status, said, _ = explain_user("nobody", world.a1)
    assert status == 1
    assert said[0] == (
        f"holds auditor in organization:{world.a}: does not count: the policy declares no such role"
    )


def test_a_user_that_is_not_there_holds_nothing(explain_user, world):
    stranger = uuid4()
    status, said, value = explain_user(stranger, world.a1)
    assert status == 1
    assert said[0] == f"{stranger} holds no role anywhere (or there is no such user)"
    assert value["held"] == []


def test_a_group_that_is_not_there_or_an_id_that_is_none_is_unreadable_input(
    run, world, database_url
):
    url = database_url.set(drivername="postgresql").render_as_string(hide_password=False)
    for user, group in ((world.member, uuid4()), ("mallory", world.a1), (world.member, "a1")):
        result = run("explain", "--user", user, "--group", group, *READ, database_url=url)
        assert (result.status, result.out) == (2, "")
        assert result.err.splitlines()[-1].startswith("govbudget: ")
    assert "DATABASE_URL" in run("explain", "--user", world.member, "--group", world.a1, *READ).err


def test_what_explain_says_is_what_the_answers_are(run, world, engine, database_url):
    url = database_url.set(drivername="postgresql").render_as_string(hide_password=False)
    client = make_app(engine).test_client()
    asked = {
        ("member", world.a): True,
        ("member", world.a2): False,
        ("owner", world.b1): True,
        ("b_admin", world.a1): False,
        ("joined", world.a): True,
        ("joined", world.a1): False,
    }
    for (person, group), may_read in asked.items():
        user = world.people[person]
        answer = client.get("/api/v2" + budget_path(group), headers={"X-User": str(user)})
        assert (answer.json["code"] == "budget-not-set") is may_read
        said = run("explain", "--user", user, "--group", group, *READ, database_url=url)
        assert (said.status == 0) is may_read


def spend_of(world, person):
    return ("--member", world.people[person], *READ)


def test_the_spend_of_a_member_is_asked_about_with_the_group_that_names_the_organization(
    explain_user, world, engine
):
    """As over HTTP: one's own, by `self`; another member's is not for a member."""
    client = make_app(engine).test_client()
    own = explain_user("member", world.a1, *spend_of(world, "member"))
    other = explain_user("member", world.a1, *spend_of(world, "joined"))
    admin = explain_user("org_admin", world.a1, *spend_of(world, "member"))
    for (status, *_), caller, whose in (
        (own, "member", "member"), (other, "member", "joined"), (admin, "org_admin", "member"),
    ):  # fmt: skip
        path = f"/api/v2/organizations/{world.a}/members/{world.people[whose]}/ai/spend"
        answer = client.get(path, headers={"X-User": str(world.people[caller])})
        assert (answer.status_code == 200) is (status == 0)
    me = world.people["member"]
    assert f"holds self in user:{me}: counts" in own[1]
    assert "allowed: self, ai_member_spend, read" in own[1]
    them = world.people["joined"]
    assert (
        f"holds self in user:{me}: does not count: the member asked about is user:{them}"
        in (other[1])
    )
    assert f"holds org-admin in organization:{world.a}: counts" in admin[1]


def test_a_role_in_another_organization_or_in_a_group_does_not_count_toward_a_member(
    explain_user, world
):
    _, said, _ = explain_user("b_admin", world.a1, *spend_of(world, "member"))
    assert (
        f"holds org-admin in organization:{world.b}: does not count: "
        f"the member is in organization:{world.a}"
    ) in said
    _, said, _ = explain_user("member", world.a1, *spend_of(world, "joined"))
    assert (
        f"holds group-member in group:{world.a1}: does not count: a `ai_member_spend` has no group"
    ) in said


def test_a_user_is_asked_about_the_prices_of_the_site_without_a_group(run, world, database_url):
    url = database_url.set(drivername="postgresql").render_as_string(hide_password=False)
    price = ("--object", "ai_model_price", *UPDATE)
    owner, admin = (
        explain(run, "--user", world.people[who], *price, database_url=url)
        for who in ("owner", "org_admin")
    )
    assert (owner[0], admin[0]) == (0, 1)
    assert any(
        "does not count: a `ai_model_price` has no organization" in line for line in admin[1]
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--group", "a1", "--object", "ai_member_spend"), "--group and --member say whose"),
        (("--member", "m"), "--group and --member say whose"),
        (("--group", "a1", "--member", "m", "--object", "group"), "--group alone says which"),
        ((), "--group alone says which"),
    ],
)
def test_a_user_without_the_object_is_asked_which(run, arguments, said):
    result = run("explain", "--user", "m", *arguments, *READ)
    assert (result.status, result.out) == (2, "")
    assert said in result.err


def test_a_member_that_is_not_there_is_unreadable_input(run, world, database_url):
    url = database_url.set(drivername="postgresql").render_as_string(hide_password=False)
    asked = ("--user", world.member, "--group", world.a1, "--member", uuid4(), *READ)
    result = run("explain", *asked, database_url=url)
    assert (result.status, result.out) == (2, "")


# -- inside a host --

NUMBER = sa.BigInteger


@pytest.fixture
def host(make_database):
    """A host with tables of its own: user 1 leads company 10, user 2 is in its team 100."""
    engine = sa.create_engine(make_database(), poolclass=sa.NullPool)
    tables = sa.MetaData()

    def table(name, **columns):
        made = (
            sa.Column(n, t, primary_key=n == "id", autoincrement=False) for n, t in columns.items()
        )
        return sa.Table(name, tables, *made)

    team = table("team", id=NUMBER, organization_id=NUMBER)
    team_user = table("team_user", group_id=NUMBER, user_id=NUMBER)
    staff = table("staff", organization_id=NUMBER, user_id=NUMBER)
    leads = table("leads", user_id=NUMBER, role=sa.Text, organization_id=NUMBER)
    with engine.begin() as connection:
        tables.create_all(connection)
        connection.execute(team.insert(), [{"id": 100, "organization_id": 10},
                                           {"id": 200, "organization_id": 20}])  # fmt: skip
        connection.execute(team_user.insert(), [{"group_id": 100, "user_id": 2}])
        connection.execute(
            leads.insert(), [{"user_id": 1, "role": "org-admin", "organization_id": 10}]
        )
        upgrade(connection, Layout("bigint", groups="public.team.id"))
    directory = SqlDirectory(
        groups=team, group_members=team_user, organization_members=staff, role_assignments=leads
    )
    return engine, directory


def run_flask(host, directory, *arguments):
    engine, _ = host
    config = {"GOVBUDGET_ID_TYPE": "bigint", "GOVBUDGET_GROUPS": "public.team.id"}
    app = make_app(
        engine, config, directory=directory, identify=lambda: request.headers.get("X-User")
    )
    runner = app.test_cli_runner()
    group = FlaskGroup(create_app=lambda: app, load_dotenv=False, set_debug_flag=False)
    return runner.invoke(group, ["govbudget", "policy", "explain", *map(str, arguments)])


def test_inside_a_host_the_hosts_own_directory_is_asked(host):
    result = run_flask(host, host[1], "--user", 1, "--group", 100, *UPDATE)
    assert (result.exit_code, result.stdout.splitlines()[2:4]) == (
        0,
        ["holds org-admin in organization:10: counts", "allowed: org-admin, group, update"],
    )
    result = run_flask(host, host[1], "--user", 1, "--group", 200, *UPDATE)
    assert result.exit_code == 1
    assert (
        "holds org-admin in organization:10: does not count: the group is in organization:20"
        in result.stdout
    )
    assert run_flask(host, host[1], "--user", 2, "--group", 100, *READ).exit_code == 0


class Plain:
    """A directory with the protocol and no more."""

    def __init__(self, inner):
        self.groups = inner.groups
        self.load_subject = inner.load_subject
        self.load_group = inner.load_group
        self.load_organization = inner.load_organization
        self.load_member = inner.load_member
        self.group_members = inner.group_members
        self.organization_members = inner.organization_members


def test_a_directory_of_the_protocol_alone_is_asked_about_the_group(host):
    result = run_flask(host, Plain(host[1]), "--user", 1, "--group", 100, *READ)
    assert result.exit_code == 0
    assert "holds org-admin in organization:10: counts" in result.stdout
    result = run_flask(host, Plain(host[1]), "--user", 1, "--group", 200, *READ)
    assert result.exit_code == 1
    assert "1 holds no role anywhere" in result.stdout
