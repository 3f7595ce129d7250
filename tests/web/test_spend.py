"""The spend endpoints: what each answers, and what a refusal tells."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from tests.policy.helpers import LINES, load
from tests.support import TABLES, Client, World, make_app
from tests.web.helpers import MeddlingDirectory, outcome, put_limit

DOLLAR = 10**6
ONE = {"input": 1}
PRICES = ("input_price", "output_price", "cache_read_price", "cache_write_price")
PERIOD = ("period_start", "period_end")


@pytest.fixture
def town(engine):
    """A world in which a token of acme's `m/x` costs a dollar, and a1 has a budget of two."""
    town = World(engine)
    town.model = f"m/{uuid4().hex}"
    price = {"provider": "acme", "model": town.model, "input_price": 10**12}
    with engine.begin() as connection:
        connection.execute(sa.insert(TABLES.ai_model_prices), price)
    return town


@pytest.fixture
def limited(send, town):
    assert put_limit(send, town.a1, town.owner, 2 * DOLLAR).status_code == 200
    return town


def call_of(town, person=None, organization=None, **more):
    return {
        "organization_id": str(organization or town.a),
        "user_id": str(person or town.member),
        "provider": "acme",
        "model": town.model,
        "tokens": ONE,
        **more,
    }


def hold(send, town, **more):
    return send("POST", "/ai/holds", town.gateway, json=call_of(town, **more))


def settle(send, town, hold_id, event_id, tokens=ONE, **more):
    body = {"event_id": event_id, "tokens": tokens, **more}
    return send("POST", f"/ai/holds/{hold_id}/settle", town.gateway, json=body)


def record(send, town, event_id, **more):
    return send("POST", "/ai/usage", town.gateway, json=call_of(town, event_id=event_id, **more))


def override_path(town, person=None):
    return f"/organizations/{town.a}/members/{person or town.member}/ai/budget/override"


def put_override(send, town, by, group, dollars, *, of=None):
    body = {"group_id": str(group), "spend_limit_micros": dollars * DOLLAR}
    return send("PUT", override_path(town, of), by, json=body)


def spend_of(send, town, person="me", by=None):
    return send("GET", f"/organizations/{town.a}/members/{person}/ai/spend", by or town.member)


# -- holds --


def test_a_hold_is_asked_for_again_looked_up_and_extended(send, limited):
    own, path = str(uuid4()), "/ai/holds/{}"
    first = hold(send, limited, hold_id=own)
    again = hold(send, limited, hold_id=own)
    assert (first.status_code, again.status_code) == (201, 200)
    assert (first.json, first.json["state"]) == (again.json, "open")
    assert outcome(hold(send, limited, hold_id=own, ttl_seconds=5)) == (409, "hold-conflict")
    assert send("GET", path.format(own), limited.gateway).json == first.json
    extend = partial(send, "POST", path.format(own) + "/extend", limited.gateway)
    longer = extend(json={"ttl_seconds": 900})
    assert longer.json == {**first.json, "expires_at": longer.json["expires_at"]}
    assert longer.json["expires_at"] > first.json["expires_at"]
    assert outcome(extend(json={"ttl_seconds": 0})) == (400, "invalid-body")
    assert outcome(extend(json={})) == (400, "invalid-body")
    settle(send, limited, own, "e1")
    assert outcome(extend(json={"ttl_seconds": 9})) == (409, "hold-closed")
    assert hold(send, limited, hold_id=own).json["state"] == "settled"
    for unknown in (
        ("GET", path.format(uuid4()), None),
        (
            "POST",
            path.format(uuid4()) + "/extend",
            {"ttl_seconds": 9},
        ),
    ):
        method, where, body = unknown
        answer = send(method, where, limited.gateway, json=body)
        assert outcome(answer) == (404, "hold-not-found")
    assert outcome(hold(send, limited, hold_id="7")) == (400, "invalid-body")


