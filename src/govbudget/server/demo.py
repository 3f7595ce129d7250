"""`govbudget demo`: who may do what, then spend up to a limit, over real HTTP, as was planned."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.resources import files
from typing import Any
from uuid import UUID

import click
import sqlalchemy as sa

from govbudget.authz.policy import Policy
from govbudget.cli import NOT_SO, OK
from govbudget.db.connection import DATABASE_URL
from govbudget.db.gov import Gov
from govbudget.db.tables import Tables
from govbudget.directory.sql import own_directory
from govbudget.errors import SettingsError
from govbudget.identity import OPERATOR, Action, ObjectType
from govbudget.migrations import upgrade
from govbudget.prices.price import parse_prices, read_shipped_prices
from govbudget.prices.store import Prices, PriceSource
from govbudget.server.directory_file import load_directory
from govbudget.server.embedded import start_postgres
from govbudget.server.serve import DRAIN_SECONDS, LISTENING
from govbudget.server.sessions import SECRET_KEY
from govbudget.server.tokens import BearerTokens
from govbudget.server.tour import Step, Tour, explain, read_records
from govbudget.settings import PREFIX, Settings

START_TIMEOUT_SECONDS = 30
STOP_TIMEOUT_SECONDS = DRAIN_SECONDS + 5
TERMINATED = 128 + signal.SIGTERM
PROGRAM = (sys.executable, "-P", "-m", "govbudget")
OUTPUT: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
PROVIDER, MODEL = "anthropic", "claude-sonnet-4-5"
# What a call takes at most, and what it took: at the seed's prices $0.45 and $0.39.
MOST, TOOK = {"input": 100_000, "output": 10_000}, {"input": 90_000, "output": 8_000}


# The roles that count toward Acme's group Research.
ROLES = {
    "Olivia": ["owner"],
    "Adam": ["org-admin"],
    "Uma": ["user-admin"],
    "Grace": ["group-member"],
    "Gus": [],
    "Mallory": [],
}
STORIES = {
    "Olivia": "owner of the site",
    "Adam": "org-admin of Acme",
    "Uma": "user-admin of Acme",
    "Grace": "member of Acme's group Research",
    "Gus": "member of Acme's group Support only",
    "Mallory": "org-admin of Globex",
    "Henry": "member of Acme's group Research, too",
    "Gateway": f"a service of the site, which calls {MODEL} for the members",
}


@click.command()
@click.option(
    "--serve",
    "keep",
    is_flag=True,
    help="Keep serving afterwards; print curl lines, and a link to the pages.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="The server's port; 0: a free one."
)
def demo(port: int, *, keep: bool) -> int:
    """Show it working, on a PostgreSQL of its own. Status 0 only if all went as planned.

    First each role reads and sets a budget. Each answer is shown with the policy line that decided,
    and must agree with the matrix. Then two members spend up to their limit, one is refused and
    gets an override, and the ledger is checked. All of it over HTTP, from a server process.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    policy = Policy.load()
    with ExitStack() as stack:
        url = stack.enter_context(start_postgres(progress=click.echo))
        ids, tokens = _prepare(url, policy)
        ours = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        variables = {**ours, DATABASE_URL: url, SECRET_KEY: secrets.token_urlsafe(32)}
        address, lines = stack.enter_context(_run_server(variables, port))
        click.echo(f"serving on {address}, under the policy {policy.folder}\n{policy.digest}")
        tour = Tour(address, lines, policy, tokens, STORIES)
        click.echo("\nthe limit of Acme's group Research, and who may do what:")
        surprises = sum(not tour.go(step) for step in _plan_rights(ids, policy))
        click.echo("\ntwo of its members spend; each call is held before, and settled after it:")
        surprises += sum(not tour.go(step) for step in _plan_spending(ids))
        click.echo("\nthe ledger, for whoever has the database:")
        of_users = "report --by user"
        for name, planned in ((of_users, "1560000"), ("verify", "4 calls: ledger = rollups")):
            surprises += planned not in _run_command(variables, name, ids)
        if surprises:
            click.echo(f"\n{surprises} answers were not as planned", err=True)
            return NOT_SO
        click.echo("\nevery answer was as policy/matrix.csv and the limits say")
        if keep:
            _print_ways_in(address, tokens, ids)
            _keep_serving(lines, policy)
    return OK


