"""The database: tables, units of work, grants, and the statements that only a grant runs."""
