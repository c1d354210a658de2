"""Tables: the columns of the CSV files, the numbers that were measured; and all entries as BibTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any

from catalog import FAMILIES
from scripts.curation import bibtex
from scripts.evidence import records
from scripts.evidence.facts import Facts
from scripts.website.exports.derived import LEADING, SCORE, maybe, string

COLUMNS: dict[str, tuple[str, ...]] = {  # of catalog.csv: where the value stands in an entry of catalog.json
    **{
        name: (name,)
        for name in (
            *("id", "family", "name", "title", "authors", "year", "venue", "arxiv", "doi", "url", "tags", "start", "returns"),
            *("builds_on", "compared_with", "summary", "page", "citation_key", "citation", "method", "added", "changed"),
        )
    },
    **{f"effects_{name}": ("score", name) for name in SCORE},
    **{f"measured_{name}": ("leading", name) for name in LEADING},
}


def inside(data: Any, path: tuple[str, ...]) -> Any:
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


def table(heads: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
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
    "id": string("Id of the entry"),
    "tier": {
        "enum": ["exact", "smoke", "sweep", "long", "full", "bite", "rounding"],
        "description": "Length of the run; in a bite, faults were planted in the program; rounding is a smoke run's claims once more, on "
        "another instruction set: what processors differ by",
    },
    "subject": string(
        "reference, method, control_NAME, claim_NAME, claim_NAME[CASE], run or bite; in a sweep @N follows, the operating point"
    ),
    "metric": string(
        "value for a claim; seconds for a run; killed, equivalent, died, planted or possible for a bite; else accuracy, parameters, "
        "nonzeros, bits, multiply_adds, bit_operations, file_bytes, latency, output_error or steps; ledger_NAME is what it took to make "
        "the network, milliseconds_N its time for N images"
    ),
    "value": maybe("number", "The number: shares between 0 and 1, latency over the reference's; nan and inf as words"),
    "data": string("Data: cifar10, cifar10-jpeg75, standin; none for claims that need none"),
    "data_digest": maybe("string", "Digest of these data"),
    "seed": {"type": "integer", "description": "Seed of the run"},
    "device": string("Processor"),
    "threads": {"type": "integer", "description": "How many threads"},
    "python": string("Version of Python"),
    "torch": string("Version of PyTorch"),
    "commit": string("Commit of the repository"),
    "code": string("Digest of all the code that the number rests on"),
    "date": string("Day of the measurement (UTC)"),
    "stale": {"type": "boolean", "description": "Whether the code has changed since, so that its digest is another today"},
}  # fmt: skip


def measured_csv(facts: Facts) -> str:
    """Every number that was measured, one a row."""
    values = attrgetter(*records.COLUMNS)

    def lines() -> Iterator[tuple[Any, ...]]:
        for record in facts.catalogue.entries.values():
            measured = facts.of(record.id)
            for row in measured.rows:
                yield record.family, record.id, *values(row), measured.stale([row])

    return table(["family", "id", *records.COLUMNS, "stale"], lines())
