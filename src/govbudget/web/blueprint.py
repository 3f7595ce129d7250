"""The blueprint: every request to a route of ours, through the checks in their one order.

path -> method -> caller -> ids -> feature -> directory (one statement) -> decision -> body -> view.
The view sends its statement.
"""

from __future__ import annotations

import logging
import re
from functools import cache, lru_cache, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import PathConverter, Rule

from govbudget.db.retries import explain_outage
from govbudget.errors import Forbidden, GovBudgetError, NotFound, SettingsError
from govbudget.ids import IdType
from govbudget.web import requestlog
from govbudget.web.call import ME, AuthorizedRequest, Route, Target, read_body, receive, respond
from govbudget.web.destination import find_destination
from govbudget.web.problems import answer_empty, answer_error, answer_http_error, dump_json
from govbudget.web.signals import access_denied, send

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flask.sansio.blueprints import BlueprintSetupState

    from govbudget.db.unit import Grant, Unit
    from govbudget.identity import Id
    from govbudget.installation import Installation

    Handler = Callable[[dict[str, str]], Response]

logger = logging.getLogger("govbudget")

# What `Unit.authorize` calls the objects that a path names no id of.
_WITHOUT_ID = {Target.PRICE_BOOK: "prices", Target.LEDGER: "ledger", Target.POLICY: "policy"}

NAME = "govbudget"
DOCUMENT = "/openapi.json"
_VARIABLE = re.compile("<[^>]*>")


class _Rest(PathConverter):
    """The rest of a path, whatever it holds: slashes anywhere, newlines, or nothing."""

    regex = "(?s:.*?)"
    part_isolating = False


class _Methods(set[str]):
    """The methods of a path of ours; any other one counts as taken too, for our view to refuse.

    Werkzeug would refuse it before Flask knows the blueprint, in the host's words. Not taken is
    what the host itself answers on this path, and `--`, which asks for the methods of a path. A
    path that `gives_way` is the host's wherever the host has it, too.
    """

    def __init__(self, rule: Rule, *, gives_way: bool) -> None:
        super().__init__(rule.methods or ())
        self._rule, self._gives_way = rule, gives_way

    def __contains__(self, method: object) -> bool:
        if super().__contains__(method) and not self._gives_way:
            return True
        return method not in {"--", *_find_methods(self._rule, but=self._rule)}


def _find_methods(rule: Rule, *, but: Rule | None = None) -> set[str]:
    """Find all methods of a rule's path: the host may have added some of its own."""

    def read_shape(rule: Rule) -> tuple[str | None, str]:
        return rule.subdomain, _VARIABLE.sub("<>", rule.rule)

    shape = read_shape(rule)
    same = (other for other in rule.map.iter_rules() if read_shape(other) == shape)
    return {method for other in same if other is not but for method in other.methods or ()}


def make_blueprint(gov: Installation) -> Blueprint:
    """Make the blueprint of one application. It answers nothing but its own routes."""
    paths: dict[str, dict[str, Handler]] = {DOCUMENT: {"GET": _show_document(gov)}}
    names = {DOCUMENT: "openapi"}
    for route in gov.routes:
        paths.setdefault(route.path, {})[route.method] = partial(_answer, gov, route)
        names.setdefault(route.path, route.view.__name__.partition("_")[2])

    def finish(response: Response) -> Response:
        response.headers["Cache-Control"] = "no-store"
        if gov.settings.expose_policy_digest:
            response.headers["Govbudget-Policy-Digest"] = gov.policy.digest
        return requestlog.finish_record(response)

    blueprint = Blueprint(NAME, __name__, url_prefix=gov.settings.url_prefix)
    return fill_blueprint(
        blueprint, paths, names, lambda error: answer_failure(error, gov.challenge), finish
    )


