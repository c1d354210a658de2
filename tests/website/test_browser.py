"""The whole site as people meet it: every page type in a real browser, and every file of one build read through.

Needs Chromium (its place in SMALLPRINT_CHROMIUM, or on the path) for the tests of the browser alone. Where SMALLPRINT_CHROMIUM
is set, as `.ci/run` does, a browser that is missing is an error; elsewhere its tests are skipped, and say so.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import html5lib
import pytest

from catalog import FAMILIES
from scripts.evidence.facts import gather
from scripts.website import browse
from scripts.website.site import build
from tests.helpers import Quiet, serving
from tests.website.test_pages import Seen, make_tree

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Route

pytestmark = pytest.mark.xdist_group("browser")  # they share one build of the site and one browser
ROOT = Path(__file__).parents[2]
PAGES = {  # one of every type; an entry with a method, and one that has none
    "home": "",
    "family": "low_rank/",
    "entry": "pruning/network_slimming/",
    "entry-without-method": "pruning/amc/",
    "comparisons": "comparisons/",
    "comparison": "comparisons/resnet50_ilsvrc12/",
    "measured": "comparisons/measured/",
    "published": "comparisons/published/",
    "network": "comparisons/published/imagenet-resnet-18/",
    "guide": "guides/run/",
    "catalogue": "catalogue/",
    "compare": "compare/#entries=network_slimming,adaround",
    "glossary": "glossary/",
    "data": "data/",
    "framework": "frameworks/distiller/",
    "list": "lists/",
    "missing": "404.html",
}
every_type = pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
BY_COLOUR = ["color-contrast", "link-in-text-block"]  # what a second look, in dark, can find that the first did not
IN_REACH = ["scrollable-region-focusable", "target-size"]  # what a narrow screen may change
PATIENCE = 20_000  # ms, on a busy machine
LINES = 25  # of a source, and of a table, in axe's eyes: the others are made as these are, and each takes its time
SHORTEN = """(most) => {
  for (const code of document.querySelectorAll(".code code")) {
    const lines = [...code.childNodes], from = lines.indexOf([...code.querySelectorAll("a[id]")][most]);
    if (from > 0) lines.slice(from).forEach((line) => line.remove());
  }
  for (const body of document.querySelectorAll("tbody")) [...body.rows].slice(most).forEach((row) => row.remove());
}"""
SIZES = """(svg) => [...svg.querySelectorAll("path, line, rect")].map((mark) => {
  const box = mark.getBoundingClientRect();
  return box.width + box.height;
})"""
DARK = "label[title='Switch to dark']"
WATCH = """
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
}).observe({type: "layout-shift", buffered: true});
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real catalogue's site, built once."""
    return build(ROOT, tmp_path_factory.mktemp("site") / "hosted")


# Files


@pytest.fixture(scope="session")
def seen(site: Path) -> dict[Path, Seen]:
    return {path: Seen(path.read_text()) for path in site.rglob("*.html")}


def test_every_link_and_anchor_inside_resolves(site: Path, seen: dict[Path, Seen]) -> None:
    broken, ids = [], {path: page.ids for path, page in seen.items()}
    for path, page in seen.items():
        for tag, attributes in page.elements:
            url = urlsplit(attributes.get("href", attributes.get("src", "")))
            if url.scheme or url.netloc or not (url.path or url.fragment):
                continue
            target = (
                (site / unquote(url.path).lstrip("/") if url.path.startswith("/") else path.parent / unquote(url.path))
                if url.path
                else path
            )
            target = Path(os.path.normpath(target / "index.html" if target.is_dir() else target))
            known = target.is_file() and (not url.fragment or target not in ids or unquote(url.fragment) in ids[target] | {"__search"})
            broken += [] if known else [(str(path.relative_to(site)), tag, attributes)]
    assert not broken


def test_no_id_stands_twice_in_a_page(seen: dict[Path, Seen]) -> None:
    for path, page in seen.items():
        many = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
        assert not {id: count for id, count in many.items() if count > 1}, path


