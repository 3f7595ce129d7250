"""`If-Match` and `If-None-Match` (RFC 9110, section 13), read into conditions of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from govbudget.budgets.budget import Condition

if TYPE_CHECKING:
    from flask import Request
    from werkzeug.datastructures import ETags

    from govbudget.budgets.budget import Budget


def read_condition(request: Request) -> Condition:
    """Read what the request demands of the budget. A tag that is not ours matches nothing."""
    wanted: ETags | None = request.if_match if "If-Match" in request.headers else None
    unwanted = request.if_none_match
    return Condition(
        must_exist=wanted is not None and wanted.star_tag,
        must_be=None if wanted is None or wanted.star_tag else _revisions(wanted.as_set()),
        must_not_exist=unwanted.star_tag,
        must_not_be=_revisions(unwanted.as_set(include_weak=True)),
    )


def is_unchanged(request: Request, budget: Budget) -> bool:
    """Whether the caller of a GET has this version already (`If-None-Match`)."""
    tags = request.if_none_match
    return "If-None-Match" in request.headers and tags.contains_weak(budget.etag)


def _revisions(tags: set[str]) -> tuple[UUID, ...]:
    revisions = []
    for tag in tags:
        try:
            revision = UUID(hex=tag)
        except ValueError:
            continue
        if revision.hex == tag:
            revisions.append(revision)
    return tuple(revisions)
