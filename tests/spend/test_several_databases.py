"""Spend over HTTP and in Python with two real databases, each with its own organizations."""

from __future__ import annotations

import io
import json
from functools import partial
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from tests.regions import make_region, place
from tests.support import (
    TABLES,
    Client,
    budget_path,
    count_statements,
    list_path,
    make_app,
    packaged_policy,
    spend_requests,
)
from tests.web.helpers import outcome, put_limit
from tests.web.test_id_types import settle

from govbudget import BudgetExceeded, Call, Databases, IdType, NotFound, SettingsError, Tokens
from govbudget.new_ids import find_slot, make_id, read_slot
from govbudget.testing import host as plugin
from govbudget.web.destination import find_request_organization

pytestmark = pytest.mark.slow

DONE = {"hold": 201, "record": 201, "correct": 201, "release": 204, "delete override": 204}
OF_HOLDS = ("find hold", "extend", "settle", "release")
AWAY = sa.create_engine("postgresql+psycopg://x@127.0.0.1:1/x?connect_timeout=2")
ASYNC = create_async_engine("postgresql+psycopg://x@127.0.0.1:1/x")
FORBIDDEN, REQUIRED = (403, "forbidden"), (400, "organization-required")


def read_all(engine):
    """Every row of what is spent, held, limited and kept of it."""
    with engine.connect() as connection:
        return {
            name: sorted(map(str, connection.execute(sa.select(getattr(TABLES, name)))))
            for name in (
                *("ai_holds", "ai_usage", "ai_spend_counters", "ai_spend_rollups"),
                *("ai_notices", "group_ai_budgets", "member_ai_overrides", "audit_log"),
            )
        }


@pytest.fixture(scope="module")
def region(engine, make_database, template):
    with make_region(engine, make_database(template=template)) as region:
        yield region


def by(town, path):
    return town.gateway if path.startswith(("/ai/holds", "/ai/usage")) else town.owner


def ask(send, town, name, person=None, query="", **more):
    """Send one of the requests of spend; `more` is for its body."""
    method, path, body = spend_requests(town, "m")[name]
    body = None if body is None else {**body, **more}
    return send(method, path + query, person or by(town, path), json=body)


def hold(send, town, **more):
    made = ask(send, town, "hold", **more)
    assert made.status_code == 201, made.get_data()
    town.hold = town.open_hold = UUID(made.json["hold_id"])
    return town.hold


# -- what is where --


@pytest.mark.parametrize("name", ["one", "other"])
def test_the_whole_of_spend_is_done_in_the_database_of_its_organization(region, name):
    """All answers are as with one database, and nothing is read or written in the other one."""
    town = getattr(region, name)
    (beside,) = {region.one, region.other} - {town}
    before = read_all(beside.engine)
    with count_statements(beside.engine) as sent:
        assert put_limit(region.send, town.a1, town.owner, 10**9).status_code == 200
        town.hold = town.open_hold = hold(region.send, town)
        for request in ("put override", *spend_requests(town, "m")):
            answer = ask(region.send, town, request)
            assert answer.status_code == DONE.get(request, 200), answer.get_data()
        assert region.send("GET", budget_path(town.a1), town.member).status_code == 200
        for kind in ("budgets", "audit"):
            path = list_path(town.a).replace("budgets", kind)
            assert region.send("GET", path, town.org_admin).status_code == 200
        assert region.send("DELETE", budget_path(town.a1), town.owner).status_code == 204
    assert sent == []
    assert read_all(beside.engine) == before
    kept = read_all(town.engine)
    assert all(str(town.a) in " ".join(kept[table]) for table in ("ai_holds", "ai_usage"))
    assert str(town.a) not in str(before)


def test_a_limit_holds_in_its_own_database(region):
    for town in (region.one, region.other):
        assert put_limit(region.send, town.a1, town.owner, 0).status_code == 200
        assert outcome(ask(region.send, town, "hold")) == (403, "budget-exceeded")
        assert region.send("DELETE", budget_path(town.a1), town.owner).status_code == 204


# -- holds --