@every_type
def test_html_is_well_formed(site: Path, path: str) -> None:
    parser = html5lib.HTMLParser()
    file = site / path.partition("#")[0]
    parser.parse((file / "index.html" if file.is_dir() else file).read_text())
    assert not parser.errors


def test_a_page_is_light_without_its_code(site: Path) -> None:
    """With the theme's header, navigation and footer, which are a quarter of it, and its charts and equations."""
    for family in FAMILIES:
        for file in site.glob(f"{family}/*/index.html"):
            text = re.sub(r"<pre\b.*?</pre>", "", file.read_text(), flags=re.DOTALL)
            assert len(text.encode()) <= 60_000, file.parent.relative_to(site)


# Browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    asked = os.environ.get("SMALLPRINT_CHROMIUM")
    place = asked or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    missing = [name for name in ("playwright", "axe_playwright_python") if importlib.util.find_spec(name) is None]
    if missing or not place or not Path(place).is_file():
        what = " and ".join([*missing, *([] if place and Path(place).is_file() else [place or "Chromium"])])
        cure = "apt-get install chromium, and pip install -e '.[dev]'; SMALLPRINT_CHROMIUM=path where it is elsewhere"
        refuse = pytest.fail if asked else pytest.skip
        refuse(f"NO BROWSER: {what} is missing, so no page was looked at. Cure: {cure}")
    from playwright.sync_api import sync_playwright

    closed = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # no other host has an address
    with sync_playwright() as player:
        started = player.chromium.launch(executable_path=place, args=closed)
        yield started
        started.close()


def expect(place: Locator) -> Any:
    """What a place comes to say. A page answers a click when its scripts have come, so a look at once may be too early."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    return expect(place)


class Files(Quiet, SimpleHTTPRequestHandler):
    """A folder, served without a word, its data late: a page that answers when data are there is not asked too early by luck."""

    def do_GET(self) -> None:
        time.sleep(0.3 if "/assets/entries/" in self.path or self.path.endswith("/names.js") else 0)
        super().do_GET()


class Patient(ThreadingHTTPServer):
    """A browser hangs up when it likes."""

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    with serving(Patient(("127.0.0.1", 0), functools.partial(Files, directory=str(site)))) as server:
        yield f"http://127.0.0.1:{server.server_port}/"


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A fresh reader, at a laptop. Whatever it does: no complaint in the console, nothing missing, no request elsewhere."""
    wrong: list[str] = []
    context = browser.new_context(base_url=address, viewport={"width": 1280, "height": 800}, color_scheme="light")
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    context.add_init_script(WATCH)
    context.route(
        lambda url: not url.startswith((address, "file:", "data:", "blob:")),
        lambda route: (wrong.append(f"request to {route.request.url}"), route.abort()),
    )
    context.on("console", lambda said: wrong.append(f"console: {said.text}") if said.type in ("error", "warning") else None)
    context.on("weberror", lambda error: wrong.append(f"error: {error.error}"))
    context.on("response", lambda answer: wrong.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None)
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    yield opened
    context.close()
    assert not wrong


@functools.cache
def axe() -> str:
    place = importlib.util.find_spec("axe_playwright_python")
    assert place
    assert place.origin
    return Path(place.origin).with_name("axe.min.js").read_text()


def violations(page: Page, rules: list[str]) -> list[str]:
    found = page.evaluate("(rules) => axe.run({runOnly: rules, resultTypes: ['violations']})", rules)["violations"]
    return [f"{rule['id']}: {node['target']} {node['failureSummary']}" for rule in found for node in rule["nodes"]]


@every_type
def test_axe_finds_nothing(page: Page, path: str) -> None:
    page.goto(path)
    page.evaluate(axe())
    page.evaluate(SHORTEN, LINES)
    assert not violations(page, WCAG)
    page.locator(DARK).click()
    assert not violations(page, BY_COLOUR)


