"""Each price that changes leaves exactly one entry, and equal ones leave none."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from tests.audit.support import read_entries
from tests.support import TABLES, authorize
from tests.web.helpers import read_problem

from govbudget.prices.price import Price
from govbudget.prices.store import Prices

KEYS = ("input_price", "output_price", "cache_read_price", "cache_write_price")


def price(model, *micros):
    values = dict(zip(KEYS, [*micros, None, None, None], strict=False))
    return {"provider": "acme", "model": model, **values}


def values(row):
    """Give a price as an entry has it: HTTP sets custom ones."""
    always = {"source": "custom", "effective_from": "0001-01-01", "more": None}
    return always | {key: row[key] for key in KEYS}


@pytest.fixture
def model():
    """A function that gives the names of models nobody else has."""
    tag = uuid4().hex
    return lambda number: f"{tag}/{number}"


def test_one_entry_for_each_changed_model_and_none_for_equal_prices(
    engine, send, town, model, policy
):
    first = [price(model(n), n) for n in range(4)]
    assert send("PUT", "/ai/prices", town.owner, json=first).json["changed"] == 4
    second = [price(model(0), 0), price(model(1), 10), price(model(2), 2), price(model(4), None, 7)]
    response = send(
        "PUT", "/ai/prices", town.owner, json=second, headers={"X-Request-Id": "prices-2"}
    )
    assert response.json == {"received": 4, "changed": 2}
    stories = [read_entries(engine, f"acme/{model(n)}") for n in range(5)]
    assert [len(story) for story in stories] == [1, 2, 1, 1, 1]
    assert [story[0].before for story in stories] == [None] * 5
    assert [story[0].after for story in stories[:4]] == [values(row) for row in first]
    changed = stories[1][1]
    assert (changed.before, changed.after) == (values(first[1]), values(second[1]))
    assert (changed.object_type, changed.organization_id) == ("ai_model_price", None)
    receipt = dict(changed.receipt)
    assert UUID(receipt.pop("id"))
    assert receipt == {
        "organization_id": None,
        "actor": str(town.owner),
        "roles": ["owner"],
        "lines": list(policy.decide({"owner"}, "ai_model_price", "update").lines),
        "policy_digest": policy.digest,
        "request_id": "prices-2",
        "cause": "request",
    }


def test_a_price_that_becomes_unknown_is_null_after_and_not_zero(engine, send, town, model):
    send("PUT", "/ai/prices", town.owner, json=[price(model(0), 1, 2, 3, 0)])
    send("PUT", "/ai/prices", town.owner, json=[price(model(0), None, 2, 3, 0)])
    after = values(price(model(0), None, 2, 3, 0))
    assert read_entries(engine, f"acme/{model(0)}")[1].after == after


def test_the_same_batch_again_leaves_no_entry(engine, send, town, model):
    batch = [price(model(n), n, None) for n in range(3)]
    for _ in range(2):
        send("PUT", "/ai/prices", town.owner, json=batch)
    assert [len(read_entries(engine, f"acme/{model(n)}")) for n in range(3)] == [1, 1, 1]


def test_a_batch_that_is_refused_leaves_no_entry(engine, send, town, model):
    batch = [price(model(0), 1), price(model(0), 2)]
    assert read_problem(send("PUT", "/ai/prices", town.owner, json=batch))["code"] == "invalid-body"
    refused = send("PUT", "/ai/prices", town.org_admin, json=batch[:1])
    assert read_problem(refused)["code"] == "forbidden"
    assert read_entries(engine, f"acme/{model(0)}") == []


def test_a_batch_in_the_hosts_transaction_is_rolled_back_with_its_entries(engine, town, model):
    with engine.connect() as connection:
        grant = authorize(connection, town.owner, "update", prices=True)
        for micros in (1, 2):
            batch = [Price(**price(model(0), micros))]
            assert Prices.upsert(grant, batch).changed == 1
        connection.rollback()
    assert read_entries(engine, f"acme/{model(0)}") == []


def test_a_removal_hides_no_other_removal(engine, town, model):
    """Of three in one transaction the one past govbudget is told as such, by no policy line."""
    table = TABLES.ai_model_prices
    row = Price(**price(model(0), 1))
    with engine.begin() as connection:
        grant = authorize(connection, town.owner, "update", prices=True)
        for _ in range(2):
            Prices.upsert(grant, [row])
            assert Prices.remove(grant, row.provider, row.model) == row
        Prices.upsert(grant, [row])
        connection.execute(sa.delete(table).where(table.c.model == row.model))
    entries = read_entries(engine, f"acme/{model(0)}")
    assert [
        (entry.before is None, entry.after is None, entry.receipt["cause"]) for entry in entries
    ] == [
        *[(True, False, "call"), (False, True, "call")] * 2,
        *[(True, False, "call"), (False, True, "direct")],
    ]
    assert entries[1].before == values(row.model_dump())
    assert entries[1].receipt["actor"] == str(town.owner)


def test_a_day_further_units_and_tiers_are_read_back_as_put_and_recorded(engine, send, town, model):
    four = {"input_price": 20, "output_price": 40, "cache_read_price": 2, "cache_write_price": None}
    tier = {"input_above": 9, **four, "further": {"input_audio": 4}}
    further = {"output_image": None, "input_audio": 3}
    whole = price(model(0), 10, 20, 1) | {"effective_from": "2026-10-01", "further": further}
    whole["tiers"] = [tier]
    assert send("PUT", "/ai/prices", town.owner, json=[whole]).json == {"received": 1, "changed": 1}
    assert send("GET", f"/ai/prices/acme/{model(0)}", town.owner).json == whole
    (entry,) = read_entries(engine, f"acme/{model(0)}")
    stored = {"above": 9, "input": 20, "output": 40, "cache_read": 2, "cache_write": None}
    assert entry.after == values(whole) | {
        "effective_from": "2026-10-01",
        "more": {**further, "tiers": [stored | {"input_audio": 4}]},
    }
    whole["tiers"] = [tier | {"input_price": 9}]
    problem = read_problem(send("PUT", "/ai/prices", town.owner, json=[whole]))
    assert problem["errors"][0]["pointer"] == "/0/tiers/0/input_price"


def test_a_name_that_a_rule_knows_is_answered_with_whose_price_it_is(send, town):
    """It is looked up where it has no row; a name that no rule knows is not found."""
    row = price("x", 1) | {"provider": "deepseek", "model": "deepseek-chat"}
    send("PUT", "/ai/prices", town.owner, json=[row], query_string={"allow_jumps": "true"})
    own = send("GET", "/ai/prices/deepseek/deepseek-chat", town.owner)
    assert own.json == row
    named = send("GET", "/ai/prices/deepseek/DeepSeek-Chat", town.owner)
    meant = {"provider": "deepseek", "model": "deepseek-chat"}
    assert named.json == row | {"model": "DeepSeek-Chat", "priced_as": meant}
    unknown = send("GET", "/ai/prices/deepseek/deepseek-chat-cyber", town.owner)
    assert unknown.status_code == 404
