"""Signing in to the pages of `serve`: a cookie that names a token, and opens nothing else."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa
from flask import Flask
from tests.support import TABLES, World

from govbudget import SettingsError
from govbudget.server.app import create_app
from govbudget.server.tokens import BearerTokens

KEY = {"GOVBUDGET_SECRET_KEY": "a secret of the tests, and long enough"}
ORIGIN = {"Origin": "http://localhost"}
TOKENS = BearerTokens(TABLES)


@pytest.fixture(scope="module")
def site(engine):
    return create_app(engine, KEY)


@pytest.fixture(scope="module")
def town(engine):
    return World(engine)


@pytest.fixture
def make_token(engine):
    def make(person):
        with engine.begin() as connection:
            return TOKENS.create(connection, person, days=1)

    return make


@pytest.fixture
def browser(site):
    return site.test_client()


def sign_in(browser, token, then="/policy", headers=ORIGIN, **options):
    form = {"token": token, "next": then}
    return browser.post("/sign-in", data=form, headers=headers, **options)


def test_a_token_signs_in_and_leads_to_the_page_that_was_asked_for(browser, make_token, town):
    asked = browser.get("/policy/explain?role=owner&object=group&action=read")
    assert asked.status_code == 401
    text = asked.get_data(as_text=True)
    (then,) = re.findall(r'name="next" value="([^"]+)"', text)
    answer = sign_in(browser, make_token(town.owner), then.replace("&amp;", "&"))
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/policy/explain?role=owner&object=group&action=read"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie
    assert browser.get(answer.headers["Location"]).status_code == 200


def test_off_loopback_the_cookie_is_secure(browser, make_token, town):
    where = {"base_url": "https://ai.example.org", "headers": {"Origin": "https://ai.example.org"}}
    cookie = sign_in(browser, make_token(town.owner), **where).headers["Set-Cookie"]
    assert "Secure" in cookie


def test_the_cookie_holds_no_secret_and_another_key_does_not_read_it(
    browser, make_token, town, engine
):
    token = make_token(town.owner)
    cookie = sign_in(browser, token).headers["Set-Cookie"]
    assert token not in cookie
    other = create_app(engine, {"GOVBUDGET_SECRET_KEY": "another secret of these tests, as long"})
    value = re.match(r"govbudget_session=([^;]+)", cookie)[1]
    signed, _, signature = value.rpartition(".")
    # Not the last character, which holds bits of no meaning.
    forged = [value, f"{signed}.{signature[1:]}{signature[0]}", value.partition(".")[0]]
    for text, app, status in [
        (forged[0], browser.application, 200),
        (forged[0], other, 401),
        (forged[1], browser.application, 401),
        (forged[2], browser.application, 401),
    ]:
        client = app.test_client()
        client.set_cookie("govbudget_session", text)
        assert client.get("/policy").status_code == status


def test_the_api_never_takes_the_cookie(browser, make_token, town):
    sign_in(browser, make_token(town.owner))
    assert browser.get(f"/api/v2/organizations/{town.a}/ai/budgets").status_code == 401


def test_a_session_ends_with_its_token_and_with_its_role(browser, make_token, town, engine):
    sign_in(browser, make_token(town.owner))
    assert browser.get("/policy").status_code == 200
    roles = TABLES.role_assignments
    with engine.begin() as connection:
        held = sa.and_(roles.c.user_id == town.owner)
        rows = connection.execute(sa.delete(roles).where(held).returning(*roles.c)).mappings().all()
    assert browser.get("/policy").status_code == 403
    with engine.begin() as connection:
        connection.execute(sa.insert(roles), [dict(row) for row in rows])
    assert browser.get("/policy").status_code == 200
    with engine.begin() as connection:
        for token in TOKENS.list(connection):
            TOKENS.revoke(connection, token.id)
    assert browser.get("/policy").status_code == 401


def test_signing_out_ends_the_session_in_this_browser(browser, make_token, town):
    sign_in(browser, make_token(town.owner))
    answer = browser.post("/sign-out", headers=ORIGIN)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in")
    assert browser.get("/policy").status_code == 401


@pytest.mark.parametrize(
    "then",
    [
        *("//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)"),
        *("/sign-out", "/api/v2/openapi.json", "///evil.example/policy", "//evil.example/policy"),
        *("/nowhere", "", "\t//evil.example", "policy", "http:/policy", "/healthz"),
        *("//[", "http://]/policy", "http://\u2100.example/policy"),
    ],
)
def test_signing_in_leads_to_no_page_but_our_own(browser, make_token, town, then):
    answer = sign_in(browser, make_token(town.owner), then)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    form = browser.get("/sign-in", query_string={"next": then})
    assert 'name="next" value="/"' in form.get_data(as_text=True)


@pytest.mark.parametrize(
    "origin",
    [
        *(
            None,
            "",
            "null",
            "http://evil.example",
            "http://localhost.evil",
            "http://[",
            "localhost",
        ),
        *("//localhost", "http://localhost/path", "ftp://localhost"),
    ],
)
@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
def test_a_form_of_another_site_is_refused(browser, make_token, town, origin, path):
    headers = {} if origin is None else {"Origin": origin}
    form = {"token": make_token(town.owner)}
    answer = browser.post(path, data=form, headers=headers)
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (403, False)


@pytest.mark.parametrize("host", ["[", "[::1", "localhost:", "127.0.0.1:x"])
def test_signing_in_at_a_host_whose_name_is_bad_does_not_fail(browser, make_token, town, host):
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert sign_in(browser, make_token(town.owner), headers=headers).status_code in {303, 403}


@pytest.mark.parametrize("token", ["", "gbt_unknown", "' OR 1=1", "gbt_" + "x" * 5000])
def test_a_token_that_is_not_known_signs_nobody_in(browser, token):
    answer = sign_in(browser, token)
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (401, False)
    assert "is not known, has expired or was revoked" in answer.get_data(as_text=True)


def test_a_form_that_is_too_large_is_413(browser):
    assert sign_in(browser, "x" * 10_000).status_code == 413


def test_without_a_key_there_are_no_pages_and_a_short_one_is_refused(engine):
    app = create_app(engine, {})
    assert isinstance(app, Flask)
    assert app.test_client().get("/sign-in").status_code == 404
    with pytest.raises(SettingsError, match="too short"):
        create_app(engine, {"GOVBUDGET_SECRET_KEY": "short"})


def test_a_wrong_path_is_a_page_for_a_browser_and_a_problem_for_a_program(browser):
    page = browser.get("/nowhere", headers={"Accept": "text/html,*/*"})
    assert (page.status_code, page.mimetype) == (404, "text/html")
    for path in ("/nowhere", "/api/v2/nowhere"):
        assert browser.get(path).mimetype == "application/problem+json"
    api = browser.get("/api/v2/nowhere", headers={"Accept": "text/html"})
    assert api.mimetype == "application/problem+json"