def test_a_settlement_says_which_model_answered(send, limited):
    held = hold(send, limited).json["hold_id"]
    settled = settle(send, limited, held, "e1", provider="other", model="unknown")
    assert (settled.json["provider"], settled.json["model"]) == ("other", "unknown")
    assert (settled.json["unpriced"], settled.json["cost_micros"]) == (["input"], DOLLAR)
    again = settle(send, limited, held, "e1", provider="other", model="unknown")
    assert again.data == settled.data
    assert outcome(settle(send, limited, held, "e1")) == (409, "event-conflict")


def test_a_second_correction_of_an_event_is_answered_with_the_first_ones_id(send, town):
    record(send, town, "e1")
    body = {"organization_id": str(town.a), "corrects": "e1", "tokens": ONE, "reason": "a test"}
    answers = [
        send("POST", "/ai/corrections", town.owner, json={**body, "event_id": event_id})
        for event_id in ("c1", "c2")
    ]
    assert answers[0].status_code == 201
    assert outcome(answers[1]) == (409, "event-corrected")
    assert answers[1].json["event_id"] == "c1"


@pytest.mark.parametrize(
    ("time", "sentence"),
    [
        ("2009-12-31T23:59:59Z", "must be of the years 2010 to 2999 in UTC"),
        ("2999-12-31T23:59:59-00:01", "must be of the years 2010 to 2999 in UTC"),
        ("0001-01-01T00:00:00+14:00", "must be of the years 2010 to 2999 in UTC"),
        ("2026-01-01T00:00:00", "must be a time with its offset from UTC"),
        ("2026-01-01T00:00:00+00:60", "must be a time with its offset from UTC"),
        ("2026-01-01T24:00:00Z", "must be a time with its offset from UTC"),
    ],
)
def test_a_time_that_is_not_taken_is_answered_with_what_is_wrong(send, town, time, sentence):
    """Each version of Python reads other times; RFC 3339 decides."""
    refused = record(send, town, "e1", occurred_at=time)
    assert outcome(refused) == (400, "invalid-body")
    assert refused.json["errors"][0]["detail"].startswith(sentence)


def test_a_call_over_the_limit_is_refused_with_the_members_own_figures(send, limited):
    for _ in range(2):
        held = hold(send, limited)
        assert (held.status_code, held.json["cost_micros"]) == (201, DOLLAR)
        assert held.json["group_id"] == str(limited.a1)
    refused = hold(send, limited).json
    assert {key: refused[key] for key in refused if key not in {"type", "title", "detail"}} == {
        "status": 403,
        "code": "budget-exceeded",
        "spend_limit_micros": 2 * DOLLAR,
        "limit_source": "group",
        "group_id": str(limited.a1),
        "current_spend_micros": 0,
        "held_micros": 2 * DOLLAR,
        "cost_micros": DOLLAR,
        "period_end": refused["period_end"],
    }
    end = datetime.fromisoformat(refused["period_end"])
    assert (end.day, end.hour) == (1, 0)
    assert end > datetime.now(UTC)


def test_a_settled_hold_is_usage_and_the_same_event_again_gets_the_same_bytes(send, limited):
    hold_id = hold(send, limited, tokens={"input": 2}).json["hold_id"]
    told = {"occurred_at": "2026-01-31t13:00:00+01:00"}  # RFC 3339 has small letters, too
    first = settle(send, limited, hold_id, "e1", **told)
    assert first.status_code == 200
    assert first.json["tokens"] == {"input": 1, "output": 0, "cache_read": 0, "cache_write": 0}
    assert first.json["occurred_at"] == "2026-01-31T12:00:00.000000Z"
    again = settle(send, limited, hold_id, "e1", **told)
    assert (again.status_code, again.data) == (200, first.data)
    for other in (settle(send, limited, hold_id, "e1"), settle(send, limited, hold_id, "e2")):
        assert outcome(other) == (409, "event-conflict")
    assert spend_of(send, limited).json["current_spend_micros"] == DOLLAR


