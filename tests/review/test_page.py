"""The matrix as a page: stands alone, says everything in words, and can be read by anyone."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from tests.review.helpers import FOLDERS, append, both_policies, copy_policy

from govbudget.authz.matrix import list_cells
from govbudget.review.check import check_policy
from govbudget.review.meaning import INVARIANTS

pytestmark = pytest.mark.slow

VOID = {"meta", "br"}


class Page(HTMLParser):
    """The elements of a page: (tag, attributes, text inside), and whether all were closed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "attrs": dict(attrs), "text": ""}
        assert len(element["attrs"]) == len(attrs)
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def find(self, tag):
        return [element for element in self.elements if element["tag"] == tag]

    def rows(self, number):
        """The cells of the body of a table, by row: (tag, attributes, text)."""
        table = self.find("table")[number]
        start = self.elements.index(table)
        rows = []
        for element in self.elements[start + 1 :]:
            if element["tag"] == "table":
                break
            if element["tag"] == "tr":
                rows.append([])
            elif element["tag"] in {"th", "td"}:
                rows[-1].append(element)
        return rows


@pytest.fixture
def render(run):
    def render(folder, *options):
        result = run("matrix", folder, "--format", "html", *options)
        assert result.status == 0
        return result.out

    return render


@both_policies
def test_the_page_asks_for_nothing_and_runs_nothing(render, shipped):
    text = render(shipped)
    page = Page(text)
    tags = {element["tag"] for element in page.elements}
    assert tags & {"script", "link", "img", "iframe", "object", "base", "form", "a", "svg"} == set()
    attributes = {name for element in page.elements for name in element["attrs"]}
    assert attributes <= {"lang", "charset", "http-equiv", "content", "name", "scope", "class"}
    assert "://" not in text
    assert "url(" not in text
    assert "@import" not in text


@both_policies
def test_the_policy_of_the_page_allows_its_own_style_and_nothing_else(render, shipped):
    page = Page(render(shipped))
    (style,) = page.find("style")
    (csp,) = (m for m in page.find("meta") if "http-equiv" in m["attrs"])
    assert csp["attrs"]["http-equiv"] == "Content-Security-Policy"
    digest = base64.b64encode(hashlib.sha256(style["text"].encode()).digest()).decode()
    assert csp["attrs"]["content"].split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert page.elements.index(csp) < page.elements.index(style)
    assert "@media print" in style["text"]


@both_policies
def test_each_cell_says_its_decision_in_a_word_and_its_lines(render, shipped):
    table = check_policy(shipped).table
    (_, *roles), *body = Page(render(shipped)).rows(0)
    said = {}
    for right, *cells in body:
        for role, cell in zip(roles, cells, strict=True):
            said[role["text"], right["text"]] = (cell["attrs"]["class"], cell["text"])
    expected = {}
    for role, obj, action in list_cells(table, table.asked):
        cell = table.cell(role, obj, action)
        text = cell.verdict + ", ".join(cell.decision.lines)
        expected[f"{role}{table.scopes[role]}", f"{obj} {action}"] = (str(cell.verdict), text)
    assert said == expected


@both_policies
def test_tables_have_captions_and_headers_with_scopes(render, shipped):
    text = render(shipped)
    page = Page(text)
    assert len(page.find("caption")) == len(page.find("table")) == 2
    assert all(caption["text"].strip() for caption in page.find("caption"))
    assert {element["attrs"]["scope"] for element in page.find("th")} == {"col", "row"}
    for number in range(2):
        head, *body = page.rows(number)
        assert all(cell["attrs"] == {"scope": "col"} for cell in head)
        for first, *others in body:
            assert first["attrs"] == {"scope": "row"}
            assert {cell["tag"] for cell in others} == {"td"}
    assert page.find("html")[0]["attrs"]["lang"] == "en"
    assert len(page.find("h1")) == len(page.find("main")) == len(page.find("title")) == 1


def luminance(color):
    parts = [int(part * (2 if len(color) == 3 else 1), 16) / 255 for part in
             re.findall("." if len(color) == 3 else "..", color)]  # fmt: skip
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_stands_out_from_every_background(render):
    """WCAG 2.2, 1.4.6: a contrast of at least 7 to 1, for the lightest text on each background."""
    (style,) = Page(render(FOLDERS["shipped"])).find("style")
    texts = re.findall(r"(?<![-\w])color: #(\w+)", style["text"])
    backgrounds = re.findall(r"background: #(\w+)", style["text"])
    assert len(texts) >= 2
    assert len(backgrounds) >= 4
    for text in texts:
        for background in backgrounds:
            dark, light = sorted(map(luminance, (text, background)))
            assert (light + 0.05) / (dark + 0.05) >= 7, (text, background)


@both_policies
def test_digest_invariants_and_idle_lines_are_on_the_page(render, shipped):
    text = render(shipped)
    page = Page(text)
    assert check_policy(shipped).digest in page.find("main")[0]["text"]
    _, *rows = page.rows(1)
    assert [[cell["text"] for cell in row] for row in rows] == [
        [invariant.statement, "holds"] for invariant in INVARIANTS
    ]
    assert "None: every line changes a decision." in text


def test_a_broken_invariant_and_an_idle_line_are_on_the_page(render, tmp_path):
    folder = copy_policy(FOLDERS["shipped"], tmp_path / "policy")
    append(folder / "policy.csv", "p, group-member, group, group, update, allow\n" * 2)
    last = (folder / "policy.csv").read_text().count("\n")
    page = Page(render(folder))
    states = {row[0]["text"]: row[1]["text"] for row in page.rows(1)[1:]}
    assert states["neither membership of a group nor being oneself writes"] == (
        "broken: group-member may `update` a `group`"
    )
    (item,) = page.find("li")
    assert f"policy.csv:{last}: duplicate-line: says the same as line {last - 1}" in item["text"]


def test_the_page_can_be_narrowed(render):
    page = Page(render(FOLDERS["shipped"], "--role", "owner", "--object", "group"))
    rows = [[cell["text"] for cell in row] for row in page.rows(0)]
    assert rows == [
        ["object and action", "ownersite"],
        ["group read", "allowpolicy.csv:7"],
        ["group update", "allowpolicy.csv:8"],
    ]
