"""A grant runs the statements that need its own right, on its own object, here and now."""

from __future__ import annotations

import copy
import pickle
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, scoped_session
from tests.support import World, authorize, count_statements, make_gov

from govbudget import Forbidden, GrantRefused, NotFound
from govbudget.db.unit import Grant, Unit
from govbudget.identity import OPERATOR, Action, Group, Ledger, Member, Organization, PriceBook
from govbudget.statements import list_governed

GOVERNED = list_governed()
GOV = make_gov()
NO_ID = r"expected an id|is not an id"
RIGHTS = {}  # the statements of each right
for governed in GOVERNED.values():
    RIGHTS.setdefault((governed.action, governed.kind), []).append(governed)
EACH_RIGHT = pytest.mark.parametrize("right", sorted(RIGHTS, key=str), ids=str)
EACH = pytest.mark.parametrize("statement", GOVERNED.values(), ids=GOVERNED)


def test_a_unit_takes_a_connection_and_no_session_or_engine(engine):
    session = Session(engine)
    for given in (session, scoped_session(lambda: session), engine):
        message = "`connection=` is a `.*`; give a Connection"
        with pytest.raises(TypeError, match=message), GOV.unit(uuid4(), connection=given):
            pytest.fail("the block was entered")


@pytest.fixture(scope="module")
def world(engine):
    """One for all: what a test does is rolled back."""
    return World(engine)


@pytest.fixture
def connection(engine):
    """Give a transaction; it is rolled back."""
    with engine.connect() as connection:
        yield connection


def name_object(world, kind):
    """Name an object of a kind, as `Unit.authorize` takes it."""
    return {
        Group: {"group": world.a1},
        Organization: {"organization": world.a},
        Member: {"member": (world.a, world.member)},
        PriceBook: {"prices": True},
        Ledger: {"ledger": True},
    }[kind]


def name_caller(world, right):
    """Give somebody who has the right."""
    return world.gateway if right == (Action.CREATE, Ledger) else world.owner


def find_grant(world, connection, right):
    """Give the grant of a right."""
    action, kind = right
    return authorize(connection, name_caller(world, right), action, **name_object(world, kind))


def find_right(world, connection, statement):
    """Give the grant that a statement needs."""
    return find_grant(world, connection, (statement.action, statement.kind))


def run(grant, statement):
    """Run a statement with nothing for all that its grant does not bind."""
    names = grant.unit.gov.find(statement, True, True).compile().params.keys()
    bound = {*grant.object.keys, "allowed_elsewhere", "exceptions", "receipt"}
    return grant.run(statement, **dict.fromkeys(names - bound))


def refuse(engine, grant, statement, **values):
    """Make sure that the statement is refused and that nothing is sent; give the reason."""
    with count_statements(engine) as sent, pytest.raises(GrantRefused) as caught:
        grant.run(statement, **values)
    assert sent == []
    return caught.value.detail


def refuse_all(engine, grant, right):
    """Make sure that none of the right's statements runs: the grant has ended."""
    for statement in RIGHTS[right]:
        assert "has ended" in refuse(engine, grant, statement), statement.name


@EACH
def test_a_statement_runs_by_the_grant_that_it_needs_alone(world, engine, connection, statement):
    """One statement goes out; whether these values make sense to it is the store's affair."""
    grant = find_right(world, connection, statement)
    with count_statements(engine) as sent:
        try:
            run(grant, statement)
        except sa.exc.DBAPIError as error:
            assert error.orig.sqlstate[:2] in {"22", "23"}, error  # noqa: PT017 - data, not SQL
    assert len(sent) == 1


@EACH_RIGHT
def test_a_grant_runs_the_statements_that_need_its_own_right_and_no_other(
    world, engine, connection, right
):
    grant = find_grant(world, connection, right)
    for statement in GOVERNED.values():
        if (statement.action, statement.kind) != right:
            reason = refuse(engine, grant, statement)
            needed = f"needs a grant to {statement.action} a {statement.kind.__name__}"
            assert needed in reason, statement.name


@EACH
def test_a_value_that_is_passed_never_replaces_a_key_of_the_grants_object(
    world, engine, connection, statement
):
    grant = find_right(world, connection, statement)
    names = [*grant.object.keys]
    if statement.reach is not None:
        names += ["allowed_elsewhere", "exceptions"]
    if statement.is_audited:
        names.append("receipt")
    for name in names:
        assert "from its grant alone" in refuse(engine, grant, statement, **{name: world.b})


@EACH_RIGHT
def test_a_grant_ends_with_its_unit(world, engine, connection, right):
    asked = name_caller(world, right), right[0], name_object(world, right[1])
    with GOV.unit(asked[0], connection=connection) as unit:
        grant = unit.authorize(asked[1], **asked[2])
    refuse_all(engine, grant, right)
    with GOV.unit(asked[0], connection=connection) as other:
        other.authorize(asked[1], **asked[2])
        refuse_all(engine, grant, right)


@EACH_RIGHT
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_grant_ends_with_its_transaction(world, engine, connection, right, end):
    grant = find_grant(world, connection, right)
    getattr(connection, end)()
    refuse_all(engine, grant, right)
    connection.execute(sa.text("SELECT 1"))
    refuse_all(engine, grant, right)


