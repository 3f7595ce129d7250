"""The pages in a real browser: each role, each page; pictures are kept in build/pages."""

from __future__ import annotations

import re
import subprocess
from html import unescape

import pytest
from tests.docs.support import ROOT
from tests.pages.test_people import (
    send,  # noqa: F401
    town,  # noqa: F401 - a world in which somebody has spent
)
from tests.review.test_browser import FLAGS, browser, read_size  # noqa: F401
from tests.support import make_app
from tests.web.helpers import serve

pytestmark = pytest.mark.long

PICTURES = ROOT / "build" / "pages"
STYLE = ROOT / "src" / "govbudget" / "pages" / "style.css"
PAGES = [
    ("member", "/"),
    ("joined", "/"),
    ("nobody", "/"),
    ("member", "/organizations/{a}"),
    ("org_admin", "/organizations/{a}"),
    ("owner", "/organizations/{a}/spend?group_by=model"),
    ("member", "/organizations/{a}/spend"),
    ("user_admin", "/organizations/{a}/audit"),
    ("member", "/groups/{a1}"),
    ("org_admin", "/groups/{a1}"),
    ("org_admin", "/groups/{b1}"),
    ("owner", "/prices"),
    ("owner", "/policy"),
    ("owner", "/policy/explain?role=group-member&object=group&action=update"),
    ("member", "/policy"),
]


def read_words(html):
    body = html[html.index("<body") : html.rindex("</body>")]
    return unescape(re.sub(r"<[^>]+>", " ", body)).split()


@pytest.fixture
def open_page(browser, tmp_path):  # noqa: F811
    """Open an address and give what the browser printed: the document, and its complaints."""

    def open_page(address, size, *options):
        command = [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *options]
        ended = subprocess.run(
            [*command, f"--window-size={size}", "--dump-dom", address],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return ended.stdout, re.findall(r"CONSOLE.*", ended.stderr)

    return open_page


@pytest.fixture
def ask(engine, policy, town):  # noqa: F811
    """Give an application that takes everybody for one person of `PAGES`, and the path."""

    def ask(number):
        person, path = PAGES[number]
        caller = getattr(town, person)
        app = make_app(engine, policy=policy, pages="/ai", identify=lambda: caller)
        return app, "/ai" + path.format(a=town.a, a1=town.a1, b1=town.b1)

    return ask


@pytest.mark.parametrize("number", range(len(PAGES)), ids=lambda n: " ".join(PAGES[n]))
def test_the_browser_shows_every_word_and_has_nothing_to_complain_of(ask, open_page, number):
    app, path = ask(number)
    sent = app.test_client().get(path).get_data(as_text=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture = PICTURES / f"{number}-{PAGES[number][0]}.png"
    with serve(app) as port:
        address = f"http://127.0.0.1:{port}{path}"
        shown, complaints = open_page(address, "1400,1000", f"--screenshot={picture}")
    assert [line for line in complaints if "status of 40" not in line] == []
    assert read_words(shown) == read_words(sent)
    assert read_size(picture.read_bytes()) == (1400, 1000)


@pytest.mark.parametrize("number", range(len(PAGES)), ids=lambda n: " ".join(PAGES[n]))
def test_no_page_has_to_be_moved_sideways_on_a_telephone(ask, open_page, tmp_path, number):
    app, path = ask(number)
    text = app.test_client().get(path).get_data(as_text=True)
    style = f"<style>{STYLE.read_text()}</style>"
    text = re.sub(r'<link rel="stylesheet"[^>]*>', lambda _: style, text)
    probe = "<script>document.title = document.documentElement.scrollWidth</script></body>"
    (tmp_path / "page.html").write_text(text.replace("</body>", probe))
    frame = tmp_path / "frame.html"
    frame.write_text(
        "<iframe src='page.html' width=320 height=900 style='border:0'"
        " onload='document.title = this.contentDocument.title'></iframe>"
    )
    shown, _ = open_page(frame.as_uri(), "500,1000", "--allow-file-access-from-files")
    assert re.findall(r"<title>(\d+)", shown) == ["320"]