@pytest.mark.parametrize("name", ["one", "other"])
@pytest.mark.parametrize("request_name", OF_HOLDS)
def test_a_hold_is_found_by_its_id_or_by_the_organization_that_is_named(region, name, request_name):
    town = getattr(region, name)
    for query, more in (
        ("", {}),
        ("?organization_id={}", {}),
        ("", {"organization_id": str(town.a)}),
        ("?organization_id={}", {"organization_id": str(town.a).upper()}),
    ):
        hold(region.send, town)
        event = {"event_id": f"of {town.hold}"} if request_name == "settle" else {}
        answer = ask(region.send, town, request_name, query=query.format(town.a), **event, **more)
        assert answer.status_code == DONE.get(request_name, 200), answer.get_data()


@pytest.mark.parametrize("request_name", OF_HOLDS)
def test_a_hold_of_another_organization_is_404_and_nothing_is_recorded(region, request_name):
    town, wrong = region.one, region.other
    hold(region.send, town)
    before = read_all(town.engine), read_all(wrong.engine)
    answers = [ask(region.send, town, request_name, query=f"?organization_id={wrong.a}")]
    if request_name in {"extend", "settle"}:
        answers.append(ask(region.send, town, request_name, organization_id=str(wrong.a)))
    for answer in answers:
        assert outcome(answer) == (404, "hold-not-found")
    assert (read_all(town.engine), read_all(wrong.engine)) == before


@pytest.mark.parametrize("name", ["one", "other"])
def test_a_hold_with_an_id_of_the_callers_own_needs_its_organization(region, name):
    """It can be asked for again as ever: its body names the organization."""
    town = getattr(region, name)
    own = str(uuid4())
    assert hold(region.send, town, hold_id=own) == UUID(own)
    assert ask(region.send, town, "hold", hold_id=own).status_code == 200
    before = read_all(town.engine)
    for request_name in OF_HOLDS:
        assert outcome(ask(region.send, town, request_name)) == REQUIRED
        assert outcome(ask(region.send, town, request_name, uuid4())) == FORBIDDEN
    assert read_all(town.engine) == before
    for request_name in OF_HOLDS:
        query, more = f"?organization_id={town.a}", {}
        if request_name in {"extend", "settle"}:
            query, more = "", {"organization_id": str(town.a)}
        if request_name == "settle":
            more["event_id"] = own
        answer = ask(region.send, town, request_name, query=query, **more)
        assert answer.status_code == DONE.get(request_name, 200), answer.get_data()


@pytest.mark.parametrize("request_name", OF_HOLDS)
def test_an_organization_that_is_named_wrongly_is_400_with_one_database_too(
    region, request_name, engine
):
    """After the decision: whoever may not hold is refused as ever. Nothing is recorded."""
    one = Client(make_app(engine))
    town, beside = region.one, region.other
    hold(region.send, town)
    before = read_all(town.engine)
    named = f"?organization_id={town.a}"
    wrong = [("?organization_id=x", {}), ("?organization_id=", {})]
    wrong += [(f"{named}&organization_id={beside.a}", {}), (f"{named}&organization_id=x", {})]
    if request_name in {"extend", "settle"}:
        wrong += [(named, {"organization_id": str(beside.a)})]
        wrong += [("?organization_id=x", {"organization_id": str(town.a)})]
    for query, more in wrong:
        for send in (one, region.send):
            answer = ask(send, town, request_name, query=query, **more)
            assert outcome(answer) == (400, "invalid-query")
            assert {error["pointer"] for error in answer.json["errors"]} == {"organization_id"}
            assert outcome(ask(send, town, request_name, uuid4(), query, **more)) == FORBIDDEN
    if request_name in {"extend", "settle"}:
        for value in ("x", "", 7, [], {}):
            for send in (one, region.send):
                answer = ask(send, town, request_name, organization_id=value)
                assert outcome(answer) == (400, "invalid-body")
                assert {error["pointer"] for error in answer.json["errors"]} == {"/organization_id"}
    assert read_all(town.engine) == before


def test_the_organization_may_be_named_with_one_database_too(region, engine):
    send, town = Client(make_app(engine)), region.one
    for request_name in OF_HOLDS:
        hold(send, town)
        more = {"organization_id": str(town.a)}
        if request_name == "settle":
            more["event_id"] = f"of {town.hold}"
        answer = ask(send, town, request_name, query=f"?organization_id={town.a}", **more)
        assert answer.status_code == DONE.get(request_name, 200), answer.get_data()


# -- bodies that name no organization --


