"""The report: who sees what of it, and one sum on every road."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import defaultdict
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from itertools import combinations
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.policy.helpers import LINES, load
from tests.spend.test_store import Spender
from tests.support import TABLES, Client, World, authorize, count_statements, make_app, make_gov

from govbudget import Call, Tokens
from govbudget.errors import Forbidden, NotFound
from govbudget.spend import report_view
from govbudget.spend.report import FIRST_DAY, LAST_DAY, Key, Question, ask, describe_line
from govbudget.spend.store import Spend

START = datetime(2026, 1, 20, 12, tzinfo=UTC)
SINCE, UNTIL = date(2026, 1, 1), date(2026, 6, 1)
CALLERS = ("owner", "org_admin", "user_admin", "member", "joined", "outsider", "gateway")
SUBSETS = [keys for size in range(len(Key) + 1) for keys in combinations(Key, size)]
LEDGER = ("day", "period", "provider", "model", "group_id", "user_id", "event_id")
VALUE = {
    Key.DAY: lambda row: str(row.day),
    Key.MONTH: lambda row: f"{row.day:%Y-%m}",
    Key.PROVIDER: lambda row: row.provider,
    Key.MODEL: lambda row: row.model,
    Key.GROUP: lambda row: row.group_id,
    Key.USER: lambda row: row.user_id,
}


class Town(World):
    """A world with months of calls, some corrected; of who left, of groups that moved and went."""

    def __init__(self, engine, seed=7):
        super().__init__(engine)
        self.dice, self.spender, self.events = random.Random(seed), Spender(self), []
        self.gone, self.moved = uuid4(), uuid4()
        self.people |= {"everyones": uuid4(), "left": uuid4()}
        self.models = [("acme", self.spender.model), ("acme", "unknown"), ("=1", "@x;\u200b=2")]
        with engine.begin() as connection:
            for name in ("everyones", "left"):
                row = {"id": getattr(self, name), "name": name}
                connection.execute(sa.insert(TABLES.users), row)
                self.join(connection, self.a, name)
            for group, person in ((self.gone, "joined"), (self.moved, "user_admin")):
                self.add_group(connection, self.a, group)
                self.join_group(connection, self.a, group, person)
            self.join_group(connection, self.a, self.a1, "org_admin")
        for group in (self.a1, self.gone, self.moved):
            self.spender.limit(group, 10**5)
        for _ in range(60):
            self.spend()
        groups, listed = TABLES.groups, TABLES.group_members
        with engine.begin() as connection:
            for table in (TABLES.ai_usage, TABLES.ai_spend_rollups):
                of_nobody = sa.update(table).where(table.c.user_id == self.left)
                connection.execute(of_nobody.values(group_id=None))
            left = TABLES.organization_members.c.user_id == self.left
            connection.execute(sa.delete(TABLES.organization_members).where(left))
            gone = [self.gone, self.moved]
            connection.execute(sa.delete(listed).where(listed.c.group_id.in_(gone)))
            connection.execute(sa.delete(groups).where(groups.c.id.in_(gone)))
            self.add_group(connection, self.b, self.moved)
            self.join_group(connection, self.b, self.moved, "outsider")
        self.ledger = self.read_ledger()

    def spend(self):
        """Record a call, and correct it, and that again, as the dice say."""
        dice, event = self.dice, uuid4().hex
        people = ("member", "joined", "org_admin", "user_admin", "everyones", "left")
        call = Call(self.a, getattr(self, dice.choice(people)), *dice.choice(self.models))
        at = START + timedelta(days=dice.randrange(100))
        self.spender("record", event, call, Tokens(input=dice.randrange(1000)), occurred_at=at)
        while dice.random() < 0.3:
            correction, tokens = uuid4().hex, Tokens(input=dice.randrange(1000))
            with self.spender.gov.unit(self.owner) as unit:
                grant = unit.authorize("update", ledger=True)
                Spend.correct(grant, correction, self.a, event, tokens, reason="wrong")
            event = correction

    def read_ledger(self):
        """The rows of the ledger, each with how many calls and unpriced calls it adds."""
        usage = TABLES.ai_usage
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(usage).where(usage.c.organization_id == self.a))
            rows = rows.all()
        corrected = {row.corrects for row in rows}
        return [
            (row, (row.cost_picos or 0, row.corrects is None, self.is_unpriced(row, corrected)))
            for row in rows
        ]

    @staticmethod
    def is_unpriced(row, corrected):
        return row.unpriced is not None and row.event_id not in corrected

    def expect(self, question, sees):
        """What the rows of the ledger come to that are seen and asked for, in their order."""
        sums = defaultdict(lambda: (0, 0, 0))
        for row, figures in self.ledger:
            filters = ("provider", "model", "group_id", "user_id")
            wanted = ((getattr(question, name), getattr(row, name)) for name in filters)
            if (
                question.since <= row.day < question.until
                and all(asked is None or asked == found for asked, found in wanted)
                and sees(row)
            ):
                keys = tuple((key, VALUE[key](row)) for key in question.keys)
                sums[keys] = tuple(map(sum, zip(sums[keys], figures, strict=True)))
        return sorted(sums.items(), key=lambda one: [(v is None, str(v)) for _, v in one[0]])


@pytest.fixture(scope="module")
def town(engine):
    return Town(engine)


def flatten(lines):
    return [(tuple(line.keys.items()), tuple(line.sum)) for line in lines]


def find_seen(town, caller, question):
    """Whether a caller sees a row, as the contract has it; None: not found."""
    everywhere = {"owner", "org_admin", "user_admin"}
    if caller == "outsider":
        return None
    if caller == "gateway":
        return lambda _row: False
    if caller in everywhere:
        return lambda _row: True
    if Key.USER in question.by or question.user_id is not None:
        return lambda row: row.user_id == getattr(town, caller)
    reached = {town.a} | ({town.a1} if caller == "member" else set())
    return lambda row: row.group_id in reached


def make_question(town, by):
    """A question with these keys, the days and filters as the dice say."""
    dice, (row, _) = town.dice, town.dice.choice(town.ledger)
    span = sorted(dice.sample(range(120), 2)) if dice.random() < 0.7 else (0, 151)
    names = dice.choice([(), (), ("provider",), ("model",), ("group_id",), ("user_id",)])
    names += dice.choice([(), ("group_id", "user_id"), ("provider", "model")])
    days = (SINCE + timedelta(days=days) for days in span)
    return Question(*days, by, **{name: getattr(row, name) for name in names})


@pytest.mark.slow
@pytest.mark.parametrize("caller", CALLERS)
def test_each_caller_sees_what_the_contract_says_by_every_set_of_keys(town, caller):
    """And no other row, whatever is filtered; the ledger's figures, to the pico."""
    seen = 0
    for by in SUBSETS:
        question = make_question(town, by)
        sees = find_seen(town, caller, question)
        with town.spender.gov.unit(getattr(town, caller)) as unit:
            if sees is None:
                with pytest.raises(NotFound):
                    unit.authorize("read", organization=town.a)
                continue
            lines = ask(unit.authorize("read", organization=town.a), question)
        assert flatten(lines) == town.expect(question, sees), question
        seen += len(lines)
    assert (seen > 30) == (sees is not None and caller != "gateway")


