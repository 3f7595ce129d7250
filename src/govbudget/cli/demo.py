"""`govbudget demo`: the main job as each role, over real HTTP, against the reviewed matrix."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import click
import sqlalchemy as sa

from govbudget.authz.policy import Policy
from govbudget.cli import NOT_SO
from govbudget.cli.serve import LISTENING
from govbudget.cli.target import DATABASE_URL, operator
from govbudget.directory.load import FILE, DirectoryFile, load_directory
from govbudget.directory.tokens import TokenStore
from govbudget.embedded import start_postgres
from govbudget.errors import SettingsError
from govbudget.identity import Action, ObjectType, PriceBook
from govbudget.migrations import upgrade
from govbudget.prices.price import parse_prices
from govbudget.prices.store import PriceStore
from govbudget.settings import PREFIX
from govbudget.strict_json import parse_json
from govbudget.tables import Layout, Tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

START_TIMEOUT_SECONDS = 30
REPORTED_MODEL = ("anthropic", "claude-sonnet-4-5")


@dataclass(frozen=True, slots=True)
class Step:
    """One request of the tour, and what the reviewed matrix says of it."""

    person: str
    method: str
    path: str
    label: str
    body: Any
    expected: frozenset[int]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody of the demo: the role that counts toward Acme's group Research, if any."""

    name: str
    role: str | None
    story: str


PEOPLE = (
    Person("Olivia", "owner", "owner of the site"),
    Person("Adam", "org-admin", "org-admin of Acme"),
    Person("Uma", "user-admin", "user-admin of Acme"),
    Person("Grace", "group-member", "member of Acme's group Research"),
    Person("Gus", None, "member of Acme's group Support only"),
    Person("Mallory", None, "org-admin of Globex"),
)


