"""What one would write without govbudget: the views that its requests are measured beside.

The hand-written ones send the statements that govbudget sent for the same request, on SQLAlchemy
Core or on psycopg, and decide nothing. The usual one decides with a pycasbin enforcer that holds
everyone's `g` lines, and works on ORM objects.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import sqlalchemy as sa
from flask import Flask, Response, abort, request
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.wsgi import Wsgi, budget_path
from govbudget import GovBudget
from govbudget.authz.files import packaged_policy_dir
from govbudget.money import MAX_LIMIT_MICROS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.database import World
    from govbudget.db.databases import Databases

    Identify = Callable[[], UUID]

VIEW = "/api/v2/groups/<uuid:group>/ai/budget"


def identify_by_header() -> UUID:
    """Take the caller's id from a header, as all applications that are compared do."""
    return UUID(request.headers["X-User"])


def make_govbudget_app(engine: sa.Engine | Databases, **arguments: Any) -> Flask:  # noqa: ANN401 - GovBudget's
    """Make an application with govbudget in it."""
    app = Flask("with_govbudget")
    GovBudget(app, engine=engine, identify=identify_by_header, **arguments)
    return app


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that govbudget sent, as Core sees it and as psycopg does, with its values."""

    construct: Any
    values: dict[str, Any]
    text: str
    raw_values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Statements:
    """What govbudget sends for a GET and for a PUT: the directory's, then the budget's."""

    get: tuple[Statement, Statement]
    put: tuple[Statement, Statement]


def capture_statements(url: sa.URL, world: World) -> Statements:
    """Let govbudget answer a GET and a PUT, and keep the statements it sent."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    app = make_govbudget_app(engine)
    path = budget_path(world.group)
    found = []
    for method, body in (("GET", b""), ("PUT", put_body())):
        constructs: list[tuple[Any, dict[str, Any]]] = []
        texts: list[tuple[str, dict[str, Any]]] = []

        def keep(
            _connection: object, construct: Any, _many: object, values: Any, _options: object,  # noqa: ANN401
            kept: list[tuple[Any, dict[str, Any]]] = constructs,
        ) -> None:  # fmt: skip
            kept.append((construct, dict(values)))

        def keep_text(
            _connection: object, _cursor: object, text: str, values: Any, *_: object,  # noqa: ANN401
            kept: list[tuple[str, dict[str, Any]]] = texts,
        ) -> None:  # fmt: skip
            kept.append((text, dict(values)))

        listeners = (("before_execute", keep), ("before_cursor_execute", keep_text))
        for event, listener in listeners:
            sa.event.listen(engine, event, listener)
        Wsgi(app, method, path, world.owner, body=body)()
        for event, listener in listeners:
            sa.event.remove(engine, event, listener)
        directory, budget = (
            Statement(*construct, *text) for construct, text in zip(constructs, texts, strict=True)
        )
        found.append((directory, budget))
    return Statements(*found)


def put_body() -> bytes:
    """Give the body of every PUT that is measured."""
    return b'{"spend_limit_micros":6000000}'


def write_answer(row: Sequence[Any]) -> Response:
    """Answer with a row of `group_id`, limit, created, updated, revision."""
    group, limit, created, updated, revision = row
    body = {
        "group_id": str(group),
        "spend_limit_micros": limit,
        "created_at": write_time(created),
        "updated_at": write_time(updated),
    }
    text = json.dumps(body, separators=(",", ":")) + "\n"
    response = Response(text, mimetype="application/json")
    response.set_etag(revision.hex)
    return response


def write_time(time: datetime | int) -> str:
    """Write a time in UTC; an int is microseconds, as govbudget's own statements select it."""
    if isinstance(time, int):
        time = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=time)
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def read_limit() -> int:
    """Read the body of a PUT."""
    body = request.get_json()
    limit = body.get("spend_limit_micros")
    if type(limit) is not int or not 0 <= limit <= MAX_LIMIT_MICROS:
        abort(400)
    return limit


def make_core_app(
    engine: sa.Engine,
    sent: Statements,
    identify: Identify = identify_by_header,
    *,
    with_directory: bool = True,
) -> Flask:
    """Make the hand-written views on SQLAlchemy Core; the engine is in AUTOCOMMIT itself.

    Without the directory's statement, the budget's one is all that is sent, and the organization
    comes from the statement that was kept.
    """
    app = Flask("hand_written")

    def run(statements: tuple[Statement, Statement], group: UUID, **more: object) -> Response:
        directory, budget = statements
        user = identify()
        organization = budget.values["organization_id"]
        with engine.connect() as connection:
            if with_directory:
                asked = {"user": user, "asked": group}
                rows = connection.execute(directory.construct, asked).all()
                if not rows:
                    abort(404)
                organization = rows[0][1]
            values = {**budget.values, "group_id": group, "organization_id": organization, **more}
            row = connection.execute(budget.construct, values).one_or_none()
        if row is None or row[1] is None:
            abort(404)
        return write_answer(row)

    @app.get(VIEW)
    def get(group: UUID) -> Response:
        return run(sent.get, group)

    @app.put(VIEW)
    def put(group: UUID) -> Response:
        return run(sent.put, group, limit=read_limit(), revision=uuid4())

    return app


