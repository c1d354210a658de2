"""Files beside the pages, a pure function of the facts: the whole catalogue as data, its schemas, the feed, the site map, redirects."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from catalog import FAMILIES, Record
from catalog.schema import KINDS, Bound, Comparison, Executable, Vocabulary
from scripts import bibtex, check, cite, records
from scripts.entry_pages import path_of
from scripts.facts import Facts, Sample
from scripts.history import newest

FEED = "feed.xml"
IN_FEED = 50
VERSION = 1  # of the files below data/; it grows when a field or a column goes or changes its meaning
LICENCE = "CC-BY-4.0"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Place(NamedTuple):
    """Where the site will be: its address with a slash at the end, if that is known, and whether pages are folders."""

    address: str = ""
    folders: bool = True

    def of(self, page: str) -> str:
        """Address of a page, of which the path of the Markdown file is given; from the site's root where no address is known."""
        name = page.removesuffix(".md")
        if name == "index" or name.endswith("/index"):
            return self.address + name.removesuffix("index") + ("" if self.folders else "index.html")
        return f"{self.address}{name}{'/' if self.folders else '.html'}"


NOWHERE = Place()


def files(facts: Facts, pages: Iterable[str] = (), place: Place = NOWHERE) -> dict[str, str]:
    """Path below the site's root -> text. `pages` are the paths of all Markdown files, for the site map."""
    whole, table = catalog(facts, place)
    made = {
        "data/catalog.json": whole,
        "data/catalog.csv": table,
        "data/catalog.bib": catalog_bib(facts),
        "data/measured.csv": measured_csv(facts),
    }
    made.update({path: json.dumps(schema, indent=1, ensure_ascii=False) + "\n" for path, schema in schemas().items()})
    if has_feed(facts):
        made[FEED] = feed(facts, place)
    if place.address:
        made["sitemap.xml"] = sitemap(facts, pages, place)
    made.update(redirects(facts, place))
    return made


# Entries as data


class Field(NamedTuple):
    """A field or column that is derived: its name, its JSON Schema, and how it is found. What it means is in the schema."""

    name: str
    schema: dict[str, Any]
    value: Callable[[Facts, Record, Place], Any]


def _text(meaning: str) -> dict[str, Any]:
    return {"type": "string", "description": meaning}


def _maybe(kind: str, meaning: str) -> dict[str, Any]:
    return {"type": [kind, "null"], "description": meaning}


def _whole(meaning: str) -> dict[str, Any]:
    return {"type": "integer", "description": meaning}


def _object(properties: Mapping[str, Any], meaning: str = "") -> dict[str, Any]:
    closed = {"type": "object", "properties": dict(properties), "required": list(properties), "additionalProperties": False}
    return {**closed, "description": meaning} if meaning else closed


def _day(facts: Facts, record: Record, which: str) -> str | None:
    span = facts.history.get(record.id)
    at = getattr(span, which) if span else None
    return f"{at:%Y-%m-%d}" if at else None