def fill_blueprint(
    blueprint: Blueprint,
    paths: Mapping[str, Mapping[str, Handler]],
    names: Mapping[str, str],
    answer: Callable[[Exception], Response],
    finish: Callable[[Response], Response],
) -> Blueprint:
    """Give a blueprint its paths: handlers by method, and the name of the endpoint.

    `answer` answers whatever a handler raises, and a method that the path does not have; `finish`
    is the last to see each response.
    """
    name = blueprint.name

    def register(state: BlueprintSetupState) -> None:
        if not state.first_registration:
            raise SettingsError(f"the blueprint `{name}` is registered already; register it once")
        url_map = state.app.url_map
        of_host = url_map.converters
        url_map.converters = {**of_host, "rest": _Rest}
        for path, handlers in paths.items():
            view = _guard(_make_view(handlers), answer)
            # Extensions tell views by their names: one that is exempt from a check is so alone.
            view.__name__ = view.__qualname__ = f"{name}_{names[path]}"
            # A path has one spelling, whatever the host's own slashes mean.
            options = {"strict_slashes": True, "merge_slashes": False}
            state.add_url_rule(path, names[path], view, methods=[*handlers, "OPTIONS"], **options)
            for rule in url_map.iter_rules(f"{name}.{names[path]}"):
                rule.methods = _Methods(rule, gives_way=path == DOCUMENT)
        url_map.converters = of_host  # our rules have ours by now

    blueprint.record(register)
    blueprint.after_request(finish)
    blueprint.register_error_handler(Exception, answer)
    return blueprint


def answer_failure(error: Exception, challenge: str) -> Response:
    """Answer any failure under the prefix with a problem; what is our own fault is logged."""
    if isinstance(error, HTTPException):
        if isinstance(error.response, Response):
            return error.response  # the host's own answer
        return answer_http_error(error, challenge)
    known = error if isinstance(error, GovBudgetError) else explain_outage(error)
    if known is None or known.status is HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("a request failed%s", f": {known}" if known else "", exc_info=error)
        known = GovBudgetError("internal-error", "the server's log says more")
    elif known is not error:
        logger.error("%s: %s", known.detail, str(error).splitlines()[0])
    return answer_error(known, challenge)


def _guard(
    view: Callable[..., Response], answer: Callable[[Exception], Response]
) -> Callable[..., Response]:
    """Answer a view's failures here: a host's handler for 404 goes before the blueprint's own."""

    def guarded(**path: str) -> Response:
        requestlog.start_record()
        try:
            return view(**path)
        except Exception as error:  # noqa: BLE001 - whatever it is, it gets the one shape
            return answer(error)

    return guarded


def _make_view(handlers: Mapping[str, Handler]) -> Callable[..., Response]:
    def view(**path: str) -> Response:
        handler = handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is not None:
            return handler(path)
        rule: Rule = request.url_rule  # type: ignore[assignment]  # it led to this view
        allowed = sorted(_find_methods(rule))
        if request.method == "OPTIONS":
            return answer_empty(headers={"Allow": ", ".join(allowed)})
        raise MethodNotAllowed(valid_methods=allowed)

    return view


def _show_document(gov: Installation) -> Handler:
    """Show the OpenAPI document to anyone: it says what the source says, and asks no database."""

    @lru_cache(maxsize=1)
    def write(root: str) -> bytes:
        from govbudget.web.openapi import describe  # noqa: PLC0415 - needs pydantic

        return dump_json(describe(gov.settings, gov.routes, gov.challenge, root))

    return lambda _: Response(write(request.script_root), mimetype="application/json")


def _answer(gov: Installation, route: Route, path: dict[str, str]) -> Response:
    """Take a request to the API through the checks, and answer with what its view gave."""
    return serve(gov, route, path, answer=partial(respond, route), identify=gov.identify)


