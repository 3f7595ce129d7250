"""policy who and policy diff --people at 30,000 people: seconds, and memory that does not grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import sqlalchemy as sa
from tests.commands import as_text
from tests.review.helpers import FOLDERS, append, copy_policy

PEOPLE = 30_000
# Organizations of 1,000, groups of 100; each is in one group, and each hundredth an org-admin.
CROWD = """
INSERT INTO govbudget.organizations (id, name)
  SELECT md5('o' || n)::uuid, 'organization' FROM generate_series(0, :people / 1000 - 1) n;
INSERT INTO govbudget.groups (id, organization_id, name)
  SELECT id, id, 'Everyone' FROM govbudget.organizations;
INSERT INTO govbudget.groups (id, organization_id, name)
  SELECT md5('g' || n)::uuid, md5('o' || n / 10)::uuid, 'group'
  FROM generate_series(0, :people / 100 - 1) n;
INSERT INTO govbudget.users (id, name)
  SELECT md5('u' || n)::uuid, 'user' FROM generate_series(0, :people - 1) n;
INSERT INTO govbudget.organization_members (organization_id, user_id)
  SELECT md5('o' || n / 1000)::uuid, md5('u' || n)::uuid FROM generate_series(0, :people - 1) n;
INSERT INTO govbudget.group_members (organization_id, group_id, user_id)
  SELECT md5('o' || n / 1000)::uuid, md5('g' || n / 100)::uuid, md5('u' || n)::uuid
  FROM generate_series(0, :people - 1) n;
INSERT INTO govbudget.role_assignments (id, user_id, role, organization_id)
  SELECT gen_random_uuid(), md5('u' || n)::uuid, 'org-admin', md5('o' || n / 1000)::uuid
  FROM generate_series(0, :people - 1, 100) n;
ANALYZE;
"""
# The peak of this process alone: `ru_maxrss` would begin with that of the one that started it.
RUN = """
import re, sys, time
from govbudget.cli import main
try:
    main(sys.argv[1:])
finally:
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]
    print(time.process_time(), int(peak) // 1024, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def crowd_url(make_database, template):
    url = make_database(template=template)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in CROWD.split(";\n")[:-1]:
            connection.execute(sa.text(statement.replace(":people", str(PEOPLE))))
    return as_text(url)


def run(url, *arguments):
    """Run it in a process of its own: output, processor seconds, peak in MiB."""
    ran = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)],
        env=os.environ | {"GOVBUDGET_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode < 2, ran.stderr
    *_, seconds, peak = ran.stderr.split()
    print(*arguments, f"{seconds} s of processor time, {peak} MiB")  # noqa: T201 - the figures
    return ran.stdout, float(seconds), int(peak)


@pytest.mark.long
def test_thirty_thousand_people_take_seconds_and_little_memory(crowd_url, own_url, tmp_path):
    """Little more memory than where there is nobody: people go by, a portion at a time."""
    new = copy_policy(FOLDERS["shipped"], tmp_path / "new")
    (new / "matrix.csv").unlink()
    append(new / "policy.csv", "p, group-member, group, group, update, allow\n")
    admins = PEOPLE // 100
    diff = ("diff", FOLDERS["shipped"], new, "--people")
    *_, of_nobody = run(own_url, "policy", *diff)
    for arguments, rows, more in (
        # As text the rows go by as those of `diff` do.
        (("who", "read", "group", "--format", "json"), admins + 2 * (PEOPLE - admins), 15),
        # It is asked about each member by itself: what it knows of them stays in memory.
        (("who", "read", "ai_member_spend", "--format", "json"), PEOPLE, 25),
        (diff, 2 * (PEOPLE - admins), 15),
    ):
        out, seconds, peak = run(crowd_url, "policy", *arguments)
        if "json" in arguments:
            assert len(json.loads(out)["people"]) == rows
        else:
            assert sum(line[8:9] == "-" for line in out.splitlines()) == rows
        assert seconds < 20
        assert peak < of_nobody + more
    assert json.loads(run(crowd_url, "directory", "check", "--format", "json")[0])["findings"] == []