@pytest.mark.parametrize("path", ["/ai/holds", "/ai/usage", "/ai/corrections"])
def test_a_body_without_a_readable_organization_is_refused_by_the_sites_database(region, path):
    """401 and 403 as ever, then 400, 413 or 415; the other database is not asked."""
    town, other = region.one, region.other
    body = {"organization_id": str(other.a), "user_id": str(other.member)}
    names = json.dumps(body)
    person = by(town, path)
    unreadable = [
        (b"", (400, "invalid-body")),
        (b"[]", (400, "invalid-body")),
        (b"{}", (400, "invalid-body")),
        (b'{"organization_id": null}', (400, "invalid-body")),
        (b'{"organization_id": "x"}', (400, "invalid-body")),
        (f'{names[:-1]}, "organization_id": "x"}}'.encode(), (400, "invalid-body")),
        (names[:-1].encode(), (400, "invalid-body")),
        (names.encode("utf-16"), (400, "invalid-body")),
        (b"[" * 100_000, (400, "invalid-body")),
        (names.encode() + b" " * 1024**2, (413, "body-too-large")),
    ]
    with count_statements(other.engine) as sent:
        for content, refusal in unreadable:
            post = partial(region.send, "POST", path, data=content, content_type="application/json")
            assert outcome(post(person)) == refusal
            assert outcome(post(other.owner)) == FORBIDDEN
            assert outcome(post(None)) == (401, "unauthenticated")
        answer = region.send("POST", path, person, data=names, content_type="text/plain")
        assert outcome(answer) == (415, "unsupported-media-type")
    assert sent == []


# -- groups --


def ask_groups(send, town, person=None, group=None):
    """Send each kind of request that names a group and no organization."""
    group, person = group or town.a1, person or town.owner
    yield put_limit(send, group, person)
    yield send("GET", budget_path(group), person)
    yield send("DELETE", budget_path(group), person)
    yield send("GET", f"/groups/{group}/ai/spend", person)
    yield send("GET", f"/groups/{group}/members/ai/spend", person)


def test_without_a_way_from_group_to_organization_the_routes_of_groups_say_so(region):
    """In the order of the checks, and no database is asked."""
    on = {"aibridge"}
    app = make_app(region.databases, features=lambda: frozenset(on))
    send, towns = Client(app), (region.one, region.other)
    with count_statements(towns[0].engine) as first, count_statements(towns[1].engine) as second:
        for town in towns:
            for answer in ask_groups(send, town):
                assert outcome(answer) == (501, "organization-unknown")
                assert "give GovBudget `organization_of=`" in answer.json["detail"]
        assert outcome(send("GET", budget_path(town.a1))) == (401, "unauthenticated")
        assert outcome(send("GET", budget_path("x"), town.owner)) == (400, "invalid-id")
        on.clear()
        assert outcome(send("GET", budget_path(town.a1), town.owner)) == (403, "feature-disabled")
    assert first == second == []
    on.add("aibridge")
    hold(send, region.other)
    assert send("GET", list_path(region.other.a), region.other.owner).status_code == 200


def test_a_group_of_no_organization_is_404_as_any_that_is_not_there(region):
    group = uuid4()
    assert region.groups.get(group) is None
    region.groups[group] = region.other.a
    found = [*ask_groups(region.send, region.other, group=group)]
    del region.groups[group]
    nowhere = [*ask_groups(region.send, region.one, group=group)]
    for answer, beside in zip(found, nowhere, strict=True):
        assert outcome(answer) == outcome(beside) == (404, "group-not-found")
        assert answer.get_data() == beside.get_data()


@pytest.mark.parametrize(
    ("gives", "expected"),
    [
        (lambda group: AWAY.connect(), (503, "unavailable")),
        (lambda group: 1 / 0, (500, "internal-error")),
        (lambda group: object(), (500, "internal-error")),
    ],
    ids=["away", "raises", "no id"],
)
def test_what_goes_wrong_in_the_hosts_callable_is_the_requests_own_failure(region, gives, expected):
    send = Client(make_app(region.databases, organization_of=gives))
    for answer in ask_groups(send, region.one):
        assert outcome(answer) == expected
    assert outcome(send("GET", budget_path(region.one.a1))) == (401, "unauthenticated")
    assert ask(send, region.one, "member spend").status_code == 200


def test_what_is_not_an_organizations_id_is_named_in_the_log(region, caplog):
    send = Client(make_app(region.databases, organization_of=lambda group: 7))
    assert outcome(next(ask_groups(send, region.one))) == (500, "internal-error")
    assert "`organization_of=` gave what is not an organization's id: expected an id" in caplog.text


