"""`GovBudget` in a host: it disturbs nothing but its own routes, and says what it lacks."""

from __future__ import annotations

import json
import re
from functools import partial
from types import SimpleNamespace
from uuid import uuid4

import pytest
import sqlalchemy as sa
from flask import Blueprint, Flask, jsonify, request, url_for
from flask.cli import FlaskGroup
from flask.json.provider import DefaultJSONProvider
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from tests.support import Client, budget_path, count_statements
from tests.web.helpers import outcome, put_limit, read_problem
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import IntegerConverter
from werkzeug.test import Client as WsgiClient

from govbudget import GovBudget, Policy, PolicyError, SettingsError

open_nowhere = partial(sa.create_engine, "postgresql+psycopg://nobody@127.0.0.1:1/none")
NOWHERE = open_nowhere()


POLICY = Policy.load()


def identify():
    return request.headers.get("X-User")


class HexConverter(IntegerConverter):
    """A converter of the host's own, under a name that we might have wanted."""

    def to_python(self, value):
        return int(value, 16)


class Shouting(DefaultJSONProvider):
    """A JSON provider of the host's own."""

    def dumps(self, obj, **options):
        return super().dumps(obj, **options).upper()


async def wait():
    """What an asynchronous host might write."""


class OnlyBinds:
    """The `db` of a Flask-SQLAlchemy that has no SQLALCHEMY_DATABASE_URI."""

    @property
    def engine(self):
        return {"money": NOWHERE}[None]


class NoMembers:
    """A directory that is not finished."""

    groups = organization_members = None

    def load_group(self):
        """Load nothing."""

    load_subject = load_organization = load_group


def make_host():
    """A host with everything that an extension could trample on."""
    app = Flask("host", static_folder=None)
    app.json = Shouting(app)
    app.url_map.converters["rest"] = HexConverter
    seen = SimpleNamespace(after=[], before=[])
    app.extensions["host"] = seen

    @app.get("/things/<rest:number>")
    def thing(number):
        return jsonify(number=number)

    @app.get("/dir/")
    def directory():
        return "a directory"

    app.add_url_rule("/api/v2/users", "add_user", lambda: "a user", methods=["POST"])
    app.add_url_rule("/api/v2/groups/<name>", "group", lambda name: f"group {name}")

    @app.route("/api/v2x", methods=["GET", "POST"])
    def near():
        return "near the prefix"

    @app.get("/fails")
    def fails():
        raise KeyError("host")

    @app.errorhandler(404)
    def not_found(_error):
        return "<h1>the host's 404</h1>", 404

    @app.errorhandler(KeyError)
    def key_error(_error):
        return "the host's handler", 500

    @app.before_request
    def before():
        seen.before.append(request.path)

    @app.after_request
    def after(response):
        seen.after.append(request.path)
        response.headers["X-Host"] = "1"
        return response

    return app


PROBES = [
    ("GET", "/things/10"),
    ("OPTIONS", "/things/10"),
    ("POST", "/things/10"),
    ("GET", "/dir/"),
    ("GET", "/dir"),
    ("GET", "/dir//"),
    ("GET", "/things//10"),
    ("GET", "/api/v2x"),
    ("OPTIONS", "/api/v2x"),
    ("DELETE", "/api/v2x"),
    ("GET", "/api"),
    ("GET", "/api/"),
    ("GET", "/api/v1/groups"),
    ("GET", "/API/v2/ai/prices"),
    ("POST", "/api/v2/users"),
    ("GET", "/api/v2/users"),
    ("BREW", "/api/v2/users"),
    ("OPTIONS", "/api/v2/users"),
    ("GET", "/api/v2/groups/x"),
    ("PUT", "/api/v2/groups/x"),
    ("GET", "/api/v2/groups/x/ai"),
    ("GET", "/api/v2"),
    ("GET", "/api/v2/"),
    ("GET", "/api/v2/x"),
    ("OPTIONS", "/api/v2/x"),
    ("GET", "/api/v2//groups/x/ai/budget"),
    ("GET", "/api/v2/groups/x/ai/budget/"),
    ("GET", "/fails"),
    ("GET", "/nothing"),
    ("PUT", "/"),
]