def test_a_hold_can_be_released_again_and_an_unknown_one_can_not(send, limited):
    hold_id = hold(send, limited).json["hold_id"]
    for _ in range(2):
        assert send("DELETE", f"/ai/holds/{hold_id}", limited.gateway).status_code == 204
    assert spend_of(send, limited).json["held_micros"] == 0
    unknown = f"/ai/holds/{uuid4()}"
    assert outcome(send("DELETE", unknown, limited.gateway)) == (404, "hold-not-found")
    assert outcome(settle(send, limited, uuid4(), "e")) == (404, "hold-not-found")
    assert outcome(send("DELETE", "/ai/holds/7", limited.gateway)) == (400, "invalid-id")


def test_usage_without_a_hold_is_201_and_when_it_is_known_200_with_the_same_bytes(send, limited):
    first = record(send, limited, "u1")
    again = record(send, limited, "u1")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.data == again.data
    assert first.json["hold_id"] is None
    assert outcome(record(send, limited, "u1", tokens={})) == (409, "event-conflict")


def test_what_can_not_be_admitted_is_said_by_its_code(send, limited):
    assert outcome(hold(send, limited, model="unheard-of")) == (403, "unpriced-model")
    for more in ({"user_id": str(limited.outsider)}, {"organization_id": str(uuid4())}):
        assert outcome(hold(send, limited, **more)) == (400, "not-a-member")
        assert outcome(record(send, limited, "e", **more)) == (400, "not-a-member")


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"user_id": 7}, "/user_id"),
        ({"user_id": "me"}, "/user_id"),
        ({"organization_id": None}, "/organization_id"),
        ({"tokens": {"input": -1}}, "/tokens/input"),
        ({"tokens": {"input": 1.0}}, "/tokens/input"),
        ({"tokens": {"input": True}}, "/tokens/input"),
        ({"tokens": {"input": 10**12 + 1}}, "/tokens/input"),
        ({"tokens": {"images": 1}}, "/tokens/images"),
        ({"tokens": None}, "/tokens"),
        ({"event_id": ""}, "/event_id"),
        ({"event_id": "a\nb"}, "/event_id"),
        ({"event_id": "a\x85"}, "/event_id"),
        ({"event_id": "\ud800"}, "/event_id"),
        ({"event_id": "x" * 256}, "/event_id"),
        ({"occurred_at": "2026-01-31"}, "/occurred_at"),
        ({"occurred_at": "2026-01-31T12:00:00"}, "/occurred_at"),
        ({"occurred_at": 1_700_000_000}, "/occurred_at"),
        ({"occurred_at": "0001-01-01T00:00:00+14:00"}, "/occurred_at"),
        ({"ttl_seconds": 5}, "/ttl_seconds"),
        ({"model": "a\x00"}, "/model"),
    ],
)
def test_a_body_that_is_wrong_is_told_where_and_books_nothing(send, limited, more, pointer):
    answer = record(send, limited, **({"event_id": "bad"} | more))
    assert outcome(answer) == (400, "invalid-body")
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]
    assert spend_of(send, limited).json["current_spend_micros"] == 0


@pytest.mark.parametrize("seconds", [0, 86_401, "5", 1.5, None])
def test_a_hold_lives_a_second_to_a_day(send, limited, seconds):
    assert outcome(hold(send, limited, ttl_seconds=seconds)) == (400, "invalid-body")


def test_a_cost_above_the_range_is_refused_before_it_is_stored(send, limited):
    """10^12 tokens at 10^12 micros a million are 10^18 picos: two such categories are too much."""
    row = {"provider": "acme", "model": limited.model, "input_price": 10**12, "output_price": 1}
    row |= {"cache_read_price": None, "cache_write_price": None}
    assert send("PUT", "/ai/prices", limited.owner, json=[row]).status_code == 200
    tokens = {"input": 10**12, "output": 1}
    for answer in (hold(send, limited, tokens=tokens), record(send, limited, "e", tokens=tokens)):
        assert outcome(answer) == (400, "invalid-body")
        assert answer.json["errors"][0]["pointer"] == "/tokens"
    assert spend_of(send, limited).json["current_spend_micros"] == 0