def _prepare(url: str, policy: Policy) -> tuple[dict[str, str], dict[str, str]]:
    """Migrate, load the directory and the seed prices; give ids and tokens by their names."""
    click.echo("migrating, loading a small organization and the seed price book")
    content = (files("govbudget.server") / "demo.json").read_bytes()
    people, prices = json.loads(content), parse_prices(read_shipped_prices())
    engine, settings = sa.create_engine(url, poolclass=sa.NullPool), Settings()
    tables = Tables(settings.layout)
    directory, store = own_directory(tables), BearerTokens(tables)
    gov = Gov(settings, policy, directory, lambda _: engine)
    with gov.unit(OPERATOR, atomic=True) as unit:
        upgrade(unit.connection, tables.layout)
        load_directory(unit.connection, tables, content, policy.table.scopes)
        Prices.upsert(unit.authorize("update", prices=True), prices, source=PriceSource.BOOK)
        tokens = {
            user["name"]: store.create(unit.connection, UUID(user["id"]), days=1)
            for user in people["users"]
        }
    click.echo(f"loaded {len(prices)} model prices and {len(tokens)} people")
    kinds = ("organizations", "groups", "users")
    return {entry["name"]: entry["id"] for kind in kinds for entry in people[kind]}, tokens


@contextmanager
def _run_server(variables: Mapping[str, str], port: int) -> Iterator[tuple[str, Iterator[str]]]:
    """Run `govbudget serve` in a process of its own; give its address and what it prints."""
    with subprocess.Popen(  # noqa: S603 - our own program
        [*PROGRAM, "serve", "--port", str(port)], env=variables, **OUTPUT
    ) as process:
        lines = iter(process.stdout or ())
        try:
            yield _await_address(process, lines), lines
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=STOP_TIMEOUT_SECONDS)
            process.kill()


def _await_address(process: subprocess.Popen[str], lines: Iterator[str]) -> str:
    said = []
    too_late = threading.Timer(START_TIMEOUT_SECONDS, process.kill)  # which ends the lines
    too_late.start()
    try:
        for line in lines:
            if line.startswith(LISTENING):
                return line.removeprefix(LISTENING).strip()
            said.append(line.strip())
    finally:
        too_late.cancel()
    raise SettingsError(f"the server did not start: {' '.join(said) or 'it said nothing'}")


def _plan_rights(ids: Mapping[str, str], policy: Policy) -> Iterator[Step]:
    """Plan the first act from the matrix: what each person should be answered."""
    budget = f"/groups/{ids['Research']}/ai/budget"
    listing = f"/organizations/{ids['Acme']}/ai/budgets"
    price = f"/ai/prices/{PROVIDER}/{MODEL}"
    for number, (name, roles) in enumerate(ROLES.items(), start=1):
        reads = policy.decide(roles, ObjectType.GROUP, Action.READ).allowed
        writes = policy.decide(roles, ObjectType.GROUP, Action.UPDATE).allowed
        priced = policy.decide(roles, ObjectType.AI_MODEL_PRICE, Action.READ).allowed
        in_acme = roles or name == "Gus"
        refused = 403 if reads or writes else 404
        limit = {"spend_limit_micros": number * 25_000_000}
        label = f"set the limit to ${number * 25}"
        yield Step(name, "PUT", budget, label, 200 if writes else refused, limit)
        yield Step(name, "GET", budget, "see the limit", 200 if reads else refused)
        yield Step(name, "GET", listing, "list Acme's budgets", 200 if in_acme else 404)
        yield Step(name, "GET", price, "see a model's price", 200 if priced else 403)
        if not writes:
            yield Step(name, "DELETE", budget, "clear the limit", refused)
    yield Step("Uma", "DELETE", budget, "clear the limit", 204)
    yield Step("Grace", "GET", budget, "see the limit", 404)


