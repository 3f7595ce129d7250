"""`govbudget demo`: the main job as each role, over real HTTP, against the reviewed matrix."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

import click
import sqlalchemy as sa

from govbudget.authz.policy import Policy
from govbudget.cli import NOT_SO
from govbudget.cli.serve import DRAIN_SECONDS, LISTENING
from govbudget.cli.target import DATABASE_URL, Operator, Target
from govbudget.directory.load import FILE, DirectoryFile, load_directory
from govbudget.directory.tokens import TokenStore
from govbudget.embedded import start_postgres
from govbudget.errors import SettingsError
from govbudget.identity import Action, ObjectType, PriceBook
from govbudget.migrations import upgrade
from govbudget.prices.price import parse_prices
from govbudget.prices.store import PriceSource, PriceStore
from govbudget.settings import PREFIX, Settings
from govbudget.strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

# The server's log, a record a request; None ends it.
Log: TypeAlias = "queue.Queue[dict[str, Any] | None]"

START_TIMEOUT_SECONDS = 30
STOP_TIMEOUT_SECONDS = DRAIN_SECONDS + 5
TERMINATED = 128 + signal.SIGTERM
WIDTH = 100
GLUE = "\x1f"  # a space at which no line is broken
REPORTED_MODEL = ("anthropic", "claude-sonnet-4-5")


@dataclass(frozen=True, slots=True)
class Step:
    """One request of the tour, and what the reviewed matrix says of it."""

    person: str
    method: str
    path: str
    label: str
    expected: int
    body: Any = None


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    policy = Policy.load()
    content = (files("govbudget.cli") / "demo.json").read_bytes()
    people = parse_json(content, FILE)
    with ExitStack() as stack:
        url = stack.enter_context(start_postgres(progress=click.echo))
        tokens, models = _prepare(sa.make_url(url), policy, content, people)
        click.echo(f"loaded {models} model prices and {len(people.users)} people")
        address, log = stack.enter_context(_run_server(url, port))
        click.echo(f"serving on {address}, under the policy {policy.folder}\n{policy.digest}\n")
        surprises = _tour(address, tokens, log, policy, people)
        if surprises:
            click.echo(f"\n{surprises} answers were not as policy/matrix.csv says", err=True)
            ctx.exit(NOT_SO)
        click.echo("\nevery answer was as policy/matrix.csv says")
        if keep:
            _print_curl_lines(address, tokens, people)
            _keep_serving(log, policy)


def _prepare(
    url: sa.URL, policy: Policy, content: bytes, people: DirectoryFile
) -> tuple[dict[str, str], int]:
    """Migrate, load the directory and the seed prices, and make a token for everybody."""
    click.echo("migrating, loading a small organization and the seed price book")
    target = Target(sa.create_engine(url, poolclass=sa.NullPool), Settings())
    tables, book = target.tables, PriceBook()
    prices = parse_prices((files("govbudget.prices") / "seed.json").read_bytes())
    with target.engine.begin() as connection:
        upgrade(connection, tables.layout)
        load_directory(connection, tables, content, policy.table.scopes)
        grant = Operator(target, connection, policy).authorize(Action.UPDATE, book)
        PriceStore(tables).upsert(connection, grant, book, prices, source=PriceSource.BOOK)
        store = TokenStore(tables)
        tokens = {user.name: store.create(connection, user.id, days=1) for user in people.users}
    return tokens, len(prices)


@contextmanager
def _run_server(url: str, port: int) -> Iterator[tuple[str, Log]]:
    """Run `govbudget serve` in a process of its own; give its address and its log lines."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-P", "-m", "govbudget", "serve", "--port", str(port)],
        env={**ours, DATABASE_URL: url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log: Log = queue.Queue()
    said: queue.Queue[str] = queue.Queue()

    def read_log() -> None:
        for line in process.stdout or ():
            log.put(json.loads(line))
        log.put(None)

    def read_errors() -> None:
        for line in process.stderr or ():
            said.put(line.rstrip("\n"))
        said.put("")

    readers = [threading.Thread(target=read, daemon=True) for read in (read_log, read_errors)]
    for reader in readers:
        reader.start()
    try:
        yield _await_address(said), log
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        for reader in readers:
            reader.join(timeout=1)


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
    ids = {group.name: group.id for group in people.groups}
    ids |= {organization.name: organization.id for organization in people.organizations}
    budget = f"/api/v2/groups/{ids['Research']}/ai/budget"
    listing = f"/api/v2/organizations/{ids['Acme']}/ai/budgets"
    price = "/api/v2/ai/prices/" + "/".join(REPORTED_MODEL)
    for number, person in enumerate(PEOPLE, start=1):
        name = person.name
        reads = _is_allowed(policy, person, ObjectType.GROUP, Action.READ)
        writes = _is_allowed(policy, person, ObjectType.GROUP, Action.UPDATE)
        priced = _is_allowed(policy, person, ObjectType.AI_MODEL_PRICE, Action.READ)
        in_acme = person.role is not None or name == "Gus"
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


def _is_allowed(policy: Policy, person: Person, obj: ObjectType, action: Action) -> bool:
    roles = () if person.role is None else (person.role,)
    return policy.decide(roles, obj, action).allowed


def _tour(
    address: str,
    tokens: dict[str, str],
    log: Log,
    policy: Policy,
    people: DirectoryFile,
) -> int:
    """Walk the plan, print each answer and what decided it; give the number of surprises."""
    surprises, before = 0, None
    host, port = address.removeprefix("http://").rsplit(":", 1)
    stories = {person.name: person.story for person in PEOPLE}
    click.echo("the limit of Acme's group Research, and who may do what:")
    for step in _plan(people, policy):
        if step.person != before:
            click.echo(f"\n{step.person}, {stories[step.person]}")
            before = step.person
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=10)
        body = None if step.body is None else json.dumps(step.body)
        headers = {"Authorization": f"Bearer {tokens[step.person]}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(step.method, step.path, body, headers)
        response = connection.getresponse()
        record = _find_record(log, response.headers["X-Request-Id"])
        start = f"  {step.method:<6} {step.label:<21} {response.status}  "
        why = textwrap.wrap(_explain(record, policy), WIDTH - len(start), break_on_hyphens=False)
        click.echo(start + f"\n{' ' * len(start)}".join(why).replace(GLUE, " "))
        if response.status != step.expected:
            surprises += 1
            click.echo(f"         EXPECTED {step.expected}; the answer was {response.read()!r}")
        connection.close()
    return surprises


def _find_record(log: Log, request_id: str | None) -> dict[str, Any]:
    """Find the server's own log line of a request."""
    try:
        while (record := log.get(timeout=5)) is not None:
            if record.get("request_id") == request_id:
                return record
    except queue.Empty:
        pass
    raise SettingsError("the server logged no line for a request")


def _explain(record: dict[str, Any], policy: Policy) -> str:
    """Say what decided a request, in a few words; `GLUE` holds together what belongs together."""
    lines = ", ".join(record.get("lines", ()))
    if record.get("decision") == "allow":
        unset = "; no limit is set" if record["status"] == HTTPStatus.NOT_FOUND else ""
        return f"allowed by {lines or 'standing in the organization'}{unset}"
    if record.get("decision") is None:
        return "refused before any decision"
    if lines:
        return f"denied by {lines}"
    roles = {line.name: line.role for line in policy.table.lines}
    names = [text.partition(" ")[0] for text in record.get("would_allow", ())]
    *most, last = [f"{roles[name]}{GLUE}({name})" for name in names] or ["a new line"]
    return f"denied: takes {', '.join(most)}{' or' + GLUE if most else ''}{last}"


def _keep_serving(log: Log, policy: Policy) -> None:
    """Show what decides each request, until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    click.echo("\nserving until Ctrl-C; what decides each request is shown here")
    with suppress(KeyboardInterrupt):
        while (record := log.get()) is not None:
            if "route" in record:
                what = f"{record['method']} {record['route'] or 'an unknown path'}"
                why = _explain(record, policy).replace(GLUE, " ")
                click.echo(f"  {record['status']} {what}: {why}")
        raise SettingsError("the server ended by itself")


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
