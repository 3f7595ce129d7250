"""The blueprint: every request to a route of ours, through the checks in their one order.

path -> method -> caller -> ids -> feature -> directory (one statement) -> decision -> body -> view.
The view sends its statement.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import PathConverter

from govbudget.errors import Forbidden, GovBudgetError, NotFound
from govbudget.identity import Action, Group, Ledger, Member, Organization, PriceBook
from govbudget.ids import IdType
from govbudget.strict_json import parse_json
from govbudget.web import requestlog
from govbudget.web.call import ME, MIB, Call, Route, Target, receive_body
from govbudget.web.problems import answer_empty, dump_json, explain, explain_http
from govbudget.web.routes import ROUTES
from govbudget.web.signals import access_denied, send
from govbudget.web.spend import call_of
from govbudget.web.units import explain_outage, lacks_schema, run_unit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flask.sansio.blueprints import BlueprintSetupState
    from sqlalchemy import Connection
    from werkzeug.routing import Rule

    from govbudget.authz.grant import Grant, ListGrant
    from govbudget.identity import Id, Subject
    from govbudget.installation import Installation
    from govbudget.spend import usage as spend

    Handler = Callable[[dict[str, str]], Response]

logger = logging.getLogger("govbudget")

_Asked = Group | Organization | Member | PriceBook | Ledger

# The name in a path of the id of what a route is about.
_NAMED = {
    Target.GROUP: "group",
    Target.GROUPS_OF_ORGANIZATION: "organization",
    Target.MEMBER: "user",
    Target.PRICE_BOOK: "",
    Target.LEDGER: "",
}

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
    what the host itself answers on this path, and `--`, which asks for the methods of a path.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule.methods or ())
        self._rule = rule

    def __contains__(self, method: object) -> bool:
        return super().__contains__(method) or (method not in {"--", *_find_methods(self._rule)})


def _find_methods(rule: Rule) -> set[str]:
    """Find all methods of a rule's path: the host may have added some of its own."""

    def read_place(rule: Rule) -> tuple[str | None, str]:
        return rule.subdomain, _VARIABLE.sub("<>", rule.rule)

    place = read_place(rule)
    same = (other for other in rule.map.iter_rules() if read_place(other) == place)
    return {method for other in same for method in other.methods or ()}


def make_blueprint(home: Installation) -> Blueprint:
    """Make the blueprint of one application. It answers nothing but its own routes."""
    blueprint = Blueprint(NAME, __name__, url_prefix=home.settings.url_prefix)
    paths: dict[str, dict[str, Handler]] = {DOCUMENT: {"GET": _show_document(home)}}
    names = {DOCUMENT: "openapi"}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = partial(_serve, home, route)
        names.setdefault(route.path, route.view.__name__.partition("_")[2])

    def register(state: BlueprintSetupState) -> None:
        url_map = state.app.url_map
        of_host = url_map.converters
        url_map.converters = {**of_host, "rest": _Rest}
        for path, handlers in paths.items():
            view = _guard(_make_view(handlers), home.challenge)
            # A path has one spelling, whatever the host's own slashes mean.
            options = {"strict_slashes": True, "merge_slashes": False}
            state.add_url_rule(path, names[path], view, methods=[*handlers, "OPTIONS"], **options)
            for rule in url_map.iter_rules(f"{NAME}.{names[path]}"):
                rule.methods = _Methods(rule)
        url_map.converters = of_host  # our rules have ours by now

    def finish(response: Response) -> Response:
        response.headers["Cache-Control"] = "no-store"
        if home.settings.expose_policy_digest:
            response.headers["Govbudget-Policy-Digest"] = home.policy.digest
        return requestlog.finish_record(response)

    blueprint.record_once(register)
    blueprint.after_request(finish)
    blueprint.register_error_handler(Exception, lambda error: _explain(error, home.challenge))
    return blueprint


def _explain(error: Exception, challenge: str) -> Response:
    """Turn any failure under the prefix into a problem; what is our own fault is logged."""
    if isinstance(error, HTTPException):
        if isinstance(error.response, Response):
            return error.response  # the host's own answer
        return explain_http(error, challenge)
    known = error if isinstance(error, GovBudgetError) else explain_outage(error)
    if known is None or known.status is HTTPStatus.INTERNAL_SERVER_ERROR:
        hint = "; has `govbudget db upgrade` been run?" if lacks_schema(error) else ""
        logger.error("a request failed%s", hint, exc_info=error)
        known = GovBudgetError("internal-error", "the server's log says more")
    elif known is not error:
        logger.error("the database is unavailable: %s", str(error).splitlines()[0])
    return explain(known, challenge)


def _guard(view: Callable[..., Response], challenge: str) -> Callable[..., Response]:
    """Explain a view's failures here: a host's handler for 404 goes before the blueprint's own."""

    def guarded(**path: str) -> Response:
        requestlog.start_record()
        try:
            return view(**path)
        except Exception as error:  # noqa: BLE001 - whatever it is, it gets the one shape
            return _explain(error, challenge)

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


def _show_document(home: Installation) -> Handler:
    """Show the OpenAPI document to anyone: it tells what the source tells, and asks no database."""

    @lru_cache(maxsize=1)
    def write(root: str) -> bytes:
        from govbudget.web.openapi import describe  # noqa: PLC0415 - needs pydantic

        return dump_json(describe(home.settings, home.challenge, root))

    return lambda _: Response(write(request.script_root), mimetype="application/json")


