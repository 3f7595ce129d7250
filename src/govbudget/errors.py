"""Every error that govbudget raises, with its stable code, HTTP status and sentence."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from govbudget.identity import Action, Id

# code -> (HTTP status, title). Codes are stable: people script against them.
CATALOGUE: dict[str, tuple[HTTPStatus, str]] = {
    "unauthenticated": (HTTPStatus.UNAUTHORIZED, "authentication is required"),
    "invalid-id": (HTTPStatus.BAD_REQUEST, "an id in the path is malformed"),
    "invalid-query": (HTTPStatus.BAD_REQUEST, "a query parameter is invalid"),
    "invalid-body": (HTTPStatus.BAD_REQUEST, "the request body is invalid"),
    "bad-request": (HTTPStatus.BAD_REQUEST, "the request is malformed"),
    "feature-disabled": (HTTPStatus.FORBIDDEN, "the feature is off"),
    "budget-exceeded": (HTTPStatus.FORBIDDEN, "the budget is exceeded"),
    "unpriced-model": (HTTPStatus.FORBIDDEN, "the model has no price"),
    "not-a-member": (HTTPStatus.BAD_REQUEST, "the user is not a member"),
    "forbidden": (HTTPStatus.FORBIDDEN, "the caller may not do this"),
    "not-found": (HTTPStatus.NOT_FOUND, "no such path"),
    "group-not-found": (HTTPStatus.NOT_FOUND, "no such group"),
    "organization-not-found": (HTTPStatus.NOT_FOUND, "no such organization"),
    "price-not-found": (HTTPStatus.NOT_FOUND, "no such price"),
    "member-not-found": (HTTPStatus.NOT_FOUND, "no such member"),
    "hold-not-found": (HTTPStatus.NOT_FOUND, "no such hold"),
    "override-not-set": (HTTPStatus.NOT_FOUND, "the member has no override"),
    "budget-not-set": (HTTPStatus.NOT_FOUND, "the group has no budget"),
    "method-not-allowed": (HTTPStatus.METHOD_NOT_ALLOWED, "the path has no such method"),
    "event-conflict": (HTTPStatus.CONFLICT, "the event is known with other contents"),
    "group-changed": (HTTPStatus.CONFLICT, "the group changed meanwhile"),
    "precondition-failed": (HTTPStatus.PRECONDITION_FAILED, "a precondition failed"),
    "body-too-large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the request body is too large"),
    "unsupported-media-type": (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must be JSON"),
    "internal-error": (HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed"),
    "unavailable": (HTTPStatus.SERVICE_UNAVAILABLE, "the service is unavailable"),
    "policy-invalid": (HTTPStatus.INTERNAL_SERVER_ERROR, "the policy is invalid"),
    "settings-invalid": (HTTPStatus.INTERNAL_SERVER_ERROR, "the settings are invalid"),
    "grant-refused": (HTTPStatus.INTERNAL_SERVER_ERROR, "a store refused a grant"),
    "input-invalid": (HTTPStatus.BAD_REQUEST, "the input is invalid"),
}


class GovBudgetError(Exception):
    """The base of every error of govbudget.

    `code` is stable and a key of `CATALOGUE`; `detail` is a sentence for people.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail

    @property
    def status(self) -> HTTPStatus:
        """The HTTP status of this error's code."""
        return CATALOGUE[self.code][0]

    @property
    def title(self) -> str:
        """The title of this error's code: the same for every error with that code."""
        return CATALOGUE[self.code][1]


class NotFound(GovBudgetError):
    """The thing is not there, or the caller may not know that it is."""

    def __init__(self, what: str, would_allow: tuple[str, ...] = ()) -> None:
        """Take `group`, `organization`, `member`, `hold`, `price`, `budget` or `override`.

        `would_allow` names the policy lines that would have allowed the act; it is for the
        log and never part of an answer.
        """
        code = f"{what}-not-set" if what in {"budget", "override"} else f"{what}-not-found"
        details = {
            "budget": "the group has no budget; PUT one to set it",
            "override": "the member has no override; PUT one to set it",
            "price": "no price is known for this provider and model",
        }
        super().__init__(code, details.get(what, f"no such {what}, or nothing you may do with it"))
        self.would_allow = would_allow


