"""budgets export and apply: limits and overrides of an organization as one file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.commands import as_text
from tests.docs.support import ROOT, read_blocks
from tests.docs.test_how_tos import run_shell
from tests.support import TABLES, World

from govbudget.money import MAX_LIMIT_MICROS

pytestmark = pytest.mark.slow

PAST = "2020-01-31T12:00:00.000000Z"


def limit(group, micros):
    return {"group_id": str(group), "spend_limit_micros": micros}


def override(user, group, micros, **more):
    return {"user_id": str(user), **limit(group, micros), **more}


@pytest.fixture
def apply(here, world):
    """Apply a file of organization a, or another content."""

    def apply(limits=(), overrides=(), options=(), **more):
        content = {"organization_id": str(world.a), "limits": limits, "overrides": overrides}
        return here("budgets", "apply", "-", *options, stdin=json.dumps(content | more).encode())

    return apply


@pytest.fixture
def export(here, world):
    def export(organization=world.a):
        result = here("budgets", "export", organization)
        assert (result.status, result.err) == (0, "")
        return result.out

    return export


@pytest.fixture
def stored(export, world):
    """What is stored of organization a: its file, and how many entries its audit trail has."""

    def read():
        of_a = TABLES.audit_log.c.organization_id == world.a
        with world.engine.connect() as connection:
            query = sa.select(sa.func.count()).select_from(TABLES.audit_log).where(of_a)
            return export(), connection.scalar(query)

    return read


def full(world):
    """The lists of a file, sorted by id, with an override that has ended."""
    limits = sorted([limit(world.a1, 5), limit(world.a, 0)], key=lambda one: one["group_id"])
    overrides = [
        override(world.member, world.a1, 7, expires_at=PAST, reason="für \u202e"),
        override(world.joined, world.a, MAX_LIMIT_MICROS),
    ]
    return limits, sorted(overrides, key=lambda one: one["user_id"])


def test_what_is_exported_is_what_was_applied_and_changes_nothing(
    apply, stored, here, world, monkeypatch
):
    """Sorted, two blanks deep, a line's end last; ended overrides stay; also page by page."""
    monkeypatch.setattr("govbudget.cli.environment.PAGE", 1)
    limits, overrides = full(world)
    done = apply(limits[::-1], overrides[::-1])
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "4 set, 0 changed, 0 cleared, 0 unchanged"
    content = {"organization_id": str(world.a), "limits": limits, "overrides": overrides}
    text = json.dumps(content, indent=2) + "\n"
    assert stored() == (text, 4)
    again = here("budgets", "apply", "-", stdin=text.encode())
    assert (again.status, again.out) == (0, "0 set, 0 changed, 0 cleared, 4 unchanged\n")
    assert stored() == (text, 4)


def test_each_change_is_a_line_and_a_dry_run_prints_the_same(apply, stored, world):
    """Set, change and clear of both kinds; what is absent is cleared; only what differs is told."""
    first = [
        override(world.member, world.a1, 7, reason="a \x22b\x22"),
        override(world.joined, world.a, 1),
    ]
    apply([limit(world.a1, 5), limit(world.a, 3)], first)
    before = stored()
    second = [override(world.member, world.a, 8, expires_at="2030-01-01T01:00:00+01:00")]
    wanted = (
        [limit(world.a1, 6), limit(world.a2, 1)],
        [*second, override(world.org_admin, world.a, 2)],
    )
    dry = apply(*wanted, ["--dry-run"])
    assert (dry.status, stored()) == (0, before)
    done = apply(*wanted)
    assert (done.status, done.out, done.err) == (0, dry.out, "")
    *lines, last = done.out.splitlines()
    assert last == "2 set, 2 changed, 2 cleared, 0 unchanged"
    changed = (
        f"change override of user {world.member} from 7 micros for group {world.a1} because"
        rf' "a \"b\"" to 8 micros for group {world.a} until 2030-01-01T00:00:00.000000Z'
    )
    assert sorted(lines) == sorted(
        [
            f"clear limit of group {world.a}: 3 micros",
            f"change limit of group {world.a1} from 5 micros to 6 micros",
            f"set limit of group {world.a2}: 1 micros",
            f"clear override of user {world.joined}: 1 micros for group {world.a}",
            changed,
            f"set override of user {world.org_admin}: 2 micros for group {world.a}",
        ]
    )
    assert stored()[1] == before[1] + 6
    assert apply(*wanted).out == "0 set, 0 changed, 0 cleared, 4 unchanged\n"


