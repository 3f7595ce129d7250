"""Where upgrades start: the last revision that was made by steps. Nothing older was released."""

revision = "0004"
down_revision = None
