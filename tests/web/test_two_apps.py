"""Two applications in one process, and policies that change: each answers by its own."""

from __future__ import annotations

import logging
import shutil

import pytest
import sqlalchemy as sa
from tests.support import Client, World, budget_path, list_path, make_app
from tests.web.helpers import outcome, put_limit, read_row, together

from govbudget import GovBudget, Policy, PolicyError
from govbudget.authz.files import packaged_policy_dir

VIEWER = "p, budget-viewer, organization, group, read, allow\n"
MATRIX_OF_VIEWER = "".join(
    f"budget-viewer,{obj},{action},{'allow' if (obj, action) == ('group', 'read') else 'deny'}\n"
    for obj in ("ai_model_price", "group", "group_ai_budget")
    for action in ("read", "update")
)


@pytest.fixture
def folder(tmp_path):
    """A copy of the packaged policy, to be changed."""
    path = tmp_path / "policy"
    shutil.copytree(packaged_policy_dir(), path)
    return path


def add_viewer(folder):
    """Add a role as a reviewer would: lines in two files, no code."""
    for name, lines in (("policy.csv", VIEWER), ("matrix.csv", MATRIX_OF_VIEWER)):
        file = folder / name
        file.write_text(file.read_text() + lines)


def test_a_role_is_added_by_lines_in_two_files_and_works_over_http(engine, world, folder):
    """`budget-viewer` reads every budget of its organization, sets none, sees no other's."""
    with engine.begin() as connection:
        world.assign(connection, "nobody", "budget-viewer", world.a)
    plain = Client(make_app(engine))
    put_limit(plain, world.a1, world.owner, 7)
    assert outcome(plain("GET", budget_path(world.a1), world.nobody)) == (404, "group-not-found")

    add_viewer(folder)
    send = Client(make_app(engine, policy=folder))
    read = send("GET", budget_path(world.a1), world.nobody)
    assert (read.status_code, read.json["spend_limit_micros"]) == (200, 7)
    listed = send("GET", list_path(world.a), world.nobody).json["budgets"]
    assert [budget["group_id"] for budget in listed] == [str(world.a1)]
    assert outcome(put_limit(send, world.a1, world.nobody)) == (403, "forbidden")
    assert outcome(send("GET", budget_path(world.b1), world.nobody)) == (404, "group-not-found")
    assert outcome(send("GET", "/ai/prices/a/b", world.nobody)) == (403, "forbidden")
    listed = send("GET", list_path(world.b), world.nobody)
    assert outcome(listed) == (404, "organization-not-found")


def test_a_role_that_the_matrix_does_not_know_does_not_start(engine, folder):
    file = folder / "policy.csv"
    file.write_text(file.read_text() + VIEWER)
    with pytest.raises(PolicyError, match="budget-viewer"):
        make_app(engine, policy=folder)


def test_a_deny_line_wins_over_every_other_role(engine, world, folder):
    """Who is an owner and barred is refused everywhere, in the list too."""
    (folder / "matrix.csv").unlink()
    file = folder / "policy.csv"
    file.write_text(file.read_text() + "p, barred, organization, group, update, deny\n")
    with engine.begin() as connection:
        world.assign(connection, "owner", "barred", world.a)
    send = Client(make_app(engine, policy=folder))
    assert outcome(put_limit(send, world.a1, world.owner)) == (403, "forbidden")
    assert put_limit(send, world.b1, world.owner).status_code == 200


def test_a_reload_is_in_force_at_the_next_request_and_a_bad_file_is_not(engine, world, folder):
    policy = Policy.load(folder)
    send = Client(make_app(engine, policy=policy))
    with engine.begin() as connection:
        world.assign(connection, "nobody", "budget-viewer", world.a)
    put_limit(send, world.a1, world.owner)
    path = budget_path(world.a1)
    assert outcome(send("GET", path, world.nobody)) == (404, "group-not-found")
    before = policy.digest
    with (folder / "policy.csv").open("a") as file:
        file.write("p, budget-viewer, organization, group, read, alow\n")
    with pytest.raises(PolicyError):
        policy.reload()
    assert policy.digest == before
    assert put_limit(send, world.a1, world.org_admin).status_code == 200
    shutil.copy(packaged_policy_dir() / "policy.csv", folder / "policy.csv")
    add_viewer(folder)
    policy.reload()
    assert send("GET", path, world.nobody).status_code == 200
    shutil.copy(packaged_policy_dir() / "policy.csv", folder / "policy.csv")
    shutil.copy(packaged_policy_dir() / "matrix.csv", folder / "matrix.csv")
    policy.reload()
    assert outcome(send("GET", path, world.nobody)) == (404, "group-not-found")
    assert policy.digest == before