def test_two_at_once_end_as_one_of_the_files(run, own_url, tmp_path):
    """Each changes what the other does not: the second waits, and then compares."""
    url = own_url.replace("postgresql:", "postgresql+psycopg:")
    world = World(sa.create_engine(url, poolclass=sa.NullPool))
    other, waits = [], "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'advisory')"

    def write(name, *values):
        (one, two), file = values, tmp_path / name
        limits = [limit(world.a1, one), limit(world.a, two)]
        content = {"organization_id": str(world.a), "limits": limits, "overrides": []}
        file.write_text(json.dumps(content))
        return file

    def start_other(*arguments):
        """Once the first one has read what is stored, until the other one waits, or has ended."""
        if "member_ai_overrides i" not in arguments[2] or other:
            return
        command = [sys.executable, "-m", "govbudget", "budgets", "apply", write("other", 1, 2)]
        environment = os.environ | {"GOVBUDGET_DATABASE_URL": own_url}
        other.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        with world.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while other[0].poll() is None and not connection.exec_driver_sql(waits).scalar_one():
                time.sleep(0.05)

    run("budgets", "apply", write("base", 1, 1), database_url=own_url)
    sa.event.listen(sa.Engine, "after_cursor_execute", start_other)
    try:
        done = run("budgets", "apply", write("first", 3, 1), database_url=own_url)
    finally:
        sa.event.remove(sa.Engine, "after_cursor_execute", start_other)
    assert (done.status, other[0].wait(timeout=60)) == (0, 0)
    stored = json.loads(run("budgets", "export", world.a, database_url=own_url).out)["limits"]
    assert {one["group_id"]: one["spend_limit_micros"] for one in stored} == {
        str(world.a1): 1,
        str(world.a): 2,
    }


def test_other_organizations_stay_as_they_are(apply, here, export, world):
    """An empty file clears its own organization alone."""
    here("budget", "set", world.b1, "--usd", "1")
    apply([limit(world.a1, 5)])
    other = export(world.b)
    assert apply().out.endswith("0 set, 0 changed, 1 cleared, 0 unchanged\n")
    assert (json.loads(export())["limits"], export(world.b)) == ([], other)
    assert json.loads(other)["limits"] == [limit(world.b1, 1_000_000)]


NOBODY = uuid4()
WRONG = {
    "unknown key": (lambda w: {"limit": []}, 2, "/limit: is not known here"),
    "no list": (lambda w: {"limits": None}, 2, "/limits: must be an array"),
    "key of an entry": (lambda w: {"limits": [limit(w.a1, 1) | {"usd": 1}]}, 2, "/limits/0/usd: "),
    "bounds": (lambda w: {"limits": [limit(w.a1, 10**12 + 1)]}, 2, "/limits/0/spend_limit_micros"),
    "text": (lambda w: {"limits": [limit(w.a1, "1")]}, 2, "/limits/0/spend_limit_micros"),
    "no id": (lambda w: {"limits": [limit("x", 1)]}, 2, "/limits/0/group_id: `x` is not an id"),
    "time": (
        lambda w: {"overrides": [override(w.member, w.a1, 1, expires_at="2030-01-01")]},
        *(2, "/overrides/0/expires_at: must be a time with its offset"),
    ),
    "no character": (
        lambda w: {"overrides": [override(w.member, w.a1, 1, reason="\ud800")]},
        *(2, "/overrides/0/reason: "),
    ),
    "group twice": (
        lambda w: {"limits": [limit(w.a2, 1), limit(w.a1, 1), limit(w.a2, 2)]},
        *(2, "/limits/2/group_id: `{a2}` is listed more than once"),
    ),
    "user twice": (
        lambda w: {"overrides": [override(w.member, w.a1, 1), override(w.member, w.a, 1)]},
        *(2, "/overrides/1/user_id: `{member}` is listed more than once"),
    ),
    "organization": (
        lambda w: {"organization_id": str(NOBODY)},
        *(1, f"no organization `{NOBODY}` is known here"),
    ),
    "group": (
        lambda w: {"limits": [limit(w.a2, 1), limit(NOBODY, 1)]},
        *(1, f"/limits/1: no group `{NOBODY}` is known in the organization"),
    ),
    "other group": (
        lambda w: {"limits": [limit(w.a2, 1), limit(w.b1, 1)]},
        *(1, "/limits/1: no group `{b1}` is known in the organization"),
    ),
    "not a member": (
        lambda w: {"overrides": [override(w.member, w.a1, 1), override(w.joined, w.a1, 1)]},
        *(1, "/overrides/1: the user `{joined}` is not a member of the group `{a1}`"),
    ),
    "member elsewhere": (
        lambda w: {"overrides": [override(w.outsider, w.b1, 1)]},
        *(1, "/overrides/0: the user `{outsider}` is not a member of the group `{b1}`"),
    ),
    "nobody": (
        lambda w: {"overrides": [override(NOBODY, w.a1, 1)]},
        *(1, f"/overrides/0: the user `{NOBODY}` is not a member of the group `{{a1}}`"),
    ),
}


