"""`If-Match` and `If-None-Match`: honoured, tolerant of what is not ours, free of races."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from tests.support import budget_path
from tests.web.helpers import exchange, outcome, put_limit, read_row, serve, together

FAILED = (412, "precondition-failed")


@pytest.fixture
def world(clean_town):
    """These tests change budgets and nothing else, so one world does for all."""
    return clean_town


@pytest.fixture
def tag(send, world):
    """The ETag of a1's budget, which has a limit of 1."""
    return put_limit(send, world.a1, world.owner, 1).headers["ETag"]


# `{tag}` stands for the ETag in force.
MATCHING = ["{tag}", '"x", {tag}', '{tag},"x"', "  {tag}  ", "*", '"x" , "y",{tag}']
NOT_MATCHING = [
    "",
    '""',
    '"x"',
    "W/{tag}",
    'W/"x", W/{tag}',
    f'"{UUID(int=4).hex}"',
    f'"{UUID(int=4)}"',
    '"00000000-0000-0000-0000-000000000000"',
    "junk junk",
    '"',
    '"unended',
    '"x" "y"',
    ",,,",
    '"\u00e9\u00ff"',
    '"' + "x" * 5000 + '"',
]


@pytest.mark.parametrize("header", MATCHING)
def test_if_match_that_names_the_state_lets_a_change_through(send, world, tag, header):
    headers = {"If-Match": header.format(tag=tag)}
    changed = put_limit(send, world.a1, world.owner, 2, headers=headers)
    assert changed.status_code == 200
    headers = {"If-Match": header.format(tag=changed.headers["ETag"])}
    assert send("DELETE", budget_path(world.a1), world.owner, headers=headers).status_code == 204


@pytest.mark.parametrize("header", NOT_MATCHING)
def test_if_match_that_names_no_state_in_force_writes_nothing(engine, send, world, tag, header):
    headers = {"If-Match": header.format(tag=tag)}
    assert outcome(put_limit(send, world.a1, world.owner, 2, headers=headers)) == FAILED
    deleted = send("DELETE", budget_path(world.a1), world.owner, headers=headers)
    assert outcome(deleted) == FAILED
    assert read_row(engine, world.a1) == 1
    assert send("GET", budget_path(world.a1), world.owner).headers["ETag"] == tag


def test_an_upper_case_or_dashed_spelling_of_a_tag_is_another_tag(send, world, tag):
    bare = tag.strip('"')
    dashed = f"{bare[:8]}-{bare[8:12]}-{bare[12:16]}-{bare[16:20]}-{bare[20:]}"
    for other in (f'"{dashed}"', f'"{{{dashed}}}"', f'"urn:uuid:{dashed}"', f'" {bare}"'):
        headers = {"If-Match": other}
        assert outcome(put_limit(send, world.a1, world.owner, 2, headers=headers)) == FAILED


def test_a_put_with_if_match_where_there_is_no_row_is_412(engine, send, world):
    for header in ("*", '"x"', f'"{uuid4().hex}"'):
        headers = {"If-Match": header}
        assert outcome(put_limit(send, world.a1, world.owner, headers=headers)) == FAILED
    assert read_row(engine, world.a1) is None


def test_the_tag_of_another_groups_budget_is_no_tag_of_this_one(engine, send, world, tag):
    other = put_limit(send, world.a2, world.owner, 1).headers["ETag"]
    headers = {"If-Match": other}
    assert outcome(put_limit(send, world.a1, world.owner, 2, headers=headers)) == FAILED
    assert read_row(engine, world.a1) == 1


def test_a_tag_does_not_come_back_when_the_budget_is_deleted_and_set_again(send, world, tag):
    send("DELETE", budget_path(world.a1), world.owner)
    put_limit(send, world.a1, world.owner, 1)
    headers = {"If-Match": tag}
    assert outcome(put_limit(send, world.a1, world.owner, 2, headers=headers)) == FAILED


@pytest.mark.parametrize("header", ["*", "*, *", "*,*", '*, "x"', '"x", *'])
def test_if_none_match_star_creates_only(engine, send, world, header):
    """However often it is sent, and whatever tags come with it."""
    headers = {"If-None-Match": header}
    assert put_limit(send, world.a1, world.owner, 1, headers=headers).status_code == 200
    assert outcome(put_limit(send, world.a1, world.owner, 2, headers=headers)) == FAILED
    assert read_row(engine, world.a1) == 1
    send("DELETE", budget_path(world.a1), world.owner)
    assert put_limit(send, world.a1, world.owner, 3, headers=headers).status_code == 200


