"""A forum: Flask-SQLAlchemy-Lite, Flask-Login, Flask-WTF's CSRF protection, and texts for keys.

`GOVBUDGET=no` in the environment leaves the budgets out, to compare with.
"""

import os

import sqlalchemy as sa
from flask import Flask, Response, render_template_string, request
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from flask_sqlalchemy_lite import SQLAlchemy
from flask_wtf.csrf import CSRFProtect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

db, login, csrf = SQLAlchemy(), LoginManager(), CSRFProtect()

FORM = """<form method="post"><input name="csrf_token" value="{{ csrf_token() }}"></form>\n"""


class Model(DeclarativeBase):
    metadata = sa.MetaData(schema="forum")


class User(UserMixin, Model):
    __tablename__ = "users"
    id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    is_founder: Mapped[bool]


class Board(Model):
    __tablename__ = "boards"
    slug: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    realm: Mapped[str] = mapped_column(sa.String(40))
    is_lounge: Mapped[bool]


class Member(Model):
    __tablename__ = "members"
    board: Mapped[str] = mapped_column(sa.ForeignKey(Board.slug), primary_key=True)
    user: Mapped[str] = mapped_column(sa.ForeignKey(User.id), primary_key=True)


class Citizen(Model):
    __tablename__ = "citizens"
    realm: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    user: Mapped[str] = mapped_column(sa.ForeignKey(User.id), primary_key=True)
    is_moderator: Mapped[bool]


@login.user_loader
def load_user(user_id: str) -> User | None:
    return db.session.get(User, user_id)


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=os.environ["FORUM_SECRET"],
        SQLALCHEMY_ENGINES={"default": os.environ["FORUM_DATABASE"]},
    )
    db.init_app(app)
    login.init_app(app)
    csrf.init_app(app)
    add_pages(app)
    add_users(app)
    if os.environ.get("GOVBUDGET") != "no":
        add_budgets(app)
    return app


def add_pages(app: Flask) -> None:
    @app.route("/login", methods=["GET", "POST"])
    def log_in() -> ResponseReturnValue:
        if request.method == "POST":
            user = db.session.get(User, request.form["user"])
            if user is None:
                return login.unauthorized()
            login_user(user)
            return f"hello {user.id}\n"
        return render_template_string(FORM)

    @app.get("/me")
    @login_required
    def show_me() -> ResponseReturnValue:
        return {"id": current_user.id}

    @app.get("/boards/<path:slug>")
    def show_board(slug: str) -> ResponseReturnValue:
        board = db.get_or_abort(Board, slug)
        return {"slug": board.slug, "realm": board.realm}

    @app.route("/boards/", methods=["GET", "OPTIONS"], provide_automatic_options=False)
    def list_boards() -> ResponseReturnValue:
        """List the slugs, also to whoever asks for the options: this answer is the forum's own."""
        return list(db.session.scalars(sa.select(Board.slug).order_by(Board.slug)))

    @app.get("/<path:page>")
    def show_page(page: str) -> ResponseReturnValue:
        """Catch whatever is left, as applications of one page do."""
        return f"<title>{page!r}</title>\n"

    @app.after_request
    def count_bytes(response: Response) -> Response:
        response.headers["X-Bytes"] = str(len(response.get_data()))
        return response

    @app.errorhandler(405)
    def wrong_method(_error: Exception) -> ResponseReturnValue:
        return "not like this\n", 405


def add_users(app: Flask) -> None:
    @app.post("/money/users")
    @csrf.exempt
    def add_user() -> ResponseReturnValue:
        """Answer under the prefix that govbudget's routes have, too."""
        return "a new user\n"


def add_budgets(app: Flask) -> None:
    from govbudget import GovBudget, SqlDirectory
    from govbudget.migrations import upgrade

    board, member, citizen, user = (model.__table__ for model in (Board, Member, Citizen, User))
    directory = SqlDirectory(
        groups=sa.select(
            board.c.slug.label("id"),
            board.c.realm.label("organization_id"),
            board.c.is_lounge.label("is_everyone"),
        ),
        group_members=sa.select(member.c.board.label("group_id"), member.c.user.label("user_id")),
        organization_members=sa.select(
            citizen.c.realm.label("organization_id"), citizen.c.user.label("user_id")
        ),
        role_assignments=sa.union_all(
            sa.select(
                citizen.c.user.label("user_id"),
                sa.literal("moderator").label("role"),
                citizen.c.realm.label("organization_id"),
            ).where(citizen.c.is_moderator),
            sa.select(user.c.id, sa.literal("founder"), sa.null()).where(user.c.is_founder),
        ),
        roles={"moderator": "org-admin", "founder": "owner"},
    )
    app.config.update(
        GOVBUDGET_ID_TYPE="text",
        GOVBUDGET_GROUPS="forum.boards.slug",
        GOVBUDGET_SCHEMA="ai_money",
        GOVBUDGET_URL_PREFIX="/money",
    )
    gov = GovBudget(challenge="Session").init_app(
        app,
        engine=db,
        identify=lambda: current_user.get_id(),  # noqa: PLW0108 - asked in each request
        directory=directory,
        pages="/ai",
    )

    @app.cli.command("init-db")
    def init_db() -> None:
        """Make the forum's tables and govbudget's, in one transaction, with a few rows."""
        session = db.session
        connection = session.connection()
        connection.execute(sa.schema.CreateSchema("forum"))
        Model.metadata.create_all(connection)
        upgrade(connection, gov.settings.layout)
        session.add_all(User(id=name, is_founder=name == "fay") for name in ("ada", "mo", "fay"))
        boards = (
            ("cats & dogs", "pets", False),
            ("lounge", "pets", True),
            ("cars", "toys", False),
        )
        session.add_all(Board(slug=s, realm=r, is_lounge=e) for s, r, e in boards)
        session.flush()
        session.add(Member(board="cats & dogs", user="ada"))
        session.add_all(
            Citizen(realm="pets", user=name, is_moderator=name == "mo") for name in ("ada", "mo")
        )
        session.commit()

    @app.post("/boards/<path:slug>/limit")
    @login_required
    def limit_board(slug: str) -> ResponseReturnValue:
        """Set a limit in the session's own transaction, and then think better of it."""
        connection = db.session.connection()
        with gov.unit(current_user.id, connection=connection) as unit:
            gov.budgets.set(unit.authorize("update", group=slug), 1)
        if request.args.get("keep"):
            db.session.commit()
        return "done\n"  # else the session is rolled back at the end of the request