def test_a_reader_in_the_dark_still_prints_on_white(page: Page) -> None:
    page.emulate_media(color_scheme="dark", media="print")
    page.goto(PAGES["entry"])
    page.evaluate(axe())
    page.evaluate(SHORTEN, LINES)
    assert not violations(page, BY_COLOUR)


def late(route: Route) -> None:
    """A script that comes after the first paint, as on a slow line or a busy machine."""
    time.sleep(0.2)
    route.continue_()


@every_type
def test_the_layout_holds_still_fits_a_phone_and_prints(page: Page, path: str) -> None:
    page.emulate_media(color_scheme="dark")
    page.route("**/*.js", late)
    page.goto(path, wait_until="networkidle")
    assert page.evaluate("shifted") < 0.1
    expect(page.locator("body")).to_have_attribute("data-md-color-scheme", "slate")
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.evaluate(axe())
    assert not violations(page, IN_REACH)
    page.emulate_media(media="print")
    for gone in (".md-header", ".md-sidebar", ".md-tabs", ".sp-search"):
        assert not page.locator(gone).filter(visible=True).count(), gone
    expect(page.locator("h1").first).to_be_visible()


def test_every_method_fits_a_phone(page: Page, site: Path) -> None:
    """Each has its own long words: paths, equations, settings."""
    page.set_viewport_size({"width": 320, "height": 640})
    wide = {}
    for id, source in gather(ROOT, {}).sources.items():
        page.goto(f"{Path(source.path).parent.name}/{id}/", wait_until="domcontentloaded")
        wide[id] = page.evaluate("document.documentElement.scrollWidth")
    assert {id: width for id, width in wide.items() if width > 320} == {}
    assert len(wide) > 20


@pytest.mark.parametrize("path", [PAGES["home"], PAGES["family"], PAGES["measured"]])
def test_charts_are_really_drawn(page: Page, path: str) -> None:
    page.goto(path)
    for tab in page.locator(".tabbed-labels label").all():
        tab.click()
    charts = page.locator(".sp-chart svg").filter(visible=True)
    assert charts.count()
    for chart in charts.all():
        sizes = chart.evaluate(SIZES)
        assert sum(size > 0 for size in sizes) > 10
        words = chart.locator("text")
        assert words.count() > 3
        box = chart.bounding_box()
        assert box
        assert box["width"] > 250
        assert box["height"] > 100


def test_tables_sort_by_mouse_and_by_keyboard(page: Page) -> None:
    page.goto("low_rank/")
    table = page.locator(".sp-sortable table").first
    heading = table.locator("th", has_text="Year")
    before = table.locator("th").nth(heading.evaluate("head => head.cellIndex") - 1).inner_text()
    column = f"tbody td:nth-child({heading.evaluate('head => head.cellIndex') + 1})"
    years = lambda: [int(text) for text in table.locator(column).all_inner_texts()]  # noqa: E731
    heading.locator("button").click()
    expect(heading).to_have_attribute("aria-sort", "ascending")
    assert years() == sorted(years())
    page.keyboard.press("Enter")
    expect(heading).to_have_attribute("aria-sort", "descending")
    assert years() == sorted(years(), reverse=True)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    expect(table.locator("th[aria-sort]")).to_have_text(before)
    expect(heading).not_to_have_attribute("aria-sort", re.compile(""))


def test_the_keyboard_skips_to_the_content(page: Page) -> None:
    page.goto(PAGES["entry"])
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to content")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.md-content') !== null")


def test_dark_is_a_switch_that_stays(page: Page) -> None:
    page.goto("")
    ground = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")  # noqa: E731
    light = ground()
    page.locator(DARK).click()
    assert ground() != light
    page.goto(PAGES["guide"])
    expect(page.locator("body")).to_have_attribute("data-md-color-scheme", "slate")


