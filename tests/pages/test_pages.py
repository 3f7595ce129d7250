"""The pages: who may see which, in our shape, with a policy that allows nothing but our style."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest
from flask import Blueprint, Flask
from itsdangerous import Signer
from itsdangerous.encoding import base64_encode
from tests.support import authorize, count_statements, make_app
from tests.web.helpers import put_limit

from govbudget import GovBudget, Policy, SettingsError
from govbudget.authz.files import packaged_policy_dir
from govbudget.pages.part import ROUTES
from govbudget.prices.price import parse_prices, read_shipped_prices
from govbudget.prices.store import Prices, PriceSource


def read_text(response):
    """The words of a page."""
    text = re.sub(r"<[^>]+>", " ", response.get_data(as_text=True))
    return " ".join(unescape(text).split())


SITE_WIDE = ("/prices", "/policy", "/policy/explain")


@pytest.mark.parametrize("path", SITE_WIDE)
def test_an_owner_sees_what_is_of_the_site_and_others_are_forbidden_it(visit, town, path):
    assert visit(path, town.owner).status_code == 200
    for person in ("org_admin", "member", "gateway", "nobody"):
        refused = visit(path, town.people[person])
        assert refused.status_code == 403
        assert "needs the action read" in read_text(refused).replace("`", "")


def test_an_error_has_the_status_and_headers_of_the_apis_in_a_page_of_ours(visit, town):
    unknown = visit("/policy")
    assert (unknown.status_code, unknown.headers["WWW-Authenticate"]) == (401, "Bearer")
    wrong = visit("/policy", town.owner, method="PUT")
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    bad = visit("/organizations/no-id/audit", town.owner)
    assert bad.status_code == 400
    for response in (unknown, wrong, bad):
        assert response.mimetype == "text/html"
        assert response.headers["X-Request-Id"]
    assert "invalid-id" in read_text(bad)


def test_another_organizations_page_is_the_same_bytes_as_one_that_is_not_there(visit, town):
    other = visit(f"/organizations/{town.b}/audit", town.org_admin)
    absent = visit(f"/organizations/{town.stranger}/audit", town.org_admin)
    assert other.status_code == absent.status_code == 404
    assert other.get_data() == absent.get_data()


def test_the_headers_allow_nothing_but_our_stylesheet(visit, town):
    page = visit("/policy", town.owner)
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'self';")
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert page.headers["Cache-Control"] == "no-store"
    text = page.get_data(as_text=True)
    assert "style=" not in text
    assert "<script" not in text
    href = re.search(r'<link rel="stylesheet" href="([^"]+)"', text)[1]
    style = visit(href.removeprefix("/ai"))
    assert style.mimetype == "text/css"
    assert "immutable" in style.headers["Cache-Control"]
    assert len(page.get_data()) + len(style.get_data()) < 60 * 1024


@pytest.fixture(scope="module")
def priced(engine, town):
    prices = parse_prices(read_shipped_prices())
    with engine.begin() as connection:
        grant = authorize(connection, town.owner, "update", prices=True)
        Prices.upsert(grant, prices, source=PriceSource.BOOK)
    return prices


@pytest.mark.slow
def test_the_prices_are_listed_in_pages_and_none_is_missing(visit, town, priced, engine):
    path, seen = "/prices?page_size=500", []
    while path:
        with count_statements(engine) as sent:
            page = visit(path, town.owner)
        assert (page.status_code, len(sent)) == (200, 2)
        text = page.get_data(as_text=True)
        seen += re.findall(r'<tr><td><bdi>([^<]*)</bdi></td><th scope="row"><bdi>([^<]*)<', text)
        following = re.search(r'rel="next" href="/ai([^"]+)"', text)
        path = unescape(following[1]) if following else None
    assert sorted(seen) == sorted({(price.provider, price.model) for price in priced})


@pytest.mark.parametrize("texts", [[], ["acme"], ["a", "b", "c"], ["a\x00", "b"], ["a", "b\n"]])
def test_a_token_of_prices_that_names_no_model_is_refused(visit, town, texts):
    """Anybody can write a token: it holds no secret."""
    content = base64_encode(json.dumps(texts, separators=(",", ":")))
    token = Signer("govbudget_pages.prices prices", salt="govbudget.page").sign(content).decode()
    refused = visit(f"/prices?page_token={token}", town.owner)
    assert refused.status_code == 400
    assert "not a token of this list" in read_text(refused)


def test_the_policy_page_has_every_line_every_invariant_and_the_digest(visit, town, policy):
    text = read_text(visit("/policy", town.owner))
    for line in policy.table.lines:
        assert f"{line.name} {line.text}" in text
    assert policy.digest in text
    assert "only site roles reach more than one organization, group or user holds" in text


def test_an_explanation_has_an_address_and_says_what_was_lacking(visit, town, engine):
    asked = "/policy/explain?role=group-member&object=group&action=update"
    with count_statements(engine) as sent:
        text = read_text(visit(asked, town.owner))
    assert len(sent) == 1
    assert "group-member: update on group Denied: no line allows it" in text
    assert "would be allowed if `owner` were held on the site" in text
    allowed = visit(asked.replace("group-member", "owner"), town.owner)
    assert "Allowed by policy.csv:8" in read_text(allowed)


@pytest.mark.parametrize(
    "query", ["role=king&object=group&action=read", "object=group", "object=%3Cb%3E&action=read"]
)
def test_an_explanation_of_what_is_not_known_is_400_and_says_why(visit, town, query):
    response = visit(f"/policy/explain?{query}", town.owner)
    assert (response.status_code, "<b>" in response.get_data(as_text=True)) == (400, False)


def test_the_audit_trail_says_who_and_what_by_their_names(visit, town, send, engine):
    assert put_limit(send, town.a1, town.org_admin, 5_000_000).status_code == 200
    with count_statements(engine) as sent:
        page = visit(f"/organizations/{town.a}/audit", town.org_admin)
    assert (page.status_code, len(sent)) == (200, 3)
    text = read_text(page)
    assert "Audit trail of an organization" in text
    assert "org_admin request group_ai_budget a group spend limit nothing → $5.00" in text
    assert visit(f"/organizations/{town.a}/audit", town.member).status_code == 403


def test_a_host_without_pages_has_none_and_a_wrong_path_for_them_is_refused(engine):
    app = make_app(engine)
    assert "govbudget_pages" not in app.blueprints
    for wrong in ("ai", "/", "/ai/"):
        with pytest.raises(SettingsError, match="write a path such as `/ai`"):
            make_app(engine, pages=wrong)
    with pytest.raises(SettingsError, match="needs spend"):
        make_app(engine, pages="/ai", spend=False)


FRAME = (
    "<title>{% block title %}{% endblock %} - Shop</title>{% block head %}<!-- ours -->"
    "{% endblock %}<h1>{{ greeting }}</h1><main>{% block content %}{% endblock %}</main>"
)


@pytest.fixture
def open_framed(engine, town, policy, tmp_path):
    """Opens a page, as the owner, of a host with a base template of its own."""

    def open_framed(text, path="/policy", who=None, change=None, **values):
        if text is not None:
            (tmp_path / "host.html").write_text(text)
        app = Flask("shop", template_folder=str(tmp_path))
        app.config["GOVBUDGET_BASE_TEMPLATE"] = "host.html"
        app.context_processor(lambda: values)
        options = {"engine": engine, "identify": lambda: who or town.owner, "policy": policy}
        GovBudget(app, pages="/money", **options)
        if change is not None:
            change(app)  # what a host does after govbudget is there
        return app.test_client().get(f"/money{path}")

    return open_framed


def test_the_hosts_base_template_frames_the_pages_and_the_hosts_own_policy_counts(open_framed):
    response = open_framed(FRAME, greeting="Hello")
    text = response.get_data(as_text=True)
    assert "Content-Security-Policy" not in response.headers
    assert "<title>Policy · AI spend - Shop</title>" in text
    assert "<h1>Hello</h1>" in text
    assert '<!-- ours --><link rel="stylesheet" href="/money/style.css' in text
    assert text.count("<main") == 1


@pytest.mark.slow
def test_the_hosts_base_template_has_the_hosts_values_under_each_name(open_framed):
    names = ("name", "url", "title", "links", "here", "style", "clock", "show", "price", "roles")
    written = " ".join(f"{name}={{{{ {name} }}}}," for name in names)
    for path in ("/policy", "/prices"):
        text = open_framed(FRAME + written, path, **dict.fromkeys(names, "host"))
        for name in names:
            assert f"{name}=host," in text.get_data(as_text=True)
    assert f"{names[0]}=," in open_framed(FRAME + written).get_data(as_text=True)


def test_the_hosts_ways_of_jinja_change_no_page(open_framed):
    """Such as other marks beside JavaScript's, or a filter with a name of ours."""

    def change(app):
        app.jinja_options = {"variable_start_string": "[[", "variable_end_string": "]]"}
        app.jinja_env.filters["exactly"] = lambda _: "the host's"

    plain = open_framed(FRAME, "/prices", greeting="Hello").get_data(as_text=True)
    marked = FRAME.replace("{{", "[[").replace("}}", "]]")
    changed = open_framed(marked, "/prices", change=change, greeting="Hello")
    assert changed.get_data(as_text=True) == plain