def snapshot(app):
    """Give what a host has that is not a rule: hooks, handlers, converters, settings."""
    return (
        dict(app.url_map.converters),
        app.url_map.strict_slashes,
        app.url_map.merge_slashes,
        app.error_handler_spec[None],
        list(app.before_request_funcs.get(None, ())),
        list(app.after_request_funcs.get(None, ())),
        list(app.teardown_request_funcs.get(None, ())),
        list(app.teardown_appcontext_funcs),
        list(app.url_value_preprocessors.get(None, ())),
        list(app.url_default_functions.get(None, ())),
        list(app.template_context_processors[None]),
        dict(app.jinja_env.globals),
        app.json,
        app.json_provider_class,
        app.request_class,
        app.response_class,
        app.session_interface,
        app.aborter.mapping,
        dict(app.config),
        app.wsgi_app,
    )


def test_but_for_our_routes_a_host_is_as_it_was(engine):
    """Every probe of a host with govbudget answers as the same host without it."""
    plain, host = make_host(), make_host()
    before = snapshot(host)
    GovBudget(host, engine=engine, identify=identify, policy=POLICY)
    assert [repr(part) for part in snapshot(host)] == [repr(part) for part in before]
    assert set(host.extensions) == {"host", "govbudget"}
    assert set(host.blueprints) == {"govbudget"}
    for method, path in PROBES:
        expected = plain.test_client().open(path, method=method)
        answered = host.test_client().open(path, method=method)
        assert answered.status_code == expected.status_code, (method, path)
        assert answered.data == expected.data
        assert list(answered.headers) == list(expected.headers)
    assert host.extensions["host"].before == plain.extensions["host"].before


def test_on_our_routes_neither_the_hosts_json_nor_its_pages_have_a_say(engine, world):
    host = make_host()
    GovBudget(host, engine=engine, identify=identify, policy=POLICY)
    send = Client(host)
    options = {"data": b'{"spend_limit_micros": 5}', "content_type": "application/json"}
    response = send("PUT", budget_path(world.a1), world.owner, **options)
    assert response.status_code == 200
    assert response.json["group_id"] == str(world.a1)
    assert outcome(send("DELETE", "/ai/prices")) == (405, "method-not-allowed")


def test_the_hosts_own_hooks_still_run_on_our_answers(engine, world):
    host = make_host()
    GovBudget(host, engine=engine, identify=identify, policy=POLICY)
    for response in (
        put_limit(Client(host), world.a1, world.owner),
        Client(host)("DELETE", "/ai/prices"),
    ):
        assert response.headers["X-Host"] == "1"
    assert len(host.extensions["host"].after) == 2


def test_only_rules_under_the_prefix_are_added(engine):
    host = make_host()
    before = {rule.rule for rule in host.url_map.iter_rules()}
    GovBudget(host, engine=engine, identify=identify, policy=POLICY)
    added = [rule for rule in host.url_map.iter_rules() if rule.rule not in before]
    assert added
    for rule in added:
        assert re.match(r"/api/v2(/|$)", rule.rule)
        assert rule.endpoint.startswith("govbudget.")


