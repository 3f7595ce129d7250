"""The audit trail: what changed, by whom, allowed by which lines; written with the change."""