@pytest.mark.parametrize(("block", "says"), [("h2#run", "make smoke METHOD=network_slimming"), ("h2#cite", "Zhuang Liu, Jianguo Li")])
def test_copy_buttons_copy(page: Page, block: str, says: str) -> None:
    page.goto(PAGES["entry"])
    code = page.locator(f"{block} ~ .highlight").first
    code.hover()
    code.locator("button[data-md-type=copy], button.md-clipboard").first.click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(says)
    assert copied.strip() == code.locator("code").inner_text().strip()


def found(page: Page, words: str) -> None:
    """Search for some words from the keyboard and follow the first answer."""
    page.keyboard.press("/")
    page.keyboard.type(words)
    page.locator(".md-search-result__link").first.click()


def test_a_bundle_opened_as_a_file_draws_and_searches(page: Page, tmp_path: Path) -> None:
    """A small catalogue's: what may go wrong with files is the same."""
    folder = build(make_tree(tmp_path), offline=True)
    page.goto(folder.joinpath("index.html").as_uri())
    expect(page.locator(".sp-chart svg").first).to_be_visible()
    page.locator(".sp-explore").filter(visible=True).first.click()
    page.locator("[data-state=drawn] .sp-stage svg").wait_for()
    found(page, "slimming")
    page.wait_for_url("**/pruning/slim.html*")
    expect(page.locator("h1")).to_have_text(re.compile("^Slim"))


# Journeys


def test_a_reader_finds_the_method_that_gains_most_and_its_proof(page: Page) -> None:
    page.goto("")
    page.get_by_role("link", name="methods against their controls").click()
    page.locator("th", has_text="Gap").first.locator("button").click()
    page.locator("th", has_text="Gap").first.locator("button").click()
    row = page.locator(".sp-sortable tbody tr").first
    assert row.locator("td").filter(has_text=re.compile(r"^\+")).count()
    name = row.locator("a").first.inner_text()
    row.locator("a").first.click()
    expect(page.locator("h1")).to_have_text(re.compile(f"^{re.escape(name)}"))
    claims = page.locator(".sp-claims")
    assert claims.locator(".sp-verdict").count()
    assert claims.locator("summary").count()  # the program behind each


def test_a_contributor_finds_the_guide(page: Page) -> None:
    page.goto("")
    page.get_by_role("link", name="how to add a paper").click()
    expect(page.locator("h1")).to_have_text(re.compile("^How to add a paper"))
    expect(page.locator("code", has_text="smallprint new").first).to_be_visible()


def test_a_practitioner_finds_the_command(page: Page) -> None:
    page.goto("")
    found(page, "network slimming")
    page.wait_for_url("**/pruning/network_slimming/*")
    page.locator("a[href$='#run']").first.click()
    expect(page.locator("code", has_text="make smoke METHOD=network_slimming")).to_be_visible()


# The catalogue and the comparison


def test_a_view_of_the_catalogue_is_its_address(page: Page) -> None:
    page.goto("catalogue/")
    rows, said = page.locator(".sp-catalogue tbody tr"), page.locator(".sp-finder-foot p")
    whole = rows.count()
    expect(said).to_have_text(f"All {whole} entries")
    page.locator("summary", has_text="Family").click()
    page.get_by_role("checkbox", name=re.compile(r"^Quantization \d")).check()
    page.locator(".sp-finder-text").fill("rounding")
    page.locator(".sp-catalogue th", has_text="Year").locator("button").click()
    expect(page.locator(".sp-catalogue th[aria-sort=ascending]")).to_have_text("Year")
    names = rows.locator("td:first-child a").all_inner_texts()
    assert "AdaRound" in names
    assert 0 < len(names) < whole
    expect(said).to_have_text(f"{len(names)} of {whole} entries")
    shared = page.url
    assert "q=rounding" in shared
    page.goto("about:blank")
    page.goto(shared)
    expect(rows.locator("td:first-child a")).to_have_text(names)
    expect(page.locator(".sp-catalogue th[aria-sort=ascending]")).to_have_text("Year")
    page.get_by_role("button", name="Reset").click()
    expect(rows).to_have_count(whole)


