"""schemathesis reads the served document and asks the stand-alone server all that it allows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.dialects.postgresql import insert
from tests.support import ROUTES, TABLES, Client, make_app, spend_requests
from tests.web.helpers import serve

from govbudget.server.app import create_app
from govbudget.server.tokens import BearerTokens

PRICE = {"provider": "openai", "model": "gpt/5"}

# Each request looks through all variables for a proxy: few are quick. Hypothesis keeps a table of
# all characters in this folder. In an empty one it makes the table anew, which takes some seconds.
QUICK = {
    "PATH": os.environ["PATH"],
    "HYPOTHESIS_STORAGE_DIRECTORY": str(Path(__file__).parents[2] / ".hypothesis"),
}

# What no JSON Schema can say of a body: 1.0 is not taken for 1, a model stands once in a batch, and
# no tier is below the one before. Batches of ten thousand whole rows take too long to make.
HOOKS = r"""
import json
import os
import re

import schemathesis
from pydantic import ValidationError

from govbudget.prices.price import BATCH

KNOWN = json.loads(os.environ["KNOWN"])
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def make_whole(value):
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [make_whole(item) for item in value]
    if isinstance(value, dict):
        return {key: make_whole(item) for key, item in value.items()}
    return value


@schemathesis.hook
def before_load_schema(context, raw_schema):
    body = raw_schema["paths"]["/ai/prices"]["put"]["requestBody"]
    del body["content"]["application/json"]["schema"]["maxItems"]


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.path != "/ai/prices" or not isinstance(case.body, list):
        return
    try:
        BATCH.validate_json(json.dumps(case.body))
    except ValidationError as error:
        if {wrong["type"] for wrong in error.errors()} == {"tier"}:
            for row in case.body:
                row.pop("tiers", None)


@schemathesis.hook
def map_body(context, body):
    body = make_whole(body)
    if isinstance(body, dict):  # ids that are ids stand for things that are there
        ids = [key for key in body.keys() & KNOWN if UUID.fullmatch(str(body[key]))]
        body |= {key: KNOWN[key] for key in ids}
    if not isinstance(body, list) or not all(isinstance(row, dict) for row in body):
        return body
    if any(row in body[:index] for index, row in enumerate(body)):  # the schema does say that
        return body
    return list({(str(row.get("provider")), str(row.get("model"))): row for row in body}.values())
"""


def write_config(known):
    """The configuration: `known` values for paths, and answers that valid requests may get too.

    A page token is one that was given, a user is a member, a call costs no more than one may, a
    time is of this age, and a precondition may not hold: no schema says so.
    """
    lines = ['hooks = "hooks"', "continue-on-failure = true", "[parameters]"]
    lines += [f'"path.{name}" = {json.dumps(value)}' for name, value in known.items()]
    for route in ROUTES:
        told = {"not-a-member", "event-conflict"}.intersection(route.codes)
        allowed = [400] * (route.paged or bool(told)) + [412] * route.tagged
        expected = ["2xx", "3xx", "401", "403", "404", "409", *map(str, allowed)]
        if allowed:
            lines += [
                "[[operations]]",
                f'include-operation-id = "{route.view.__name__}"',
                f"checks.positive_data_acceptance.expected-statuses = {expected}",
            ]
    return "\n".join(lines)


@pytest.fixture
def served(engine, world):
    """The port of the stand-alone server over a loaded world, and the owner's token."""
    price = insert(TABLES.ai_model_prices).values(PRICE).on_conflict_do_nothing()
    with engine.begin() as connection:
        world.assign(connection, "owner", "gateway", None)
        token = BearerTokens(TABLES).create(connection, world.owner, days=1)
        connection.execute(price)
    world.hold = None
    _, path, body = spend_requests(world, "routes")["hold"]
    held = Client(make_app(engine))("POST", path, world.gateway, json=body | PRICE)
    world.hold = held.json["hold_id"]
    with serve(create_app(engine, {})) as port:
        yield port, token


@pytest.mark.long
@pytest.mark.parametrize("there", [True, False], ids=["things that are there", "any ids"])
def test_schemathesis_finds_nothing(served, world, tmp_path, there):
    port, token = served
    places = {"group": str(world.a1), "organization": str(world.a)}
    places |= {"user": str(world.member), "hold": str(world.hold)}
    known = places | PRICE if there else {}
    bodies = {f"{name}_id": known[name] for name in ("group", "organization", "user") if known}
    (tmp_path / "hooks.py").write_text(HOOKS)
    (tmp_path / "schemathesis.toml").write_text(write_config(known))
    command = [str(Path(sys.executable).parent / "schemathesis"), "run"]
    command += [f"http://127.0.0.1:{port}/api/v2/openapi.json", "--checks", "all", "--seed", "1"]
    command += ["--exclude-checks", "use_after_free"]  # a hold that was released can be read
    command += ["--header", f"Authorization: Bearer {token}", "--max-examples", "15"]
    command += ["--generation-database", "none", "--no-color"]
    if not there:  # of what is not there nothing leads on, and the run above tries each value
        command += ["--phases", "fuzzing"]
    environment = {"PYTHONPATH": str(tmp_path), "KNOWN": json.dumps(bodies)} | QUICK
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(ROUTES)} selected / {len(ROUTES)} total" in ran.stdout
