"""The shop's tables: companies, people, teams, who sits in which team, who works where."""

from flask_login import UserMixin
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Company(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Person(UserMixin, db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Team(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    company_id: Mapped[int] = mapped_column(ForeignKey("company.id"))
    name: Mapped[str]


class Seat(db.Model):
    team_id: Mapped[int] = mapped_column(
        ForeignKey("team.id", ondelete="CASCADE"), primary_key=True
    )
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)


class Job(db.Model):
    company_id: Mapped[int] = mapped_column(ForeignKey("company.id"), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    title: Mapped[str]  # manager, clerk


def fill() -> None:
    """Add a few rows: ann and bob work at Acme, eve at Corp; ann sits in a team."""
    acme, corp = Company(name="Acme"), Company(name="Corp")
    ann, bob, eve = (Person(name=name) for name in ("ann", "bob", "eve"))
    db.session.add_all([acme, corp, ann, bob, eve])
    db.session.flush()  # now they have ids
    team = Team(company_id=acme.id, name="rosé")
    db.session.add_all([team, Team(company_id=corp.id, name="blue")])
    db.session.flush()
    db.session.add(Seat(team_id=team.id, person_id=ann.id))
    jobs = (acme, ann, "clerk"), (acme, bob, "manager"), (corp, eve, "manager")
    db.session.add_all(
        Job(company_id=company.id, person_id=person.id, title=title)
        for company, person, title in jobs
    )
    db.session.commit()
