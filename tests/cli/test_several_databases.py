"""Commands where there are several databases: which one each works on, and what it says of each."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import threading
import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.commands import as_text
from tests.pairs import HIGH, LOW, NOWHERE, PRICE, Pair
from tests.support import TABLES, make_app

from govbudget import Databases

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def urls(make_database, template):
    return {slots: as_text(make_database(template=template)) for slots in (LOW, HIGH)}


@pytest.fixture
def bare(run, urls):
    """Two databases with the tables, and nothing in them."""
    pair = Pair(run, urls)
    yield pair
    for engine in pair.engines.values():
        with engine.begin() as connection:
            # Else the trail would refuse that rows are taken out.
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
            connection.exec_driver_sql("DROP FUNCTION IF EXISTS govbudget.refuse CASCADE")
            for table in reversed(TABLES.metadata.sorted_tables):
                connection.execute(sa.delete(table))
        engine.dispose()


@pytest.fixture
def pair(bare):
    assert bare.load().status == 0
    return bare


def test_users_and_site_roles_go_to_each_database_an_organization_to_its_own(bare):
    result = bare.load()
    assert (result.status, result.err) == (0, "")
    low, high = result.out.split(f"database {HIGH}:\n")
    assert low.startswith(f"database {LOW}:\nadded ")
    assert str(bare.low) in low
    assert str(bare.high) not in low
    assert str(bare.high) in high
    assert str(bare.low) not in high
    assert bare.count("users") == [2, 2]
    assert bare.count("role_assignments", TABLES.role_assignments.c.organization_id.is_(None)) == [
        1,
        1,
    ]
    for table in ("organizations", "organization_members", "group_members"):
        assert bare.count(table) == [1, 1]
    assert bare.count("groups") == [2, 2]
    again = bare.load()
    line = "0 added, 0 changed, 0 removed\n"
    assert again.out == f"database {LOW}:\n{line}database {HIGH}:\n{line}"


def test_a_file_that_one_database_refuses_is_loaded_nowhere(pair):
    """A group that another database has in another organization is refused by that one."""
    moved = json.loads(json.dumps(pair.file))
    moved["groups"][0]["organization_id"] = str(pair.high)
    moved["users"].append({"id": str(uuid4()), "name": "New"})
    moved["group_members"] = []
    result = pair("directory", "load", "-", stdin=json.dumps(moved).encode())
    assert (result.status, result.out) == (2, "")
    assert "a group never changes it" in result.err
    assert pair.count("users") == [2, 2]


@pytest.mark.parametrize("slots", [LOW, HIGH])
def test_what_is_in_every_database_changes_nowhere_where_one_is_away(pair, slots):
    urls = pair.lock_out(slots)
    book = json.dumps([PRICE]).encode()
    for words, stdin in (
        (("prices", "load", "-"), book),
        (("token", "create", pair.owner), b""),
        (("directory", "load", "-"), json.dumps({**pair.file, "roles": []}).encode()),
    ):
        result = pair(*words, stdin=stdin, urls=urls)
        assert (result.status, result.out) == (2, "")
        assert "GOVBUDGET_DATABASE_URLS" in result.err
    assert pair.count("ai_model_prices") == [0, 0]
    assert pair.count("api_tokens") == [0, 0]
    assert pair.count("role_assignments") == [2, 2]


def test_prices_are_loaded_and_removed_in_each_database(pair):
    book = json.dumps([PRICE]).encode()
    dry = pair("prices", "load", "-", "--dry-run", stdin=book)
    assert dry.status == 0
    assert dry.out.count("1 new, 0 changed, 0 unchanged; nothing is written") == 2
    loaded = pair("prices", "load", "-", "--source", "custom", stdin=book)
    line = "1 received, 1 changed\n"
    assert loaded.out == f"database {LOW}:\n{line}database {HIGH}:\n{line}"
    assert pair.count("ai_model_prices") == [1, 1]
    shown = pair("prices", "show", "acme", "one")
    assert json.loads(shown.out)["input_price"] == 1_000_000
    with pair.engines[LOW].begin() as connection:
        connection.execute(sa.delete(TABLES.ai_model_prices))
    removed = pair("prices", "remove", "acme", "one")
    line = "removed the custom price of `acme` `one`\n"
    missing = "no custom price of `acme` `one`"
    assert removed.out == f"database {LOW}:\n{missing}\ndatabase {HIGH}:\n{line}"
    assert pair.count("ai_model_prices") == [0, 0]
    again = pair("prices", "remove", "acme", "one")
    assert (again.status, again.sentence) == (1, missing)


def test_a_jump_that_one_database_refuses_is_loaded_nowhere(pair):
    book = json.dumps([PRICE]).encode()
    assert pair("prices", "load", "-", stdin=book).status == 0
    with pair.engines[HIGH].begin() as connection:
        connection.execute(sa.update(TABLES.ai_model_prices).values(input_price=1))
    dearer = json.dumps([{**PRICE, "input_price": 2_000_000}]).encode()
    result = pair("prices", "load", "-", stdin=dearer)
    assert (result.status, result.out) == (2, "")
    with pair.engines[LOW].connect() as connection:
        prices = connection.scalars(sa.select(TABLES.ai_model_prices.c.input_price)).all()
    assert prices == [1_000_000]


def test_a_token_is_one_in_every_database_and_its_output_is_the_token_alone(pair):
    made = pair("token", "create", pair.owner)
    assert (made.status, made.err) == (0, f"made in the databases {LOW} and {HIGH}\n")
    assert made.out.startswith("gbt_")
    assert len(made.out.splitlines()) == 1
    listed = pair("token", "list")
    assert listed.out.count("active") == 2
    (token,) = {UUID(line.split()[0]) for line in listed.out.splitlines() if "active" in line}
    revoked = pair("token", "revoke", token)
    assert revoked.out == f"database {LOW}:\nrevoked {token}\ndatabase {HIGH}:\nrevoked {token}\n"
    assert pair("token", "list").out.count("revoked") == 2
    again = pair("token", "revoke", token)
    assert (again.status, again.err.count("no live token")) == (1, 1)
    assert again.err.startswith(f"govbudget: no live token `{token}`; ")


@pytest.mark.parametrize("slots", [LOW, HIGH])
def test_a_token_is_revoked_wherever_that_can_be_done(pair, slots):
    """Who has stolen it is kept out at once; the command says where it is not, and is run again."""
    assert pair("token", "create", pair.owner).status == 0
    listed = pair.run("token", "list", database_url=pair.urls[LOW])
    token = UUID(listed.out.split()[0])
    half = pair("token", "revoke", token, urls=pair.lock_out(slots))
    assert (half.status, half.out.count(f"revoked {token}")) == (2, 1)
    assert half.err.startswith(f"govbudget: database {slots}: the database refused: ")
    assert pair.count("api_tokens", TABLES.api_tokens.c.revoked_at.is_(None)) == (
        [1, 0] if slots == LOW else [0, 1]
    )
    again = pair("token", "revoke", token)
    assert (again.status, again.err, again.out.count(f"revoked {token}")) == (0, "", 1)
    assert pair.count("api_tokens", TABLES.api_tokens.c.revoked_at.is_(None)) == [0, 0]


def test_what_is_found_in_one_database_is_found(pair):
    """An organization is in one of them alone."""
    for one in (pair.low, pair.high):
        found = pair("directory", "find", one)
        assert (found.status, found.err, str(one) in found.out) == (0, "", True)
        in_json = pair("directory", "find", one, "--format", "json")
        (rows,) = json.loads(in_json.out).values()
        assert {row["id"] for row in rows} == {str(one)}
    none = pair("directory", "find", "nobody")
    assert (none.status, none.err.count("no user, group or organization")) == (1, 1)
    assert json.loads(pair("directory", "find", "nobody", "--format", "json").out) == {}


def test_an_organization_never_begins_anew_in_another_database(pair):
    """A wrong map would else give it a twin without limits, as the next directory is loaded."""
    moved = {LOW: pair.urls[HIGH], HIGH: pair.urls[LOW]}
    before = pair.count("organizations")
    for words in (("directory", "load", "-"), ("directory", "load", "-", "--dry-run")):
        refused = pair(*words, urls=moved, stdin=json.dumps(pair.file).encode())
        assert (refused.status, refused.out) == (2, "")
        assert "is in another database than its slot" in refused.sentence
    assert pair.count("organizations") == before == [1, 1]
    assert pair.load().status == 0


def at_commit(pair, slots, work):
    """Let a deferred constraint act when prices are committed, and not before."""
    with pair.engines[slots].begin() as connection:
        connection.exec_driver_sql(f"""
            CREATE FUNCTION govbudget.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN {work}; RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON govbudget.ai_model_prices
              DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION govbudget.refuse()
        """)


FAIL = "RAISE EXCEPTION 'the disk is full' USING ERRCODE = 'disk_full'"


def test_a_first_commit_that_fails_names_its_database(pair):
    at_commit(pair, LOW, FAIL)
    result = pair("prices", "load", "-", stdin=json.dumps([PRICE]).encode())
    assert result.status == 2
    assert result.sentence.startswith(f"database {LOW}: the database refused: the disk is full")
    assert pair.count("ai_model_prices") == [0, 0]


def interrupt_while_asleep(engine):
    """Send SIGINT to this process when the database sleeps, as it does before its commit."""
    asleep = sa.text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event = 'PgSleep'"
    )
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for _ in range(1000):
            if connection.scalar(asleep):
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.02)


def test_who_interrupts_a_command_between_two_commits_reads_where_it_is_done(pair):
    at_commit(pair, HIGH, "PERFORM pg_sleep(60)")
    interrupt = threading.Thread(target=interrupt_while_asleep, args=(pair.engines[HIGH],))
    interrupt.start()
    result = pair("prices", "load", "-", stdin=json.dumps([PRICE]).encode())
    interrupt.join()
    assert result.status == 2
    assert f"this is done in the databases {LOW}, and not in {HIGH}: " in result.sentence
    assert pair.count("ai_model_prices") == [1, 0]


def test_a_commit_that_fails_after_another_one_is_said(pair):
    at_commit(pair, HIGH, FAIL)
    result = pair("prices", "load", "-", stdin=json.dumps([PRICE]).encode())
    assert result.status == 2
    counts = pair.count("ai_model_prices")
    assert counts == [1, 0]
    assert f"this is done in the databases {LOW}, and not in {HIGH}" in result.sentence
    assert "the disk is full" in result.sentence
    with pair.engines[HIGH].begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER refuse ON govbudget.ai_model_prices")
    assert pair("prices", "load", "-", stdin=json.dumps([PRICE]).encode()).status == 0
    assert pair.count("ai_model_prices") == [1, 1]


@pytest.mark.parametrize("words", [("token", "create"), ("prices", "load", "-")])
def test_one_database_by_two_addresses_is_refused_and_keeps_nobody_waiting(pair, words):
    """Its second transaction would wait for its first one, for ever."""
    host = conninfo_to_dict(pair.urls[LOW])["host"]
    urls = {LOW: pair.urls[LOW], HIGH: make_conninfo(pair.urls[LOW], host=f"{host},{host}")}
    more = (pair.owner,) if words[0] == "token" else ()
    result = pair(*words, *more, urls=urls, stdin=json.dumps([PRICE]).encode())
    assert (result.status, result.out) == (2, "")
    assert f"`{HIGH}` and other slots lead to one database" in result.sentence
    assert (pair.count("api_tokens"), pair.count("ai_model_prices")) == ([0, 0], [0, 0])


def test_what_one_of_all_databases_refuses_names_the_database(pair):
    new = uuid4()
    with pair.engines[LOW].begin() as connection:
        connection.execute(sa.insert(TABLES.users), {"id": new, "name": "new"})
    refused = pair("token", "create", new)
    assert refused.sentence.startswith(f"database {HIGH}: no user `{new}`")
    for words in (("token", "create", pair.owner), ("directory", "load", "-")):
        stdin = json.dumps(pair.file).encode()
        away = pair(*words, urls=pair.lock_out(HIGH), stdin=stdin)
        assert (away.status, away.out) == (2, "")
        assert away.sentence.startswith(f"database {HIGH}: the database refused: ")


def test_a_budget_is_found_by_its_group_and_listed_by_its_organization(pair):
    for organization, group in pair.groups.items():
        assert pair("budget", "set", group, "--usd", "3").status == 0
        assert f"group {group}: each member may spend 3 USD" in pair("budget", "show", group).out
        listed = pair("budget", "list", organization, "--format", "json")
        assert [one["group_id"] for one in json.loads(listed.out)] == [str(group)]
        exported = pair("budgets", "export", organization)
        applied = pair("budgets", "apply", "-", stdin=exported.out.encode())
        assert applied.out == "0 set, 0 changed, 0 cleared, 1 unchanged\n"
        trail = pair("audit", "export", "--organization", organization)
        assert str(group) in trail.out
    assert pair.count("group_ai_budgets") == [1, 1]
    for group in pair.groups.values():
        assert pair("budget", "clear", group).status == 0
        unset = pair("budget", "show", group)
        assert (unset.status, "has no budget" in unset.sentence) == (1, True)
    unknown = pair("budget", "show", uuid4())
    assert (unknown.status, "no group" in unknown.sentence) == (1, True)


@pytest.mark.parametrize("slots", [LOW, HIGH])
def test_a_group_is_found_where_the_other_database_is_away(pair, slots):
    """One that is in no database that could be asked is not said to be nowhere."""
    urls = pair.lock_out(slots)
    away, there = (pair.low, pair.high) if slots == LOW else (pair.high, pair.low)
    assert pair("budget", "set", pair.groups[there], "--usd", "3", urls=urls).status == 0
    for group in (pair.groups[away], uuid4()):
        result = pair("budget", "set", group, "--usd", "3", urls=urls)
        assert (result.status, "the database refused" in result.sentence) == (2, True)
    result = pair("budget", "list", there, urls=urls)
    assert (result.status, result.err) == (0, "")


@pytest.mark.parametrize(
    "words",
    [
        ("db", "current"),
        ("db", "check"),
        ("db", "upgrade"),
        ("spend", "verify"),
        ("notices", "sweep"),
        ("directory", "check"),
        ("policy", "who", "update", "group"),
        ("prices", "gaps"),
        ("token", "list"),
        ("directory", "find", "Max"),
    ],
    ids=" ".join,
)
def test_what_is_about_a_database_runs_over_each_and_one_that_is_away_hides_no_other(pair, words):
    result = pair(*words)
    assert result.status == 0
    low, high = result.out.removeprefix(f"database {LOW}:\n").split(f"database {HIGH}:\n")
    if words[0] != "policy":
        assert low == high
    for slots in (LOW, HIGH):
        half = pair(*words, urls=pair.lock_out(slots))
        assert half.status == 2
        assert len(half.out) < len(result.out) or words == ("token", "list")
        assert f"database {slots}: the database refused: " in half.err
        assert half.err.count("the database refused") == 1
    one = pair.run(*words, database_url=pair.urls[LOW])
    assert (one.status, one.out) == (0, low)


def test_groups_that_one_database_lacks_keep_no_other_from_its_upgrade(run, make_database):
    urls = [make_database(), make_database()]
    with sa.create_engine(urls[1], poolclass=sa.NullPool).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE crew (id uuid PRIMARY KEY)")
    named = json.dumps(dict(zip((LOW, HIGH), map(as_text, urls), strict=True)))
    options = {"database_urls": named, "groups": "public.crew.id"}
    half = run("db", "upgrade", **options)
    assert (half.status, f"database {HIGH}:\nschema `govbudget`: from nothing" in half.out) == (
        2,
        True,
    )
    assert half.err.startswith(f"govbudget: database {LOW}: GOVBUDGET_GROUPS is `public.crew.id`")


def test_json_has_the_answer_of_each_database_by_its_slots(pair):
    for words in (
        ("directory", "find", "Max"),
        ("directory", "check"),
        ("policy", "who", "update", "group"),
        ("policy", "diff", "policy", "policy/dedicated", "--people"),
        ("prices", "gaps"),
    ):
        both = json.loads(pair(*words, "--format", "json").out)
        assert list(both) == [LOW, HIGH]
        for slots, url in pair.urls.items():
            alone = pair.run(*words, "--format", "json", database_url=url)
            assert both[slots] == json.loads(alone.out)
        half = pair(*words, "--format", "json", urls=pair.lock_out(LOW))
        assert json.loads(half.out) == {HIGH: both[HIGH]}
    none = pair("prices", "gaps", "--format", "json", urls={LOW: NOWHERE, HIGH: f"{NOWHERE}2"})
    assert (none.status, json.loads(none.out)) == (2, {})


def test_rows_have_a_column_of_their_database(pair):
    assert pair("prices", "load", "-", stdin=json.dumps([PRICE]).encode()).status == 0
    lines = pair("audit", "export", "--type", "ai_model_price").out.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["database"] for row in rows] == [LOW, HIGH]
    text = pair("audit", "export", "--type", "ai_model_price", "--format", "csv").out
    assert [row["database"] for row in csv.DictReader(io.StringIO(text))] == [LOW, HIGH]
    half = pair("audit", "export", "--format", "csv", urls=pair.lock_out(LOW)).out
    assert {row["database"] for row in csv.DictReader(io.StringIO(half))} == {HIGH}
    alone = pair.run("audit", "export", "--format", "csv", database_url=pair.urls[LOW]).out
    assert "database" not in alone.splitlines()[0]


def test_a_month_is_closed_in_a_file_of_each_database(pair, tmp_path):
    file = tmp_path / "january.jsonl"
    closed = pair("spend", "close", "2026-01", "--to", file)
    assert (closed.status, closed.err) == (0, "")
    names = {slots: f"january.{slots}.jsonl" for slots in (LOW, HIGH)}
    assert {path.name for path in tmp_path.iterdir()} == set(names.values())
    for name in names.values():
        assert f"0 calls, 0 holds in {Path(tmp_path, name)}" in closed.out
    assert pair("spend", "verify", "--with", file).status == 0
    of_one = pair("spend", "verify", "--organization", pair.high, "--with", file)
    assert (of_one.status, "database" in of_one.out) == (0, False)
    (tmp_path / names[HIGH]).unlink()
    half = pair("spend", "verify", "--with", file)
    assert half.status == 2
    assert f"database {HIGH}: {tmp_path / names[HIGH]}: no such file" in half.err
    assert "0 members, 0 calls" in half.out


def test_a_file_of_many_slots_has_a_name_that_every_disk_takes(pair, tmp_path):
    """After many moves a database has more slots than a name may have letters."""
    odd = ",".join(str(slot) for slot in range(1, 2047, 2))
    even = ",".join(str(slot) for slot in range(0, 2047, 2))
    urls = {f"{even},2047": pair.urls[LOW], f"{odd},2048-4095": pair.urls[HIGH]}
    file = tmp_path / "january.jsonl"
    closed = pair("spend", "close", "2026-01", "--to", file, urls=urls)
    assert (closed.status, closed.err) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {"january.0.jsonl", "january.1.jsonl"}
    assert pair("spend", "verify", "--with", file, urls=urls).status == 0


def test_what_asks_for_one_organization_asks_its_database_alone(pair):
    urls = pair.lock_out(LOW)
    for words in (
        ("spend", "report", "--organization", pair.high),
        ("spend", "verify", "--organization", pair.high),
        ("spend", "member", pair.high, pair.member),
        ("notices", "list", pair.high),
        ("notices", "sweep", "--organization", pair.high),
        ("budgets", "export", pair.high),
        ("policy", "who", "update", "group", "--organization", pair.high),
        ("policy", "who", "update", "group", "--group", pair.groups[pair.high]),
    ):
        result = pair(*words, urls=urls)
        assert (result.status, result.err, "database" in result.out) == (0, "", False)
    held = pair(
        *("policy", "explain", "--user", pair.member, "--group", pair.groups[pair.high]),
        *("--action", "update"),
        urls=urls,
    )
    assert (held.status, "org-admin" in held.out) == (0, True)


WRONG = [
    ("[1]", "is not a JSON object"),
    ("{", "is not a JSON object"),
    ('{"0-4095": 7}', "is not a JSON object"),
    ('{"postgresql://a:secret@b/c": "0-4095"}', "is not a JSON object"),
    ('{"0-4095": {"a": "secret"}}', "is not a JSON object"),
    ('{"0-9": "postgresql:///a", "0-9": "postgresql:///b"}', "has `0-9` twice; take one of"),
    ('{"0-9": "postgresql:///a", "10-4095": ""}', "`10-4095` is not a database URL; it is empty"),
    ('{"0-9": "postgresql:///a"}', "10-4095"),
    ('{"0-4095": "postgresql:///a", "7": "postgresql:///b"}', "7"),
    ('{"0-4096": "postgresql:///a"}', "0-4096"),
    ('{"0-4095": "mysql://u:secret@h/a"}', "names `mysql`"),
    ('{"0-4095": "postgresql://u:secret@h@i/a"}', "`0-4095` is not a database URL"),
    (
        '{"0-9": "postgresql://u:secret@h/a", "10-4095": "postgresql://v:other@H:5432/a"}',
        "for `0-9` and for `10-4095`",
    ),
    ("\udcff", "is not a JSON object"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_a_wrong_map_is_refused_and_shows_no_password(run, text, sentence):
    for words in (("db", "current"), ("serve", "--port", "0")):
        result = run(*words, database_urls=text)
        assert result.status == 2
        assert sentence in result.sentence
        assert "GOVBUDGET_DATABASE_URLS" in result.sentence
        assert "secret" not in result.err


def test_one_url_and_several_at_once_are_refused(run, url):
    several = json.dumps({"0-4095": url})
    result = run("db", "current", database_url=url, database_urls=several)
    assert (result.status, "unset one of them" in result.sentence) == (2, True)
    one = run("db", "current", database_url=url)
    assert run("db", "current", database_urls=several) == one
    assert run("db", "current", database_urls="", database_url=url) == one


# -- inside a host --


@pytest.fixture
def host(pair, monkeypatch):
    """Run `flask govbudget` in an application whose `engine=` finds the two databases."""
    databases = Databases(pair.engines)

    def host(*words, engine=databases, **options):
        app = make_app(engine, **options)
        result = app.test_cli_runner().invoke(args=["govbudget", *map(str, words)])
        return result.exit_code, result.stdout, result.stderr

    return host


def test_a_host_with_databases_has_the_same_commands(pair, host):
    assert pair("prices", "load", "--shipped").status == 0
    for words in (
        ("directory", "check"),
        ("spend", "verify"),
        ("token", "list"),
        ("policy", "who", "update", "group", "--format", "json"),
        ("prices", "load", "--shipped"),
        *(("budget", "set", group, "--usd", 3) for group in pair.groups.values()),
        ("budget", "list", pair.high),
        ("budget", "list", pair.low),
    ):
        ours = pair(*words)
        status, out, _ = host(*words)
        assert (status, out) == (ours.status, ours.out)
    assert pair.count("group_ai_budgets") == [1, 1]


def test_a_host_with_a_function_of_organizations_is_asked_about_one(pair, host):
    """Its commands about all databases say why they can't."""
    databases = Databases(pair.engines)
    owners = {group: organization for organization, group in pair.groups.items()}

    def find(organization):
        return databases(organization)

    options = {"engine": find}
    assert host("budget", "list", pair.high, **options)[0] == 0
    assert host("prices", "history", "acme", "one", **options)[0] == 1
    status, out, err = host("spend", "verify", **options)
    assert (status, out) == (2, "")
    assert "`engine=` is a function, which can't say its databases" in err
    group = pair.groups[pair.high]
    status, _, err = host("budget", "set", group, "--usd", "3", **options)
    assert (status, "give it `organization_of=`" in err) == (2, True)
    options["organization_of"] = owners.get
    assert host("budget", "set", group, "--usd", "3", **options)[0] == 0
    assert host("budget", "show", group, **options)[0] == 0
    assert pair.count("group_ai_budgets") == [0, 1]