@click.command()
@click.option("--serve", "keep", is_flag=True, help="Keep serving afterwards; print curl lines.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: a free one.")
@click.pass_context
def demo(ctx: click.Context, port: int, *, keep: bool) -> None:
    """Show the main job as each role; status 0 only if every answer was as the matrix says."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    policy = Policy.load()
    content = (files("govbudget.cli") / "demo.json").read_bytes()
    people = parse_json(content, FILE)
    with ExitStack() as stack:
        url = stack.enter_context(start_postgres(progress=click.echo))
        tokens, models = _prepare(sa.make_url(url), policy, content, people)
        click.echo(f"loaded {models} model prices and {len(people.users)} people")
        address, log = stack.enter_context(_run_server(url, port))
        click.echo(f"serving on {address}\npolicy {policy.folder} {policy.digest}\n")
        surprises = _tour(address, tokens, log, policy, people)
        if surprises:
            click.echo(f"\n{surprises} answers were not as policy/matrix.csv says", err=True)
            ctx.exit(NOT_SO)
        click.echo("\nevery answer was as policy/matrix.csv says")
        if keep:
            _print_curl_lines(address, tokens, people)
            click.echo("\nserving until Ctrl-C")
            threading.Event().wait()


def _prepare(
    url: sa.URL, policy: Policy, content: bytes, people: DirectoryFile
) -> tuple[dict[str, str], int]:
    """Migrate, load the directory and the seed prices, and make a token for everybody."""
    click.echo("migrating, loading a small organization and the seed price book")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    tables, book = Tables(Layout()), PriceBook()
    prices = parse_prices((files("govbudget.prices") / "seed.json").read_bytes())
    with engine.begin() as connection:
        upgrade(connection, Layout())
        load_directory(connection, tables, content, policy.table.scopes)
        grant = policy.authorize(operator(policy, connection), Action.UPDATE, book)
        PriceStore(tables).upsert(connection, grant, book, prices)
        store = TokenStore(tables)
        tokens = {user.name: store.create(connection, user.id, days=1) for user in people.users}
    return tokens, len(prices)


@contextmanager
def _run_server(url: str, port: int) -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    """Run `govbudget serve` in a process of its own; give its address and its log lines."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "govbudget", "serve", "--port", str(port)],
        env={**ours, DATABASE_URL: url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log: queue.Queue[dict[str, Any]] = queue.Queue()
    said: queue.Queue[str] = queue.Queue()

    def read_log() -> None:
        for line in process.stdout or ():
            log.put(json.loads(line))

    def read_errors() -> None:
        for line in process.stderr or ():
            said.put(line.rstrip("\n"))
        said.put("")

    for target in (read_log, read_errors):
        threading.Thread(target=target, daemon=True).start()
    try:
        yield _await_address(said), log
    finally:
        process.terminate()
        process.wait(timeout=START_TIMEOUT_SECONDS)


def _await_address(said: queue.Queue[str]) -> str:
    lines = []
    try:
        while line := said.get(timeout=START_TIMEOUT_SECONDS):
            if line.startswith(LISTENING):
                return line.removeprefix(LISTENING)
            lines.append(line)
    except queue.Empty:
        lines.append(f"no answer in {START_TIMEOUT_SECONDS} seconds")
    raise SettingsError(f"the server did not start: {' '.join(lines)}")


def _plan(people: DirectoryFile, policy: Policy) -> Iterator[Step]:
    """Plan the tour from the matrix: what each person should be answered."""
    ids = {entry.name: entry.id for entry in (*people.groups, *people.organizations)}
    budget = f"/api/v2/groups/{ids['Research']}/ai/budget"
    listing = f"/api/v2/organizations/{ids['Acme']}/ai/budgets"
    price = "/api/v2/ai/prices/" + "/".join(REPORTED_MODEL)
    for number, person in enumerate(PEOPLE, start=1):
        reads = _is_allowed(policy, person, ObjectType.GROUP, Action.READ)
        writes = _is_allowed(policy, person, ObjectType.GROUP, Action.UPDATE)
        refused = 403 if reads or writes else 404
        limit = {"spend_limit_micros": number * 25_000_000}
        yield Step(
            person.name,
            "PUT",
            budget,
            f"set Research's limit to ${number * 25}",
            limit,
            frozenset({200 if writes else refused}),
        )
        yield Step(
            person.name,
            "GET",
            budget,
            "see Research's limit",
            None,
            frozenset({200 if reads else refused}),
        )
        in_acme = person.role is not None or person.name == "Gus"
        yield Step(
            person.name,
            "GET",
            listing,
            "list Acme's budgets",
            None,
            frozenset({200 if in_acme else 404}),
        )
        priced = _is_allowed(policy, person, ObjectType.AI_MODEL_PRICE, Action.READ)
        yield Step(
            person.name,
            "GET",
            price,
            f"see the price of {REPORTED_MODEL[1]}",
            None,
            frozenset({200 if priced else 403}),
        )
    for person in reversed(PEOPLE):
        if not _is_allowed(policy, person, ObjectType.GROUP, Action.UPDATE):
            reads = _is_allowed(policy, person, ObjectType.GROUP, Action.READ)
            yield Step(
                person.name,
                "DELETE",
                budget,
                "clear Research's limit",
                None,
                frozenset({403 if reads else 404}),
            )
    yield Step("Uma", "DELETE", budget, "clear Research's limit", None, frozenset({204}))
    yield Step("Grace", "GET", budget, "see that there is none", None, frozenset({404}))


def _is_allowed(policy: Policy, person: Person, obj: ObjectType, action: Action) -> bool:
    roles = () if person.role is None else (person.role,)
    return policy.decide(roles, obj, action).allowed


def _tour(
    address: str,
    tokens: dict[str, str],
    log: queue.Queue[dict[str, Any]],
    policy: Policy,
    people: DirectoryFile,
) -> int:
    """Walk the plan and print each answer beside its deciding line; give the number of surprises."""
    surprises, before = 0, None
    host, port = address.removeprefix("http://").rsplit(":", 1)
    stories = {person.name: person.story for person in PEOPLE}
    for step in _plan(people, policy):
        if step.person != before:
            click.echo(f"{step.person}, {stories[step.person]}")
            before = step.person
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=10)
        body = None if step.body is None else json.dumps(step.body)
        headers = {"Authorization": f"Bearer {tokens[step.person]}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(step.method, step.path, body, headers)
        response = connection.getresponse()
        request_id = response.headers["X-Request-Id"]
        connection.close()
        record = _find_record(log, request_id)
        as_expected = response.status in step.expected
        surprises += not as_expected
        click.echo(
            f"  {step.method:<6} {step.label:<32} {response.status}  {_explain(record)}"
            + ("" if as_expected else f"   EXPECTED {sorted(step.expected)}")
        )
    return surprises


def _find_record(log: queue.Queue[dict[str, Any]], request_id: str | None) -> dict[str, Any]:
    """Find the server's own log line of a request."""
    while True:
        try:
            record = log.get(timeout=5)
        except queue.Empty:
            raise SettingsError("the server logged no line for a request") from None
        if record.get("request_id") == request_id:
            return record


def _explain(record: dict[str, Any]) -> str:
    if record.get("decision") == "allow":
        return f"allowed by {', '.join(record['lines']) or 'standing in the organization'}"
    if record.get("lines"):
        return f"denied by {', '.join(record['lines'])}"
    return f"denied; it takes {' or '.join(record.get('would_allow', ())) or 'a new line'}"


def _print_curl_lines(address: str, tokens: dict[str, str], people: DirectoryFile) -> None:
    group: UUID = next(entry.id for entry in people.groups if entry.name == "Research")
    budget = f"{address}/api/v2/groups/{group}/ai/budget"
    click.echo("\nnow you (Adam may, Grace may only read):\n")
    for name, arguments in (
        (
            "Adam",
            "-X PUT -H 'Content-Type: application/json' -d '{\"spend_limit_micros\": 5000000}'",
        ),
        ("Grace", ""),
        ("Grace", "-X DELETE"),
    ):
        token = f"-H 'Authorization: Bearer {tokens[name]}'"
        click.echo(f"  curl -i {arguments + ' ' if arguments else ''}{token} {budget}")
