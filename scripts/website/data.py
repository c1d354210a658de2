"""The tables of the page on the data: files, fields and columns, each with its meaning, all derived from the schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scripts.evidence.facts import Facts
from scripts.evidence.text import code, escape
from scripts.website.exports import derived, feed, schemas, tables
from scripts.website.markup import Column, table
from scripts.website.numbers import plural

Schemas = Mapping[str, dict[str, Any]]
_WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "yes or no", "array": "list", "object": "object"}
NESTED = ("Claim", "Equation", "Result", "Bound", "Code", "Link", "Technique", "Status")


def files(facts: Facts) -> str:
    """What there is to download."""
    entries = plural(len(facts.catalogue.entries), "entry", "entries")
    numbers = plural(sum(len(measured.rows) for measured in facts.measured.values()), "row")
    lines = [
        ("data/catalog.json", f"The whole catalogue: {entries}, published tables, vocabulary", "catalog"),
        ("data/catalog.csv", "One row an entry, for a spreadsheet", "catalog_row"),
        ("data/catalog.bib", "Every entry as BibTeX", ""),
        ("data/measured.csv", f"Every number that was measured: {numbers}", "measured_row"),
        *([(feed.FEED, f"The {feed.IN_FEED} newest entries, as an Atom feed", "")] if feed.has_feed(facts) else []),
    ]
    rows = [(_file(path), what, _file(f"data/schema/{schema}.json", "schema") if schema else "") for path, what, schema in lines]
    return table([Column("File"), Column("What it holds"), Column("JSON Schema")], rows, kind="sp-fields")


def _file(path: str, text: str | None = None) -> str:
    return f"[{text or code(path)}]({path})"


def sources(facts: Facts) -> str:
    """The schemas of the files that people write."""
    meanings = {"paper": "papers", "framework": "frameworks", "overview": "overviews", "list": "lists"}
    meanings |= {"comparison": "published tables", "vocabulary": "the closed lists of names"}
    return "\n".join(f"- {_file(f'data/schema/{name}.json')}: {meaning}" for name, meaning in meanings.items())


def entry_fields(facts: Facts) -> str:
    """Every field of an entry in catalog.json: first what is derived, then what is written."""
    definitions = schemas.catalog_schema()["$defs"]
    made = {field.name: field.schema for field in derived.FIELDS}
    kinds = {"Paper": "papers", "Framework": "frameworks", "Overview": "overviews", "Listing": "lists"}
    own: dict[str, dict[str, Any]] = {}
    where: dict[str, list[str]] = {}
    for kind, name in kinds.items():
        for field, schema in definitions[kind]["properties"].items():
            if field not in made:
                own.setdefault(field, schema)
                where.setdefault(field, []).append(name)
    only = {field: f" ({' and '.join(names)} only)" for field, names in where.items() if len(names) <= 2}
    parts = [
        "### Derived of every entry { #derived }",
        _fields(made),
        "### Its score { #score }",
        _fields(derived.SCORE, "score."),
        "### Its leading numbers { #leading }",
        _fields(derived.LEADING, "leading."),
        "### Its findings { #findings }",
        _fields(derived.FINDING, "findings[]."),
        "### Written in its file { #written }",
        _fields(own, more=only),
    ]
    for name in NESTED:
        parts += [f"### {_TITLES[name]} {{ #{name.lower()} }}", _fields(definitions[name]["properties"])]
    return "\n\n".join(parts)


_TITLES = {
    "Claim": "A claim",
    "Equation": "An equation",
    "Result": "A printed result",
    "Bound": "A case of a claim",
    "Code": "A piece of code",
    "Link": "A link",
    "Technique": "A technique of a framework",
    "Status": "A framework's status",
}


def table_fields(facts: Facts) -> str:
    """Every field of a published table in catalog.json, and of the vocabulary."""
    definitions = schemas.catalog_schema()["$defs"]
    prefixes = {
        "Comparison": "comparisons.*.", "Column": "comparisons.*.columns[].", "Row": "comparisons.*.rows[].",
        "Vocabulary": "vocabulary.", "Metric": "vocabulary.metrics.*.",
    }  # fmt: skip
    return table(
        _HEADS, [line for name, prefix in prefixes.items() for line in _lines(definitions[name]["properties"], prefix)], kind="sp-fields"
    )


def entry_columns(facts: Facts) -> str:
    return _fields(schemas.columns())


def measured_columns(facts: Facts) -> str:
    return _fields(tables.MEASURED)


_HEADS = (Column("Name"), Column("Value"), Column("Meaning"))


def _fields(properties: Schemas, prefix: str = "", more: Mapping[str, str] | None = None) -> str:
    return table(_HEADS, list(_lines(properties, prefix, more or {})), kind="sp-fields")


def _lines(properties: Schemas, prefix: str = "", more: Mapping[str, str] | None = None) -> Iterator[tuple[str, str, str]]:
    for name, schema in properties.items():
        yield code(prefix + name), kind(schema), escape(schema.get("description", "")) + (more or {}).get(name, "")


def kind(schema: Mapping[str, Any]) -> str:
    """What sort of value a schema admits, in a word or two."""
    if values := schema.get("enum"):
        return escape(" or ".join(values)) if len(values) <= 3 else "one of a list"
    if options := [option for option in schema.get("anyOf", []) if option.get("type") != "null"]:
        return " or ".join(dict.fromkeys(map(kind, options)))
    if "$ref" in schema:
        return "object"
    types = schema.get("type", "object")
    return next(_WORDS[name] for name in ([types] if isinstance(types, str) else types) if name != "null")


PARTS = {
    "data_files": files,
    "data_sources": sources,
    "entry_fields": entry_fields,
    "table_fields": table_fields,
    "entry_columns": entry_columns,
    "measured_columns": measured_columns,
}
