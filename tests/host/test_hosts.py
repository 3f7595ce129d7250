"""Three hosts, each in its own process: govbudget does its work, and changes nothing of theirs."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from tests.host.servers import ask, mask, read_cookie, run_flask, serve, split
from tests.support import World, budget_path

from govbudget import IdType, Layout
from govbudget.db.tables import Tables
from govbudget.migrations import upgrade

pytestmark = pytest.mark.slow

LIMIT = {"spend_limit_micros": 5}
SECRET = "a secret of the host's"


@pytest.fixture(scope="module")
def shop(shop_project, tmp_path_factory):
    """The usual stack, integer keys; with and without budgets."""
    settings = shop_project.settings
    with serve(
        tmp_path_factory.mktemp("shop"),
        ("shop_beside:create_app", settings),
        ("shop_beside:create_bare", settings),
    ) as (port, bare):
        logins = {
            n: ask(bare, "POST", "/login", body=b"name=" + n.encode()) for n in ("ann", "bob")
        }
        people = {name: {"Cookie": read_cookie(answer)} for name, answer in logins.items()}
        yield SimpleNamespace(port=port, bare=bare, people=people, signed_in=people["ann"])


@pytest.fixture(scope="module")
def forum(make_database, tmp_path_factory):
    """Flask-SQLAlchemy-Lite, Flask-Login, CSRF protection, text keys; with and without budgets."""
    url = make_database()
    settings = {"FORUM_DATABASE": as_text(url), "FORUM_SECRET": SECRET}
    run_flask("--app", "forum.app", "init-db", **settings)
    hosts = ("forum.app", settings), ("forum.app", {**settings, "GOVBUDGET": "no"})
    with serve(tmp_path_factory.mktemp("forum"), *hosts) as (port, bare):
        people = {name: sign_in(bare, name) for name in ("ada", "mo", "fay")}
        yield SimpleNamespace(
            port=port, bare=bare, people=people, signed_in=people["ada"], engine=open_engine(url)
        )


@pytest.fixture(scope="module")
def pair(make_database, tmp_path_factory):
    """Two applications in one process, two policies, two databases; with and without budgets."""
    first, second = make_database(), make_database()
    engines = SimpleNamespace(first=open_engine(first), second=open_engine(second))
    with engines.first.begin() as connection:
        upgrade(connection, Layout())
    with engines.second.begin() as connection:
        upgrade(connection, Layout(IdType.BIGINT, groups="none"))
        columns = "group_id int, organization_id int, user_id int, role text"
        connection.exec_driver_sql(f"CREATE TABLE crew ({columns})")
        rows = "(1, 5, 7, 'chief'), (1, 5, 8, 'treasurer'), (1, 5, 9, 'hand'), (2, 6, 10, 'chief')"
        connection.exec_driver_sql(f"INSERT INTO crew VALUES {rows}")
    settings = {"FIRST_DATABASE": as_text(first), "SECOND_DATABASE": as_text(second)}
    app = "pair.app:create_app"
    hosts = (app, settings), (app, {**settings, "GOVBUDGET": "no"})
    with serve(tmp_path_factory.mktemp("pair"), *hosts) as (port, bare):
        yield SimpleNamespace(
            port=port,
            bare=bare,
            signed_in={"X-User": "me"},
            engines=engines,
            world=World(engines.first),
        )


def as_text(url):
    return url.render_as_string(hide_password=False)


def open_engine(url):
    return sa.create_engine(url, poolclass=sa.NullPool)


def sign_in(port, name):
    """Log in as a browser does: get the form, send its token back; give the headers to send."""
    page = ask(port, "GET", "/login")
    token = re.search(rb'value="([^"]*)"', page)[1].decode()
    before = {"Cookie": read_cookie(page)}
    answer = ask(port, "POST", "/login", before, f"user={name}&csrf_token={token}".encode())
    assert split(answer).status == 200
    return {"Cookie": read_cookie(answer), "X-CSRFToken": token}


# -- what is the host's stays as it was, byte for byte --

# Path, and the status that the host gives by itself.
SHOP = [
    ("GET /teams/", {True: 200, False: 401}),
    ("HEAD /teams/", {True: 200, False: 401}),
    ("OPTIONS /teams/", 200),
    ("PUT /teams/", 405),
    ("GET /teams", 308),
    ("GET /teams//", 308),
    ("DELETE /teams//1", 308),
    ("GET /teams/?name=%FF&name=2", {True: 200, False: 401}),
    ("DELETE /teams/999", 404),
    ("OPTIONS /teams/1", 200),
    ("GET /teams/1", 405),
    ("POST /login", 400),
    ("GET /login", 405),
    ("GET /nope", 404),
    ("HEAD /nope", 404),
    ("OPTIONS /nope", 404),
    ("GET /", 404),
    ("GET /api", 404),
    ("GET /api/v2x", 404),
    ("GET /api/v1/groups/1/ai/budget", 404),
    ("GET /API/v2/groups/1/ai/budget", 404),
    ("GET /groups/1/ai/budget", 404),
    ("GET /static/none.css", 404),
    ("POST /api/v2/users", 200),
    ("GET /api/v2/users", 405),
    ("HEAD /api/v2/users", 405),
    ("BREW /api/v2/users", 405),
    ("OPTIONS /api/v2/users", 200),
    ("POST /api/v2/users/", 404),
    ("POST /api/v2//users", 308),
    ("GET /api/v2/groups/1", 200),
    ("HEAD /api/v2/groups/1", 200),
    ("OPTIONS /api/v2/groups/1", 200),
    ("DELETE /api/v2/groups/1", 405),
    ("GET /api/v2/groups/1/", 404),
    ("GET /api/v2/groups//ai/budget", 404),
    ("GET /api/v2//groups/1/ai/budget", 404),
    ("GET /api/v2/groups/1/ai/budget/", 404),
    ("GET /api/v2/ai/usage", 200),
    ("HEAD /api/v2/ai/usage", 200),
    ("GET /api/v2", 404),
    ("GET /api/v2/", 404),
    ("GET /api/v2/x", 404),
    ("HEAD /api/v2/x", 404),
    ("PUT /api/v2/x", 404),
    ("OPTIONS /api/v2/x", 404),
    ("BREW /api/v2/x", 404),
    ("GET /api/v2/%FF%0A", 404),
    ("TRACE /teams/", 405),
    ("BREW /nope", 404),
]
FORUM = [
    ("GET /login", 200),
    ("HEAD /login", 200),
    ("OPTIONS /login", 200),
    ("POST /login", 400),
    ("PUT /login", 405),
    ("GET /me", {True: 200, False: 401}),
    ("HEAD /me", {True: 200, False: 401}),
    ("POST /me", 405),
    ("GET /boards/", 200),
    ("OPTIONS /boards/", 200),
    ("GET /boards/cars", 200),
    ("GET /boards/none", 404),
    ("GET /whatever/is/asked", 200),
    ("GET /mon", 200),
    ("GET /moneybag", 200),
    ("GET /api/v2/groups/cars/ai/budget", 200),
    ("OPTIONS /whatever/is/asked", 200),
    ("DELETE /whatever/is/asked", 405),
    ("POST /money/users", 200),
    ("PUT /money/users", 405),
    ("OPTIONS /money/users", 200),
    ("GET /money/users", 200),
    ("GET /money/x", 200),
    ("PUT /money/x", 405),
    ("OPTIONS /money/x", 200),
    ("GET /money", 200),
    ("PUT /money", 405),
    ("GET /static/none.css", 404),
]
PAIR = [
    (f"{method} {mount}{path}", status)
    for mount in ("", "/second")
    for method, path, status in (
        ("GET", "/hello", 200),
        ("HEAD", "/hello", 200),
        ("OPTIONS", "/hello", 200),
        ("POST", "/hello", 405),
        ("GET", "/fail", 500),
        ("HEAD", "/fail", 500),
        ("GET", "/nope", 404),
        ("OPTIONS", "/nope", 404),
        ("POST", "/api/v2/users", 200),
        ("POST", "/ai/users", 200),
        ("GET", "/api/v2/users", 405),
        ("GET", "/ai/users", 405),
        ("OPTIONS", "/api/v2/users", 200),
        ("OPTIONS", "/ai/users", 200),
        ("GET", "/api/v2/x", 404),
        ("GET", "/ai/x", 404),
        ("PUT", "/ai/x", 404),
    )
]
REQUESTS = [
    pytest.param(host, request, status, id=f"{host}-{request}")
    for host, requests in (("shop", SHOP), ("forum", FORUM), ("pair", PAIR))
    for request, status in requests
]


@pytest.mark.parametrize("signed_in", [True, False], ids=["signed-in", "nobody"])
@pytest.mark.parametrize(("name", "asked", "status"), REQUESTS)
def test_an_answer_of_the_hosts_is_the_same_with_and_without_us(
    request, name, asked, status, signed_in
):
    """Status line, headers in their order, and body: own 404 page, JSON, hooks, CSRF, OPTIONS."""
    host = request.getfixturevalue(name)
    method, path = asked.split()
    headers = host.signed_in if signed_in else {}
    before = ask(host.bare, method, path, headers)
    after = ask(host.port, method, path, headers)
    assert split(before).status == (status if isinstance(status, int) else status[signed_in])
    assert mask(after) == mask(before)


def test_the_hosts_have_something_to_lose(shop, forum, pair):
    """Their own page, JSON, hook, protection and error answers are there to be compared."""
    page = split(ask(shop.port, "GET", "/nope"))
    assert page.body == b"<h1>The shop has no such page</h1>\n"
    assert page.headers["x-shop"] == "open"
    teams = split(ask(shop.port, "GET", "/teams/", shop.signed_in))
    assert teams.headers["content-type"] == "application/vnd.shop+json"
    assert teams.body.decode() == '[{"id":1,"name":"rosé","company":"Acme"}]\n'
    assert b"CSRF token is missing" in ask(forum.port, "POST", "/login")
    assert (
        split(ask(forum.port, "OPTIONS", "/boards/")).body == b'["cars","cats & dogs","lounge"]\n'
    )
    assert split(ask(pair.port, "GET", "/second/fail")).body == b"second: RuntimeError\n"


@pytest.mark.parametrize(
    ("name", "path"),
    [("shop", "/api/v2"), ("forum", "/money"), ("pair", "/api/v2"), ("pair", "/second/ai")],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "BREW"])
def test_a_wrong_method_on_a_path_of_ours_is_a_problem_of_ours(request, name, path, method):
    """Whatever the host answers to its own wrong methods, and whatever pages it has."""
    host = request.getfixturevalue(name)
    answer = ask(host.port, method, f"{path}/ai/prices", host.signed_in)
    parts = split(answer)
    assert parts.status == 405
    assert parts.headers["allow"] == "OPTIONS, PUT"
    assert parts.headers["content-type"] == "application/problem+json"
    assert method == "HEAD" or json.loads(parts.body)["code"] == "method-not-allowed"


def test_a_hosts_method_on_a_path_of_ours_is_allowed_beside_ours(shop):
    for method, status in (("OPTIONS", 200), ("DELETE", 405)):
        parts = split(ask(shop.port, method, "/api/v2/ai/usage"))
        allowed = set(parts.headers["allow"].split(", "))
        assert (parts.status, allowed) == (status, {"GET", "HEAD", "OPTIONS", "POST"})


# -- and govbudget does its work in each --


def put(port, path, headers, limit=LIMIT):
    sent = {"Content-Type": "application/json", **headers}
    return read(ask(port, "PUT", path, sent, json.dumps(limit).encode()))


def get(port, path, headers):
    return read(ask(port, "GET", path, headers))


def read(answer):
    """Give an answer's status, and the code of its problem or the limit of its budget."""
    parts = split(answer)
    body = json.loads(parts.body)
    assert parts.headers["content-type"].split(";")[0] == (
        "application/json" if parts.status == 200 else "application/problem+json"
    )
    return parts.status, body.get("code") or body.get("spend_limit_micros")