def test_columns_are_chosen_and_a_view_exported(page: Page) -> None:
    page.goto("catalogue/#q=adaround&columns=year,authors")
    heads = page.locator(".sp-catalogue th").filter(visible=True)
    expect(heads).to_have_text(["Name", "Authors", "Year"])
    for kind, said in (("CSV", '"adaround","AdaRound"'), ("JSON", '"id": "adaround"'), ("BibTeX", "@inproceedings{nagel2020up")):
        with page.expect_download() as started:
            page.locator(".sp-export").get_by_role("button", name=kind).click()
        text = Path(started.value.path()).read_text()
        assert said in text
        assert "network_slimming" not in text


def test_later_rows_of_a_long_catalogue_take_part(page: Page, monkeypatch: pytest.MonkeyPatch, site: Path) -> None:
    """They come in a part of the page that a browser with scripts does not lay out."""
    monkeypatch.setattr(browse, "FIRST", 3)
    made = browse.catalogue_page(gather(ROOT, {}))
    text = (site / "catalogue/index.html").read_text()
    start, end = text.index('<div class="sp-scroll"'), text.rindex("</table></div>") + len("</table></div>")
    long = text[:start] + made[made.index('<div class="sp-scroll"') :] + text[end:]
    page.route("**/catalogue/", lambda route: route.fulfill(body=long, content_type="text/html"))
    page.goto("catalogue/")
    rows = page.locator(".sp-catalogue tbody tr")
    page.wait_for_selector(".sp-catalogue.sp-ready")
    assert rows.count() > 80
    page.locator(".sp-finder-text").fill("t-net")
    expect(rows).to_have_count(1)
    page.locator(".sp-catalogue input[aria-label='Choose T-Net to compare']").check()
    expect(page.locator(".sp-to-compare")).to_have_attribute("href", re.compile("#entries=t_net$"))


def test_without_a_script_the_catalogue_is_a_plain_table(browser: Browser, address: str) -> None:
    context = browser.new_context(base_url=address, java_script_enabled=False)
    plain = context.new_page()
    plain.goto("catalogue/")
    assert plain.locator(".sp-catalogue tbody tr").count() > 80
    expect(plain.locator(".sp-catalogue a", has_text="AdaRound")).to_be_visible()
    context.close()


def test_entries_are_set_side_by_side(page: Page) -> None:
    page.goto("catalogue/#q=pruning")
    for name in ("Network Slimming", "Filter pruning by L1 norm"):
        page.locator(".sp-finder-text").fill(name)
        page.get_by_label(f"Choose {name} to compare").check()
    page.get_by_role("link", name="Compare 2 chosen").click()
    side = page.locator(".sp-side thead a")
    expect(side).to_have_text(["Network Slimming", "Filter pruning by L1 norm"])
    expect(page.locator(".sp-compare svg circle")).to_have_count(2)
    field = page.get_by_label("Add an entry by name")
    field.fill("adar")
    field.press("Enter")
    expect(side).to_have_text(["Network Slimming", "Filter pruning by L1 norm", "AdaRound"])
    assert page.url.endswith("#entries=network_slimming,pruning_filters,adaround")
    page.get_by_label("Remove Network Slimming").click()
    expect(side).to_have_text(["Filter pruning by L1 norm", "AdaRound"])
    side.filter(has_text="AdaRound").click()
    expect(page.locator("h1")).to_have_text(re.compile("^AdaRound"))


