"""Two real databases for one application, each with its own organizations."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import sqlalchemy as sa
from tests.support import TABLES, Client, World, make_app

from govbudget import Databases
from govbudget.new_ids import find_slot


def place(engines, *organizations):
    """Half of the slots in each of two engines, but the organizations in the one beside them."""
    numbers = [slot // 2048 for slot in range(4096)]
    for number, ids in enumerate(organizations):
        for organization in ids:
            numbers[find_slot(organization)] = number
    assert numbers[0] == 0
    slots = [[str(slot) for slot in range(4096) if numbers[slot] == n] for n in (0, 1)]
    return Databases({",".join(own): e for own, e in zip(slots, engines, strict=True)})


@contextmanager
def make_region(engine, url, **options):
    """An application with two databases: the site's has the world `one`, the other one `other`.

    The `gateway` of both is one service: it has its role in both, as all that is the site's.
    """
    second = sa.create_engine(url)
    one, other = World(engine), World(second)
    while {find_slot(one.a), find_slot(one.b), 0} & {find_slot(other.a), find_slot(other.b)}:
        other = World(second)
    with second.begin() as connection:
        other._put(connection, "users", {"id": one.gateway, "name": "the gateway"})
        other.assign(connection, one.gateway, "gateway", None)
    other.people["gateway"] = one.gateway
    databases = place((engine, second), (one.a, one.b), (other.a, other.b))
    groups = {group: town.a for town in (one, other) for group in (town.a1, town.a2)}
    app = make_app(databases, organization_of=groups.get, **options)
    gov = app.extensions["govbudget"]
    for town in (one, other):
        price = {"provider": "acme", "model": "m", "input_price": 10**12}
        with town.engine.begin() as connection:
            connection.execute(sa.insert(TABLES.ai_model_prices), price)
    yield SimpleNamespace(
        one=one, other=other, app=app, gov=gov, send=Client(app), databases=databases, groups=groups
    )
    second.dispose()