def _serve(home: Installation, route: Route, path: dict[str, str]) -> Response:
    caller = home.identify()
    if caller is None:
        raise GovBudgetError(
            "unauthenticated", "say who you are: the credentials are missing or bad"
        )
    caller_id = home.settings.id_type.accept(caller)
    record = requestlog.find_record()
    record["caller"], record["action"], record["object"] = caller_id, route.action, route.target
    ids = _read_ids(home, path, caller_id)
    record.update(ids)
    record["id"] = asked = record.pop(_NAMED[route.target], None)
    read_body = _receive_body(home, route)
    later: list[Callable[[], None]] = []

    def work(connection: Connection) -> Response:
        later.clear()
        subject, obj = _load(home, route.target, connection, caller_id, ids)
        grant = None
        try:
            grant = _authorize(home, route, subject, obj)
            requestlog.note_allowed(record, grant)
            body = read_body()
            return route.view(Call(home, connection, grant, obj, path, ids, body, later))
        except (Forbidden, NotFound) as refusal:
            # A view that asks the policy about more than the route may be refused, too.
            if grant is None or isinstance(refusal, Forbidden):
                later.append(_note_denial(home, route, caller_id, asked, refusal))
            raise

    try:
        home.require_feature()
        return run_unit(home.find_engine(), work)
    except Exception as error:
        if route.body == "hold":
            later += home.note_refused_call(record, error, _find_call(read_body))
        raise
    finally:
        for act in later:
            act()


def _read_ids(home: Installation, path: Mapping[str, str], caller: Id) -> dict[str, Id]:
    """Read the ids in a path; raise `invalid-id`. `me` is the caller."""
    ids: dict[str, Id] = {}
    for name, text in path.items():
        if name == "user" and text == ME:
            ids[name] = caller
        elif name == "hold":
            ids[name] = IdType.UUID.parse(text)
        elif name in {"group", "organization", "user"}:
            ids[name] = home.settings.id_type.parse(text)
    return ids


def _find_call(read_body: Callable[[], Any]) -> spend.Call | None:
    """Find out which call was refused, where the body says so."""
    try:
        return call_of(read_body())
    except (GovBudgetError, HTTPException):
        return None


def _receive_body(home: Installation, route: Route) -> Callable[[], Any]:
    """Give what reads the body, after the decision; of any but a large one, receive it now.

    However long that takes, no connection to the database is held meanwhile. A large one waits
    for the decision, since not everybody may fill the memory.
    """
    name = route.body
    receive: Callable[[], bytes] = partial(receive_body, route.max_body)
    if name is None:
        return lambda: None
    if route.max_body <= MIB:
        receive = _receive_now(receive)

    def read() -> Any:  # noqa: ANN401 - what `BODIES` makes of it
        from govbudget.web.bodies import BODIES  # noqa: PLC0415 - pydantic, with the first body

        return parse_json(receive(), BODIES[name], home.settings.id_type, route.max_values)

    return read


def _receive_now(receive: Callable[[], bytes]) -> Callable[[], bytes]:
    """Receive; give what gives it again, or raises what was wrong."""
    try:
        content = receive()
    except (GovBudgetError, HTTPException) as error:
        failure = error

        def fail() -> bytes:
            raise failure

        return fail
    return lambda: content


def _load(
    home: Installation, target: Target, connection: Connection, caller: Id, ids: Mapping[str, Id]
) -> tuple[Subject, _Asked | None]:
    """Send the one statement that precedes the decision."""
    directory = home.directory
    if target is Target.GROUP:
        return directory.load_group(connection, caller, ids["group"])
    if target is Target.GROUPS_OF_ORGANIZATION:
        return directory.load_organization(connection, caller, ids["organization"])
    if target is Target.MEMBER:
        return directory.load_member(connection, caller, ids["organization"], ids["user"])
    site_wide = PriceBook() if target is Target.PRICE_BOOK else Ledger()
    return directory.load_subject(connection, caller), site_wide


def _note_denial(
    home: Installation,
    route: Route,
    caller: Id,
    asked: Id | None,
    refusal: Forbidden | NotFound,
) -> Callable[[], None]:
    """Note a denial for the log, and give the sending of its signal."""
    digest = home.policy.digest
    requestlog.note_refused(requestlog.find_record(), refusal, digest)
    return partial(
        send,
        access_denied,
        home.app,
        caller=caller,
        action=route.action,
        object=route.target,
        id=asked,
        code=refusal.code,
        would_allow=refusal.would_allow,
        policy_digest=digest,
        request_id=requestlog.request_id(),
    )


def _authorize(
    home: Installation, route: Route, subject: Subject, obj: _Asked | None
) -> Grant | ListGrant:
    """Ask the policy; raise Forbidden or NotFound where it says no, or there is no such object."""
    if obj is None:
        raise NotFound(str(route.target))
    if isinstance(obj, Group):
        return home.policy.authorize(subject, route.action, home.budgets.object_of(obj))
    if not isinstance(obj, Organization):
        return home.policy.authorize(subject, route.action, obj)
    object_type = home.budgets.budget_object
    grant = home.policy.authorize_list(subject, route.action, obj, object_type)
    # Whoever stands in the organization may ask what is there to read; not so for other actions.
    if route.action is not Action.READ and not grant.decision.allowed:
        raise Forbidden(
            route.action, grant.lines, home.policy.table.would_allow(object_type, route.action)
        )
    return grant
