"""`govbudget audit export`: every entry, in a form that is safe to open."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.audit.support import NOBODY
from tests.support import TABLES, World
from tests.web.helpers import put_limit

from govbudget.cli.audit import COLUMNS
from govbudget.text import _defuse

RECORD = ("before", "after", "roles", "lines")


@pytest.fixture(scope="module")
def estate(engine, send):
    """A world with three changes in organization a and one in b."""
    world = World(engine)
    for micros in (1, 2):
        put_limit(send, world.a1, world.owner, micros, headers={"X-Request-Id": "=1+1"})
    put_limit(send, world.b1, world.owner, 100)
    put_limit(send, world.a2, world.org_admin, 3)
    return world


def export(run, url, *options):
    result = run("audit", "export", *options, database_url=url)
    assert (result.status, result.err) == (0, "")
    return result.out


def test_json_lines_hold_every_entry_of_the_organization_the_newest_first(
    run, url, send, estate, policy
):
    out = export(run, url, "--organization", estate.a)
    assert out.isascii()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["after"]["spend_limit_micros"] for row in rows] == [3, 2, 1]
    assert all(tuple(row) == COLUMNS for row in rows)
    served = send("GET", f"/organizations/{estate.a}/ai/audit", estate.owner).json["entries"]
    assert [{**row, "at": None} for row in rows] == [{**row, "at": None} for row in served]
    assert rows[0]["actor"] == str(estate.org_admin)
    assert rows[0]["lines"] == list(policy.decide({"org-admin"}, "group", "update").lines)


def test_csv_holds_the_same_with_a_header_line(run, url, estate):
    out = export(run, url, "--organization", estate.a, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert tuple(rows[0]) == COLUMNS
    plain = [
        json.loads(line)
        for line in export(run, url, "--organization", estate.a, "--format", "jsonl").splitlines()
    ]
    for row, entry in zip(rows, plain, strict=True):
        expected = {
            key: "" if value is None else json.dumps(value) if key in RECORD else value
            for key, value in entry.items()
        }
        if expected["request_id"] == "=1+1":
            expected["request_id"] = "'=1+1"
        assert row == expected
    assert rows[2]["before"] == "", "a first budget has no before"


def test_without_an_organization_it_is_the_site_prices_tokens_and_roles(run, url, send, estate):
    model = f"model-{uuid4().hex}"
    price = {"provider": "acme", "model": model, "input_price": 1, "output_price": None}
    price |= {"cache_read_price": None, "cache_write_price": None}
    send("PUT", "/ai/prices", estate.owner, json=[price])
    secret = run("token", "create", estate.member, database_url=url).out.strip()
    out = export(run, url)
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[0]["object_type"] == "api_token"
    assert rows[0]["after"]["user_id"] == str(estate.member)
    assert (rows[1]["object_type"], rows[1]["object_id"]) == ("ai_model_price", f"acme/{model}")
    assert secret not in out
    for group in (estate.a1, estate.b1):
        assert str(group) not in out


def test_more_than_a_page_is_exported_whole(run, url, engine, estate, monkeypatch):
    monkeypatch.setattr("govbudget.cli.environment.PAGE", 100)
    count = 2 * 100 + 1
    organization = uuid4()
    row = {"organization_id": organization, "object_type": "x", "receipt": NOBODY}
    with engine.begin() as connection:
        rows = [{**row, "object_id": str(number)} for number in range(count)]
        connection.execute(sa.insert(TABLES.audit_log), rows)
    out = export(run, url, "--organization", organization)
    seen = [json.loads(line)["object_id"] for line in out.splitlines()]
    assert len(seen) == count
    assert set(seen) == {str(number) for number in range(count)}


def test_an_organization_that_is_gone_keeps_its_log(run, url, engine, send, world):
    put_limit(send, world.a1, world.owner, 1)
    with engine.begin() as connection:
        gone = TABLES.organizations.c.id == world.a
        connection.execute(sa.delete(TABLES.organizations).where(gone))
    rows = [json.loads(line) for line in export(run, url, "--organization", world.a).splitlines()]
    assert [row["cause"] for row in rows] == ["cascade", "request"]


@pytest.mark.parametrize(("form", "header"), [("jsonl", ""), ("csv", f"{','.join(COLUMNS)}\n")])
def test_an_organization_without_entries_is_an_empty_export(run, url, world, form, header):
    assert export(run, url, "--organization", world.a, "--format", form) == header


def test_an_unknown_organization_is_status_1_and_prints_nothing(run, url):
    organization = uuid4()
    for form in ("jsonl", "csv"):
        result = run(
            "audit", "export", "--organization", organization, "--format", form, database_url=url
        )
        assert result.status == 1
        assert result.sentence == f"no organization `{organization}` is known here"


def test_what_is_no_id_is_wrong_usage(run, url):
    result = run("audit", "export", "--organization", "acme", database_url=url)
    assert result.status == 2
    assert result.sentence.startswith("`acme` is not an id; expected a UUID")


def test_no_database_and_a_schema_that_is_behind_print_no_header(run, empty_url):
    for options in ({}, {"database_url": empty_url}):
        result = run("audit", "export", "--format", "csv", **options)
        assert result.status == 2
        assert result.sentence


def test_a_policy_that_lets_no_site_role_update_groups_exports_nothing_in_so_many_words(
    run, url, estate, tmp_path
):
    """An empty export would look as if nothing had ever changed."""
    from govbudget.authz.files import packaged_policy_dir

    for name in ("model.conf", "policy.csv", "matrix.csv"):
        text = (packaged_policy_dir() / name).read_text()
        text = text.replace("p, owner, site, group, update, allow\n", "")
        text = text.replace("owner,group,update,allow", "owner,group,update,deny")
        (tmp_path / name).write_text(text)
    result = run(
        "audit", "export", "--organization", estate.a, database_url=url, policy_dir=tmp_path
    )
    assert result.status == 2
    assert "`update`" in result.sentence


# -- formulas --


def start_cells(text):
    """Split a line as spreadsheets do that take semicolons or tabs for separators."""
    return re.split(r"[;\t\r\n]", text)


FORMULAS = [
    "=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\tx", "\rx",
    " =1+1", "  +1", "\u00a0=1", '"=1+1"', "'=1", "' =1", ' "=1',
    "x;=1+1", "x;-1", "x; =1", 'x;"=1"', "a;b;@c", "x\t=1", "x\n=1", ";;=1",
    "\uff1d1", "\uff0b1", "\uff0d1", "\uff20x",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
@pytest.mark.parametrize("inside", [lambda t: t, lambda t: {"group_id": t}, lambda t: ["x", t]])
def test_no_cell_and_no_part_of_one_starts_a_formula(text, inside):
    """Nor where it is read as it stands, quotes and all, by a splitter that knows no quoting."""
    cell = _defuse(inside(text))
    out = io.StringIO()
    csv.writer(out).writerow(["x", cell, "y"])
    for whole in (cell, out.getvalue()):
        for part in start_cells(whole):
            shown = part.lstrip(" \u00a0\"'") if part[:1] != "'" else "text"
            assert shown[:1] not in set("=+-@\uff1d\uff0b\uff0d\uff20"), part
    assert cell[:1] not in {"\t", "\r", "\n"}


@pytest.mark.parametrize(
    "value",
    [
        "", "a=b", "claude-3", "acme/model+1", "2024-01-01T00:00:00+00:00", "policy.csv:9",
        "sha256:00", "a; b", {"spend_limit_micros": 0}, ["org-admin", "x-y"], None,
    ],
)  # fmt: skip
def test_what_is_no_formula_stays_as_it_is(value):
    plain = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    assert _defuse(value) == plain


def test_a_hostile_model_name_is_defused_in_csv_and_exact_in_json_lines(run, url, send, estate):
    models = [f"{uuid4().hex};=HYPERLINK(x)", f'"{uuid4().hex}", +1;"@x']
    for provider, model in (("=cmd|' /C calc'!A0", models[0]), ("-1", models[1])):
        price = {"provider": provider, "model": model, "input_price": 1, "output_price": None}
        price |= {"cache_read_price": None, "cache_write_price": None}
        price["provider"] = provider.replace("/", "")
        assert send("PUT", "/ai/prices", estate.owner, json=[price]).status_code == 200
    rows = [json.loads(line) for line in export(run, url).splitlines()]
    assert rows[0]["object_id"] == f"-1/{models[1]}"
    assert rows[1]["object_id"] == f"=cmd|' C calc'!A0/{models[0]}"
    text = export(run, url, "--format", "csv")
    first, second = list(csv.DictReader(io.StringIO(text)))[:2]
    assert first["object_id"] == "'" + f"-1/{models[1]}".replace(';"@x', ";'\"@x")
    assert second["object_id"] == "'" + rows[1]["object_id"].replace(";=", ";'=")
    for part in start_cells(text):
        assert part.lstrip(' "')[:1] not in set("=+-@"), part


# -- when nobody reads on --


@pytest.mark.long
def test_a_reader_that_goes_away_ends_it_quietly(url, engine, estate):
    organization = uuid4()
    row = {
        "organization_id": organization,
        "object_type": "x",
        "receipt": {**NOBODY, "actor": "a" * 200},
    }
    with engine.begin() as connection:
        rows = [{**row, "object_id": str(number)} for number in range(1500)]
        connection.execute(sa.insert(TABLES.audit_log), rows)
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "govbudget", "audit", "export", "--organization", str(organization)],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GOVBUDGET_DATABASE_URL": url},
    )
    os.close(writer)
    assert os.read(reader, 10)
    os.close(reader)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGPIPE
    assert err == ""