def make_psycopg_app(url: sa.URL, sent: Statements) -> Flask:
    """Make the hand-written views on psycopg, with a connection a thread in autocommit."""
    app = Flask("hand_written_on_psycopg")
    text = url.set(drivername="postgresql").render_as_string(hide_password=False)
    local = threading.local()

    def run(statements: tuple[Statement, Statement], group: UUID, **more: object) -> Response:
        directory, budget = statements
        user = identify_by_header()
        if not hasattr(local, "connection"):
            local.connection = psycopg.connect(text, autocommit=True)
        connection = local.connection
        asked = {**directory.raw_values, "user": user, "asked": group}
        rows = connection.execute(directory.text, asked).fetchall()
        if not rows:
            abort(404)
        values = {**budget.raw_values, "group_id": group, "organization_id": rows[0][1], **more}
        row = connection.execute(budget.text, values).fetchone()
        if row is None or row[1] is None:
            abort(404)
        return write_answer(row)

    @app.get(VIEW)
    def get(group: UUID) -> Response:
        return run(sent.get, group)

    @app.put(VIEW)
    def put(group: UUID) -> Response:
        return run(sent.put, group, limit=read_limit(), revision=uuid4())

    return app


class _Base(DeclarativeBase):
    metadata = sa.MetaData(schema="govbudget")


class _Group(_Base):
    __tablename__ = "groups"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[UUID]


class _Budget(_Base):
    __tablename__ = "group_ai_budgets"
    group_id: Mapped[UUID] = mapped_column(primary_key=True)
    spend_limit_micros: Mapped[int] = mapped_column(sa.BigInteger)
    revision: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(
        sa.DateTime(timezone=True), server_default=sa.func.now()
    )
    updated_at: Mapped[datetime] = mapped_column(
        sa.DateTime(timezone=True), server_default=sa.func.now()
    )


_G_LINES = """
SELECT user_id, role, CASE WHEN organization_id IS NULL THEN 'site'
                           ELSE 'organization:' || organization_id END
FROM govbudget.role_assignments
UNION ALL SELECT user_id, 'group-member', 'group:' || group_id FROM govbudget.group_members
"""


def make_usual_app(engine: sa.Engine) -> Flask:
    """Make an application as usually written: a pycasbin enforcer, and ORM sessions."""
    import casbin  # noqa: PLC0415 - here alone

    folder = packaged_policy_dir()
    enforcer = casbin.Enforcer(str(folder / "model.conf"), str(folder / "policy.csv"))
    with engine.connect() as connection:
        lines = [list(map(str, row)) for row in connection.execute(sa.text(_G_LINES))]
    enforcer.add_named_grouping_policies("g", lines)
    app = Flask("usual")

    def load(session: Session, group_id: UUID, action: str) -> _Group:
        group = session.get(_Group, group_id)
        if group is None:
            abort(404)
        organization = f"organization:{group.organization_id}"
        user = str(identify_by_header())
        asked = organization, f"group:{group.id}", "nowhere", "group", action
        if not enforcer.enforce(user, *asked):
            abort(403)
        return group

    def answer(budget: _Budget) -> Response:
        return write_answer(
            (budget.group_id, budget.spend_limit_micros, budget.created_at, budget.updated_at,
             budget.revision)
        )  # fmt: skip

    @app.get(VIEW)
    def get(group: UUID) -> Response:
        with Session(engine) as session:
            budget = session.get(_Budget, load(session, group, "read").id)
            if budget is None:
                abort(404)
            return answer(budget)

    @app.put(VIEW)
    def put(group: UUID) -> Response:
        limit = read_limit()
        with Session(engine) as session:
            found = load(session, group, "update")
            budget = session.get(_Budget, found.id)
            if budget is None:
                budget = _Budget(group_id=found.id)
                session.add(budget)
            budget.spend_limit_micros = limit
            budget.revision = uuid4()
            budget.updated_at = datetime.now(UTC)
            session.commit()
            return answer(budget)

    return app


def make_served_app() -> Flask:
    """Make the hand-written views for a server: the caller is found by its bearer token.

    Reads BENCH_URL and BENCH_WORLD. Sends what the stand-alone server sends: the token's look-up,
    the directory's statement and the budget's. Its pool is the server's.
    """
    from benchmarks.database import World  # noqa: PLC0415 - this runs in a process of its own
    from govbudget import Layout  # noqa: PLC0415
    from govbudget.db.tables import Tables  # noqa: PLC0415
    from govbudget.server.app import make_engine  # noqa: PLC0415
    from govbudget.server.tokens import TOKEN_PREFIX  # noqa: PLC0415

    url = sa.make_url(os.environ["BENCH_URL"])
    world = World(*map(UUID, os.environ["BENCH_WORLD"].split(",")))
    tokens = Tables(Layout()).api_tokens
    find = sa.select(tokens.c.user_id).where(
        tokens.c.secret_sha256 == sa.bindparam("secret"),
        tokens.c.revoked_at.is_(None),
        tokens.c.expires_at > sa.func.now(),
    )
    engine = make_engine(url, int(os.environ["BENCH_POOL"]))

    def identify() -> UUID:
        secret = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not secret.startswith(TOKEN_PREFIX):
            abort(401)
        with engine.connect() as connection:
            key = {"secret": hashlib.sha256(secret.encode()).digest()}
            user: UUID | None = connection.execute(find, key).scalar_one_or_none()
        if user is None:
            abort(401)
        return user

    return make_core_app(engine, capture_statements(url, world), identify)
