"""The site: small pure functions, pages of a fabricated catalogue, and one real build of it, hosted and offline."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import bibtexparser
import markdown
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import load
from catalog.schema import Bound, Claim, Framework
from scripts.curation import bibtex
from scripts.evidence import keys, records, source
from scripts.evidence import text as safe
from scripts.evidence.definitions import Codes
from scripts.evidence.facts import Condition, Facts, FactsError, Measured, gather
from scripts.evidence.outcome import TIME, recorded
from scripts.evidence.records import Row
from scripts.running.report import as_text
from scripts.website import browse, entry, home, hooks, markup, names, numbers, printed, search, site
from scripts.website.charts import charts, dress, lineage, vega
from scripts.website.home import METHODS, leading, points
from scripts.website.pages import makers, pages
from scripts.website.site import SiteError, build

pytestmark = pytest.mark.xdist_group("pages")  # they share two builds of the site
ROOT = Path(__file__).parents[2]
EVIL = "<evil-tag onclick=evil()>x</evil-tag> | `tick` {{ config }} [go](javascript:evil) **bold** &lt;b&gt; {: onclick=evil() } ~~~ C#"
VOCABULARY = """
datasets: {CIFAR-10: small images}
models: {VGG-19: sixteen convolutions}
metrics: {top1_error: {name: top-1 error, unit: "%", direction: lower}}
tags: {channel: Removes whole <evil-tag>channels</evil-tag>}
"""
SLIM = r"""
name: Slim
title: "The Slimming of {Networks} & 100% More_of_it"
authors: [Ana Müller, "Small Print, Inc.", Bo von Chen]
year: 2017
venue: ICCV
arxiv: "1708.06519"
doi: 10.1109/ICCV.2017.298
code: [{url: "https://example.org/a_(b)|c", framework: PyTorch}]
tags: [channel]
start: trained
returns: smaller
formerly: [slimmer]
equations:
  - {tex: 'y = \sum_k \gamma_k x_k', says: Scales γ weigh channels x., where: Eq. 1, function: thin}
summary: It makes networks slim.
when_to_use: Often.
when_not: Rarely.
claims:
  same: {says: Nothing changes., where: §3, tier: exact, kind: identity, at_most: 1.0e-5}
  sizes:
    says: The sizes are the printed ones.
    where: Table 2
    tier: exact
    kind: count
    within: 2%
    cases: {B0: {paper: 5.3}, B1: {paper: 7.8, because: The head is counted twice.}}
  beats_random:
    {says: It beats random channels., where: §4, tier: smoke, kind: effect, against: random, at_least: 0.02, unit: share of images}
  later: {says: It takes long., where: §5, tier: long, kind: effect, against: reference, at_least: 0.5}
results:
  - dataset: CIFAR-10
    model: VGG-19
    metric: top1_error
    baseline: 6.34
    result: 6.2
    params_before: 20.04
    params_after: 2.3
    where: Table 1
"""
SLIM_PY = '''"""Slim (Müller et al., ICCV 2017).

Cut what is `thin`; ``` is no fence, </code> no end.

Departures: one pass (not two; not three); every `layer` keeps a channel.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    cut: float = 0.7  # share of <channels>, Table 1


SMOKE = Config(cut=0.5)  # seconds
SWEEP = (Config(cut=0.3), SMOKE)


def compress(model, task, config): ...


def control_random(model, task, config, like): ...


def thin(scales): ...
'''
SLIM_CLAIMS = '''"""The claims of Slim."""

from methods.pruning import slim as method


def claim_same(lab): ...


def claim_sizes(lab, case): ...


def claim_beats_random(lab): ...


def claim_later(lab): ...
'''
OTHER = f"""
name: '{EVIL} name'
title: '{EVIL} title'
authors: ['{EVIL} author']
year: 2020
venue: '{EVIL} venue'
url: "https://example.org/x)|`*{{{{y}}}}"
code: [{{url: "https://example.org/z", note: '{EVIL} note'}}]
links: [{{url: "https://example.org/`l`", label: '{EVIL} label'}}]
tags: [channel]
builds_on: [slimmer]
compared_with: [slim]
equations: [{{tex: 'a < \text{{<evil-tag onclick="x">}}', says: '{EVIL} says', where: '{EVIL} where'}}]
summary: '{EVIL} summary'
when_not: '{EVIL} when'
results:
  - {{dataset: CIFAR-10, model: VGG-19, metric: top1_error, baseline: 6.34, result: 7, setting: '{EVIL} setting', where: '{EVIL} where'}}
"""
TOOL = f"""
name: Tool
title: Tool
year: 2018
url: https://example.org/tool
status: {{state: archived, last_activity: "2023", note: '{EVIL} status'}}
techniques: [{{name: '{EVIL} technique'}}, {{name: Slimming, entry: slim}}]
summary: A tool.
"""
SURVEY = "name: Survey\ntitle: A Survey\nauthors: [A B]\nyear: 2019\ncovers: [slim]\nsummary: A survey.\n"
LIST = f"name: List\ntitle: List\nyear: 2019\nurl: https://example.org/list\ntopics: ['{EVIL} topic']\nsummary: A list.\n"
TABLE = f"""
title: '{EVIL} table'
caption: '{EVIL} caption'
dataset: CIFAR-10
model: VGG-19
source: {{url: "https://example.org/t.pdf", label: '{EVIL} source'}}
baseline: {{top1: 76.15}}
columns: [{{id: delta_top1, name: '{EVIL} column', unit: points, direction: higher, delta_of: top1}}]
rows:
  - {{method: '{EVIL} row', values: {{delta_top1: -1.5}}, note: '{EVIL} rownote'}}
  - {{method: Slim, entry: slim, values: {{delta_top1: -0.25}}}}
