"""The shipped policy in the words of other engines, each asked through what its users import.

Every peer gets its policy and its people parsed beforehand, and each question in the form that its
call takes, so that what is timed is the decision alone.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from govbudget import Policy, Scope, Subject
from govbudget.authz.evaluator import NOWHERE
from govbudget.authz.files import packaged_policy_dir
from govbudget.identity import EXAMPLES, SITE, Action, Assignment, Domain, Object, ObjectType

if TYPE_CHECKING:
    from collections.abc import Iterator

Ask = Callable[[], bool]

HERE = {
    Scope.SITE: SITE,
    Scope.ORGANIZATION: Domain(Scope.ORGANIZATION, "o"),
    Scope.GROUP: Domain(Scope.GROUP, "g"),
    Scope.USER: Domain(Scope.USER, "u"),
}
# Another organization, group and user; a site role held there is held at a wrong scope.
ELSEWHERE = {
    Scope.SITE: Domain(Scope.ORGANIZATION, "o"),
    Scope.ORGANIZATION: Domain(Scope.ORGANIZATION, "o2"),
    Scope.GROUP: Domain(Scope.GROUP, "g2"),
    Scope.USER: Domain(Scope.USER, "u2"),
}


@dataclass(frozen=True, slots=True)
class Question:
    """May somebody who holds this role in this domain do that to the example of this object?"""

    user: str
    role: str
    domain: Domain
    object: ObjectType
    action: Action

    def own_domain(self, scope: Scope) -> str:
        """Give the object's domain of that scope as text; `nowhere` where it lacks one."""
        return str(EXAMPLES[self.object].domain(scope) or NOWHERE)


def list_questions(policy: Policy, *, elsewhere: bool = False) -> list[Question]:
    """Give every cell of the policy: each role here, or held elsewhere, each object and action."""
    domains = ELSEWHERE if elsewhere else HERE
    return [
        Question(f"{role}{'@elsewhere' if elsewhere else ''}", role, domains[scope], obj, action)
        for role, scope in policy.table.scopes.items()
        for obj in ObjectType
        for action in Action
    ]


class MissingPeerError(Exception):
    """The peer can't be imported here."""


def make_peers(policy: Policy) -> Iterator[tuple[str, Callable[[Question], Ask] | None]]:
    """Give each peer's name and version with what prepares a question, or None where it lacks."""
    makers = {
        "pycasbin": _make_pycasbin,
        "cedarpy": _make_cedarpy,
        "oso": _make_oso,
        "vakt": _make_vakt,
        "regopy": _make_regopy,
    }
    for name, make in makers.items():
        try:
            importlib.import_module("casbin" if name == "pycasbin" else name)
        except ImportError:
            yield name, None
        else:
            yield f"{name} {metadata.version(name)}", make(policy)
    yield "a dict look-up", _make_look_up(policy)


def _everyone(policy: Policy) -> list[Question]:
    """Give one question a person: everybody who is asked about, here and elsewhere."""
    return [
        next(q for q in questions if q.role == role)
        for questions in (list_questions(policy), list_questions(policy, elsewhere=True))
        for role in policy.table.scopes
    ]


def _make_look_up(policy: Policy) -> Callable[[Question], Ask]:
    """The floor: answers worked out beforehand, for people whose standing is known."""
    answers = {
        (q.role, q.domain, q.object, q.action): policy.decide(
            (q.role,) if q.domain == HERE[policy.table.scopes[q.role]] else (), q.object, q.action
        ).allowed
        for elsewhere in (False, True)
        for q in list_questions(policy, elsewhere=elsewhere)
    }

    def prepare(q: Question) -> Ask:
        key = (q.role, q.domain, q.object, q.action)
        return lambda: answers[key]

    return prepare


def _make_pycasbin(policy: Policy) -> Callable[[Question], Ask]:
    """The shipped model and lines, and a `g` line with a domain for every person."""
    import casbin  # noqa: PLC0415 - a peer

    folder = packaged_policy_dir()
    enforcer = casbin.Enforcer(str(folder / "model.conf"), str(folder / "policy.csv"))
    for q in _everyone(policy):
        enforcer.add_named_grouping_policy("g", q.user, q.role, str(q.domain))

    def prepare(q: Question) -> Ask:
        request = (
            q.user,
            q.own_domain(Scope.ORGANIZATION),
            q.own_domain(Scope.GROUP),
            q.own_domain(Scope.USER),
            str(q.object),
            str(q.action),
        )
        return lambda: bool(enforcer.enforce(*request))

    return prepare


