"""spend report and spend member: what they print in each form, their statuses, the refusals."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from flask.cli import FlaskGroup
from tests.spend.test_store import ONE, Spender
from tests.support import TABLES, Client, make_app

from govbudget import Layout
from govbudget.authz.files import packaged_policy_dir
from govbudget.db.tables import Tables
from govbudget.directory.sql import SqlDirectory
from govbudget.ids import IdType
from govbudget.migrations import upgrade
from govbudget.settings import Unpriced
from govbudget.spend.tokens import Tokens
from govbudget.spend.usage import Call

pytestmark = pytest.mark.slow

COLUMNS = ("group", "user", "cost_micros", "cost_picos", "calls", "unpriced_calls")
TODAY = datetime.now(UTC)
DOLLAR = 1_000_000  # in micros


@pytest.fixture
def spender(world):
    """A gateway of a world in which the group a1 has two members and a limit of nine dollars."""
    with world.engine.begin() as connection:
        world.join_group(connection, world.a, world.a1, "joined")
    spender = Spender(world)
    spender.limit(world.a1, 9)
    return spender


def book(spender, person, tokens, *, event=None, model=None, **options):
    user = getattr(spender.world, person)
    call = Call(spender.world.a, user, "acme", model or spender.model)
    return spender("record", event or uuid4().hex, call, tokens, **options)


def price_in_picos(world, model):
    """Give a model a price of one pico a token."""
    row = {"provider": "acme", "model": model, "input_price": 1}
    with world.engine.begin() as connection:
        connection.execute(sa.insert(TABLES.ai_model_prices), row)


# -- report --


@pytest.fixture
def report(here, world):
    """Report on organization a, by group and user; give the rows."""

    def report(*options, by="group,user", **variables):
        words = ("spend", "report", "--organization", world.a, "--format", "jsonl", "--by", by)
        result = here(*words, *options, **variables)
        assert (result.status, result.err) == (0, "")
        return list(map(json.loads, result.out.splitlines()))

    return report


def test_the_report_adds_up_by_group_and_user(report, spender):
    world = spender.world
    for person, dollars in (("member", 2), ("joined", 3), ("member", 1), ("org_admin", 5)):
        book(spender, person, Tokens(input=dollars))
    rows = report()
    assert [tuple(row) for row in rows] == [COLUMNS] * len(rows)
    everyone, group = str(world.a), str(world.a1)  # who is in no other group spends for Everyone
    assert [
        (row["group"], row["user"], row["cost_micros"], row["calls"]) for row in rows
    ] == sorted(
        [
            (everyone, str(world.org_admin), 5 * DOLLAR, 1),
            (group, str(world.member), 3 * DOLLAR, 2),
            (group, str(world.joined), 3 * DOLLAR, 1),
        ]
    )


def test_totals_are_the_ledgers_and_each_is_rounded_up_once(report, spender):
    """Three users' picos are a micro each, and together one micro, not three."""
    model = uuid4().hex
    price_in_picos(spender.world, model)
    for person in ("member", "joined", "org_admin"):
        book(spender, person, ONE, model=model)
    ledger = spender.read("ai_usage", "cost_picos")
    assert sum(cost for (cost,) in ledger) == 3
    for by in ("day", "group", "user"):
        rows = report(by=by)
        assert sum(row["cost_picos"] for row in rows) == 3
        assert {row["cost_micros"] for row in rows} == {1}


def test_unpriced_calls_are_counted_and_cost_nothing(here, world, report):
    spender = Spender(world, unpriced=Unpriced.ALLOW)
    book(spender, "member", ONE)
    book(spender, "member", ONE, model="unknown")
    assert [(row["calls"], row["unpriced_calls"], row["cost_micros"]) for row in report()] == [
        (2, 1, DOLLAR)
    ]
    assert report("--month", "2020-01") == []


def test_the_text_is_a_table_with_a_total(here, spender):
    world = spender.world
    book(spender, "member", Tokens(input=1234))
    book(spender, "org_admin", Tokens(input=1))
    words = ("spend", "report", "--organization", world.a)
    group, user = min([(world.a1, world.member), (world.a, world.org_admin)], key=str)
    result = here(*words, "--by", "group,user,month")
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    costs = ["1234000000", "1000000"]
    assert lines[0].split() == ["month", "group", "user", "cost_micros", "calls", "unpriced_calls"]
    assert lines[1].split()[:3] == [f"{TODAY:%Y-%m}", str(group), str(user)]
    assert sorted(line.split()[3] for line in lines[1:3]) == sorted(costs)
    assert lines[3].split() == ["total", "1235000000", "2", "0"]
    assert len({len(line) for line in lines}) == len(lines) - 3 == 1
    assert here(*words).out.split() == [
        *("cost_micros", "calls", "unpriced_calls", "1235000000", "2", "0"),
    ]


