"""The page in a real browser: it is shown as it is meant, and nothing is missing."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess

import pytest
from tests.review.helpers import both_policies

pytestmark = pytest.mark.long

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--window-size=1200,900",
)


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail("no Chromium on the PATH; run tools/install-browser")
    return found


@pytest.fixture
def show(browser, tmp_path):
    """Open a page and give what the browser printed: the document, and its complaints."""

    def show(text, *options):
        page = tmp_path / "page.html"
        page.write_text(text)
        home = tmp_path / "profile"
        shutil.rmtree(home, ignore_errors=True)
        ended = subprocess.run(
            [browser, *FLAGS, f"--user-data-dir={home}", *options, page.as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return ended.stdout, re.findall(r"CONSOLE.*", ended.stderr)

    return show


@pytest.fixture
def render(run):
    return lambda folder: run("matrix", folder, "--format", "html").out


@both_policies
def test_the_browser_shows_every_word_and_has_nothing_to_complain_of(show, render, shipped):
    text = render(shipped)
    document, complaints = show(text, "--dump-dom")
    assert complaints == []

    def words(html):
        body = html[html.index("<main>") : html.index("</main>")]
        return re.sub(r"<[^>]+>", " ", body).split()

    assert words(document) == words(text)
    assert document.count("<tr>") == text.count("<tr>")


def test_the_browser_complains_of_a_style_that_the_page_does_not_allow(show, render, folder):
    """So the silence above means something."""
    text = render(folder)
    _, complaints = show(text.replace("<style>", "<style>p { color: red }"), "--dump-dom")
    assert any("Content Security Policy" in line for line in complaints)
    _, complaints = show(text.replace("</main>", "<script>alert(1)</script></main>"), "--dump-dom")
    assert any("Content Security Policy" in line for line in complaints)


def read_size(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def test_the_styles_take_effect(show, render, folder, tmp_path):
    """The picture is not that of the page without its styles, nor that of an empty page."""
    pictures = []
    text = render(folder)
    plain = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    blank = re.sub(r"<main>.*</main>", "<main></main>", text, flags=re.DOTALL)
    for number, page in enumerate((text, plain, blank)):
        picture = tmp_path / f"{number}.png"
        show(page, f"--screenshot={picture}")
        pictures.append(picture.read_bytes())
        assert read_size(pictures[-1]) == (1200, 900)
    assert len(set(pictures)) == 3
    assert len(pictures[0]) > 5 * len(pictures[2])


def test_it_can_be_printed(show, render, folder, tmp_path):
    sheet = tmp_path / "page.pdf"
    show(render(folder), f"--print-to-pdf={sheet}", "--no-pdf-header-footer")
    content = sheet.read_bytes()
    assert content.startswith(b"%PDF-")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 2