def number(value: float | None) -> float | None:
    """As it is recorded: six digits. What is not finite has no place in JSON."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def _score(facts: Facts, record: Record) -> dict[str, int]:
    score = facts.score(record)
    return {"total": score.total, "held": score.held, "failed": score.failed, "open": score.open, "surprises": score.surprises}


def leading(facts: Facts, record: Record) -> dict[str, Any] | None:
    """The numbers by which an entry is compared with others: those of its most telling condition."""
    measured = facts.of(record.id)
    if not measured.conditions:
        return None
    condition = measured.conditions[0]
    standing = measured.standing(condition)

    def mean(sample: Sample | None) -> float | None:
        return number(sample.mean) if sample else None

    return {
        "data": condition.data,
        "tier": condition.tier,
        "accuracy_reference": mean(standing.reference),
        "accuracy_control": mean(standing.best),
        "accuracy_method": mean(standing.method),
        "control": standing.control.removeprefix("control_") if standing.control else None,
        "bits": mean(measured.sample(condition, "method", "bits")),
        "parameters_kept": number(measured.ratio(condition, "parameters")),
        "multiply_adds_kept": number(measured.ratio(condition, "multiply_adds")),
        "file_kept": number(measured.ratio(condition, "file_bytes")),
        "time_kept": mean(measured.sample(condition, "method", "latency")),
    }


LEADING: dict[str, dict[str, Any]] = {
    "data": _text("Data that the numbers were measured on: cifar10, cifar10-jpeg75 (a recompressed copy) or standin (drawn by a program)"),
    "tier": _text("Length of the run: full, long or smoke"),
    "accuracy_reference": _maybe("number", "Accuracy of the network before compression, as a share"),
    "accuracy_control": _maybe("number", "Accuracy of the best control, the naive alternative of the same size"),
    "accuracy_method": _maybe("number", "Accuracy of the method"),
    "control": _maybe("string", "Which control that is"),
    "bits": _maybe("number", "Bits stored per weight of the method's network, scales included"),
    "parameters_kept": _maybe("number", "Parameters of the method's network as a share of the reference's"),
    "multiply_adds_kept": _maybe("number", "Multiply-adds for one image, as a share of the reference's"),
    "file_kept": _maybe("number", "Bytes of the file, as a share of the reference's"),
    "time_kept": _maybe("number", "Time of one thread, as a share of the reference's"),
}


def findings(facts: Facts, record: Record) -> list[dict[str, Any]]:
    """Every claim and case that was measured, under every condition."""
    entry, measured = record.executable, facts.of(record.id)
    bounds: list[tuple[str, str | None, Bound]] = []
    for name, claim in entry.claims.items() if entry else ():
        bounds += [(name, case, bound) for case, bound in claim.bounds().items()]
    found = [finding for name, case, bound in bounds for finding in measured.findings(name, case, bound)]
    return [
        {"claim": f.claim, "case": f.case, "tier": f.condition.tier, "data": f.condition.data, **_sample(f.sample),
         "verdict": f.verdict, "expected": f.bound.expected}
        for f in found
    ]  # fmt: skip


def _sample(sample: Sample) -> dict[str, Any]:
    return {"mean": number(sample.mean), "sd": number(sample.sd), "seeds": len(sample.values), "stale": sample.stale}


FINDING: dict[str, dict[str, Any]] = {
    "claim": _text("Name of the claim, as in `claims`"),
    "case": _maybe("string", "Which of its cases; null where it has none"),
    "tier": _text("Length of the run: full, long, smoke or exact"),
    "data": _text("Data; none where the claim needs none"),
    "mean": _maybe("number", "Our number, the mean over the seeds; null where it is not finite"),
    "sd": _maybe("number", "Its standard deviation; null for one seed"),
    "seeds": {"type": "integer", "description": "How many seeds"},
    "stale": {"type": "boolean", "description": "Whether the code has changed since"},
    "verdict": {"enum": ["holds", "fails"], "description": "Whether our number meets the bound of the claim"},
    "expected": {"enum": ["holds", "fails"], "description": "What was expected"},
}
SCORE: dict[str, dict[str, Any]] = {
    "total": _whole("Claims"),
    "held": _whole("Claims that hold, in every case"),
    "failed": _whole("Claims that fail, in some case"),
    "open": _whole("Claims that are not measured yet"),
    "surprises": _whole("Claims that turned out otherwise than expected"),
}


FIELDS = (
    Field("id", _text("Its name in addresses, commands and other entries"), lambda facts, record, place: record.id),
    Field("family", {"enum": list(FAMILIES), "description": "Family it belongs to"}, lambda facts, record, place: record.family),
    Field("page", _text("Address of its page; from the site's root where the site knows no address"),
          lambda facts, record, place: place.of(path_of(record))),
    Field("citation_key", _text("Its key in catalog.bib"), lambda facts, record, place: facts.citation_keys[record.id]),
    Field("citation", _text("How to cite it, as a line of text"), lambda facts, record, place: cite.text(record.entry)),
    Field("method", _maybe("string", "Path of its program in the repository; null where it has none"),
          lambda facts, record, place: facts.sources[record.id].path if record.id in facts.sources else None),
    Field("added", _maybe("string", "Day on which it was added (UTC); null where git does not know"),
          lambda facts, record, place: _day(facts, record, "added")),
    Field("changed", _maybe("string", "Day on which its facts, program or numbers changed last (UTC); null where git does not know"),
          lambda facts, record, place: _day(facts, record, "changed")),
    Field("score", _object(SCORE, "How many of its claims hold, fail and are open"), lambda facts, record, place: _score(facts, record)),
    Field("leading",
          {"anyOf": [_object(LEADING), {"type": "null"}], "description": "Its numbers under the most telling condition; null before any"},
          lambda facts, record, place: leading(facts, record)),
    Field("findings",
          {"type": "array", "items": _object(FINDING), "description": "Every claim and case that was measured, under every condition"},
          lambda facts, record, place: findings(facts, record)),
)  # fmt: skip


def exported(facts: Facts, record: Record, place: Place) -> dict[str, Any]:
    """An entry with what is derived of it. A field that is not known is left out."""
    derived = {field.name: field.value(facts, record, place) for field in FIELDS}
    return derived | record.entry.model_dump(mode="json", exclude_none=True)


def catalog(facts: Facts, place: Place = NOWHERE) -> tuple[str, str]:
    """The whole catalogue as JSON, one line an entry so that versions can be compared, and its entries as CSV."""
    lines: list[str] = []

    def rows() -> Iterator[list[Any]]:
        for record in facts.catalogue.entries.values():
            entry = exported(facts, record, place)
            lines.append(_line(entry))
            yield [_inside(entry, path) for path in COLUMNS.values()]

    table = _table(COLUMNS, rows())
    head = {"$schema": "schema/catalog.json", "version": VERSION, "name": "smallprint", "licence": LICENCE, "site": place.address or None}
    rest = {
        "comparisons": {id: table.model_dump(mode="json") for id, table in facts.catalogue.comparisons.items()},
        "vocabulary": facts.catalogue.vocabulary.model_dump(mode="json"),
    }
    entries = ",\n".join(lines)
    return f'{_line(head)[:-1]}, "entries": [\n{entries}\n],\n{_line(rest)[1:]}\n', table


def _line(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False)


# Tables

COLUMNS: dict[str, tuple[str, ...]] = {  # of catalog.csv: where the value stands in an entry of catalog.json
    **{
        name: (name,)
        for name in (
            *("id", "family", "name", "title", "authors", "year", "venue", "arxiv", "doi", "url", "tags", "start", "returns"),
            *("builds_on", "compared_with", "summary", "page", "citation_key", "citation", "method", "added", "changed"),
        )
    },
    **{f"claims_{name}": ("score", name) for name in SCORE},
    **{f"measured_{name}": ("leading", name) for name in LEADING},
}


def _inside(data: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        data = (data or {}).get(step)
    return data


def cell(value: Any) -> str:
    """A value in a table: nothing for what is not known, true and false for yes and no, semicolons in lists."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(heads: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(map(cell, line) for line in lines)
    return text.getvalue()