def _plan_spending(ids: Mapping[str, str]) -> Iterator[Step]:
    """Plan the second act: a limit of a dollar, calls up to it, an override, and who sees what."""
    group = {"group_id": ids["Research"]}
    of_group = f"/groups/{ids['Research']}/ai"
    members = f"/organizations/{ids['Acme']}/members"
    grace = f"{members}/{ids['Grace']}/ai"
    limit, more = {"spend_limit_micros": 1_000_000}, {"spend_limit_micros": 5_000_000, **group}

    def hold(name: str, **refused: Any) -> Step:  # noqa: ANN401 - as JSON has them
        body = {"organization_id": ids["Acme"], "user_id": ids[name], "tokens": MOST}
        body |= {"provider": PROVIDER, "model": MODEL}
        status, label = 403 if refused else 201, f"hold for {name}"
        planned = {"cost_micros": 450_000, **group, **refused}
        return Step("Gateway", "POST", "/ai/holds", label, status, body, planned)

    def settle(event: str) -> Step:
        body, cost = {"event_id": event, "tokens": TOOK}, {"cost_micros": 390_000}
        return Step("Gateway", "POST", "/ai/holds/{hold_id}/settle", "settle it", 200, body, cost)

    def see(name: str, path: str, label: str, **members: Any) -> Step:  # noqa: ANN401 - as above
        return Step(name, "GET", path, label, 200 if members else 404, None, members)

    yield Step("Adam", "PUT", f"{of_group}/budget", "set the limit to $1", 200, limit, limit)
    yield from (hold("Grace"), settle("call 1"), hold("Henry"), settle("call 2"), hold("Grace"))
    figures = {**limit, "current_spend_micros": 390_000, "held_micros": 450_000}
    yield hold("Grace", code="budget-exceeded", limit_source="group", **figures)
    yield settle("call 3")
    yield Step("Uma", "PUT", f"{grace}/budget/override", "give Grace $5", 200, more, more)
    yield from (hold("Grace"), settle("call 4"))
    figures = {"current_spend_micros": 1_170_000, "held_micros": 0}
    own = f"{members}/me/ai/spend"
    yield see("Grace", own, "see her spend", limit_source="user_override", **figures)
    yield see("Henry", f"{grace}/spend", "see Grace's spend")
    figures = {"current_spend_micros": 1_560_000, "calls": 4}
    yield see("Adam", f"{of_group}/spend", "see the group's sum", **figures)


def _run_command(variables: Mapping[str, str], name: str, ids: Mapping[str, str]) -> str:
    """Run `govbudget spend NAME` for Acme, print what it says with names for ids, and give it."""
    command = ("spend", *name.split(), "--organization", ids["Acme"])
    click.echo(f"\n  $ govbudget {' '.join(command)}")
    done = subprocess.run(  # noqa: S603 - our own program
        [*PROGRAM, *command], env=variables, check=False, **OUTPUT
    )
    shown = done.stdout
    for known, its_id in ids.items():
        shown = shown.replace(its_id, known.ljust(len(its_id)))
    click.echo(textwrap.indent(shown, "  "), nl=False)
    return done.stdout if done.returncode == OK else ""


def _keep_serving(lines: Iterator[str], policy: Policy) -> None:
    """Show what decides each request, until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    click.echo("\nserving until Ctrl-C; what decides each request is shown here")
    with suppress(KeyboardInterrupt):
        for record in read_records(lines):
            if "route" in record:
                what = f"{record['method']} {record['route'] or 'an unknown path'}"
                why = explain(record, policy, {})
                click.echo(f"  {record['status']} {what}: {why}")
        raise SettingsError("the server ended by itself")


def _print_ways_in(address: str, tokens: Mapping[str, str], ids: Mapping[str, str]) -> None:
    budget = f"{address}/api/v2/groups/{ids['Research']}/ai/budget"
    body = "-X PUT -H 'Content-Type: application/json' -d '{\"spend_limit_micros\": 5000000}' "
    click.echo("\nnow you (Adam may, Grace may only read):\n")
    for name, arguments in (("Adam", body), ("Grace", ""), ("Grace", "-X DELETE ")):
        token = f"-H 'Authorization: Bearer {tokens[name]}'"
        click.echo(f"  curl -i {arguments}{token} {budget}")
    click.echo(f"\nor look at it: {address}/ (sign in with a token of these)\n")
    for name in ("Grace", "Adam", "Olivia"):
        click.echo(f"  {tokens[name]}  {name}, {STORIES[name]}")
