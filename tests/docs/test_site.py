"""The site that `make docs` builds."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from tests.docs.support import ROOT

pytestmark = pytest.mark.long


class Page(HTMLParser):
    """The places and the links of a page."""

    def __init__(self, path):
        super().__init__()
        self.places, self.links = {""}, set()
        self.feed(path.read_text())

    def handle_starttag(self, _tag, attributes):
        found = dict(attributes)
        self.places |= {found[key] for key in ("id", "name") if found.get(key)}
        self.links |= {found[key] for key in ("href", "src") if found.get(key)}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of the site, by their paths, built without a warning."""
    target = tmp_path_factory.mktemp("site").resolve()
    options = re.search(r"sphinx-build (.*?) build/site", (ROOT / "Makefile").read_text())[1]
    command = [sys.executable, "-m", "sphinx", *options.split(), str(target)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    return {path: Page(path) for path in target.rglob("*.html")}


def test_no_link_of_the_site_is_broken(pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            places = pages[target].places if target in pages else {parts.fragment}
            if not target.is_file() or unquote(parts.fragment) not in places:
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_every_document_is_a_page_that_the_navigation_leads_to(pages):
    (start,) = (path for path in pages if path.match("docs/index.html"))
    reached = {Path(urlsplit(link).path).stem for link in pages[start].links}
    documents = {path.stem for path in (ROOT / "docs").rglob("*.md")} - {"index"}
    assert documents <= reached
    assert {"README", "CHANGELOG", "CONTRIBUTING", "SECURITY"} <= reached