def test_csv_holds_the_same_rows_under_a_header(here, spender, report):
    for person in ("member", "org_admin"):
        book(spender, person, ONE)
    words = ("spend", "report", "--organization", spender.world.a, "--by", "group,user")
    out = here(*words, "--format", "csv").out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert tuple(rows[0]) == COLUMNS
    assert rows == [
        {key: "" if value is None else str(value) for key, value in row.items()} for row in report()
    ]


def test_a_month_is_named_and_this_one_is_the_default(report, spender):
    book(spender, "member", Tokens(input=1))
    for day in ("2025-01-31T23:59:59+00:00", "2025-02-01T00:00:00+00:00"):
        tokens = Tokens(input=int(day[6]) * 10)
        book(spender, "member", tokens, occurred_at=datetime.fromisoformat(day))

    def total(*options):
        rows = report(*options, by="month")
        return [(row["month"], row["cost_micros"] // DOLLAR) for row in rows]

    assert total() == total("--month", f"{TODAY:%Y-%m}") == [(f"{TODAY:%Y-%m}", 1)]
    assert total("--month", "2025-01") == [("2025-01", 10)]
    assert total("--from", "2025-02-01", "--to", "2025-02-02") == [("2025-02", 20)]
    assert total("--from", "2025-01-31", "--to", "2025-03-01") == [("2025-01", 10), ("2025-02", 20)]
    assert total("--month", "2024-12") == []


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_months_are_those_of_the_time_zone(report, world, zone):
    """14 hours before and 11 hours behind UTC: the ends of the earth."""
    spender = Spender(world, time_zone=zone)
    for time in ("2025-01-31T09:59:59", "2025-01-31T10:00:00", "2025-02-01T11:00:00"):
        book(spender, "member", ONE, occurred_at=datetime.fromisoformat(f"{time}+00:00"))
    calls = {
        month: report("--month", month, time_zone=zone)[0]["calls"]
        for month in ("2025-01", "2025-02")
    }
    expected = (1, 2) if zone == "Pacific/Kiritimati" else (2, 1)
    assert calls == dict(zip(("2025-01", "2025-02"), expected, strict=True))
    assert report("--month", "2025-01", by="month", time_zone=zone)[0]["month"] == "2025-01"


def test_an_organization_without_spend_has_no_row_and_a_total_of_nothing(here, report, world):
    assert report() == report(by="day") == []
    words = ("spend", "report", "--organization", world.a, "--by", "day,user")
    assert here(*words).out.splitlines()[1].split() == ["total", "0", "0", "0"]


def test_another_organizations_spend_is_not_in_the_report(here, spender):
    world = spender.world
    book(spender, "member", ONE)
    out = here("spend", "report", "--organization", world.b, "--format", "csv").out
    assert len(out.splitlines()) == 1
    assert str(world.a) not in out


def test_an_organization_that_is_gone_keeps_its_spend(report, spender):
    book(spender, "member", ONE)
    gone = TABLES.organizations.c.id == spender.world.a
    with spender.world.engine.begin() as connection:
        connection.execute(sa.delete(TABLES.organizations).where(gone))
    assert report()[0]["cost_micros"] == DOLLAR


@pytest.mark.parametrize(
    ("command", "form"),
    [
        *(("report", form) for form in ("text", "csv", "jsonl")),
        ("export", "csv"),
        ("export", "jsonl"),
    ],
)
def test_an_unknown_organization_is_status_1_and_prints_nothing(here, command, form):
    organization = uuid4()
    result = here("spend", command, "--organization", organization, "--format", form)
    assert result.status == 1
    assert result.sentence == f"no organization `{organization}` is known here"


# -- member --


@pytest.fixture
def tell(here, world):
    """Tell of a member of organization a; give the lines of the text."""

    def tell(person="member", **variables):
        result = here("spend", "member", world.a, getattr(world, person), **variables)
        assert (result.status, result.err) == (0, "")
        return result.out.splitlines()

    return tell


def next_month():
    return f"{TODAY.replace(day=1) + timedelta(days=32):%Y-%m}-01T00:00:00.000000Z"


def test_a_member_is_told_the_limit_what_set_it_and_what_is_left(tell, spender):
    world = spender.world
    hold = spender("hold", spender.call, Tokens(input=3))
    spender("settle", hold.id, "e1", Tokens(input=2))
    spender("hold", spender.call, ONE)
    assert tell() == [
        f"limit   9000000 micros a month: the budget of the group {world.a1}",
        "spent   2000000 micros",
        "held    1000000 micros",
        "left    6000000 micros",
        f"resets  {next_month()}",
    ]


def set_override(world, dollars):
    row = {"organization_id": world.a, "user_id": world.member, "group_id": world.a1}
    row |= {"spend_limit_micros": dollars * DOLLAR, "revision": uuid4()}
    with world.engine.begin() as connection:
        connection.execute(sa.insert(TABLES.member_ai_overrides), row)


def test_an_override_is_told_as_such(tell, spender):
    set_override(spender.world, 4)
    assert tell()[0] == (
        "limit   4000000 micros a month: an override, which counts for the group "
        f"{spender.world.a1}"
    )
    assert tell("joined")[0].startswith("limit   9000000 micros a month: the budget of")


def test_without_a_limit_nothing_resets_to_anything_but_the_spend_is_told(tell, spender):
    book(spender, "org_admin", Tokens(input=5))
    limit, spent, held, left, _ = tell("org_admin")
    assert limit == "limit   none: no group that the user belongs to has a budget"
    assert (spent, held, left) == ("spent   5000000 micros", "held    0 micros", "left    no limit")


def test_of_several_budgets_the_rule_that_is_set_says_which_holds(tell, spender):
    world = spender.world
    spender.limit(world.a, 20)  # Everyone's
    assert tell()[0].endswith(f"20000000 micros a month: the budget of the group {world.a}")
    assert tell(limit_rule="lowest")[0].endswith(f"the budget of the group {world.a1}")


def test_whoever_is_over_the_limit_has_nothing_left(tell, spender):
    book(spender, "member", Tokens(input=50))
    assert tell()[1:4] == ["spent   50000000 micros", "held    0 micros", "left    0 micros"]


def test_what_is_left_is_rounded_down_and_what_is_spent_up(tell, spender):
    """A pico that is spent is shown, and no micro is shown that would not be admitted."""
    model = uuid4().hex
    price_in_picos(spender.world, model)
    book(spender, "member", ONE, model=model)
    assert tell()[1:4] == ["spent   1 micros", "held    0 micros", "left    8999999 micros"]


def test_the_json_is_what_the_endpoint_answers_and_what_is_left(here, spender, engine):
    world = spender.world
    book(spender, "member", ONE)
    out = here("spend", "member", world.a, world.member, "--format", "json").out
    path = f"/organizations/{world.a}/members/{world.member}/ai/spend"
    answer = Client(make_app(engine))("GET", path, world.owner).json
    assert json.loads(out) == {**answer, "left_micros": 8 * DOLLAR}


@pytest.mark.parametrize("person", ["outsider", "nobody", "stranger"])
def test_who_is_no_member_is_status_1(here, world, person):
    user = getattr(world, person)
    result = here("spend", "member", world.a, user)
    assert result.status == 1
    assert result.sentence == f"`{user}` is not a member of the organization `{world.a}`"


def test_nobody_is_a_member_of_an_unknown_organization(here, world):
    result = here("spend", "member", uuid4(), world.member, "--format", "json")
    assert (result.status, "is not a member of" in result.sentence) == (1, True)


# -- what is refused --


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["report"], "'--organization'"),
        (["report", "--organization"], "'--organization' requires an argument"),
        (["report", "--organization", "acme"], "`acme` is not an id; expected a UUID"),
        (["report", "--organization", "O", "--format", "xml"], "'xml' is not one of"),
        (["report", "--organization", "O", "extra"], "extra"),
        (["report", "--organization", "O", "--moth", "2026-01"], "--month"),
        *(
            (["report", "--organization", "O", "--month", month], f"`{month}` is not a month;")
            for month in (
                *("", "2026", "2026-1", "2026-13", "2026-00", "202601", "2026-01-01", "26-01"),
                *(
                    "-1",
                    "0000-01",
                    "2026-W1",
                    "January",
                    "\uff12\uff10\uff12\uff16-01",
                ),
            )
        ),
        *(
            ([command, "--organization", "O", *days], says)
            for command in ("report", "export")
            for days, says in (
                (["--month", "2009-11"], "is not a month; write YYYY-MM"),
                (["--month", "3000-02"], "is not a month; write YYYY-MM"),
                (["--from", "2026-02-01", "--to", "2026-02-01"], "must be before the other one"),
                (["--from", "2026-02-30", "--to", "2026-03-01"], "`2026-02-30` is not a day;"),
                (["--from", "2026-02-01"], "write --from and --to, or --month alone"),
                (["--to", "2026-02-01"], "write --from and --to, or --month alone"),
                (
                    ["--month", "2026-02", "--from", "2026-02-01", "--to", "2026-02-02"],
                    "write --from and --to, or --month alone",
                ),
            )
        ),
        (["report", "--organization", "O", "--by", "day,colour"], "`colour` is not a key;"),
        (["report", "--organization", "O", "--by", "day,day"], "`day` is named twice;"),
        (["member"], "'ORGANIZATION'"),
        (["member", "O"], "'USER'"),
        (["member", "O", "U", "extra"], "extra"),
        (["member", "acme", "U"], "`acme` is not an id"),
        (["member", "O", "grace"], "`directory find` looks ids up by name"),
        (["member", "O", "grace"], "`grace` is not an id"),
        (["member", "O", "U", "--format", "csv"], "'csv' is not one of"),
        (["verify", "--organization", "acme"], "`acme` is not an id"),
        (["verify", "extra"], "extra"),
    ],
    ids=str,
)
def test_what_is_mistyped_is_one_sentence_and_status_2(here, world, arguments, says):
    known = {"O": str(world.a), "U": str(world.member)}
    result = here("spend", *(known.get(word, word) for word in arguments))
    assert result.status == 2
    assert says in result.sentence