def test_a_base_template_that_is_registered_later_is_found(open_framed, tmp_path):
    folder = tmp_path / "late"
    folder.mkdir()
    (folder / "host.html").write_text(FRAME)

    def change(app):
        app.register_blueprint(Blueprint("late", "late", template_folder=str(folder)))

    assert "<title>Policy" in open_framed(None, change=change).get_data(as_text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "GOVBUDGET_BASE_TEMPLATE is `host.html`, which `shop` has no template of"),
        ("<main></main>", "GOVBUDGET_BASE_TEMPLATE is `host.html`, which has no block `content`"),
        ("{% extends 'nothing.html' %}", "nothing.html"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ],
)
def test_a_base_template_that_fails_is_named_and_each_problem_is_shown_without_it(
    open_framed, caplog, town, text, sentence
):
    failed = open_framed(text)
    assert failed.status_code == 500
    assert "the server's log says more" in read_text(failed)
    assert sentence in caplog.text
    forbidden = open_framed(text, who=town.member)
    assert forbidden.status_code == 403
    assert "<title>The caller may not do this" in forbidden.get_data(as_text=True)


def test_the_audit_and_policy_pages_are_there_in_the_dedicated_policy_too(engine, town):
    dedicated = Policy.load(packaged_policy_dir() / "dedicated")
    app = make_app(engine, policy=dedicated, pages="/ai")
    client = app.test_client()
    for path in ("/ai/policy", f"/ai/organizations/{town.a}/audit"):
        assert client.get(path, headers={"X-User": str(town.owner)}).status_code == 200


def test_every_page_is_among_these_tests():
    """A route of the pages that no test opens would be one that nobody has looked at."""
    assert {route.method for route in ROUTES} == {"GET"}