@pytest.fixture(scope="module")
def kept(engine):
    """A world that keeps a limit and an override: each wrong file must change nothing of it."""
    world = World(engine)
    rows = {
        TABLES.group_ai_budgets: limit(world.a, 3),
        TABLES.member_ai_overrides: {
            "organization_id": world.a,
            **override(world.org_admin, world.a, 2),
        },
    }
    with engine.begin() as connection:
        for table, row in rows.items():
            connection.execute(sa.insert(table), {**row, "revision": uuid4()})
    return world


def read_kept(world):
    """All limits, overrides and entries of the audit trail that there are."""
    tables = TABLES.group_ai_budgets, TABLES.member_ai_overrides, TABLES.audit_log
    with world.engine.connect() as connection:
        return [sorted(map(str, connection.execute(sa.select(table)))) for table in tables]


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_file_names_the_entry_and_changes_nothing(here, kept, wrong):
    """Nothing is half done: what comes before the wrong entry is not written either."""
    change, status, says = wrong
    content = {"organization_id": str(kept.a), "limits": [limit(kept.a, 4)], "overrides": []}
    file = json.dumps(content | change(kept)).encode()
    names = {name: getattr(kept, name) for name in ("a1", "a2", "b1")} | kept.people
    before = read_kept(kept)
    for options in ([], ["--dry-run"]):
        result = here("budgets", "apply", "-", *options, stdin=file)
        assert (result.status, result.out) == (status, "")
        assert says.format(**names) in result.err
        assert "Traceback" not in result.err
        assert read_kept(kept) == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "the JSON has 1 error"),
        (b"\xff", "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON: it starts with a byte order mark; save it as UTF-8 without"),
        (b'{"limits": [], "limits": []}', 'the key "limits" is twice'),
    ],
)
def test_what_is_not_such_a_file_is_status_2(here, content, says):
    result = here("budgets", "apply", "-", stdin=content)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("govbudget: ")
    assert says in result.err


def test_a_file_or_an_organization_that_is_not_there_is_said(here, tmp_path):
    assert here("budgets", "apply", tmp_path / "none").status == 2
    result = here("budgets", "export", NOBODY)
    assert (result.status, result.sentence) == (1, f"no organization `{NOBODY}` is known here")


def test_the_page_says_how_the_file_is_kept_in_git(run, make_database, template, tmp_path):
    """Its commands are run, and its example and its answer are what is printed."""
    url = as_text(make_database(template=template))
    page = ROOT / "docs" / "how-to" / "limits-in-git.md"
    write, check, make = read_blocks(page, "sh")
    (example,) = read_blocks(page, "json")
    (answer,) = read_blocks(page, "")
    loaded = run("directory", "load", ROOT / "docs" / "directory.json", database_url=url)
    assert loaded.status == 0, loaded.err
    done = run("budgets", "apply", "-", database_url=url, stdin=example.encode())
    assert done.status == 0, done.err
    organization = f"ORGANIZATION={json.loads(example)['organization_id']}\n"
    edit = "cp limits.json was.json; sed -i s/20000000/25000000/ limits.json\n"
    done = run_shell(organization + write + edit + check + make, url, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "was.json").read_text() == example
    assert done.stdout == answer * 2
