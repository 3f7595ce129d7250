"""A part: the stand-alone server, and what it needs: tokens, a directory file, PostgreSQL."""
