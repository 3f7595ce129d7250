"""A unit of work: one caller on one connection; and the grant, the only hand that runs SQL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, NoReturn, final, overload
from uuid import uuid4

from govbudget.authz.authorize import Allowed, ObjectT, authorize, reach_members
from govbudget.authz.effective import find_operator
from govbudget.db.governed import GROUPS, Governed
from govbudget.errors import Forbidden, GrantRefused, NotFound
from govbudget.identity import OF_THE_SITE, OPERATOR, Action, Cause, Operator, Organization, Subject

if TYPE_CHECKING:
    from sqlalchemy import Connection, Transaction

    from govbudget.authz.table import DecisionTable
    from govbudget.db.gov import Gov
    from govbudget.identity import Group, Id, Ledger, Member, PolicyRules, PriceBook


_ONE_OBJECT = (
    "name one object: group=, organization=, member=, prices=True, ledger=True or policy=True"
)


def _list_open(connection: Connection) -> tuple[Transaction, ...]:
    """Give the savepoint that the connection is in and those around it, or else its transaction.

    A savepoint goes with each one around it, which SQLAlchemy does not say of it; it does say so
    where the transaction ends. The load has begun one, unless nothing had to be loaded.
    """
    around: list[Transaction] = []
    savepoint = connection.get_nested_transaction()
    while savepoint is not None:
        around.append(savepoint)
        savepoint = savepoint._previous_nested  # noqa: SLF001 - the one around it
    return tuple(around) or (connection.get_transaction() or connection.begin(),)


class Report(NamedTuple):
    """What a unit of work has done: the name of a signal, and its facts."""

    signal: str
    facts: dict[str, Any]


@final
class Grant(Generic[ObjectT]):
    """The right to do one action to one object, and the only hand that runs governed SQL.

    Made by `Unit.authorize`. It ends with its unit, and with the transaction or savepoint that it
    was loaded in. It guards against forgetting, not against hostile code in the same process.
    """

    __slots__ = ("_loaded_in", "allowed", "object", "unit")

    def __init__(self, unit: Unit, allowed: Allowed[ObjectT]) -> None:
        self.unit, self.allowed = unit, allowed
        self.object = allowed.object
        # INVARIANT: a grant ends with the transaction or savepoint that it was loaded in
        self._loaded_in = _list_open(unit.connection)

    def __init_subclass__(cls) -> NoReturn:
        """Refuse subclasses."""
        raise TypeError("a grant can't be subclassed")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError("a grant can't be copied or pickled; authorize again where it is needed")

    def run(self, governed: Governed[ObjectT], **values: object) -> Any:  # noqa: ANN401 - rows, as of `Gov.execute`
        """Run a statement that needs this right, on the object's own keys.

        `:now` is the time that is passed, else what the installation's clock says.

        Raises GrantRefused where it needs another right, where the unit, transaction or savepoint
        has ended, or where a value has the name of what the grant binds; Forbidden where the
        statement works on what the caller reaches, and that is nothing. Sends no SQL then.
        """
        unit, allowed = self.unit, self.allowed
        # INVARIANT: a grant runs the statements that need its own right and no other
        if governed.action is not allowed.action or governed.kind is not type(self.object):
            raise GrantRefused(
                f"`{governed.name}` needs a grant to {governed.action} a "
                f"{governed.kind.__name__}; this one is to {allowed.action} `{self.object}`"
            )
        if not (unit.is_open and all(around.is_active for around in self._loaded_in)):
            raise GrantRefused(
                "the unit, transaction or savepoint of the grant has ended; authorize again"
            )
        bound: dict[str, Any] = self.object.keys
        elsewhere = True
        if governed.reach is not None:
            reach = allowed.reach
            if governed.reach is not GROUPS or reach is None:
                reach = reach_members(unit.table, allowed)
            elsewhere = reach.elsewhere
            bound["allowed_elsewhere"], bound["exceptions"] = elsewhere, list(reach.exceptions)
        if governed.is_audited:
            bound["receipt"] = self._write_receipt()
        # INVARIANT: a value that is passed never replaces a key of the grant's object
        if not values.keys().isdisjoint(bound):
            raise GrantRefused(f"`{governed.name}` takes {', '.join(bound)} from its grant alone")
        statement = unit.gov.find(governed, elsewhere, values.get(governed.past[0]) is None)
        values["now"] = values.get("now") or unit.gov.clock()
        return unit.connection.execute(statement, {**values, **bound})

    def report(self, signal: str, **facts: object) -> None:
        """Report that a statement has done something: announced once it is committed by us."""
        who = {"subject": self.allowed.subject, "request_id": self.unit.request_id}
        self.unit.reports.append(Report(signal, {**who, **facts}))

    def _write_receipt(self) -> dict[str, Any]:
        """Write down who changes something and why: what the audit trail keeps."""
        unit, allowed = self.unit, self.allowed
        organization = self.object.keys.get("organization_id")
        cause = Cause.CALL if unit.request_id is None else Cause.REQUEST
        return {
            "id": str(uuid4()),
            "organization_id": None if organization is None else str(organization),
            "actor": str(unit.caller),
            "roles": list(allowed.roles),
            "lines": list(allowed.lines),
            "policy_digest": allowed.policy_digest,
            "request_id": unit.request_id,
            "cause": Cause.COMMAND if unit.caller is OPERATOR else cause,
        }


@final
@dataclass(slots=True, eq=False, repr=False)
class Unit:
    """One caller on one connection, under the table in force when it was opened."""

    gov: Gov
    caller: Id | Operator
    connection: Connection
    request_id: str | None
    # Else a host's transaction may span it.
    owns_connection: bool = field(default=False, kw_only=True)
    # Of what it has done.
    reports: list[Report] = field(init=False, default_factory=list)
    is_open: bool = field(init=False, default=True)
    table: DecisionTable = field(init=False)

    def __post_init__(self) -> None:
        """Accept the caller and the connection; take the table in force."""
        self.gov.check_schemas(self.connection)
        # INVARIANT: no caller is never the operator
        if not isinstance(self.caller, Operator):
            self.caller = self.gov.settings.id_type.accept(self.caller)
        self.table = self.gov.policy.table

    @overload
    def authorize(self, action: str, *, group: Id) -> Grant[Group]: ...
    @overload
    def authorize(self, action: str, *, organization: Id) -> Grant[Organization]: ...
    @overload
    def authorize(self, action: str, *, member: tuple[Id, Id]) -> Grant[Member]: ...
    @overload
    def authorize(self, action: str, *, prices: Literal[True]) -> Grant[PriceBook]: ...
    @overload
    def authorize(self, action: str, *, ledger: Literal[True]) -> Grant[Ledger]: ...
    @overload
    def authorize(self, action: str, *, policy: Literal[True]) -> Grant[PolicyRules]: ...
    def authorize(self, action: str, **asked: Any) -> Grant[Any]:
        """Load the caller toward the object, ask the table, and give a grant. One statement.

        The object is a `group`, an `organization`, a `member` (an organization and a user), the
        `prices`, the `ledger` or the `policy`. An organization that is gone is there for an
        operator, with its audit trail and its spend.

        Raises Forbidden or NotFound (see `authz.authorize`), GrantRefused where the unit has ended,
        ValueError for an unknown action, TypeError for no object, several, or what is not an id of
        the type of ids or its text. Never commits.
        """
        if not self.is_open:
            raise GrantRefused("the unit has ended; open another")
        if len(asked) != 1:
            raise TypeError(_ONE_OBJECT)
        ((noun, key),) = asked.items()
        accept = self.gov.settings.id_type.accept
        if noun in {"group", "organization"}:
            key = accept(key)
        elif noun == "member":
            key = tuple(map(accept, key))
        caller = None if isinstance(self.caller, Operator) else self.caller
        subject, obj = self._load(noun, key, caller)
        if caller is None:
            subject = find_operator(self.table.scopes)
            obj = Organization(key) if noun == "organization" else obj
        if obj is None:
            raise NotFound(noun)
        try:
            return Grant(self, authorize(self.table, subject, action, obj))
        except NotFound as refusal:
            if caller is None:  # nothing is hidden from an operator
                raise Forbidden(Action(action), (), refusal.would_allow) from None
            raise

    def knows(self, organization: Id) -> bool:
        """Whether the directory has the organization. One statement."""
        return (
            self.gov.directory.load_organization(self.connection, None, organization)[1] is not None
        )

    def _load(self, noun: str, key: Any, caller: Id | None) -> tuple[Subject, Any]:  # noqa: ANN401 - an id, or two
        """Send the one statement that precedes the decision."""
        directory, connection = self.gov.directory, self.connection
        if noun == "group":
            return directory.load_group(connection, caller, key)
        if noun == "organization":
            return directory.load_organization(connection, caller, key)
        if noun == "member":
            return directory.load_member(connection, caller, *key)
        if noun not in OF_THE_SITE or key is not True:
            raise TypeError(_ONE_OBJECT)
        subject = Subject(None) if caller is None else directory.load_subject(connection, caller)
        return subject, OF_THE_SITE[noun]