def test_a_host_that_catches_all_paths_catches_all_but_ours(engine, world):
    host = Flask("spa", static_folder=None)
    host.add_url_rule("/", view_func=lambda: "page", endpoint="index")
    GovBudget(host, engine=engine, identify=identify, policy=POLICY)
    host.add_url_rule("/<path:path>", view_func=lambda path: "page", endpoint="page")
    send = Client(host)
    assert put_limit(send, world.a1, world.owner).status_code == 200
    assert outcome(send("GET", "/ai/prices")) == (405, "method-not-allowed")
    for path in ("/nothing", "/groups/x", "/", ""):
        assert send("GET", path).data == b"page"


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("/api/v2/ai/usage", "/ai/usage"),
        ("/api/v2/groups/<number>/ai/budget", "/groups/7/ai/budget"),
        ("/api/v2/groups/<int:group>/ai/budget", "/groups/7/ai/budget"),
        ("/api/v2/groups/<string(length=1):group>/ai/budget", "/groups/7/ai/budget"),
    ],
)
def test_a_route_of_the_hosts_on_a_path_of_ours_stays(engine, is_first, rule, path):
    """Whether it is added before or after: only a method that nobody answers is refused."""
    host = Flask("host")

    def add_route():
        host.add_url_rule(rule, "own", lambda **_: "the host's", methods=["PATCH"])

    if is_first:
        add_route()
    GovBudget(host, engine=engine, identify=identify, policy=POLICY)
    if not is_first:
        add_route()
    send = Client(host)
    assert send("PATCH", path).data == b"the host's"
    refused = send("BREW", path)
    assert outcome(refused) == (405, "method-not-allowed")
    allowed = set(refused.headers["Allow"].split(", "))
    assert {"PATCH", "OPTIONS"} < allowed
    assert allowed == set(send("OPTIONS", path).headers["Allow"].split(", "))
    used = "POST" if path == "/ai/usage" else "GET"
    assert outcome(send(used, path)) == (401, "unauthenticated")


@pytest.mark.parametrize("is_first", [True, False])
def test_an_openapi_document_of_the_hosts_stays(is_first):
    """Many write theirs to `openapi.json` under the prefix of their API."""
    host = Flask("host")

    def add_route():
        host.add_url_rule("/api/v2/openapi.json", "own", lambda: "the host's")

    if is_first:
        add_route()
    GovBudget(host, engine=NOWHERE, identify=identify, policy=POLICY)
    if not is_first:
        add_route()
    send = Client(host)
    assert send("GET", "/openapi.json").data == b"the host's"
    allowed = send("OPTIONS", "/openapi.json").headers["Allow"]
    assert sorted(allowed.split(", ")) == ["GET", "HEAD", "OPTIONS"]
    assert outcome(send("PUT", "/openapi.json")) == (405, "method-not-allowed")


def test_each_view_has_a_name_of_its_own():
    """Flask-WTF would else exempt all of them with one, and Flask-Limiter, too."""
    host = Flask("host")
    GovBudget(host, engine=NOWHERE, identify=identify, policy=POLICY, pages="/ai")
    names = [(view.__module__, view.__name__) for view in host.view_functions.values()]
    assert len(names) == len({*names})


def test_a_second_registration_is_an_error_that_says_so():
    """Flask would give the second one no routes."""
    host = Flask("host")
    GovBudget(host, engine=NOWHERE, identify=identify, policy=POLICY)
    with pytest.raises(SettingsError, match="the blueprint `govbudget` is registered already"):
        host.register_blueprint(host.blueprints["govbudget"], name="again", url_prefix="/v3")


def test_a_host_whose_rules_have_hosts_is_an_error_that_says_so():
    """None of ours would ever be found."""
    host = Flask("my-host", host_matching=True, static_host="my.host")
    with pytest.raises(SettingsError, match="`my-host` has `host_matching`"):
        GovBudget(host, engine=NOWHERE, identify=identify, policy=POLICY)
    assert "govbudget" not in host.extensions


@pytest.mark.parametrize("settings", [{"strict_slashes": False}, {"merge_slashes": False}])
def test_a_path_of_ours_has_one_spelling_whatever_slashes_mean_to_the_host(engine, settings):
    host = Flask("host")
    for name, value in settings.items():
        setattr(host.url_map, name, value)
    host.add_url_rule("/api/v2/ai/prices/", "own", lambda: "the host's")
    GovBudget(host, engine=engine, identify=identify, policy=POLICY)
    send = Client(host)
    assert send("GET", "/ai/prices/").data == b"the host's"
    assert outcome(send("PUT", "/ai/prices")) == (401, "unauthenticated")