notes: ['{EVIL} tablenote']
"""


GUIDE = "\n\n".join(f"<!-- fill: {mark} -->" for mark in ("family_head", "timeline", "findings", "family_table", "sweep"))


def row(tier: str, subject: str, metric: str, value: float, data: str = "standin", seed: int = 0, code: str = "now") -> Row:
    return Row(tier, subject, metric, value, data, "d" * 16, seed, "cpu", 1, "3.11.7", "2.13.0", "abc1234567", code, "2026-01-02")


def now(tier: str, subject: str) -> str:
    return "now"


def some_rows(code_of: Callable[[str, str], str]) -> list[Row]:
    code = "now"
    found = [row("exact", "claim_same", "value", 1e-7, "none", code=code), row("exact", "claim_sizes[B0]", "value", 6.0, "none", code=code)]
    found += [row("exact", "claim_sizes[B1]", "value", 9.0, "none", code=code)]
    for data, better in (("standin", 0.1), ("cifar10-jpeg75", 0.05)):
        for seed in (0, 1):
            found.append(row("smoke", "claim_beats_random", "value", better + seed / 100, data, seed, code if data == "standin" else "old"))
            for subject, accuracy, size in (
                ("reference", 0.9, 1.0),
                ("method", 0.8, 0.3),
                ("control_random", 0.7, 0.3),
                ("control_none", 0.6, 0.3),
            ):
                values = {"accuracy": accuracy + seed / 100, "parameters": 77_786 * size, "bits": 32.0, "multiply_adds": 12.5e6 * size}
                values |= {"file_bytes": 313_000 * size, "latency": 0.7}
                found += [
                    row("smoke", subject, m, v, data, seed, code) for m, v in values.items() if (subject, m) != ("reference", "latency")
                ]
    for place, size in enumerate((0.3, 0.6)):  # the smaller one first
        for subject, accuracy, cost in (("reference", 0.9, 1.0), ("method", 0.8 * size, size), ("control_none", 0.5 * size, size)):
            values = {"accuracy": accuracy, "parameters": 77_786 * cost, "multiply_adds": 12.5e6 * cost}
            values |= {} if subject == "reference" else {"latency": 2 * cost, "output_error": 1 - size}
            found += [row("sweep", f"{subject}@{place}", m, v, "standin", 0, code) for m, v in values.items()]
    bite = {"wiring_killed": 5, "wiring_equivalent": 1, "wiring_died": 0, "wiring_planted": 6, "wiring_possible": 30}
    bite |= {"control_killed": 4, "control_equivalent": 0, "control_died": 1, "control_planted": 6, "control_possible": 10}
    found += [row("bite", "bite", name, count, "standin", code=code) for name, count in bite.items()]
    return [one._replace(code=code_of(one.tier, one.subject)) if one.code == code else one for one in found]


def make_tree(root: Path) -> Path:
    """A repository of five entries, with this one's hand-written pages."""
    files = {
        "catalog/vocabulary.yaml": VOCABULARY, "catalog/pruning/slim.yaml": SLIM, "catalog/pruning/other.yaml": OTHER,
        "catalog/frameworks/tool.yaml": TOOL, "catalog/overviews/survey.yaml": SURVEY, "catalog/lists/list.yaml": LIST,
        "catalog/comparisons/table.yaml": TABLE, "methods/pruning/slim.py": SLIM_PY,
        "methods/pruning/claims/slim.py": SLIM_CLAIMS, "methods/kit/kit.py": "",
    }  # fmt: skip
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    shutil.copytree(ROOT / "site", root / "site", ignore=lambda folder, names: [name for name in names if name in METHODS])
    (root / "site" / "pruning").mkdir()
    (root / "site" / "pruning" / "index.md").write_text(GUIDE)  # the real ones link to real entries
    shutil.copy(ROOT / "mkdocs.yml", root)
    (root / "scripts" / "website").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "website" / "hooks.py", root / "scripts" / "website")
    code_of = Codes(root, source.methods(root)["slim"]).of
    records.write(records.path_of(root, "pruning", "slim"), some_rows(code_of))
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def facts(tree: Path) -> Facts:
    return gather(tree)


# Escaping


