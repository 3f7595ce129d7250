"""The decision, beside five other engines and a plain look-up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.measure import Row, Spread, measure_alone, measure_pairs, say
from benchmarks.peers import Ask, Question, hold, list_questions, make_peers
from govbudget import Forbidden, NotFound, Policy
from govbudget.authz.authorize import authorize
from govbudget.authz.effective import find_effective_roles
from govbudget.identity import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.measure import Effort

# peer -> how many times faster `decide` has to be
TARGETS = {"pycasbin": 90, "cedarpy": 40, "vakt": 5}
MICROSECONDS = 1e6


def measure_decide(effort: Effort) -> Iterator[Row]:
    """`Policy.decide` over every cell of the shipped policy, and the same questions to peers."""
    policy = Policy.load()
    questions = list_questions(policy)
    decide, asked = _make_deck(_prepare_decide(policy), questions)
    times = measure_alone(decide, effort, operations=asked)
    value = _spread(times)
    yield Row(
        "decide", "a decision", "govbudget: decide", value, "us",
        target="<= 1 us", met=value.median <= 1,
    )  # fmt: skip
    authorize, granted = _make_authorize(policy, questions, allowed=True)
    yield from _measure_authorize(policy, questions, effort)
    for name, prepare in make_peers(policy):
        if prepare is None:
            yield Row("decide", "a decision", name, target="MISSING: it is not installed here")
            continue
        say(f"decide: {name}")
        _require_agreement(policy, name, prepare)
        theirs, _ = _make_deck(prepare, questions)
        pairs = measure_pairs(decide, theirs, effort, operations=asked)
        factor = TARGETS.get(name.split(" ")[0])
        ratio = pairs.theirs_to_ours
        yield Row(
            "decide", "a decision", name, _spread(pairs.theirs), "us", ratio, "it / decide",
            f">= {factor}" if factor else "", ratio.median >= factor if factor else None,
        )  # fmt: skip
        theirs, _ = _make_deck(prepare, granted)
        pairs = measure_pairs(authorize, theirs, effort, operations=len(granted))
        yield Row(
            "decide", "an allowed decision", name, _spread(pairs.theirs), "us",
            pairs.theirs_to_ours, "it / authorize",
        )  # fmt: skip


def _measure_authorize(
    policy: Policy, questions: Sequence[Question], effort: Effort
) -> Iterator[Row]:
    for allowed, what in ((True, "an allowed one"), (False, "a refusal")):
        authorize, some = _make_authorize(policy, questions, allowed=allowed)
        value = _spread(measure_alone(authorize, effort, operations=len(some)))
        yield Row(
            "decide", what, "govbudget: authorize", value, "us",
            target="<= 2 us" if allowed else "", met=value.median <= 2 if allowed else None,  # noqa: PLR2004
        )  # fmt: skip


def _prepare_decide(policy: Policy) -> Callable[[Question], Ask]:
    def prepare(q: Question) -> Ask:
        roles = frozenset(find_effective_roles(hold(q), EXAMPLES[q.object], policy.table.scopes))
        obj, action = str(q.object), str(q.action)
        return lambda: policy.decide(roles, obj, action).allowed

    return prepare


def _make_authorize(
    policy: Policy, questions: Sequence[Question], *, allowed: bool
) -> tuple[Callable[[], None], list[Question]]:
    """Give what authorizes every question with that answer once, and those questions."""
    some = [
        q
        for q in questions
        # A group is asked about as what budgets are judged as here, and as nothing else.
        if policy.table.asked_as(EXAMPLES[q.object].type) is q.object
        and policy.decide((q.role,), q.object, q.action).allowed is allowed
    ]
    cases = [(hold(q), str(q.action), EXAMPLES[q.object]) for q in some]

    def grant() -> None:
        for subject, action, obj in cases:
            authorize(policy.table, subject, action, obj)

    def refuse() -> None:
        for subject, action, obj in cases:
            try:
                authorize(policy.table, subject, action, obj)
            except (Forbidden, NotFound):
                continue
            raise AssertionError

    return (grant if allowed else refuse), some


def _make_deck(
    prepare: Callable[[Question], Ask], questions: Sequence[Question]
) -> tuple[Callable[[], None], int]:
    """Give what asks every question once, and how many those are."""
    asks = [prepare(q) for q in questions]

    def ask_all() -> None:
        for ask in asks:
            ask()

    return ask_all, len(asks)


def _require_agreement(policy: Policy, name: str, prepare: Callable[[Question], Ask]) -> None:
    """Make sure that the peer answers as govbudget does, for roles held here and elsewhere."""
    ours = _prepare_decide(policy)
    for elsewhere in (False, True):
        for q in list_questions(policy, elsewhere=elsewhere):
            expected, answer = ours(q)(), prepare(q)()
            assert answer is expected, f"{name} says {answer}, govbudget {expected}: {q}"


def _spread(seconds: Sequence[float]) -> Spread:
    return Spread.of([s * MICROSECONDS for s in seconds])