def test_who_may_not_read_one_group_sees_none_that_is_gone(town, engine):
    """`every group` is all of them; of the others the sum is still there."""
    lines = LINES + b"p, group-member, group, group, read, deny\n"
    gov = make_gov(load(lines=lines), engine)
    question = Question(SINCE, UNTIL, (Key.GROUP,))
    with gov.unit(town.user_admin) as unit:  # a member of Everyone, too
        found = ask(unit.authorize("read", organization=town.a), question)
    assert flatten(found) == town.expect(question, lambda row: row.group_id == town.a1)
    assert found


def test_where_nobodys_spend_may_be_read_users_are_forbidden(town, engine):
    lines = LINES.replace(b"p, self, user, ai_member_spend, read, allow\n", b"")
    assert lines != LINES
    gov = make_gov(load(lines=lines), engine)
    for question in (Question(SINCE, UNTIL, [Key.USER]), Question(SINCE, UNTIL, user_id=town.left)):
        with gov.unit(town.member) as unit:
            grant = unit.authorize("read", organization=town.a)
            with pytest.raises(Forbidden):
                ask(grant, question)


@pytest.mark.parametrize(
    "by", [(Key.DAY, Key.USER), (Key.MONTH, Key.GROUP), (Key.MODEL,), tuple(Key)]
)
def test_pages_give_each_line_once_in_the_one_order(town, by):
    question, pages, after = Question(SINCE, UNTIL, by), [], None
    with town.spender.gov.unit(town.owner) as unit:
        grant = unit.authorize("read", organization=town.a)
        while page := ask(grant, question, limit=3, after=after):
            pages += page
            after = page[-1].keys
        assert pages == ask(grant, question)
    assert len({tuple(line.keys.values()) for line in pages}) == len(pages) > 2


