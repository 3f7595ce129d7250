"""The pages in a real browser: each role, each page; pictures are kept in build/pages."""

from __future__ import annotations

import re
from html import unescape

import pytest
from tests.browser import Browser, read_size
from tests.docs.support import ROOT
from tests.pages.test_people import (
    fill,  # noqa: F401 - with a world in which somebody has spent
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
    ("org_admin", "/organizations/{a}?crossed=75"),
]
REFUSED = {
    ("org_admin", "/groups/{b1}"): 404,
    ("member", "/policy"): 403,
    ("owner", "/organizations/{a}/spend?group_by=model"): 400,
}


every_page = pytest.mark.parametrize("number", range(len(PAGES)), ids=lambda n: " ".join(PAGES[n]))


SHOWN = {
    ("member", "/"): ("Refused calls", "Over the limit of $5.00 from", "No price is known for"),
    ("org_admin", "/organizations/{a}"): ("Needs attention", "1 crossed 75 %"),
    ("org_admin", "/groups/{a1}"): ("This month by day", "Spent for the group a day"),
    ("org_admin", "/organizations/{a}?crossed=75"): ("who crossed 75 % of their limit",),
}


def read_words(html):
    body = html[html.index("<body") : html.rindex("</body>")]
    return unescape(re.sub(r"<[^>]+>", " ", body)).split()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module", autouse=True)
def attention(town, send):
    """Let a member of the world have crossed thresholds, and have had calls refused."""
    call = {"organization_id": str(town.a), "user_id": str(town.member), "provider": "acme"}
    call |= {"tokens": {"input": 3_000_000}}
    used = {**call, "model": "small", "event_id": "most"}
    assert send("POST", "/ai/usage", town.gateway, json=used).status_code == 201
    for model in ("small", "a-model-without-a-price-and-with-a-long-name"):
        refused = send("POST", "/ai/holds", town.gateway, json={**call, "model": model})
        assert refused.status_code == 403


@pytest.fixture(scope="module")
def ask(engine, policy, town):
    """Serve to one person of `PAGES` at a time; give the application, the path and the address."""
    asking = {}
    shown = make_app(engine, policy=policy, pages="/ai", identify=lambda: asking["person"])
    signing_in = create_app(engine, KEY)
    with serve(shown, waits=False) as port, serve(signing_in, waits=False) as other_port:

        def ask(number):
            person, path = PAGES[number]
            if path == "/sign-in":
                return signing_in, path, f"http://127.0.0.1:{other_port}{path}"
            asking["person"] = getattr(town, person)
            path = "/ai" + path.format(a=town.a, a1=town.a1, b1=town.b1)
            return shown, path, f"http://127.0.0.1:{port}{path}"

        yield ask


@pytest.fixture(scope="module", params=range(len(PAGES)), ids=lambda n: " ".join(PAGES[n]))
def page(request, ask, browser):
    """Open a page once for all that is asked about it; give its number and what was sent."""
    app, path, address = ask(request.param)
    answer = app.test_client().get(path)
    browser.open(address)
    return request.param, answer


def test_the_browser_shows_every_word_and_has_nothing_to_complain_of(browser, page):
    PICTURES.mkdir(parents=True, exist_ok=True)
    number, answer = page
    assert answer.status_code == REFUSED.get(PAGES[number], 200)
    assert [line for line in browser.complaints if "status of 40" not in line] == []
    shown = read_words(browser.read_document())
    assert shown == read_words(answer.get_data(as_text=True))
    for words in SHOWN.get(PAGES[number], ()):
        assert words in " ".join(shown)
    browser.show((1400, 1000))
    picture = browser.take_picture()
    assert read_size(picture) == (1400, 1000)
    (PICTURES / f"{number}-{PAGES[number][0]}.png").write_bytes(picture)


@pytest.mark.usefixtures("page")
def test_no_page_has_to_be_moved_sideways_on_a_telephone(browser):
    browser.show((320, 900))
    assert browser.run("document.documentElement.scrollWidth") == 320