# -- what is the site's --


def test_prices_are_read_from_the_sites_database_and_written_to_none(region):
    town, path = region.one, "/ai/prices/acme/m"
    with count_statements(region.other.engine) as sent:
        assert region.send("GET", path, town.owner).json["input_price"] == 10**12
        rows = [{**region.send("GET", path, town.owner).json, "input_price": 7}]
        answer = region.send("PUT", "/ai/prices", town.owner, json=rows)
        assert outcome(answer) == (409, "several-databases")
        assert "govbudget prices load" in answer.json["detail"]
        assert outcome(region.send("PUT", "/ai/prices", town.member, json=rows)) == FORBIDDEN
        assert outcome(region.send("PUT", "/ai/prices", town.owner, json={})) == (
            *(400, "invalid-body"),
        )
    assert sent == []
    assert region.send("GET", path, town.owner).json["input_price"] == 10**12


# -- one that is away --


@pytest.mark.parametrize("away", ["one", "other"])
def test_one_that_is_away_takes_only_its_own_organizations_down(region, away):
    """The site's too: the others go on. Whoever calls is looked up in the request's own."""
    lost, up = getattr(region, away), getattr(region, {"one": "other", "other": "one"}[away])
    towns = region.one, region.other
    engines = [AWAY if town is lost else town.engine for town in towns]
    databases = place(engines, *((town.a, town.b) for town in towns))

    def identify():
        with databases(find_request_organization()).connect() as connection:
            return connection.scalar(sa.select(sa.literal(person)))

    send = Client(make_app(databases, identify=identify, organization_of=region.groups.get))
    lost.hold, up.hold = make_id(lost.a), hold(region.send, up)
    requests = spend_requests(lost, "m")
    for request_name in ("put override", *requests):
        path = requests[request_name][1]
        person = str(by(lost, path))
        assert outcome(ask(send, lost, request_name)) == (503, "unavailable")
        person = str(by(up, path))
        more = {"event_id": uuid4().hex} if request_name in {"settle", "record", "correct"} else {}
        if request_name == "correct":
            recorded = {"event_id": uuid4().hex}
            person = str(up.gateway)
            assert ask(send, up, "record", **recorded).status_code == 201
            person, more["corrects"] = str(up.owner), recorded["event_id"]
        answer = ask(send, up, request_name, **more)
        assert answer.status_code == DONE.get(request_name, 200), answer.get_data()
    person = str(up.owner)
    expected = (503, "unavailable") if lost is region.one else (200, None)
    assert outcome(send("GET", "/ai/prices/acme/m")) == expected
    assert put_limit(send, up.a1, None).status_code == 200
    assert send("DELETE", budget_path(up.a1)).status_code == 204
    assert outcome(put_limit(send, lost.a1, None)) == (503, "unavailable")


# -- a function of the host's --


def test_a_function_of_the_hosts_needs_the_organization_of_every_hold(region):
    """All else is as with a `Databases`."""
    send = Client(make_app(region.databases.__call__, organization_of=region.groups.get))
    for town in (region.one, region.other):
        hold(send, town)
        for request_name in OF_HOLDS:
            assert outcome(ask(send, town, request_name)) == REQUIRED
            event = {"event_id": uuid4().hex} if request_name == "settle" else {}
            query = f"?organization_id={town.a}"
            answer = ask(send, town, request_name, query=query, **event)
            assert answer.status_code == DONE.get(request_name, 200), answer.get_data()
        assert put_limit(send, town.a1, town.owner, 0).status_code == 200
        assert outcome(ask(send, town, "hold")) == (403, "budget-exceeded")
        assert send("DELETE", budget_path(town.a1), town.owner).status_code == 204
        assert outcome(send("PUT", "/ai/prices", region.one.owner, json=[])) == (
            *(409, "several-databases"),
        )


def test_a_function_of_the_hosts_is_never_asked_for_a_slot(region):
    """It would take the number for an id, of another organization."""
    asked = []
    gov = make_app(asked.append).extensions["govbudget"]
    slot = Databases.read_slot(make_id(region.other.a))
    with pytest.raises(TypeError, match="knows no slots"), gov.unit(uuid4(), organization=slot):
        pass
    assert asked == []


