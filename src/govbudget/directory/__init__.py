"""The Directory over SQL: govbudget's own tables, or tables that the host names."""