def _make_cedarpy(policy: Policy) -> Callable[[Question], Ask]:
    """Roles are groups of people, named by the resource or its parent; all of it parsed handles."""
    import cedarpy  # noqa: PLC0415 - a peer

    text = "\n".join(
        f'permit(principal, action == Action::"{line.action}", resource is {_camel(line.object)}) '
        f"when {{ resource has {line.scope} && principal in "
        f'resource.{line.scope}["{line.role}"] }};'
        for line in policy.table.lines
    )
    scopes = policy.table.scopes

    def role(name: str, domain: Domain) -> dict[str, dict[str, str]]:
        return {"__entity": {"type": "Role", "id": f"{name}@{domain}"}}

    def attributes(obj: Object) -> dict[str, dict[str, object]]:
        found: dict[str, dict[str, object]] = {}
        for name, scope in scopes.items():
            domain = obj.domain(scope)
            if domain is not None:
                found.setdefault(str(scope), {})[name] = role(name, domain)
        return found

    people = [
        {
            "uid": {"type": "User", "id": q.user},
            "attrs": {},
            "parents": [{"type": "Role", "id": f"{q.role}@{q.domain}"}],
        }
        for q in _everyone(policy)
    ]
    things = [
        {"uid": {"type": _camel(kind), "id": "it"}, "attrs": attributes(obj), "parents": []}
        for kind, obj in EXAMPLES.items()
    ]
    policies = cedarpy.PolicySet.from_str(text)
    entities = cedarpy.Entities.from_json_str(json.dumps([*people, *things]))

    def prepare(q: Question) -> Ask:
        request = {
            "principal": f'User::"{q.user}"',
            "action": f'Action::"{q.action}"',
            "resource": f'{_camel(q.object)}::"it"',
            "context": {},
        }
        return lambda: bool(cedarpy.is_authorized(request, policies, entities).allowed)

    return prepare


def _camel(kind: ObjectType) -> str:
    return "".join(word.capitalize() for word in kind.split("_"))


@dataclass(frozen=True, slots=True)
class _Held:
    role: str
    domain: str


@dataclass(frozen=True, slots=True)
class _User:
    held: list[_Held]


@dataclass(frozen=True, slots=True)
class _Thing:
    kind: str
    site: str
    organization: str
    group: str
    user: str


_POLAR = """
allow(user: User, action: String, thing: Thing) if
    held in user.held and
    line(held.role, scope, thing.kind, action) and
    own(thing, scope, held.domain);

own(thing: Thing, "site", thing.site);
own(thing: Thing, "organization", thing.organization);
own(thing: Thing, "group", thing.group);
own(thing: Thing, "user", thing.user);
"""


def _make_oso(policy: Policy) -> Callable[[Question], Ask]:
    """A fact a line and one rule: quicker than a rule a line, which calls Python much more."""
    import oso  # noqa: PLC0415 - a peer

    engine = oso.Oso()
    engine.register_class(_User, name="User")
    engine.register_class(_Thing, name="Thing")
    facts = [
        f'line("{line.role}", "{line.scope}", "{line.object}", "{line.action}");'
        for line in policy.table.lines
    ]
    engine.load_str("\n".join([*facts, _POLAR]))

    def prepare(q: Question) -> Ask:
        user = _User([_Held(q.role, str(q.domain))])
        thing = _Thing(str(q.object), *(q.own_domain(scope) for scope in Scope))
        action = str(q.action)
        return lambda: bool(engine.is_allowed(user, action, thing))

    return prepare


def _make_vakt(policy: Policy) -> Callable[[Question], Ask]:
    """One policy a line; the role's domain must be the resource's at the line's scope."""
    import vakt  # noqa: PLC0415 - a peer
    from vakt.rules import Eq, SubjectMatch  # noqa: PLC0415 - a peer

    storage = vakt.MemoryStorage()
    for line in policy.table.lines:
        storage.add(
            vakt.Policy(
                line.number,
                actions=[Eq(str(line.action))],
                resources=[{"kind": Eq(str(line.object)), str(line.scope): SubjectMatch("domain")}],
                subjects=[{"role": Eq(line.role), "domain": vakt.rules.Any()}],
                effect=vakt.ALLOW_ACCESS,
            )
        )
    guard = vakt.Guard(storage, vakt.RulesChecker())

    def prepare(q: Question) -> Ask:
        inquiry = vakt.Inquiry(
            subject={"role": q.role, "domain": str(q.domain)},
            action=str(q.action),
            resource={
                "kind": str(q.object),
                **{str(scope): q.own_domain(scope) for scope in Scope},
            },
        )
        return lambda: bool(guard.is_allowed(inquiry))

    return prepare


_REGO = """
package budgets

default allow := false

allow if {
    some line in data.lines
    line.object == input.object
    line.action == input.action
    some held in input.held
    held.role == line.role
    held.domain == input.domains[line.scope]
}
"""


def _make_regopy(policy: Policy) -> Callable[[Question], Ask]:
    """The lines as data and one rule, built once; each question is an input."""
    import regopy  # noqa: PLC0415 - a peer

    engine = regopy.Interpreter()
    engine.add_module("budgets", _REGO)
    lines = [
        {
            "role": line.role,
            "scope": str(line.scope),
            "object": str(line.object),
            "action": str(line.action),
        }
        for line in policy.table.lines
    ]
    engine.add_data({"lines": lines})
    bundle = engine.build("x := data.budgets.allow", [])

    def prepare(q: Question) -> Ask:
        asked = regopy.Input(
            {
                "object": str(q.object),
                "action": str(q.action),
                "held": [{"role": q.role, "domain": str(q.domain)}],
                "domains": {str(scope): q.own_domain(scope) for scope in Scope},
            }
        )

        def ask() -> bool:
            engine.set_input(asked)
            return bool(engine.query_bundle(bundle).results[0]["x"])

        return ask

    return prepare


def hold(q: Question) -> Subject:
    """Give govbudget's subject of a question; what is held toward oneself is nobody's to assign."""
    if q.domain.scope is Scope.USER:
        return Subject(q.domain.id or q.user)
    return Subject(q.user, (Assignment(q.role, q.domain),))
