"""The reports for pycasbin's maintainers: their scripts show here what the pages say they show.

Where a new pycasbin makes one of these fail, it may have fixed what the page reports.
"""

from __future__ import annotations

import re
import runpy
import subprocess
import sys

import casbin
import pytest
from tests.docs.support import ROOT, read_blocks

UPSTREAM = ROOT / "docs" / "upstream"


def read_output(page):
    """What the page says that the script prints, but for the versions."""
    (text,) = read_blocks(UPSTREAM / page, "text")
    return text.splitlines()[1:]


def test_a_mistyped_effect_turns_a_deny_into_an_allow(capsys):
    script = runpy.run_path(str(UPSTREAM / "mistyped_effect.py"))
    assert script["main"]() == 1
    assert capsys.readouterr().out.splitlines()[1:] == read_output("mistyped-effect.md")


def test_a_reload_answers_without_role_links_in_its_middle(tmp_path):
    script = runpy.run_path(str(UPSTREAM / "reload_under_threads.py"))
    for name in ("MODEL", "POLICY"):
        (tmp_path / name).write_text(script[name])
    enforcer = casbin.Enforcer(str(tmp_path / "MODEL"), str(tmp_path / "POLICY"))
    assert not enforcer.enforce("alice", "data", "read")
    assert script["ask_while_cleared"](enforcer) == (True, False)


@pytest.mark.long
def test_the_script_of_the_reload_prints_what_the_page_says():
    command = [sys.executable, str(UPSTREAM / "reload_under_threads.py"), "2"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    said, expected = ran.stdout.splitlines()[1:], read_output("reload-empties-role-links.md")
    assert [re.sub(r"\d+", "N", line) for line in said] == [
        re.sub(r"\d+", "N", line) for line in expected
    ]
    assert [line.endswith(" 0 wrong") for line in said[2:]] == [True, True]
