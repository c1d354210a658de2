"""The files of XML: a feed of the newest entries, and the site map."""

from __future__ import annotations

import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterable

from scripts.curation import bibtex, cite
from scripts.evidence.facts import Facts
from scripts.evidence.history import newest
from scripts.website.exports.derived import LICENCE, NOWHERE, Place, day_of
from scripts.website.names import path_of

FEED = "feed.xml"
IN_FEED = 50


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
    changed = {path_of(record): day_of(facts, record, "changed") for record in facts.catalogue.entries.values()}
    root = ET.Element("urlset", {"xmlns": "http://www.sitemaps.org/schemas/sitemap/0.9"})
    for page in sorted(pages):
        item = ET.SubElement(root, "url")
        _add(item, "loc", place.of(page))
        if day := changed.get(page):
            _add(item, "lastmod", day)
    return _xml(root)
