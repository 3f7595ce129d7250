"""Holds and usage say whose price they have, where a rule found it."""

from govbudget.migrations.sql import run_sql

revision = "0010"
down_revision = "0009"

# What is there had prices of its own name alone.
upgrade = run_sql("""
ALTER TABLE {s}.ai_holds ADD COLUMN priced_as text[];
ALTER TABLE {s}.ai_usage ADD COLUMN priced_as text[]
""")