COMMANDS = pytest.mark.parametrize("command", ["report --organization O", "member O U", "verify"])


def call(run, world, command, **variables):
    known = {"O": world.a, "U": world.member}
    return run("spend", *(known.get(word, word) for word in command.split()), **variables)


@COMMANDS
def test_without_a_database_or_its_tables_the_sentence_says_what_to_do(
    run, world, empty_url, command
):
    missing = call(run, world, command)
    assert (missing.status, "GOVBUDGET_DATABASE_URL" in missing.sentence) == (2, True)
    empty = call(run, world, command, database_url=empty_url)
    assert (empty.status, "govbudget db upgrade" in empty.sentence) == (2, True)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("report --organization O --by user", "this needs the action `read`"),
        ("export --organization O", "this needs the action `read`"),
        ("member O U", "this needs the action `read`"),
        ("verify", "this needs the action `create`"),
    ],
)
def test_a_policy_that_lets_no_site_role_do_it_lets_no_operator(
    here, spender, tmp_path, command, says
):
    for name in ("model.conf", "policy.csv"):
        lines = (packaged_policy_dir() / name).read_text().splitlines(keepends=True)
        dropped = ("p, owner, site, ai_member_spend", "p, gateway")
        text = "".join(line for line in lines if not line.startswith(dropped))
        (tmp_path / name).write_text(text)
    book(spender, "member", ONE)
    result = call(here, spender.world, command, policy_dir=tmp_path, require_matrix="false")
    assert (result.status, says in result.sentence) == (2, True)


