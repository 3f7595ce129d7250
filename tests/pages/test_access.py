"""The pages are for everybody: axe finds nothing, and the keyboard reaches all that there is."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from tests.docs.support import ROOT
from tests.pages.test_browser import (
    PAGES,
    ask,  # noqa: F401
    browser,  # noqa: F401
    every_page,
)
from tests.pages.test_people import PRICE, make_town, put_override

from govbudget.pages.render import STYLE

pytestmark = pytest.mark.long

AXE = ROOT / "build" / "axe" / "axe_playwright_python" / "axe.min.js"
# All that it knows, the advice that is beyond WCAG, too.
FIND = """axe.run({resultTypes: ['violations']}).then(found => found.violations.flatMap(
  one => one.nodes.map(node => `${one.id}: ${node.html.slice(0, 200)}: ${node.failureSummary}`)))"""
CONTROLS = "a[href], button, input:not([type=hidden]):not([hidden]), select, textarea, summary"
INSIDE = f"{CONTROLS}, [tabindex='0']"
WATCH = f"""
window.controls = [...document.querySelectorAll({CONTROLS!r})];
window.look = () => {{
  const it = document.activeElement, box = it.getBoundingClientRect(), style = getComputedStyle(it);
  return {{
    place: controls.indexOf(it), tag: it.tagName, name: it.outerHTML.slice(0, 120),
    outline: style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth),
    color: style.outlineColor, ground: getComputedStyle(document.body).backgroundColor,
    top: box.top + scrollY, bottom: box.bottom + scrollY, left: box.left + scrollX,
    seen: box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0
      && box.left < innerWidth,
  }};
}};
controls.length"""
SIZES = [(1400, 1000), (320, 900)]
COLOUR = re.compile("#[0-9a-f]{3,6}")


@pytest.fixture(scope="module")
def axe():
    if not AXE.exists():
        pytest.fail("no axe-core in build/axe; run tools/install-browser")
    return AXE.read_text()


@pytest.fixture(scope="module")
def town(engine, send):
    """A town in which every colour is shown: who is over the limit, and calls without a price."""
    town = make_town(engine, send)
    call = {"organization_id": str(town.a), "user_id": str(town.org_admin), "provider": "acme"}
    used = {**call, "model": "unheard of", "event_id": "unpriced", "tokens": {"input": 1}}
    assert send("POST", "/ai/usage", town.gateway, json=used).status_code == 201
    used = {**call, "model": "small", "event_id": "much", "tokens": {"input": 9_000_000}}
    assert send("POST", "/ai/usage", town.gateway, json=used).status_code == 201
    limit = {"spend_limit_micros": 9_900_000}
    for group in (town.a, town.a2):
        put = f"/groups/{group}/ai/budget"
        assert send("PUT", put, town.org_admin, json=limit).status_code == 200
    put_override(send, town, 1_200_000)
    rows = [{**PRICE, "model": f"model {number}"} for number in range(60)]
    assert send("PUT", "/ai/prices", town.owner, json=rows).status_code == 200
    return town


@pytest.fixture(scope="module", params=range(len(PAGES)), ids=lambda n: " ".join(PAGES[n]))
def opened(request, ask, browser):  # noqa: F811
    """Open a page once for all that is asked about it."""
    _, _, address = ask(request.param)
    browser.open(address)


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]} wide")
def _at_the_start(request, opened, browser):  # noqa: F811
    """Let the next Tab be as the first on a page that was just opened, in a window of a size."""
    browser.show(request.param)
    browser.run(
        "document.body.tabIndex = -1, document.body.focus(), "
        "document.body.removeAttribute('tabindex'), scrollTo(0, 0)"
    )


@pytest.mark.usefixtures("opened")
def test_axe_finds_nothing(browser, axe):  # noqa: F811
    browser.run(axe)
    for size, is_dark in zip(SIZES, (False, True), strict=True):
        browser.show(size, is_dark=is_dark)
        assert browser.run(FIND) == [], (size, is_dark)


def test_the_dark_changes_colours_only_and_a_small_window_lengths_only():
    """So axe need not look at each size in each scheme of colours."""
    changed = {}
    for query, rules in re.findall(r"@media \((.+?)\) \{\n(.+?)\n\}", STYLE.decode(), re.DOTALL):
        changed[query] = re.findall(r"([\w-]+): ([^;]+);", rules)
    dark, small = changed.pop("prefers-color-scheme: dark"), changed.pop("max-width: 30rem")
    assert {name for name, value in dark if not COLOUR.fullmatch(value)} == {"color-scheme"}
    assert {name for name, _ in small} == {"padding", "font-size"}
    assert STYLE.count(b"@media") == 3  # the other one is for print


def walk(browser):  # noqa: F811
    """Press Tab until the focus has been everywhere; give what it was on."""
    number = browser.run(WATCH)
    seen = []
    for _ in range(2 * number + 50):
        browser.press("Tab")
        at = browser.run("look()")
        if at["tag"] == "BODY" or (seen and at["place"] == 0):  # it has left the page
            return number, seen
        if not seen or at["place"] < 0 or at["place"] != seen[-1]["place"]:  # a date has parts
            seen.append(at)
    pytest.fail("the focus is caught")


@pytest.mark.usefixtures("_at_the_start")
def test_tab_reaches_all_in_reading_order_and_the_focus_is_seen(browser):  # noqa: F811
    count, seen = walk(browser)
    assert [at["place"] for at in seen if at["place"] >= 0] == [*range(count)]
    for at in seen:
        assert at["seen"], at["name"]
        assert at["outline"] >= 2, at["name"]
        assert at["color"] != at["ground"], at["name"]
    placed = [at for at in seen if at["place"] > 0]  # the skip link lies above
    for one, then in pairwise(placed):
        is_above = then["bottom"] <= one["top"]
        is_before = then["top"] < one["bottom"] <= then["bottom"] and then["left"] < one["left"]
        assert not is_above, (one["name"], then["name"])
        assert not is_before or then["top"] >= one["top"], (one["name"], then["name"])


@pytest.mark.usefixtures("_at_the_start")
def test_the_skip_link_leads_past_the_navigation(browser):  # noqa: F811
    browser.press("Tab")
    assert browser.run("document.activeElement.className") == "skip"
    browser.press("Enter")
    assert browser.run("document.activeElement.id") == "govbudget-main"
    browser.press("Tab")
    main = f"document.getElementById('govbudget-main').querySelectorAll({INSIDE!r})"
    first = f"[...{main}].find(one => one.offsetParent !== null)"
    assert browser.run(f"(found => !found || found === document.activeElement)({first})")


def test_axe_finds_what_is_wrong(browser, axe):  # noqa: F811
    """So the silence above means something."""
    browser.open("data:text/html,<p style='color: silver'>hard to read<img src='x'>")
    browser.run(axe)
    found = {line.partition(":")[0] for line in browser.run(FIND)}
    assert {"color-contrast", "html-has-lang", "image-alt"} <= found


@pytest.fixture(scope="module")
def followed():
    """What was followed outside the main part of a page, by whom: all pages have the same there."""
    return set()


@every_page
def test_enter_follows_each_link(ask, browser, followed, number):  # noqa: F811
    """Of many that lead to one kind of page the first."""
    _, path, address = ask(number)
    browser.open(address)
    links = browser.run(
        "[...document.querySelectorAll('a[href]:not(.skip)')].map(a => "
        "[a.getAttribute('href'), a.closest('#govbudget-main') !== null])"
    )
    firsts = {}
    for place, (link, is_main) in enumerate(links):
        if "csv" not in link:
            firsts.setdefault(link.partition("?")[0], (place, is_main))
    for link, (place, is_main) in firsts.items():
        if not is_main and (PAGES[number][0], link) in followed:
            continue
        followed.add((PAGES[number][0], link))
        if browser.run("location.href") != address:
            browser.open(address)
        browser.run(f"document.querySelectorAll('a[href]:not(.skip)')[{place}].focus()")
        browser.press("Enter")
        browser.wait()
        assert browser.run("location.pathname") == link, path


@pytest.mark.parametrize("page", ["/spend?by=model", "/policy/explain"])
def test_a_form_is_filled_and_sent_by_keys_alone(ask, browser, page):  # noqa: F811
    (number,) = (n for n, (_, path) in enumerate(PAGES) if page in path)
    _, _, address = ask(number)
    browser.open(address)
    browser.run("document.querySelector('form.ask').querySelector('[type=checkbox]').focus()")
    before = browser.run("document.activeElement.checked")
    browser.press(" ")
    assert browser.run("document.activeElement.checked") is not before
    value = browser.run("document.activeElement.value")
    browser.press("Enter")
    browser.wait()
    assert browser.run(f"location.search.includes('={value}')") is not before
    chosen = f"document.querySelector('[type=checkbox][value={value}]').checked"
    assert browser.run(chosen) is not before