@EACH_RIGHT
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_grant_ends_with_the_transaction_or_savepoint_that_it_was_loaded_in(
    world, engine, connection, right, end
):
    connection.execute(sa.text("SELECT 1"))
    savepoint = connection.begin_nested()
    grant = find_grant(world, connection, right)
    getattr(savepoint, end)()
    refuse_all(engine, grant, right)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_grant_ends_with_a_savepoint_around_the_one_that_it_was_loaded_in(
    world, engine, connection, end
):
    """A role that was given in it is taken back with it."""
    connection.execute(sa.text("SELECT 1"))
    outer = connection.begin_nested()
    world.assign(connection, "nobody", "owner", None)
    connection.begin_nested()
    connection.begin_nested()
    grant = authorize(connection, world.nobody, "read", group=world.a1)
    run(grant, GOVERNED["budgets.get"])
    with pytest.warns(sa.exc.SAWarning, match="already deassociated"):
        getattr(outer, end)()
    assert "has ended" in refuse(engine, grant, GOVERNED["budgets.get"])


def test_a_grant_works_inside_a_savepoint_of_its_transaction(world, connection):
    statement = GOVERNED["budgets.get"]
    grant = find_right(world, connection, statement)
    with connection.begin_nested():
        assert run(grant, statement).one()
    with connection.begin_nested() as savepoint:
        savepoint.rollback()
    assert run(grant, statement).one()


def test_in_autocommit_a_grant_ends_with_its_unit(world, engine):
    """A right that was lost meanwhile is not used twice."""
    gov = make_gov(engine=engine)
    with gov.unit(world.owner) as unit:
        grant = unit.authorize("read", group=world.a1)
        run(grant, GOVERNED["budgets.get"])
    refuse(engine, grant, GOVERNED["budgets.get"])


def test_a_unit_that_ended_authorizes_nothing(world, engine, connection):
    with make_gov().unit(world.owner, connection=connection) as unit:
        pass
    with count_statements(engine) as sent, pytest.raises(GrantRefused, match="has ended"):
        unit.authorize("read", group=world.a1)
    assert sent == []


def test_a_unit_keeps_the_table_that_was_in_force_when_it_was_opened(world, connection):
    gov = make_gov()
    with gov.unit(world.owner, connection=connection) as unit:
        before, gov.policy = gov.policy, None
        assert unit.authorize("read", group=world.a1).allowed.policy_digest == before.digest


def test_a_grant_is_not_copied_pickled_or_subclassed(world, connection):
    grant = authorize(connection, world.owner, "read", group=world.a1)
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="copied or pickled"):
            duplicate(grant)
    with pytest.raises(TypeError, match="subclassed"):
        type("Forged", (Grant,), {})


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"group": 1, "organization": 2},
        {"prices": True, "group": 1},
        {"prices": False},
        {"ledger": None},
        {"team": 1},
    ],
)
def test_one_object_is_named_at_a_time(world, engine, connection, asked):
    with count_statements(engine) as sent, pytest.raises(TypeError, match="name one object"):
        Unit(make_gov(), world.owner, connection, None).authorize("read", **asked)
    assert sent == []


@pytest.mark.parametrize("caller", [None, "", 0, False, "operator", ()])
def test_no_caller_is_never_the_operator(engine, connection, caller):
    """A host whose `current_user.id` is None has nobody signed in."""
    gov = make_gov(engine=engine)
    with count_statements(engine) as sent:
        for given in (None, connection):
            with pytest.raises(TypeError, match=NO_ID):
                gov.unit(caller, connection=given).__enter__()
        with pytest.raises(TypeError, match=NO_ID):
            gov.run(caller, lambda unit: unit)
    assert sent == []


def test_a_caller_may_be_the_text_of_an_id(world, connection):
    """As a session keeps it: whoever it is has the roles toward themselves, too."""
    asked = {"member": (world.a, world.joined)}
    grant = authorize(connection, str(world.joined), "read", **asked)
    assert grant.allowed.roles == ("self",)


def test_a_grant_for_which_nothing_is_loaded_begins_a_transaction_and_ends_with_it(
    engine, connection
):
    """The operator's own, to what belongs to the whole site: it sends no statement before."""
    statement = GOVERNED["spend.verify"]
    grant = authorize(connection, OPERATOR, "create", ledger=True)
    assert run(grant, statement).all()
    connection.rollback()
    assert "has ended" in refuse(engine, grant, statement)


def test_nothing_is_hidden_from_an_operator(world, connection):
    """What a command asks for is Forbidden under a policy that gives the site nothing."""
    grant = authorize(connection, OPERATOR, "update", group=world.a1)
    assert set(grant.allowed.roles) == {"owner", "gateway"}
    with pytest.raises(NotFound):
        authorize(connection, OPERATOR, "update", group=world.stranger)
    gone = authorize(connection, OPERATOR, "update", organization=world.stranger)
    assert gone.object == Organization(world.stranger)
    with pytest.raises(Forbidden):
        authorize(connection, OPERATOR, Action.CREATE, prices=True)


def test_the_text_of_an_id_is_the_id(world, engine, connection):
    """As a host's form gives it; anything else is refused before a statement."""
    grant = authorize(connection, world.org_admin, "update", group=str(world.a1).upper())
    assert grant.object == Group(world.a1, world.a)
    grant = authorize(connection, world.org_admin, "read", organization=str(world.a))
    assert grant.object == Organization(world.a)
    grant = authorize(connection, world.member, "read", member=(str(world.a), str(world.member)))
    assert grant.object == Member(world.a, world.member)
    for wrong in ({"group": None}, {"organization": 7}, {"member": (world.a, "x")}):
        with count_statements(engine) as sent, pytest.raises(TypeError, match="an id"):
            authorize(connection, world.owner, "read", **wrong)
        assert sent == []
