"""Pages as HTML: our own base template and its policy, or the host's base and no policy of ours.

Our templates are rendered by themselves. A template of the host's has the result in its blocks, and
of our values it sees one name, `govbudget_page`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from flask import Response, render_template, request
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, TemplateNotFound
from markupsafe import Markup

from govbudget.errors import SettingsError
from govbudget.pages.words import Clock, say_day, write_briefly, write_exactly, write_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from govbudget.identity import Id
    from govbudget.spend.installation import Installation

logger = logging.getLogger("govbudget")

HERE = Path(__file__).parent
FRAME = HERE / "templates/govbudget/frame.html"
STYLE = (HERE / "style.css").read_bytes()
STYLE_PATH = "/style.css"
STYLE_DIGEST = hashlib.sha256(STYLE).hexdigest()[:16]
# No script, no frame, no picture, no font: our stylesheet, and forms that come back to us.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
MAIN = "govbudget-main"  # the id of what a page is about
# What a host may have changed, so that templates can hold those of JavaScript.
MARKS = (
    *("block_start_string", "block_end_string"),
    *("variable_start_string", "variable_end_string"),
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
        """Our own environment, which the host's settings of Jinja don't reach."""
        environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        environment.filters.update(FILTERS)
        return environment

    @cached_property
    def frame(self) -> Template:
        """What puts a page into the host's base template, in the host's own environment."""
        text, of_host = FRAME.read_text("utf-8"), self.gov.app.jinja_env
        for name in MARKS:
            text = text.replace(getattr(self.environment, name), getattr(of_host, name))
        return of_host.from_string(text)

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
        return page if isinstance(page, Response) else self._render(page, self.base)

    def _render(self, page: Page, base: str | None) -> Response:
        def name(kind: str, its_id: Id | None) -> str:
            return page.names.get((kind, its_id), str(its_id)) if its_id is not None else "none"

        values = {
            **page.values,
            "title": page.title,
            "links": [(text, self.url(path)) for text, path in page.links],
            "layout": f"govbudget/{'bare' if base else 'base'}.html",
            "is_framed": base is not None,
            "style": self.url(STYLE_PATH, v=STYLE_DIGEST),
            "here": quote(request.script_root + request.path),
            "url": self.url,
            "turn": self.turn,
            "clock": Clock(self.gov.settings.time_zone),
            "name": name,
            "sign_out": self.url("/sign-out") if self.may_sign_out else None,
        }
        text = self.environment.get_template(f"govbudget/{page.template}.html").render(values)
        if base is not None:
            ours = {"base": base, "content": Markup(text), "title": page.title}  # noqa: S704 - escaped
            text = self._put_into_frame({**ours, "style": values["style"]})
        return Response(text, page.status, mimetype="text/html")

    def _put_into_frame(self, ours: dict[str, str]) -> str:
        """Put a page into the host's template. Only now are all of the host's templates there."""
        named = f"GOVBUDGET_BASE_TEMPLATE is `{ours['base']}`"
        try:
            text = render_template(self.frame, govbudget_page=ours)
        except TemplateNotFound as error:
            if error.name != ours["base"]:
                raise
            raise SettingsError(
                f"{named}, which `{self.gov.app.name}` has no template of; give a name that its "
                "`render_template` finds"
            ) from error
        if MAIN not in text:
            raise SettingsError(f"{named}, which has no block `content`; add one for the page")
        return text

    def render_problem(self, problem: Response) -> Response:
        """Make a page of an answer of the API that says what is wrong; the rest stays as it is."""
        if problem.mimetype != "application/problem+json":
            return problem
        said = json.loads(problem.get_data())
        title, status = said["title"].capitalize(), problem.status_code
        page = Page("problem", title, {"problem": said}, status=status)
        try:
            response = self._render(page, self.base)
        except Exception:
            logger.exception("a problem is shown without the base template, which failed")
            response = self._render(page, None)
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
