"""The first table of the contract, row by row: what each endpoint answers when all is well."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from tests.support import Client, World, budget_path, count_statements, list_path, make_app
from tests.web.helpers import BUDGET_KEYS, outcome, put_limit


@pytest.fixture
def world(clean_town):
    """These tests change budgets and nothing else, so one world does for all."""
    return clean_town


def test_a_budget_is_put_read_changed_and_deleted(send, world):
    """PUT creates with 200, PUT again changes with 200, GET tells it, DELETE is an empty 204."""
    path = budget_path(world.a1)
    assert outcome(send("GET", path, world.org_admin)) == (404, "budget-not-set")
    created = put_limit(send, world.a1, world.org_admin, 25_000_000)
    assert created.status_code == 200
    assert set(created.json) == BUDGET_KEYS
    assert created.json["group_id"] == str(world.a1)
    assert created.json["spend_limit_micros"] == 25_000_000
    assert send("GET", path, world.member).data == created.data
    changed = put_limit(send, world.a1, world.user_admin, 0)
    assert (changed.status_code, changed.json["spend_limit_micros"]) == (200, 0)
    assert changed.json["created_at"] == created.json["created_at"]
    deleted = send("DELETE", path, world.owner)
    assert (deleted.status_code, deleted.data) == (204, b"")
    assert outcome(send("GET", path, world.member)) == (404, "budget-not-set")
    assert outcome(send("DELETE", path, world.owner)) == (404, "budget-not-set")


def test_no_row_and_a_limit_of_zero_are_different_answers(send, world):
    assert outcome(send("GET", budget_path(world.a1), world.member)) == (404, "budget-not-set")
    put_limit(send, world.a1, world.owner, 0)
    assert send("GET", budget_path(world.a1), world.member).json["spend_limit_micros"] == 0


@pytest.mark.parametrize("limit", [0, 1, 2**31, 999_999_999_999, 10**12])
def test_a_limit_comes_back_as_the_integer_that_was_sent(send, world, limit):
    answered = put_limit(send, world.a1, world.owner, limit).data
    assert f'"spend_limit_micros":{limit},'.encode() in answered


def test_times_are_rfc3339_in_utc_and_close_to_now(send, world):
    body = put_limit(send, world.a1, world.owner).json
    for key in ("created_at", "updated_at"):
        assert body[key].endswith("Z")
        time = datetime.fromisoformat(body[key])
        assert abs(datetime.now(UTC) - time) < timedelta(minutes=5)
    assert body["created_at"] <= body["updated_at"]


def test_every_put_moves_updated_at_even_with_the_same_limit(send, world):
    first = put_limit(send, world.a1, world.owner, 7)
    second = put_limit(send, world.a1, world.owner, 7)
    assert second.json["updated_at"] > first.json["updated_at"]
    assert second.json["created_at"] == first.json["created_at"]
    assert second.headers["ETag"] != first.headers["ETag"]


def test_the_etag_is_strong_and_changes_with_every_change_across_delete_and_recreate(send, world):
    seen = []
    for _ in range(3):
        response = put_limit(send, world.a1, world.owner, 1)
        seen.append(response.headers["ETag"])
        assert send("GET", budget_path(world.a1), world.member).headers["ETag"] == seen[-1]
        send("DELETE", budget_path(world.a1), world.owner)
    assert len(set(seen)) == 3
    assert all(tag.startswith('"') and tag.endswith('"') for tag in seen)


def test_an_answer_is_json_and_carries_nothing_else(send, world):
    response = put_limit(send, world.a1, world.owner)
    assert response.headers["Content-Type"] == "application/json"
    assert set(response.headers.keys()) == {
        "Content-Type",
        "Content-Length",
        "ETag",
        "X-Request-Id",
        "Cache-Control",
    }
    assert response.headers["Cache-Control"] == "no-store"
    deleted = send("DELETE", budget_path(world.a1), world.owner)
    assert set(deleted.headers.keys()) == {"X-Request-Id", "Cache-Control"}


def test_head_is_a_get_without_its_body(send, world):
    put_limit(send, world.a1, world.owner)
    got = send("GET", budget_path(world.a1), world.member)
    head = send("HEAD", budget_path(world.a1), world.member)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["ETag"] == got.headers["ETag"]
    assert head.headers["Content-Length"] == got.headers["Content-Length"]
    assert send("HEAD", budget_path(world.a1), world.outsider).status_code == 404


def test_a_list_holds_the_budgets_that_the_caller_may_read(send, world):
    for group in (world.a, world.a1, world.a2, world.b1):
        assert put_limit(send, group, world.owner).status_code == 200

    def listed(person):
        response = send("GET", list_path(world.a), person)
        assert response.status_code == 200
        assert set(response.json) == {"budgets", "next_page_token"}
        assert response.json["next_page_token"] is None
        assert all(set(budget) == BUDGET_KEYS for budget in response.json["budgets"])
        return [budget["group_id"] for budget in response.json["budgets"]]

    everything = sorted(map(str, (world.a, world.a1, world.a2)))
    for person in (world.owner, world.org_admin, world.user_admin):
        assert listed(person) == everything
    assert listed(world.member) == sorted(map(str, (world.a, world.a1)))
    assert listed(world.joined) == [str(world.a)]
    for person in (world.outsider, world.b_admin, world.nobody, world.stranger):
        refused = send("GET", list_path(world.a), person)
        assert outcome(refused) == (404, "organization-not-found")


def test_the_price_book_is_put_and_read_by_an_owner(send, world):
    model = f"m-{uuid4().hex}"
    row = {
        "provider": "acme",
        "model": model,
        "input_price": 3_000_000,
        "output_price": 10**12,
        "cache_read_price": 0,
        "cache_write_price": None,
    }
    put = send("PUT", "/ai/prices", world.owner, json=[row])
    assert (put.status_code, put.json) == (200, {"received": 1, "changed": 1})
    got = send("GET", f"/ai/prices/acme/{model}", world.owner)
    assert (got.status_code, got.json) == (200, row)
    unknown = send("GET", f"/ai/prices/acme/{model}-x", world.owner)
    assert outcome(unknown) == (404, "price-not-found")
    for person in (world.org_admin, world.member, world.nobody, world.stranger):
        assert outcome(send("PUT", "/ai/prices", person, json=[row])) == (403, "forbidden")
        assert outcome(send("GET", f"/ai/prices/acme/{model}", person)) == (403, "forbidden")


def test_get_put_and_delete_of_a_budget_send_two_statements_in_all(engine, send, world):
    engine.connect().close()
    body = {"spend_limit_micros": 3}
    for method, options in (
        ("PUT", {"json": body}),
        ("PUT", {"json": body, "headers": {"If-Match": "*"}}),
        ("PUT", {"json": body, "headers": {"If-Match": '"x"'}}),
        ("PUT", {"json": body, "headers": {"If-None-Match": "*"}}),
        ("GET", {}),
        ("GET", {"headers": {"If-None-Match": "*"}}),
        ("HEAD", {}),
        ("DELETE", {"headers": {"If-Match": '"x"'}}),
        ("DELETE", {}),
        ("DELETE", {}),
        ("GET", {}),
    ):
        with count_statements(engine) as sent:
            send(method, budget_path(world.a1), world.owner, **options)
        assert len(sent) == 2, (method, options, sent)


def test_a_list_and_the_prices_send_two_statements_in_all(engine, send, world):
    for method, path, options in (
        ("GET", list_path(world.a), {}),
        ("GET", "/ai/prices/acme/none", {}),
        ("PUT", "/ai/prices", {"json": []}),
    ):
        with count_statements(engine) as sent:
            send(method, path, world.owner, **options)
        assert len(sent) == 2, (method, path, sent)


def test_a_role_taken_away_is_gone_at_the_next_request(engine, send):
    world = World(engine)
    tables = world.tables
    assert put_limit(send, world.a1, world.org_admin).status_code == 200
    with engine.begin() as connection:
        roles = tables.role_assignments
        connection.execute(roles.delete().where(roles.c.user_id == world.org_admin))
    assert outcome(put_limit(send, world.a1, world.org_admin)) == (404, "group-not-found")
    assert send("GET", budget_path(world.a1), world.member).status_code == 200
    with engine.begin() as connection:
        members = tables.group_members
        connection.execute(members.delete().where(members.c.user_id == world.member))
    gone = send("GET", budget_path(world.a1), world.member)
    assert outcome(gone) == (404, "group-not-found")


def test_a_role_stored_at_a_wrong_scope_counts_for_nothing(engine, send):
    """`org-admin` on the site and `owner` in an organization reach no group at all."""
    world = World(engine)
    with engine.begin() as connection:
        world.assign(connection, "nobody", "org-admin", None)
        world.assign(connection, "nobody", "owner", world.a)
        world.assign(connection, "nobody", "group-member", world.a)
        world.assign(connection, "nobody", "no-such-role", world.a)
    for method in ("GET", "DELETE"):
        response = send(method, budget_path(world.a1), world.nobody)
        assert outcome(response) == (404, "group-not-found")
    listed = send("GET", list_path(world.a), world.nobody)
    assert outcome(listed) == (404, "organization-not-found")


def test_the_digest_header_is_sent_with_the_debug_setting_only(engine, policy, world):
    config = {"GOVBUDGET_EXPOSE_POLICY_DIGEST": True}
    debugging = Client(make_app(engine, config, policy=policy))
    for person, status in ((world.owner, 404), (world.stranger, 404), (None, 401)):
        response = debugging("GET", budget_path(world.a1), person)
        assert response.status_code == status
        assert response.headers["Govbudget-Policy-Digest"] == policy.digest
    plain = Client(make_app(engine, policy=policy))
    response = plain("GET", budget_path(world.a1), world.owner)
    assert "Govbudget-Policy-Digest" not in response.headers


def test_no_answer_shows_a_line_of_the_policy(send, world):
    answers = [
        send(method, budget_path(group), person, json={"spend_limit_micros": 1})
        for method in ("GET", "PUT", "DELETE")
        for group in (world.a1, world.b1, uuid4())
        for person in (world.member, world.org_admin, world.stranger, None)
    ]
    for response in answers:
        text = response.get_data(as_text=True) + json.dumps(list(response.headers))
        assert "policy.csv" not in text
        assert "sha256:" not in text
