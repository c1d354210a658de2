"""What the site's search knows of an entry: name, title, authors, tags and idea. Bodies would make an index of many megabytes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from html import escape
from typing import Any

from catalog import Record
from scripts.facts import Facts

BOOST = 2  # an entry stands before pages that mention it
MOST = 1_000_000  # bytes of the index, compressed
BARE, LETTERS = 85, 2  # bytes that an entry takes without its idea, and letters of an idea a byte: measured on the catalogue


def documents(facts: Facts, addresses: Mapping[str, str]) -> list[dict[str, Any]]:
    """All entries, as the theme's search reads them; `addresses` by id. Of thousands, ideas are cut to what there is room for."""
    records = facts.catalogue.entries.values()
    room = LETTERS * max(0, MOST // max(1, len(records)) - BARE)
    return [_entry(record, addresses[record.id], room) for record in records]


def document(address: str, title: str, *lines: str) -> dict[str, Any]:
    """A page of which search knows a few lines."""
    return {
        "location": address,
        "title": escape(title, quote=False),
        "text": "".join(f"<p>{escape(line, quote=False)}</p>" for line in lines),
    }


def _entry(record: Record, address: str, room: int) -> dict[str, Any]:
    entry = record.entry
    title = "" if entry.title == entry.name else entry.title
    idea = textwrap.shorten(entry.summary, room, placeholder=" …") if room > 2 else ""
    about = f"{entry.venue or ''} {entry.year}. {', '.join(entry.tags).replace('_', ' ')}".strip()
    lines = filter(None, (title, idea, ", ".join(entry.authors), about))
    return {**document(address, entry.name, *lines), "boost": BOOST}
