"""The whole catalogue as one file of JSON, and its entries as CSV."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from scripts.evidence.facts import Facts
from scripts.website.exports.derived import LICENCE, NOWHERE, Place, exported
from scripts.website.exports.tables import COLUMNS, inside, table

VERSION = 1  # of the files below data/; it grows when a field or a column goes or changes its meaning


def catalog(facts: Facts, place: Place = NOWHERE) -> tuple[str, str]:
    """The whole catalogue as JSON, one line an entry so that versions can be compared, and its entries as CSV."""
    lines: list[str] = []

    def rows() -> Iterator[list[Any]]:
        for record in facts.catalogue.entries.values():
            entry = exported(facts, record, place)
            lines.append(_line(entry))
            yield [inside(entry, path) for path in COLUMNS.values()]

    as_csv = table(COLUMNS, rows())
    head = {"$schema": "schema/catalog.json", "version": VERSION, "name": "smallprint", "licence": LICENCE, "site": place.address or None}
    rest = {
        "comparisons": {id: table.model_dump(mode="json") for id, table in facts.catalogue.comparisons.items()},
        "vocabulary": facts.catalogue.vocabulary.model_dump(mode="json"),
    }
    entries = ",\n".join(lines)
    return f'{_line(head)[:-1]}, "entries": [\n{entries}\n],\n{_line(rest)[1:]}\n', as_csv


def _line(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False)
