"""`If-Match` and `If-None-Match` (RFC 9110, section 13), read into conditions of the store."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import UUID

from govbudget.budgets.budget import Budget, Condition

if TYPE_CHECKING:
    from flask import Request
    from werkzeug.datastructures import ETags


_REVISION = re.compile(r"[0-9a-f]{32}")


def read_condition(request: Request) -> Condition:
    """Read what the request demands of the budget. A tag that is not ours matches nothing."""
    wanted: ETags | None = request.if_match if "If-Match" in request.headers else None
    unwanted = request.if_none_match
    not_these = unwanted.as_set(include_weak=True)
    return Condition(
        must_exist=wanted is not None and wanted.star_tag,
        must_be=None if wanted is None or wanted.star_tag else _revisions(wanted.as_set()),
        # Of a star that is not alone (sent twice, say) Werkzeug makes a tag.
        must_not_exist=unwanted.star_tag or "*" in not_these,
        must_not_be=_revisions(not_these),
    )


def is_unchanged(request: Request, budget: Budget) -> bool:
    """Whether the caller of a GET has this version already (`If-None-Match`)."""
    if "HTTP_IF_NONE_MATCH" not in request.environ:
        return False
    return request.if_none_match.contains_weak(budget.etag)


def _revisions(tags: set[str]) -> tuple[UUID, ...]:
    # Werkzeug reads the empty tag `""` as None.
    return tuple(UUID(hex=tag) for tag in tags if tag and _REVISION.fullmatch(tag))