def test_if_none_match_with_a_tag_on_put_refuses_that_state_only(engine, send, world, tag):
    for header in (tag, f"W/{tag}", f'"x", {tag}'):
        headers = {"If-None-Match": header}
        assert outcome(put_limit(send, world.a1, world.owner, 2, headers=headers)) == FAILED
        deleted = send("DELETE", budget_path(world.a1), world.owner, headers=headers)
        assert outcome(deleted) == FAILED
    assert read_row(engine, world.a1) == 1
    headers = {"If-None-Match": '"x"'}
    assert put_limit(send, world.a1, world.owner, 2, headers=headers).status_code == 200


def test_both_conditions_must_hold(engine, send, world, tag):
    for headers in (
        {"If-Match": tag, "If-None-Match": "*"},
        {"If-Match": "*", "If-None-Match": "*"},
        {"If-Match": tag, "If-None-Match": tag},
        {"If-Match": '"x"', "If-None-Match": '"y"'},
    ):
        assert outcome(put_limit(send, world.a1, world.owner, 2, headers=headers)) == FAILED
        deleted = send("DELETE", budget_path(world.a1), world.owner, headers=headers)
        assert outcome(deleted) == FAILED
    assert read_row(engine, world.a1) == 1
    headers = {"If-Match": tag, "If-None-Match": '"x"'}
    assert put_limit(send, world.a1, world.owner, 2, headers=headers).status_code == 200


@pytest.mark.parametrize("header", ["{tag}", "W/{tag}", '"x", {tag}', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_reader_who_has_the_state_gets_304_with_the_etag_and_no_body(
    send, world, tag, method, header
):
    headers = {"If-None-Match": header.format(tag=tag)}
    response = send(method, budget_path(world.a1), world.member, headers=headers)
    assert (response.status_code, response.data) == (304, b"")
    assert response.headers["ETag"] == tag
    assert "Content-Type" not in response.headers


@pytest.mark.parametrize("header", ['"x"', "", "junk", f'"{UUID(int=4).hex}"'])
def test_a_reader_who_has_another_state_gets_the_budget(send, world, tag, header):
    headers = {"If-None-Match": header}
    response = send("GET", budget_path(world.a1), world.member, headers=headers)
    assert (response.status_code, response.headers["ETag"]) == (200, tag)


def test_304_is_for_readers_only(send, world, tag):
    """Someone who may not read learns nothing from a tag that they guessed."""
    headers = {"If-None-Match": "*"}
    refused = send("GET", budget_path(world.a1), world.outsider, headers=headers)
    assert outcome(refused) == (404, "group-not-found")
    absent = send("GET", budget_path(world.a2), world.owner, headers=headers)
    assert outcome(absent) == (404, "budget-not-set")


def test_of_several_writers_with_one_etag_one_wins(app, engine, send, world, tag):
    """Over sockets, from threads: one 200, the rest 412, and the row is the winner's."""
    headers = {
        "X-User": str(world.owner),
        "Content-Type": "application/json",
        "If-Match": tag,
    }
    path = f"/api/v2{budget_path(world.a1)}"
    with serve(app) as port:

        def write(index):
            body = b'{"spend_limit_micros": %d}' % (100 + index)
            return exchange(port, "PUT", path, headers=headers, body=body)

        for _ in range(3):
            results = together(6, write)
            statuses = [status for status, _, _ in results]
            assert sorted(statuses) == [200, 412, 412, 412, 412, 412]
            winner = statuses.index(200)
            assert read_row(engine, world.a1) == 100 + winner
            headers["If-Match"] = results[winner][1]["ETag"]


def test_of_several_creators_one_wins(engine, send, world):
    headers = {"If-None-Match": "*"}
    for group in (world.a1, world.a2, world.a):
        answers = together(
            6, lambda index, g=group: put_limit(send, g, world.owner, index, headers=headers)
        )
        statuses = [answer.status_code for answer in answers]
        assert sorted(statuses) == [200, 412, 412, 412, 412, 412]
        assert read_row(engine, group) == statuses.index(200)


def test_of_several_deleters_with_one_etag_one_wins(engine, send, world):
    for group in (world.a1, world.a2, world.a):
        headers = {"If-Match": put_limit(send, group, world.owner).headers["ETag"]}
        path = budget_path(group)
        answers = together(
            6,
            lambda _, p=path, h=headers: send("DELETE", p, world.owner, headers=h).status_code,
        )
        assert answers.count(204) == 1
        assert set(answers) <= {204, 404, 412}
        assert read_row(engine, group) is None


def test_unconditional_writers_all_succeed_and_the_last_one_stays(engine, send, world):
    answers = together(6, lambda index: put_limit(send, world.a1, world.owner, index))
    assert [answer.status_code for answer in answers] == [200] * 6
    last = max(answers, key=lambda answer: answer.json["updated_at"])
    assert read_row(engine, world.a1) == last.json["spend_limit_micros"]
    assert len({answer.headers["ETag"] for answer in answers}) == 6