def catalog_bib(facts: Facts) -> str:
    """Every entry as BibTeX, under the key that its page shows."""
    return bibtex.export(facts.catalogue.entries.values(), facts.catalogue.entries)


MEASURED: dict[str, dict[str, Any]] = {
    "family": {"enum": list(FAMILIES), "description": "Family of the entry"},
    "id": _text("Id of the entry"),
    "tier": {
        "enum": ["exact", "smoke", "sweep", "long", "full", "bite", "rounding"],
        "description": "Length of the run; in a bite, faults were planted in the program; rounding is a smoke run's claims once more, on "
        "another instruction set: what processors differ by",
    },
    "subject": _text(
        "reference, method, control_NAME, claim_NAME, claim_NAME[CASE], run or bite; in a sweep @N follows, the operating point"
    ),
    "metric": _text(
        "value for a claim; seconds for a run; killed, equivalent, died, planted or possible for a bite; else accuracy, parameters, "
        "nonzeros, bits, multiply_adds, bit_operations, file_bytes, latency, output_error or steps"
    ),
    "value": _maybe("number", "The number: shares between 0 and 1, latency over the reference's; nan and inf as words"),
    "data": _text("Data: cifar10, cifar10-jpeg75, standin; none for claims that need none"),
    "data_digest": _maybe("string", "Digest of these data"),
    "seed": {"type": "integer", "description": "Seed of the run"},
    "device": _text("Processor"),
    "threads": {"type": "integer", "description": "How many threads"},
    "python": _text("Version of Python"),
    "torch": _text("Version of PyTorch"),
    "commit": _text("Commit of the repository"),
    "code": _text("Digest of all the code that the number rests on"),
    "date": _text("Day of the measurement (UTC)"),
    "stale": {"type": "boolean", "description": "Whether the code has changed since, so that its digest is another today"},
}  # fmt: skip