@pytest.mark.parametrize("give", [{}.__getitem__, {}.get], ids=["raises", "none"])
def test_a_function_that_knows_no_organization_says_what_it_should_give(region, give):
    gov = make_app(lambda of, give=give: give(of)).extensions["govbudget"]
    with pytest.raises(SettingsError, match="also of an organization that is not known"):
        gov.find_engine(region.other.a)


def test_one_database_is_as_ever_however_it_is_given(region):
    town = region.one
    one = Databases({"0-4095": town.engine})  # which are not several
    for give in (lambda: town.engine, lambda *, engine=town.engine: engine, one):
        app = make_app(give)
        assert app.extensions["govbudget"].databases is None
        hold(Client(app), town)
        assert Client(app)("GET", f"/groups/{town.a1}/ai/spend", town.owner).status_code == 200


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"engine": lambda a, b: None}, "`engine=` is a callable that needs several arguments"),
        ({"engine": Databases({"0-4095": sa.create_engine("sqlite://")})}, "`sqlite+pysqlite`"),
        ({"engine": Databases({"0-4095": "postgresql://x"})}, "`engine=` gave `str`"),
        ({"engine": lambda organization=None: None}, "can be called with and without an argument"),
        ({"engine": lambda *_: None}, "can be called with and without an argument"),
        ({"engine": AWAY, "organization_of": "a"}, "`organization_of=` can't be called with"),
        ({"engine": AWAY, "organization_of": lambda: 1}, "`organization_of=` can't be called with"),
        ({"engine": ASYNC.sync_engine}, "give an engine of `create_engine`"),
        ({"engine": Databases({"0-4095": ASYNC.sync_engine})}, "give an engine of `create_engine`"),
    ],
    ids=[
        "two arguments",
        "another kind",
        "no engine",
        "one or none",
        "any",
        "no callable",
        "no argument",
        "async",
        "several async",
    ],
)
def test_what_can_find_no_database_is_refused_at_the_start(options, sentence):
    with pytest.raises(SettingsError) as refused:
        make_app(options.pop("engine"), **options)
    assert sentence in refused.value.detail


# -- who calls is looked up where the request goes --


def test_whoever_identifies_the_caller_can_ask_where_the_request_goes(region):
    """It is an organization, the slot of a hold, or nothing; with one database always nothing."""
    asked = []

    def identify():
        asked.append(find_request_organization())

    options = {"identify": identify}
    one = Client(make_app(region.one.engine, **options))
    several = Client(make_app(region.databases, organization_of=region.groups.get, **options))
    town = region.other
    town.hold = town.open_hold = make_id(town.a)
    slot = find_slot(town.a)
    of_hold = dict.fromkeys(OF_HOLDS, slot)
    for name, (method, path, body) in spend_requests(town, "m").items():
        for send, expected in ((several, of_hold.get(name, town.a)), (one, None)):
            assert outcome(send(method, path, json=body)) == (401, "unauthenticated")
            assert asked.pop() == expected
    for path in ("/ai/prices/acme/m", budget_path(uuid4()), budget_path("x"), list_path("x")):
        assert outcome(several("GET", path)) == (401, "unauthenticated")
        assert asked.pop() is None


def test_with_one_database_no_body_is_received_before_the_caller_is_known(region):
    received = []

    class Stream(io.BytesIO):
        def readinto(self, buffer):
            received.append("a part")
            return super().readinto(buffer)

        def read(self, *size):
            received.append("a part")
            return super().read(*size)

    options = {"input_stream": Stream(b"{}"), "content_type": "application/json"}
    options["content_length"] = 2
    for engine, expected in ((region.one.engine, []), (region.databases, ["a part"])):
        send = Client(make_app(engine, identify=lambda: None))
        assert outcome(send("POST", "/ai/usage", **options)) == (401, "unauthenticated")
        assert received[:1] == expected


# -- in Python --


def test_hold_goes_to_the_database_of_its_call(region):
    for town in (region.one, region.other):
        call = Call(town.a, town.member, "acme", "m")
        with region.gov.hold(town.gateway, call, Tokens(input=2)) as held:
            held.extend(60)
            usage = held.settle(Tokens(input=1))
        assert usage.event_id in str(read_all(town.engine)["ai_usage"])
        put_limit(region.send, town.a1, town.owner, 0)
        with pytest.raises(BudgetExceeded), region.gov.hold(town.gateway, call, Tokens(input=1)):
            pass
        assert region.send("DELETE", budget_path(town.a1), town.owner).status_code == 204
    as_text = Call(str(town.a).upper(), str(town.member), "acme", "m")
    with region.gov.hold(town.gateway, as_text, Tokens(input=1)) as held:
        assert read_slot(held.hold.id) == find_slot(town.a)
        held.release()