def test_an_extension_that_answers_options_for_browsers_answers_for_ours(engine):
    """As Flask-CORS does: it adds its headers to what the route answers."""
    host = Flask("host")

    @host.after_request
    def allow_origin(response):
        response.headers["Access-Control-Allow-Origin"] = "https://app.example"
        return response

    GovBudget(host, engine=engine, identify=identify, policy=POLICY)
    response = Client(host)("OPTIONS", "/ai/prices")
    assert (response.status_code, response.headers["Allow"]) == (204, "OPTIONS, PUT")
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"


def test_the_prefix_may_be_another(engine, world):
    host = Flask("host")
    host.config["GOVBUDGET_URL_PREFIX"] = "/internal/money"
    GovBudget(host, engine=engine, identify=identify, policy=POLICY)
    assert put_limit(Client(host, "/internal/money"), world.a1, world.owner).status_code == 200
    assert host.test_client().get("/api/v2/ai/prices").mimetype == "text/html"


def test_a_host_mounted_under_a_path_serves_under_it(engine, world):
    host = Flask("host")
    GovBudget(host, engine=engine, identify=identify, policy=POLICY)
    outer = WsgiClient(DispatcherMiddleware(Flask("outer"), {"/mount": host}))
    headers = {"X-User": str(world.owner)}
    response = outer.get(f"/mount/api/v2{budget_path(world.a1)}", headers=headers)
    assert read_problem(response)["code"] == "budget-not-set"
    response.close()


def test_endpoints_have_names_for_url_for(engine):
    host = Flask("host")
    GovBudget(host, engine=engine, identify=identify, policy=POLICY)
    group = uuid4()
    with host.test_request_context():
        assert url_for("govbudget.budget", group=group) == f"/api/v2{budget_path(group)}"
        price = url_for("govbudget.price", provider="a", model="b/c")
        assert price == "/api/v2/ai/prices/a/b/c"


@pytest.mark.slow
def test_flask_routes_and_flask_govbudget_work(engine):
    host = make_host()
    GovBudget(host, engine=engine, identify=identify, policy=POLICY)
    group = FlaskGroup(create_app=lambda: host)
    routes = host.test_cli_runner().invoke(group, ["routes"])
    assert routes.exit_code == 0, routes.output
    assert "govbudget.budget " in routes.output
    assert re.search(r"DELETE, GET, PUT +/api/v2/groups/<group>/ai/budget *\n", routes.output)
    assert re.search(r"POST +/api/v2/users *\n", routes.output)
    check = host.test_cli_runner().invoke(group, ["govbudget", "policy", "check"])
    assert check.exit_code == 0, check.output


def test_init_app_sends_no_sql_and_needs_no_database_yet():
    host = Flask("host")
    with count_statements(NOWHERE) as sent:
        GovBudget(host, engine=NOWHERE, identify=identify, policy=POLICY)
    assert sent == []


def test_arguments_may_be_given_early_or_late(engine, world):
    for extension, late in (
        (GovBudget(), {"engine": engine, "identify": identify, "policy": POLICY}),
        (GovBudget(engine=engine), {"identify": identify}),
        (
            GovBudget(engine=NOWHERE, identify=lambda: None),
            {"engine": engine, "identify": identify, "policy": POLICY},
        ),
    ):
        host = Flask("host")
        extension.init_app(host, **late)
        assert put_limit(Client(host), world.a1, world.owner).status_code == 200


def test_an_engine_may_be_a_callable_that_is_asked_in_each_request(engine, world):
    asked = []
    host = Flask("host")

    def find_engine():
        asked.append(request.path)
        return engine

    GovBudget(host, engine=find_engine, identify=identify, policy=POLICY)
    assert asked == []
    put_limit(Client(host), world.a1, world.owner)
    put_limit(Client(host), world.a1, world.owner)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (lambda: sa.create_engine("sqlite://"), "`engine=` is for `sqlite+pysqlite`"),
        (
            lambda: Session(NOWHERE),
            "`engine=` gave `Session`; give a SQLAlchemy Engine or Connection",
        ),
    ],
)
def test_a_callable_that_gives_no_engine_for_postgresql_is_a_500_that_says_so(
    caplog, given, sentence
):
    host = Flask("host")
    GovBudget(host, engine=given, identify=uuid4, policy=POLICY)
    assert outcome(Client(host)("GET", budget_path(uuid4()))) == (500, "internal-error")
    assert sentence in caplog.text


