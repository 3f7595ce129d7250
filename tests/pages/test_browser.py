"""The pages in a real browser: each role, each page; pictures are kept in build/pages."""

from __future__ import annotations

import re
from contextlib import contextmanager
from html import unescape

import pytest
from tests.browser import Browser, read_size
from tests.docs.support import ROOT
from tests.pages.test_people import (
    send,  # noqa: F401
    town,  # noqa: F401 - a world in which somebody has spent
)
from tests.pages.test_sign_in import KEY
from tests.support import make_app
from tests.web.helpers import serve

from govbudget.server.app import create_app

pytestmark = pytest.mark.long

PICTURES = ROOT / "build" / "pages"
PAGES = [
    ("member", "/"),
    ("joined", "/"),
    ("nobody", "/"),
    ("member", "/organizations/{a}"),
    ("org_admin", "/organizations/{a}"),
    ("owner", "/organizations/{a}/spend?by=model&by=user"),
    ("member", "/organizations/{a}/spend"),
    ("user_admin", "/organizations/{a}/audit"),
    ("member", "/groups/{a1}"),
    ("org_admin", "/groups/{a1}"),
    ("org_admin", "/groups/{b1}"),
    ("owner", "/prices"),
    ("owner", "/policy"),
    ("owner", "/policy/explain?role=group-member&object=group&action=update"),
    ("member", "/policy"),
    ("owner", "/organizations/{a}/spend?group_by=model"),
    ("who is not signed in", "/sign-in"),
]
REFUSED = {
    ("org_admin", "/groups/{b1}"): 404,
    ("member", "/policy"): 403,
    ("owner", "/organizations/{a}/spend?group_by=model"): 400,
}


every_page = pytest.mark.parametrize("number", range(len(PAGES)), ids=lambda n: " ".join(PAGES[n]))


def read_words(html):
    body = html[html.index("<body") : html.rindex("</body>")]
    return unescape(re.sub(r"<[^>]+>", " ", body)).split()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def ask(engine, policy, town):  # noqa: F811
    """Serve an application to one person of `PAGES`; give it, the path and the address."""

    @contextmanager
    def ask(number):
        person, path = PAGES[number]
        if path == "/sign-in":
            app = create_app(engine, KEY)
        else:
            caller = getattr(town, person)
            app = make_app(engine, policy=policy, pages="/ai", identify=lambda: caller)
            path = "/ai" + path.format(a=town.a, a1=town.a1, b1=town.b1)
        with serve(app, waits=False) as port:
            yield app, path, f"http://127.0.0.1:{port}{path}"

    return ask


@every_page
def test_the_browser_shows_every_word_and_has_nothing_to_complain_of(ask, browser, number):
    PICTURES.mkdir(parents=True, exist_ok=True)
    with ask(number) as (app, path, address):
        answer = app.test_client().get(path)
        sent = answer.get_data(as_text=True)
        browser.open(address)
    assert answer.status_code == REFUSED.get(PAGES[number], 200)
    assert [line for line in browser.complaints if "status of 40" not in line] == []
    assert read_words(browser.read_document()) == read_words(sent)
    picture = browser.take_picture()
    assert read_size(picture) == (1400, 1000)
    (PICTURES / f"{number}-{PAGES[number][0]}.png").write_bytes(picture)


@every_page
def test_no_page_has_to_be_moved_sideways_on_a_telephone(ask, browser, number):
    with ask(number) as (_, _, address):
        browser.open(address, (320, 900))
    assert browser.run("document.documentElement.scrollWidth") == 320
