"""Files beside the pages: data with their schemas, feed, site map, redirects; citations and dates; one small site with an address."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bibtexparser
import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from catalog import Catalogue, Record, load
from catalog.schema import KINDS, Comparison, Entry, Paper, Vocabulary
from scripts.curation import bibtex, cite
from scripts.evidence import history
from scripts.evidence.facts import Facts, Measured, gather
from scripts.evidence.history import Span
from scripts.evidence.records import COLUMNS, Row
from scripts.website import data as data_page
from scripts.website.entry import entry_page
from scripts.website.exports import catalog, derived, feed, files, redirects, schemas, tables
from scripts.website.exports.derived import Place
from scripts.website.pages import pages

ROOT = Path(__file__).parents[2]
EVIL = "<evil-tag onclick=evil()>\"x'</evil-tag> & ]]> ü"
HOME = Place("https://example.org/small/")
DAY = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(id: str, family: str = "pruning", **fields: Any) -> Record:
    given = {"name": id.title(), "title": f"On {id}", "year": 2020, "summary": "It does.", "url": "https://example.org/", **fields}
    if family not in ("frameworks", "lists"):
        given.setdefault("authors", ["Ana Müller", "Bo Chen"])
    return Record(id, family, Path(f"{id}.yaml"), KINDS[family].model_validate(given), {})


def row(subject: str, metric: str, value: float, seed: int = 0, tier: str = "smoke", code: str = "now") -> Row:
    return Row(tier, subject, metric, value, "standin", "", seed, "cpu, old", 1, "3.11", "2.13", "abc", code, "2026-01-02")


CLAIMS = {
    "same": {"says": "Nothing changes.", "where": "§3", "tier": "exact", "kind": "identity", "at_most": 0.1},
    "sizes": {
        "says": "Sizes.",
        "where": "§4",
        "tier": "exact",
        "kind": "count",
        "within": "2%",
        "cases": {"B0": {"paper": 5.0}, "B1": {"paper": 7.0}},
    },
    "better": {
        "says": "It is better.",
        "where": "§5",
        "tier": "long",
        "kind": "effect",
        "against": "a",
        "at_least": 0,
        "paper": 0.1,
        "unit": "share of images",
    },
    "at_once": {
        "says": "It is better.",
        "where": "§5",
        "tier": "smoke",
        "kind": "effect",
        "against": "a",
        "at_least": 0,
        "unit": "share of images",
        "same_as": "better",
    },
    "smaller": {"says": "It is small.", "where": "§6", "tier": "smoke", "kind": "effect", "against": "reference", "at_most": 0.5},
}


@pytest.fixture(scope="module")
def facts() -> Facts:
    entries = [
        record("slim", claims=CLAIMS, start="trained", returns="smaller", venue="ICCV", arxiv="1708.06519",
               formerly=["slimmer"], tags=["channel"]),
        record("evil", name=EVIL, title=EVIL, authors=[EVIL, "X"], summary=EVIL, venue=EVIL, builds_on=["slim", "tool"]),
        record("tool", "frameworks", techniques=[{"name": "Slimming", "entry": "slim"}]),
        record("survey", "overviews", covers=["slim"], year=2024),
        record("links", "lists", topics=["nets"]),
    ]  # fmt: skip
    found = [row("claim_same", "value", value, tier="exact") for value in (0.05,)]
    found += [row("claim_sizes[B0]", "value", float("nan"), tier="exact", code="old")]
    for seed in (0, 1):
        found += [row("reference", "accuracy", 0.9, seed), row("control_a", "accuracy", 0.6, seed), row("control_b", "accuracy", 0.7, seed)]
        found += [row("method", "accuracy", 0.8 + seed / 100, seed), row("method", "bits", 4.125, seed)]
        found += [row("reference", "file_bytes", 300, seed), row("method", "file_bytes", 100, seed)]
    empty = Vocabulary(datasets={}, models={}, metrics={}, tags={"channel": "Whole channels"})
    table = yaml.safe_load("""
        {title: T, caption: C, dataset: D, model: M, source: {url: "https://example.org", label: L},
         columns: [{id: a, name: A, unit: "%", direction: lower}], rows: [{method: X, values: {a: null}}]}
    """)
    catalogue = Catalogue({r.id: r for r in entries}, {"table": Comparison.model_validate(table)}, empty, [], {})
    spans = {"slim": Span(DAY, DAY.replace(day=9)), "survey": Span(DAY.replace(day=3), DAY.replace(day=3)), "tool": Span(None, DAY)}
    return Facts(catalogue, {}, {"slim": Measured(found, lambda tier, subject: "now")}, {}, {}, spans)


@pytest.fixture(scope="module")
def made(facts: Facts) -> dict[str, str]:
    return files.files(facts, ["index.md", "data.md", "pruning/index.md", "pruning/slim.md"], HOME)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def typed(line: dict[str, str], schema: dict[str, Any]) -> dict[str, Any]:
    """A row of CSV as the schema speaks of it."""
    read = {"integer": int, "number": float, "boolean": {"true": True, "false": False}.__getitem__, "string": str, "null": str}
    found: dict[str, Any] = {}
    for name, text in line.items():
        kinds = schema["properties"][name].get("type", "string")
        kinds = [kinds] if isinstance(kinds, str) else kinds
        found[name] = None if text == "" and "null" in kinds else read[kinds[0]](text)
    return found


# Data


def test_what_is_exported_meets_its_schema(made: dict[str, str]) -> None:
    schemas = {path.removeprefix("data/schema/"): json.loads(text) for path, text in made.items() if path.startswith("data/schema/")}
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    whole = json.loads(made["data/catalog.json"], parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    jsonschema.Draft202012Validator(schemas["catalog.json"]).validate(whole)
    for name, schema in (("catalog", "catalog_row.json"), ("measured", "measured_row.json")):
        lines = rows(made[f"data/{name}.csv"])
        assert list(lines[0]) == list(schemas[schema]["properties"])
        for line in lines:
            jsonschema.Draft202012Validator(schemas[schema]).validate(typed(line, schemas[schema]))
    assert whole["$schema"] == "schema/catalog.json"
    whole["entries"][0]["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schemas["catalog.json"]).validate(whole)


def test_the_real_catalogue_meets_the_schema() -> None:
    catalogue = load(ROOT / "catalog")
    whole, _ = catalog.catalog(Facts(catalogue))
    jsonschema.Draft202012Validator(schemas.catalog_schema()).validate(json.loads(whole))


def test_json_holds_everything_and_what_is_derived_of_it(facts: Facts, made: dict[str, str]) -> None:
    entries = {entry["id"]: entry for entry in json.loads(made["data/catalog.json"])["entries"]}
    assert list(entries) == list(facts.catalogue.entries)
    slim = entries["slim"]
    for id, known in facts.catalogue.entries.items():
        own = {name: value for name, value in entries[id].items() if name in type(known.entry).model_fields}
        assert type(known.entry).model_validate(own) == known.entry
    assert slim["page"] == "https://example.org/small/pruning/slim/"
    assert (slim["added"], slim["changed"], slim["method"]) == ("2026-01-02", "2026-01-09", None)
    assert slim["score"] == {"total": 2, "held": 0, "level": 0, "failed": 0, "open": 2}
    best = slim["leading"]
    assert (best["accuracy_reference"], best["accuracy_control"], best["accuracy_method"], best["control"]) == (0.9, 0.7, 0.805, "b")
    assert (best["bits"], best["file_kept"], best["multiply_adds_kept"]) == (4.125, 0.333333, None)
    assert [(f["claim"], f["case"], f["mean"], f["verdict"], f["stale"]) for f in slim["findings"]] == [
        ("same", None, 0.05, "holds", False),
        ("sizes", "B0", None, "fails", True),  # not a number
    ]
    assert (entries["evil"]["leading"], entries["evil"]["added"], entries["evil"]["title"]) == (None, None, bibtex.clean(EVIL))


def test_tables_say_the_same(made: dict[str, str]) -> None:
    entries = {line["id"]: line for line in rows(made["data/catalog.csv"])}
    assert entries["slim"]["authors"] == "Ana Müller; Bo Chen"
    assert entries["slim"]["effects_held"] == "0"
    assert entries["slim"]["measured_accuracy_method"] == "0.805"
    assert entries["evil"]["builds_on"] == "slim; tool"
    assert entries["evil"]["measured_data"] == entries["evil"]["doi"] == ""
    measured = rows(made["data/measured.csv"])
    assert list(measured[0]) == ["family", "id", *COLUMNS, "stale"]
    assert len(measured) == 16
    assert [(line["value"], line["stale"]) for line in measured[:2]] == [("0.05", "false"), ("nan", "true")]
    assert measured[0]["device"] == "cpu, old"


def test_bibtex_has_every_entry_under_its_key(facts: Facts, made: dict[str, str]) -> None:
    library = bibtexparser.parse_string(made["data/catalog.bib"])
    assert {entry.key for entry in library.entries} == set(facts.citation_keys.values())
    assert not library.failed_blocks


def test_the_same_facts_give_the_same_bytes(facts: Facts) -> None:
    assert files.files(facts) == files.files(facts)


def test_an_empty_catalogue_is_no_problem() -> None:
    nothing = Facts(Catalogue({}, {}, Vocabulary(datasets={}, models={}, metrics={}, tags={}), [], {}))
    made = files.files(nothing)
    assert json.loads(made["data/catalog.json"])["entries"] == []
    assert made["data/catalog.bib"] == ""
    assert feed.FEED not in made


# Feed, site map, redirects

ATOM = {"a": "http://www.w3.org/2005/Atom"}


def test_the_feed_tells_the_newest_first(made: dict[str, str]) -> None:
    root = ET.fromstring(made["feed.xml"])
    for name in ("title", "id", "updated", "author/a:name"):
        assert root.find(f"a:{name}", ATOM) is not None, name
    items = root.findall("a:entry", ATOM)
    assert [item.findtext("a:published", "", ATOM) for item in items] == ["2026-01-03T03:04:05Z", "2026-01-02T03:04:05Z"]
    assert root.findtext("a:updated", "", ATOM) == "2026-01-03T03:04:05Z"
    links = [link.attrib["href"] for link in root.iterfind(".//a:link[@rel!='related']", ATOM)]
    assert all(link.startswith(HOME.address) for link in links)
    for item in items:
        assert item.findtext("a:id", "", ATOM).startswith("urn:uuid:")
        assert item.findtext("a:summary", "", ATOM)


def test_ids_of_the_feed_stay_when_the_site_moves(facts: Facts, made: dict[str, str]) -> None:
    def ids(text: str) -> list[str | None]:
        return [id.text for id in ET.fromstring(text).iterfind(".//a:id", ATOM)]

    here = files.files(facts)
    assert ids(here["feed.xml"]) == ids(made["feed.xml"])
    assert len(set(ids(made["feed.xml"]))) == 3
    assert ET.fromstring(here["feed.xml"]).find("a:entry/a:link", ATOM).attrib["href"] == "overviews/survey/"  # type: ignore[union-attr]
    assert "sitemap.xml" not in here


def test_any_text_is_well_formed_in_the_feed(facts: Facts) -> None:
    odd = replace(facts, history={"evil": Span(DAY, DAY)})
    title = ET.fromstring(feed.feed(odd)).findtext("a:entry/a:title", "", ATOM)
    assert title == bibtex.clean(EVIL)


def test_the_site_map_has_every_page_and_dates_of_entries_only(made: dict[str, str]) -> None:
    space = {"s": "http://www.sitemaps.org/schemas/sitemap/0.9"}
    found = {u.findtext("s:loc", "", space): u.findtext("s:lastmod", None, space) for u in ET.fromstring(made["sitemap.xml"])}
    assert found == {
        "https://example.org/small/": None,
        "https://example.org/small/data/": None,
        "https://example.org/small/pruning/": None,
        "https://example.org/small/pruning/slim/": "2026-01-09",
    }


def test_addresses_of_pages() -> None:
    folder = Place(folders=False)
    assert [folder.of(page) for page in ("index.md", "pruning/index.md", "pruning/slim.md")] == [
        "index.html",
        "pruning/index.html",
        "pruning/slim.html",
    ]
    assert [Place().of(page) for page in ("index.md", "my_index.md")] == ["", "my_index/"]


def test_an_old_address_leads_to_the_new_page(facts: Facts, made: dict[str, str]) -> None:
    hosted, bundle = made["pruning/slimmer/index.html"], files.files(facts, place=Place(folders=False))["pruning/slimmer.html"]
    assert '<a href="../slim/">Slim</a>' in hosted
    assert '<link rel="canonical" href="https://example.org/small/pruning/slim/">' in hosted
    assert '<meta http-equiv="refresh" content="0; url=slim.html">' in bundle
    named = replace(facts, catalogue=replace(facts.catalogue, entries={"evil": record("evil", name=EVIL, formerly=["index", "bad"])}))
    moved = redirects.redirects(named)
    assert list(moved) == ["pruning/bad/index.html"]  # never in the place of the family's page
    assert "<evil-tag" not in moved["pruning/bad/index.html"]


# Dates


def log(*commits: tuple[str, str, list[str]]) -> str:
    return "".join(f"\0{date}\0{decoration}\n\n" + "".join(f"{line}\n" for line in lines) for date, decoration, lines in commits)


def test_a_log_is_read() -> None:
    found = history.parse(
        log(
            ("2026-03-01T00:30:00+01:00", "HEAD -> main", ["M\tcatalog/measured/pruning/slim.csv", "A\tcatalog/pruning/new.yaml"]),
            ("2026-02-01T00:00:00+00:00", "", ["M\tmethods/pruning/slim.py", "M\tmethods/kit/train.py", "D\tcatalog/lists/gone.yaml"]),
            ("2026-01-01T00:00:00+00:00", "", ["A\tcatalog/pruning/slim.yaml", "A\tcatalog/schema.py"]),
            ("2025-12-01T00:00:00+00:00", "", []),
            ("2025-01-01T00:00:00+00:00", "grafted, tag: v1", ["A\tcatalog/pruning/slim.yaml", "A\tcatalog/pruning/old.yaml"]),
        )
    )
    assert found == {
        "slim": Span(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 28, 23, 30, tzinfo=UTC)),
        "new": Span(datetime(2026, 2, 28, 23, 30, tzinfo=UTC), datetime(2026, 2, 28, 23, 30, tzinfo=UTC)),
        "gone": Span(None, datetime(2026, 2, 1, tzinfo=UTC)),
    }
    assert history.parse("") == {}


def commit(root: Path, date: str, message: str) -> None:
    who = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "PATH": os.environ["PATH"]}
    dated = {**who, **quiet, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    for arguments in (["add", "-A"], ["commit", "-q", "-m", message]):
        subprocess.run(["git", "-C", str(root), *arguments], check=True, env=dated)


def test_git_is_asked_about_a_renamed_entry_and_a_shallow_clone(tmp_path: Path) -> None:
    root = tmp_path / "outer" / "inner"  # the repository may be part of a larger one
    (root / "catalog" / "pruning").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(root.parent)], check=True)
    (root / "catalog" / "pruning" / "slimmer.yaml").write_text("a")
    commit(root, "2026-01-01T12:00:00+00:00", "one")
    (root / "catalog" / "pruning" / "slimmer.yaml").rename(root / "catalog" / "pruning" / "slim.yaml")
    commit(root, "2026-01-05T12:00:00+00:00", "two")
    entries = [record("slim", formerly=["slimmer"]), record("uncommitted")]
    assert history.spans(root, entries) == {
        "slim": Span(datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 5, 12, tzinfo=UTC)),
    }
    (root / "catalog" / "pruning" / "slim.yaml").write_text("b")
    commit(root, "2026-01-06T12:00:00+00:00", "three")
    assert history.spans(root, entries)["slim"].changed.day == 6  # another commit is seen by a process that goes on
    subprocess.run(["git", "clone", "-q", "--depth=1", root.parent.as_uri(), str(tmp_path / "shallow")], check=True)
    assert history.spans(tmp_path / "shallow" / "inner", entries) == {}


def test_without_git_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert history.spans(tmp_path, [record("slim")]) == {}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert history.spans(ROOT, [record("slim")]) == {}


def test_the_newest_are_those_added_last_else_the_youngest(facts: Facts) -> None:
    records = list(facts.catalogue.entries.values())
    assert [r.id for r in history.newest(records, facts.history, 3)] == ["survey", "slim", "evil"]
    assert [r.id for r in history.newest(records, {}, 2)] == ["survey", "evil"]


# Citations and pages


def test_a_citation_is_a_line(facts: Facts) -> None:
    entries = {id: record.entry for id, record in facts.catalogue.entries.items()}
    assert cite.text(entries["slim"]) == "Ana Müller and Bo Chen. On slim. ICCV 2020. https://arxiv.org/abs/1708.06519"
    assert cite.text(entries["tool"]) == "On tool. 2020. https://example.org/"
    asked = Paper(name="A", title="Why?", authors=["A", "B", "C"], year=2020, venue="NIPS 2020", doi="10.1000/a<b", summary="S")
    assert cite.text(asked) == "A, B and C. Why? NIPS 2020. https://doi.org/10.1000/a%3Cb"
    assert "\n" not in cite.text(entries["evil"])


def test_tags_describe_the_paper(facts: Facts) -> None:
    assert cite.tags(facts.catalogue.entries["slim"].entry) == [
        ("citation_title", "On slim"),
        ("citation_author", "Ana Müller"),
        ("citation_author", "Bo Chen"),
        ("citation_publication_date", "2020"),
        ("citation_conference_title", "ICCV"),
        ("citation_arxiv_id", "1708.06519"),
        ("citation_abstract_html_url", "https://arxiv.org/abs/1708.06519"),
    ]
    journal = Entry(name="A", title="T", authors=["B"], year=2020, venue="IEEE Transactions on X", summary="S")
    assert ("citation_journal_title", "IEEE Transactions on X") in cite.tags(journal)
    thesis = Entry(name="A", title="T", authors=["B"], year=2020, venue="PhD thesis, Toy University", summary="S")
    assert ("citation_dissertation_institution", "Toy University") in cite.tags(thesis)


def test_an_entry_page_cites_and_dates_itself(facts: Facts) -> None:
    page = entry_page(facts, facts.catalogue.entries["slim"])
    front = yaml.safe_load(page.split("---\n")[1])
    assert [tuple(pair) for pair in front["citation"]] == cite.tags(facts.catalogue.entries["slim"].entry)
    assert "https://arxiv.org/abs/1708.06519\n```" in page
    assert 'Here since <time datetime="2026-01-02">2 January 2026</time>' in page
    assert "Here since" not in entry_page(facts, facts.catalogue.entries["tool"])
    assert "sp-dates" not in entry_page(facts, facts.catalogue.entries["evil"])
    odd = yaml.safe_load(entry_page(facts, facts.catalogue.entries["evil"]).split("---\n")[1])
    assert ["citation_title", bibtex.clean(EVIL)] in odd["citation"]


def test_home_shows_the_newest_and_the_feed_where_there_is_one(facts: Facts) -> None:
    text = {"index.md": "<!-- fill: newest -->"}
    dated, undated = (pages(replace(facts, templates=text, history=known))["index.md"] for known in (facts.history, {}))
    assert [dated.count(said) for said in ("[Survey]", "2 January 2026", "(feed.xml)")] == [1, 1, 1]
    assert dated.index("[Survey]") < dated.index("[Slim]")
    assert [undated.count(said) for said in ("[Survey]", "<time", "(feed.xml)", "(data.md)")] == [1, 0, 0, 1]
    assert "<evil-tag" not in dated


def test_the_data_page_explains_every_field_and_column(facts: Facts) -> None:
    template = (ROOT / "site" / "data.md").read_text()
    page = pages(replace(facts, templates={"data.md": template}))["data.md"]
    for part in (set(schemas.columns()), set(tables.MEASURED), {field.name for field in derived.FIELDS}):
        assert all(f"<code>{name.replace('_', '&#95;')}</code>" in page for name in part)

    def described(schema: dict[str, Any], path: str = "") -> None:
        for name, inner in schema.get("properties", {}).items():
            assert inner.get("description"), f"{path}.{name} has no description"
            described(inner, f"{path}.{name}")
            described(inner.get("items", {}), f"{path}.{name}[]")

    schema = schemas.catalog_schema()
    for name, inner in {"": schema, **schema["$defs"]}.items():
        described(inner, name)
    for row_schema in (schemas.columns(), tables.MEASURED):
        assert all(column["description"] for column in row_schema.values())
    shown = set(re.findall(r"\]\((data/[^)#]+)\)", page))
    assert shown == {path for path in files.files(facts) if path.startswith("data/")}
    for definition in schema["$defs"].values():
        assert all(f"{name.replace('_', '&#95;')}</code>" in page for name in definition.get("properties", {}))


def test_a_kind_of_value_in_words() -> None:
    assert data_page.kind({"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}]}) == "number or text"
    assert data_page.kind({"enum": ["a", "b"]}) == "a or b"
    assert data_page.kind({"type": ["integer", "null"]}) == "whole number"


def test_the_snippet_of_the_data_page_runs(made: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name in ("catalog.json", "measured.csv"):
        (tmp_path / name).write_text(made[f"data/{name}"], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    [snippet] = re.findall(r"```python\n(.*?)```", (ROOT / "site" / "data.md").read_text(), re.DOTALL)
    exec(compile(snippet, "data.md", "exec"), {})
    assert "slim standin 4.125" in capsys.readouterr().out


# A real build, with an address


def test_a_site_with_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scripts.website.site import SiteError, build
    from tests.website.test_pages import make_tree

    root = make_tree(tmp_path / "tree")
    monkeypatch.setenv("SMALLPRINT_SITE_URL", "https://example.org/small/")
    out = build(root, tmp_path / "out")
    assert {path.name for path in (out / "data").iterdir()} == {
        *("catalog.json", "catalog.csv", "catalog.bib", "measured.csv", "schema", "index.html"),
    }
    assert "<loc>https://example.org/small/pruning/slim/</loc>" in (out / "sitemap.xml").read_text()
    assert not (out / "sitemap.xml.gz").exists()
    assert not (out / "templates").exists()
    assert not (out / "feed.xml").exists()  # a tree without history
    page = (out / "pruning" / "slim" / "index.html").read_text()
    assert '<meta name="citation_author" content="Ana Müller">' in page
    assert "feed.xml" not in page
    other = (out / "pruning" / "other" / "index.html").read_text()
    assert '<meta name="citation_title" content="&lt;evil-tag' in other
    missing = (out / "404.html").read_text()
    assert 'href="/small/pruning/"' in missing
    assert (out / "pruning" / "slimmer" / "index.html").is_file()
    bundle = build(root, tmp_path / "bundle", offline=True)
    assert {path.name for path in bundle.iterdir()} & {"404.html", "sitemap.xml", "data.html"} == {"data.html"}
    assert (bundle / "pruning" / "slimmer.html").is_file()
    assert "example.org/small" not in (bundle / "pruning" / "slim.html").read_text() + (bundle / "data" / "catalog.json").read_text()
    monkeypatch.setenv("SMALLPRINT_SITE_URL", "nowhere")
    with pytest.raises(SiteError, match="URL"):
        build(root, tmp_path / "out")
    assert gather(root).history == {}