def serve(
    gov: Installation,
    route: Route,
    path: dict[str, str],
    *,
    answer: Callable[[Any], Response],
    identify: Callable[[], object],
    look: Callable[[Id], Id | None] | None = None,
    act: Callable[[Unit], object] | None = None,
) -> Response:
    """Take a request through the checks, in their one order, and do what its view does.

    `answer` makes the response of what the view gave, once the connection is given back. Where a
    request is not about one object, `look` finds whose connection it is, and `act` does the work.
    """
    received = cache(partial(receive, route))
    destination = find_destination(gov, route, path, received)
    caller = find_caller(gov, identify)
    record, ids = requestlog.find_record(), _note_ids(gov, route, path, caller)
    received()
    read = partial(read_body, gov, route, received)

    def work(unit: Unit) -> object:
        record.pop("decision", None)
        record["digest"] = unit.table.digest
        if act is not None:
            return act(unit)
        grant = _authorize(unit, route, ids)
        return route.view(AuthorizedRequest(gov, grant, path, ids, read()))

    try:
        gov.require_feature()
        where = destination.find() if look is None else look(caller)
        with route.turn():
            found = gov.run(caller, work, organization=where, request_id=record["request_id"])
        return answer(found)
    except Exception as error:
        _report(gov, route, record, error, read)
        raise


def find_caller(gov: Installation, identify: Callable[[], object]) -> Id:
    """Ask the host who calls; raise `unauthenticated` where nobody does."""
    try:
        caller = identify()
        if caller is not None:
            return gov.settings.id_type.accept(caller)
    except Exception as error:
        if isinstance(error, HTTPException | GovBudgetError) or explain_outage(error):
            raise
        message = (
            f"`identify=` ended in `{type(error).__name__}`; let it give the id of the user who is "
            "signed in, and None where nobody is"
        )
        raise GovBudgetError("internal-error", message) from error
    raise GovBudgetError("unauthenticated", "say who you are: the credentials are missing or bad")


def _note_ids(
    gov: Installation, route: Route, path: Mapping[str, str], caller: Id
) -> dict[str, Id]:
    """Read the ids in a path (`me` is the caller), and note for the log who asks about what.

    Raises `invalid-id`.
    """
    ids: dict[str, Id] = {}
    record = requestlog.find_record()
    record.update(caller=caller, action=route.action, object=route.target)
    for name, text in path.items():
        if name == "user" and text == ME:
            ids[name] = caller
        elif name == "hold":
            ids[name] = IdType.UUID.parse(text)
        elif name in {"group", "organization", "user"}:
            ids[name] = gov.settings.id_type.parse(text)
    record.update(ids)
    named = "user" if route.target is Target.MEMBER else route.target
    record["id"] = record.pop(named, None)
    return ids


def _authorize(unit: Unit, route: Route, ids: Mapping[str, Id]) -> Grant[Any]:
    """Load the caller and what the route is about, decide, and note it for the log.

    Raises Forbidden or NotFound.
    """
    asked: dict[str, Any] = {route.target: ids.get(route.target)}
    if route.target is Target.MEMBER:
        asked = {"member": (ids["organization"], ids["user"])}
    elif route.target in _WITHOUT_ID:
        asked = {_WITHOUT_ID[route.target]: True}
    grant: Grant[Any] = unit.authorize(route.action, **asked)
    requestlog.note_allowed(requestlog.find_record(), grant.allowed)
    return grant


def _report(
    gov: Installation,
    route: Route,
    record: dict[str, Any],
    error: Exception,
    read: Callable[[], Any],
) -> None:
    """Note for the log why a request failed, and send the signals about it."""
    _report_denial(gov, record, error)
    if route.note_error is not None:
        for announce in route.note_error(gov, record, error, read):
            announce()


def _report_denial(gov: Installation, record: dict[str, Any], error: Exception) -> None:
    """Note a denial for the log, and send its signal; nothing of another error."""
    # What is not found once the decision was made is not a denial.
    if isinstance(error, Forbidden) or (isinstance(error, NotFound) and "decision" not in record):
        requestlog.note_refused(record, error)
        names = ("caller", "action", "object", "id", "code", "would_allow", "request_id")
        facts = {**{name: record[name] for name in names}, "policy_digest": record["digest"]}
        send(access_denied, gov.app, **facts)
