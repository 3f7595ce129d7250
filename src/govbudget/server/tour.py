"""Steps over HTTP, each shown with its answer and what decided it, and compared with a plan."""

from __future__ import annotations

import http.client
import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import click

from govbudget.authz.policy import Policy
from govbudget.errors import SettingsError

WIDTH = 100
# What is shown of an answer, where it has it.
FIGURES = {
    "spend_limit_micros": "limit {}",
    "limit_source": "set by {}",
    "current_spend_micros": "spent {}",
    "held_micros": "held {}",
    "cost_micros": "cost {}",
    "calls": "{} calls",
    "period_end": "resets {}",
}
WORDS = {"group": "the group's budget", "user_override": "an override"}


@dataclass(frozen=True, slots=True)
class Step:
    """One request, and what is planned of its answer: the status, and some of its members.

    `{hold_id}` in the path is that of the last hold that was made.
    """

    person: str
    method: str
    path: str
    label: str
    status: int
    body: Mapping[str, Any] | None = None
    members: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Tour:
    """Takes steps at a server's address; `lines` are what the server prints, its log among them."""

    address: str
    lines: Iterator[str]
    policy: Policy
    tokens: Mapping[str, str]
    stories: Mapping[str, str]
    person: str = ""
    hold_id: str = ""

    def go(self, step: Step) -> bool:
        """Send the request, print its answer and why; say whether it was as planned."""
        if step.person != self.person:
            click.echo(f"\n{step.person}, {self.stories[step.person]}")
            self.person = step.person
        status, answer, request_id = self._send(step)
        self.hold_id = answer.get("hold_id") or self.hold_id
        start = f"  {step.method:<6} {step.label:<21} {status}  "
        why = explain(_find_record(self.lines, request_id), self.policy, answer)
        shown = textwrap.wrap(why, WIDTH - len(start), break_on_hyphens=False)
        click.echo(start + f"\n{' ' * len(start)}".join(shown))
        planned = dict(step.members or {})
        if status == step.status and planned.items() <= answer.items():
            return True
        click.echo(f"         EXPECTED {step.status} {planned or ''}; the answer was {answer}")
        return False

    def _send(self, step: Step) -> tuple[int, dict[str, Any], str | None]:
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=10)
        path = "/api/v2" + step.path.format(hold_id=self.hold_id)
        headers = {"Authorization": f"Bearer {self.tokens[step.person]}"}
        if step.body:
            headers["Content-Type"] = "application/json"
        content = json.dumps(step.body) if step.body else None
        connection.request(step.method, path, content, headers)
        response = connection.getresponse()
        answer = json.loads(response.read() or "{}")
        connection.close()
        return response.status, answer, response.headers["X-Request-Id"]


def read_records(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Read the server's log: a record a line, among whatever else it prints."""
    return (json.loads(line) for line in lines if line.startswith("{"))


def _find_record(lines: Iterator[str], request_id: str | None) -> dict[str, Any]:
    """Find the record of a request: it is written before the answer."""
    for record in read_records(lines):
        if record.get("request_id") == request_id:
            return record
    raise SettingsError("the server logged no line for a request")


def explain(record: Mapping[str, Any], policy: Policy, answer: Mapping[str, Any]) -> str:
    """Say what decided a request, and the answer's figures, in a few words."""
    lines = ", ".join(record.get("lines", ()))
    if record.get("decision") == "allow":
        why = f"allowed by {lines or 'a role in the organization'}"
        if "code" in answer:
            why += f", but {answer['code']}"
    elif record.get("decision") is None:
        is_refused = record["status"] >= HTTPStatus.BAD_REQUEST
        why = "refused before any decision" if is_refused else "needs no decision"
    elif not record["code"].endswith(("forbidden", "-not-found")):
        why = f"refused: {record['code']}"  # by a limit or a price, after the policy allowed it
    elif lines:
        why = f"denied by {lines}"
    else:
        roles = {line.name: line.role for line in policy.table.lines}
        names = [text.partition(" ")[0] for text in record.get("would_allow", ())]
        *most, last = [f"{roles[name]} ({name})" for name in names] or ["a new line"]
        why = f"denied: takes {', '.join(most)}{' or ' if most else ''}{last}"
    figures = [
        form.format(_show(name, answer[name]))
        for name, form in FIGURES.items()
        if answer.get(name) is not None
    ]
    return "; ".join([why, ", ".join(figures)] if figures else [why])


def _show(name: str, value: Any) -> str:  # noqa: ANN401 - of JSON
    """Show micros as dollars, a time as its day."""
    if name.endswith("_micros"):
        return f"${Decimal(value) / 10**6:.2f}"
    return WORDS.get(value) or str(value)[:10]
