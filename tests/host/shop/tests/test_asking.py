"""A question counts against the asker's limit, and what does not fit is refused."""

from types import SimpleNamespace

import pytest

from shop.models import Company, Job, Person, Seat, Team, db


@pytest.fixture
def team(app):
    """A team of one person, in a company that a manager runs."""
    with app.app_context():
        company, member, manager = Company(name="A"), Person(name="member"), Person(name="manager")
        db.session.add_all([company, member, manager])
        db.session.flush()
        team = Team(company_id=company.id, name="a team")
        db.session.add(team)
        db.session.flush()
        db.session.add(Seat(team_id=team.id, person_id=member.id))
        for person, title in ((member, "clerk"), (manager, "manager")):
            db.session.add(Job(company_id=company.id, person_id=person.id, title=title))
        db.session.commit()
        return SimpleNamespace(id=team.id, company_id=company.id)


@pytest.fixture
def sign_in(app, team):
    def sign_in(name):
        client = app.test_client()
        client.post("/login", data={"name": name})
        return client

    return sign_in


@pytest.fixture
def ask(team, sign_in, joined):
    joined.set_price("acme", "parrot", input_price=1_000_000, output_price=1_000_000)
    client = sign_in("member")
    return lambda: client.post(f"/companies/{team.company_id}/ask", data={"question": "hello"})


def test_a_call_that_does_not_fit_is_refused(team, ask, joined):
    joined.set_limit(team.id, 3_000)
    answers = [ask(), ask()]
    assert [answer.status_code for answer in answers] == [200, 403]
    assert "limit 3000, spent 1700, held 0, asked 2000 micros" in answers[1].text


def test_a_manager_lets_it_go_on(team, ask, sign_in):
    manager = sign_in("manager")
    for limit, status in ((0, 403), (2_000, 200)):
        form = {"name": "the same", "limit": str(limit)}
        assert manager.post(f"/teams/{team.id}/form", data=form).status_code == 200
        assert ask().status_code == status


def test_a_member_sees_the_limit_and_does_not_set_it(team, sign_in, joined):
    member, path = sign_in("member"), f"/api/v2/groups/{team.id}/ai/budget"
    joined.set_limit(team.id, 5)
    assert member.get(path).json["spend_limit_micros"] == 5
    assert member.put(path, json={"spend_limit_micros": 6}).status_code == 403
    form = {"name": "mine", "limit": "6"}
    assert member.post(f"/teams/{team.id}/form", data=form).status_code == 403