def measured_csv(facts: Facts) -> str:
    """Every number that was measured, one a row."""
    values = attrgetter(*records.COLUMNS)

    def lines() -> Iterator[tuple[Any, ...]]:
        for record in facts.catalogue.entries.values():
            measured = facts.of(record.id)
            for row in measured.rows:
                yield record.family, record.id, *values(row), row.code != measured.code

    return _table(["family", "id", *records.COLUMNS, "stale"], lines())


# Schemas


def schemas() -> dict[str, dict[str, Any]]:
    """Path -> JSON Schema: of the exported files, and of every kind of file in the catalogue."""
    made = {
        "data/schema/catalog.json": catalog_schema(),
        "data/schema/catalog_row.json": _row_schema("A row of catalog.csv", columns()),
        "data/schema/measured_row.json": _row_schema("A row of measured.csv", MEASURED),
    }
    return made | {f"data/schema/{kind}.json": schema for kind, schema in check.schema().items()}


def columns() -> dict[str, dict[str, Any]]:
    """The columns of catalog.csv, each with the schema of a cell."""
    derived = {field.name: field.schema for field in FIELDS}
    own = Executable.model_json_schema()
    groups = {"score": SCORE, "leading": LEADING}

    def schema(path: tuple[str, ...]) -> dict[str, Any]:
        if len(path) > 1:
            found = groups[path[0]][path[1]]
            kinds = found["type"] if isinstance(found["type"], list) else [found["type"], *(["null"] if path[0] == "leading" else [])]
            return {**found, "type": kinds}
        if path[0] in derived:
            return derived[path[0]]
        field = own["properties"][path[0]]
        meaning = field["description"] + (", parted by semicolons" if field.get("type") == "array" else "")
        kind = "integer" if field.get("type") == "integer" else "string"
        return _text(meaning) | {"type": kind} if path[0] in own["required"] else _maybe(kind, meaning)

    return {name: schema(path) for name, path in COLUMNS.items()}


def _row_schema(title: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"$schema": DIALECT, "title": title, **_object(properties, "Columns by name; an empty cell is null.")}


