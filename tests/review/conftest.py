"""The command in this process, and a copy of the packaged policy to be changed."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from tests.review.helpers import FOLDERS, copy_policy


@pytest.fixture
def run(monkeypatch, capfd):
    """Run `govbudget policy ...` with no GOVBUDGET_* variables but the given."""
    from govbudget.cli import main

    def run(*arguments, **variables):
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("GOVBUDGET_")]:
                patch.delenv(name)
            for name, value in variables.items():
                patch.setenv(f"GOVBUDGET_{name.upper()}", str(value))
            capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                main(["policy", *map(str, arguments)])
            out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return SimpleNamespace(status=ended.value.code, out=out, err=err)

    return run


@pytest.fixture
def folder(tmp_path):
    """A copy of the packaged policy, to be changed."""
    return copy_policy(FOLDERS["shipped"], tmp_path / "policy")


@pytest.fixture(autouse=True)
def _parsed_once(parsed_once):
    """These tests change the lines, so that Casbin is asked often."""