class Seen(HTMLParser):
    """What a browser would see: elements with their attributes, text, ids, links."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def ids(self) -> set[str]:
        return {value for _, attrs in self.elements for name, value in attrs.items() if name in ("id", "name")}


def render(text: str) -> str:
    """Markdown as the site reads it."""
    names = ["attr_list", "md_in_html", "tables", "toc", "admonition", "pymdownx.superfences", "pymdownx.tabbed", "pymdownx.details"]
    return markdown.markdown(text, extensions=names)


tricky = st.text(st.sampled_from("<>&|`*_[](){}#:!-+=~\\\"'1.;/?@$^ \n\tab\x02\x03é"), max_size=30)


@settings(max_examples=150)
@given(tricky)
def test_escaped_text_is_only_text(text: str) -> None:
    wanted = "".join(c for c in " ".join(text.split()) if c.isprintable())
    places = {"{}": ["p"], "# {}": ["h1"], "- {}": ["ul", "li"], "<p>{}</p>": ["p"], "*{}*.": None, "| a |\n| :--- |\n| x{} |": None}
    for place, elements in places.items():
        seen = Seen(render(place.replace("{}", safe.escape(text))))
        assert "".join(wanted.split()) in "".join(seen.text.split()), place
        if elements and wanted:
            assert [tag for tag, _ in seen.elements] == elements, place
    attribute = Seen(f'<p title="{safe.escape(text)}">').elements
    assert attribute == [("p", {"title": wanted})]


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//example.org", "https:///x", "ftp://x", ""])
def test_other_schemes_are_no_links(url: str) -> None:
    assert safe.link("text", url) == "text"


def test_links_survive_what_addresses_may_hold() -> None:
    url = 'https://example.org/a_(b)|c`d`*e*{f}[g]?h=1&copy=2#i"j'
    [(_, attributes)] = [e for e in Seen(render(f"| a |\n|---|\n| {safe.link('x', url)} |")).elements if e[0] == "a"]
    assert unquote(attributes["href"]) == url


def test_code_in_prose_is_code_and_nothing_else_is_markup() -> None:
    assert safe.with_code("a `<b>` *c*") == "a <code>&#60;b&#62;</code> &#42;c&#42;"


def test_a_fence_is_longer_than_any_inside() -> None:
    assert markup.fence("a\n````\nb", "python").startswith("`````python\n")


def test_white_space_is_squeezed_only_where_it_does_not_show() -> None:
    page = "<p>\n\n  a <b>x</b>\n</p>\n\n<pre>\n  b\n\n c</pre>\n  <script>\n\n x</script>\n"
    assert markup.squeezed(page) == "<p>a <b>x</b></p><pre>\n  b\n\n c</pre>\n<script>\n\n x</script>\n"
    cells = '<table>\n<tr>\n<th>a</th>\n<td>b</td></tr>\n<tr><td>c</td></tr>\n</table> <ul>\n<li>d</li>\n</ul> <svg xmlns="http://www.w3.org/2000/svg"></svg>'
    assert markup.squeezed(cells) == "<table><tr><th>a<td>b<tr><td>c</table> <ul><li>d</ul> <svg></svg>"


# Numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.0, "1"), (-0.02, "−0.02"), (0.08341, "0.08341"), (1e-5, "10⁻⁵"), (1.23e-7, "1.23·10⁻⁷"),
     (3456789.2, "3,456,789"), (12.3456, "12.35"),     (float("nan"), "–"), (None, "–"), (1e12, "10¹²")],
)  # fmt: skip
def test_plain(value: float | None, text: str) -> None:
    assert numbers.plain(value) == text


def test_numbers_are_formatted_late_and_plainly() -> None:
    assert numbers.spread(0.08341, 0.0123) == "0.083 ± 0.012"
    assert numbers.spread(0.5, None) == "0.5"
    assert numbers.spread(2.0, 0.0) == "2"
    assert numbers.spread(1e-7, 2e-8) == "10⁻⁷ ± 2·10⁻⁸"
    assert numbers.percent(0.832, 0.0041) == "83.2 ± 0.4%"
    assert numbers.count(77_754) == "77.8 k"
    assert numbers.count(12.5e6, 2e5) == "12.5 ± 0.2 M"
    assert numbers.quantity("file_bytes", 310_123) == "310 kB"
    assert numbers.quantity("file_bytes", 512) == "512 B"
    assert numbers.quantity("latency", 0.7) == "0.70×"
    assert numbers.times(0.031) == "0.031×"
    assert numbers.signed(-0.14, 2) == "−0.14"
    assert numbers.signed(0.001, 2) == "0.00"
    assert numbers.signed(1.5, 1) == "+1.5"
    assert numbers.fixed(6.2, numbers.decimals([6.34, 6.2])) == "6.20"
    assert numbers.fixed(-0.0001, 2) == "0.00"
    assert numbers.decimals([146, 74]) == 0


def test_departures_part_at_semicolons_outside_brackets() -> None:
    assert entry.departures("one pass (not two; not three);\n  every layer keeps one.") == [
        "one pass (not two; not three)",
        "every layer keeps one",
    ]


# What rows say


def test_findings_are_led_by_real_data_and_effects_counted(facts: Facts) -> None:
    record = facts.catalogue.entries["slim"]
    found = {(f.claim, f.case): f for f in facts.findings(record)}
    assert found["beats_random", None].condition == Condition("smoke", "cifar10-jpeg75")
    assert found["beats_random", None].sample.mean == pytest.approx(0.055)
    assert found["beats_random", None].sample.stale
    assert found["same", None].verdict == "holds"
    assert found["sizes", "B0"].verdict == found["sizes", "B1"].verdict == "fails"
    assert found["beats_random", None].verdict == "undecided", "two seeds"
    assert facts.score(record) == (0, 0, 0, 2)  # held, level, failed, open


def test_best_control_conditions_and_ratios(facts: Facts) -> None:
    measured = facts.of("slim")
    assert measured.conditions == [Condition("smoke", "cifar10-jpeg75"), Condition("smoke", "standin")]
    assert measured.standing(measured.conditions[0]).control == "control_random"
    assert measured.ratio(measured.conditions[0], "file_bytes") == pytest.approx(0.3)
    assert measured.bite == (9, 1, 1, 12, 40)
    assert leading(facts) == Condition("smoke", "cifar10-jpeg75")


def test_a_task_of_its_own_compares_with_no_other(facts: Facts) -> None:
    condition = Condition("smoke", "cifar10-jpeg75")
    assert any(record.id == "slim" for record, _ in points(facts, condition, "file_bytes"))
    source = facts.sources["slim"]
    apart = replace(source, functions={**source.functions, "prepare": source.functions["compress"]})
    alone = replace(facts, sources={**facts.sources, "slim": apart})
    assert alone.own_task("slim")
    assert not any(record.id == "slim" for record, _ in points(alone, condition, "file_bytes"))


def test_a_sweep_is_told_from_large_to_small(facts: Facts) -> None:
    measured = facts.of("slim")
    assert measured.sweep == Condition("sweep", "standin")
    assert measured.sweep not in measured.conditions
    large, small = measured.sizes(measured.sweep)
    assert (large.share("multiply_adds"), small.share("parameters")) == (pytest.approx(0.6), pytest.approx(0.3))
    assert small.best == "control_none"
    assert small.share("multiply_adds", small.controls["control_none"]) == pytest.approx(0.3)
    assert small.controls["control_none"]["accuracy"].mean == pytest.approx(0.15)
    page = pages(facts)["pruning/index.md"]
    assert "one thread of a CPU, least of all for the smallest of S" in page
    assert "(0.30× the multiply-adds, 0.60× the time)." in page
    assert page.count("<svg") == 2
    assert "1 seed: every method" in page
    half = Measured([row("sweep", "method@0", "accuracy", 0.5, "standin")], now)
    assert half.sweep
    assert half.sizes(half.sweep) == []


def test_a_sweep_over_steps_shows_the_spread_and_the_student_alone(facts: Facts) -> None:
    found = [
        row("sweep", f"{subject}@{place}", metric, value, "standin", seed)
        for seed in range(3)
        for place, steps in enumerate((100, 50))
        for subject, right in (("reference", 0.9), ("method", 0.3), ("control_alone", 0.2), ("control_other", 0.25))
        for metric, value in (("steps", steps), ("accuracy", right + seed / 50 + steps / 1000), ("multiply_adds", 1e6), ("parameters", 9))
    ]
    measured = Measured(found, now)
    condition = measured.sweep
    assert condition
    assert [(size.method["steps"].mean, size.best) for size in measured.sizes(condition)] == [(50, "control_other"), (100, "control_other")]
    page = pages(replace(facts, measured={**facts.measured, "slim": measured}))["pruning/index.md"]
    assert "3 seeds: what comes out after so many steps" in page
    assert page.count("<svg") == 1
    assert page.count("sd 0.02") == 0
    assert "last step, never the best one" in page
    assert "| 50 |" in re.sub(r"</?data[^>]*>", "", page)


EXACT = Claim(says="It is so.", where="§1", tier="exact", kind="identity", at_most=1.0)


def test_nan_never_holds() -> None:
    measured = Measured([row("exact", "claim_a", "value", float("nan"), "none")], now)
    [finding] = measured.findings("a", None, EXACT, Bound(at_most=1.0))
    assert finding.verdict == "fails"


# Pages


def test_a_description_is_whole_sentences() -> None:
    assert entry.opening("One. Two three. " + 50 * "long " + "four.") == "One. Two three."
    assert entry.opening(60 * "long " + "one. Two.") == 60 * "long " + "one."


def test_an_entry_page_says_what_is_known(facts: Facts) -> None:
    page = pages(facts)["pruning/slim.md"]
    for said in [
        "sp-fails\">fails", "undecided: 2 seeds", "not measured", "The head is counted twice.", "0 of 2 effects hold, 2 are open",
        "The program is the paper’s: 1 of 1 claim hold", "against random",
        "≤ 10⁻⁵", "5.3 ± 2%", "6.20", "−0.14",
        "2.3 of 20.04 M (11.5%)", "0.30×", "80.5 ± 0.7%", "control: random",
        "One pass (not two; not three).", "SMOKE = Config(cut=0.5)",
        "make smoke METHOD=slim", "slim.compress(model, task, slim.Config())", "muller2017slimming",
        "<strong>Used by</strong>", "<strong>Covered by</strong>",
        "Of 12 faults planted (of 40 possible ones), what runs here notices 4 of 5 in the controls, 5 of 5 in the wiring; the rest change",
        "stale", "dddddddddddddddd", "abc1234567",
    ]:  # fmt: skip
        assert said in page or safe.escape(said) in page, said
    line = SLIM_PY.splitlines().index("def thin(scales): ...") + 1
    assert f'href="#__codelineno-source-{line}"' in page
    assert '<summary>Code</summary><pre class="highlight"><code><span class="k">def</span>' in page
    assert "What its claims share, and what they import</summary>\n\n```python\n" in page
    assert "<mi>γ</mi>" in page
    assert f'Computed by <code>thin</code></summary>\n\n```{{ .python #equation-1-code linenums="{line}" }}\ndef thin' in page
    assert "[archived copy](https://web.archive.org/web/2/https://arxiv.org/abs/1708.06519)" in page


@pytest.mark.parametrize(
    ("values", "word", "said"),
    [
        ((0.3, 0.3, 0.3), "holds", "1 of 2 effects holds, 1 is open"),
        ((-0.3, -0.3, -0.3), "not reproduced", "0 of 2 effects hold, 1 fails, 1 is open"),
        ((0.05, -0.05, 0.0), "level", "≈ level ±12.4 points"),
    ],
)
def test_pages_count_effects(facts: Facts, values: tuple[float, ...], word: str, said: str) -> None:
    rows = [row("smoke", "claim_beats_random", "value", value, "cifar10-jpeg75", seed) for seed, value in enumerate(values)]
    found = replace(facts, measured={**facts.measured, "slim": Measured(rows, now)})
    told = home.verdicts(found, "index.md")
    made = pages(found)
    assert browse.verdict(found, facts.catalogue.entries["slim"]) == word
    text = made["pruning/slim.md"].replace('<span class="sp-verdict sp-level">', "≈ ").replace("</span><br><small>", " ")
    assert said in text
    assert ("1 failure, each" in told) == (word == "not reproduced")
    assert ("Nothing so far" in told) == (word != "not reproduced")


def test_a_page_shows_what_the_terminal_prints(facts: Facts) -> None:
    record, code = facts.catalogue.entries["slim"], "now"
    numbers = {"reference": 0.9, "control_random": 0.5, "method": 0.8}
    rows = [row("smoke", subject, "accuracy", value, "standin", 0, code) for subject, value in numbers.items()]
    rows += [
        row("smoke", "method", "accuracy", 0.1, "standin", 1, code),
        row("smoke", "claim_beats_random", "value", 0.3, "standin", 0, code),
    ]
    rows += [row("exact", "claim_sizes[B1]", "value", 9, "none", 0, code)]
    found = recorded(record, rows, "smoke", "standin")
    assert found.numbers == {subject: {"accuracy": [value]} for subject, value in numbers.items()}
    assert [(v.subject, v.verdict, v.surprising) for v in found.verdicts] == [
        ("claim_sizes[B1]", "fails", False), ("claim_beats_random", "as recorded", False),
    ]  # fmt: skip
    assert found.seconds == 0
    page = entry.entry_page(replace(facts, measured={"slim": Measured(rows, now)}), record)
    text = as_text(record, found)
    assert text in page
    assert "The first takes seconds on a processor" in page
    assert [line.split()[:2] for line in text.splitlines()[3:6]] == [["reference", "90.0%"], ["control:", "random"], ["method", "80.0%"]]
    timed = [*rows, row("smoke", *TIME, 4, "standin", 0, code), row("exact", *TIME, 2, "none", 0, code)]
    assert "The first took 6 seconds when it was recorded" in entry.entry_page(
        replace(facts, measured={"slim": Measured(timed, now)}), record
    )


def test_a_column_of_printed_numbers_needs_one(facts: Facts) -> None:
    made = {id: makers(known)[names.path_of(known.catalogue.entries[id])]() for known in [gather(ROOT, {})] for id in known.sources}
    assert any('<th scope="col">Printed</th>' in page for page in made.values())
    bare = [page for page in made.values() if '<th scope="col">Printed</th>' not in page]
    assert bare
    assert all("sp-unprinted" in page and 'colspan="4"' in page for page in bare)


def test_an_entry_without_method_says_so(facts: Facts) -> None:
    page = pages(facts)["pruning/other.md"]
    assert "Not reimplemented yet" in page
    assert '<a href="../slim/" data-raw>Slim</a>' in page  # by its former name


def test_a_quantity_without_unit_has_a_name_alone(facts: Facts) -> None:
    catalogue, slim = facts.catalogue, facts.catalogue.entries["slim"]
    assert slim.executable
    metric = catalogue.vocabulary.metrics["top1_error"].model_copy(update={"name": "perplexity", "unit": None})
    table = catalogue.comparisons["table"]
    column = table.columns[0].model_copy(update={"name": "perplexity", "unit": None})
    again = replace(slim, id="again", entry=slim.entry.model_copy(update={"name": "Again"}))  # two make a chart
    bare = replace(
        catalogue,
        vocabulary=catalogue.vocabulary.model_copy(update={"metrics": {"top1_error": metric}}),
        comparisons={"table": table.model_copy(update={"columns": [column]})},
        entries={**catalogue.entries, "again": again},
    )
    made = pages(replace(facts, catalogue=bare))
    for path in ("pruning/slim.md", "comparisons/table.md", "comparisons/published/cifar-10-vgg-19.md"):
        assert "perplexity" in made[path]
        assert not re.search("perplexity(,|&nbsp;)", made[path])
        assert not re.search(r"\bNone\b", made[path])


def test_pages_are_the_same_every_time_and_need_no_rows(facts: Facts) -> None:
    bare = replace(facts, measured={}, templates={"index.md": "<!-- fill: pareto -->\n\n<!-- fill: verdicts -->"})
    assert pages(bare) == pages(bare)
    assert 'class="sp-chart"' not in "".join(text for path, text in pages(bare).items() if not path.startswith("comparisons/"))
    assert pages(replace(bare, sources={}))


def test_a_mark_that_nothing_fills_is_an_error(facts: Facts) -> None:
    with pytest.raises(ValueError, match=r"site/x\.md: nothing fills <!-- fill: paretto -->; use one of"):
        pages(replace(facts, templates={"x.md": "<!-- fill: paretto -->"}))


def test_what_cannot_be_read_is_told_at_once(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    (root / "catalog/pruning/bad.yaml").write_text("name: [\n")
    (root / "methods/pruning/worse.py").write_text("def (")
    records.path_of(root, "pruning", "slim").write_text("nonsense\n")
    with pytest.raises(FactsError) as refusal:
        gather(root)
    assert [part in str(refusal.value) for part in ("bad.yaml", "worse.py", "slim.csv")] == [True] * 3
    with pytest.raises(SiteError, match=r"bad\.yaml"):
        build(root)
    assert not list((root / "build").iterdir())


# BibTeX


def test_bibtex_round_trip(facts: Facts) -> None:
    for record in [*facts.catalogue.entries.values(), *load(ROOT / "catalog").entries.values()]:
        library = bibtexparser.parse_string(bibtex.bibtex(record.entry))
        assert not library.failed_blocks
        [entry] = library.entries
        kind, values = bibtex.fields(record.entry)
        assert (entry.entry_type, entry.key) == (kind, keys.key(record.entry))
        assert {f.key: f.value for f in entry.fields} == values
    assert keys.key(load(ROOT / "catalog").entries["network_slimming"].entry) == "liu2017learning"
    slim = bibtex.fields(facts.catalogue.entries["slim"].entry)[1]
    assert slim["title"] == r"{The Slimming of {\textbraceleft}Networks{\textbraceright} \& 100\% More\_of\_it}"
    assert slim["author"] == "Ana Müller and {Small Print, Inc.} and Bo von Chen"


# Charts


def test_a_chart_is_one_image_in_the_ink_of_the_page() -> None:
    some = [charts.Point("A & B", "pruning", "method", 100.0, 0.8), charts.Point("reference", "pruning", "reference", 400.0, 0.9)]
    svg = charts.pareto(some, "bytes", "one", {"pruning": "Pruning"}).svg
    seen = Seen(svg)
    assert seen.elements[0][1]["role"] == "img"
    assert "currentColor" in svg
    assert dress.INK not in svg
    assert "A & B, method: 80.0% at 100" in seen.text
    assert not re.findall(r"(?:href|src)=", svg)
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
    assert max(Counter(re.findall(r'\bid="([^"]*)"', svg)).values(), default=1) == 1


def test_words_in_a_chart_keep_their_digits() -> None:
    path = '<path fill="red" d="M0,0h1" transform="translate(1.2345,2)"/>'
    drawn = dress.dress(f'<svg viewBox="0 0 9 9">{path}<text>0.05</text></svg>', "A", "a")
    assert "translate(1.2,2)" in drawn
    assert ">0.05<" in drawn


def test_a_specification_answers_and_knows_no_address() -> None:
    some = [
        charts.Point("A", "pruning", "method", 100.0, 0.8),
        charts.Point("B", "low_rank", "control", 200.0, float("nan")),
        charts.Point("reference", "pruning", "reference", 400.0, 0.9),
    ]
    made = vega.files({"one": charts.pareto([*some[:1], *some[2:]], "bytes", "one", {"pruning": "Pruning"}).spec})
    [(path, text)] = made.items()
    assert path == "assets/charts/one.js"
    assert "://" not in text
    assert dress.INK not in text
    whole = json.loads(text.partition("=")[2].strip().removesuffix(";"))
    assert whole["zoom"]
    assert whole["picks"] == {"role": ["control", "method", "reference"]}  # one family is no choice
    points = [layer for layer in whole["spec"]["layer"] if "shape" in layer["encoding"]]
    assert all(layer["encoding"]["tooltip"]["field"] == "note" for layer in points)
    assert all("pick_role" in json.dumps(layer["encoding"]["opacity"]) for layer in points)
    gone = vega.interactive(
        {"datasets": {"d": [{"accuracy": float("nan")}]}, "data": {"name": "d"}, "mark": {"type": "point"}, "encoding": {}}
    )
    assert gone["spec"]["datasets"]["d"] == [{"accuracy": None}]


def test_two_charts_never_share_a_name() -> None:
    one = vega.Chart("a", "<svg></svg>", {"spec": 1})
    with vega.kept() as found:
        vega.keep(one)
        vega.keep(one)
        assert found == {"a": {"spec": 1}}
        with pytest.raises(ValueError, match="two charts are called a"):
            vega.keep(one._replace(spec={"spec": 2}))


def test_the_frontier_is_what_nothing_beats() -> None:
    some = [
        charts.Point(name, "pruning", "method", cost, accuracy)
        for name, cost, accuracy in (("a", 1, 0.5), ("b", 2, 0.4), ("c", 3, 0.9), ("d", 3, 0.8))
    ]
    assert [p.label for p in charts.frontier(some)] == ["a", "c"]


# A real build


@pytest.fixture(scope="module")
def built(tree: Path) -> dict[str, Path]:
    before = sorted((tree / "site").rglob("*"))
    told: list[str] = []
    folders = {"hosted": build(tree, say=told.append), "offline": build(tree, offline=True)}
    assert sorted((tree / "site").rglob("*")) == before  # generated pages land nowhere else
    assert told[-1].endswith("index.html")
    return folders


@pytest.fixture(scope="module")
def seen(built: dict[str, Path]) -> dict[str, dict[Path, Seen]]:
    return {name: {path: Seen(path.read_text()) for path in folder.rglob("*.html")} for name, folder in built.items()}


def test_both_sites_are_whole(built: dict[str, Path]) -> None:
    assert built["hosted"].joinpath("pruning/slim/index.html").is_file()
    assert built["offline"].joinpath("pruning/slim.html").is_file()
    hosted = json.loads(built["hosted"].joinpath("search/search_index.json").read_text())
    offline = json.loads(built["offline"].joinpath("search/search_index.js").read_text().removeprefix("var __index = "))
    assert offline["config"] == hosted["config"]  # one way of ranking
    assert len(offline["docs"]) == len(hosted["docs"])


def test_search_knows_of_an_entry_what_there_is_room_for() -> None:
    facts = gather(ROOT, {})
    addresses = {id: f"{id}/" for id in facts.catalogue.entries}
    whole = {entry["title"]: entry["text"] for entry in search.documents(facts, addresses)}
    slim = facts.catalogue.entries["network_slimming"]
    assert slim.executable
    for text in (slim.entry.summary, slim.entry.when_to_use, *(claim.says for claim in slim.executable.claims.values()), "Zhuang Liu"):
        assert text
        assert html.escape(text.strip(), quote=False) in whole["Network Slimming"]
    lines = list(search._within(30, ["A sentence of thirty letters.", "No room is left for this.", ""]))
    assert lines == ["A sentence of thirty letters.", "", ""]
    assert list(search._within(20, ["A sentence of thirty letters."])) == ["A sentence of …"]


def test_no_page_asks_another_host_for_anything(built: dict[str, Path], seen: dict[str, dict[Path, Seen]]) -> None:
    for found in seen.values():
        for path, page in found.items():
            for tag, attributes in page.elements:
                wanted = [attributes.get(name, "") for name in ("src", "srcset", "data", "poster", "action")]
                wanted += [attributes.get("href", "")] if tag in ("link", "use", "image") else []
                assert not [url for url in wanted if re.match(r"(https?:)?//", url)], (path, tag, attributes)
    for folder in built.values():
        for sheet in folder.rglob("*.css"):
            assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text()), sheet


def test_every_chart_has_its_files_and_its_table(built: dict[str, Path], seen: dict[str, dict[Path, Seen]]) -> None:
    for name, folder in built.items():
        program = (folder / vega.BUNDLE).read_text()
        assert program.startswith("/*!")
        assert "University of Washington" in program[:1000]
        known = {
            "http://www.w3.org",
            "https://vega.github.io",
            "https://github.com",
        }  # names of formats, and words: it is told to load nothing
        assert {re.sub(r"(?<=\w)/.*", "", url) for url in re.findall(r"https?://[\w./-]+", program)} <= known
        drawn = set()
        for path, page in seen[name].items():
            for _, attributes in page.elements:
                if chart := attributes.get("data-chart"):
                    assert "://" not in (folder / vega.FOLDER / f"{chart}.js").read_text()
                    drawn.add(f"{chart}.js")
            asked = sum("data-chart" in attributes for _, attributes in page.elements)
            tables = [
                a["href"] for tag, a in page.elements if tag == "a" and re.match(r"#(numbers|\w+-(smoke|full|long)$)", a.get("href", ""))
            ]
            assert len([href for href in tables if href[1:] in page.ids]) >= asked, path
        assert drawn == {file.name for file in (folder / vega.FOLDER).iterdir()}


def test_every_internal_link_resolves(built: dict[str, Path], seen: dict[str, dict[Path, Seen]]) -> None:
    for name, found in seen.items():
        for path, page in found.items():
            for tag, attributes in page.elements:
                url = urlsplit(attributes.get("href", attributes.get("src", "")))
                if url.scheme or url.netloc or not (url.path or url.fragment):
                    continue
                base = built[name] if url.path.startswith("/") else path.parent
                target = base / unquote(url.path.lstrip("/")) if url.path else path
                target = (target / "index.html" if target.is_dir() else target).resolve()
                assert target.is_file(), (path, tag, attributes)
                if url.fragment and not url.fragment.startswith("__"):
                    assert unquote(url.fragment) in found[target].ids, (path, attributes)
                if url.fragment.startswith("__codelineno"):
                    assert url.fragment in found[target].ids, (path, attributes)


def test_what_entries_contain_is_text(seen: dict[str, dict[Path, Seen]]) -> None:
    told = "".join(page.text for page in seen["hosted"].values())
    fields = "name title author venue note label summary when setting where status technique topic"
    for name in f"{fields} table caption source column row rownote tablenote".split():
        assert f"{EVIL} {name}" in told, name
    for found in seen.values():
        for path, page in found.items():
            for tag, attributes in page.elements:
                assert tag != "evil-tag", path
                assert "onclick" not in attributes, path
                assert not attributes.get("href", "").startswith("javascript:evil"), path


def test_tables_have_a_cell_for_every_heading(built: dict[str, Path]) -> None:
    for path in built["hosted"].rglob("*.html"):
        for table in re.findall(r"<table>.*?</table>", path.read_text(), re.DOTALL):
            widths = {len(re.findall(r"<t[hd][ >]", line)) for line in table.split("<tr>")[1:]}  # no end tags: see `markup.squeezed`
            assert len(widths) == 1, path


def test_entries_stay_out_of_the_navigation(seen: dict[str, dict[Path, Seen]], built: dict[str, Path]) -> None:
    page = built["hosted"].joinpath("guides/read/index.html").read_text()
    assert "pruning/slim" not in page
    home = seen["hosted"][built["hosted"] / "index.html"]
    assert [a for tag, a in home.elements if tag == "svg" and a.get("role") == "img"]


@pytest.mark.parametrize(
    ("page", "text", "said"),
    [
        ("about.md", "[gone](nowhere.md)", r"\ADoc file 'about\.md' contains a link 'nowhere\.md', but [^\n]*\Z"),
        ("more.md", "[gone](nowhere.md)", r"\ADoc file 'more\.md' contains a link 'nowhere\.md', but [^\n]*\Z"),
        ("more.md", "# A\n\n[gone](about.md#nowhere)", r"\ADoc file 'more\.md' contains a link 'about\.md#nowhere', but [^\n]*\Z"),
        ("more.md", "<!-- fill: nothing -->", r"\AError reading page 'more\.md':\nsite/more\.md: nothing fills [^\n]*\Z"),
    ],
    ids=["in the navigation", "in another process", "an anchor", "an error"],
)
def test_an_older_site_stays_when_building_fails(page: str, text: str, said: str, tree: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "tree", tmp_path / "out"
    shutil.copytree(tree, root, ignore=shutil.ignore_patterns("build"))
    out.mkdir()
    (out / "index.html").write_text("old")
    (out / site.MARK).write_text(f"{site.MARK}\nindex.html\n")
    (root / "site" / page).write_text(text)
    with pytest.raises(SiteError, match=said):
        build(root, out)
    assert (out / "index.html").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "out"}


def test_a_folder_of_something_else_is_left_alone(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SiteError, match="holds something that is no site"):
        build(tree, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_lineage_of_hundreds_shows_some_and_says_how_many_more() -> None:
    many = [lineage.Node(f"M{i}", "pruning", f"../m{i}/") for i in range(200)]
    few = Seen(lineage.lineage("Own", "pruning", many[:3], many[: lineage.MOST_NODES], []))
    assert len([tag for tag, _ in few.elements if tag == "a"]) == 3 + lineage.MOST_NODES
    assert "more" not in few.text
    seen = Seen(lineage.lineage("Own", "pruning", [], many, many))
    assert len([tag for tag, _ in seen.elements if tag == "a"]) == 2 * (lineage.MOST_NODES - 1)
    assert seen.text.count(f"and {200 - lineage.MOST_NODES + 1} more") == 2


def test_an_entry_under_two_names_stands_in_a_lineage_once(facts: Facts) -> None:
    slim = facts.catalogue.entries["slim"]
    other = facts.catalogue.entries["other"]
    both = {
        "slim": replace(slim, entry=slim.entry.model_copy(update={"compared_with": ["other"]})),
        "other": replace(other, entry=other.entry.model_copy(update={"compared_with": ["slimmer"]})),
    }
    page = pages(replace(facts, catalogue=replace(facts.catalogue, entries=both)))["pruning/other.md"]
    [line] = re.findall(r"<li><strong>Compared with</strong>.*?</li>", page)
    assert line.count("<a ") == 1


@pytest.mark.parametrize("twice", ["comparisons/measured.md", "pruning/index.md", "comparisons/published/cifar-10-vgg-19.md"])
def test_two_pages_of_one_address_are_refused(facts: Facts, twice: str) -> None:
    catalogue = facts.catalogue
    entries, comparisons, slim = dict(catalogue.entries), dict(catalogue.comparisons), catalogue.entries["slim"]
    if twice == "pruning/index.md":
        entries["index"] = replace(slim, id="index")
    elif twice == "comparisons/measured.md":
        comparisons["measured"] = comparisons["table"]
    else:
        assert slim.executable
        results = [*slim.executable.results, slim.executable.results[0].model_copy(update={"model": "VGG 19"})]
        again = replace(slim, entry=slim.entry.model_copy(update={"results": results}))
        entries |= {"slim": again, "again": replace(again, id="again")}
    with pytest.raises(ValueError, match=f"two pages would stand in {twice}; rename"):
        pages(replace(facts, catalogue=replace(catalogue, entries=entries, comparisons=comparisons)))


def test_a_name_that_ends_like_a_folders_page_is_none() -> None:
    assert markup.hosted("pruning/by_index.md", "pruning/slim.md") == "../slim/"
    assert markup.hosted("pruning/index.md", "lists/my_index.md") == "../lists/my_index/"
    assert markup.hosted("index.md", "pruning/index.md") == "pruning/"
    config: Any = SimpleNamespace(use_directory_urls=False)
    page: Any = SimpleNamespace(file=SimpleNamespace(src_uri="pruning/by_index.md"))
    files: Any = SimpleNamespace(src_uris={"pruning/slim.md", "index.md"})
    link = '<a href="../slim/#claims" data-raw>Slim</a><a href="../../" data-raw>Home</a>'
    local = '<a href="slim.html#claims">Slim</a><a href="../index.html">Home</a>'
    assert hooks.on_page_content(link, page, config, files) == local


def test_no_python_among_the_pages() -> None:
    assert not list((ROOT / "site").rglob("*.py"))


# The catalogue as one table, and the comparison


def test_the_catalogue_has_a_row_for_every_entry(facts: Facts) -> None:
    found = Seen(markdown.markdown(pages(facts)["catalogue.md"], extensions=["md_in_html", "tables", "attr_list"]))
    rows = [attributes["id"] for tag, attributes in found.elements if tag == "tr" and "id" in attributes]
    assert sorted(rows) == sorted(facts.catalogue.entries)
    assert not any(tag == "evil-tag" for tag, _ in found.elements)
    heads = [attributes["data-column"] for tag, attributes in found.elements if tag == "th"]
    assert heads == [id for id, *_ in browse.COLUMNS]


def test_the_scripts_know_what_the_pages_say(facts: Facts) -> None:
    made = browse.data(facts)
    assert list(made) == ["assets/names.js", "assets/entries/0.js"]
    names = json.loads(made["assets/names.js"].removeprefix("window.smallprint ??= ").rstrip(";\n"))
    told = json.loads(made["assets/entries/0.js"].removeprefix("Object.assign(smallprint.known, ").rstrip(");\n"))
    assert [entry["id"] for entry in names["names"]] == list(told) == list(facts.catalogue.entries)
    named = {entry["id"]: entry for entry in names["names"]}
    assert named["slim"]["name"] == "Slim"
    assert not named["slim"].keys() & told["slim"].keys()
    slim = told["slim"]
    assert (slim["held"], slim["claims"], slim["verdict"]) == (0, 2, "not measured")
    assert slim["fails"] == [], "what fails are no effects"
    smoke = slim["measured"][0]
    assert (smoke["control"], round(smoke["gap"], 6), smoke["seeds"]) == ("random", 10.0, 2)
    assert smoke["file_bytes"] == pytest.approx(0.3)
    assert "ICCV" in slim["bibtex"]
    assert named["other"]["name"].startswith("<evil-tag")  # data, which the script puts into the page as text
    assert told["other"]["verdict"] == "not reimplemented"


def test_what_is_known_comes_in_parts(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "PART", 2)
    made = browse.data(facts)
    parts = [json.loads(text.removeprefix("Object.assign(smallprint.known, ").rstrip(");\n")) for text in list(made.values())[1:]]
    assert '"part":2' in made["assets/names.js"]
    assert [id for part in parts for id in part] == list(facts.catalogue.entries)
    assert {len(part) for part in parts[:-1]} == {2}


@pytest.mark.parametrize(
    ("tags", "start", "data", "training"),
    [
        (["data_free", "post_training"], "trained", "none", "none"),
        (["calibration_data", "post_training"], "trained", "a few images", "none"),
        (["post_training"], "trained", "training data", "fine-tuning"),
        (["training_free"], "trained", "training data", "none"),
        ([], "scratch", "training data", "from scratch"),
    ],
)
def test_what_a_method_needs(facts: Facts, tags: list[str], start: str, data: str, training: str) -> None:
    record = facts.catalogue.entries["slim"]
    needy = replace(record, entry=record.entry.model_copy(update={"tags": tags, "start": start}))
    assert (browse.data_needed(needy), browse.training_needed(needy)) == (data, training)


def test_the_catalogue_of_a_bundle_links_files(built: dict[str, Path]) -> None:
    offline, hosted = built["offline"].joinpath("catalogue.html"), built["hosted"].joinpath("catalogue/index.html")
    assert '<a href="pruning/slim.html"' in offline.read_text()
    assert '<a href="../pruning/slim/" data-raw>' in hosted.read_text()
    assert all(folder.joinpath(name).is_file() for folder in built.values() for name in ("assets/names.js", "assets/entries/0.js"))


# Guides and glossary


def test_a_guide_says_what_was_measured(facts: Facts) -> None:
    guide = pages(replace(facts, templates={"pruning/index.md": GUIDE}))["pruning/index.md"]
    assert "0 of 2 effects of 1 method hold" in guide
    assert "[Slim](slim.md) (+10.0 points to *random*)" in guide
    years = re.findall(r'class="sp-year">(\d+)<', guide)
    assert years == ["2017", "2020"]
    assert "after [Slim](slim.md)" in guide  # under its former name


def test_techniques_are_read_from_entry_to_framework() -> None:
    known = gather(ROOT, {})
    made = makers(known)["frameworks/index.md"]()
    for record in known.catalogue.family("frameworks"):
        offered = [technique for technique in record.entry.techniques if technique.entry] if isinstance(record.entry, Framework) else []
        for technique in offered:
            row = next(line for line in made.splitlines() if line.startswith("|") and f"/{technique.entry}.md)" in line.partition(" | ")[0])
            assert f"[{safe.escape(record.entry.name)}]" in row
            assert safe.escape(technique.name) in row


def test_printed_results_stand_family_by_family() -> None:
    known = gather(ROOT, {})
    place, found = max(known.printed.items(), key=lambda item: len(item[1]))
    made = makers(known)[printed.printed_path(place)]()
    chart = made[made.index("<svg") : made.index("</svg>")]
    families = [family for family in charts.COLOURS if charts.COLOURS[family] in chart]
    assert set(families) <= {record.family for record, _ in found}
    assert families[1:]
    first = [chart.rindex(charts.COLOURS[family]) for family in families]
    assert first == sorted(first)


def test_terms_lead_to_the_glossary_once_and_never_out_of_code() -> None:
    glossary = "- **rank**{ #rank }: how much is kept.\n- **tensor train**{ #tensor-train }: a chain.\n"
    facts = Facts(load(ROOT / "nowhere"), templates={"glossary.md": glossary})
    told = names.explained(facts, "pruning/slim.md", "<p>Frank ranks <code>rank</code> a Tensor train by rank.</p>")
    assert told == (
        '<p>Frank <a href="../../glossary/#rank" class="sp-term" data-raw>ranks</a> <code>rank</code> a '
        '<a href="../../glossary/#tensor-train" class="sp-term" data-raw>Tensor train</a> by rank.</p>'
    )
    assert names.explained(replace(facts, templates={}), "pruning/slim.md", "rank") == "rank"


def test_every_term_of_the_glossary_stands_once_in_order() -> None:
    text = (ROOT / "site" / "glossary.md").read_text()
    terms = [name for name, _ in names.TERM.findall(text)]
    assert len(terms) == text.count("\n- ") > 30
    assert terms == sorted(set(terms), key=str.casefold)


def test_of_two_builds_into_one_folder_the_later_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, out, rename = tmp_path / ".out.part", tmp_path / "out", Path.rename

    def raced(self: Path, target: Path) -> Path:
        if self == part and not out.exists() and not (tmp_path / "theirs").exists():
            for folder in (out, tmp_path / "theirs"):
                folder.mkdir()
                (folder / "index.html").write_text("theirs")
        return rename(self, target)

    part.mkdir()
    (part / "index.html").write_text("ours")
    monkeypatch.setattr(Path, "rename", raced)
    site._replace(part, out)
    assert (out / "index.html").read_text() == "ours"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "theirs"}