def test_the_shop_changes_a_name_and_a_limit_together_or_not_at_all(shop):
    """A limit that can't be undoes the name; the shop's hook runs on our answers, its JSON not."""
    ann, bob = shop.people.values()
    budget = "/api/v2/groups/1/ai/budget"
    teams, before = ask(shop.port, "GET", "/teams/", ann), get(shop.port, budget, ann)
    failed = ask(shop.port, "POST", "/teams/1/form", bob, b"name=other&limit=-1")
    assert split(failed).status == 500
    assert get(shop.port, budget, ann) == before != (200, 7)
    refused = ask(shop.port, "POST", "/teams/1/form", ann, b"name=other&limit=7")
    assert split(refused).status == 403
    assert mask(ask(shop.port, "GET", "/teams/", ann)) == mask(teams)
    changed = ask(shop.port, "POST", "/teams/1/form", bob, "name=rosé&limit=7".encode())
    assert split(changed).headers["content-type"] == "application/vnd.shop+json"
    assert get(shop.port, budget, ann) == (200, 7)
    assert split(ask(shop.port, "GET", budget, ann)).headers["x-shop"] == "open"


BOARD = f"/money/groups/{quote('cats & dogs')}/ai/budget"
LOUNGE = "/money/groups/lounge/ai/budget"


