"""JSON Schemas of the exported files, and of every kind of file that people write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from catalog.schema import KINDS, Comparison, Executable, Vocabulary
from scripts.curation import check
from scripts.website.exports.catalog import VERSION
from scripts.website.exports.derived import FIELDS, LEADING, SCORE, maybe, record_of, string
from scripts.website.exports.tables import COLUMNS, MEASURED

DIALECT = "https://json-schema.org/draft/2020-12/schema"


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
        return string(meaning) | {"type": kind} if path[0] in own["required"] else maybe(kind, meaning)

    return {name: schema(path) for name, path in COLUMNS.items()}


def _row_schema(title: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"$schema": DIALECT, "title": title, **record_of(properties, "Columns by name; an empty cell is null.")}


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
        "$schema": string("Where this schema is"),
        "version": {"const": VERSION, "description": "Grows when a field goes or changes its meaning; new fields do not count"},
        "name": string("Name of the catalogue"),
        "licence": string("SPDX name of the licence"),
        "site": maybe("string", "Address of the site; null where the site knows none"),
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
    return {"$schema": DIALECT, "title": "The whole catalogue", **record_of(properties), "$defs": definitions}