@pytest.mark.long
def test_requests_during_reloads_of_the_same_files_get_no_other_answer(engine, world, folder):
    policy = Policy.load(folder)
    send = Client(make_app(engine, policy=policy))
    put_limit(send, world.a1, world.owner)
    expected = {"member": 200, "outsider": 404, "org_admin": 200, "b_admin": 404}

    def act(index):
        if index == 0:
            for _ in range(5):
                policy.reload()
            return []
        return [
            (name, send("GET", budget_path(world.a1), getattr(world, name)).status_code)
            for _ in range(8)
            for name in expected
        ]

    for seen in together(4, act):
        assert all(expected[name] == status for name, status in seen)


@pytest.fixture(scope="module")
def other_engine(make_database, template):
    """A second database."""
    engine = sa.create_engine(make_database(template=template))
    yield engine
    engine.dispose()


def test_two_apps_with_two_policies_and_databases_know_nothing_of_each_other(
    engine, other_engine, world, folder
):
    there = World(other_engine)
    add_viewer(folder)
    with engine.begin() as connection:
        world.assign(connection, "nobody", "budget-viewer", world.a)
    with other_engine.begin() as connection:
        there.assign(connection, "nobody", "budget-viewer", there.a)
    first = Client(make_app(engine))
    config = {
        "GOVBUDGET_URL_PREFIX": "/money",
        "GOVBUDGET_POLICY_DIR": str(folder),
        "GOVBUDGET_EXPOSE_POLICY_DIGEST": "true",
    }
    second = Client(make_app(other_engine, config), prefix="/money")

    for send, town, viewer in ((first, world, 404), (second, there, 200)):
        assert put_limit(send, town.a1, town.owner, 1).status_code == 200
        got = send("GET", budget_path(town.a1), town.nobody)
        assert got.status_code == viewer
        assert ("Govbudget-Policy-Digest" in got.headers) == (send is second)
    assert read_row(other_engine, world.a1) is None
    assert read_row(engine, there.a1) is None
    # A person and a group of the one are nobody and nothing to the other.
    assert outcome(put_limit(first, there.a1, there.owner)) == (404, "group-not-found")
    assert outcome(put_limit(second, world.a1, world.owner)) == (404, "group-not-found")
    assert outcome(put_limit(first, there.a1, world.owner)) == (404, "group-not-found")
    # Interleaved, with one request open inside the other, each stays with its own.
    with second.app.test_request_context("/money/ai/prices"):
        assert put_limit(first, world.a1, world.org_admin, 2).status_code == 200
    assert read_row(engine, world.a1) == 2
    assert second.app.test_client().get("/api/v2/ai/prices/a/b").status_code == 404
    assert first.app.test_client().get("/money/ai/prices/a/b").status_code == 404


def test_one_extension_object_serves_two_apps(engine, other_engine, world):
    from flask import Flask, request

    extension = GovBudget(identify=lambda: request.headers.get("X-User"))
    apps = [Flask("one"), Flask("two")]
    for app, where in zip(apps, (engine, other_engine), strict=True):
        extension.init_app(app, engine=where)
    assert put_limit(Client(apps[0]), world.a1, world.owner, 4).status_code == 200
    assert outcome(put_limit(Client(apps[1]), world.a1, world.owner)) == (404, "group-not-found")


def test_two_apps_share_one_log_and_each_record_names_its_own_policy(
    engine, other_engine, world, folder, caplog
):
    caplog.set_level(logging.INFO, "govbudget.request")
    (folder / "policy.csv").write_text((folder / "policy.csv").read_text() + "# mine\n")
    for send in (
        Client(make_app(engine)),
        Client(make_app(other_engine, policy=folder)),
    ):
        put_limit(send, world.a1, world.stranger)
    digests = {r.govbudget["digest"] for r in caplog.records if r.name == "govbudget.request"}
    assert digests == {Policy.load().digest, Policy.load(folder).digest}
    assert len(digests) == 2