def test_a_slip_of_the_finger_finds_the_entry_to_compare_and_the_row(page: Page) -> None:
    page.goto("compare/")
    field = page.get_by_label("Add an entry by name")
    field.fill("adaruond")
    field.press("Enter")
    field.press("Enter")  # which adds no second one
    expect(page.locator(".sp-side thead a")).to_have_text(["AdaRound"])
    field.fill("nothing of this kind")
    expect(page.locator(".sp-suggestions")).to_have_text("No other entry has such a name.")
    page.goto("catalogue/#q=network sliming")
    said = page.locator(".sp-finder-foot p")
    said.get_by_role("button", name="Network Slimming").click()
    expect(page.locator(".sp-catalogue tbody tr").first).to_contain_text("Network Slimming")
    page.locator(".sp-finder-text").fill("nothing of this kind")
    expect(said).to_have_text("No entry fits.")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("4 bit post-training", "AdaRound"),
        ("pruning", "Pruning"),
        ("soft targets", "Knowledge distillation"),
        ("add a paper", "How to add a paper"),
    ],
)
def test_the_first_answer_of_the_search_is_the_best(page: Page, words: str, name: str) -> None:
    """Words of an idea, of a use, of a claim; a family's name; a title."""
    page.goto("")
    page.keyboard.press("/")
    page.keyboard.type(words)
    expect(page.locator(".md-search-result__item h1").first).to_have_text(name)


def test_a_slip_of_the_finger_finds_the_name(page: Page) -> None:
    page.goto("")
    page.keyboard.press("/")
    page.keyboard.type("adaruond")
    offer = page.locator(".sp-offer a")
    expect(offer.first).to_have_text("AdaRound")
    offer.first.click()
    expect(page.locator("h1")).to_have_text(re.compile("^AdaRound"))


def test_an_entry_that_moved_to_another_family_is_found(page: Page, site: Path) -> None:
    page.route("**/pruning/adaround/*", lambda route: route.fulfill(body=(site / "404.html").read_text(), content_type="text/html"))
    page.goto("pruning/adaround/#claims")
    page.wait_for_url("**/quantization/adaround/#claims")
    page.route("**/pruning/nothing_such/", lambda route: route.fulfill(body=(site / "404.html").read_text(), content_type="text/html"))
    page.goto("pruning/nothing_such/")
    expect(page.get_by_role("link", name="“nothing such”")).to_be_visible()


def test_a_lineage_leads_on(page: Page) -> None:
    page.goto(PAGES["entry"])
    page.locator(".sp-lineage a", has_text="Rethinking pruning").click()
    page.wait_for_url("**/pruning/rethinking_pruning/")


# Charts that answer


def explored(page: Page, path: str) -> Locator:
    """The first chart of a page, drawn anew."""
    page.goto(path)
    chart = page.locator("[data-chart]").filter(visible=True).first
    chart.locator(".sp-explore").click()
    page.locator("[data-state=drawn]").first.wait_for()
    return chart


def words(chart: Locator) -> list[str]:
    return chart.locator("svg text").all_text_contents()


@pytest.mark.parametrize("path", ["", "low_rank/kim_tucker/", "comparisons/measured/", "low_rank/", "distillation/", PAGES["comparison"]])
def test_a_chart_is_drawn_anew_in_its_place(page: Page, path: str) -> None:
    page.goto(path)
    chart = page.locator("[data-chart]").filter(visible=True).first
    svg = chart.locator("svg")
    chart.locator(".sp-explore").focus()  # which scrolls
    said, size, name = words(chart), svg.bounding_box(), svg.get_attribute("aria-label")
    assert not page.evaluate("[...document.scripts].some((script) => /vega|charts\\//.test(script.src))")  # nothing until asked for
    page.keyboard.press("Enter")
    page.locator("[data-state=drawn]").first.wait_for()
    assert chart.locator(".sp-stage svg .mark-group").count()
    assert sorted(words(chart)) == sorted(said)
    assert svg.bounding_box() == size
    assert (svg.get_attribute("role"), svg.get_attribute("aria-label")) == ("img", name)
    assert page.evaluate("shifted") < 0.1
    assert page.evaluate("document.activeElement.closest('[data-chart]') !== null")  # the keyboard is where it was
    page.evaluate(axe())
    page.evaluate(SHORTEN, LINES)
    assert not violations(page, WCAG)