def test_a_callable_that_fails_in_a_request_is_not_told_that_there_is_none(caplog):
    host = Flask("host")
    GovBudget(host, engine=lambda: {}["vault"], identify=uuid4, policy=POLICY)
    assert outcome(Client(host)("GET", budget_path(uuid4()))) == (500, "internal-error")
    assert "KeyError: 'vault'" in caplog.text
    assert "outside of a request" not in caplog.text


def test_a_connection_that_nothing_would_commit_is_a_500_that_says_so(engine, world, caplog):
    host = Flask("host")
    GovBudget(host, engine=engine.connect, identify=identify, policy=POLICY)
    assert outcome(put_limit(Client(host), world.a1, world.owner)) == (500, "internal-error")
    assert "gave a Connection that is in no transaction" in caplog.text


# -- what is missing or wrong is said by name, and leaves the host as it was --


@pytest.mark.parametrize(
    ("arguments", "config", "error", "text"),
    [
        ({"engine": None}, {}, SettingsError, "`engine=`"),
        ({"engine": "postgresql://host/db"}, {}, SettingsError, "`engine=`"),
        (
            {"engine": sa.create_engine("sqlite://")},
            {},
            SettingsError,
            r"`engine=` is for `sqlite\+pysqlite`.*`postgresql\+psycopg://`",
        ),
        ({"identify": None}, {}, SettingsError, "`identify=`"),
        ({"identify": 7}, {}, SettingsError, "`identify=`"),
        (
            {"identify": lambda request: request},
            {},
            SettingsError,
            "`identify=`, a function without",
        ),
        ({"identify": wait}, {}, SettingsError, "`identify=` is an `async def`; give a plain"),
        ({"features": wait}, {}, SettingsError, "`features=` is an `async def`"),
        ({"engine": scoped_session(NOWHERE)}, {}, SettingsError, "GovBudget needs `engine=`"),
        ({"engine": sessionmaker(NOWHERE)}, {}, SettingsError, "GovBudget needs `engine=`"),
        *(
            ({"engine": open_nowhere(**{name: of})}, {}, SettingsError, "makes something else of")
            for name, of in (("json_serializer", str), ("json_deserializer", bytes.decode))
        ),
        ({"engine": OnlyBinds()}, {}, SettingsError, r"only binds; name.*db\.engines\['NAME'\]`"),
        (
            {"directory": NoMembers()},
            {},
            SettingsError,
            "`NoMembers`, lacks `group_members`, `load_m",
        ),
        ({"challenge": "Bearer\nX: y"}, {}, SettingsError, "`challenge=` is .*such as `Bearer`"),
        ({"challenge": 7}, {}, SettingsError, "`challenge=` is `7`"),
        ({"spend": "no"}, {}, SettingsError, "`spend=` is `'no'`; write `true` or `false`"),
        ({"policy": 7}, {}, SettingsError, "`policy=` is a `int`; give a Policy, or"),
        ({"features": lambda user: user}, {}, SettingsError, "`features=` needs an argument"),
        ({"features": {"aibrigde"}}, {}, SettingsError, "aibrigde"),
        ({"features": {"aibrigde"}}, {}, SettingsError, "`features=`"),
        ({"policy": "policy"}, {}, SettingsError, "`policy`.*absolute"),
        ({"policy": "/nowhere/at/all"}, {}, PolicyError, "/nowhere/at/all"),
        ({}, {"GOVBUDGET_POLICY_DIR": "policy"}, SettingsError, "`policy`.*absolute"),
        ({}, {"GOVBUDGET_POLICY_DIR": "/nowhere"}, PolicyError, "/nowhere"),
        ({}, {"GOVBUDGET_FEATURS": ""}, SettingsError, "GOVBUDGET_FEATURS"),
        ({}, {"GOVBUDGET_ID_TYPE": "int"}, SettingsError, "GOVBUDGET_ID_TYPE"),
        (
            {},
            {"GOVBUDGET_GROUPS": sa.column("id")},
            SettingsError,
            "a text such as `public.team.id`",
        ),
        ({}, {"GOVBUDGET_URL_PREFIX": "x"}, SettingsError, "GOVBUDGET_URL_PREFIX"),
        ({}, {"GOVBUDGET_GROUPS": "public.t.id"}, SettingsError, "GOVBUDGET_GROUPS.*`directory=`"),
        (
            {},
            {"GOVBUDGET_POLICY_DIGEST": "sha256:" + "0" * 64},
            PolicyError,
            "GOVBUDGET_POLICY_DIGEST",
        ),
        (
            {"policy": POLICY},
            {"GOVBUDGET_POLICY_DIGEST": "sha256:" + "0" * 64},
            SettingsError,
            "GOVBUDGET_POLICY_DIGEST",
        ),
    ],
)
def test_a_mistake_is_named_and_nothing_is_installed(arguments, config, error, text):
    host = make_host()
    rules = len(list(host.url_map.iter_rules()))
    host.config.update(config)
    given = {"engine": NOWHERE, "identify": identify, **arguments}
    with pytest.raises(error, match=f"(?s){text}"):
        GovBudget(host, **given)
    assert len(list(host.url_map.iter_rules())) == rules
    assert "govbudget" not in host.extensions
    assert "govbudget" not in host.blueprints
    assert "govbudget" not in host.cli.commands
    for key in config:
        del host.config[key]
    GovBudget(host, engine=NOWHERE, identify=identify, policy=POLICY)


