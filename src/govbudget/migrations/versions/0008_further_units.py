"""Holds and usage keep the whole price, and usage its counts of further units."""

from govbudget.migrations.sql import run_sql

revision = "0008"
down_revision = "0007"

# The function that prices them is made after all migrations.
upgrade = run_sql("""
ALTER TABLE {s}.ai_holds ADD COLUMN more jsonb;
ALTER TABLE {s}.ai_usage ADD COLUMN more jsonb, ADD COLUMN further_tokens jsonb
""")
