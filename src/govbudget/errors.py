"""The errors of the core, and the code, HTTP status and title of every error."""

from __future__ import annotations

import copyreg
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from govbudget.identity import Action

# How many places an error lists.
MAX_ERRORS = 50

# code -> (HTTP status, title: when it occurs). Codes are stable: people script against them.
CATALOGUE = {
    code: (HTTPStatus(status), title)
    for code, (status, title) in {
        "bad-request": (400, "the server could not parse the request"),
        "input-invalid": (400, "a command or a Python call was given a value that it can't take"),
        "invalid-body": (400, "the body is not JSON, or breaks the rules of its fields"),
        "invalid-id": (400, "an id in the path is not of the id type"),
        "invalid-query": (400, "a query parameter is unknown, repeated or wrong"),
        "not-a-member": (400, "the user is not a member of what was named"),
        "organization-required": (400, "several databases, and the hold's id names none of them"),
        "unauthenticated": (401, "the credentials are missing or bad"),
        "budget-exceeded": (403, "the call does not fit under the member's limit"),
        "feature-disabled": (403, "the feature is off, for every caller alike"),
        "forbidden": (403, "the caller may not do this"),
        "unpriced-model": (403, "the call's cost is not wholly known, and the member has a limit"),
        "budget-not-set": (404, "the group has no budget"),
        "event-not-found": (404, "no such event"),
        "group-not-found": (404, "no such group for this caller"),
        "hold-not-found": (404, "no such hold"),
        "member-not-found": (404, "no such member for this caller"),
        "not-found": (404, "no such path"),
        "organization-not-found": (404, "no such organization for this caller"),
        "override-not-set": (404, "the member has no override"),
        "price-not-found": (404, "no price is known for this provider and model"),
        "method-not-allowed": (405, "the path has no such method"),
        "hold-closed": (409, "the hold was settled or released"),
        "hold-conflict": (409, "the id is of a hold that was asked for otherwise"),
        "event-corrected": (409, "the event was corrected by another one"),
        "event-conflict": (409, "the event is recorded otherwise, or another one settled its hold"),
        "group-changed": (409, "the group moved or was deleted after the decision"),
        "price-jump": (409, "a price moves by more than a factor of 20, and jumps are not allowed"),
        "several-databases": (409, "there are several databases, and this would write to one"),
        "precondition-failed": (412, "`If-Match` or `If-None-Match` does not hold"),
        "body-too-large": (413, "the body is larger than this endpoint takes"),
        "unsupported-media-type": (
            415,
            "the body is not `application/json` in UTF-8, uncompressed",
        ),
        "grant-refused": (500, "a store was given a grant that does not cover the work"),
        "hold-not-ended": (500, "a block of `hold` ended without settle, count or release"),
        "internal-error": (500, "the server failed; its log says more"),
        "policy-invalid": (500, "the policy has findings"),
        "settings-invalid": (500, "a setting is unknown, missing or wrong"),
        "organization-unknown": (501, "several databases, and nothing says whose a group is"),
        "unavailable": (503, "the database is away, busy or too slow"),
    }.items()
}


class GovBudgetError(Exception):
    """The base of every error of govbudget.

    `code` is stable and a key of `CATALOGUE`; `detail` is a sentence for people.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it be pickled and copied, as a pool of processes or a task queue does."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    @property
    def status(self) -> HTTPStatus:
        """The HTTP status of this error's code."""
        return CATALOGUE[self.code][0]

    @property
    def title(self) -> str:
        """The title of this error's code: the same for every error with that code."""
        return CATALOGUE[self.code][1]

    @property
    def members(self) -> dict[str, Any]:
        """What a problem (RFC 9457) says beyond code, title and detail, as JSON has it."""
        return {}


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
        self, action: Action, lines: tuple[str, ...], would_allow: tuple[str, ...], hint: str = ""
    ) -> None:
        super().__init__(
            "forbidden", f"this needs the action `{action}`, which you do not have here{hint}"
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
    """An input (a body, a query, a file) breaks its rules.

    `errors` names the places, the first MAX_ERRORS of them.
    """

    def __init__(
        self, detail: str, errors: Sequence[FieldError] = (), code: str = "invalid-body"
    ) -> None:
        """Take a sentence about the whole and the errors found in its parts."""
        super().__init__(code, detail)
        self.errors = tuple(errors[:MAX_ERRORS])

    @property
    def members(self) -> dict[str, Any]:
        """Each place that is wrong."""
        return {"errors": [{"pointer": e.pointer, "detail": e.detail} for e in self.errors]}


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
