"""The shop's database: companies, people, teams, who is in which team, who works where."""

import os

import sqlalchemy as sa

engine = sa.create_engine(os.environ["SHOP_DATABASE"])
metadata = sa.MetaData()

company = sa.Table(
    "company",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
)
person = sa.Table(
    "person",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
)
team = sa.Table(
    "team",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("company_id", sa.ForeignKey("company.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
)
seat = sa.Table(
    "seat",
    metadata,
    sa.Column("team_id", sa.ForeignKey("team.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("person_id", sa.ForeignKey("person.id"), primary_key=True),
)
job = sa.Table(
    "job",
    metadata,
    sa.Column("company_id", sa.ForeignKey("company.id"), primary_key=True),
    sa.Column("person_id", sa.ForeignKey("person.id"), primary_key=True),
    sa.Column("title", sa.Text, nullable=False),  # manager, clerk
)

# ann and bob work at Acme, eve at Corp.
ROWS = """
    INSERT INTO company (name) VALUES ('Acme'), ('Corp');
    INSERT INTO person (name) VALUES ('ann'), ('bob'), ('eve');
    INSERT INTO team (company_id, name) VALUES (1, 'rosé'), (2, 'blue');
    INSERT INTO seat (team_id, person_id) VALUES (1, 1);
    INSERT INTO job (company_id, person_id, title)
    VALUES (1, 1, 'clerk'), (1, 2, 'manager'), (2, 3, 'manager');
"""


def fill() -> None:
    """Make the tables, with a few rows to try them with."""
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.exec_driver_sql(ROWS)
