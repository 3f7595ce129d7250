"""The code of the page on several databases works with two of them."""

from __future__ import annotations

from uuid import uuid4

import pytest
import sqlalchemy as sa
from flask import request
from tests.docs.support import ROOT, read_blocks
from tests.support import TABLES, Client, World, spend_requests
from tests.web.helpers import put_limit

from govbudget import Tokens
from govbudget.new_ids import find_slot

pytestmark = pytest.mark.slow


def test_the_page_embeds_two_databases_and_reads_and_settles_in_the_right_one(
    database_url, make_database, template
):
    names = {"__name__": "an_application"}
    for block in read_blocks(ROOT / "docs" / "how-to" / "several-databases.md", "python"):
        exec(compile(block, "several-databases.md", "exec"), names)
    engine = sa.create_engine(url := make_database(template=template))
    world = World(engine)
    while not find_slot(world.a):
        world = World(engine)
    with engine.begin() as connection:
        price = {"provider": "acme", "model": "m", "input_price": 1}
        connection.execute(sa.insert(TABLES.ai_model_prices), price)
    slot = find_slot(world.a)
    urls = {f"0-{slot - 1}": database_url, f"{slot}": url}
    if slot < 4095:
        urls[f"{slot + 1}-4095"] = database_url
    identify = lambda: request.headers.get("X-User")  # noqa: E731 - as a host writes it
    app = names["create_app"](urls, identify, {world.a1: world.a}.get)
    send, gov = Client(app), app.extensions["govbudget"]
    assert put_limit(send, world.a1, world.owner, 7).status_code == 200
    assert names["read_budget"](gov, world.owner, world.a, world.a1).spend_limit_micros == 7
    world.hold = uuid4()
    method, path, body = spend_requests(world, "m")["hold"]
    held = send(method, path, world.gateway, json=body)
    assert held.status_code == 201
    its_id = gov.settings.id_type.parse(held.json["hold_id"])
    usage = names["settle"](gov, world.gateway, its_id, "e", Tokens(input=1))
    assert usage.event_id == "e"
    with engine.connect() as connection:
        found = connection.scalars(sa.select(TABLES.ai_usage.c.organization_id)).all()
    assert found == [world.a]
    engine.dispose()