class Forbidden(GovBudgetError):
    """The caller may know of the object but not do this to it."""

    def __init__(
        self, action: Action, lines: tuple[str, ...], would_allow: tuple[str, ...]
    ) -> None:
        super().__init__(
            "forbidden", f"this needs the action `{action}`, which you do not have here"
        )
        self.action = action
        self.lines = lines
        self.would_allow = would_allow


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong at one place of an input: a JSON pointer or parameter, and a sentence."""

    pointer: str
    detail: str


class InvalidInput(GovBudgetError):
    """An input (a body, a query, a file) breaks its rules; `errors` names each place."""

    def __init__(
        self, detail: str, errors: Sequence[FieldError] = (), code: str = "invalid-body"
    ) -> None:
        """Take a sentence about the whole and the errors found in its parts."""
        super().__init__(code, detail)
        self.errors = tuple(errors)


class PreconditionFailed(GovBudgetError):
    """`If-Match` or `If-None-Match` does not hold; nothing was written."""

    def __init__(self) -> None:
        super().__init__(
            "precondition-failed", "the budget is not in the state that you named; GET it again"
        )


class GroupChanged(GovBudgetError):
    """The group moved to another organization, or went, after the decision; nothing was written."""

    def __init__(self) -> None:
        super().__init__("group-changed", "the group moved or was deleted meanwhile; try again")


class BudgetExceeded(GovBudgetError):
    """A call does not fit under the member's limit; nothing was held.

    `limit_source` is `group` or `user_override`, `group_id` the group that it names; costs are
    picos (1 USD = 10^12). Tells of nobody but the member.
    """

    def __init__(
        self,
        *,
        limit_micros: int,
        limit_source: str,
        group_id: Id,
        spent_picos: int,
        held_picos: int,
        cost_picos: int,
        period_end: datetime,
    ) -> None:
        super().__init__(
            "budget-exceeded", "this call does not fit under the member's limit for the period"
        )
        self.limit_micros = limit_micros
        self.limit_source = limit_source
        self.group_id = group_id
        self.spent_picos = spent_picos
        self.held_picos = held_picos
        self.cost_picos = cost_picos
        self.period_end = period_end


class UnpricedModel(GovBudgetError):
    """The cost of a call is not known, and the member has a limit; nothing was held."""

    def __init__(self, provider: str, model: str) -> None:
        super().__init__(
            "unpriced-model",
            f"`{provider}` `{model}` has no price for all of these tokens; set one, or let unpriced"
            " calls pass with the setting GOVBUDGET_UNPRICED",
        )


class NotAMember(GovBudgetError):
    """The user is not a member of the organization or group that was named."""

    def __init__(self) -> None:
        super().__init__("not-a-member", "the user is not a member there")


class EventConflict(GovBudgetError):
    """The event is known with other contents, or its hold was settled by another event."""

    def __init__(self, event_id: str) -> None:
        super().__init__(
            "event-conflict",
            f"the event `{event_id}` was booked with other contents, or its hold by another event",
        )


class GrantRefused(GovBudgetError):
    """A store was handed a grant that does not cover what it was asked: a programming error."""

    def __init__(self, detail: str) -> None:
        super().__init__("grant-refused", detail)


class SettingsError(GovBudgetError):
    """A setting is missing, unknown or malformed; the text names it and says what to do."""

    def __init__(self, detail: str) -> None:
        super().__init__("settings-invalid", detail)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One defect of a policy: where it is, its stable code, and a sentence about it.

    `line` is 1-based; 0 stands for the file as a whole.
    """

    file: str
    line: int
    code: str
    sentence: str

    def __str__(self) -> str:
        """Give `file:line: code: sentence`."""
        return f"{self.file}:{self.line}: {self.code}: {self.sentence}"


class PolicyError(GovBudgetError):
    """A policy was refused; `findings` holds every defect, in the order of the files and lines."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        noun = "1 finding" if len(self.findings) == 1 else f"{len(self.findings)} findings"
        listing = "\n".join(str(finding) for finding in self.findings)
        super().__init__("policy-invalid", f"the policy has {noun}:\n{listing}")