@pytest.mark.parametrize(
    ("since", "until"),
    [(UNTIL, SINCE), (SINCE, SINCE), (date(2009, 11, 30), SINCE), (SINCE, date(3000, 2, 2))],
)
def test_a_range_without_a_day_or_beyond_the_years_is_refused(since, until):
    with pytest.raises(ValueError, match="are not a range within 2009-12-01 to 3000-02-01"):
        Question(since, until)
    Question(FIRST_DAY, LAST_DAY)


# -- over HTTP --


@pytest.fixture(scope="module")
def send(engine):
    return Client(make_app(engine))


def get(send, town, person="owner", expected=200, **query):
    query = {"from": "2026-01-01", "to": "2026-06-01", **query}
    path = f"/organizations/{town.a}/ai/spend"
    response = send("GET", path, getattr(town, person), query_string=query)
    assert response.status_code == expected, response.text
    return response


def test_pages_over_http_are_linked_and_add_up_to_the_whole(send, town):
    whole = get(send, town, group_by="group,day,model").json["rows"]
    rows, response = [], get(send, town, group_by="day,model,group", page_size=7)
    while True:
        rows += response.json["rows"]
        token = response.json["next_page_token"]
        assert (token is None) == ("Link" not in response.headers)
        if token is None:
            break
        response = send(
            "GET",
            response.headers["Link"][1:].partition(">")[0].removeprefix("/api/v2"),
            town.owner,
        )
    assert rows[:50] == whole
    with town.spender.gov.unit(town.owner) as unit:
        question = Question(SINCE, UNTIL, (Key.DAY, Key.MODEL, Key.GROUP))
        lines = ask(unit.authorize("read", organization=town.a), question)
    assert rows == [
        {key: value for key, value in describe_line(line).items() if key != "cost_picos"}
        for line in lines
    ]
    assert list(rows[0]) == ["day", "model", "group", "cost_micros", "calls", "unpriced_calls"]


def test_a_token_is_of_its_own_question(send, town):
    token = get(send, town, group_by="user", page_size=1).json["next_page_token"]
    assert get(send, town, group_by="user", page_token=token).json["rows"]
    for other in ({"group_by": "group"}, {"group_by": "user", "model": "unknown"}):
        refused = get(send, town, expected=400, page_token=token, **other)
        assert refused.json["errors"][0]["pointer"] == "page_token"


def test_csv_is_the_whole_with_exact_picos_and_no_formula(send, town):
    response = get(send, town, group_by="model,provider", format="csv")
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == (
        'attachment; filename="spend-2026-01-01-2026-06-01.csv"'
    )
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert list(rows[0]) == [
        "provider",
        "model",
        "cost_micros",
        "cost_picos",
        "calls",
        "unpriced_calls",
    ]
    assert ("'=1", "'@x;'\u200b=2") in {(row["provider"], row["model"]) for row in rows}
    ledger = sum(figures[0] for _, figures in town.ledger)
    assert sum(int(row["cost_picos"]) for row in rows) == ledger


