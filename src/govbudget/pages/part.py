"""What pages add to an application: a blueprint of their own, beside the API's."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flask import Blueprint, Response, g

from govbudget.db.databases import Databases
from govbudget.errors import GovBudgetError
from govbudget.identity import Action, Id
from govbudget.pages import people, policy, spend, views
from govbudget.pages.render import STYLE, STYLE_PATH, Renderer
from govbudget.spend.report_view import take_turn
from govbudget.web import requestlog
from govbudget.web.blueprint import answer_failure, fill_blueprint, find_caller, serve
from govbudget.web.call import Route, Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from govbudget.spend.installation import Installation

    More = Callable[["Renderer"], "Handlers"]
    Handlers = dict[str, dict[str, Callable[[dict[str, str]], Response]]]

NAME = "govbudget_pages"
_READ, _UPDATE = Action.READ, Action.UPDATE
_GROUPS = Target.GROUPS_OF_ORGANIZATION

# Not about one object: the view finds the organization, and is given no grant.
MINE = Route("GET", "/", Target.MEMBER, _READ, people.show_mine)  # type: ignore[arg-type]
ROUTES: tuple[Route, ...] = (
    Route("GET", "/organizations/<organization>", _GROUPS, _READ, people.show_organization),
    Route("GET", "/groups/<group>", Target.GROUP, _READ, people.show_group),
    Route(
        *("GET", "/organizations/<organization>/spend", _GROUPS, _READ, spend.show_spend),
        turn=take_turn,
    ),
    Route("GET", "/organizations/<organization>/audit", _GROUPS, _UPDATE, views.show_audit),
    Route("GET", "/prices", Target.PRICE_BOOK, _READ, views.show_prices),
    Route("GET", "/policy", Target.POLICY, _READ, policy.show_policy),
    Route("GET", "/policy/explain", Target.POLICY, _READ, policy.show_explain),
)


def make_blueprint(
    gov: Installation,
    prefix: str,
    identify: Callable[[], object] | None = None,
    more: More | None = None,
    sign_in: Callable[..., Response] | None = None,
) -> Blueprint:
    """Make the blueprint of the pages under a path.

    `identify` gives the caller's id, or None; by default the installation's own does. `more` gives
    further paths of the blueprint, and `sign_in` answers whoever is not signed in. A failure is a
    page in the shape of our own, with the status and the headers that the API's answer has.
    """
    renderer = Renderer(gov, prefix, may_sign_out=more is not None)
    given = identify or gov.identify
    paths: Handlers = {STYLE_PATH: {"GET": lambda _: Response(STYLE, mimetype="text/css")}}
    names = {STYLE_PATH: "style"}
    for route in (MINE, *ROUTES):
        paths[route.path] = {"GET": partial(_show, gov, renderer, route, given)}
        names[route.path] = route.view.__name__.partition("_")[2]
    for path, handlers in (more(renderer) if more else {}).items():
        paths[path] = handlers
        names[path] = path.strip("/").replace("-", "_")

    def answer(error: Exception) -> Response:
        if sign_in and isinstance(error, GovBudgetError) and error.code == "unauthenticated":
            return sign_in(status=401)
        return renderer.render_problem(answer_failure(error, gov.challenge))

    def finish(response: Response) -> Response:
        return requestlog.finish_record(renderer.finish(response))

    blueprint = Blueprint(NAME, __name__, url_prefix=prefix or None)
    return fill_blueprint(blueprint, paths, names, answer, finish)


def _show(
    gov: Installation,
    renderer: Renderer,
    route: Route,
    identify: Callable[[], object],
    path: dict[str, str],
) -> Response:
    """Take a request through the checks of the API, and render what the view gave."""
    mine: people.Mine | None = None

    def look(caller: Id) -> Id | None:
        """Find which organization's database has what the page shows."""
        nonlocal mine

        def require_same(organization: Id | None) -> None:
            """Ask that database who calls: a token may be revoked there alone."""
            g.govbudget_organization = organization
            if find_caller(gov, identify) != caller:
                raise GovBudgetError("unauthenticated", "sign in again")

        if isinstance(gov.databases, Databases):
            mine = people.look_everywhere(gov, gov.databases, caller, require_same)
        organization = people.find_asked(gov, () if mine is None else mine.organizations)
        if gov.databases is not None:
            require_same(organization)
        return organization

    answer = partial(serve, gov, route, path, answer=renderer.render, identify=identify)
    if route is MINE:
        return answer(look=look, act=lambda unit: people.show_mine(gov, unit, mine))
    return answer()
