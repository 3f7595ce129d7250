"""A review can be required: without its matrix.csv a policy does not start and is not reloaded."""

from __future__ import annotations

import shutil

import pytest
import sqlalchemy as sa
from flask import Flask

from govbudget import GovBudget, Policy, PolicyError, SettingsError
from govbudget.authz.files import packaged_policy_dir
from govbudget.cli.environment import open_gov
from govbudget.server.app import create_app

NOWHERE = sa.create_engine("postgresql+psycopg://nowhere")


@pytest.fixture
def lost(tmp_path):
    """The packaged policy without its reviewed decisions."""
    for name in ("model.conf", "policy.csv"):
        shutil.copy(packaged_policy_dir() / name, tmp_path)
    return tmp_path


def install(policy=None, **variables):
    host = Flask("host")
    host.config.update({f"GOVBUDGET_{key.upper()}": str(value) for key, value in variables.items()})
    return GovBudget(host, engine=NOWHERE, identify=lambda: None, policy=policy)


def test_the_server_does_not_start(lost):
    variables = {"GOVBUDGET_POLICY_DIR": str(lost)}
    with pytest.raises(PolicyError, match=r"not-reviewed.*restore matrix\.csv"):
        create_app(NOWHERE, variables)
    create_app(NOWHERE, variables | {"GOVBUDGET_REQUIRE_MATRIX": "false"})


def test_a_host_whose_setting_names_the_folder_does_not_start(lost):
    with pytest.raises(PolicyError, match="not-reviewed"):
        install(policy_dir=lost)
    install(policy_dir=lost, require_matrix=False)


def test_a_host_whose_code_names_the_folder_starts_unless_it_is_required(lost):
    install(lost)
    install(Policy.load(lost))
    with pytest.raises(PolicyError, match="not-reviewed"):
        install(lost, require_matrix=True)


def test_a_policy_that_was_loaded_without_the_demand_is_refused_where_it_is_required():
    with pytest.raises(SettingsError, match=r"GOVBUDGET_REQUIRE_MATRIX.*`require_matrix=True`"):
        install(Policy.load(), require_matrix=True)
    install(Policy.load(require_matrix=True), require_matrix=True)


def test_a_reload_without_the_matrix_keeps_the_policy_in_force(lost):
    shutil.copy(packaged_policy_dir() / "matrix.csv", lost)
    policy = Policy.load(lost, require_matrix=True)
    table = policy.table
    (lost / "matrix.csv").unlink()
    with pytest.raises(PolicyError, match="not-reviewed"):
        policy.reload()
    assert policy.table is table


@pytest.mark.parametrize("required", [None, "true", "false"])
def test_a_command_that_acts_under_the_policy_needs_it_as_the_server_does(
    required, lost, monkeypatch
):
    monkeypatch.setenv("GOVBUDGET_POLICY_DIR", str(lost))
    monkeypatch.setenv("GOVBUDGET_DATABASE_URL", "postgresql://nowhere")
    if required:
        monkeypatch.setenv("GOVBUDGET_REQUIRE_MATRIX", required)
    if required == "false":
        with open_gov() as gov:
            assert gov.policy.folder == lost
    else:
        with pytest.raises(PolicyError, match="not-reviewed"), open_gov():
            pass