def test_a_unit_works_on_the_database_of_its_organization(region):
    gov, town = region.gov, region.other
    with gov.unit(town.owner, organization=town.a) as unit:
        gov.budgets.set(unit.authorize("update", group=town.a1), limit_micros=7)
        assert gov.budgets.get(unit.authorize("read", group=town.a1)).spend_limit_micros == 7
        gov.budgets.delete(unit.authorize("update", group=town.a1))
    with gov.unit(town.owner) as unit, pytest.raises(NotFound):
        unit.authorize("read", group=town.a1)
    its_id = hold(region.send, town)
    with gov.unit(town.gateway, organization=read_slot(its_id)) as unit:
        assert gov.spend.find_hold(unit.authorize("create", ledger=True), its_id).id == its_id
    with gov.unit(region.one.gateway) as unit, pytest.raises(NotFound):
        gov.spend.find_hold(unit.authorize("create", ledger=True), its_id)


def test_a_hosts_test_does_everything_in_the_sites_database_and_rolls_back(region):
    ran = plugin.govbudget.__wrapped__(region.app)
    setup = next(ran)
    before = read_all(region.one.engine), read_all(region.other.engine)
    member, gateway = uuid4(), uuid4()
    group = setup.add_group(member, organization=region.other.a)
    setup.add_role(gateway, "gateway")
    region.groups[group.id] = group.organization_id
    call = Call(group.organization_id, member, "acme", "m")
    with region.gov.hold(gateway, call, Tokens(input=1)) as held:
        path = f"/ai/holds/{held.hold.id}"
        assert region.send("GET", path, gateway).status_code == 200
        held.settle(Tokens(input=1))
    assert region.send("GET", f"/groups/{group.id}/ai/spend", member).status_code == 200
    assert next(ran, None) is None
    assert (read_all(region.one.engine), read_all(region.other.engine)) == before


# -- other types of ids --


@pytest.mark.parametrize(
    ("id_type", "organizations"),
    [(IdType.BIGINT, (7, 8)), (IdType.TEXT, ("one", "\u00fcn\u00efcode / other"))],
)
def test_ids_of_another_type_lead_to_their_database(make_database, id_type, organizations):
    towns = []
    for number, organization in enumerate(organizations):
        ids = [id_type.parse(str(i)) for i in (1, 2, 10 + number)]
        engine, town = settle(
            make_database, id_type, organization, owner=ids[0], member=ids[1], groups=ids[2:]
        )
        towns.append((engine, town))
        with engine.begin() as connection:
            price = {"provider": "acme", "model": "m", "input_price": 10**12}
            connection.execute(sa.insert(town.tables.ai_model_prices), price)
    databases = place([e for e, _ in towns], *([town.organization] for _, town in towns))
    app = make_app(databases, {"GOVBUDGET_ID_TYPE": id_type}, policy=packaged_policy())
    send = Client(app)
    for engine, town in towns:
        call = {"organization_id": town.organization, "user_id": town.member}
        call |= {"provider": "acme", "model": "m", "tokens": {"input": 1}}
        held = send("POST", "/ai/holds", town.member, json=call)
        assert held.status_code == 201, held.get_data()
        path, own = f"/ai/holds/{held.json['hold_id']}", str(uuid4())
        more = {"organization_id": town.organization, "event_id": "e", "tokens": {"input": 1}}
        assert send("POST", f"{path}/settle", town.member, json=more).status_code == 200
        query = {"organization_id": town.organization}
        assert send("GET", path, town.member).json["state"] == "settled"
        assert send("GET", path, town.member, query_string=query).status_code == 200
        call["hold_id"] = own
        assert send("POST", "/ai/holds", town.member, json=call).status_code == 201
        assert outcome(send("DELETE", f"/ai/holds/{own}", town.member)) == REQUIRED
        gone = send("DELETE", f"/ai/holds/{own}", town.member, query_string=query)
        assert gone.status_code == 204
        with engine.connect() as connection:
            found = sa.select(town.tables.ai_usage.c.organization_id)
            assert connection.scalars(found).all() == [town.organization]
        engine.dispose()