def test_few_reports_are_written_as_csv_at_a_time_and_whoever_waits_has_no_connection(
    send, town, monkeypatch
):
    """The longest take a second of the process: twenty of one tenant would stop all others."""
    monkeypatch.setattr(report_view, "TURN_SECONDS", 0.01)
    with ExitStack() as others:
        for _ in range(report_view.MAX_CSVS_AT_A_TIME):
            with make_app(town.engine).test_request_context("/?format=csv"):
                others.enter_context(report_view.take_turn())
        with count_statements(town.engine) as sent:
            refused = get(send, town, expected=503, group_by="month", format="csv")
        assert (refused.headers["Retry-After"], sent) == ("5", [])
        assert "other reports" in refused.json["detail"]
        get(send, town, group_by="month")
    get(send, town, group_by="month", format="csv")


def test_csv_of_too_many_rows_is_refused_whole(send, town, monkeypatch):
    monkeypatch.setattr(report_view, "MAX_CSV_ROWS", 3)
    assert get(send, town, group_by="month", page_size=9).json["rows"][3:]
    refused = get(send, town, expected=400, group_by="month", format="csv").json
    assert refused["errors"][0]["detail"] == (
        "the report has more than 3 rows; ask for fewer days or keys"
    )


@pytest.mark.parametrize(
    ("query", "pointer", "says"),
    [
        ({"from": None}, "from", "missing; write a day such as 2026-10-01"),
        ({"to": "2026-1-1"}, "to", "`2026-1-1` is not a day"),
        ({"to": "20260601"}, "to", "is not a day"),
        ({"from": "2026-02-30"}, "from", "is not a day"),
        ({"to": "2026-01-01"}, "from", "the first day must be before the other one"),
        ({"to": "2025-01-01"}, "from", "the first day must be before the other one"),
        ({"from": "1999-01-01"}, "from", "2009-12-01 to 3000-02-01"),
        ({"to": "3001-01-01"}, "from", "2009-12-01 to 3000-02-01"),
        ({"group_by": ""}, "group_by", "`` is not a key; write some of day,month,provider"),
        ({"group_by": "day,colour"}, "group_by", "`colour` is not a key"),
        ({"group_by": "day,day"}, "group_by", "`day` is named twice"),
        ({"group_by": ["day", "user"]}, "group_by", "given more than once"),
        ({"user_id": "me too"}, "user_id", "is not an id"),
        ({"provider": "a\x00"}, "provider", "without control characters"),
        ({"format": "xml"}, "format", "must be `json` or `csv`"),
        ({"format": "csv", "page_size": "5"}, "page_size", "CSV has no pages"),
        ({"colour": "red"}, "colour", "unknown parameter; known are: from, to, group_by"),
    ],
)
def test_a_query_that_says_nothing_is_refused_with_what_to_do(send, town, query, pointer, says):
    problem = get(send, town, expected=400, **query).json
    assert problem["code"] == "invalid-query"
    assert [e["pointer"] for e in problem["errors"] if says in e["detail"]] == [pointer]


def write_token(town, question, texts):
    """Sign a position as anybody can."""
    from itsdangerous import Signer
    from itsdangerous.encoding import base64_encode

    signer = Signer(f"govbudget.organization_spend {town.a} {question}", salt="govbudget.page")
    return signer.sign(base64_encode(json.dumps(texts, separators=(",", ":")))).decode()


@pytest.mark.parametrize(
    ("by", "texts"),
    [("day", ["9999-12-31"]), ("day,month", ["9999-12-31", "0001-01"]), ("month", ["9999-12"])],
)
def test_after_a_position_beyond_the_range_there_is_nothing(send, town, by, texts):
    """Anybody can write a token: it holds no secret, and any day may stand in it."""
    keys = tuple(map(Key, by.split(",")))
    token = write_token(town, Question(SINCE, UNTIL, keys), texts)
    assert get(send, town, group_by=by, page_token=token).json["rows"] == []


