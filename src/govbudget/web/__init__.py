"""The blueprint: routes, the order of checks, problem details, preconditions, pages."""
