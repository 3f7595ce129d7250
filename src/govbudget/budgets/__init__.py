"""Budgets: one limit a group at most, behind a grant."""