def test_a_pointer_that_stays_wakes_a_chart_which_then_says_its_numbers(page: Page) -> None:
    page.goto("")
    chart = page.locator("[data-chart]").filter(visible=True).first
    chart.locator("svg").hover()
    page.locator("[data-state=drawn]").first.wait_for()
    chart.locator(".layer_1_marks path").last.hover()  # the last lies above the others
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    expect(tip).to_have_text(re.compile(r", (method|control): \d+\.\d% at [\d,]+$"))
    page.keyboard.press("Escape")
    expect(tip).to_have_count(0)


def faded(chart: Locator, series: str = "") -> Locator:
    """The marks that stand back, or those of one series."""
    return chart.locator(f".mark-symbol.role-mark path[opacity='0.1'][aria-label*=', {series}']")


def test_a_series_is_singled_out_by_the_legend_and_by_the_list(page: Page) -> None:
    chart = explored(page, "comparisons/measured/")
    expect(faded(chart)).to_have_count(0)
    legend, choice = chart.locator(".role-legend-label text", has_text="Low rank"), chart.get_by_label("Single out")
    legend.click()
    expect(faded(chart).first).to_be_attached()
    expect(choice.locator("option:checked")).to_have_text("Low rank")
    legend.click()
    expect(faded(chart)).to_have_count(0)
    expect(choice).to_have_value("")
    choice.select_option(label="method")
    expect(faded(chart, "reference:").first).to_be_attached()
    expect(faded(chart, "method:")).to_have_count(0)
    choice.select_option(label="All series")
    expect(faded(chart)).to_have_count(0)


def test_a_chart_is_moved_and_reset(page: Page) -> None:
    chart = explored(page, "")
    frame, before, labels = chart.locator(".sp-frame"), words(chart), chart.locator("svg text")
    chart.get_by_role("button", name="Zoom in").click()
    expect(labels).not_to_have_text(before)
    near = words(chart)
    frame.focus()
    page.keyboard.press("ArrowRight")
    expect(labels).not_to_have_text(near)
    moved = words(chart)
    chart.evaluate("(figure) => figure.scrollIntoView({block: 'center'})")
    box = frame.bounding_box()
    assert box
    x, y = box["x"] + 400, box["y"] + box["height"] / 3
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 90, y + 60, steps=3)
    page.mouse.up()
    expect(labels).not_to_have_text(moved)
    far = words(chart)
    chart.get_by_role("button", name="Show the whole chart").click()
    expect(labels).not_to_have_text(far)
    assert sorted(words(chart)) == sorted(before)


def test_a_chart_that_was_drawn_anew_follows_light_and_dark(page: Page) -> None:
    chart = explored(page, "")
    ink = lambda: chart.locator("svg text").first.evaluate("(text) => getComputedStyle(text).fill")  # noqa: E731
    light = ink()
    page.locator(DARK).click()
    assert ink() != light
    assert ink() == page.evaluate("getComputedStyle(document.querySelector('.sp-stage')).color")
    page.evaluate(axe())
    page.evaluate(SHORTEN, LINES)
    assert not violations(page, BY_COLOUR)


def test_a_page_that_forbids_eval_still_draws(page: Page) -> None:
    def strict(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, "content-security-policy": "script-src 'self' 'unsafe-inline'"})

    page.route("**/measured/", strict)
    expect(explored(page, "comparisons/measured/").locator(".sp-stage svg")).to_have_count(1)


def test_a_chart_whose_program_fails_stays_as_it_is(page: Page) -> None:
    page.route("**/vega.js", lambda route: route.fulfill(body="throw 0", content_type="text/javascript"))
    page.add_init_script("addEventListener('error', (event) => event.preventDefault(), true)")
    page.goto("")
    chart = page.locator("[data-chart]").filter(visible=True).first
    before = words(chart)
    chart.locator(".sp-explore").click()
    chart.get_by_text("could not be drawn anew").wait_for()
    assert words(chart) == before