def catalog_schema() -> dict[str, Any]:
    """The schema of catalog.json: what entries, tables and vocabulary are in the catalogue, and what is derived of each entry."""
    kinds = list(dict.fromkeys(KINDS.values()))
    models: list[type[BaseModel]] = [*kinds, Comparison, Vocabulary]
    _, bundle = models_json_schema([(model, "validation") for model in models], ref_template="#/$defs/{model}")
    definitions = bundle["$defs"]
    derived = {field.name: field.schema for field in FIELDS}
    for kind in kinds:
        own = definitions[kind.__name__]
        own["properties"] = derived | own["properties"]
        own["required"] = [*derived, *own["required"]]
    properties = {
        "$schema": _text("Where this schema is"),
        "version": {"const": VERSION, "description": "Grows when a field goes or changes its meaning; new fields do not count"},
        "name": _text("Name of the catalogue"),
        "licence": _text("SPDX name of the licence"),
        "site": _maybe("string", "Address of the site; null where the site knows none"),
        "entries": {
            "type": "array",
            "items": {"anyOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds]},
            "description": "All entries",
        },
        "comparisons": {
            "type": "object",
            "additionalProperties": {"$ref": "#/$defs/Comparison"},
            "description": "Published tables, by id",
        },
        "vocabulary": {"$ref": "#/$defs/Vocabulary", "description": "Names of data, networks, metrics and tags, and what they mean"},
    }
    return {"$schema": DIALECT, "title": "The whole catalogue", **_object(properties), "$defs": definitions}


# Feed, site map, redirects


def has_feed(facts: Facts) -> bool:
    """Whether it is known when any entry was added."""
    return any(span.added for span in facts.history.values())


def feed(facts: Facts, place: Place = NOWHERE) -> str:
    """The entries that were added last, as an Atom feed. Ids stay when the site moves; addresses are relative where none is known."""
    dated = [(record, span.added) for record in facts.catalogue.entries.values() if (span := facts.history.get(record.id)) and span.added]
    latest = newest((record for record, _ in dated), facts.history, IN_FEED)
    times = {record.id: f"{added:%Y-%m-%dT%H:%M:%SZ}" for record, added in dated}
    root = ET.Element("feed", {"xmlns": "http://www.w3.org/2005/Atom", "xml:lang": "en"})
    _add(root, "title", "smallprint: new entries")
    _add(root, "subtitle", "Papers on making neural networks small and fast")
    _add(root, "id", _urn("feed"))
    _add(root, "updated", max(times[record.id] for record in latest))
    ET.SubElement(root, "link", {"rel": "self", "type": "application/atom+xml", "href": place.address + FEED})
    ET.SubElement(root, "link", {"rel": "alternate", "type": "text/html", "href": place.of("index.md") or "."})
    _add(ET.SubElement(root, "author"), "name", "The smallprint contributors")
    _add(root, "rights", LICENCE)
    for record in latest:
        entry, item = record.entry, ET.SubElement(root, "entry")
        _add(item, "title", entry.name if entry.title == entry.name else f"{entry.name}: {entry.title}")
        _add(item, "id", _urn(record.id))
        _add(item, "published", times[record.id])
        _add(item, "updated", times[record.id])
        ET.SubElement(item, "link", {"rel": "alternate", "type": "text/html", "href": place.of(path_of(record))})
        if paper := cite.where(entry):
            ET.SubElement(item, "link", {"rel": "related", "href": paper})
        for name in (record.family, *entry.tags):
            ET.SubElement(item, "category", {"term": name})
        _add(item, "summary", f"{entry.summary}\n{cite.text(entry)}")
    return _xml(root)


def _urn(name: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"smallprint:{name}").urn


def _add(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = bibtex.clean(text)


def _xml(root: ET.Element) -> str:
    ET.indent(root, " ")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def sitemap(facts: Facts, pages: Iterable[str], place: Place) -> str:
    """Every page, and when an entry changed last."""
    changed = {path_of(record): _day(facts, record, "changed") for record in facts.catalogue.entries.values()}
    root = ET.Element("urlset", {"xmlns": "http://www.sitemaps.org/schemas/sitemap/0.9"})
    for page in sorted(pages):
        item = ET.SubElement(root, "url")
        _add(item, "loc", place.of(page))
        if day := changed.get(page):
            _add(item, "lastmod", day)
    return _xml(root)


def redirects(facts: Facts, place: Place = NOWHERE) -> dict[str, str]:
    """A page at every address that an entry had before, which leads to today's."""
    made = {}
    for old, id in facts.moved.items():
        record = facts.catalogue.entries[id]
        if old == "index":  # the family's own page
            continue
        path, there = (f"{old}/index.html", f"../{id}/") if place.folders else (f"{old}.html", f"{id}.html")
        made[f"{record.family}/{path}"] = _redirect(record.entry.name, there, place.of(path_of(record)) if place.address else there)
    return made


def _redirect(name: str, there: str, canonical: str) -> str:
    title = html.escape(bibtex.clean(name))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>Moved: {title}</title>
<link rel="canonical" href="{html.escape(canonical)}">
<noscript><meta http-equiv="refresh" content="0; url={there}"></noscript>
<script>location.replace("{there}" + location.search + location.hash) // a refresh would lose the place in the page</script>
</head>
<body>
<p>This page has moved to <a href="{there}">{title}</a>.</p>
</body>
</html>
"""