def set_price(send, town, price):
    row = dict.fromkeys(("output_price", "cache_read_price", "cache_write_price"))
    row |= {"provider": "acme", "model": town.model, "input_price": price}
    options = {"json": [row], "query_string": {"allow_jumps": "true"}}
    assert send("PUT", "/ai/prices", town.owner, **options).status_code == 200


def test_usage_keeps_its_price_and_is_answered_with_the_same_bytes_for_ever(engine, send, limited):
    """After the price changed, and after the user left; what is settled has its hold's price."""
    hold_id = hold(send, limited).json["hold_id"]
    set_price(send, limited, 10**12 // 2)
    settled, recorded = settle(send, limited, hold_id, "e1"), record(send, limited, "e2")
    assert (settled.json["cost_micros"], recorded.json["cost_micros"]) == (DOLLAR, DOLLAR // 2)
    assert spend_of(send, limited).json["current_spend_micros"] == DOLLAR + DOLLAR // 2
    set_price(send, limited, 1)
    members = TABLES.organization_members
    with engine.begin() as connection:
        connection.execute(sa.delete(members).where(members.c.user_id == limited.member))
    assert outcome(hold(send, limited)) == (400, "not-a-member")
    assert record(send, limited, "e3").json["group_id"] == str(limited.a)
    assert settle(send, limited, hold_id, "e1").data == settled.data
    assert record(send, limited, "e2").data == recorded.data


def test_the_settings_of_spend_hold_for_admission_and_for_what_is_told(engine, limited):
    zone = "Pacific/Kiritimati"  # 14 hours before UTC
    settings = {"LIMIT_RULE": "lowest", "TIME_ZONE": zone, "UNPRICED": "allow"}
    app = make_app(engine, {f"GOVBUDGET_{key}": value for key, value in settings.items()})
    send = Client(app)
    put_limit(send, limited.a, limited.owner, DOLLAR)
    assert hold(send, limited, model="unheard-of").status_code == 201
    refused = hold(send, limited, tokens={"input": 2})
    assert outcome(refused) == (403, "budget-exceeded")
    told = spend_of(send, limited).json
    for answer in (refused.json, told):
        assert answer["spend_limit_micros"] == DOLLAR
    assert (refused.json["group_id"], told["effective_group_id"]) == (str(limited.a),) * 2
    group = send("GET", f"/groups/{limited.a}/ai/spend", limited.owner).json
    for time in (refused.json["period_end"], *(it[key] for it in (told, group) for key in PERIOD)):
        begins = datetime.fromisoformat(time).astimezone(ZoneInfo(zone))
        assert (begins.day, begins.hour) == (1, 0)


# -- overrides --


def test_an_override_lets_a_member_go_on_and_clearing_it_does_not(send, limited):
    assert hold(send, limited, tokens={"input": 2}).status_code == 201
    assert outcome(hold(send, limited)) == (403, "budget-exceeded")
    made = put_override(send, limited, limited.org_admin, limited.a1, 3)
    assert (made.status_code, made.json["spend_limit_micros"]) == (200, 3 * DOLLAR)
    assert send("GET", override_path(limited), limited.member).json == made.json
    told = spend_of(send, limited).json
    assert (told["limit_source"], told["spend_limit_micros"]) == ("user_override", 3 * DOLLAR)
    assert hold(send, limited).status_code == 201
    assert send("DELETE", override_path(limited), limited.org_admin).status_code == 204
    assert outcome(hold(send, limited)) == (403, "budget-exceeded")
    for method in ("GET", "DELETE"):
        answer = send(method, override_path(limited), limited.org_admin)
        assert outcome(answer) == (404, "override-not-set")


def test_nobody_raises_their_own_cap(send, limited):
    assert outcome(put_override(send, limited, limited.member, limited.a1, 9)) == (403, "forbidden")
    path = f"/organizations/{limited.a}/members/me/ai/budget/override"
    assert outcome(send("DELETE", path, limited.member)) == (403, "forbidden")
    assert spend_of(send, limited).json["limit_source"] == "group"


def test_an_override_names_a_group_that_the_member_is_in(send, limited):
    for group in (limited.a2, limited.b1, uuid4()):
        answer = put_override(send, limited, limited.org_admin, group, 1)
        assert outcome(answer) == (400, "not-a-member")
    assert put_override(send, limited, limited.org_admin, limited.a, 1).status_code == 200
    answer = put_override(send, limited, limited.org_admin, limited.a, 1, of=limited.outsider)
    assert outcome(answer) == (400, "not-a-member")
    answer = put_override(send, limited, limited.b_admin, limited.a1, 1)
    assert outcome(answer) == (404, "organization-not-found")


@pytest.mark.parametrize(("effect", "person"), [("allow", "joined"), ("deny", "org_admin")])
def test_an_override_is_changed_by_whoever_may_update_its_group_and_the_one_before(
    engine, limited, effect, person
):
    """A group's member may update it, or may not: the person reaches a1, and a2 not."""
    lines = LINES + f"p, group-member, group, group, update, {effect}\n".encode()
    send = Client(make_app(engine, policy=load(lines=lines)))
    someone = getattr(limited, person)
    with engine.begin() as connection:
        limited.join_group(connection, limited.a, limited.a2, "member")
        limited.join_group(
            connection, limited.a, limited.a1 if effect == "allow" else limited.a2, person
        )
    forbidden = (403, "forbidden")
    assert outcome(put_override(send, limited, someone, limited.a2, 9)) == forbidden
    there = put_override(send, limited, limited.owner, limited.a2, 3)
    assert outcome(put_override(send, limited, someone, limited.a1, 9)) == forbidden
    assert outcome(send("DELETE", override_path(limited), someone)) == forbidden
    assert send("GET", override_path(limited), limited.owner).data == there.data
    assert put_override(send, limited, limited.owner, limited.a1, 4).status_code == 200
    assert put_override(send, limited, someone, limited.a1, 5).status_code == 200
    assert outcome(put_override(send, limited, someone, limited.a2, 9)) == forbidden
    assert send("DELETE", override_path(limited), someone).status_code == 204


def test_an_override_leaves_entries_in_the_audit_trail(send, limited):
    put_override(send, limited, limited.org_admin, limited.a1, 3)
    put_override(send, limited, limited.org_admin, limited.a, 4)
    send("DELETE", override_path(limited), limited.user_admin)
    entries = send("GET", f"/organizations/{limited.a}/ai/audit", limited.owner).json["entries"]
    mine = [entry for entry in entries if entry["object_type"] == "member_ai_override"]
    no_more = {"expires_at": None, "reason": None}
    at_a1 = {"group_id": str(limited.a1), "spend_limit_micros": 3 * DOLLAR, **no_more}
    at_a = {"group_id": str(limited.a), "spend_limit_micros": 4 * DOLLAR, **no_more}
    assert [(entry["before"], entry["after"], entry["actor"]) for entry in mine] == [
        (at_a, None, str(limited.user_admin)),
        (at_a1, at_a, str(limited.org_admin)),
        (None, at_a1, str(limited.org_admin)),
    ]
    assert {entry["cause"] for entry in mine} == {"request"}
    assert all(entry["lines"] and entry["object_id"] == str(limited.member) for entry in mine)


def test_an_override_with_an_end_says_it_wherever_its_limit_is(send, limited):
    """Without an end nothing is said of one; an end of the past is refused, by its name."""
    path, end = override_path(limited), "2999-01-02T03:04:05.000006Z"
    body = {"group_id": str(limited.a1), "spend_limit_micros": DOLLAR}
    plain = send("PUT", path, limited.owner, json=body).json
    assert not {"expires_at", "reason"} & plain.keys()
    assert "limit_expires_at" not in spend_of(send, limited).json
    assert "limit_expires_at" not in hold(send, limited, tokens={"input": 2}).json
    more = {"expires_at": "2999-01-02t08:49:05.000006+05:45", "reason": "the release"}
    made = send("PUT", path, limited.owner, json=body | more)
    assert (made.status_code, made.json["expires_at"]) == (200, end)
    assert made.json["reason"] == "the release"
    assert send("GET", path, limited.member).json == made.json
    assert spend_of(send, limited).json["limit_expires_at"] == end
    refused = hold(send, limited, tokens={"input": 2})
    assert (outcome(refused), refused.json["limit_expires_at"]) == ((403, "budget-exceeded"), end)
    for wrong in ("2026-01-01T00:00:00Z", "2999-01-01T00:00:00", "tomorrow", 5):
        answer = send("PUT", path, limited.owner, json=body | {"expires_at": wrong})
        assert outcome(answer) == (400, "invalid-body")
        assert [error["pointer"] for error in answer.json["errors"]] == ["/expires_at"]
    assert send("GET", path, limited.member).json == made.json


# -- reports --


def test_a_plain_member_sees_the_groups_sum_and_only_their_own_row(engine, send, limited):
    with engine.begin() as connection:
        limited.join_group(connection, limited.a, limited.a1, "joined")
    record(send, limited, "e1")
    record(send, limited, "e2", user_id=str(limited.joined), tokens={"input": 2})
    sums = send("GET", f"/groups/{limited.a1}/ai/spend", limited.member).json
    assert (sums["current_spend_micros"], sums["calls"]) == (3 * DOLLAR, 2)
    rows = {str(limited.member): DOLLAR, str(limited.joined): 2 * DOLLAR}
    for person, seen in (
        (limited.member, {str(limited.member)}),
        (limited.joined, {str(limited.joined)}),
        (limited.org_admin, set(rows)),
        (limited.owner, set(rows)),
    ):
        page = send("GET", f"/groups/{limited.a1}/members/ai/spend", person).json
        told = {row["user_id"]: row["current_spend_micros"] for row in page["members"]}
        assert told == {user: rows[user] for user in seen}


def test_the_pages_of_spend_go_through_every_group_and_every_member_once(engine, send, limited):
    with engine.begin() as connection:
        for person in ("joined", "org_admin"):
            limited.join_group(connection, limited.a, limited.a1, person)
    for person in ("member", "joined", "org_admin"):
        record(send, limited, person, user_id=str(getattr(limited, person)))
    for path, key, name, expected in (
        (f"/groups/{limited.a1}/members/ai/spend", "members", "user_id", 3),
        (f"/organizations/{limited.a}/groups/ai/spend", "groups", "group_id", 3),
    ):
        token, seen = "", []
        while token is not None:
            query = "?page_size=1" + (f"&page_token={token}" if token else "")
            page = send("GET", path + query, limited.owner).json
            seen += [row[name] for row in page[key]]
            token = page["next_page_token"]
        assert seen == sorted(set(seen))
        assert len(seen) == expected


def test_groups_that_a_member_may_not_read_are_not_in_the_page(send, limited):
    record(send, limited, "e1")
    page = send("GET", f"/organizations/{limited.a}/groups/ai/spend", limited.member).json
    sums = {row["group_id"]: row["current_spend_micros"] for row in page["groups"]}
    assert sums == {str(limited.a): 0, str(limited.a1): DOLLAR}


def test_spend_in_one_organization_is_nothing_to_another(engine, send, limited):
    """The same person in both; the same event id in both."""
    with engine.begin() as connection:
        limited.join(connection, limited.b, "member")
    record(send, limited, "e1")
    other = record(send, limited, "e1", organization_id=str(limited.b), tokens={"input": 7})
    assert other.status_code == 201
    assert spend_of(send, limited).json["current_spend_micros"] == DOLLAR
    there = f"/organizations/{limited.b}/members/{limited.member}/ai/spend"
    told = send("GET", there, limited.member).json
    assert (told["current_spend_micros"], told["spend_limit_micros"]) == (7 * DOLLAR, None)
    assert outcome(send("GET", there, limited.org_admin)) == (404, "member-not-found")
    assert send("GET", there, limited.b_admin).json == told


def test_who_is_no_member_is_answered_like_one_that_may_not_be_seen(send, limited):
    bytes_of = {
        spend_of(send, limited, person, by).data
        for person, by in (
            (limited.member, limited.joined),
            (limited.outsider, limited.org_admin),
            (uuid4(), limited.owner),
            (limited.member, limited.outsider),
        )
    }
    assert len(bytes_of) == 1


def test_a_group_that_moved_after_the_decision_shows_no_spend(engine, limited):
    def move(group):
        with engine.begin() as connection:
            connection.execute(sa.delete(TABLES.groups).where(TABLES.groups.c.id == group))

    send = Client(make_app(engine, directory=MeddlingDirectory(limited.directory, move)))
    for path in (f"/groups/{limited.a1}/ai/spend", f"/groups/{limited.a2}/members/ai/spend"):
        assert outcome(send("GET", path, limited.owner)) == (404, "group-not-found")


def test_what_is_known_of_a_cost_is_answered_with_what_had_no_price(send, limited):
    """By record, settle and hold; the same bytes again; and what is known is spent."""
    row = dict(zip(PRICES, (2_500_000, 10_000_000, 1_250_000, None), strict=True))
    row |= {"provider": "acme", "model": uuid4().hex}
    assert send("PUT", "/ai/prices", limited.owner, json=[row]).status_code == 200
    tokens = {"input": 10**8, "output": 10**6, "cache_write": 1}
    call = {"model": row["model"], "tokens": tokens}
    held = hold(send, limited, **call | {"tokens": {"input": 1}})
    assert (held.json["cost_micros"], held.json["unpriced"]) == (3, [])
    first = record(send, limited, "e1", **call)
    settled = settle(send, limited, held.json["hold_id"], "e2", tokens=tokens)
    for answer in (first, settled):
        assert answer.json["cost_micros"] == 260 * DOLLAR
        assert answer.json["unpriced"] == ["cache_write"]
    assert record(send, limited, "e1", **call).data == first.data
    told = spend_of(send, limited).json
    assert (told["current_spend_micros"], told["held_micros"]) == (520 * DOLLAR, 0)
    group = send("GET", f"/groups/{limited.a1}/ai/spend", limited.owner).json
    assert (group["calls"], group["unpriced_calls"]) == (2, 2)
    assert outcome(hold(send, limited)) == (403, "budget-exceeded")
    refused = hold(send, limited, **call)
    assert outcome(refused) == (403, "unpriced-model")
    assert "`cache_write`" in refused.json["detail"]


def test_a_free_call_passes_at_any_spend_and_a_hold_of_no_tokens_at_none(send, limited):
    row = dict(zip(PRICES, (0, 0, None, None), strict=True))
    row |= {"provider": "acme", "model": uuid4().hex}
    assert send("PUT", "/ai/prices", limited.owner, json=[row]).status_code == 200
    record(send, limited, "e1", tokens={"input": 7})
    free = hold(send, limited, model=row["model"], tokens={"input": 5})
    assert (free.status_code, free.json["cost_micros"], free.json["unpriced"]) == (201, 0, [])
    for tokens in ({}, dict.fromkeys(("input", "output", "cache_read", "cache_write"), 0)):
        refused = hold(send, limited, tokens=tokens)
        assert outcome(refused) == (400, "invalid-body")
        assert [error["pointer"] for error in refused.json["errors"]] == ["/tokens"]
    settled = settle(send, limited, free.json["hold_id"], "e2", tokens={})
    assert (settled.json["cost_micros"], settled.json["unpriced"]) == (0, [])


def test_unpriced_usage_is_counted_and_shown_and_costs_null(send, town):
    """With no limit in force an unpriced call passes; it is unpriced, not free."""
    answer = record(send, town, "e1", model="unheard-of")
    assert (answer.status_code, answer.json["cost_micros"]) == (201, None)
    assert answer.json["unpriced"] == ["input"]
    shown = send("GET", f"/groups/{town.a}/ai/spend", town.owner).json
    assert (shown["calls"], shown["unpriced_calls"], shown["current_spend_micros"]) == (1, 1, 0)


def test_micros_are_rounded_up_for_show_only(send, limited):
    set_price(send, limited, 1)
    for number in range(3):
        assert record(send, limited, f"e{number}").json["cost_micros"] == 1
    assert spend_of(send, limited).json["current_spend_micros"] == 1
