"""The policy and the decision: a strict reader, Casbin as the judge, the table, the grant."""
