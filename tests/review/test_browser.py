"""The page in a real browser: it is shown as it is meant, and nothing is missing."""

from __future__ import annotations

import re

import pytest
from tests.browser import Browser, read_size
from tests.review.helpers import both_policies

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def show(browser, tmp_path):
    """Open a page in the browser, and give that."""

    def show(text):
        page = tmp_path / "page.html"
        page.write_text(text)
        browser.open(page.as_uri(), (1200, 900))
        return browser

    return show


@pytest.fixture
def render(run):
    return lambda folder: run("matrix", folder, "--format", "html").out


@both_policies
def test_the_browser_shows_every_word_and_has_nothing_to_complain_of(show, render, shipped):
    text = render(shipped)
    shown = show(text)
    document = shown.read_document()
    assert shown.complaints == []

    def words(html):
        body = html[html.index("<main>") : html.index("</main>")]
        return re.sub(r"<[^>]+>", " ", body).split()

    assert words(document) == words(text)
    assert document.count("<tr>") == text.count("<tr>")


def test_the_browser_complains_of_a_style_that_the_page_does_not_allow(show, render, folder):
    """So the silence above means something."""
    text = render(folder)
    for unlike in (
        text.replace("<style>", "<style>p { color: red }"),
        text.replace("</main>", "<script>alert(1)</script></main>"),
    ):
        complaints = show(unlike).complaints
        assert any("Content Security Policy" in line for line in complaints)


def test_the_styles_take_effect(show, render, folder):
    """The picture is not that of the page without its styles, nor that of an empty page."""
    text = render(folder)
    plain = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    blank = re.sub(r"<main>.*</main>", "<main></main>", text, flags=re.DOTALL)
    pictures = [show(page).take_picture() for page in (text, plain, blank)]
    assert {read_size(picture) for picture in pictures} == {(1200, 900)}
    assert len(set(pictures)) == 3
    assert len(pictures[0]) > 5 * len(pictures[2])


def test_it_can_be_printed(show, render, folder):
    content = show(render(folder)).print_sheet()
    assert content.startswith(b"%PDF-")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 2