@pytest.mark.parametrize("command", ["report --organization O", "member O U"])
def test_where_only_the_host_knows_its_groups_the_sentence_says_where_to_ask(here, world, command):
    result = call(here, world, command, groups="public.team.id")
    assert (result.status, "`flask govbudget`" in result.sentence) == (2, True)


# -- inside a host --

ACME, GROUP, USER = "acme", "=1+1", "@ann"
HOST_LAYOUT = Layout(IdType.TEXT, "money", "public.crew.id")


@pytest.fixture
def host(make_database):
    """A host with text ids and tables of its own, without an Everyone group; ann is in a group."""
    engine = sa.create_engine(make_database(), poolclass=sa.NullPool)
    tables = sa.MetaData()
    text = sa.Text
    group = sa.Table(
        "crew", tables, sa.Column("id", text, primary_key=True), sa.Column("firm", text)
    )
    crew = sa.Table("crew_user", tables, sa.Column("crew", text), sa.Column("person", text))
    firm = sa.Table("firm_user", tables, sa.Column("firm", text), sa.Column("person", text))
    staff = sa.Table(
        "staff", tables, *(sa.Column(n, text) for n in ("user_id", "role", "organization_id"))
    )
    with engine.begin() as connection:
        tables.create_all(connection)
        connection.execute(group.insert(), {"id": GROUP, "firm": ACME})
        connection.execute(crew.insert(), {"crew": GROUP, "person": USER})
        connection.execute(firm.insert(), [{"firm": ACME, "person": p} for p in (USER, "bob")])
        connection.execute(staff.insert(), {"user_id": "service", "role": "gateway"})
        upgrade(connection, HOST_LAYOUT)
    directory = SqlDirectory(
        groups=sa.select(group.c.id, group.c.firm.label("organization_id")),
        group_members=sa.select(crew.c.crew.label("group_id"), crew.c.person.label("user_id")),
        organization_members=sa.select(
            firm.c.firm.label("organization_id"), firm.c.person.label("user_id")
        ),
        role_assignments=staff,
    )
    config = {"ID_TYPE": "text", "SCHEMA": "money", "GROUPS": "public.crew.id"}
    config = {f"GOVBUDGET_{key}": value for key, value in config.items()}
    return make_app(engine, config, directory=directory)


