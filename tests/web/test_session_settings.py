"""What a database or a role sets for its sessions changes no answer, and none of it is changed."""

from __future__ import annotations

from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.audit.test_http import audit_path
from tests.support import Client, World, budget_path, list_path, make_app
from tests.web.helpers import put_limit, read_row

pytestmark = pytest.mark.slow

SETTINGS = {
    "SQL dates": "-c datestyle=SQL,DMY",
    "German dates": "-c datestyle=German",
    "Postgres dates": "-c datestyle=Postgres,MDY",
    "another zone": "-c timezone=Asia/Kolkata",
    "a zone without a name": "-c timezone=<-03>3",
    "intervals": "-c intervalstyle=sql_standard",
    "old strings": "-c standard_conforming_strings=off -c bytea_output=escape",
    "floats": "-c extra_float_digits=-15",
    "search path": "-c search_path=govbudget",
    "no search path": "-c search_path=",
    "serializable": "-c default_transaction_isolation=serializable",
    "quotes": "-c quote_all_identifiers=on",
}


@pytest.fixture(scope="module", params=SETTINGS.values(), ids=SETTINGS)
def odd(request, database_url):
    """An engine whose sessions have the settings, as a host's would."""
    engine = sa.create_engine(database_url, connect_args={"options": request.param})
    yield engine
    engine.dispose()


def test_every_answer_with_a_time_is_as_it_always_is(odd, engine):
    """A write that was done is answered as done, and each time is the time that it is."""
    world = World(engine)
    plain, send = (Client(make_app(e)) for e in (engine, odd))
    assert put_limit(send, world.a1, world.owner, 500).status_code == 200
    assert read_row(engine, world.a1) == 500
    who = {"organization_id": str(world.a), "user_id": str(world.member)}
    model = {"provider": "acme", "model": uuid4().hex}
    price = {**model, **dict.fromkeys(("input_price", "output_price"), 5)}
    price |= dict.fromkeys(("cache_read_price", "cache_write_price"))
    assert send("PUT", "/ai/prices", world.owner, json=[price]).status_code == 200
    call = {**who, **model, "tokens": {"input": 7}}
    held = send("POST", "/ai/holds", world.gateway, json=call)
    assert held.status_code == 201, held.json
    settle = {"event_id": uuid4().hex, "tokens": {"input": 6}}
    path = f"/ai/holds/{held.json['hold_id']}/settle"
    settled = send("POST", path, world.gateway, json=settle)
    assert settled.status_code == 200
    assert plain("POST", path, world.gateway, json=settle).data == settled.data
    record = {**call, "event_id": uuid4().hex, "occurred_at": "2026-11-01T04:30:00+05:30"}
    assert send("POST", "/ai/usage", world.gateway, json=record).status_code == 201
    too_much = {**call, "tokens": {"input": 10**12}}
    refused = send("POST", "/ai/holds", world.gateway, json=too_much)
    assert refused.json["code"] == "budget-exceeded"
    member = f"/organizations/{world.a}/members/{world.member}/ai"
    override = {"group_id": str(world.a1), "spend_limit_micros": 9}
    put = send("PUT", f"{member}/budget/override", world.owner, json=override)
    assert put.status_code == 200
    for path in (
        *(budget_path(world.a1), list_path(world.a), audit_path(world.a)),
        *(f"{member}/spend", f"{member}/budget/override", f"/groups/{world.a1}/ai/spend"),
        *(f"/groups/{world.a1}/members/ai/spend", f"/organizations/{world.a}/groups/ai/spend"),
        f"/organizations/{world.a}/ai/notices",
    ):
        seen = send("GET", path, world.owner)
        assert seen.status_code == 200, (path, seen.json)
        assert seen.data == plain("GET", path, world.owner).data
    first = send("GET", audit_path(world.a), world.owner, query_string={"page_size": 1})
    page = {"page_token": first.json["next_page_token"]}
    assert plain("GET", audit_path(world.a), world.owner, query_string=page).status_code == 200


def test_nothing_is_set_on_a_connection_of_a_host(odd, engine):
    asked = sa.text("SELECT name, setting FROM pg_settings ORDER BY name")
    with odd.connect() as connection:
        before = connection.execute(asked).all()
    world = World(engine)
    assert put_limit(Client(make_app(odd)), world.a1, world.owner, 500).status_code == 200
    with odd.connect() as connection:
        assert connection.execute(asked).all() == before