def test_the_forum_sets_and_reads_budgets(forum):
    """A moderator of the realm sets, a member reads, the lounge is everyone's, cars are not."""
    ada, mo, fay = (forum.people[name] for name in ("ada", "mo", "fay"))
    assert put(forum.port, BOARD, mo) == (200, 5)
    assert get(forum.port, BOARD, ada) == (200, 5)
    assert put(forum.port, BOARD, ada) == (403, "forbidden")
    # Another test sets one.
    assert get(forum.port, LOUNGE, ada) in {(404, "budget-not-set"), (200, 1)}
    assert get(forum.port, "/money/groups/cars/ai/budget", mo) == (404, "group-not-found")
    assert put(forum.port, "/money/groups/cars/ai/budget", fay, {"spend_limit_micros": 6})[0] == 200
    stranger = ask(forum.port, "GET", BOARD)
    assert read(stranger) == (401, "unauthenticated")
    assert split(stranger).headers["www-authenticate"] == "Session"
    assert "x-bytes" in split(stranger).headers


def test_the_forum_shows_pages_by_its_own_sign_in_and_ids(forum):
    ada, mo, _ = (forum.people[name] for name in ("ada", "mo", "fay"))
    mine = split(ask(forum.port, "GET", "/ai/", ada))
    assert mine.status == 200
    assert b'href="/ai/organizations/pets"' in mine.body
    group = split(ask(forum.port, "GET", "/ai/groups/cats%20%26%20dogs", mo))
    assert group.status == 200
    assert b"<bdi>cats &amp; dogs</bdi>" in group.body
    assert split(ask(forum.port, "GET", "/ai/groups/cars", mo)).status == 404
    stranger = ask(forum.port, "GET", "/ai/")
    assert split(stranger).status == 401
    assert b"WWW-Authenticate: Session" in stranger