@pytest.fixture
def flask(host, monkeypatch):
    """Run `flask govbudget spend ...` for the host, whatever the environment names."""
    monkeypatch.setenv("GOVBUDGET_DATABASE_URL", "postgresql://127.0.0.1:1/elsewhere")

    def flask(*arguments):
        group = FlaskGroup(create_app=lambda: host, load_dotenv=False, set_debug_flag=False)
        return CliRunner().invoke(group, ["govbudget", "spend", *arguments], prog_name="flask")

    return flask


def spend_in(host):
    """Book a call of ann, who has a budget of 5 dollars, and one of bob, who is in no group."""
    client = Client(host)
    prices = ("input_price", "output_price", "cache_read_price", "cache_write_price")
    row = {"provider": "acme", "model": "m", **dict.fromkeys(prices, 1_000_000)}
    budget = {"group_id": GROUP, "spend_limit_micros": 5 * DOLLAR, "revision": uuid4()}
    tables = Tables(HOST_LAYOUT)
    with host.extensions["govbudget"].find_engine(None).begin() as connection:
        connection.execute(sa.insert(tables.ai_model_prices), row)
        connection.execute(sa.insert(tables.group_ai_budgets), budget)
    for user in (USER, "bob"):
        body = {"event_id": user, "organization_id": ACME, "user_id": user}
        body |= {"provider": "acme", "model": "m", "tokens": {"input": 2_000_000}}
        assert client("POST", "/ai/usage", "service", json=body).status_code == 201


def test_in_a_host_it_is_the_hosts_directory_and_no_cell_is_a_formula(host, flask):
    spend_in(host)
    result = flask("report", "--organization", ACME, "--by", "group,user", "--format", "csv")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [
        (row["group"], row["user"], row["cost_micros"])
        for row in csv.DictReader(io.StringIO(result.stdout))
    ]
    assert rows == [("'=1+1", "'@ann", "2000000"), ("", "bob", "2000000")]
    assert "\nnone   " in flask("report", "--organization", ACME, "--by", "group").stdout
    exported = flask("export", "--organization", ACME, "--format", "csv")
    assert {row["user_id"] for row in csv.DictReader(io.StringIO(exported.stdout))} == {
        "'@ann",
        "bob",
    }


def test_in_a_host_a_member_and_the_proof_are_told_too(host, flask):
    spend_in(host)
    told = flask("member", ACME, USER)
    assert (told.exit_code, told.stderr) == (0, "")
    assert told.stdout.startswith(
        "limit   5000000 micros a month: the budget of the group =1+1\n"
        "spent   2000000 micros\nheld    0 micros\nleft    3000000 micros\n"
    )
    assert flask("member", ACME, "bob").stdout.startswith("limit   none: ")
    assert flask("verify").stdout == "2 members, 2 calls: ledger = rollups = counters\n"


def test_in_a_host_what_is_unknown_is_status_1_and_what_is_no_id_2(flask):
    for arguments, status, says in (
        (["report", "--organization", "other"], 1, "no organization `other` is known here"),
        (["verify", "--organization", "other"], 1, "no organization `other` is known here"),
        (["member", ACME, "carl"], 1, "`carl` is not a member of the organization `acme`"),
        (["report", "--organization", "x" * 256], 2, "is not an id"),
    ):
        result = flask(*arguments)
        assert (result.exit_code, result.stdout) == (status, "")
        assert says in result.stderr
