"""The policy and the decision: a strict reader, Casbin as the evaluator, the decision table."""
