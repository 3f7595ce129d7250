"""`govbudget budget`: the limit of a group, set, shown, cleared and listed by the operator."""

from __future__ import annotations

import csv
import io
import json
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.support import TABLES

from govbudget.authz.files import packaged_policy_dir
from govbudget.money import MAX_LIMIT_MICROS, parse_usd, write_usd

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("20", 20_000_000),
        ("0", 0),
        ("0.000001", 1),
        ("19.99", 19_990_000),
        ("0.1", 100_000),
        ("007.50", 7_500_000),
        ("999999.999999", 999_999_999_999),
        ("1000000", MAX_LIMIT_MICROS),
    ],
)
def test_dollars_are_exact_micros_and_back(text, micros):
    """No amount passes through a float."""
    assert parse_usd(text) == micros
    assert parse_usd(write_usd(micros)) == micros


@pytest.mark.parametrize(
    "text",
    ["", "x", "-1", "+1", "1e3", "1,5", "1.", ".5", "0.0000001", "1_000", " 1", "NaN", "\u0663"],
)
def test_what_is_not_an_exact_amount_is_refused(here, text):
    """The sentence says the value and how to write one."""
    with pytest.raises(ValueError, match="is not an amount"):
        parse_usd(text)
    result = here("budget", "set", uuid4(), f"--usd={text}")
    assert result.status == 2
    assert f"`{text}` is not an amount in USD; write" in result.sentence


def test_a_budget_is_set_shown_and_cleared(here, world):
    """Each command says the limit in dollars and in micros."""
    assert here("budget", "show", world.a1).status == 1
    done = here("budget", "set", world.a1, "--usd", "20.5")
    line = f"group {world.a1}: each member may spend 20.5 USD (20500000 micros) a month\n"
    assert (done.status, done.out, done.err) == (0, line, "")
    assert here("budget", "show", world.a1).out == line
    shown = json.loads(here("budget", "show", world.a1, "--format", "json").out)
    assert list(shown) == ["group_id", "spend_limit_micros", "created_at", "updated_at"]
    assert (shown["group_id"], shown["spend_limit_micros"]) == (str(world.a1), 20_500_000)
    again = here("budget", "set", world.a1, "--micros", "0", "--format", "json")
    assert json.loads(again.out)["spend_limit_micros"] == 0
    gone = here("budget", "clear", world.a1)
    assert gone.out == f"group {world.a1}: no limit any more; it was 0 USD (0 micros) a month\n"
    for command in ("show", "clear"):
        result = here("budget", command, world.a1)
        assert result.status == 1
        assert result.sentence == (
            f"group `{world.a1}` has no budget, so no limit; `govbudget budget set` sets one"
        )


def test_each_change_is_in_the_audit_trail_as_the_operators(here, world):
    """Who, why and which lines allowed it, as for any other command."""
    here("budget", "set", world.a1, "--usd", "1")
    here("budget", "clear", world.a1)
    out = here("audit", "export", "--organization", world.a).out
    clear, set_ = map(json.loads, out.splitlines())
    assert (set_["after"], clear["before"]) == ({"spend_limit_micros": 1_000_000},) * 2
    for entry in (set_, clear):
        assert (entry["cause"], entry["actor"]) == ("command", "operator")
        assert "owner" in entry["roles"]
        assert entry["lines"]


def test_the_budgets_of_an_organization_are_listed_page_by_page(here, world, monkeypatch):
    """As text, JSON and CSV: the same budgets in the order of the group ids."""
    monkeypatch.setattr("govbudget.cli.environment.PAGE", 1)
    assert here("budget", "list", world.a).out == ""
    for group, usd in ((world.a1, 1), (world.a2, 2), (world.b1, 3)):
        here("budget", "set", group, "--usd", usd)
    wanted = sorted([(str(world.a1), 1_000_000), (str(world.a2), 2_000_000)])
    rows = json.loads(here("budget", "list", world.a, "--format", "json").out)
    assert [(row["group_id"], row["spend_limit_micros"]) for row in rows] == wanted
    table = csv.DictReader(io.StringIO(here("budget", "list", world.a, "--format", "csv").out))
    assert [{**row, "spend_limit_micros": int(row["spend_limit_micros"])} for row in table] == rows
    lines = here("budget", "list", world.a).out.splitlines()
    assert [line.split()[1].rstrip(":") for line in lines] == [group for group, _ in wanted]


@pytest.mark.parametrize("command", [["show"], ["set", "--micros", "1"], ["clear"], ["list"]])
def test_who_is_not_there_is_status_1(here, command):
    """A group or an organization that nobody knows has a sentence of its own."""
    asked = uuid4()
    result = here("budget", *command, asked)
    what = "organization" if command == ["list"] else "group"
    assert (result.status, result.sentence) == (1, f"no {what} `{asked}` is known here")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "name one of --usd and --micros"),
        (["--usd", "1", "--micros", "1"], "name one of --usd and --micros"),
        (["--micros", "1.5"], "'1.5' is not a valid integer"),
        (["--micros", MAX_LIMIT_MICROS + 1], "is not in the range 0<=x<=1000000000000"),
        (["--usd", "1000000.000001"], "`1000000.000001` is not an amount in USD; write"),
    ],
)
def test_a_limit_is_named_once_and_within_its_bounds(here, world, options, says):
    """Nothing is written otherwise."""
    result = here("budget", "set", world.a1, *options)
    assert result.status == 2
    assert says in result.sentence
    with world.engine.connect() as connection:
        of_group = TABLES.group_ai_budgets.c.group_id == world.a1
        assert not connection.execute(sa.select(sa.exists().where(of_group))).scalar_one()


def test_what_the_policy_gives_no_site_role_no_command_does(here, world, tmp_path):
    """The operator goes the way of everybody: through the policy."""
    for name in ("model.conf", "policy.csv", "matrix.csv"):
        text = (packaged_policy_dir() / name).read_text()
        text = text.replace("p, owner, site, group, update, allow\n", "")
        text = text.replace("owner,group,update,allow", "owner,group,update,deny")
        (tmp_path / name).write_text(text)
    result = here("budget", "set", world.a1, "--usd", "1", policy_dir=tmp_path)
    assert result.status == 2
    assert "`update`" in result.sentence
