"""Pages as HTML: our own base template and its policy, or the host's base and no policy of ours."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from flask import Response, request
from jinja2 import BaseLoader, ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from govbudget.pages.words import Clock, say_day, write_briefly, write_exactly, write_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from govbudget.identity import Id
    from govbudget.spend.installation import Installation

HERE = Path(__file__).parent
STYLE = (HERE / "style.css").read_bytes()
STYLE_PATH = "/style.css"
STYLE_DIGEST = hashlib.sha256(STYLE).hexdigest()[:16]
# No script, no frame, no picture, no font: our stylesheet, and forms that come back to us.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
FILTERS: Mapping[str, Callable[..., str]] = {
    "briefly": write_briefly,
    "exactly": write_exactly,
    "limit": write_limit,
    "day": say_day,
}


@dataclass(frozen=True, slots=True)
class Page:
    """What a view gives: a template, its values, and the links of the page's head."""

    template: str
    title: str
    values: dict[str, Any]
    links: tuple[tuple[str, str], ...] = ()
    names: Mapping[tuple[str, Id], str] = field(default_factory=dict)
    status: int = 200


class Renderer:
    """Makes responses of pages for one installation, under one prefix."""

    def __init__(self, gov: Installation, prefix: str, *, may_sign_out: bool) -> None:
        """Take the path that the pages are under; reads no template."""
        self.gov, self.prefix, self.may_sign_out = gov, prefix, may_sign_out
        self.base = gov.settings.base_template

    @cached_property
    def environment(self) -> Environment:
        """Our own environment; with a host's base template, one that has the host's, too."""
        ours: list[BaseLoader] = [FileSystemLoader(HERE / "templates")]
        if self.base is None:
            environment = Environment(
                autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
            )
        else:
            of_host = self.gov.app.jinja_env
            environment = of_host.overlay(autoescape=True)
            ours = [*ours, of_host.loader] if of_host.loader else ours
        environment.loader = ChoiceLoader(ours)
        environment.filters = {**environment.filters, **FILTERS}
        return environment

    def url(self, path: str, **query: object) -> str:
        """Give the URL of one of our pages."""
        given = {name: value for name, value in query.items() if value is not None}
        text = f"?{urlencode(given, doseq=True)}" if given else ""
        return quote(f"{request.script_root}{self.prefix}{path}") + text

    def turn(self, token: str | None) -> str | None:
        """Give the URL of this page with another token of a list, if there is one."""
        asked = {name: request.args.getlist(name) for name in request.args}
        if token is None:
            return None
        path = quote(request.script_root + request.path)
        return f"{path}?{urlencode({**asked, 'page_token': token}, doseq=True)}"

    def render(self, page: Page | Response) -> Response:
        """Make the response; what is one already stays as it is."""
        if isinstance(page, Response):
            return page

        def name(kind: str, its_id: Id | None) -> str:
            return page.names.get((kind, its_id), str(its_id)) if its_id is not None else "none"

        values = {
            **page.values,
            "title": page.title,
            "links": [(text, self.url(path)) for text, path in page.links],
            "layout": self.base or "govbudget/base.html",
            "is_framed": self.base is not None,
            "style": self.url(STYLE_PATH, v=STYLE_DIGEST),
            "here": quote(request.script_root + request.path),
            "url": self.url,
            "turn": self.turn,
            "clock": Clock(self.gov.settings.time_zone),
            "name": name,
            "sign_out": self.url("/sign-out") if self.may_sign_out else None,
        }
        if self.base is not None:
            self.gov.app.update_template_context(values)
        template = self.environment.get_template(f"govbudget/{page.template}.html")
        return Response(template.render(values), page.status, mimetype="text/html")

    def render_problem(self, problem: Response) -> Response:
        """Make a page of an answer of the API that says what is wrong; the rest stays as it is."""
        if problem.mimetype != "application/problem+json":
            return problem
        said = json.loads(problem.get_data())
        response = self.render(Page("problem", said["title"].capitalize(), {"problem": said}))
        response.status_code = problem.status_code
        for key, value in problem.headers:
            if key.lower() not in {"content-type", "content-length"}:
                response.headers[key] = value
        return response

    def finish(self, response: Response) -> Response:
        """Set the headers of every answer."""
        response.headers.update(HEADERS)
        if response.mimetype == "text/css":
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        else:
            response.headers["Cache-Control"] = "no-store"
        if self.base is None:
            response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response
