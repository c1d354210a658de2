"""What the site's search knows of an entry: names, tags, idea, use and claims. Whole pages would make an index of many megabytes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from catalog import Record
from scripts.evidence.facts import Facts

ENTRY, FAMILY, TABLE = 2, 4, 0.5  # a method stands before pages that mention it, a family before its methods, tables last
MOST = 1_000_000  # bytes of the index, compressed
BARE, LETTERS = 85, 2  # bytes that an entry's names take, and letters of what is told of it a byte: measured on the catalogue


def documents(facts: Facts, addresses: Mapping[str, str]) -> list[dict[str, Any]]:
    """All entries, as the theme's search reads them; `addresses` by id. Of thousands it is told what there is room for."""
    records = facts.catalogue.entries.values()
    room = LETTERS * max(0, MOST // max(1, len(records)) - BARE)
    return [_entry(record, addresses[record.id], room) for record in records]


def document(address: str, title: str, *lines: str, boost: float) -> dict[str, Any]:
    """A page of which search knows a few lines."""
    return {
        "location": address,
        "title": escape(title, quote=False),
        "text": "".join(f"<p>{escape(line, quote=False)}</p>" for line in lines),
        "boost": boost,
    }


def _entry(record: Record, address: str, room: int) -> dict[str, Any]:
    entry = record.entry
    title = "" if entry.title == entry.name else entry.title
    claims = record.executable.claims.values() if record.executable else ()
    told = _within(room, (entry.summary, entry.when_to_use or "", " ".join(claim.says for claim in claims)))
    about = f"{entry.venue or ''} {entry.year}".strip()
    lines = filter(None, (title, *told, ", ".join(entry.authors), about))
    tags = [tag.replace("_", " ") for tag in entry.tags]
    return {**document(address, entry.name, *lines, boost=ENTRY if record.executable else 1), "tags": tags}


def _within(room: int, lines: Iterable[str]) -> Iterator[str]:
    """Lines, as far as they fit into so many letters."""
    for line in lines:
        yield textwrap.shorten(line, room, placeholder=" …") if room > 2 else ""
        room -= len(line)