@pytest.mark.parametrize(
    "texts", [["2026-13", "x"], ["2026-01"], ["2026-01", "\x00"], ["2026-01", "\ud800"]]
)
def test_a_token_with_a_position_that_is_none_is_refused(send, town, texts):
    token = write_token(town, Question(SINCE, UNTIL, (Key.MONTH, Key.MODEL)), texts)
    get(send, town, expected=400, group_by="month,model", page_token=token)


def test_a_report_is_two_statements_and_a_stranger_is_answered_after_one(send, town, engine):
    for person, expected, number in (("member", 200, 2), ("outsider", 404, 1)):
        with count_statements(engine) as sent:
            get(send, town, person, expected, group_by="day,user")
        assert len(sent) == number
    assert "ai_usage" not in sent[0]


# -- one sum on every road --


MANY_DAYS = """
INSERT INTO govbudget.ai_spend_rollups
SELECT :a, 'day', date '2026-03-31' - day, :a, md5(user_number::text)::uuid, 'acme', 'm', 1, 1, 0
FROM generate_series(1, 500) day, generate_series(1, 60) user_number
UNION ALL
SELECT :a, 'month', '2026-03-01', :a, md5(user_number::text)::uuid, 'acme', 'm', 30, 30, 0
FROM generate_series(1, 60) user_number
"""


@pytest.mark.slow
@pytest.mark.parametrize("until", [date(2026, 4, 1), date(2026, 3, 2)], ids=["month", "day"])
@pytest.mark.parametrize("key", [Key.USER, Key.MODEL])
def test_a_report_reads_its_own_range_however_many_other_days_there_are(engine, key, until):
    world = World(engine)
    with engine.connect() as connection:
        connection.execute(sa.text(MANY_DAYS), {"a": world.a})
        connection.exec_driver_sql("ANALYZE govbudget.ai_spend_rollups")
        sent = []
        sa.event.listen(connection, "before_cursor_execute", lambda *event: sent.append(event))
        grant = authorize(connection, world.owner, "read", organization=world.a)
        ask(grant, Question(date(2026, 3, 1), until, [key]))
        text, parameters = sent[-1][2:4]
        plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, COSTS OFF) {text}", parameters)
        lines = plan.scalars().all()
        connection.rollback()
    assert any("ai_spend_rollups_key" in line for line in lines), lines
    removed = [int(line.rpartition(" ")[2]) for line in lines if "Rows Removed" in line]
    assert sum(removed) < 100, lines


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_http_command_export_and_ledger_have_the_same_sum(engine, send, here, seed):
    """To the pico, in a random world: whole, and of a range of days."""
    town = Town(engine, seed)
    for since, until in ((SINCE, UNTIL), (date(2026, 1, 27), date(2026, 3, 11))):
        rows = [(row, f) for row, f in town.ledger if since <= row.day < until]
        ledger = sum(figures[0] for _, figures in rows)
        words = ("--organization", town.a, "--from", since, "--to", until)
        for by in town.dice.sample(SUBSETS[1:], 8):
            keys, span = ",".join(by), {"from": str(since), "to": str(until)}
            over_http = get(send, town, group_by=keys, format="csv", **span).text
            printed = here("spend", "report", *words, "--by", keys, "--format", "csv")
            assert (printed.status, printed.out) == (0, over_http)
            found = list(csv.DictReader(io.StringIO(over_http)))
            assert sum(int(row["cost_picos"]) for row in found) == ledger
            assert sum(int(row["calls"]) for row in found) == sum(f[1] for _, f in rows)
            assert sum(int(row["unpriced_calls"]) for row in found) == sum(f[2] for _, f in rows)
        exported = here("spend", "export", *words, "--format", "jsonl")
        assert (exported.status, exported.err) == (0, "")
        lines = list(map(json.loads, exported.out.splitlines()))
        assert sum(line["cost_picos"] or 0 for line in lines) == ledger
        assert [(line["day"], line["event_id"]) for line in lines] == sorted(
            (str(row.day), row.event_id) for row, _ in rows
        )
        as_csv = here("spend", "export", *words, "--format", "csv")
        cells = csv.DictReader(io.StringIO(as_csv.out))
        assert sum(int(row["cost_picos"] or 0) for row in cells) == ledger