def test_an_engine_may_have_its_own_way_with_json_that_is_json():
    written = open_nowhere(
        json_serializer=partial(json.dumps, indent=1), json_deserializer=json.loads
    )
    GovBudget(Flask("host"), engine=written, identify=identify, policy=POLICY)


def test_the_digest_that_is_demanded_lets_its_own_policy_start():
    host = Flask("host")
    host.config["GOVBUDGET_POLICY_DIGEST"] = POLICY.digest
    GovBudget(host, engine=NOWHERE, identify=identify)


def test_a_second_init_app_is_an_error_that_says_so():
    host = Flask("my-host")
    GovBudget(host, engine=NOWHERE, identify=identify, policy=POLICY)
    with pytest.raises(SettingsError, match="`my-host` already"):
        GovBudget(host, engine=NOWHERE, identify=identify, policy=POLICY)
    with pytest.raises(SettingsError, match="already"):
        GovBudget().init_app(host, engine=NOWHERE, identify=identify, policy=POLICY)


def test_a_blueprint_of_the_hosts_with_our_name_is_an_error_that_says_so():
    host = Flask("my-host")
    host.register_blueprint(Blueprint("govbudget", __name__))
    with pytest.raises(SettingsError, match=r"a blueprint of `my-host`.*rename"):
        GovBudget(host, engine=NOWHERE, identify=identify, policy=POLICY)
    assert "govbudget" not in host.extensions


def test_the_configuration_is_read_once(engine, world):
    host = Flask("host")
    GovBudget(host, engine=engine, identify=identify, policy=POLICY)
    host.config["GOVBUDGET_FEATURES"] = ""
    assert put_limit(Client(host), world.a1, world.owner).status_code == 200


@pytest.mark.parametrize("debug", [False, True])
def test_it_makes_no_difference_whether_the_host_is_in_debug_or_testing(engine, world, debug):
    """In debug Flask would raise through; a caller gets the problem all the same."""
    host = make_host()
    host.config.update(DEBUG=debug, TESTING=debug)
    GovBudget(host, engine=engine, identify=lambda: 1 / 0, policy=POLICY)
    assert outcome(Client(host)("GET", budget_path(world.a1))) == (500, "internal-error")
    assert Client(host)("GET", "/nothing").data == b"<h1>the host's 404</h1>"