def test_the_forums_csrf_protection_covers_us(forum):
    """A cookie alone changes nothing: the host's own check refuses, as a problem of ours."""
    cookie = {"Cookie": forum.people["mo"]["Cookie"]}
    before = get(forum.port, LOUNGE, cookie)
    assert put(forum.port, LOUNGE, cookie) == (400, "bad-request")
    assert get(forum.port, LOUNGE, cookie) == before != (200, 5)


def test_a_limit_in_the_forums_session_is_kept_or_rolled_back_with_it(forum):
    mo = forum.people["mo"]
    log = Tables(Layout(IdType.TEXT, "ai_money", "none")).audit_log
    changes = sa.select(sa.func.count()).where(log.c.object_id == "lounge")
    counted = []
    for path in ("/boards/lounge/limit", "/boards/lounge/limit?keep=1"):
        assert split(ask(forum.port, "POST", path, mo)).body == b"done\n"
        with forum.engine.connect() as connection:
            counted.append((get(forum.port, LOUNGE, mo), connection.scalar(changes)))
    assert counted == [((404, "budget-not-set"), 0), ((200, 1), 1)]
    forgotten = {"Cookie": mo["Cookie"]}
    assert split(ask(forum.port, "POST", "/boards/lounge/limit", forgotten)).status == 400


def test_two_applications_in_one_process_keep_apart(pair):
    """Each has its ids, its policy, its database, its prefix."""
    world = pair.world
    path = "/api/v2" + budget_path(world.a1)
    user = {name: {"X-User": str(i)} for name, i in world.people.items()}
    assert put(pair.port, path, user["org_admin"]) == (200, 5)
    assert get(pair.port, path, user["member"]) == (200, 5)

    def crew(number):
        return {"X-User": str(number)}

    budget = "/second/ai/groups/1/ai/budget"
    assert put(pair.port, budget, crew(7)) == (403, "forbidden")  # an org-admin, who sets none here
    assert put(pair.port, budget, crew(8), {"spend_limit_micros": 8}) == (200, 8)
    assert get(pair.port, budget, crew(9)) == (200, 8)
    assert get(pair.port, budget, crew(10)) == (404, "group-not-found")
    assert get(pair.port, f"/second/ai/groups/{world.a1}/ai/budget", crew(8)) == (400, "invalid-id")
    assert get(pair.port, "/api/v2/groups/1/ai/budget", user["owner"]) == (400, "invalid-id")
    assert b"first: NotFound\n" in ask(pair.port, "GET", "/ai/groups/1/ai/budget", crew(8))
    found = {name: read_groups(engine) for name, engine in vars(pair.engines).items()}
    assert found == {"first": [str(world.a1)], "second": ["1"]}


def read_groups(engine):
    with engine.connect() as connection:
        groups = connection.exec_driver_sql("SELECT group_id::text FROM govbudget.group_ai_budgets")
        return groups.scalars().all()
